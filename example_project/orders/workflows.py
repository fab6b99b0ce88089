"""How an order is fulfilled, and how the catalogue comes in.

A workflow is a plain function whose durable calls are recorded. When its worker
dies, another one calls it again: what is recorded is answered from the record,
and the first call that is not goes on where the dead one stopped.
"""

import zlib

from django.core.mail import EmailMessage
from django.db.models import F

from durable_workflows import Queue, sleep, step, workflow
from durable_workflows.errors import MaxStepRetriesExceeded

from . import catalogue, payments
from .models import Order, Payment, Product, Shipment, Stock

orders = Queue("orders", concurrency=50)
imports = Queue("imports", concurrency=4)

PACKING_SECONDS = 2
LINES_A_CHUNK = 250


# --- fulfilling an order ------------------------------------------------------------------------


class OutOfStock(Exception):
    """A product of the order is not in the house any more."""


class Undeliverable(Exception):
    """No carrier goes there."""


# What ends an order early and is nobody's bug. Any other error ends the workflow
# as ERROR and undoes nothing: it waits there until a person has mended the code.
FOR_GOOD = (OutOfStock, Undeliverable, payments.Refused, MaxStepRetriesExceeded)


def passes_by(error: Exception) -> bool:
    return isinstance(error, payments.Unreachable)


def for_the_customer(problem: Exception) -> str:
    if isinstance(problem, MaxStepRetriesExceeded):
        return "the payment could not be made"
    return str(problem)


@workflow
def fulfil_order(order_id: int) -> str:
    undo = []
    try:
        reserve_stock(order_id)
        undo.append(release_stock)
        # Noted before the charge, not after: a charge that failed in all its
        # tries may have been taken all the same.
        undo.append(refund)
        record_payment(order_id, charge(order_id))
        sleep(PACKING_SECONDS)  # holds no thread and no connection
        ship(order_id)
        outcome = "shipped"
    except FOR_GOOD as problem:
        for compensate in reversed(undo):
            compensate(order_id)
        cancel(order_id, for_the_customer(problem))
        outcome = "cancelled"
    mail_customer(order_id)
    return outcome


# atomic: what the step writes and the record that it is done are one commit, so
# stock is reserved exactly once, however often and wherever a worker dies.
@step(atomic=True)
def reserve_stock(order_id: int) -> None:
    order = Order.objects.get(pk=order_id)
    for line in order.lines.order_by("product_id"):  # one order for all: no deadlock
        free = Stock.objects.filter(
            product=line.product_id, on_hand__gte=F("reserved") + line.quantity
        )
        if not free.update(reserved=F("reserved") + line.quantity):
            raise OutOfStock(f"{line.product} is sold out")
    _set_status(order, Order.Status.RESERVED)


# Not atomic, and can't be: the money is elsewhere. A worker may die between the
# charge and its record, and an answer may get lost; then the step runs again,
# and the key, the same in every try, lets the gateway take the money only once.
@step(
    max_attempts=8,
    interval_seconds=0.2,
    backoff_rate=2,
    should_retry=passes_by,
)
def charge(order_id: int) -> str:
    order = Order.objects.get(pk=order_id)
    key = str(order.reference)
    return payments.charge(key, order=key, cents=int(order.total * 100), card=order.card)


@step(atomic=True)
def record_payment(order_id: int, charge_id: str) -> None:
    order = Order.objects.get(pk=order_id)
    Payment.objects.create(order=order, charge_id=charge_id, amount=order.total)
    _set_status(order, Order.Status.PAID)


@step(atomic=True)
def ship(order_id: int) -> None:
    order = Order.objects.get(pk=order_id)
    if order.postcode.startswith("99"):
        raise Undeliverable(f"no carrier goes to {order.postcode}")
    for line in order.lines.order_by("product_id"):
        Stock.objects.filter(product=line.product_id).update(
            on_hand=F("on_hand") - line.quantity, reserved=F("reserved") - line.quantity
        )
    code = f"{order.reference.hex[:8].upper()}-{zlib.crc32(order.reference.bytes) % 97:02}"
    Shipment.objects.create(order=order, tracking_code=code)
    _set_status(order, Order.Status.SHIPPED)


