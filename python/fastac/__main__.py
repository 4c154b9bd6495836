"""`python -m fastac`: the command line."""

from fastac_command import main

main()
