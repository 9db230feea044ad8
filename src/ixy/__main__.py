"""`python -m ixy` is the command `ixy`."""

from ixy.cli import main

main()
