"""`python -m ooftorch` is the `ooftorch` command."""

from ooftorch.cli.command import main

if __name__ == "__main__":
    main()
