"""What the messages of all floors have in common: what they leave out."""

from __future__ import annotations

import re
from typing import Final

_CREDENTIALS: Final = re.compile(r"(?<=://)[^/\s]*@")

_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]{6,}\b")
"""Where an object lies in memory: says nothing, and would make each of many equal messages another one."""


def redact(text: str) -> str:
    """`text` with the credentials of every URI in it replaced by ``***``."""
    return _CREDENTIALS.sub("***@", text)


def without_addresses(text: str) -> str:
    """`text` without the addresses of objects, as in ``<BytesIO object at 0x7f6c827776f0>``."""
    return _ADDRESS.sub("", text)
