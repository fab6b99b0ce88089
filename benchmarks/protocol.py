"""What every contestant's process says to the bench, and the verbs it answers to.

A contestant is a module run as `python -m <module> VERB --url URL …`. It writes
one JSON object a line on stdout and is told "go" on stdin. The bench holds the
stopwatch: a contestant never reports a rate of its own. Standard library only,
because this file is imported inside the peers' environments.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable


def say(event: str, **facts) -> None:
    """Write one line that the bench reads."""
    print(json.dumps({"event": event, **facts}), flush=True)


def await_go() -> None:
    """Say that everything is imported and connected, and wait for the start."""
    say("ready")
    sys.stdin.readline()


def ask_repeatedly(ask: Callable[[int], object], *, times: int, pause: float = 0.03) -> None:
    """Time `ask(i)`, which enqueues and waits for the result, on an idle system.

    Ten unmeasured calls come first. The pause lets worker and client fall
    asleep in between, so that each call is a wake-up.
    """
    for i in range(10):
        ask(i)
    await_go()
    seconds = []
    for i in range(times):
        time.sleep(pause)
        begin = time.perf_counter()
        ask(i)
        seconds.append(time.perf_counter() - begin)
    say("done", seconds=seconds)


def run(verbs: dict[str, Callable[[argparse.Namespace], object]]) -> None:
    """Read the command line and call the verb's function."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=sorted(verbs))
    parser.add_argument("--url", required=True, help="of the database, or of the broker")
    parser.add_argument("--workload", default="noop-sync")
    parser.add_argument("-n", type=int, default=1, help="how many workflows")
    parser.add_argument("--batch", type=int, default=1000, help="rows in one call")
    parser.add_argument("--queue", default="bench")
    arguments = parser.parse_args()
    verbs[arguments.verb](arguments)
