"""Each example of the reference page on workflow handles, with only the import changed.

The calls are the page's, the words are not; a worker is embedded in this process.
"""

import asyncio
import threading
import time
from datetime import UTC, datetime
from enum import Enum

import pytest
from django.db import connections
from django.utils import timezone

from durable_workflows.dbos import (
    DBOS,
    DBOSClient,
    Queue,
    WorkflowHandle,
    WorkflowHandleAsync,
    WorkflowStatus,
    WorkflowStatusString,
)
from durable_workflows.dbos._error import DBOSAwaitedWorkflowCancelledError

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def embedded_worker(transactional_db):
    DBOS.launch()
    yield
    DBOS.destroy()
    connections.close_all()


@DBOS.workflow()
def pack_parcel(parcel: str) -> str:
    return f"packed {parcel}"


def test_a_started_workflow_has_a_handle():
    handle = DBOS.start_workflow(pack_parcel, "parcel-9")

    assert isinstance(handle, WorkflowHandle)
    assert handle.get_result() == "packed parcel-9"


parcels = Queue("page-parcels")


def test_an_enqueued_workflow_has_a_handle():
    handle = parcels.enqueue(pack_parcel, "parcel-9")

    assert handle.get_result() == "packed parcel-9"
    assert handle.get_status().queue_name == "page-parcels"


def test_a_handle_is_retrieved_by_the_workflow_id():
    workflow_id = DBOS.start_workflow(pack_parcel, "parcel-9").workflow_id

    handle = DBOS.retrieve_workflow(workflow_id)

    assert handle.workflow_id == handle.get_workflow_id() == workflow_id
    assert handle.get_result() == "packed parcel-9"


@pytest.mark.django_db(transaction=True, databases="__all__")
@pytest.mark.parametrize("keyword", ["application_database_url", "system_database_url"])
def test_a_client_retrieves_a_handle(clients_url, keyword):
    workflow_id = DBOS.start_workflow(pack_parcel, "parcel-9").workflow_id
    client = DBOSClient(**{keyword: clients_url})

    handle = client.retrieve_workflow(workflow_id)

    assert handle.get_result() == "packed parcel-9"
    client.destroy()


@DBOS.workflow()
def sum_weights(pieces: list) -> float:
    return sum(piece["kilos"] for piece in pieces)


def test_the_result_is_what_the_workflow_returned():
    handle = DBOS.start_workflow(sum_weights, [{"kilos": 1.5}, {"kilos": 2.25}])

    assert handle.get_result() == 3.75
    assert handle.get_result(polling_interval_sec=5.0) == 3.75


@DBOS.workflow()
def wait_for_pickup() -> str:
    DBOS.sleep(600)
    return "picked up"


@DBOS.workflow()
def lose_parcel(parcel: str) -> str:
    raise LookupError(f"{parcel} is nowhere")


@pytest.mark.parametrize(
    "way, expected",
    [
        ("well", "packed parcel-9"),
        ("cancelled", ("cancelled", True)),
        ("failed", (LookupError, "parcel-9 is nowhere")),
    ],
)
def test_waiting_tells_cancelled_and_failed_apart(way, expected):
    if way == "failed":
        handle = DBOS.start_workflow(lose_parcel, "parcel-9")
    elif way == "cancelled":
        handle = DBOS.start_workflow(wait_for_pickup)
        DBOS.cancel_workflow(handle.workflow_id)
    else:
        handle = DBOS.start_workflow(pack_parcel, "parcel-9")

    try:
        heard = handle.get_result()
    except DBOSAwaitedWorkflowCancelledError as error:
        heard = ("cancelled", error.workflow_id == handle.workflow_id)
    except Exception as error:
        heard = (type(error), str(error))

    assert heard == expected


def test_the_status_has_every_field_of_the_page(settings):
    settings.DURABLE_WORKFLOWS = {"APP_VERSION": "2.1"}
    handle = parcels.enqueue(pack_parcel, "parcel-9")
    handle.get_result()

    status = handle.get_status()

    assert isinstance(status, WorkflowStatus)
    assert status.workflow_id == handle.workflow_id
    assert status.status == "SUCCESS"
    assert status.name == "pack_parcel"
    assert status.input == {"args": ("parcel-9",), "kwargs": {}}
    assert status.output == "packed parcel-9"
    assert status.error is None
    now = datetime.now(UTC)
    for instant in (status.created_at, status.updated_at, status.dequeued_at):
        assert timezone.is_aware(instant)
        assert abs((now - instant).total_seconds()) < 60
    assert status.created_at <= status.dequeued_at <= status.updated_at
    assert status.app_version == "2.1"
    assert isinstance(status.executor_id, str)
    assert status.queue_name == "page-parcels"


