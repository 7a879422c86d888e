"""What a plan may hold. Exactness rests on the digits: within them no step of a calculation is rounded silently."""

from typing import Final

# Quantities, prices and amounts as they are given: digits in all, and digits after the point.
DIGITS_MAX: Final = 38
FRACTION_DIGITS_MAX: Final = 18

# One plan.
PRICES_MAX: Final = 500
TIERS_MAX: Final = 100
NAME_CHARS_MAX: Final = 256
