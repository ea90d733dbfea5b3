"""`python -m ooftorch` is the `ooftorch` command."""

from ooftorch.cli.command import main

main()
