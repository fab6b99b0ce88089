"""A payment gateway to practise against: a local HTTP process that misbehaves.

    python example_project/gateway.py --port 8800 --ledger ledger.sqlite3

Each POST carries an Idempotency-Key. The first request with a key decides, and
each later one with the same key is told the same, whatever went wrong between:
money moves once per key. It fails, stalls and hangs up as often as it is asked
to; `--seed` makes the same key meet the same mishaps. Loopback only.

    POST /charges  {"order", "amount", "card"}   201, 402 declined, 409 refunded before
    POST /refunds  {}                            201; also closes a key never charged
    GET  /charges                                the ledger, and the mishaps so far
"""

import argparse
import contextlib
import json
import random
import socket
import sqlite3
import threading
import time
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ALWAYS_DECLINED = "card-declined"
BODY_MAX_BYTES = 64 * 1024

SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('charge', 'decline', 'refund', 'void')),
    order_reference TEXT NOT NULL,
    amount INTEGER NOT NULL
)
"""


class Refused(Exception):
    """The request can't be granted, however often it is sent."""

    def __init__(self, status: HTTPStatus, message: str):
        self.status = status
        super().__init__(message)


class Ledger:
    """What the gateway has decided: an SQLite file, one row for each decision."""

    def __init__(self, path: str):
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        with self._connection:
            self._connection.execute(SCHEMA)

    def charge(self, key: str, order: str, amount: int, declined: bool) -> dict:
        """Take the money once for this key and return the ledger's row."""
        with self._lock:
            row = next(iter(self._rows(key)), None)
            if row is None:
                row = self._append(key, "decline" if declined else "charge", order, amount)
            elif any(later["kind"] in ("refund", "void") for later in self._rows(key)):
                raise Refused(HTTPStatus.CONFLICT, "this payment was cancelled before")
            elif (row["order_reference"], row["amount"]) != (order, amount):
                raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "key used for other terms")
        if row["kind"] == "decline":
            raise Refused(HTTPStatus.PAYMENT_REQUIRED, "card declined")
        return row

    def refund(self, key: str) -> dict:
        """Give back what this key took; a key that took nothing is closed for later charges.

        Closing matters: a charge that the caller gave up on may still be on its way.
        """
        with self._lock:
            rows = {row["kind"]: row for row in self._rows(key)}
            done = rows.get("refund") or rows.get("void")
            if done:
                return done
            if charge := rows.get("charge"):
                return self._append(key, "refund", charge["order_reference"], -charge["amount"])
            return self._append(key, "void", "", 0)

    def entries(self) -> list[dict]:
        with self._lock:
            return [dict(row) for row in self._connection.execute("SELECT * FROM ledger")]

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _rows(self, key: str) -> list[dict]:
        found = self._connection.execute("SELECT * FROM ledger WHERE key = ? ORDER BY id", [key])
        return [dict(row) for row in found]

    def _append(self, key: str, kind: str, order: str, amount: int) -> dict:
        with self._connection:
            self._connection.execute(
                "INSERT INTO ledger (key, kind, order_reference, amount) VALUES (?, ?, ?, ?)",
                [key, kind, order, amount],
            )
        return self._rows(key)[-1]


class Mischief:
    """Which mishap a request meets. Rates are probabilities between 0 and 1."""

    def __init__(
        self, *, fail=0.0, stall=0.0, drop=0.0, decline=0.0, stall_seconds=3.0, seed: int = 0
    ):
        self.fail, self.stall, self.drop, self.decline = fail, stall, drop, decline
        self.stall_seconds, self.seed = stall_seconds, seed
        self.met: Counter[str] = Counter()
        self._tries: Counter[str] = Counter()
        self._lock = threading.Lock()

    def draw(self, key: str) -> str:
        """Return "fail", "stall", "drop" or "none".

        Drawn from the key and how often it was seen, not from one shared
        generator: threads race, and the same seed is to mean the same mishaps.
        """
        with self._lock:
            self._tries[key] += 1
            dice = random.Random(f"{self.seed} {key} {self._tries[key]}").random()
            kinds = [("fail", self.fail), ("stall", self.stall), ("drop", self.drop)]
            for kind, rate in kinds:
                if dice < rate:
                    self.met[kind] += 1
                    return kind
                dice -= rate
            return "none"

    def declines(self, key: str, card: str) -> bool:
        dice = random.Random(f"{self.seed} {key}").random()
        return card == ALWAYS_DECLINED or dice < self.decline


