"""Bars as SVG: light or dark as the reader's machine is, with every value in words, nothing loaded, the same each time."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from textwrap import wrap
from typing import Final

import msgspec

_WIDTH: Final = 760
_MARGIN: Final = 24
# What the value at the end of the longest bar may take.
_VALUE_WIDTH: Final = 90
_SPAN: Final = _WIDTH - 2 * _MARGIN - _VALUE_WIDTH
_BAR: Final = 15
_LINE: Final = 18
# No font is known here, so what a line holds is judged by the widest ones that machines have.
_CHARACTERS_A_LINE: Final = 80
_CHARACTER_WIDTH: Final = 7.6
_STYLE: Final = """
svg { --ground: #ffffff; --text: #1b1f24; --quiet: #57606a; --line: #d5dae0; --first: #0b5cad; --second: #c2570c; }
@media (prefers-color-scheme: dark) {
  svg { --ground: #16181b; --text: #e6e6e6; --quiet: #9aa4ae; --line: #383e45; --first: #7db8f5; --second: #f0a868; }
}
text { fill: var(--text); font: 13px system-ui, sans-serif; paint-order: stroke; stroke: var(--ground); stroke-width: 3px; }
.title { font-size: 17px; font-weight: 600; }
.heading { font-size: 14px; font-weight: 600; }
.quiet { fill: var(--quiet); font-size: 12px; }
.ground { fill: var(--ground); }
.line { stroke: var(--line); }
.first { fill: var(--first); }
.second { fill: var(--second); }
"""
_CLASSES: Final = ("first", "second")


class Bar(msgspec.Struct, frozen=True):
    """A value as it is drawn and as it is written, in one of its panel's series."""

    value: float
    shown: str
    series: int


class Group(msgspec.Struct, frozen=True):
    """Bars below one label."""

    label: str
    bars: tuple[Bar, ...]


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """Groups of bars on one axis, which begins at zero, or goes by powers of ten; `note` says where they are from."""

    heading: str
    note: str
    unit: str
    series: tuple[str, ...]
    groups: tuple[Group, ...]
    is_logarithmic: bool = False


class Chart(msgspec.Struct, frozen=True):
    """Panels below each other; `name` is that of its file."""

    name: str
    title: str
    panels: tuple[Panel, ...]

    @property
    def description(self) -> str:
        """Everything that the chart shows, in words."""
        return " ".join(_described(panel) for panel in self.panels)


class _Axis:
    """From values to places, in pixels; marks stand at round values."""

    def __init__(self, values: Sequence[float], *, is_logarithmic: bool) -> None:
        self._is_logarithmic = is_logarithmic
        positive = [value for value in values if value > 0] or [1.0]
        if is_logarithmic:
            # The least value lies above the first mark: else it would have no bar.
            least, most = math.ceil(math.log10(min(positive))) - 1, math.ceil(math.log10(max(positive)))
            self.marks = [10.0**power for power in range(least, most + 1)]
        else:
            step = _round_step(max(positive))
            self.marks = [step * number for number in range(math.ceil(max(positive) / step) + 1)]

    def place(self, value: float) -> float:
        """How far from where bars begin."""
        first, last = self.marks[0], self.marks[-1]
        if not self._is_logarithmic:
            return _SPAN * value / last
        return _SPAN * math.log10(max(value, first) / first) / math.log10(last / first)


def _round_step(most: float) -> float:
    """One, two or five times a power of ten, of which three to six go into the greatest value."""
    power: float = 10.0 ** math.floor(math.log10(most / 3))
    return next(power * times for times in (1, 2, 5, 10) if most / (power * times) <= 6)


def svg(chart: Chart) -> str:
    """The chart as a file."""
    parts = [f'<text class="title" x="{_MARGIN}" y="36">{escape(chart.title)}</text>']
    top = 52.0
    for panel in chart.panels:
        # Panels are compared with each other: those of one unit have one axis.
        alike = [each for each in chart.panels if _kind(each) == _kind(panel)]
        drawn, top = _panel(panel, _axis(alike), top)
        parts += drawn
    height = round(top + _MARGIN / 2)
    title, words = f"{chart.name}-title", f"{chart.name}-words"
    size = f'width="{_WIDTH}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {_WIDTH} {height}" role="img"',
            f'  aria-labelledby="{title} {words}">',
            f'<title id="{title}">{escape(chart.title)}</title>',
            f'<desc id="{words}">{escape(chart.description)}</desc>',
            f"<style>{_STYLE}</style>",
            f'<rect class="ground" {size} rx="6"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _kind(panel: Panel) -> tuple[str, bool]:
    return panel.unit, panel.is_logarithmic


def _axis(panels: Sequence[Panel]) -> _Axis:
    values = [bar.value for panel in panels for group in panel.groups for bar in group.bars]
    return _Axis(values, is_logarithmic=panels[0].is_logarithmic)


def _panel(panel: Panel, axis: _Axis, top: float) -> tuple[list[str], float]:
    """The panel's parts, and where the next one begins."""
    parts = []
    for text, kind in [(panel.heading, "heading"), (panel.note, "quiet")]:
        for line in wrap(text, _CHARACTERS_A_LINE):
            top += _LINE
            parts.append(f'<text class="{kind}" x="{_MARGIN}" y="{top:.1f}">{escape(line)}</text>')
    top += _LINE + 6
    parts += _legend(panel.series, top)
    top += 6
    began, bars = top, []
    for group in panel.groups:
        top += _LINE
        bars.append(f'<text x="{_MARGIN}" y="{top:.1f}">{escape(group.label)}</text>')
        top += 5
        for bar in group.bars:
            bars += _bar(bar, axis, top)
            top += _BAR + 3
        top += 4
    return [*parts, *_marks(axis, panel.unit, began, top), *bars], top + 2 * _LINE


def _legend(series: Sequence[str], top: float) -> Iterator[str]:
    left = float(_MARGIN)
    for kind, name in zip(_CLASSES, series, strict=False):
        yield f'<rect class="{kind}" x="{left:.1f}" y="{top - 10:.1f}" width="11" height="11" rx="2"/>'
        yield f'<text x="{left + 17:.1f}" y="{top:.1f}">{escape(name)}</text>'
        left += 45 + _CHARACTER_WIDTH * len(name)


def _bar(bar: Bar, axis: _Axis, top: float) -> Iterator[str]:
    length = axis.place(bar.value)
    yield (
        f'<rect class="{_CLASSES[bar.series]}" x="{_MARGIN}" y="{top:.1f}" width="{length:.1f}" height="{_BAR}" rx="1.5"/>'
    )
    yield f'<text x="{_MARGIN + length + 6:.1f}" y="{top + 12:.1f}">{escape(bar.shown)}</text>'


def _marks(axis: _Axis, unit: str, began: float, ended: float) -> Iterator[str]:
    """Lines behind the bars, with what they stand for below them."""
    for mark in axis.marks:
        left = _MARGIN + axis.place(mark)
        yield (
            f'<line class="line" x1="{left:.1f}" y1="{began + 6:.1f}" x2="{left:.1f}" y2="{ended:.1f}" '
            f'stroke-dasharray="{"none" if mark == axis.marks[0] else "2 3"}"/>'
        )
        anchor = "start" if mark == axis.marks[0] else "middle"
        # A float of a power of ten as it is said: 0.1, 1,000.
        shown = f"{mark:,.10g}" if mark < 1 else f"{mark:,.0f}"
        last = f" {unit}" if mark == axis.marks[-1] else ""
        yield f'<text class="quiet" text-anchor="{anchor}" x="{left:.1f}" y="{ended + 14:.1f}">{shown}{escape(last)}</text>'


def _described(panel: Panel) -> str:
    """A panel in words: all its values."""
    groups = "; ".join(
        f"{group.label}: {', '.join(f'{bar.shown} {panel.unit} {panel.series[bar.series]}' for bar in group.bars)}"
        for group in panel.groups
    )
    return f"{panel.heading}. {groups}."
