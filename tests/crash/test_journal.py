"""What a step finds in the database when its worker commits for many at once."""

from tests.crash.workflows import aretrospective, line, retrospective


def test_each_step_finds_the_one_before_it_recorded(scene):
    scene.watch_stores()
    line.enqueue_many(retrospective, [(15,)] * 100)
    line.enqueue_many(aretrospective, [(15,)] * 300)

    scene.worker("--threads", "32", "--async-slots", "200")
    scene.finish()

    assert scene.all_succeeded()
    assert len(scene.marks("step")) == 400 * 15
    batches = [int(size) for (size,) in scene.marks("batch")]
    print(f"{len(batches)} commits of several entries, of {max(batches)} at most")
    assert max(batches) > 10
