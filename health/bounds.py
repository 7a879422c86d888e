"""What a scorecard may hold: enough for any customer, little enough to be read by one."""

from typing import Final

BANDS_MIN: Final = 2
BANDS_MAX: Final = 12
MEASURES_MAX: Final = 40
TREE_LEVELS_MAX: Final = 5
CURVE_POINTS_MAX: Final = 20
CAPS_MAX: Final = 20
CONDITIONS_MAX: Final = 20
EXPRESSIONS_MAX: Final = 40
EXPRESSION_LEVELS_MAX: Final = 8
NAME_CHARS_MAX: Final = 256
NOTE_CHARS_MAX: Final = 1000

# A person's word on a score is reviewed within a quarter.
OVERRIDE_DAYS_MAX: Final = 90

# Weights, days and values on curves: far from where binary floats lose whole numbers.
NUMBER_MAX: Final = 1e12

# Points of a score; 100 is healthy, everywhere.
SCORE_MIN: Final = 0.0
SCORE_MAX: Final = 100.0
