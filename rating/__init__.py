"""The functional core that turns usage and a plan into money: no I/O, no clock, no float. See README.md."""
