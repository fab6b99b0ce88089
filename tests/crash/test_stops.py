"""Processes that are stopped past their lease and wake up as zombies."""

import signal

import pytest
from django.db import connection

from durable_workflows import start_workflow
from durable_workflows.models import Worker
from tests.crash.scene import Process, Scene, executor, until
from tests.crash.workflows import agated, asteady, gated, gated_in_transaction, line, steady

SYNC, ASYNC = 32, 32


def stop_past_lease(scene: Scene, process: Process) -> None:
    """Stop a process until it has been declared dead."""
    process.send(signal.SIGSTOP)
    while not scene.fits_for_writers():
        # It holds SQLite's only write lock: nobody, not even a rescuer, could get past it.
        process.send(signal.SIGCONT)
        process.send(signal.SIGSTOP)
    until(
        lambda: Worker.objects.get(pk=process.ids[-1]).state == "dead",
        "the stopped process is declared dead",
    )


def steps_called(scene: Scene, label: str) -> int:
    return sum(words[2:] == [label] for words in scene.marks("step"))


def test_a_zombie_changes_nothing_and_goes_on_under_a_new_name(scene):
    scene.watch_stores()
    early = [start_workflow(gated, "early") for _ in range(SYNC // 2)]
    early += [start_workflow(agated, "early") for _ in range(ASYNC // 2)]
    late = [start_workflow(gated, "late") for _ in range(SYNC // 2)]
    late += [start_workflow(agated, "late") for _ in range(ASYNC // 2)]
    zombie = scene.ready_worker("--threads", str(SYNC))
    until(lambda: steps_called(scene, "early") == len(early), "all are at their gates")
    until(lambda: steps_called(scene, "late") == len(late), "all are at their gates")
    heir = scene.ready_worker("--threads", str(SYNC))

    stop_past_lease(scene, zombie)
    until(lambda: steps_called(scene, "early") == 2 * len(early), "the heir is at the gates")
    until(lambda: steps_called(scene, "late") == 2 * len(late), "the heir is at the gates")
    # Half of what the zombie held has ended when it wakes; for the rest both run a race.
    scene.open("early")
    ended = [handle.get_result(timeout=30) for handle in early]
    zombie.send(signal.SIGCONT)
    scene.open("late")
    scene.finish()

    assert scene.all_succeeded()
    assert [handle.get_result() for handle in early] == ended
    assert set(scene.rows().values_list("attempt", "recoveries")) == {(2, 1)}
    assert set(scene.rows().values_list("executor_id", flat=True)) == {executor(heir)}
    until(lambda: refused(scene, zombie) >= SYNC, "each sync run of the zombie was refused")
    print(f"{refused(scene, zombie)} writes of the zombie were refused")

    heir.kill()
    handle = start_workflow(gated, "late")
    handle.get_result(timeout=30)
    scene.finish()
    assert handle.get_status().executor_id == executor(zombie)
    until(lambda: len(zombie.ids) == 2, "the zombie has a new name")
    assert Worker.objects.get(pk=zombie.ids[1]).state == "live"


def refused(scene: Scene, process: Process) -> int:
    """Return how many entries of a process changed no row, because somebody was first."""
    return sum(
        words[0] in ("lost", "adopted") and words[2] == str(process.pid)
        for words in scene.marks("answer")
    )


def test_workers_stopped_again_and_again_repeat_nothing(scene, dice):
    scene.watch_stores()
    workers = [scene.ready_worker("--threads", "8") for _ in range(3)]
    for _ in range(3):
        line.enqueue_many(steady, [(6, 0.0, 0.3)] * 20)
        line.enqueue_many(asteady, [(6, 0.0, 0.3)] * 20)
        scene.see_work(30)
        stopped = dice.choice(until(lambda: [w for w in workers if w.owned()], "one works"))
        stop_past_lease(scene, stopped)
        stopped.send(signal.SIGCONT)
    scene.finish()

    assert scene.all_succeeded()
    print(f"{sum(refused(scene, worker) for worker in workers)} writes were refused")


@pytest.mark.postgresql
def test_a_step_stopped_inside_its_transaction_is_cut_off_and_taken_over(scene):
    handles = [start_workflow(gated_in_transaction, "gate") for _ in range(4)]
    zombie = scene.ready_worker("--threads", "4")
    until(lambda: len(scene.marks("inside")) == 4, "all are inside their transactions")
    held = open_transactions()
    heir = scene.ready_worker("--threads", "4")

    stop_past_lease(scene, zombie)
    assert len(held & open_transactions()) >= 4
    # Once max_idle of the step is over the server ends what nobody else may end; no new
    # attempt begins before.
    until(lambda: len(scene.marks("inside")) == 8, "the heir is inside the same steps")
    assert not held & open_transactions()
    scene.open("gate")
    zombie.send(signal.SIGCONT)
    scene.finish()

    assert scene.all_succeeded()
    assert {handle.get_status().executor_id for handle in handles} == {executor(heir)}


def open_transactions() -> set[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' "
            "AND datname = current_database()"
        )
        return {pid for (pid,) in cursor}
