"""Statements: what subscriptions owe for their billing periods, as drafts of the moment and as what was frozen."""
