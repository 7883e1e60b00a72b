"""What the messages of all floors have in common: what they leave out, and what they call a FIFO or a device."""

from __future__ import annotations

import re
import stat
from typing import Final

_CREDENTIALS: Final = re.compile(r"(?<=://)[^/\s]*@")

_SIGNATURES: Final = re.compile(
    r"(?<=[?&])((?:x-(?:amz|goog)-(?:signature|credential|security-token)|sig|lsig|signature|policy|(?:access_)?token|hdn[et][as])=)[^&\s'\"]+",
    re.IGNORECASE,
)
"""What makes a URL as good as a key: of presigned ones of S3 and GCS, Azure's shared access, and those of networks that
deliver videos."""

_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]{6,}\b")
"""Where an object lies in memory: says nothing, and would make each of many equal messages another one."""

_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def redact(text: str) -> str:
    """`text` with the credentials of every URI in it, and the signatures of presigned ones, replaced by ``***``."""
    return _SIGNATURES.sub(r"\1***", _CREDENTIALS.sub("***@", text))


def without_addresses(text: str) -> str:
    """`text` without the addresses of objects, as in ``<BytesIO object at 0x7f6c827776f0>``."""
    return _ADDRESS.sub("", text)


def kind_of_path(mode: int) -> str:
    """What lies at a path where there is neither file nor folder, by its mode bits: ``a FIFO``."""
    return _KINDS.get(stat.S_IFMT(mode), "something special")
