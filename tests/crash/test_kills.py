"""Workers killed at random, all at once, by what they run, or while they wait in line."""

import sqlite3
import threading
import time
from contextlib import contextmanager

import pytest
from django.db import connection

from durable_workflows import start_workflow
from durable_workflows.models import Worker
from tests.crash.scene import Process, executor, until
from tests.crash.workflows import (
    agated,
    amixed,
    asteady,
    gated,
    line,
    mixed,
    narrow,
    narrowly,
    poison,
    steady,
)

KILLS = 20


@contextmanager
def somebody_else_writing():
    """Write to the same SQLite file all the while, as a web process would."""
    if connection.vendor != "sqlite":
        yield
        return
    failures, done = [], threading.Event()

    def write():
        raw = sqlite3.connect(connection.settings_dict["NAME"], timeout=20, isolation_level=None)
        while not done.wait(0.02):
            try:
                raw.execute("INSERT INTO django_session VALUES ('crash', '', '2026-01-01')")
                raw.execute("DELETE FROM django_session WHERE session_key = 'crash'")
            except sqlite3.Error as error:
                failures.append(error)
        raw.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert failures == []


def test_random_kills_lose_nothing_and_repeat_nothing(scene, dice):
    workers = [scene.ready_worker("--threads", "8") for _ in range(3)]
    with somebody_else_writing():
        for _ in range(KILLS):
            line.enqueue_many(steady, [(6, 0.0, 0.1)] * 8)
            line.enqueue_many(asteady, [(6, 0.0, 0.1)] * 8)
            start_workflow(mixed)
            start_workflow(amixed)
            victim = dice.choice(until(lambda: busy(workers), "a worker owns a workflow"))
            time.sleep(dice.uniform(0.0, 0.2))
            victim.kill()
            workers[workers.index(victim)] = scene.worker("--threads", "8")
        scene.finish()

    assert scene.all_succeeded()
    recovered = scene.rows(recoveries__gt=0).count()
    print(f"{recovered} of {scene.rows().count()} workflows were recovered")
    assert recovered >= KILLS


def test_all_workers_killed_at_once_lose_nothing(scene, dice):
    for _ in range(2):
        workers = [scene.ready_worker("--threads", "8") for _ in range(3)]
        line.enqueue_many(steady, [(6, 0.0, 0.2)] * 40)
        line.enqueue_many(asteady, [(6, 0.0, 0.2)] * 40)
        scene.see_work(40)
        time.sleep(dice.uniform(0.0, 0.2))
        for worker in workers:
            worker.kill()
    killed_at = time.monotonic()
    scene.worker()
    scene.worker()
    scene.finish()
    print(f"all ended {time.monotonic() - killed_at:.1f} s after the last kill")

    assert scene.all_succeeded()
    assert scene.rows(recoveries__gt=0).count() > 10
    # One that owned nothing is nobody's hurry: its lease may outlast the work.
    until(lambda: Worker.objects.filter(state="dead").count() == 6, "all six are known as dead")


def test_a_workflow_that_kills_its_process_is_given_up_alone(scene):
    handle = start_workflow(poison)
    line.enqueue_many(steady, [(4, 0.0, 0.2)] * 50)
    line.enqueue_many(asteady, [(4, 0.0, 0.2)] * 50)

    deaths = scene.keep_up(scene.all_ended, "every workflow ends", 2, "--threads", "8")
    # deadly() has no result to compare with, and leaves no mark of a step.
    scene.finish()

    assert handle.get_status().status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
    assert handle.get_status().recoveries == 3
    assert scene.rows(status="SUCCESS").count() == 100
    assert len(scene.marks("poisoned")) == deaths == 4


def test_a_workflow_run_inline_by_a_killed_process_is_finished_by_a_worker(scene):
    for number, point in enumerate(["begin", "at the end of one", "after two", "slept"]):
        scene.set_trap(f"inline-{number}", point)
    lines = [
        "import django, threading; django.setup()",
        "from tests.crash.workflows import mixed",
        "run = lambda n: mixed.using(workflow_id=f'inline-{n}')()",
        "threads = [threading.Thread(target=run, args=[n]) for n in range(4)]",
        "[thread.start() for thread in threads]",
        "[thread.join() for thread in threads]",
    ]
    # Only the kill may end the lease: four threads that begin at once, on a busy machine and
    # on SQLite, can keep a beat waiting for longer than the short one of the other tests.
    scene.settings["LEASE_SECONDS"] = 6
    # The called children need a worker: mixed() starts them, it does not call them.
    helper = scene.ready_worker("--threads", "8")
    script = scene.run("-c", "\n".join(lines))
    until(lambda: scene.sprung() == 4, "each inline run is at its point")
    assert Worker.objects.get(pid=script.pid).kind == "inline"

    script.kill()
    scene.finish()

    assert scene.all_succeeded()
    taken_over = scene.rows(parent=None)
    assert set(taken_over.values_list("recoveries", flat=True)) == {1}
    assert set(taken_over.values_list("executor_id", flat=True)) == {executor(helper)}


@pytest.mark.postgresql
def test_a_killed_worker_is_missed_long_before_its_lease_is_over(scene):
    scene.settings = {}
    handles = [start_workflow(gated, "gate"), start_workflow(agated, "gate")]
    victim = scene.ready_worker()
    until(lambda: len(scene.marks("step")) == 4, "both runs are at the gate")
    other = scene.ready_worker()

    victim.kill()
    killed_at = time.monotonic()
    until(lambda: len(scene.marks("step")) == 6, "both runs are at the gate again")
    seconds = time.monotonic() - killed_at
    scene.open("gate")
    scene.finish()

    print(f"a killed worker's workflows ran again after {seconds:.1f} s")
    assert seconds < 30
    assert {handle.get_status().executor_id for handle in handles} == {executor(other)}


def test_a_queue_never_runs_more_than_its_limit_and_uses_all_of_it(scene, dice):
    workers = [scene.ready_worker("--threads", "4") for _ in range(3)]
    narrow.enqueue_many(narrowly, [(0.1,)] * 90)
    until(lambda: len(scene.marks("end")) > 10, "some have passed")
    victim = dice.choice(until(lambda: busy(workers), "a worker owns a workflow"))

    victim.kill()
    scene.mark("killed", victim.pid)
    scene.finish()

    assert scene.all_succeeded()
    assert most_inside(scene) == 3
    assert len({pid for *_, pid in scene.marks("begin")}) > 1


def busy(workers: list[Process]) -> list[Process]:
    return [worker for worker in workers if worker.owned()]


def most_inside(scene) -> int:
    """Return how many were inside at most; whoever was killed has left."""
    now: dict[str, str] = {}
    most = 0
    for kind, *words in scene.all_marks():
        match kind:
            case "begin":
                now[words[0]] = words[2]
                most = max(most, len(now))
            case "end":
                now.pop(words[0], None)
            case "killed":
                now = {run: pid for run, pid in now.items() if pid != words[0]}
    return most
