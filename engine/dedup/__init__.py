"""Near-duplicates as an algorithm: signatures in, what goes and what stays out. See the README beside this file."""

from ...sinks.signatures import Signatures, SignatureWriter
from .decide import Decision, Duplicate, decide
from .rules import Rule

__all__ = ["Decision", "Duplicate", "Rule", "SignatureWriter", "Signatures", "decide"]
