"""Alerts: rules about usage and spend, evaluated on exact figures; raised at or above a bound, resolved strictly below one.

rules.py      what a rule says: put, list
crossings.py  whether a figure crossed a bound (pure)
included.py   how much of an included quantity is used (pure)
figures.py    what a rule looks at, read in a snapshot
past.py       which periods that are over are looked at (pure)
evaluate.py   rules against figures; what crossed is noted and published in one transaction
history.py    the alerts that there were
"""
