"""Who plays in the demo: the products, the customers, and the two stories worth following.

Hollis & Wren is a fictional vendor; Cairn is its suite for teams in the field, with a phone plan beside it. Most of its
customers only make the crowd. `FAMILY` and `SILENT_TEAM` are the two accounts whose usage tells something.
"""

import datetime as dt
from decimal import Decimal
from functools import lru_cache
from typing import Final

import msgspec

# ---------------------------------------------------------------- what is sold

QUANTITY_CHOICES: Final = 1024


class Feature(msgspec.Struct, frozen=True):
    """A part of a product: what one event of it measures, and who causes such events."""

    product: str
    name: str
    unit: str
    least: str  # of one event; its decimals are the decimals of every quantity of the feature
    most: str
    people: int  # how often people use it, beside the other features of their products
    machines: int  # the same for machines
    desk_percent: int  # how much of the people's use is at a desk; the rest is on a phone

    def quantities(self) -> tuple[str, ...]:
        """Quantities to choose from with equal chance: most are small and a few are large, as usage is."""
        return _quantities(self.least, self.most)


def scaled(text: str) -> tuple[int, int]:
    """A decimal text as a whole number, and how many of its digits stand after the point."""
    places = len(text.partition(".")[2])
    return int(Decimal(text).scaleb(places)), places


def written(number: int, places: int) -> str:
    """The inverse of `scaled`."""
    return f"{number // 10**places}.{number % 10**places:0{places}d}" if places else str(number)


