"""`python -m metering` is the command line."""

from metering.cli import main

main()
