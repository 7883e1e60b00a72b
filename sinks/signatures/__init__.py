"""Signatures on disk, by which near-duplicates are found. See the README beside this file."""

from .columns import Signatures, Texts
from .files import SignatureWriter, merge, parts_in, read_signatures, sweep
from .sink import SignatureSink

__all__ = ["SignatureSink", "SignatureWriter", "Signatures", "Texts", "merge", "parts_in", "read_signatures", "sweep"]
