"""A store that is busy, slow, cut off or another one by now: right bytes or an error in time, never short data."""

from __future__ import annotations

import errno
import os
from time import monotonic

import pytest

from penstock.errors import ObjectChangedError, ObjectStoreError, ObjectStoreUnavailableError, TooLargeError
from penstock.object_stores import ObjectStore, StoreOptions, as_read_error
from penstock.tests.small_s3 import Request, SmallS3, busy, claims, drip, refused, reset_after
from penstock.tests.waiting import patient

pytest.importorskip("obstore")

DATA = os.urandom(200_000)
BRISK = StoreOptions(timeout=1.0, connect_timeout=1.0, retries=2, retry_for=5.0)


@pytest.fixture(params=["a.jpg", "odd//a.jpg"])
def key(request: pytest.FixtureRequest, small_s3: SmallS3) -> str:
    """A key that obstore reads, and one that boto3 does."""
    if "//" in request.param:
        pytest.importorskip("boto3")
    small_s3.put(request.param, DATA)
    return str(request.param)


def read(key: str, options: StoreOptions = BRISK) -> bytes:
    return ObjectStore("s3://bucket", options).get(key, max_bytes=2**20, size=len(DATA))


def test_a_store_that_was_busy_is_asked_again(key: str, small_s3: SmallS3) -> None:
    """Twice 503, then the bytes."""
    small_s3.faults[key] = busy(2)
    assert read(key) == DATA
    assert small_s3.count(key) == 3


@pytest.mark.parametrize("status", [408, 425, 429])
def test_a_store_that_asks_to_come_again_is_unavailable(status: int, key: str, small_s3: SmallS3) -> None:
    """Though it says so by a status of the 4xx."""
    small_s3.faults[key] = refused(status, "Later")
    with pytest.raises(ObjectStoreUnavailableError, match=str(status)):
        read(key)


def test_a_store_that_stays_busy_is_unavailable(key: str, small_s3: SmallS3) -> None:
    """After the attempts that are allowed; as an error of an item it may pass."""
    small_s3.faults[key] = refused(503, "SlowDown")
    with pytest.raises(ObjectStoreUnavailableError, match="503") as raised:
        read(key)
    assert small_s3.count(key) == 3
    assert as_read_error(raised.value).errno == errno.ETIMEDOUT


def test_what_was_refused_for_good_is_not_asked_again(key: str, small_s3: SmallS3) -> None:
    """400 stays 400."""
    small_s3.faults[key] = refused(400, "InvalidRequest")
    with pytest.raises(ObjectStoreError, match="400") as raised:
        read(key)
    assert not isinstance(raised.value, ObjectStoreUnavailableError)
    assert small_s3.count(key) == 1
    assert as_read_error(raised.value).errno is None


def test_a_connection_that_was_cut_gives_the_right_bytes(key: str, small_s3: SmallS3) -> None:
    """RST in the middle of a body, once."""
    small_s3.faults[key] = reset_after(100_000)
    assert read(key) == DATA


def test_a_connection_that_is_always_cut_is_unavailable(key: str, small_s3: SmallS3) -> None:
    """Never short data."""
    small_s3.faults[key] = claims(len(DATA))
    with pytest.raises(ObjectStoreUnavailableError):
        read(key)


def test_a_body_that_comes_byte_by_byte_meets_the_deadline(key: str, small_s3: SmallS3) -> None:
    """Though each byte comes in time."""
    small_s3.faults[key] = drip(0.05)
    begin = monotonic()
    with pytest.raises(ObjectStoreUnavailableError):
        read(key, StoreOptions(timeout=0.3, retries=0, retry_for=1))
    assert monotonic() - begin < patient(5)


def test_an_announced_size_is_believed_and_refused(key: str, small_s3: SmallS3) -> None:
    """Ten gigabytes in the header: the body is not begun with."""
    small_s3.faults[key] = claims(10**10)
    with pytest.raises((ObjectChangedError, TooLargeError)):
        read(key)


def test_an_object_that_is_replaced_between_two_halves_is_no_mixture(small_s3: SmallS3) -> None:
    """What was cut off goes on only in the same object."""
    small_s3.put("a.jpg", DATA)
    cut = reset_after(100_000)

    def replaced(request: Request) -> bool:
        done = cut(request)
        if done:
            small_s3.put("a.jpg", DATA[::-1])
        return done

    small_s3.faults["a.jpg"] = replaced
    with pytest.raises(ObjectStoreError):
        read("a.jpg")


def test_without_etags_what_was_cut_off_is_an_error(small_s3: SmallS3) -> None:
    """Nothing says whether the rest is of the same object."""
    small_s3.etags = False
    small_s3.put("a.jpg", DATA)
    small_s3.faults["a.jpg"] = reset_after(100_000, times=9)
    with pytest.raises(ObjectStoreUnavailableError):
        read("a.jpg")


def test_nobody_listens(aws: pytest.MonkeyPatch) -> None:
    """The port of a server that is gone."""
    aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ObjectStoreUnavailableError):
        read("a.jpg")
