"""What the messages of all floors leave out."""

from __future__ import annotations

import io

import pytest

from penstock.messages import redact, without_addresses


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pa@ss@host:1/db", "http://***@host:1/db"),
        ("s3://key:secret@bucket/a.jpg and http://b", "s3://***@bucket/a.jpg and http://b"),
        ("mail me@home", "mail me@home"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_credentials_in_addresses_are_left_out(text: str, shown: str) -> None:
    """Only what stands before the @ of an address is a credential."""
    assert redact(text) == shown


def test_where_an_object_lies_is_left_out() -> None:
    """Equal failures have equal messages, whichever object they are about."""
    assert without_addresses(f"cannot read {io.BytesIO()!r}") == "cannot read <_io.BytesIO object>"


def test_a_place_in_a_file_is_not_where_an_object_lies() -> None:
    """A marker's offset says something."""
    assert without_addresses("bad marker at 0x1f") == "bad marker at 0x1f"
