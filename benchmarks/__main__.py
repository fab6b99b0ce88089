"""Run the benchmark: `python -m benchmarks` from the project's root.

Ours and the peers take turns within each round, on one server, in fresh
databases; docs/benchmarks.md says what each figure means.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import sys
import time
from pathlib import Path

from benchmarks import contestants, environments, plot, report
from benchmarks.measure import WORKLOADS, Turn
from benchmarks.separately import WORDS

QUIET = 2.0  # seconds before each turn: the last one's files are deleted, its pages written
DOCS = environments.ROOT / "docs"


def main() -> int:
    arguments = read_arguments()
    begin = time.monotonic()
    results = run(arguments)
    show(results)
    (environments.HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    keep(results, arguments)
    print(f"\n{time.monotonic() - begin:.0f} s in all")
    return 1 if results["failures"] else 0


def read_arguments() -> argparse.Namespace:
    names = [*WORKLOADS, *WORDS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default=",".join(names), help=f"some of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a fifth of the size")
    parser.add_argument("--save", action="store_true", help="keep figures and plot in docs/")
    parser.add_argument("--peers-only", action="store_true", help="leave ours out")
    parser.add_argument("--ours-only", action="store_true", help="leave the peers out")
    arguments = parser.parse_args()
    arguments.only = arguments.only.split(",")
    if unknown := set(arguments.only) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return arguments


def run(arguments: argparse.Namespace) -> dict:
    """Measure everything asked for, and return what is stored as JSON."""
    about = machine()
    if about["load_before"] > 0.5:
        print(f"others are at work here (load {about['load_before']}): expect noise", flush=True)
    chosen = {name: turns for name, turns in WORKLOADS.items() if name in arguments.only}
    wanted = {turn.contestant for turns in chosen.values() for turn in turns}
    figures, words, failures = {}, [], []
    with environments.postgresql() as url, environments.redis() as redis_url:
        taking_part = {} if arguments.ours_only else contestants.peers(url, redis_url, wanted)
        if "celery" in wanted and not arguments.ours_only and redis_url is None:
            print("celery is left out: there is no redis-server on this machine")
        if not arguments.peers_only:
            taking_part["ours"] = contestants.ours(url)
        for name, turns in chosen.items():
            for number in range(arguments.rounds):
                round_of(name, number, turns, taking_part, arguments.quick, figures, failures)
        for name in arguments.only if "ours" in taking_part else ():
            if name in WORDS:
                words += word_of(name, taking_part["ours"], arguments.quick, failures)
    return {
        "machine": about,
        "figures": figures,
        "lines": [dataclasses.asdict(line) for line in report.lines(figures)],
        "words": words,
        "failures": failures,
    }


def round_of(
    name: str,
    number: int,
    turns: list[Turn],
    taking_part: dict[str, contestants.Contestant],
    quick: bool,
    figures: report.Figures,
    failures: list[str],
) -> None:
    """Let every contestant of a workload have its turn; every other round backwards."""
    for turn in turns if number % 2 == 0 else reversed(turns):
        contestant = taking_part.get(turn.contestant)
        if contestant is None:
            continue
        size = max(20, turn.n // 5) if quick else turn.n
        values = figures.setdefault(turn.key, [])
        time.sleep(QUIET)
        try:
            values.append(turn.run(contestant, size))
        except contestants.Failed as error:
            values.append(None)
            failures.append(f"{turn.key}: {error}")
            print(f"{name}, round {number + 1}: {turn.key} FAILED: {error}", flush=True)
            continue
        figure = report.shown(values[-1], "s" if name == "latency" else "/s")
        print(f"{name}, round {number + 1}: {turn.key} {figure}", flush=True)


def word_of(name: str, ours: contestants.Contestant, quick: bool, failures: list[str]) -> list:
    try:
        rows = WORDS[name](ours, quick=quick)
    except contestants.Failed as error:
        failures.append(f"{name}: {error}")
        print(f"{name} FAILED: {error}", flush=True)
        return []
    for row in rows:
        print(f"{name}: {row.what}: {row.figure:.3g} {row.unit}", flush=True)
    return [dataclasses.asdict(row) for row in rows]


def machine() -> dict[str, object]:
    return {
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "measured": datetime.date.today().isoformat(),
        "load_before": round(os.getloadavg()[0], 1),
    }


def show(results: dict) -> None:
    lines = [report.Line(**line) for line in results["lines"]]
    print(f"\n{report.figures_table(results['figures'])}" if results["figures"] else "")
    if lines:
        print(f"\n{report.table(lines)}")
    if results["words"]:
        rows = [report.Word(**word) for word in results["words"]]
        print(f"\n{report.words_table(rows)}")
    for failure in results["failures"]:
        print(f"\nFAILED {failure}")


def keep(results: dict, arguments: argparse.Namespace) -> None:
    """Draw the plot after a whole run; with --save keep the figures, too."""
    lines = [report.Line(**line) for line in results["lines"]]
    whole = set(arguments.only) >= WORKLOADS.keys() and not arguments.quick
    if (whole or arguments.save) and any(line.ratios for line in lines):
        caption = f"durable_workflows and its peers, {results['machine']['processors']} cores"
        write(DOCS / "benchmarks.svg", plot.draw(lines, caption))
    if arguments.save:
        write(DOCS / "benchmarks.json", json.dumps(results, indent=1))


def write(place: Path, text: str) -> None:
    place.write_text(text + "\n")
    print(f"written: {place.relative_to(environments.ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
