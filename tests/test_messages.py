"""What the messages of all floors leave out, and what they call what is no file."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from penstock.messages import kind_of_path, redact, without_addresses


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pa@ss@host:1/db", "http://***@host:1/db"),
        ("s3://key:secret@bucket/a.jpg and http://b", "s3://***@bucket/a.jpg and http://b"),
        ("mail me@home", "mail me@home"),
        ("http://host/a@b", "http://host/a@b"),
        (
            "https://b/k?X-Amz-Date=1&X-Amz-Signature=ab12&X-Amz-Security-Token=x%2F 403",
            "https://b/k?X-Amz-Date=1&X-Amz-Signature=***&X-Amz-Security-Token=*** 403",
        ),
        ("'https://a.net/c?sv=2&sig=abc%3D'", "'https://a.net/c?sv=2&sig=***'"),
        (
            "https://cdn/v.mp4?Policy=ab&Signature=cd&Key-Pair-Id=K",
            "https://cdn/v.mp4?Policy=***&Signature=***&Key-Pair-Id=K",
        ),
        ("https://cdn/v.m3u8?token=ab&hdnts=st~1", "https://cdn/v.m3u8?token=***&hdnts=***"),
        ("photos.db?signal=1", "photos.db?signal=1"),
    ],
)
def test_credentials_in_addresses_are_left_out(text: str, shown: str) -> None:
    """What stands before the @ of an address is a credential, and what signs a presigned one."""
    assert redact(text) == shown


def test_where_an_object_lies_is_left_out() -> None:
    """Equal failures have equal messages, whichever object they are about."""
    assert without_addresses(f"cannot read {io.BytesIO()!r}") == "cannot read <_io.BytesIO object>"


def test_a_place_in_a_file_is_not_where_an_object_lies() -> None:
    """A marker's offset says something."""
    assert without_addresses("bad marker at 0x1f") == "bad marker at 0x1f"


def test_what_is_no_file_is_called_by_its_kind() -> None:
    """Also a kind that no system here has."""
    assert kind_of_path(Path(os.devnull).stat().st_mode) == "a character device"
    assert kind_of_path(stat.S_IFSOCK | 0o600) == "a socket"
    assert kind_of_path(0) == "something special"
