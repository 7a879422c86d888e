"""The functional core that turns measures and a scorecard into a score with reasons: no I/O, no clock. See README.md."""
