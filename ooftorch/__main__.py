"""`python -m ooftorch` is the `ooftorch` command."""

from ooftorch.cli import main

main()
