"""Notifications: what is to be told is written with what it tells of, and delivered until it is taken.

event.py       what is told, as a CloudEvent (pure)
publish.py     into the outbox, in the caller's transaction
destinations.py  where to: put, rotate, list
vault.py       how addresses and secrets are kept
addresses.py   where may be sent to (pure)
signature.py   Standard Webhooks (pure)
schedule.py    when it is tried again, and when no more (pure)
slack.py       as a message for people (pure)
courier.py     one attempt, over HTTP
dispatch.py    all of them, in order
deliveries.py  the log, and replaying
"""
