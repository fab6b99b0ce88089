"""SIGTERM: nothing is lost, nothing runs twice, nobody waits for a lease."""

import signal
import time
from collections import Counter

from durable_workflows import start_workflow
from durable_workflows.models import Worker
from tests.crash.scene import until
from tests.crash.workflows import (
    agated,
    amixed,
    asteady,
    gated,
    gated_in_thread,
    line,
    mixed,
    steady,
)


def test_workers_ended_one_after_the_other_repeat_nothing(scene):
    # A lease that nobody waits for within this test.
    scene.settings["LEASE_SECONDS"] = 300
    workers = [scene.ready_worker("--threads", "8") for _ in range(3)]
    for _ in range(6):
        line.enqueue_many(steady, [(6, 0.0, 0.2)] * 15)
        line.enqueue_many(asteady, [(6, 0.0, 0.2)] * 15)
        start_workflow(mixed)
        start_workflow(amixed)
        ended = until(lambda: [w for w in workers if w.owned()], "a worker owns a workflow")[0]

        ended.send(signal.SIGTERM)

        assert ended.ends() == 0
        assert ended.owned() == 0
        assert Worker.objects.get(pid=ended.pid).state == "stopped"
        workers.remove(ended)
        workers.append(scene.ready_worker("--threads", "8"))
    scene.finish()

    assert scene.all_succeeded()
    assert set(scene.rows().values_list("recoveries", flat=True)) == {0}
    called = Counter((run, *label) for run, _, *label in scene.marks("step"))
    assert set(called.values()) == {1}
    handed_on = scene.rows(parent=None, queue=line.name, attempt__gt=1).count()
    print(f"{handed_on} of {scene.rows().count()} workflows were handed on")
    assert handed_on > 0


def test_a_second_sigterm_leaves_at_once_and_hands_on_what_runs(scene):
    scene.settings["LEASE_SECONDS"] = 300
    handles = [start_workflow(gated, "gate") for _ in range(20)]
    handles += [start_workflow(agated, "gate") for _ in range(20)]
    handles += [start_workflow(gated_in_thread, "gate") for _ in range(4)]
    leaving = scene.ready_worker()
    until(lambda: len(scene.marks("step")) == 84, "all runs are at the gate")
    other = scene.ready_worker()

    leaving.send(signal.SIGTERM)
    time.sleep(0.5)  # it may do nothing but wait: the steps fit the grace time
    assert leaving.alive
    leaving.send(signal.SIGTERM)
    asked_at = time.monotonic()
    assert leaving.ends(patience=20) == 0
    seconds = time.monotonic() - asked_at
    print(f"left {seconds:.1f} s after the second SIGTERM")
    assert seconds < 5  # as many threads still stand in their steps

    assert leaving.owned() == 0
    until(lambda: len(scene.marks("step")) == 128, "all runs are at the gate again")
    scene.open("gate")
    scene.finish()
    assert scene.all_succeeded()
    assert {handle.get_status().recoveries for handle in handles} == {0}
    assert other.ids == list(Worker.objects.filter(state="live").values_list("pk", flat=True))