def test_a_failed_workflows_error_is_text():
    handle = DBOS.start_workflow(lose_parcel, "parcel-9")
    with pytest.raises(LookupError):
        handle.get_result()

    status = handle.get_status()

    assert (status.status, status.output) == ("ERROR", None)
    assert isinstance(status.error, str)
    assert "parcel-9 is nowhere" in status.error


@pytest.mark.parametrize(
    "word",
    ["PENDING", "SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "CANCELLED", "ENQUEUED"],
)
def test_the_statuses_are_an_enumeration_of_their_own_names(word):
    assert issubclass(WorkflowStatusString, Enum)
    assert WorkflowStatusString[word].value == word


def test_a_running_workflow_is_pending():
    handle = DBOS.start_workflow(wait_for_pickup)

    status = handle.get_status()

    assert status.status == "PENDING"
    assert (status.name, status.output, status.error) == ("wait_for_pickup", None, None)
    assert status.created_at is not None


@DBOS.workflow()
def cool_down() -> str:
    DBOS.sleep(1.5)
    return "cold"


def test_a_caller_may_poll_the_status_by_itself():
    handle = DBOS.start_workflow(cool_down)
    seen = []

    while True:
        status = handle.get_status()
        if status.status in ("SUCCESS", "ERROR"):
            break
        seen.append(status.status)
        time.sleep(0.1)

    assert status.output == "cold"
    assert set(seen) == {"PENDING"}


@DBOS.workflow()
async def double_later(number: int) -> int:
    await DBOS.sleep_async(0.2)
    return number * 2


def test_an_async_workflow_is_awaited():
    async def ask():
        handle = await DBOS.start_workflow_async(double_later, 4)
        assert isinstance(handle, WorkflowHandleAsync)
        return [await handle.get_result(), await handle.get_result(polling_interval_sec=0.5)]

    assert asyncio.run(ask()) == [8, 8]


@DBOS.workflow()
async def cool_down_slowly() -> str:
    await DBOS.sleep_async(1.2)
    return "cold at last"


def test_an_async_caller_polls_without_blocking_its_loop():
    async def watch():
        handle = await DBOS.start_workflow_async(cool_down_slowly)
        seen = []
        while True:
            status = await handle.get_status()
            if status.status == "SUCCESS":
                return seen, status.output
            seen.append(status.status)
            await asyncio.sleep(0.1)

    seen, output = asyncio.run(watch())

    assert output == "cold at last"
    assert set(seen) == {"PENDING"}


def test_an_async_handle_is_retrieved_and_waited_for():
    async def ask():
        first = await DBOS.start_workflow_async(double_later, 1)
        second = await DBOS.retrieve_workflow_async(first.get_workflow_id())
        slow = await DBOS.start_workflow_async(cool_down_slowly)
        assert await DBOS.wait_first_async([slow, second]) is second
        return await second.get_result()

    assert asyncio.run(ask()) == 2


# -- the page's patterns ---------------------------------------------------------------------


postcards = Queue("page-postcards")
sent = threading.Event()


@DBOS.workflow()
def send_postcard(to: str, greeting: str) -> None:
    sent.set()


def test_pattern_fire_and_forget():
    sent.clear()

    postcards.enqueue(send_postcard, "Ada", greeting="Hello!")

    assert sent.wait(20)


batch = Queue("page-batch", concurrency=5)
busy, most, gate = 0, 0, threading.Lock()


@DBOS.workflow()
def weigh(piece: str) -> str:
    global busy, most
    with gate:
        busy += 1
        most = max(most, busy)
    time.sleep(0.005)
    with gate:
        busy -= 1
    return f"weighed {piece}"


def test_pattern_batch_of_a_hundred_on_a_queue_of_five():
    global most
    most = 0
    handles: list[WorkflowHandle] = []
    for number in range(100):
        handles.append(batch.enqueue(weigh, f"piece {number}"))

    results = [handle.get_result() for handle in handles]

    assert results == [f"weighed piece {number}" for number in range(100)]
    assert 1 <= most <= 5


@DBOS.workflow()
def needed() -> str:
    DBOS.sleep(0.3)
    return "needed and there"


def test_pattern_conditional_waiting():
    important = DBOS.start_workflow(needed)
    optional = DBOS.start_workflow(wait_for_pickup)

    assert important.get_result() == "needed and there"

    began = time.monotonic()
    status = optional.get_status()
    assert status.status == "PENDING"
    assert time.monotonic() - began < 5


@DBOS.workflow()
def ask_carrier(carrier: str, seconds: float) -> dict:
    DBOS.sleep(seconds)
    return {"carrier": carrier, "price": 12}


def test_pattern_first_completion():
    handles = [
        DBOS.start_workflow(ask_carrier, "tortoise", 600),
        DBOS.start_workflow(ask_carrier, "hare", 0),
        DBOS.start_workflow(ask_carrier, "snail", 600),
    ]

    completed = DBOS.wait_first(handles)

    assert completed is handles[1]
    assert completed.get_result() == {"carrier": "hare", "price": 12}
