"""How long a state machine is played: thousands of steps in every run of the tests, and many times that by `make soak`."""

import os
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

# How many times as long as ever.
SOAK: Final = int(os.environ.get("METERING_TEST_SOAK", "1"))
# A step on TimescaleDB takes about so many times as long: a refresh of a continuous aggregate is several transactions.
_TIMESCALEDB_SLOWER: Final = 5


def play_machine(machine: type[RuleBasedStateMachine], engine: str, *, plays: int, steps: int) -> None:
    """Play a machine from its beginning so many times, each time for so many steps at the most."""
    slower = _TIMESCALEDB_SLOWER if engine == "timescaledb" else 1
    # Without a deadline: a machine that is busy makes no claim false.
    checked = settings(
        max_examples=plays * SOAK // slower,
        stateful_step_count=steps,
        deadline=None,
        # The same plays in every run of the tests, so that what fails there is of the change; new ones by `make soak`.
        derandomize=SOAK == 1,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(machine, settings=checked)
