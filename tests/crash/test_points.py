"""SIGKILL between any two lines of a workflow that does a bit of everything."""

import pytest

from durable_workflows import start_workflow
from durable_workflows.models import Step
from tests.crash.scene import until
from tests.crash.workflows import POINTS, POINTS_IN_ATOMIC_STEPS, STATEMENTS, amixed, mixed


def shape(workflow_id):
    steps = Step.objects.filter(workflow__workflow_id=workflow_id).order_by("position")
    return list(steps.values_list("position", "name", "kind"))


@pytest.mark.parametrize("function", [mixed, amixed])
def test_a_workflow_killed_anywhere_ends_as_the_undisturbed_one(scene, function):
    undisturbed = start_workflow(function.using(workflow_id="undisturbed"))
    for number, point in enumerate(POINTS):
        scene.set_trap(f"run-{number}", point)
        start_workflow(function.using(workflow_id=f"run-{number}"))
    victim = scene.worker("--threads", "64")
    until(lambda: scene.sprung() == len(POINTS), "each run is at its point")
    until(lambda: scene.rows(workflow_id="undisturbed", status="SUCCESS"), "one run has passed all")
    recorded = steps_now()

    victim.kill()
    scene.worker()
    scene.finish()

    assert scene.all_succeeded()
    assert recorded.items() <= steps_now().items()
    shapes = {tuple(shape(f"run-{number}")) for number in range(len(POINTS))}
    assert shapes == {tuple(shape(undisturbed.workflow_id))}
    taken_over = scene.rows(workflow_id__startswith="run-", parent=None, recoveries=1)
    assert taken_over.count() == len(POINTS)


@pytest.mark.parametrize("function", [mixed, amixed])
def test_a_workflow_killed_inside_an_atomic_step_takes_effect_once(scene, function):
    for number, point in enumerate(POINTS_IN_ATOMIC_STEPS):
        scene.set_trap(f"run-{number}", point)
        start_workflow(function.using(workflow_id=f"run-{number}"))

    deaths = scene.keep_up(scene.all_ended, "every workflow ends", 2)
    scene.finish()

    assert scene.all_succeeded()
    assert scene.sprung() == len(POINTS_IN_ATOMIC_STEPS)
    assert deaths >= 1


def test_a_worker_killed_before_or_after_any_statement_loses_nothing(scene):
    points = [f"{statement}-{when}" for statement in STATEMENTS for when in ("before", "after")]
    scene.set_deaths(points)

    def work_is_done() -> bool:
        if not scene.all_ended():
            return False
        if scene.deaths_left():
            start_workflow(mixed)
            start_workflow(amixed)
            return False
        return True

    deaths = scene.keep_up(work_is_done, "a death at each statement", 2, "--threads", "8")
    scene.finish()

    assert scene.all_succeeded()
    assert deaths == len(points)


def steps_now():
    columns = ("workflow_id", "position", "name", "kind", "output", "error", "attempt")
    return {row[:2]: row for row in Step.objects.values_list(*columns)}
