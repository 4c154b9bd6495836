"""`python -m fastac`: the command line."""

from fastac.cli import main

main(prog_name="fastac")
