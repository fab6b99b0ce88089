"""Instants mean the same in models and statements, whatever the project's zone is."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, connections
from django.db.models import Max
from django.db.models.functions import Now
from django.utils import timezone

from durable_workflows.core.records import NewWorkflow, Options
from durable_workflows.models import Workflow

pytestmark = pytest.mark.django_db(transaction=True)

NOON = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(
    params=[
        (True, "UTC", None),
        (True, "America/New_York", "Asia/Kolkata"),
        (False, "UTC", None),
        (False, "Asia/Kolkata", None),
    ],
    ids=lambda zones: "USE_TZ={} {} {}".format(*zones),
    autouse=True,
)
def zones(request, settings, monkeypatch):
    """The project's settings, and TIME_ZONE of its database."""
    settings.USE_TZ, settings.TIME_ZONE, of_database = request.param
    monkeypatch.setitem(connection.settings_dict, "TIME_ZONE", of_database)
    forget_the_zone()
    yield
    monkeypatch.undo()
    forget_the_zone()


def forget_the_zone() -> None:
    connection.close()  # an open one keeps the zone it was opened in
    for name in ("timezone", "timezone_name"):
        connections["default"].__dict__.pop(name, None)


def aware(moment: datetime) -> datetime:
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment)


def create(borrowed, workflow_id: str = "a", **options) -> Workflow:
    row = NewWorkflow(workflow_id, "f", "[]", "orders", Options(**options))
    borrowed.create([row], now=NOON)
    return Workflow.objects.get(workflow_id=workflow_id)


def test_models_read_what_statements_wrote(borrowed):
    workflow = create(borrowed, delay=60)

    assert timezone.is_aware(workflow.created_at) is timezone.is_aware(timezone.now())
    assert abs(aware(workflow.created_at) - NOON) < timedelta(milliseconds=1)
    assert abs(aware(workflow.wake_at) - NOON - timedelta(seconds=60)) < timedelta(milliseconds=1)


def test_statements_compare_with_what_models_wrote(borrowed):
    create(borrowed, delay=60)
    Workflow.objects.update(wake_at=NOON + timedelta(seconds=10))

    assert borrowed.next_due(now=NOON) == pytest.approx(10, abs=0.001)
    assert borrowed.wake_due(5, now=NOON + timedelta(seconds=9.9)) == 0
    assert borrowed.wake_due(5, now=NOON + timedelta(seconds=10.1)) == 1


def test_models_write_back_what_they_read(borrowed):
    workflow = create(borrowed, delay=60)

    workflow.save()

    assert borrowed.next_due(now=NOON) == pytest.approx(60, abs=0.002)


def test_models_and_statements_agree_on_now(borrowed):
    create(borrowed)
    Workflow.objects.update(wake_at=Now())
    workflow = Workflow.objects.get()

    assert abs(borrowed.next_due()) < 60
    assert abs(aware(workflow.wake_at) - datetime.now(UTC)) < timedelta(seconds=60)
    assert Workflow.objects.filter(wake_at__lte=Now()).exists()
    assert not Workflow.objects.filter(wake_at__gt=timezone.now() + timedelta(minutes=1)).exists()


@pytest.mark.parametrize("verb", ["cancel", "resume"])
def test_what_people_do_is_timed_as_what_workers_do(borrowed, verb):
    workflow = create(borrowed)
    workflow.cancel()
    if verb == "resume":
        workflow.resume()

    status = borrowed.status("a")

    workflow.refresh_from_db()
    assert abs(status.updated_at - datetime.now(UTC)) < timedelta(seconds=60)
    assert aware(workflow.updated_at) == status.updated_at
    assert (status.completed_at is None) is (verb == "resume")


def test_instants_are_filtered_and_aggregated_as_instants(borrowed):
    create(borrowed, "a")
    create(borrowed, "b")
    later = NOON + timedelta(hours=1)
    Workflow.objects.filter(workflow_id="b").update(completed_at=later)

    limit = NOON + timedelta(minutes=30)
    limit = limit if timezone.is_aware(timezone.now()) else timezone.make_naive(limit)
    found = Workflow.objects.filter(completed_at__gt=limit).values_list("workflow_id", flat=True)

    assert list(found) == ["b"]
    assert aware(Workflow.objects.aggregate(last=Max("completed_at"))["last"]) == later
