"""`python -m ingot` is the `ingot` command."""

from .cli import main

main()
