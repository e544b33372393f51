"""`python -m swissbrain` is the command `swissbrain`."""

from swissbrain.cli import main

main()
