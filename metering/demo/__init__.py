"""A year of believable usage for `metering demo`: `cast` says who and what, `story` says when and how much."""
