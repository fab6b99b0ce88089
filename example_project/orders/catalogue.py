"""Read a supplier's catalogue: CSV in UTF-8, one product a line.

Pure: lines in, products and complaints out. A bad line never costs a good one,
and is never dropped in silence. Line numbers are those an editor shows; the
header is line 1. No value may contain a line break.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import islice

COLUMNS = ["sku", "name", "price", "stock"]
SKU = re.compile(r"[A-Za-z0-9-]{1,20}")
PRICE_MAX = Decimal("9999999.99")
STOCK_MAX = 1_000_000


class BadCatalogue(Exception):
    """The file as a whole is not a catalogue."""


class BadLine(Exception):
    """One line can't be imported; the message says why."""


@dataclass(frozen=True, slots=True)
class Item:
    sku: str
    name: str
    price: Decimal
    stock: int


def lines(path: str, start: int, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of the lines from `start` up to, not including, `stop`."""
    with open(path, "rb") as file:
        yield from islice(enumerate(file, start=1), start - 1, stop and stop - 1)


def survey(path: str) -> tuple[int, list[tuple[int, int]]]:
    """Return what only the whole file can tell: its last line's number, and the
    repeated SKUs, as (line, line where the SKU stood first).

    Only a line that is good by itself takes its SKU. Raise BadCatalogue if the
    header is not the one agreed on.
    """
    header = next((line for _, line in lines(path, 1, 2)), b"")
    if header.decode("utf-8-sig", errors="replace").strip().split(",") != COLUMNS:
        raise BadCatalogue(f"{path} does not begin with {','.join(COLUMNS)}")
    last, first_lines, repeats = 1, {}, []
    for number, line in lines(path, 2):
        last = number
        try:
            sku = parse(line).sku
        except BadLine:
            continue  # whoever imports the line reports it
        if first_lines.setdefault(sku, number) != number:
            repeats.append((number, first_lines[sku]))
    return last, repeats


def parse(line: bytes) -> Item:
    """Return the product of one line, or raise BadLine."""
    sku, name, price, stock = _values(line)
    if not sku or not name:
        raise BadLine("name is missing" if sku else "SKU is missing")
    if not SKU.fullmatch(sku):
        raise BadLine(f"SKU is not up to 20 letters, digits and hyphens: {sku[:40]!r}")
    if len(name) > 200:
        raise BadLine("name is longer than 200 characters")
    return Item(sku, name, _price(price), _stock(stock))


def _values(line: bytes) -> list[str]:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise BadLine(f"not UTF-8: byte {byte:#04x} at column {error.start + 1}") from None
    if "\0" in text:
        raise BadLine("contains a NUL character")
    if not text.strip():
        raise BadLine("empty")
    try:
        values = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise BadLine(f"not CSV: {error}") from None
    if len(values) != len(COLUMNS):
        raise BadLine(f"{len(values)} columns instead of {len(COLUMNS)}")
    return [value.strip() for value in values]


def _price(text: str) -> Decimal:
    if not text:
        raise BadLine("price is missing")
    try:
        price = Decimal(text)
    except InvalidOperation:
        raise BadLine(f"price is not a number: {text[:40]!r}") from None
    if not (price.is_finite() and 0 < price <= PRICE_MAX):
        raise BadLine(f"price is out of range: {text[:40]}")
    if price != round(price, 2):
        raise BadLine(f"price has fractions of a cent: {text[:40]}")
    return round(price, 2)


def _stock(text: str) -> int:
    if not text:
        raise BadLine("stock is missing")
    try:
        stock = int(text)
    except ValueError:
        raise BadLine(f"stock is not a whole number: {text[:40]!r}") from None
    if not 0 <= stock <= STOCK_MAX:
        raise BadLine(f"stock is out of range: {stock}")
    return stock
