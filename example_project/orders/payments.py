"""The payment gateway, seen from the shop.

Two kinds of failure and no third: `Unreachable` may be tried again, because each
request carries its idempotency key; `Refused`, and its `Declined`, are final.
"""

import json
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from django.conf import settings

TIMEOUT_SECONDS = 1.0


class Unreachable(Exception):
    """No answer, or none that says what happened. The money may have moved."""


class Refused(Exception):
    """The gateway said no, and will say so again."""


class Declined(Refused):
    """The card can't pay."""


def charge(key: str, order: str, cents: int, card: str) -> str:
    """Take the money, once for each key, and return the charge's id."""
    answer = _post("/charges", key, {"order": order, "amount": cents, "card": card})
    return str(answer["id"])


def refund(key: str) -> None:
    """Give back what was taken under this key, and let it take nothing more."""
    _post("/refunds", key, {})


def _post(path: str, key: str, body: dict) -> dict:
    gateway = urlsplit(settings.GATEWAY_URL)
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    with closing(HTTPConnection(gateway.netloc, timeout=TIMEOUT_SECONDS)) as connection:
        try:
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error
    match response.status:
        case 200 | 201:
            return answer
        case 402:
            raise Declined(answer["error"])
        case status if 400 <= status < 500:
            raise Refused(answer["error"])
        case status:
            raise Unreachable(f"HTTP {status}: {answer['error']}")
