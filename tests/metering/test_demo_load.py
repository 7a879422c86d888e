"""Which year the demo loads: today's, or the one that is asked for; once."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest

from metering.config import Settings
from metering.demo.load import DemoYear, begin
from metering.errors import ConfigurationError

ASKED = date(2026, 9, 1)


def test_a_year_that_is_asked_for_stays_the_one_that_is_loaded(database_url: str) -> None:
    """It is begun once; asked for nothing, or for the same again, it goes on; another one is refused with both days."""
    settings = Settings(database_url=database_url)
    years = [asyncio.run(begin(settings, through)) for through in (ASKED, None, ASKED)]

    assert [DemoYear(ASKED, loaded=False)] * 3 == years
    with pytest.raises(ConfigurationError, match="before 2026-09-01 is here already, not that before 2026-08-01"):
        asyncio.run(begin(settings, date(2026, 8, 1)))


def test_a_year_that_is_not_over_is_refused(database_url: str) -> None:
    """Nothing is begun then: the next start loads the year before today."""
    settings = Settings(database_url=database_url)
    before = datetime.now(UTC).date()
    with pytest.raises(ConfigurationError, match="yet to come"):
        asyncio.run(begin(settings, before + timedelta(days=2)))
    year = asyncio.run(begin(settings))

    assert before <= year.through <= datetime.now(UTC).date()
