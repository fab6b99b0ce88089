"""The admin shows workflows, queues and workers, and changes nothing."""

import pytest
from django.contrib import admin
from django.urls import reverse
from django.utils.html import escape

from durable_workflows import Queue, step, workflow
from durable_workflows.admin import workflows as workflow_pages
from durable_workflows.models import Queue as QueueRow
from durable_workflows.models import Step, Worker, Workflow
from durable_workflows.testing import run_until_idle

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.urls")]

shelf = Queue("admin-shelf", concurrency=3)


@step
def dust(book: str) -> str:
    return f"dusted {book}"


@step
def shelve(book: str) -> str:
    raise LookupError(f"no room for {book}")


@workflow(name="admin.tidy")
def tidy(book: str) -> str:
    result = dust(book)
    if book == "atlas":
        shelve(book)
    return result


@workflow(name="admin.idle")
def idle() -> None: ...


@pytest.fixture
def page(admin_client):
    """Return a function that gets an admin page's text."""

    def get(view: str, *args: object, **query: str) -> str:
        answer = admin_client.get(reverse(f"admin:durable_workflows_{view}", args=args), query)
        assert answer.status_code == 200
        return answer.content.decode()

    return get


def enqueued(book: str) -> Workflow:
    return Workflow.objects.get(workflow_id=shelf.enqueue(tidy, book).workflow_id)


def test_the_list_shows_workflows(page):
    one, two = enqueued("novel"), enqueued("poems")

    text = page("workflow_changelist")

    assert one.workflow_id in text
    assert two.workflow_id in text


@pytest.mark.parametrize(
    "query, both",
    [
        ({"status__exact": "ENQUEUED"}, False),
        ({"name": "admin.tidy"}, True),
        ({"queue": "admin-shelf"}, True),
        ({"queue": "another"}, None),
    ],
)
def test_the_list_is_filtered(page, query, both):
    done = enqueued("novel")
    run_until_idle()
    waiting = enqueued("poems")

    text = page("workflow_changelist", **query)

    assert (done.workflow_id in text) is bool(both)
    assert (waiting.workflow_id in text) is (both is not None)


def test_a_workflow_is_found_by_its_id(page):
    one, two = enqueued("novel"), enqueued("poems")

    text = page("workflow_changelist", q=one.workflow_id)

    assert one.workflow_id in text
    assert two.workflow_id not in text


def test_a_workflows_page_shows_its_payloads_and_steps(page):
    row = enqueued("atlas")
    run_until_idle()

    text = page("workflow_change", row.pk)

    row.refresh_from_db()
    assert escape(row.input) in text
    assert "no room for atlas" in text
    assert "dusted atlas" in text
    assert text.index("dust</td>") < text.index("shelve</td>")


def test_what_users_stored_stays_text(page):
    row = enqueued("<script>alert(1)</script>")
    run_until_idle()

    text = page("workflow_change", row.pk)

    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_long_history_shows_its_end(page, monkeypatch):
    monkeypatch.setattr(workflow_pages, "MOST_STEPS", 1)
    row = enqueued("atlas")
    run_until_idle()

    text = page("workflow_change", row.pk)

    assert "earlier steps are not shown" in text
    assert "shelve</td>" in text
    assert "dust</td>" not in text


def test_a_workflow_without_steps_says_so(page):
    assert "none yet" in page("workflow_change", enqueued("novel").pk)


def test_a_workflow_of_a_worker_that_is_gone_has_a_page(page):
    row = enqueued("novel")
    Workflow.objects.filter(pk=row.pk).update(worker=4711, status="PENDING", parent=4712)

    assert row.workflow_id in page("workflow_change", row.pk)


def test_queues_and_workers_have_pages(page):
    enqueued("novel")
    run_until_idle()
    queue, worker = QueueRow.objects.get(name="admin-shelf"), Worker.objects.latest("pk")

    assert "admin-shelf" in page("queue_changelist")
    assert "admin-shelf" in page("queue_change", queue.pk)
    assert worker.host in page("worker_changelist", state__exact=worker.state)
    assert worker.host in page("worker_change", worker.pk)


@pytest.mark.parametrize("model", ["workflow", "queue", "worker"])
def test_nothing_can_be_added(admin_client, model):
    url = reverse(f"admin:durable_workflows_{model}_add")

    assert admin_client.get(url).status_code == 403


def test_nothing_can_be_changed_or_deleted(admin_client):
    row = enqueued("novel")
    change = reverse("admin:durable_workflows_workflow_change", args=[row.pk])
    delete = reverse("admin:durable_workflows_workflow_delete", args=[row.pk])

    assert admin_client.post(change, {"status": "SUCCESS"}).status_code == 403
    assert admin_client.post(delete, {"post": "yes"}).status_code == 403

    row.refresh_from_db()
    assert row.status == "ENQUEUED"


def test_nobody_without_the_permission_looks(client, django_user_model):
    client.force_login(django_user_model.objects.create_user("ada", password="x", is_staff=True))

    assert client.get(reverse("admin:durable_workflows_workflow_changelist")).status_code == 403


def test_steps_are_not_registered():
    assert not admin.site.is_registered(Step)
    assert admin.site.is_registered(Workflow)


def test_a_page_costs_few_queries(admin_client, django_assert_max_num_queries):
    for book in ("novel", "poems", "atlas"):
        enqueued(book)
    run_until_idle()
    url = reverse("admin:durable_workflows_workflow_changelist")

    with django_assert_max_num_queries(8):
        admin_client.get(url)
