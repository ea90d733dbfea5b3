"""The `ooftorch` command."""
