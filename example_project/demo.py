"""The example shop's story on one terminal: `make demo`.

Starts a payment gateway that misbehaves, a worker and the site, on a database of
its own; imports the catalogue, places orders, kills the worker with SIGKILL in
the middle, and then counts: every order ended, no payment was taken twice.

With EXIT=1 it ends there, with status 0 if all of that is true and 1 if not.
Otherwise shop and admin stay up until Ctrl-C.
"""

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # as for manage.py, which the worker and the site are started with

CATALOGUE = ROOT / "example_project" / "data" / "catalogue.csv"
ORDERS = 200
KILL_AT = ORDERS // 4
LEASE_SECONDS = 4  # short, so that nobody has to wait long for the dead worker's orders
PATIENCE_SECONDS = 180
SEED = 7
MISHAPS = ["--fail=0.15", "--stall=0.05", "--drop=0.08", "--decline=0.05", "--stall-seconds=1.5"]


class DemoFailed(Exception):
    """Something the demo can't go on without did not happen."""


# --- the processes ------------------------------------------------------------------------------


class Processes:
    """The demo's child processes, each with a log file and a process group of its own.

    Its own group, so that a Ctrl-C reaches the demo alone, which then ends them in
    order, and so that a kill reaches what a child may have started itself.
    """

    def __init__(self, logs: Path):
        self._logs = logs
        self._running: dict[str, subprocess.Popen] = {}

    def start(self, name: str, *command: str, **options) -> subprocess.Popen:
        with open(self._logs / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                **{"stdout": log, **options},
            )
        self._running[name] = process
        return process

    def kill(self, name: str) -> int:
        process = self._running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return process.pid

    def check(self) -> None:
        for name, process in self._running.items():
            if process.poll() is not None:
                raise DemoFailed(f"the {name} ended by itself, with status {process.returncode}")

    def stop(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for name, process in list(self._running.items()):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.kill(name)

    def last_words(self) -> str:
        tails = []
        for log in sorted(self._logs.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-15:]
            tails.append("\n".join([f"--- {log.stem} ---", *lines]))
        return "\n".join(tails)


def start_gateway(processes: Processes, home: Path) -> str:
    """Start the gateway and return its address, which is the first thing it says."""
    script, ledger = "example_project/gateway.py", home / "ledger.sqlite3"
    arguments = ["--port=0", f"--ledger={ledger}", f"--seed={SEED}", *MISHAPS]
    gateway = processes.start("gateway", script, *arguments, stdout=subprocess.PIPE, text=True)
    with gateway.stdout as said:
        url = said.readline().strip()
    if not url:
        raise DemoFailed("the gateway did not start")
    return url


def start_site(processes: Processes) -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes.start("site", "manage.py", "runserver", "--noreload", address)
    url = f"http://{address}/"
    wait(lambda: answers(url), processes, "the site answers")
    return url


def start_worker(processes: Processes) -> int:
    return processes.start("worker", "manage.py", "runworker").pid


def fetch(url: str) -> tuple[int, bytes]:
    address = urlsplit(url)
    with closing(HTTPConnection(address.netloc, timeout=10)) as connection:
        connection.request("GET", address.path)
        response = connection.getresponse()
        return response.status, response.read()


def answers(url: str) -> bool:
    try:
        return fetch(url)[0] == 200
    except OSError:
        return False


def wait(until: Callable[[], bool], processes: Processes, what: str) -> None:
    """Look until `until` says yes; it may draw a progress bar as it looks."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not until():
        processes.check()
        if time.monotonic() > deadline:
            raise DemoFailed(f"{PATIENCE_SECONDS} s were not enough until {what}")
        time.sleep(0.2)


# --- the terminal -------------------------------------------------------------------------------


class Bar:
    """A progress bar on a terminal; elsewhere, a line at each tenth."""

    WIDTH = 30

    def __init__(self, title: str, whole: int):
        self._title, self._whole = title, whole
        self._shown = -1

    def show(self, done: int, note: str = "") -> None:
        filled = min(done, self._whole) * self.WIDTH // self._whole
        if sys.stdout.isatty():
            bar = "█" * filled + "░" * (self.WIDTH - filled)
            line = f"  {self._title:<9} {bar} {done:>5}/{self._whole}  {note}"
            width = shutil.get_terminal_size().columns
            print(f"\r\x1b[K{line[: width - 1]}", end="", flush=True)
        elif (tenth := done * 10 // self._whole) > self._shown:
            self._shown = tenth
            print(f"  {self._title:<9} {done:>5}/{self._whole}  {note}", flush=True)

    def end(self) -> None:
        if sys.stdout.isatty():
            print(flush=True)


def say(text: str) -> None:
    print(text, flush=True)


# --- the story ----------------------------------------------------------------------------------
# Django can be set up only when the gateway's address is known; what needs the
# models is imported where it is used.


def set_up(home: Path, gateway_url: str) -> str:
    """Point everything at `home`, migrate, and return the password of the login `admin`.

    Overrides the environment's own DATABASE_URL: the demo touches no other database.
    """
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        "DATABASE_URL": f"sqlite:///{home / 'shop.sqlite3'}",
        "DURABLE_LEASE_SECONDS": str(LEASE_SECONDS),
        "EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend",
        "EMAIL_FILE_PATH": str(home / "mails"),
        "GATEWAY_URL": gateway_url,
        "PYTHONUNBUFFERED": "1",
    }
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    password = secrets.token_urlsafe(9)
    get_user_model().objects.create_superuser("admin", "admin@shop.example", password)
    return password


def import_the_catalogue(processes: Processes) -> None:
    from durable_workflows import start_workflow
    from example_project.orders.models import Product
    from example_project.orders.workflows import import_catalogue

    lines = CATALOGUE.read_bytes().count(b"\n") - 1
    handle, bar = start_workflow(import_catalogue, str(CATALOGUE)), Bar("Products", lines)

    def finished() -> bool:
        bar.show(Product.objects.count())
        return handle.get_status().status in ("SUCCESS", "ERROR")

    wait(finished, processes, "the catalogue is in")
    report = handle.get_result(timeout=10)
    bar.show(report["created"], f"of {report['lines']} lines, {len(report['bad'])} bad")
    bar.end()
    for bad in report["bad"][:4]:
        say(f"    line {bad['line']}: {bad['reason']}")
    say(f"    … and {len(report['bad']) - 4} more, all in the workflow's output")


def place_the_orders() -> None:
    from example_project.orders.checkout import place_order
    from example_project.orders.models import Product

    dice, bar = random.Random(SEED), Bar("Placed", ORDERS)
    on_sale = dice.sample(list(Product.objects.filter(stock__on_hand__gte=15)), 40)
    for number in range(1, ORDERS + 1):
        wanted = dice.sample(on_sale, dice.randint(1, 3))
        place_order(
            email=f"customer{number}@shop.example",
            postcode="99 001" if dice.random() < 0.04 else f"{dice.randint(10, 98)} 001",
            card="card-declined" if dice.random() < 0.03 else "card-good",
            basket={product: dice.randint(1, 3) for product in wanted},
        )
        bar.show(number)
    bar.end()


def fulfil_and_kill(processes: Processes) -> None:
    """Watch the orders; when a quarter has ended, kill the worker and start another."""
    from example_project.orders.models import Order

    bar = Bar("Fulfilled", ORDERS)

    def ended() -> int:
        shipped = Order.objects.filter(status=Order.Status.SHIPPED).count()
        cancelled = Order.objects.filter(status=Order.Status.CANCELLED).count()
        bar.show(shipped + cancelled, f"{shipped} shipped, {cancelled} cancelled")
        return shipped + cancelled

    wait(lambda: ended() >= KILL_AT, processes, "a quarter of the orders has ended")
    pid = processes.kill("worker")
    begun = Order.objects.filter(status__in=[Order.Status.RESERVED, Order.Status.PAID]).count()
    bar.end()
    say(f"  SIGKILL   worker {pid} is dead, {begun} orders were half done")
    say(f"            worker {start_worker(processes)} takes over, {LEASE_SECONDS} s lease")
    wait(lambda: ended() == ORDERS, processes, "every order has ended")
    bar.end()


def wait_for_the_workflows(processes: Processes) -> None:
    """An order has its last status before its workflow has mailed the customer."""
    unfinished = {"ENQUEUED", "PENDING"}
    wait(
        lambda: all(status.status not in unfinished for status in statuses()),
        processes,
        "every workflow has ended",
    )


def statuses() -> list:
    from durable_workflows import retrieve_workflow
    from example_project.orders.models import Order

    return [retrieve_workflow(order.workflow_id).get_status() for order in Order.objects.all()]


def verdicts(ledger: list[dict], opening_stock: dict[int, int]) -> Iterator[tuple[bool, str]]:
    """Yield what has to be true at the end, and whether it is."""
    from example_project.orders.models import Order, Payment, Stock

    orders = list(Order.objects.prefetch_related("lines"))
    shipped = [order for order in orders if order.status == Order.Status.SHIPPED]
    cancelled = [order for order in orders if order.status == Order.Status.CANCELLED]
    yield (
        len(orders) == len(shipped) + len(cancelled) == ORDERS,
        f"{len(orders)} orders ended: {len(shipped)} shipped, {len(cancelled)} cancelled",
    )
    yield all(s.status == "SUCCESS" for s in statuses()), "every order's workflow has succeeded"

    moved: dict[str, list[int]] = defaultdict(list)
    for entry in ledger:
        if entry["kind"] in ("charge", "refund"):
            moved[entry["order_reference"]].append(entry["amount"])
    once = [order for order in shipped if moved[str(order.reference)] == [order.total * 100]]
    yield once == shipped, f"{len(once)} of {len(shipped)} shipped orders were charged exactly once"
    even = [order for order in cancelled if sum(moved[str(order.reference)]) == 0]
    yield even == cancelled, f"{len(even)} of {len(cancelled)} cancelled orders cost nothing"
    taken = sum(order.total for order in shipped)
    balance = sum(map(sum, moved.values()))
    yield (
        balance == taken * 100,
        f"the gateway holds {balance / 100:,.2f}, the orders come to {taken:,}",
    )
    kept = Payment.objects.filter(status=Payment.Status.TAKEN).values_list("order", flat=True)
    yield set(kept) == {order.pk for order in shipped}, "the shop's own payments say the same"

    expected = dict(opening_stock)
    for line in (line for order in shipped for line in order.lines.all()):
        expected[line.product_id] -= line.quantity
    counted = {stock.pk: stock.on_hand for stock in Stock.objects.all()}
    reserved = Stock.objects.filter(reserved__gt=0).count()
    yield counted == expected and not reserved, "stock adds up, none is left reserved"


def tell_the_end(gateway_url: str, opening_stock: dict[int, int], home: Path) -> bool:
    ledger = json.loads(fetch(f"{gateway_url}/charges")[1])
    met = ledger["mishaps"]
    recovered = sum(status.recoveries > 0 for status in statuses())
    mails = sum(file.read_bytes().count(b"Message-ID:") for file in (home / "mails").iterdir())
    say(
        f"  On the way, the gateway failed {met.get('fail', 0)} times, stalled "
        f"{met.get('stall', 0)} times, and hung up after acting {met.get('drop', 0)} times;\n"
        f"  {recovered} workflows outlived the killed worker; {mails} mails were sent.\n"
    )
    good = True
    for holds, sentence in verdicts(ledger["entries"], opening_stock):
        say(f"  {'✓' if holds else '✗'} {sentence}")
        good = good and holds
    return good


@contextmanager
def stage() -> Iterator[tuple[Path, Processes]]:
    """Yield a directory and the processes; when left, nothing of either remains."""
    with tempfile.TemporaryDirectory(prefix="durable-demo-") as name:
        processes = Processes(Path(name))
        try:
            yield Path(name), processes
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # impatience leaves no process behind
            processes.stop()


def play(home: Path, processes: Processes) -> bool:
    gateway_url = start_gateway(processes, home)
    password = set_up(home, gateway_url)
    start_worker(processes)
    site_url = start_site(processes)
    say(f"\nThe durable shop is open at {site_url}; worker and payment gateway are up.\n")

    import_the_catalogue(processes)
    from example_project.orders.models import Stock

    opening_stock = {stock.pk: stock.on_hand for stock in Stock.objects.all()}
    place_the_orders()
    fulfil_and_kill(processes)
    wait_for_the_workflows(processes)
    say("")
    good = tell_the_end(gateway_url, opening_stock, home)

    if os.environ.get("EXIT") != "1":
        say(f"\nShop   {site_url}\nAdmin  {site_url}admin/   login admin, password {password}")
        say("Ctrl-C ends it all.")
        while True:
            processes.check()
            time.sleep(1)
    return good


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with stage() as (home, processes):
        try:
            return 0 if play(home, processes) else 1
        except KeyboardInterrupt:
            say("\nClosing the shop.")
            return 0 if os.environ.get("EXIT") != "1" else 130
        except Exception as failure:
            say(f"\n{processes.last_words()}\n\nThe demo failed: {failure}.")
            if isinstance(failure, DemoFailed):
                return 1
            raise


if __name__ == "__main__":
    sys.exit(main())
