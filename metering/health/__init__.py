"""The shell around `health/`: what is known of customers is taken, measured, scored, kept and shown."""
