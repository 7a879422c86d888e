"""A key's standing -> the fields RateLimit-Policy and RateLimit of draft-ietf-httpapi-ratelimit-headers-11. Pure.

Quotas are in events, a unit that the draft's registry does not have; `requests`, its default, would be wrong.
"""

from typing import Final

from metering.standing import Standing

_POLICY: Final = '"events"'


def rate_headers(standing: Standing | None) -> dict[str, str]:
    """The headers that tell a client its limit and what is left of it; none for a key without a rate.

    `t` is for how long there is no more than `r`: until a request that was refused would be taken, or one event where
    nothing is left, and a second otherwise.
    """
    if standing is None:
        return {}
    burst = standing.burst_events_max
    window_seconds = -(-burst // standing.events_per_second_max)
    until_more_seconds = max(1, standing.seconds_until(1 if standing.taken else standing.asked_events))
    return {
        "RateLimit-Policy": f'{_POLICY};q={burst};qu="events";w={window_seconds}',
        "RateLimit": f"{_POLICY};r={standing.available_events};t={until_more_seconds}",
    }
