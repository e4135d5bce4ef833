"""Curves as SVG, drawn without a library, so that a page can embed them and print them without loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fm_science.tables import markup

Curve = Sequence[tuple[float, float]]
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 460, 240, 58, 34, 10, 12
POINTS = 400  #: points of a curve, at most
COLOURS = 6  #: classes of curves in the style of a page, c0 to c5


def chart(title: str, curves: Mapping[str, Curve], x_label: str = "step") -> str:
    """A panel with one line per curve over a common axis; empty where no curve has two points."""
    shown = {name: thin([point for point in curve if all(map(math.isfinite, point))]) for name, curve in curves.items()}
    shown = {name: curve for name, curve in shown.items() if len(curve) > 1}
    if not shown:
        return ""
    xs, every = ([point[axis] for curve in shown.values() for point in curve] for axis in (0, 1))
    low, high = window(every)
    shown = {name: [(x, min(max(y, low), high)) for x, y in curve] for name, curve in shown.items()}
    ys, beyond = [low, high], sum(not low <= y <= high for y in every)
    x_ticks, y_ticks = ticks(min(xs), max(xs), 5), ticks(min(ys), max(ys), 5)
    across, up = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT), _scale(
        min(*ys, y_ticks[0]), max(*ys, y_ticks[-1]), HEIGHT - BOTTOM, TOP
    )
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{markup(title)}">']
    for tick in y_ticks:
        y = up(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in x_ticks:
        if min(xs) <= tick <= max(xs):
            x, y = across(tick), HEIGHT - BOTTOM + 14
            parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{tick:,.6g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{markup(x_label)}</text>')
    for number, (name, curve) in enumerate(shown.items()):
        line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in curve)
        parts.append(f'<polyline class="c{number % COLOURS}" points="{line}"><title>{markup(name)}</title></polyline>')
    keys = "".join(f'<span class="c{number % COLOURS}">{markup(name)}</span>' for number, name in enumerate(shown))
    legend = f'<div class="key">{keys}</div>' if len(shown) > 1 or [*shown] != [title] else ""
    caption = markup(title) + (f" ({beyond} of {len(every)} points lie beyond the axis)" if beyond else "")
    return f'<figure><figcaption>{caption}</figcaption>{"".join(parts)}</svg>{legend}</figure>'


def window(values: Sequence[float]) -> tuple[float, float]:
    """The interval to show: of all values, or, if a few are far outside the others, of the others. Far is ten times the
    width of nine tenths of them."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    room = 10 * (high - low)
    inside = [y for y in ordered if low - room <= y <= high + room]
    return inside[0], inside[-1]


def thin(curve: Curve) -> list[tuple[float, float]]:
    """At most ``POINTS`` points: where there are more, the mean of neighbours."""
    if len(curve) <= POINTS:
        return list(curve)
    found = []
    for k in range(POINTS):
        some = curve[k * len(curve) // POINTS : (k + 1) * len(curve) // POINTS]
        found.append((some[-1][0], math.fsum(y for _, y in some) / len(some)))
    return found


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers that span an interval, about ``most``."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * (1 - 1e-9))
    first, last = math.floor(low / step), math.ceil(high / step)
    return [k * step for k in range(first, last + 1)]


def _scale(low: float, high: float, start: float, end: float) -> _Scale:
    return _Scale(low, (high - low) or 1.0, start, end - start)


class _Scale:
    """Maps numbers to coordinates of the picture."""

    def __init__(self, low: float, span: float, start: float, length: float) -> None:
        self.low, self.span, self.start, self.length = low, span, start, length

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / self.span * self.length