# Tried for many hours: it is the customer's money. The long pauses cost nothing,
# the workflow waits in the database.
@step(
    max_attempts=20,
    interval_seconds=0.2,
    backoff_rate=2,
    should_retry=passes_by,
)
def refund(order_id: int) -> None:
    payments.refund(str(Order.objects.get(pk=order_id).reference))


@step(atomic=True)
def release_stock(order_id: int) -> None:
    for line in Order.objects.get(pk=order_id).lines.order_by("product_id"):
        Stock.objects.filter(product=line.product_id).update(reserved=F("reserved") - line.quantity)


@step(atomic=True)
def cancel(order_id: int, problem: str) -> None:
    Payment.objects.filter(order=order_id).update(status=Payment.Status.REFUNDED)
    order = Order.objects.get(pk=order_id)
    order.problem = problem
    _set_status(order, Order.Status.CANCELLED)


# At least once: a worker that dies right after sending sends again. The same
# Message-ID lets the customer's mail server show one.
@step(max_attempts=5, interval_seconds=1)
def mail_customer(order_id: int) -> None:
    order = Order.objects.get(pk=order_id)
    text = f"{order.lines.count()} item(s), {order.total} in all.\n{order.problem}"
    message_id = f"<{order.reference}.{order.status}@shop.example>"
    EmailMessage(
        subject=f"Your order {order.pk} is {order.status}",
        body=text,
        to=[order.email],
        headers={"Message-ID": message_id},
    ).send()


def _set_status(order: Order, status: Order.Status) -> None:
    order.status = status
    order.save(update_fields=["status", "problem"])


# --- importing the catalogue --------------------------------------------------------------------


@workflow
def import_catalogue(path: str) -> dict:
    """Import a file that every worker can read; return counts and the bad lines.

    Products that are there get the file's name and price; new ones come with
    their stock, too. (Of what it already sells, the shop counts the stock itself.)
    """
    last, repeats = survey(path)
    chunks = []
    for start in range(2, last + 1, LINES_A_CHUNK):
        stop = min(start + LINES_A_CHUNK, last + 1)
        chunks.append((path, start, stop, [r for r in repeats if start <= r[0] < stop]))
    handles = imports.enqueue_many(import_chunk, chunks)
    reports = [handle.get_result() for handle in handles]
    return {
        "lines": last - 1,
        "created": sum(report["created"] for report in reports),
        "updated": sum(report["updated"] for report in reports),
        "bad": [bad for report in reports for bad in report["bad"]],
    }


@workflow
def import_chunk(path: str, start: int, stop: int, repeats: list) -> dict:
    return store_lines(path, start, stop, repeats)


survey = step(catalogue.survey)


@step(atomic=True)
def store_lines(path: str, start: int, stop: int, repeats: list) -> dict:
    first_lines = dict(repeats)
    items, bad = {}, []
    for number, line in catalogue.lines(path, start, stop):
        try:
            item = catalogue.parse(line)
            if number in first_lines:
                raise catalogue.BadLine(f"SKU {item.sku} stands in line {first_lines[number]}")
        except catalogue.BadLine as problem:
            bad.append({"line": number, "reason": str(problem)})
        else:
            items[item.sku] = item

    known = Product.objects.filter(sku__in=items).count()
    Product.objects.bulk_create(
        [Product(sku=item.sku, name=item.name, price=item.price) for item in items.values()],
        update_conflicts=True,
        unique_fields=["sku"],
        update_fields=["name", "price"],
    )
    products = Product.objects.filter(sku__in=items)
    Stock.objects.bulk_create(
        [Stock(product=product, on_hand=items[product.sku].stock) for product in products],
        ignore_conflicts=True,
    )
    return {"created": len(items) - known, "updated": known, "bad": bad}
