"""The comparison as a picture: one bar a line of the table, in plain SVG.

The axis is how much better ours is than the peer, on a logarithmic scale; the
tick on a bar is the ratio to reach. Times are turned round, so that right is
better on every line.
"""

import math
import statistics
from html import escape

from benchmarks.report import Line

WIDTH, LEFT, RIGHT, ROW, TOP, FOOT = 900, 380, 90, 30, 56, 48
MARKS = (0.1, 0.3, 1, 3, 10, 30, 100, 300)


def draw(lines: list[Line], caption: str) -> str:
    """Return the SVG of those lines that have a ratio."""
    measured = [one for one in lines if one.ratios]
    height = TOP + ROW * len(measured) + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="24" font-size="16" font-weight="bold">{escape(caption)}</text>',
    ]
    scale = Scale([value for one in measured for value in (better(one), goal(one))])
    bottom = TOP + ROW * len(measured)
    for mark in MARKS:
        if scale.low <= mark <= scale.high:
            parts.append(axis_mark(scale.x(mark), bottom, f"{mark:g}×", strong=mark == 1))
    for number, one in enumerate(measured):
        parts += bar(one, TOP + ROW * number, scale)
    parts.append(
        f'<text x="{LEFT}" y="{height - 8}" fill="#555">times better than the peer in the same run;'
        " the black tick is the ratio to reach</text></svg>"
    )
    return "\n".join(parts)


class Scale:
    """Ratios to pixels, logarithmic, with 1 always in sight."""

    def __init__(self, values: list[float]):
        self.low = min([*values, 1.0]) / 1.6
        self.high = max([*values, 1.0]) * 1.3

    def x(self, value: float) -> float:
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return LEFT + part * (WIDTH - LEFT - RIGHT)


def better(one: Line) -> float:
    ratio = statistics.median(one.ratios)
    return 1 / ratio if one.unit == "s" else ratio


def goal(one: Line) -> float:
    ratio = float(one.target.split()[1])
    return 1 / ratio if one.unit == "s" else ratio


def axis_mark(x: float, bottom: float, text: str, *, strong: bool) -> str:
    colour = "#777" if strong else "#ddd"
    return (
        f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{bottom}" stroke="{colour}"/>'
        f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#555">{text}</text>'
    )


def bar(one: Line, y: float, scale: Scale) -> list[str]:
    colour = "#2f7d4f" if one.reached else "#b5532f"
    one_x, end, tick = scale.x(1.0), scale.x(better(one)), scale.x(goal(one))
    begin, width = min(one_x, end), max(abs(end - one_x), 1.0)
    return [
        f'<text x="12" y="{y + 16}">{escape(one.label)}</text>',
        f'<text x="{LEFT - 170}" y="{y + 16}" fill="#777">{escape(one.against)}</text>',
        f'<rect x="{begin:.1f}" y="{y + 4}" width="{width:.1f}" height="16" fill="{colour}"/>',
        f'<rect x="{tick - 1:.1f}" y="{y + 1}" width="2" height="22"/>',
        f'<text x="{max(end, tick, one_x) + 6:.1f}" y="{y + 17}">{better(one):.3g}×</text>',
    ]
