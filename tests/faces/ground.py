"""A small set of workflows that touches everything, for processes with settings of their own."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

from django.db import connections
from django.utils import timezone, translation

from durable_workflows import (
    Queue,
    destroy,
    launch,
    run_step_async,
    sleep,
    sleep_async,
    start_workflow,
    step,
    workflow,
)

errands = Queue("ground-errands", concurrency=4)


@step
def walk(place: str) -> str:
    return f"at the {place}"


@step(atomic=True)
def sign(place: str, using: str = "default") -> int:
    from tests.models import Effect

    Effect.objects.using(using).create(run=place, step="sign")
    return Effect.objects.using("default").filter(run=place).count()


@step
def trip(place: str) -> None:
    raise LookupError(f"the {place} is closed")


@workflow(name="ground.errand")
def errand(place: str, seconds: float = 0.0) -> list[Any]:
    there = walk(place)
    sleep(seconds)
    return [there, sign(place)]


@workflow(name="ground.detour")
def detour(place: str) -> list[Any]:
    return [*start_workflow(errand, f"{place}'s child").get_result(), *errand(f"{place}'s call")]


@workflow(name="ground.fail")
def fail(place: str) -> None:
    trip(place)


@workflow(name="ground.stroll")
async def stroll(place: str, seconds: float = 0.0) -> list[Any]:
    there = await run_step_async(walk, place)
    await sleep_async(seconds)
    return [there, await run_step_async(sign, place)]


@workflow(name="ground.astray")
def astray(place: str) -> int:
    return sign(place, "other")


@workflow(name="ground.abroad")
def abroad() -> list[str]:
    """Come in with the project's language and zone, and leave with others."""
    found = [translation.get_language(), timezone.get_current_timezone_name()]
    translation.activate("de")
    timezone.activate("Asia/Tokyo")
    return found


@workflow(name="ground.abroad_async")
async def abroad_async() -> list[str]:
    found = [translation.get_language(), timezone.get_current_timezone_name()]
    translation.activate("de")
    timezone.activate("Asia/Tokyo")
    return found


@workflow(name="ground.chatty")
def chatty(count: int) -> int:
    """Return how long the query log of this thread is after many queries."""
    from tests.models import Effect

    for _ in range(count):
        Effect.objects.count()
    return len(connections["default"].queries_log)


def exercise() -> dict[str, Any]:
    """Run everything once and return what came of it, as JSON has it."""
    launch(threads=4, async_slots=4)
    try:
        begun = datetime.now(UTC)
        handles = {
            "errand": errands.enqueue(errand, "bank"),
            "slept": errands.enqueue(errand, "baths", 0.3),
            "suspended": errands.enqueue(errand, "hotel", 1.3),
            "delayed": errands.enqueue(errand.using(delay=0.5), "late shop"),
            "detour": start_workflow(detour, "fair"),
            "stroll": start_workflow(stroll, "park", 1.3),
            "timed": errands.enqueue(errand.using(timeout=60), "mill"),
        }
        results = {name: handle.get_result(timeout=30) for name, handle in handles.items()}
        failed = start_workflow(fail, "shop")
        try:
            failed.get_result(timeout=30)
        except LookupError as error:
            results["failed"] = str(error)
        results["inline"] = errand("kiosk")
        status = handles["suspended"].get_status()
        ended = datetime.now(UTC)
        results["instants"] = [
            instant is not None and timezone.is_aware(instant) and begun <= instant <= ended
            for instant in (
                status.created_at,
                status.dequeued_at,
                status.updated_at,
                status.completed_at,
            )
        ]
        results["lasted"] = (status.completed_at - status.created_at).total_seconds()
        results["statuses"] = sorted({handle.get_status().status for handle in handles.values()})
    finally:
        destroy()
        connections.close_all()
    return results


EXPECTED = {
    "errand": ["at the bank", 1],
    "slept": ["at the baths", 1],
    "suspended": ["at the hotel", 1],
    "delayed": ["at the late shop", 1],
    "detour": ["at the fair's child", 1, "at the fair's call", 1],
    "stroll": ["at the park", 1],
    "timed": ["at the mill", 1],
    "failed": "the shop is closed",
    "inline": ["at the kiosk", 1],
    "instants": [True, True, True, True],
    "statuses": ["SUCCESS"],
}


def tell(value: Any) -> None:
    """Print what a test is to read."""
    json.dump(value, sys.stdout)
