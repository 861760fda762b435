"""`python -m limbeck.cli` is `limbeck`."""

from limbeck.cli.main import main

main()