class Gateway(ThreadingHTTPServer):
    """Listens on 127.0.0.1; port 0 takes a free one, `url` says which."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, ledger: Ledger, mischief: Mischief):
        self.ledger, self.mischief = ledger, mischief
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Stay silent: callers that time out and hang up are the purpose of this program."""


class Handler(BaseHTTPRequestHandler):
    server: Gateway
    timeout = 30  # a caller that sends half a request must not hold a thread for ever

    def do_GET(self):
        if self.path == "/charges":
            entries, mishaps = self.server.ledger.entries(), dict(self.server.mischief.met)
            self._answer(HTTPStatus.OK, {"entries": entries, "mishaps": mishaps})
        else:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "no such address"})

    def do_POST(self):
        try:
            key, body = self._read()
        except Refused as refused:
            self._answer(refused.status, {"error": str(refused)})
        else:
            self._misbehave(key, body)

    def _misbehave(self, key: str, body: dict) -> None:
        mishap = self.server.mischief.draw(key)
        if mishap == "fail":
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "try again later"})
            return
        if mishap == "stall":
            time.sleep(self.server.mischief.stall_seconds)  # then acts, though nobody waits now
        try:
            status, answer = HTTPStatus.CREATED, self._act(key, body)
        except Refused as refused:
            status, answer = refused.status, {"error": str(refused)}
        if mishap == "drop":
            self._hang_up()
        else:
            self._answer(status, answer)

    def _act(self, key: str, body: dict) -> dict:
        if self.path == "/refunds":
            return self.server.ledger.refund(key)
        match body:
            case {"order": str(order), "amount": int(amount), "card": str(card)} if amount > 0:
                declined = self.server.mischief.declines(key, card)
                return self.server.ledger.charge(key, order, amount, declined)
        raise Refused(HTTPStatus.BAD_REQUEST, "a charge needs order, amount (in cents) and card")

    def _read(self) -> tuple[str, dict]:
        if self.path not in ("/charges", "/refunds"):
            raise Refused(HTTPStatus.NOT_FOUND, "no such address")
        key, length = self.headers.get("Idempotency-Key"), self.headers.get("Content-Length", "")
        if not key:
            raise Refused(HTTPStatus.BAD_REQUEST, "the header Idempotency-Key is missing")
        if not length.isdecimal() or int(length) > BODY_MAX_BYTES:
            raise Refused(HTTPStatus.BAD_REQUEST, f"send a body of at most {BODY_MAX_BYTES} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is not a JSON object")
        return key, body

    def _answer(self, status: HTTPStatus, answer: dict) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _hang_up(self) -> None:
        """Close without a word. The money has moved, and the caller can't know."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format, *args):
        """Say nothing: thousands of lines would hide what the demo has to tell."""


def main() -> None:
    parser = argparse.ArgumentParser(description="A payment gateway that misbehaves.")
    parser.add_argument("--port", type=int, default=8800, help="0 takes a free one")
    parser.add_argument("--ledger", default=":memory:", help="SQLite file; default: in memory")
    for rate in ("fail", "stall", "drop", "decline"):
        parser.add_argument(f"--{rate}", type=float, default=0.0, metavar="RATE")
    parser.add_argument("--stall-seconds", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    port, ledger = options.pop("port"), Ledger(options.pop("ledger"))
    gateway = Gateway(port, ledger, Mischief(**options))
    print(gateway.url, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        gateway.serve_forever()


if __name__ == "__main__":
    main()
