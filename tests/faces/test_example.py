"""The example shop does what it shows to newcomers."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import transaction
from django.urls import reverse

from durable_workflows import retrieve_workflow, start_workflow
from durable_workflows.errors import NonExistentWorkflow
from durable_workflows.testing import run_until_idle
from example_project.gateway import Gateway, Ledger, Mischief
from example_project.orders import catalogue
from example_project.orders.checkout import place_order
from example_project.orders.models import Order, Payment, Product, Stock
from example_project.orders.workflows import import_catalogue

CATALOGUE = Path(catalogue.__file__).parent.parent / "data" / "catalogue.csv"

pytestmark = [pytest.mark.django_db, pytest.mark.urls("example_project.urls")]


class Script(Mischief):
    """Mishaps in the order given, then none."""

    def __init__(self):
        super().__init__()
        self.mishaps: list[str] = []

    def draw(self, key: str) -> str:
        return self.mishaps.pop(0) if self.mishaps else "none"


@pytest.fixture
def gateway(settings, tmp_path) -> Iterator[Gateway]:
    ledger = Ledger(str(tmp_path / "ledger.sqlite3"))
    server = Gateway(0, ledger, Script())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    settings.GATEWAY_URL = server.url
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    ledger.close()


@pytest.fixture
def product() -> Product:
    teapot = Product.objects.create(sku="KIT-1", name="Teapot", price="19.90")
    Stock.objects.create(product=teapot, on_hand=5)
    return teapot


def order_two(product: Product, postcode: str = "10 001", card: str = "card-good") -> Order:
    return place_order("ada@example.com", postcode, card, {product: 2})


def moved(gateway: Gateway) -> list[tuple[str, int]]:
    return [(entry["kind"], entry["amount"]) for entry in gateway.ledger.entries()]


# --- orders -------------------------------------------------------------------------------------


def test_an_order_is_reserved_charged_shipped_and_mailed(gateway, product, mailoutbox):
    order = order_two(product)
    assert order.status == Order.Status.NEW
    assert retrieve_workflow(order.workflow_id).get_status().status == "ENQUEUED"

    run_until_idle()

    order.refresh_from_db()
    product.stock.refresh_from_db()
    assert retrieve_workflow(order.workflow_id).get_result() == "shipped"
    assert order.status == Order.Status.SHIPPED
    assert (product.stock.on_hand, product.stock.reserved) == (3, 0)
    assert moved(gateway) == [("charge", 3980)]
    assert order.payment.status == Payment.Status.TAKEN
    assert order.shipment.tracking_code
    assert [mail.subject for mail in mailoutbox] == [f"Your order {order.pk} is shipped"]


@pytest.mark.parametrize(
    "postcode, card, problem, entries",
    [
        ("10 001", "card-declined", "card declined", [("decline", 3980)]),
        ("99 001", "card-good", "no carrier", [("charge", 3980), ("refund", -3980)]),
    ],
)
def test_a_failed_order_gives_back_stock_and_money(
    gateway, product, mailoutbox, postcode, card, problem, entries
):
    order = order_two(product, postcode, card)

    run_until_idle()

    order.refresh_from_db()
    product.stock.refresh_from_db()
    assert retrieve_workflow(order.workflow_id).get_result() == "cancelled"
    assert order.status == Order.Status.CANCELLED
    assert problem in order.problem
    assert (product.stock.on_hand, product.stock.reserved) == (5, 0)
    assert [entry for entry in moved(gateway) if entry[0] != "void"] == entries
    assert not Payment.objects.filter(status=Payment.Status.TAKEN).exists()
    assert problem in mailoutbox[0].body


def test_a_sold_out_order_is_cancelled_before_the_gateway_hears_of_it(gateway, product):
    first, second, third = [order_two(product) for _ in range(3)]  # five are there

    run_until_idle()

    statuses = [Order.objects.get(pk=order.pk).status for order in (first, second, third)]
    assert sorted(statuses) == ["cancelled", "shipped", "shipped"]
    assert moved(gateway) == [("charge", 3980)] * 2


@pytest.mark.parametrize("mishap", ["fail", "drop"])
def test_a_charge_that_is_tried_again_is_taken_once(gateway, product, mishap):
    gateway.mischief.mishaps = [mishap, mishap]
    order = order_two(product)

    run_until_idle()

    assert retrieve_workflow(order.workflow_id).get_result() == "shipped"
    assert moved(gateway) == [("charge", 3980)]


def test_a_charge_whose_answers_are_all_lost_is_refunded(gateway, product):
    gateway.mischief.mishaps = ["drop"] * 8  # as often as the step tries
    order = order_two(product)

    run_until_idle()

    assert retrieve_workflow(order.workflow_id).get_result() == "cancelled"
    assert moved(gateway) == [("charge", 3980), ("refund", -3980)]


def test_an_order_that_is_rolled_back_leaves_no_workflow(product):
    with transaction.atomic():
        order = order_two(product)
        transaction.set_rollback(True)

    with pytest.raises(NonExistentWorkflow):
        retrieve_workflow(order.workflow_id).get_status()


# --- the gateway --------------------------------------------------------------------------------


def test_the_gateway_takes_nothing_for_a_key_that_was_refunded_first(gateway):
    gateway.ledger.refund("late")

    with pytest.raises(Exception, match="cancelled before"):
        gateway.ledger.charge("late", "order", 100, declined=False)

    assert moved(gateway) == [("void", 0)]


def test_the_same_seed_means_the_same_mishaps():
    first, second = [Mischief(fail=0.3, stall=0.2, drop=0.2, seed=4) for _ in range(2)]

    keys = [f"key{number % 10}" for number in range(50)]

    assert [first.draw(key) for key in keys] == [second.draw(key) for key in keys]
    assert set(first.met) == {"fail", "stall", "drop"}


# --- the catalogue ------------------------------------------------------------------------------


def test_the_catalogue_comes_in_and_its_bad_lines_are_reported():
    handle = start_workflow(import_catalogue, str(CATALOGUE))

    run_until_idle()

    report = handle.get_result()
    assert (report["lines"], report["created"], report["updated"]) == (3000, 2978, 0)
    assert Product.objects.count() == Stock.objects.count() == 2978
    reasons = {bad["line"]: bad["reason"] for bad in report["bad"]}
    assert len(reasons) == len(report["bad"]) == 22
    assert list(reasons) == sorted(reasons)
    for kind in ("price is missing", "stock is out of range: -4", "3 columns instead of 4"):
        assert kind in reasons.values()
    assert any(reason.startswith("not UTF-8") for reason in reasons.values())
    assert any("stands in line" in reason for reason in reasons.values())


def test_a_second_import_updates_prices_and_leaves_stock_alone(tmp_path, product):
    path = tmp_path / "new.csv"
    path.write_text("sku,name,price,stock\nKIT-1,Big teapot,24.90,900\nKIT-2,Mug,7.50,12\n")
    handle = start_workflow(import_catalogue, str(path))

    run_until_idle()

    assert handle.get_result() == {"lines": 2, "created": 1, "updated": 1, "bad": []}
    product.refresh_from_db()
    assert (product.name, str(product.price), product.stock.on_hand) == ("Big teapot", "24.90", 5)


def test_a_catalogue_without_products_is_no_error(tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text("sku,name,price,stock\n")
    handle = start_workflow(import_catalogue, str(path))

    run_until_idle()

    assert handle.get_result() == {"lines": 0, "created": 0, "updated": 0, "bad": []}


def test_a_file_that_is_no_catalogue_fails_its_workflow(tmp_path):
    path = tmp_path / "wrong.csv"
    path.write_text("something,else\n")
    handle = start_workflow(import_catalogue, str(path))

    run_until_idle()

    with pytest.raises(catalogue.BadCatalogue, match="does not begin with sku,name"):
        handle.get_result()


@pytest.mark.parametrize(
    "line, reason",
    [
        (b"\n", "empty"),
        (b"KIT-1,Mug,4.50\n", "3 columns"),
        (b"KIT-1,Mug,4.50,1,2\n", "5 columns"),
        (b'KIT-1,"Mug,4.50,1\n', "not CSV"),
        ("KIT-1,Café,4.50,1\n".encode("latin-1"), "byte 0xe9 at column 10"),
        (b"KIT-1,Mug\0,4.50,1\n", "NUL"),
        (b",Mug,4.50,1\n", "SKU is missing"),
        (b"KIT 1,Mug,4.50,1\n", "letters, digits and hyphens"),
        (b"KIT-1,,4.50,1\n", "name is missing"),
        (b"KIT-1," + b"x" * 201 + b",4.50,1\n", "longer than 200"),
        (b"KIT-1,Mug,,1\n", "price is missing"),
        (b"KIT-1,Mug,cheap,1\n", "price is not a number"),
        (b"KIT-1,Mug,0.00,1\n", "price is out of range"),
        (b"KIT-1,Mug,NaN,1\n", "price is out of range"),
        (b"KIT-1,Mug,1e99999999,1\n", "price is out of range"),
        (b"KIT-1,Mug,4.505,1\n", "fractions of a cent"),
        (b"KIT-1,Mug,4.50,\n", "stock is missing"),
        (b"KIT-1,Mug,4.50,some\n", "not a whole number"),
        (b"KIT-1,Mug,4.50,-1\n", "stock is out of range"),
    ],
)
def test_a_bad_line_is_refused_with_its_reason(line, reason):
    with pytest.raises(catalogue.BadLine, match=reason):
        catalogue.parse(line)


# --- the site -----------------------------------------------------------------------------------


def test_products_are_found_by_name_and_sku(client, product):
    Product.objects.create(sku="LGT-1", name="Lamp", price="9.90")

    for query in ("teap", "kit-"):
        page = client.get(reverse("orders:products"), {"q": query}).content.decode()
        assert "Teapot" in page
        assert "Lamp" not in page


def test_a_visitor_orders_and_watches_the_order(client, gateway, product):
    wanted = {"email": "ada@example.com", "postcode": "10 001", "card": "card-good", "quantity": 2}

    answer = client.post(reverse("orders:product", args=[product.sku]), wanted)
    before = client.get(answer.url).content.decode()
    run_until_idle()
    after = client.get(answer.url).content.decode()

    order = Order.objects.get()
    assert answer.url == order.get_absolute_url()
    assert f"{order.workflow_id}: ENQUEUED" in before
    assert "refresh" in before
    assert f"{order.workflow_id}: SUCCESS" in after
    assert "refresh" not in after
    assert order.shipment.tracking_code in after


def test_an_order_form_with_mistakes_places_no_order(client, product):
    answer = client.post(reverse("orders:product", args=[product.sku]), {"quantity": 0})

    assert answer.status_code == 200
    assert not Order.objects.exists()


def test_the_admin_shows_an_order_with_what_became_of_it(admin_client, gateway, product):
    order = order_two(product)
    run_until_idle()

    assert admin_client.get(reverse("admin:orders_product_changelist")).status_code == 200
    assert admin_client.get(reverse("admin:orders_order_changelist")).status_code == 200
    page = admin_client.get(reverse("admin:orders_order_change", args=[order.pk])).content.decode()
    assert order.workflow_id in page
    assert Order.objects.get().shipment.tracking_code in page
