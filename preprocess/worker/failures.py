"""What is kept of a failure."""

from __future__ import annotations

import hashlib

from ...errors import ItemError
from .protocol import Source


def detach_traceback(error: ItemError, source: Source) -> ItemError:
    """An error that outlives the work on its picture.

    Its traceback and causes lead to frames, and these to the decoded picture and the file: 240 MiB for a PNG of 60
    megapixels that is cut short, for each of a batch. They are let go of.

    Args:
        error: what was raised.
        source: what the picture was made of; of bytes the sha256 is noted.

    Returns:
        The same error.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
    if isinstance(source, (bytes, memoryview)):
        error.sha256 = hashlib.sha256(source).hexdigest()
    return error
