"""`python -m limbeck.cli` is `limbeck`."""

from limbeck.cli import main

main()
