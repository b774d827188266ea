"""Charts as inline SVG: no network, crisp at any size, coloured by the page's style sheet (light and dark).

A chart is drawn in units of its own view box and grows with the page. Colours and text come from the classes
`grid`, `tick`, `label`, `line`, `mark` and `s0`, `s1`, … of series; marks differ in shape too, so that no reader
depends on colour alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 46


@dataclass(frozen=True)
class Series:
    """Named points of a chart; `notes` (one per point) appear when the mouse rests on a mark."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    notes: Sequence[str] = ()
    hollow: Sequence[bool] = ()


@dataclass(frozen=True)
class Axis:
    """What an axis shows and from where to where; ticks stand at round numbers between."""

    label: str
    low: float
    high: float
    whole: bool = False

    @property
    def ticks(self) -> list[float]:
        """Round numbers within the axis, four to seven.

        >>> Axis("epoch", 0, 9, whole=True).ticks
        [0.0, 2.0, 4.0, 6.0, 8.0]
        """
        step = round_step((self.high - self.low) / 6)
        step = max(step, 1.0) if self.whole else step
        first = math.ceil(self.low / step - 1e-9)
        return [round(n * step, 10) for n in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def share(self, value: float) -> float:
        """Where `value` stands on the axis: 0 at its low end, 1 at its high end."""
        return (value - self.low) / (self.high - self.low)


def round_step(step: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten that is not below `step`.

    >>> round_step(0.3), round_step(7.0)
    (0.5, 10.0)
    """
    scale = 10.0 ** math.floor(math.log10(step))
    return next(m * scale for m in (1.0, 2.0, 5.0, 10.0) if m * scale >= step * (1 - 1e-9))


def spanning(label: str, values: Sequence[float], *, zero: bool = False, whole: bool = False) -> Axis:
    """An axis that holds all finite `values` with a little room above, from zero where asked."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    low = min(low, 0.0) if zero else low
    high = high if high > low else low + 1.0
    return Axis(label, low, high if whole else high + 0.05 * (high - low), whole)


def line_chart(title: str, series: Sequence[Series], x: Axis, y: Axis) -> Markup:
    """One line per series; points that are not finite interrupt it. A lone point is drawn as a mark."""
    body = []
    for number, one in enumerate(series):
        for run in _finite_runs(one):
            if len(run) == 1:
                body.append(_mark(number, *_place(x, y, *run[0]), hollow=False, note=""))
            points = " ".join(f"{px:.1f},{py:.1f}" for px, py in (_place(x, y, *point) for point in run))
            body.append(f'<polyline class="line s{number}" points="{points}"/>')
    return _chart(title, x, y, body)


def scatter_chart(title: str, series: Sequence[Series], axis_x: Axis, axis_y: Axis) -> Markup:
    """One mark per point and the line on which x equals y."""
    low, high = max(axis_x.low, axis_y.low), min(axis_x.high, axis_y.high)
    ends = [_place(axis_x, axis_y, value, value) for value in (low, high)]
    body = ['<line class="identity" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'.format(*ends[0], *ends[1])]
    for number, one in enumerate(series):
        notes = one.notes or [""] * len(one.x)
        hollows = one.hollow or [False] * len(one.x)
        for px, py, note, hollow in zip(one.x, one.y, notes, hollows, strict=True):
            if math.isfinite(px) and math.isfinite(py):
                body.append(_mark(number, *_place(axis_x, axis_y, px, py), hollow=hollow, note=note))
    return _chart(title, axis_x, axis_y, body)


def mark_symbol(number: int) -> Markup:
    """The mark of series `number` alone, for a legend."""
    return Markup(f'<svg class="key" viewBox="-7 -7 14 14">{_mark(number, 0, 0, hollow=False, note="")}</svg>')


def line_symbol(number: int) -> Markup:
    """A piece of the line of series `number` alone, for a legend."""
    return Markup(
        f'<svg class="key" viewBox="-7 -7 14 14"><line class="line s{number}" x1="-7" y1="0" x2="7" y2="0"/></svg>'
    )


def _chart(title: str, x: Axis, y: Axis, body: list[str]) -> Markup:
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *_frame(x, y),
        *body,
        "</svg>",
    ]
    return Markup("\n".join(parts))


def _frame(x: Axis, y: Axis) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in y.ticks:
        py = _place(x, y, x.low, tick)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{py:.1f}" x2="{right}" y2="{py:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{py + 5:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x.ticks:
        px = _place(x, y, tick, y.low)[0]
        parts.append(f'<line class="grid" x1="{px:.1f}" y1="{TOP}" x2="{px:.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{px:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    middle_x, middle_y = (LEFT + right) / 2, (TOP + bottom) / 2
    parts.append(f'<text class="label" x="{middle_x}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text class="label" transform="translate(13 {middle_y}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.label)}</text>"
    )
    return parts


def _place(x: Axis, y: Axis, value_x: float, value_y: float) -> tuple[float, float]:
    return (
        LEFT + x.share(value_x) * (WIDTH - LEFT - RIGHT),
        HEIGHT - BOTTOM - y.share(value_y) * (HEIGHT - TOP - BOTTOM),
    )


_SHAPES = (
    '<circle r="4.5" {}/>',
    '<rect x="-4" y="-4" width="8" height="8" {}/>',
    '<path d="M0-5.5L5.5 4.5H-5.5Z" {}/>',
    '<path d="M0-6L6 0L0 6L-6 0Z" {}/>',
)


def _mark(number: int, px: float, py: float, *, hollow: bool, note: str) -> str:
    kind = f'class="mark s{number}{" hollow" if hollow else ""}" transform="translate({px:.1f} {py:.1f})"'
    shape = _SHAPES[number % len(_SHAPES)].format("")
    return f"<g {kind}><title>{escape(note)}</title>{shape}</g>" if note else f"<g {kind}>{shape}</g>"


def _finite_runs(series: Series) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for point in zip(series.x, series.y, strict=True):
        if all(math.isfinite(value) for value in point):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
