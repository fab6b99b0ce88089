"""One rule for every name that people choose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_workflows.core.names import LONGEST, check_name
from durable_workflows.errors import InvalidName


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "order-7",
        "shop.fulfil",
        "Überweisung",
        "注文",
        "f.<locals>.g",
        "a/b:c@d#1%20",
        "x" * LONGEST,
    ],
)
def test_plain_names_of_any_script_are_fine(name):
    assert check_name(name, "A queue name") == name


@pytest.mark.parametrize(
    "name, reason",
    [
        ("", "can't be empty"),
        (" ", "white space"),
        ("a b", "white space"),
        ("a\n", "white space"),
        ("\n", "white space"),
        ("a\x00b", "control characters"),
        ("a\x7f", "control characters"),
        ("a'b", "quotes"),
        ('a"b', "quotes"),
        ("a\\b", "backslashes"),
        ("a`b", "quotes"),
        ("a\u200bb", "can't be printed"),
        ("a\ud800b", "can't be printed"),
        ("x" * (LONGEST + 1), "at most 255"),
        (None, "is a string, not NoneType"),
        (7, "is a string, not int"),
        (b"a", "is a string, not bytes"),
    ],
)
def test_a_name_that_breaks_the_rule_is_refused_with_the_reason(name, reason):
    with pytest.raises(InvalidName, match=reason) as caught:
        check_name(name, "A queue name")
    assert str(caught.value).startswith("A queue name")


@given(st.text())
def test_what_passes_fits_into_one_log_line_and_one_column(text):
    try:
        name = check_name(text, "An id")
    except InvalidName as error:
        refusal = str(error)
        assert refusal.isprintable()
    else:
        assert name == text
        assert name.isprintable()
        assert not any(sign.isspace() for sign in name)
        assert 0 < len(name.encode()) <= 4 * LONGEST