@lru_cache(maxsize=64)
def _quantities(least_text: str, most_text: str) -> tuple[str, ...]:
    least, places = scaled(least_text)
    most, _ = scaled(most_text)
    steps = QUANTITY_CHOICES - 1
    return tuple(written(least + (most - least) * step**3 // steps**3, places) for step in range(QUANTITY_CHOICES))


FEATURES: Final = (
    # product, feature, unit, least, most, people, machines, percent at a desk
    Feature("maps", "tiles", "call", "20", "400", 5, 6, 25),
    Feature("maps", "routes", "call", "1", "30", 6, 2, 15),
    Feature("maps", "geocoding", "call", "1", "80", 2, 3, 60),
    Feature("maps", "offline-areas", "gigabyte", "0.050", "2.400", 1, 0, 5),
    Feature("boards", "tasks", "seat-hour", "0.020", "0.500", 9, 0, 50),
    Feature("boards", "photos", "seat-hour", "0.020", "0.500", 5, 0, 20),
    Feature("boards", "checklists", "seat-hour", "0.020", "0.500", 4, 0, 30),
    Feature("boards", "reports", "seat-hour", "0.020", "0.500", 2, 0, 90),
    Feature("boards", "timeline", "seat-hour", "0.020", "0.500", 3, 0, 60),  # new this year: see FEATURE_LAUNCH_DAY
    Feature("boards", "help", "seat-hour", "0.020", "0.500", 1, 0, 70),
    Feature("boards", "setup", "seat-hour", "0.020", "0.500", 0, 0, 100),
    Feature("talk", "messages", "message", "1", "1", 9, 0, 35),
    Feature("talk", "voice", "minute", "0.20", "38.00", 4, 0, 15),
    Feature("talk", "video", "minute", "2.00", "75.00", 2, 0, 70),
    Feature("talk", "conference", "minute", "5.00", "360.00", 1, 0, 80),
    Feature("storage", "uploads", "gigabyte", "0.002", "3.500", 4, 3, 40),
    Feature("storage", "downloads", "gigabyte", "0.001", "1.800", 4, 1, 60),
    Feature("storage", "archive", "gigabyte", "0.500", "24.000", 0, 2, 100),
    Feature("api", "read", "call", "1", "900", 1, 9, 100),
    Feature("api", "write", "call", "1", "240", 1, 4, 100),
    Feature("api", "webhooks", "call", "1", "60", 0, 3, 100),
    Feature("mobile", "data", "gigabyte", "0.005", "0.120", 0, 0, 0),
    Feature("mobile", "voice", "minute", "0.20", "18.00", 0, 0, 0),
    Feature("mobile", "text", "message", "1", "1", 0, 0, 0),
    Feature("mobile", "ringtones", "download", "1", "1", 0, 0, 0),
)

TIMED_FEATURES: Final = ("voice", "video", "conference")
"""Classified `peak` or `off_peak` by the customer's clock; all else is `billable`."""

FEATURE_CLASSIFICATIONS: Final[dict[str, str | None]] = {"setup": "setup", "help": None}

PLANS: Final = ((20, "enterprise"), (8, "business"), (0, "team"))
"""The plan of a customer with more than so many people: the end of its subscriptions' names."""

# ---------------------------------------------------------------- where and when people work


WEEKEND: Final = (5, 6)
PEAK_HOURS: Final = range(8, 18)
"""On working days; the features of `TIMED_FEATURES` cost more then."""

# Summer time begins on such a Sunday of such a month and ends on another; -1 is the last Sunday.
SUMMER_TIMES: Final = {
    "europe": ((3, -1), (10, -1)),
    "america": ((3, 2), (11, 1)),
    "australia": ((10, 1), (4, 1)),
}


class Zone(msgspec.Struct, frozen=True):
    """A customer's clock. Kept here rather than asked of the machine, whose table of time zones may differ."""

    region: str
    standard_offset_minutes: int
    summer_time: str | None

    def offset_minutes(self, date: dt.date) -> int:
        """How far ahead of UTC the clock is on most of a day."""
        if self.summer_time is None:
            return self.standard_offset_minutes
        begin, end = (_sunday(date.year, month, which) for month, which in SUMMER_TIMES[self.summer_time])
        # In the south summer spans the new year.
        summer = begin <= date < end if begin < end else date >= begin or date < end
        return self.standard_offset_minutes + (60 if summer else 0)

    def quiet(self, date: dt.date) -> float:
        """What the region's holidays leave of a day."""
        day_of_year = date.isoformat()[5:]
        return next((left for first, last, left in QUIET_DAYS[self.region] if first <= day_of_year <= last), 1.0)


def _sunday(year: int, month: int, which: int) -> dt.date:
    """The first, second … Sunday of a month, or with -1 the last (asked of months of 31 days only)."""
    if which < 0:
        end = dt.date(year, month, 31)
        return end - dt.timedelta(days=(end.weekday() + 1) % 7)
    start = dt.date(year, month, 1)
    return start + dt.timedelta(days=6 - start.weekday() + 7 * (which - 1))


ZONES: Final = {
    "London": Zone("europe", 0, "europe"),
    "Paris": Zone("europe", 60, "europe"),
    "Berlin": Zone("europe", 60, "europe"),
    "New York": Zone("america", -300, "america"),
    "Chicago": Zone("america", -360, "america"),
    "Denver": Zone("america", -420, "america"),
    "Los Angeles": Zone("america", -480, "america"),
    "Kolkata": Zone("india", 330, None),
    "Perth": Zone("australia", 480, None),
    "Sydney": Zone("australia", 600, "australia"),
}

# One digit per local hour, 0 to 23: how busy it is, on a working day and at the weekend.
PATTERNS: Final = {
    "office": ("000000138999689986321100", "000000000111111111110000"),
    "crew": ("000015899968999742110000", "000001222222110000000000"),
    "shop": ("000000002468999998876310", "000000002578999999987420"),
    "home": ("210001354323454456788864", "421000013556666667788875"),
    "machines": ("555555667777777777766655", "555555555556666655555555"),
}

# From one day of the year to another, both included: what is left of an ordinary day.
QUIET_DAYS: Final = {
    "europe": (("12-23", "12-31", 0.35), ("01-01", "01-01", 0.1), ("05-01", "05-01", 0.25), ("07-25", "08-20", 0.75)),
    "america": (("12-23", "12-31", 0.45), ("01-01", "01-01", 0.1), ("07-03", "07-05", 0.3), ("11-26", "11-29", 0.4)),
    "india": (("01-26", "01-26", 0.2), ("08-15", "08-15", 0.2), ("10-02", "10-02", 0.2), ("12-25", "12-25", 0.5)),
    "australia": (("12-23", "12-31", 0.3), ("01-01", "01-10", 0.5), ("01-26", "01-26", 0.2), ("04-25", "04-25", 0.2)),
}

CLOUD_REGIONS: Final = {"europe": "eu-west", "america": "us-central", "india": "in-south", "australia": "au-east"}
MACHINE_NAMES: Final = {"maps": "tracker", "storage": "gateway", "api": "server"}
APP_VERSIONS: Final = ("5.8.2", "5.9.0", "5.9.1", "6.0.0")

GIVEN_NAMES: Final = {
    "europe": "ana bruno clara dieter elif finn greta hugo ines jonas katya liam marta nils olga pavel rosa sven",
    "america": "alice ben carmen dwayne erin frank gloria hector ivy jamal kim luis megan noah paula ray sofia ty",
    "india": "aarav bhavna chetan divya esha farhan gauri harish isha jay kavya lalit meera nikhil pooja rohan",
    "australia": "archie bindi callum daisy ethan freya gus hana jack kiri lachlan mia nate poppy reuben talia",
}
FAMILY_NAMES: Final = {
    "europe": "silva berger duval eriksen ferrari holm ivanova jansen kowalski lindqvist moreau novak petit weiss",
    "america": "adams brooks chavez diaz ellis foster garcia hayes johnson kelly lopez miller nguyen ortiz reed",
    "india": "agarwal banerjee chopra das gupta iyer joshi khan menon nair patel rao sharma verma yadav",
    "australia": "baker campbell doyle evans fraser grant hughes kaur macleod nolan ryan singh taylor walsh",
}

# ---------------------------------------------------------------- the crowd


class Customer(msgspec.Struct, frozen=True):
    """One account of the crowd. Days ago are counted back from the end of the demo's year."""

    account: str
    zone: str
    pattern: str
    people: int
    machines: int
    daily_events: int  # on an ordinary working day in the middle of the year
    growth_percent: int  # over a year
    products: str
    joined_days_ago: int | None = None
    left_days_ago: int | None = None
    trial_days: int = 0
    classification: str | None = None  # of all its events, whatever the feature

    def names(self, given_from: int, family_from: int) -> list[tuple[str, str]]:
        """The names of the people, no two alike, and what the devices of each are called after."""
        region = ZONES[self.zone].region
        given, family = GIVEN_NAMES[region].split(), FAMILY_NAMES[region].split()
        names: list[tuple[str, str]] = []
        for rank in range(self.people):
            first = given[(given_from + rank) % len(given)]
            last = family[(family_from + 11 * rank + rank // len(given)) % len(family)]
            names.append((f"{first}.{last}", first if rank < len(given) else f"{first}-{last}"))
        return names


CUSTOMERS: Final = (
    # account, zone, pattern, people, machines, daily events, growth, products, joined and left days ago, trial days
    Customer("switchgrass-energy", "Denver", "crew", 36, 14, 310, 20, "maps boards talk storage api"),
    Customer("nordlicht-logistik", "Berlin", "crew", 28, 10, 175, 35, "maps boards talk api"),
    Customer("saltmarsh-ports", "Sydney", "crew", 24, 8, 115, 5, "maps boards talk storage api"),
    Customer("kaveri-grid", "Kolkata", "office", 22, 9, 93, 60, "maps boards storage api"),
    Customer("alderbrook-rail", "London", "crew", 20, 6, 78, 10, "maps boards talk storage"),
    Customer("quillon-networks", "New York", "office", 18, 8, 72, -15, "boards talk api"),
    Customer("castellane-eaux", "Paris", "crew", 16, 6, 62, 15, "maps boards storage"),
    Customer("redgum-minerals", "Perth", "crew", 14, 8, 54, -5, "maps talk storage"),
    Customer("fernridge-forestry", "Los Angeles", "crew", 14, 4, 48, 25, "maps boards talk"),
    Customer("hollis-wren", "London", "office", 12, 4, 43, 30, "boards talk api", classification="internal"),
    Customer("monsoon-couriers", "Kolkata", "shop", 12, 5, 39, 80, "maps talk api"),
    Customer("bellweather-claims", "Chicago", "office", 12, 2, 36, 0, "boards talk storage"),
    Customer("isarwerk-montage", "Berlin", "crew", 10, 2, 33, 10, "maps boards storage"),
    Customer("lark-hill-catering", "New York", "shop", 9, 0, 31, 15, "boards talk"),
    Customer("highmoor-estates", "London", "office", 9, 2, 29, -25, "boards storage"),
    Customer("sandpiper-survey", "Sydney", "crew", 8, 4, 27, 20, "maps storage api"),
    Customer("lantern-street-transit", "New York", "crew", 8, 6, 26, 5, "maps talk api"),
    Customer("deccan-harvest", "Kolkata", "crew", 8, 5, 24, 45, "maps storage"),
    Customer("fjordvik-havbruk", "Berlin", "crew", 7, 5, 23, 10, "maps boards storage"),
    Customer("copper-lane-electric", "Denver", "crew", 7, 0, 22, 0, "maps boards talk"),
    Customer("tramontane-solaire", "Paris", "crew", 7, 4, 21, 55, "maps boards api"),
    Customer("wattlebird-parks", "Sydney", "crew", 6, 3, 20, 0, "maps boards"),
    Customer("ironford-lifts", "London", "crew", 6, 4, 19, 10, "boards talk api"),
    Customer("prairie-vet-network", "Chicago", "office", 6, 0, 18, 15, "boards talk"),
    Customer("malabar-growers", "Kolkata", "office", 6, 2, 17, 25, "boards storage"),
    Customer("harbour-lane-events", "Sydney", "shop", 6, 0, 17, -10, "boards talk"),
    Customer("olmo-restauro", "Berlin", "office", 5, 0, 16, 5, "boards storage"),
    Customer("granite-gap-rescue", "Denver", "shop", 5, 3, 16, 10, "maps talk"),
    Customer("kingfisher-canals", "London", "crew", 5, 2, 15, -30, "maps boards"),
    Customer("juniper-home-care", "New York", "shop", 5, 0, 15, 20, "boards talk"),
    Customer("zephyr-drones", "Los Angeles", "office", 6, 4, 26, 90, "maps storage api", 140, None, 30),
    Customer("tideline-labs", "London", "office", 5, 2, 20, 40, "boards storage api", 95, None, 30),
    Customer("bazaar-express", "Kolkata", "shop", 6, 3, 22, 70, "maps talk api", 210),
    Customer("moss-and-stone", "London", "crew", 5, 0, 24, 0, "maps boards", None, 80),  # the one that left
    Customer("blue-heron-tours", "New York", "shop", 4, 0, 18, 0, "maps talk", 24, None, 30),  # still in its trial
    Customer("southerly-surf", "Sydney", "shop", 3, 0, 14, 0, "boards talk", 130, 100, 30),  # its trial led nowhere
    Customer("paper-kite-films", "Los Angeles", "office", 4, 1, 16, 0, "boards storage", 15, None, 30),
    Customer("old-quarry-theatre", "London", "shop", 3, 0, 11, 5, "boards"),
)

# ---------------------------------------------------------------- story one: who is responsible for the bill?


class Phone(msgspec.Struct, frozen=True):
    """One phone of the family: whose it is, and what it uses in an ordinary month."""

    user: str
    device: str
    data: str
    ringtones: str
    voice: str
    text: str

    def monthly(self) -> dict[str, str]:
        """The ordinary month by feature of the product `mobile`."""
        return {"data": self.data, "ringtones": self.ringtones, "voice": self.voice, "text": self.text}


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """A phone plan with four phones. In the last full month the bill is about 200 higher: the sum does not say why."""

    account: str
    subscription: str
    product: str
    zone: str
    pattern: str
    phones: tuple[Phone, ...]
    jumping_device: str
    jump: dict[str, str]  # by feature, on top of the ordinary month
    prices: dict[str, str]  # by feature, for one unit: the prices by which the jump costs 200

    def jump_month(self, through: dt.date) -> tuple[dt.date, dt.date]:
        """The last full calendar month before `through`, as a half-open span of days."""
        end = through.replace(day=1)
        return (end - dt.timedelta(days=1)).replace(day=1), end


FAMILY: Final = Family(
    account="ashdown-family",
    subscription="ashdown-mobile-family",
    product="mobile",
    zone="London",
    pattern="home",
    phones=(
        # user, device, gigabytes, ringtones, minutes, texts
        Phone("ruth@ashdown.example", "ruth-phone", "4.200", "1", "210.00", "180"),
        Phone("daniel@ashdown.example", "daniel-phone", "5.100", "1", "260.00", "90"),
        Phone("maya@ashdown.example", "maya-phone", "6.400", "3", "80.00", "420"),
        Phone("leo@ashdown.example", "leo-phone", "3.000", "1", "40.00", "210"),
    ),
    jumping_device="maya-phone",
    jump={"data": "25.000", "ringtones": "20"},
    prices={"data": "6.00", "ringtones": "2.50", "voice": "0.05", "text": "0.02"},
)

# ---------------------------------------------------------------- story two: no news is good news?

CONTRACT_DAYS: Final = 365
ONBOARDING_DAYS: Final = 60
FEATURE_LAUNCH_DAY: Final = 126
"""Contract day, counted from 0, on which `timeline` is launched: a Monday, as contract days 0, 7, 14 … are."""


class Phase(msgspec.Struct, frozen=True):
    """How a user works from one contract day on, until the next phase begins or the user falls silent."""

    first_day: int
    days_of_ten: int  # on how many of ten working days the user comes
    daily_events: int
    path: tuple[str, ...]  # the features, in the order in which the user goes through them
    steady: bool = True  # False: the same features, but in no order


class Seat(msgspec.Struct, frozen=True):
    """One of the six: who it is, why the story ends as it does, and when."""

    user: str
    role: str
    ending: str
    silent_days_before_renewal: int | None  # the last day of use, counted back; None: never falls silent
    phases: tuple[Phase, ...]

    @property
    def last_day(self) -> int | None:
        """The contract day of the last use, or None for the one who stays."""
        return None if self.silent_days_before_renewal is None else CONTRACT_DAYS - self.silent_days_before_renewal


class SilentTeam(msgspec.Struct, frozen=True, kw_only=True):
    """An annual contract for six. Nobody complains; one after another they stop, and nobody is told."""

    account: str
    subscription: str
    product: str
    zone: str
    champion: str
    seats: tuple[Seat, ...]  # in the order in which they fall silent; the last one stays

    def contract_start(self, through: dt.date) -> dt.date:
        """A Monday 235 to 241 days ago, so that every day the story names falls on the same weekday in every run."""
        latest = through - dt.timedelta(days=235)
        return latest - dt.timedelta(days=latest.weekday())

    def renewal(self, through: dt.date) -> dt.date:
        """The day on which the contract would be renewed: 124 to 130 days ahead."""
        return self.contract_start(through) + dt.timedelta(days=CONTRACT_DAYS)

    def silent_on(self, seat: Seat, through: dt.date) -> dt.date | None:
        """The day of the last use of a seat, or None for the one who stays."""
        if seat.silent_days_before_renewal is None:
            return None
        return self.renewal(through) - dt.timedelta(days=seat.silent_days_before_renewal)


SILENT_TEAM: Final = SilentTeam(
    account="fennimore-gardens",
    subscription="fennimore-boards-team",
    product="boards",
    zone="London",
    champion="nora.lindgren@fennimore-gardens.example",
    seats=(
        Seat(
            "tomas.varga@fennimore-gardens.example",
            "setup engineer",
            "has set everything up and is no longer needed: a benign silence",
            305,
            (Phase(0, 10, 33, ("setup", "setup", "setup", "setup", "setup", "setup", "tasks")),),
        ),
        Seat(
            "helen.brandt@fennimore-gardens.example",
            "bookkeeper",
            "decides that her work does not need it",
            284,
            (
                Phase(0, 10, 32, ("reports", "tasks", "help", "checklists")),
                Phase(ONBOARDING_DAYS, 4, 5, ("reports", "tasks")),
            ),
        ),
        Seat(
            "idris.cole@fennimore-gardens.example",
            "crew lead",
            "does not find the way through the new screens and gives up",
            221,
            (
                Phase(0, 10, 35, ("tasks", "photos", "help", "checklists")),
                Phase(ONBOARDING_DAYS, 9, 15, ("tasks", "tasks", "photos")),
                Phase(FEATURE_LAUNCH_DAY, 6, 7, ("tasks", "help", "timeline", "photos", "help"), steady=False),
            ),
        ),
        Seat(
            "petra.sloane@fennimore-gardens.example",
            "planner",
            "goes back to her spreadsheet",
            214,
            (
                Phase(0, 10, 34, ("tasks", "reports", "help", "photos")),
                Phase(ONBOARDING_DAYS, 9, 14, ("photos", "photos", "tasks")),
                Phase(FEATURE_LAUNCH_DAY, 6, 8, ("photos", "timeline", "help", "tasks"), steady=False),
            ),
        ),
        Seat(
            "nora.lindgren@fennimore-gardens.example",
            "operations manager",
            "the champion: leaves for another job",
            165,
            (
                Phase(0, 10, 38, ("tasks", "photos", "checklists", "reports", "help")),
                Phase(ONBOARDING_DAYS, 10, 20, ("tasks", "checklists", "photos", "reports")),
                Phase(FEATURE_LAUNCH_DAY, 10, 15, ("tasks", "timeline", "help", "photos", "checklists"), steady=False),
                Phase(147, 10, 19, ("timeline", "tasks", "photos", "reports")),
            ),
        ),
        Seat(
            "sam.whitlock@fennimore-gardens.example",
            "site supervisor",
            "stays, alone",
            None,
            (
                Phase(0, 10, 34, ("tasks", "photos", "help", "checklists")),
                Phase(ONBOARDING_DAYS, 9, 14, ("tasks", "photos", "checklists")),
                Phase(FEATURE_LAUNCH_DAY, 8, 10, ("tasks", "timeline", "help", "photos"), steady=False),
                Phase(154, 8, 13, ("timeline", "tasks", "photos")),
            ),
        ),
    ),
)
