"""Linear systems and least squares, small and dense, with errors that hold whatever the spread of the residuals is."""

from collections.abc import Sequence
from math import fsum, sqrt
from statistics import NormalDist
from typing import Final, TypeAlias

import msgspec

Row: TypeAlias = Sequence[float]
# A pivot below this share of its column's own size says that the column is made of others.
_PIVOT_MIN: Final = 1e-9


class LeastSquares(msgspec.Struct, frozen=True, kw_only=True):
    """A coefficient for each column, their standard errors (HC3), and the degrees of freedom that are left.

    A column that others make up has the coefficient 0 and no error (None).
    """

    coefficients: tuple[float, ...]
    errors: tuple[float | None, ...]
    degrees: int


def solve(matrix: Sequence[Row], vector: Row) -> list[float] | None:
    """The x of matrix x = vector, by elimination with pivots. None where there is not exactly one."""
    size = len(vector)
    rows = [[*row, value] for row, value in zip(matrix, vector, strict=True)]
    largest = max((abs(value) for row in matrix for value in row), default=0.0)
    for column in range(size):
        pivot = max(range(column, size), key=lambda at: abs(rows[at][column]))
        if abs(rows[pivot][column]) <= largest * 1e-14:
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for below in range(column + 1, size):
            factor = rows[below][column] / rows[column][column]
            for at in range(column, size + 1):
                rows[below][at] -= factor * rows[column][at]
    found = [0.0] * size
    for at in reversed(range(size)):
        rest = fsum(rows[at][to] * found[to] for to in range(at + 1, size))
        found[at] = (rows[at][size] - rest) / rows[at][at]
    return found


def least_squares(rows: Sequence[Row], outcomes: Row, clusters: Sequence[str] | None = None) -> LeastSquares | None:
    """Regress outcomes on columns and a constant, which is not among them. None without a degree of freedom.

    The columns are centred, so the constant drops out and large levels cost no digits. HC3 divides each residual by
    1 - leverage: what the point itself did to the line is taken back, also where points are few. Points of one cluster
    are not independent of each other: what they did is added up before it is squared, and there are no more degrees of
    freedom than clusters less one.
    """
    count, width = len(rows), len(rows[0]) if rows else 0
    means = [fsum(row[j] for row in rows) / count for j in range(width)] if rows else []
    centred = [[row[j] - means[j] for j in range(width)] for row in rows]
    kept = _independent(centred, width)
    degrees = count - len(kept) - 1
    if degrees < 1:
        return None
    middle = fsum(outcomes) / count
    x = [[row[j] for j in kept] for row in centred]
    inverse = _inverse([[fsum(row[i] * row[j] for row in x) for j in range(len(kept))] for i in range(len(kept))])
    if inverse is None:
        return None
    moments = [fsum(row[i] * (y - middle) for row, y in zip(x, outcomes, strict=True)) for i in range(len(kept))]
    slopes = [fsum(a * b for a, b in zip(line, moments, strict=True)) for line in inverse]
    pulled: dict[object, list[float]] = {}
    for place, (row, y) in enumerate(zip(x, outcomes, strict=True)):
        pull = [fsum(a * b for a, b in zip(line, row, strict=True)) for line in inverse]
        leverage = 1 / count + fsum(a * b for a, b in zip(pull, row, strict=True))
        residual = y - middle - fsum(a * b for a, b in zip(slopes, row, strict=True))
        # A point that alone decides a coefficient is met exactly, and tells nothing of the error.
        share = residual / (1 - leverage) if leverage < 1 - _PIVOT_MIN else 0.0
        together = pulled.setdefault(place if clusters is None else clusters[place], [0.0] * len(kept))
        for at, value in enumerate(pull):
            together[at] += value * share
    variances = [fsum(together[at] ** 2 for together in pulled.values()) for at in range(len(kept))]
    if clusters is not None:
        degrees = min(degrees, len(pulled) - 1)
        if degrees < 1:
            return None
    found = dict(zip(kept, zip(slopes, variances, strict=True), strict=True))
    return LeastSquares(
        coefficients=tuple(found[j][0] if j in found else 0.0 for j in range(width)),
        errors=tuple(sqrt(found[j][1]) if j in found else None for j in range(width)),
        degrees=degrees,
    )


def interval(estimate: float, error: float, degrees: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Where the true value is, with so much confidence, by Student's t."""
    half = t_quantile((1 + confidence) / 2, degrees) * error
    return estimate - half, estimate + half


def t_quantile(probability: float, degrees: float) -> float:
    """Student's quantile, by Cornish and Fisher's expansion: within 0.001 from 8 degrees on."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return fsum(term / degrees**power for power, term in enumerate(terms))


def _independent(rows: Sequence[Row], width: int) -> list[int]:
    """The columns, from the first, that no earlier ones make up (Gram-Schmidt)."""
    kept: list[int] = []
    directions: list[list[float]] = []
    for j in range(width):
        column = [row[j] for row in rows]
        size = sqrt(fsum(value * value for value in column))
        for direction in directions:
            along = fsum(a * b for a, b in zip(column, direction, strict=True))
            column = [a - along * b for a, b in zip(column, direction, strict=True)]
        left = sqrt(fsum(value * value for value in column))
        if size and left > size * _PIVOT_MIN:
            kept.append(j)
            directions.append([value / left for value in column])
    return kept


def _inverse(matrix: Sequence[Row]) -> list[list[float]] | None:
    """Column by column; a symmetric matrix has a symmetric inverse, so these are its rows too."""
    scale = [sqrt(matrix[i][i]) for i in range(len(matrix))]
    scaled = [[value / (scale[i] * scale[j]) for j, value in enumerate(row)] for i, row in enumerate(matrix)]
    lines = []
    for at in range(len(matrix)):
        line = solve(scaled, [float(i == at) for i in range(len(matrix))])
        if line is None:
            return None
        lines.append([value / (scale[i] * scale[at]) for i, value in enumerate(line)])
    return lines
