"""Products that customers like these use, and these do not: what to offer to whom."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

from health.lists.cross_selling import LIFT_ABOVE, Offer, offers
from health.lists.thresholds import DEFAULTS
from metering.health.customers import Customer, CustomerFilter
from metering.health.known import midnight_after
from metering.health.listing import ListAsked, ListedSubject, ListPage, ListPlace, Reason, check_day, scored_since
from metering.limits import Limits
from metering.store.queries import sql
from metering.store.snapshot import Snapshot

# What was used in so many days is used.
_USED: Final = timedelta(days=90)


async def list_cross_sells(snapshot: Snapshot, chosen: CustomerFilter, asked: ListAsked, limits: Limits) -> ListPage:
    """A page of accounts with a product to offer, the strongest association first; the key of a row is the product.

    Three statements; none for who does not see everything, as it compares customers. Raises InvalidInputError for a day that
    cannot be asked for.
    """
    check_day(asked.day, limits)
    since = await scored_since(snapshot, asked.day)
    nothing = ListPage((), 0, has_next=False, since=since)
    if not snapshot.reach.is_everything or (chosen.text is not None and "\0" in chosen.text):
        return nothing
    end = midnight_after(asked.day)
    pairs = await snapshot.fetch(sql("lists.list_product_pairs"), [end - _USED, end])
    together = {(row["used"], row["offered"]): row["customers"] for row in pairs}
    found = offers(together, pairs[0]["all_customers"] if pairs else 0)
    if not found:
        return nothing
    rows = await snapshot.fetch(sql("lists.list_cross_sells"), _arguments(chosen, asked, found))
    listed = [_listed(row, found, asked.day) for row in rows if row["product"] is not None]
    return ListPage(tuple(listed[: asked.first]), rows[0]["subjects"], has_next=len(listed) > asked.first, since=since)


def _arguments(chosen: CustomerFilter, asked: ListAsked, found: Sequence[Offer]) -> list[object]:
    end, after = midnight_after(asked.day), asked.after
    return [
        *(end - _USED, end, asked.day, DEFAULTS.upsell_score_min),
        *([each.used for each in found], [each.offered for each in found], [each.lift for each in found]),
        None if chosen.bands is None else [band for band in chosen.bands if "\0" not in band],
        *(chosen.attributes, chosen.text, chosen.renews_before),
        *((None, None, None) if after is None else (after.account, after.key, after.rank)),
        asked.first + 1,
    ]


def _listed(row: Any, found: Sequence[Offer], day: date) -> ListedSubject:
    offer = found[row["number"] - 1]
    words = (
        f"uses {offer.used}: of its {offer.users} customers {offer.both} use {offer.offered} too, at least "
        f"{offer.lift:.1f} times as many as of all"
    )
    reason = Reason("product_lift", words, value=offer.lift, threshold=LIFT_ABOVE, name=offer.used)
    return ListedSubject(
        customer=Customer(row["account"], row["name"], row["attributes"]),
        key=row["product"],
        as_of=day,
        place=ListPlace(0, row["place"], row["account"], row["product"]),
        shown=(),
        reasons=(reason,),
        values={},
    )
