"""What a stage does about an item that fails: leave it out, end the job, or try again what may pass by itself."""

from __future__ import annotations

import errno
import math
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from ...backoff import Backoff
from ...errors import (
    ConfigError,
    DeadlineError,
    DecodeError,
    HostStoppedError,
    ItemError,
    PenstockError,
    PoisonItemError,
    SinkUnavailableError,
)
from .budget import Budget, check_budget, parse_budget

_LONG = re.compile(r"0*[1-9][0-9]{0,8}|[0-9]{1,9}(\.[0-9]{1,6})?s")
"""Attempts, or seconds."""

_CAUSES = 16
"""Errors in a chain to look at; one made by hand may lead back to itself."""

_PASSING = frozenset(
    {
        errno.EAGAIN,  # also a file that another process holds a lease on
        errno.EINTR,
        errno.EIO,  # what a soft NFS mount, rclone, s3fs and gcsfuse make of nearly everything
        errno.EREMOTEIO,
        errno.ESTALE,  # a file that was replaced on the NFS server
        errno.ETIMEDOUT,  # NFS softerr, CIFS
        *(
            errno.ECONNRESET,
            errno.ECONNREFUSED,
            errno.ECONNABORTED,
        ),  # as their classes are, which a worker does not send
        errno.ENOTCONN,  # a FUSE daemon is gone; often it is mounted again
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENETRESET,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
    }
)
"""Errors of the system that may be gone a moment later, on mounts and connections as people have them."""

_CUT_OFF = frozenset({"SSLEOFError", "SSLZeroReturnError"})
"""What TLS says of a connection that ended."""

_WITHIN = 30.0
"""Seconds of trying by default: longer than a file server takes to hand over to another, or a mount to come back."""

_LASTING = (DecodeError, DeadlineError, PoisonItemError, HostStoppedError)
"""About the item itself: it would fail again, and a deadline and poison cost a worker each time; or for this run."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Leave the item out: it is a failure (a dead letter in a job), and all others go on.

    Attributes:
        max_failures: how many the stage tolerates: a count (-1: any), or a `Fraction` of its items; None: what `build`
            says.

    Raises:
        ConfigError: it is neither.
    """

    max_failures: Budget | None = None

    def __post_init__(self) -> None:
        if self.max_failures is not None:
            check_budget(self.max_failures)

    def __str__(self) -> str:
        return "skip" if self.max_failures is None else f"skip:{self.max_failures}"


@dataclass(frozen=True, slots=True)
class Fail:
    """End the whole: what is past the stage is delivered, the item is named and stays in flight, to be done again."""

    def __str__(self) -> str:
        return "fail"


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again what is transient, after a random time whose bound doubles (see `Backoff`).

    Its spelling leaves the waits out: a job that is resumed has the default ones.

    Attributes:
        attempts: how often in all; None: as often as there is time.
        within: seconds after the first failure in which attempts begin; None: `attempts` says how often. Of the two one
            is given; by default it is 30 seconds. Where they are spent in vain on one item after the other, the
            following ones get three attempts, until one of them goes well.
        first: seconds that the first wait takes at most.
        longest: seconds that any wait takes at most.
        then: what to do about an item that still fails, and about all that is not transient.

    Raises:
        ConfigError: `attempts` is less than 1, a time is negative or not finite, or both `attempts` and `within` are
            given.
    """

    attempts: int | None = None
    within: float | None = None
    first: float = 0.2
    longest: float = 10.0
    then: Skip | Fail = field(default_factory=Skip)

    def __post_init__(self) -> None:
        if self.attempts is not None:
            _check_attempts(self.attempts)
            if self.within is not None:
                raise ConfigError(
                    f"Retry(attempts={self.attempts}, within={self.within}): one of them says when to end"
                )
        elif self.within is None:
            object.__setattr__(self, "within", _WITHIN)
        for name in ("within", "first", "longest"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"Retry({name}={getattr(self, name)!r}) must be a number of seconds from 0 on")

    def __str__(self) -> str:
        long = f"{self.within:.10g}s" if self.attempts is None else str(self.attempts)
        return f"retry:{long}" + ("" if self.then == Skip() else f",{self.then}")

    def delay(self, failed: int, random: Random) -> float:
        """Seconds to wait after so many attempts (from 1 on) have failed."""
        return Backoff(self.first, self.longest).delay(failed, random)


def _check_attempts(attempts: object) -> None:
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise ConfigError(f"Retry(attempts={attempts!r}) must be an int of at least 1")


Policy = Skip | Fail | Retry
"""What a stage does about an item that fails."""


def tolerated(policy: Policy) -> Budget | None:
    """How many failures a policy says there may be, if it does."""
    last = policy.then if isinstance(policy, Retry) else policy
    return last.max_failures if isinstance(last, Skip) else None


def parse_policy(said: object) -> Policy:
    """A policy, or its spelling: ``skip``, ``skip:100``, ``skip:5%``, ``fail``, ``retry:30s``, ``retry:5,fail``...

    Raises:
        ValueError: it is none.
    """
    if isinstance(said, Skip | Fail | Retry):
        return said
    head, comma, then = str(said).partition(",")
    kind, colon, number = (part.strip() for part in head.partition(":"))
    if kind == "fail" and not (comma or colon):
        return Fail()
    if kind == "skip" and not comma:
        return Skip(parse_budget(number)) if colon else Skip()
    if kind == "retry" and (not colon or _LONG.fullmatch(number)):
        last = parse_policy(then.strip()) if comma else Skip()
        if not isinstance(last, Retry):
            if number.endswith("s"):
                return Retry(within=float(number.removesuffix("s")), then=last)
            return Retry(int(number) if number else None, then=last)
    raise ValueError("must be skip, skip:BUDGET, fail, retry, retry:SECONDSs, retry:ATTEMPTS, or these with ,fail")


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: a connection, a timeout, a system error that passes by itself; or a cause is one.

    A file that is not there or not allowed, a picture that is none, a deadline that has passed, and all that is about
    the whole job (but a store that is out of reach) stay as they are.
    """
    for each in _chain(error):
        verdict = _verdict(each)
        if verdict is not None:
            return verdict
    return False


def asked_wait(error: BaseException) -> float:
    """Seconds before which an item is not to be tried again, where a server said so; else 0."""
    said = (each.retry_after for each in _chain(error) if isinstance(each, ItemError))
    return next((seconds for seconds in said if seconds is not None), 0.0)


def _verdict(error: BaseException) -> bool | None:
    """About this error alone; None where its cause decides."""
    if not isinstance(error, Exception):
        return False
    if isinstance(error, SinkUnavailableError):
        return True
    if isinstance(error, _LASTING) or (isinstance(error, PenstockError) and not isinstance(error, ItemError)):
        return False
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if type(error).__module__ == "ssl":  # by name: importing it would cost each start; and its numbers are OpenSSL's
        return True if type(error).__name__ in _CUT_OFF else None
    number = error.errno if isinstance(error, OSError) else None
    return None if number is None else number in _PASSING


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, as a traceback shows them: HTTP clients wrap the system's errors in their own."""
    following: BaseException | None = error
    for _ in range(_CAUSES):
        if following is None:
            return
        yield following
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
