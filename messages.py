"""What the messages of all floors have in common: what they leave out."""

from __future__ import annotations

import re
from typing import Final

_CREDENTIALS: Final = re.compile(r"(?<=://)[^/\s]*@")


def redact(text: str) -> str:
    """`text` with the credentials of every URI in it replaced by ``***``."""
    return _CREDENTIALS.sub("***@", text)
