"""What the figures are held against, and how they are shown.

A ratio is formed within one round, ours to the best of the named peers in that
round; what counts is the median of the rounds.
"""

import dataclasses
import statistics
from collections.abc import Callable

Figures = dict[str, list[float | None]]  # by key, one a round; None: did not run


@dataclasses.dataclass(frozen=True)
class Target:
    """One line of the table: our figure, whose it is held against, and the ratio to reach."""

    label: str
    ours: str
    against: str
    theirs: tuple[str, ...]
    ratio: float
    wish: Callable[[float, float], bool] = float.__ge__
    unit: str = "/s"

    @property
    def sign(self) -> str:
        return "≥" if self.wish is float.__ge__ else "≤"


@dataclasses.dataclass(frozen=True)
class Line:
    """A target with what was measured; None where a side did not run."""

    label: str
    against: str
    unit: str
    target: str
    ours: list[float]
    theirs: list[float]
    ratios: list[float]
    reached: bool | None


@dataclasses.dataclass(frozen=True)
class Word:
    """A figure of ours that stands by itself, with the most it may be, if anything."""

    what: str
    figure: float
    unit: str
    limit: float | None = None


DBOS_STEPS = ("dbos steps-async", "dbos steps-sync")
ABSURD_STEPS = ("absurd steps-async", "absurd steps-sync")
DBOS_DRAIN = ("dbos noop-async", "dbos noop-sync")
EMPTY = ("ours drain, empty table",)

ASYNC, SYNC = "durable steps, asyncio", "durable steps, sync functions"
ALONE, DRAIN, ADRAIN = "one sync workflow alone", "no-op drain, sync", "no-op drain, asyncio"
ENQUEUE, RESULT = "enqueue one by one", "enqueue to result, idle"
FINISHED, WAITING = "drain, 1,000,000 finished", "drain, 100,000 waiting"
AT_MOST = float.__le__

TARGETS = [
    Target(ASYNC, "ours steps-async", "dbos, its best", DBOS_STEPS, 75.0),
    Target(ASYNC, "ours steps-async", "absurd, its best", ABSURD_STEPS, 15.0),
    Target(SYNC, "ours steps-sync", "dbos, its best", DBOS_STEPS, 30.0),
    Target(SYNC, "ours steps-sync", "absurd, its best", ABSURD_STEPS, 6.0),
    Target(ALONE, "ours alone", "dbos alone", ("dbos alone",), 8.0),
    Target(DRAIN, "ours noop-sync", "dbos, its best", DBOS_DRAIN, 10.0),
    Target(ADRAIN, "ours noop-async", "pgqueuer, no results", ("pgqueuer noop",), 1.0),
    Target(ENQUEUE, "ours enqueue", "dbos client", ("dbos enqueue",), 3.0),
    Target(ENQUEUE, "ours enqueue", "bare INSERT + COMMIT", ("insert",), 0.7),
    Target("enqueue_many", "ours enqueue-many", "pgqueuer", ("pgqueuer enqueue-many",), 0.9),
    Target(RESULT, "ours latency", "dbos tuned", ("dbos latency",), 0.2, AT_MOST, "s"),
    Target(RESULT, "ours latency", "celery on Redis", ("celery latency",), 1.2, AT_MOST, "s"),
    Target(FINISHED, f"ours {FINISHED}", "empty table", EMPTY, 0.9),
    Target(WAITING, f"ours {WAITING}", "empty table", EMPTY, 0.9),
]


def lines(figures: Figures) -> list[Line]:
    """Return the lines whose workload was run, in the table's order."""
    measured = [target for target in TARGETS if {target.ours, *target.theirs} & figures.keys()]
    return [line(target, figures) for target in measured]


def line(target: Target, figures: Figures) -> Line:
    best = max if target.unit == "/s" else min
    rounds = max(len(values) for values in figures.values())
    ours, theirs, ratios = [], [], []
    for turn in range(rounds):
        own = at(figures, target.ours, turn)
        others = [value for key in target.theirs if (value := at(figures, key, turn)) is not None]
        if own is not None:
            ours.append(own)
        if others:
            theirs.append(best(others))
        if own is not None and others:
            ratios.append(own / best(others))
    reached = target.wish(statistics.median(ratios), target.ratio) if ratios else None
    goal = f"{target.sign} {target.ratio:g}"
    return Line(target.label, target.against, target.unit, goal, ours, theirs, ratios, reached)


def at(figures: Figures, key: str, turn: int) -> float | None:
    values = figures.get(key, [])
    return values[turn] if turn < len(values) else None


def table(lines: list[Line]) -> str:
    """Return the comparison as a Markdown table."""
    rows = [("workload", "ours", "held against", "theirs", "ratio", "to reach", "reached")]
    rows += [
        (
            one.label,
            spread(one.ours, one.unit),
            one.against,
            spread(one.theirs, one.unit),
            spread(one.ratios, ""),
            one.target,
            {True: "yes", False: "no", None: "-"}[one.reached],
        )
        for one in lines
    ]
    return grid(rows)


def figures_table(figures: Figures) -> str:
    """Return every figure measured, peers' variants included."""
    rows = [("contestant, workload", "median [min..max]")]
    for key, values in figures.items():
        unit = "s" if key.endswith(" latency") else "/s"
        rows.append((key, spread([value for value in values if value is not None], unit)))
    return grid(rows)


def words_table(words: list[Word]) -> str:
    """Return the figures that stand by themselves."""
    rows = [("ours alone", "measured", "at most", "reached")]
    for word in words:
        goal = ("-", "-")
        if word.limit is not None:
            reached = "yes" if word.figure <= word.limit else "no"
            goal = (f"{word.limit:g} {word.unit}", reached)
        rows.append((word.what, f"{word.figure:.3g} {word.unit}", *goal))
    return grid(rows)


def grid(rows: list[tuple[str, ...]]) -> str:
    """Return the rows as a Markdown table, the first one its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    shown = [f"| {' | '.join(row)} |" for row in padded]
    shown.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(shown)


def spread(values: list[float], unit: str) -> str:
    """Return median [min..max] with its unit, "s" shown as milliseconds."""
    if not values:
        return "-"
    middle = shown(statistics.median(values), unit)
    if len(values) == 1:
        return middle
    return f"{middle} [{number(min(values), unit)}..{number(max(values), unit)}]"


def shown(value: float, unit: str) -> str:
    return number(value, unit) + {"s": " ms", "/s": "/s", "": ""}[unit]


def number(value: float, unit: str) -> str:
    if unit == "s":
        return f"{1000 * value:.1f}"
    if unit == "/s":
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
