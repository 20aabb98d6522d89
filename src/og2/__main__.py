"""`python -m og2` is the command `og2`."""

from og2.cli import main

main()
