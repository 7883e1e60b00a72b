"""Object stores: their URLs, who we are to them, reading and writing under conditions, and what is never told."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import (
    ConfigError,
    ObjectChangedError,
    ObjectDeniedError,
    ObjectExistsError,
    ObjectNameError,
    ObjectNotFoundError,
    ObjectStoreError,
    TooLargeError,
)
from penstock.object_stores import InFlight, ObjectStore, StoreOptions, StoreURL, as_read_error, is_store_url
from penstock.tests.small_s3 import SmallS3, refused
from penstock.tests.waiting import DEADLINE

pytest.importorskip("obstore")

ODD = ["a//b.jpg", "../up.jpg", "a/./b.jpg", "line\nend.jpg", "/first.jpg", "folder/"]
PLAIN = [
    "a b.jpg",
    "é.jpg",
    "100%25.jpg",
    "a?b=c&d#e.jpg",
    "[x]*.jpg",
    "\U0001f600.jpg",
    "a+b.jpg",
    "~.jpg",
    "...",
    "a'\".jpg",
]


@pytest.mark.parametrize(
    ("text", "scheme", "bucket", "key"),
    [
        ("s3://b", "s3", "b", ""),
        ("S3://b/", "s3", "b", ""),
        ("gs://b/a/b%20?c#d", "gs", "b", "a/b%20?c#d"),
        ("az://$web/x/", "az", "$web", "x/"),
        ("file:///tmp/x", "file", "", "/tmp/x"),
        ("file://localhost/tmp/x", "file", "", "/tmp/x"),
    ],
)
def test_a_url_is_taken_apart(text: str, scheme: str, bucket: str, key: str) -> None:
    """Keys are as they are."""
    url = StoreURL.parse(text)
    assert url == (scheme, bucket, key)
    assert StoreURL.parse(str(url)) == url
    assert is_store_url(text) == (scheme != "file")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://b/x", "no URL of a store"),
        ("/tmp/x", "no URL of a store"),
        ("s3:///x", "names no bucket"),
        ("file://host/x", "three slashes"),
        ("s3://AK:SECRET@b/x", r"'s3://\*\*\*@b/x': credentials in a URL"),
    ],
)
def test_what_is_no_url_of_a_store_is_refused(text: str, said: str) -> None:
    """With a way out, and without the secret in it."""
    with pytest.raises(ConfigError, match=said) as raised:
        StoreURL.parse(text)
    assert "SECRET" not in str(raised.value)


def test_options_travel_as_text() -> None:
    """Only what differs from the defaults; wrong ones are refused."""
    options = StoreOptions(anonymous=True, timeout=3.5)
    assert options.dump() == '{"anonymous": true, "timeout": 3.5}'
    assert StoreOptions.load(options.dump()) == options
    assert StoreOptions.load("") == StoreOptions()
    with pytest.raises(ConfigError, match="timeout=-1"):
        StoreOptions(timeout=-1)


class TestCredentials:
    """Decided before the first request, and the metadata service is never asked."""

    def test_without_any_it_is_said_what_to_set(self, aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """At once, for each kind of store."""
        aws.delenv("AWS_ACCESS_KEY_ID")
        aws.delenv("AWS_SECRET_ACCESS_KEY")
        aws.setenv("HOME", str(tmp_path))
        for url, way in (
            ("s3://b/x", "AWS_PROFILE"),
            ("gs://b/x", "GOOGLE_APPLICATION_CREDENTIALS"),
            ("az://b/x", "AZURE_STORAGE_ACCOUNT_NAME"),
        ):
            with pytest.raises(ConfigError, match=f"{url[:-2]}.*{way}"):
                ObjectStore(url)
        with pytest.raises(ConfigError, match=r"--anonymous.*--instance-role"):
            ObjectStore("s3://b")

    def test_a_variable_that_is_empty_says_nothing(self, aws: pytest.MonkeyPatch) -> None:
        """As wrappers leave them."""
        aws.setenv("AWS_ACCESS_KEY_ID", "")
        aws.setenv("AWS_SECRET_ACCESS_KEY", "")
        with pytest.raises(ConfigError, match="there are no credentials"):
            ObjectStore("s3://b")

    def test_half_a_key_is_an_error(self, aws: pytest.MonkeyPatch) -> None:
        """It would be taken for none, and the metadata service asked."""
        aws.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID is set, and AWS_SECRET_ACCESS_KEY is not"):
            ObjectStore("s3://b")

    def test_other_clouds_have_theirs_in_their_variables(self, aws: pytest.MonkeyPatch) -> None:
        """An account of Azure by its key; what is no key is said without it. Public buckets need none."""
        assert repr(ObjectStore("gs://b/x", StoreOptions(anonymous=True))) == "<ObjectStore gs://b>"
        aws.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
        aws.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
        assert repr(ObjectStore("az://c/x")) == "<ObjectStore az://c>"
        aws.setenv("AZURE_STORAGE_ACCOUNT_KEY", "MARKER!")
        with pytest.raises(ConfigError, match=r"'az://c' cannot be opened: .*Invalid") as raised:
            ObjectStore("az://c")
        assert "MARKER" not in str(raised.value)

    def test_public_buckets_are_read_unsigned(self, small_s3: SmallS3, aws: pytest.MonkeyPatch) -> None:
        """Also with keys in the environment."""
        small_s3.put("a", b"x")
        assert ObjectStore("s3://bucket", StoreOptions(anonymous=True)).get("a", max_bytes=9) == b"x"
        assert "authorization" not in small_s3.headers
        ObjectStore("s3://bucket").get("a", max_bytes=9)
        assert small_s3.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AK/")

    def test_a_profile_is_used(self, small_s3: SmallS3, aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The named one, or the default one of the files there are; a name that is none is said."""
        pytest.importorskip("boto3")
        aws.delenv("AWS_ACCESS_KEY_ID")
        aws.delenv("AWS_SECRET_ACCESS_KEY")
        keys = "aws_access_key_id = {0}\naws_secret_access_key = secret\n"
        (tmp_path / "c").write_text(f"[default]\n{keys.format('AKDEFAULT')}[mine]\n{keys.format('AKMINE')}")
        aws.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "c"))
        small_s3.put("a", b"x")
        for profile in ("default", "mine"):
            ObjectStore("s3://bucket").get("a", max_bytes=9)
            assert f"Credential=AK{profile.upper()}/" in small_s3.headers["authorization"]
            aws.setenv("AWS_PROFILE", "mine")
        aws.setenv("AWS_PROFILE", "theirs")
        with pytest.raises(ConfigError, match="theirs"):
            ObjectStore("s3://bucket")

    @pytest.mark.parametrize(("library", "extra"), [("obstore", "objects"), ("boto3", "s3")])
    def test_a_missing_library_is_said_with_its_extra(
        self, library: str, extra: str, aws: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """The command that installs it."""
        if library == "boto3":
            aws.delenv("AWS_ACCESS_KEY_ID")
            aws.delenv("AWS_SECRET_ACCESS_KEY")
            aws.setenv("AWS_PROFILE", "mine")
        aws.setitem(sys.modules, library, None)
        aws.delitem(sys.modules, f"{library}.store", raising=False)
        with pytest.raises(ConfigError, match=re.escape(f"pip install 'penstock[{extra}]'")):
            ObjectStore("s3://b")


class TestReading:
    """Each read is of what was listed, or an error."""

    def test_an_object_is_read_whole_or_in_part(self, small_s3: SmallS3) -> None:
        """By many threads through one client."""
        etag = small_s3.put("a/b", b"0123456789")
        store = ObjectStore("s3://bucket/ignored")
        assert store.get("a/b", max_bytes=10, size=10, etag=etag) == b"0123456789"
        assert store.get("a/b", max_bytes=10, etag=etag, span=(2, 5)) == b"234"
        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(lambda _: store.get("a/b", max_bytes=10), range(64))) == {b"0123456789"}

    def test_what_is_too_large_is_refused_before_its_body(self, small_s3: SmallS3) -> None:
        """Whatever the listing said."""
        small_s3.put("a", b"0123456789")
        with pytest.raises(TooLargeError, match=r"'s3://bucket/a' has 10 bytes, over 9"):
            ObjectStore("s3://bucket").get("a", max_bytes=9)

    def test_another_object_than_the_listed_one_is_refused(self, small_s3: SmallS3) -> None:
        """By its etag, and by its size where the store has no etags."""
        small_s3.put("a", b"new!")
        store = ObjectStore("s3://bucket")
        with pytest.raises(ObjectChangedError, match="s3://bucket/a"):
            store.get("a", max_bytes=9, etag="of-the-old-one")
        small_s3.etags = False
        with pytest.raises(ObjectChangedError, match="4 bytes, and 3 were listed"):
            store.get("a", max_bytes=9, size=3)
        assert store.get("a", max_bytes=9, size=4) == b"new!"

    @pytest.mark.parametrize("key", ["a.tar", "odd//a.tar"])
    def test_a_span_is_checked_as_the_whole_object_is(self, key: str, small_s3: SmallS3) -> None:
        """Its size, and without etags the time of the last change; also where boto3 reads it."""
        pytest.importorskip("boto3")
        small_s3.etags = False
        small_s3.put(key, b"0123456789")
        store = ObjectStore("s3://bucket")
        (found,) = store.list_plainly()
        assert store.get(key, max_bytes=3, size=3, modified_ns=found.modified_ns, span=(2, 5)) == b"234"
        with pytest.raises(ObjectChangedError, match="3 bytes, and 4 were listed"):
            store.get(key, max_bytes=9, size=4, span=(2, 5))
        with pytest.raises(ObjectChangedError, match="another time of its last change"):
            store.get(key, max_bytes=9, modified_ns=found.modified_ns - 2 * 10**9, span=(2, 5))

    def test_refusals_have_their_kinds(self, small_s3: SmallS3) -> None:
        """Gone, not allowed, no bucket; and as an error of one item they say whether they may pass."""
        store = ObjectStore("s3://bucket", StoreOptions(retries=0))
        small_s3.faults["denied"] = refused(403, "AccessDenied")
        kinds: dict[str, tuple[type[Exception], int]] = {
            "gone": (ObjectNotFoundError, 2),
            "denied": (ObjectDeniedError, 13),
        }
        for key, (kind, number) in kinds.items():
            with pytest.raises(kind, match=f"s3://bucket/{key}") as raised:
                store.get(key, max_bytes=9)
            assert as_read_error(raised.value).errno == number  # type: ignore[arg-type]
        small_s3.faults["elsewhere"] = refused(301, "PermanentRedirect")
        with pytest.raises(ObjectStoreError, match="the bucket is in another region: set AWS_REGION"):
            store.get("elsewhere", max_bytes=9)
        with pytest.raises(ObjectNotFoundError, match=r"^'s3://other/' is not there: HTTP 404 Not Found: NoSuchBucket"):
            list(ObjectStore("s3://other").list())
        assert store.where("x") == "s3://bucket/x"


class TestListing:
    """What a store lists."""

    def test_pages_are_listed_in_constant_memory(self, small_s3: SmallS3) -> None:
        """Each object with size, etag and time, of one folder or all."""
        etags = {
            f"photos/{number:05}.jpg": small_s3.put(f"photos/{number:05}.jpg", b"x" * number) for number in range(2500)
        }
        small_s3.put("photos-2/a", b"")
        store = ObjectStore("s3://bucket")
        found = list(store.list("photos"))
        assert [(one.key, one.size, one.etag) for one in found] == [(key, n, etags[key]) for n, key in enumerate(etags)]
        assert all(one.modified_ns > 1e18 for one in found)
        assert sum(1 for _ in store.list()) == 2501
        assert [one.key for one in store.list("photos", after="photos/02497.jpg")] == [
            "photos/02498.jpg",
            "photos/02499.jpg",
        ]
        assert small_s3.count("") > 3

    def test_keys_are_names_of_any_kind(self, small_s3: SmallS3) -> None:
        """Listed, read, written and deleted as they are."""
        store = ObjectStore("s3://bucket")
        for key in PLAIN:
            store.put(key, key.encode())
        assert sorted(small_s3.objects) == sorted(PLAIN)
        for found in store.list():
            assert store.get(found.key, max_bytes=99, size=found.size, etag=found.etag) == found.key.encode()
        store.delete(PLAIN)
        assert not small_s3.objects

    def test_keys_that_obstore_cannot_name_are_read_by_boto3(self, small_s3: SmallS3) -> None:
        """Both listed and read; with the same checks."""
        pytest.importorskip("boto3")
        for key in (*ODD, *PLAIN):
            small_s3.put(key, key.encode())
        store = ObjectStore("s3://bucket", StoreOptions(retries=0))
        with pytest.raises(ObjectNameError):
            list(store.list())
        found = list(store.list_plainly())
        assert [one.key for one in found] == sorted((*ODD, *PLAIN), key=str.encode)
        for one in found:
            assert store.get(one.key, max_bytes=99, size=one.size, etag=one.etag) == one.key.encode()
        with pytest.raises(ObjectChangedError):
            store.get(ODD[0], max_bytes=99, etag="other")
        with pytest.raises(ObjectNotFoundError):
            store.get("not//there", max_bytes=99)
        with pytest.raises(TooLargeError):
            store.get(ODD[0], max_bytes=1)


class TestWriting:
    """Conditions that two writers rely on."""

    def test_one_of_two_writers_of_a_new_object_wins(self, small_s3: SmallS3) -> None:
        """The other is told."""
        store = ObjectStore("s3://bucket")

        def claim(number: int) -> bool:
            try:
                store.put("claim", str(number).encode(), new=True)
            except ObjectExistsError:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            won = list(threads.map(claim, range(8)))
        assert won.count(True) == 1
        assert small_s3.objects["claim"].data == str(won.index(True)).encode()

    def test_an_object_is_replaced_only_if_it_is_the_known_one(self, small_s3: SmallS3) -> None:
        """By its etag."""
        store = ObjectStore("s3://bucket")
        first = store.put("a", b"1")
        second = store.put("a", b"2", etag=first)
        with pytest.raises(ObjectChangedError):
            store.put("a", b"3", etag=first)
        assert small_s3.objects["a"] == small_s3.objects["a"]
        assert (small_s3.objects["a"].data, store.head("a").etag) == (b"2", second)

    def test_a_folder_of_this_machine_has_the_same_conditions(self, tmp_path: Path) -> None:
        """``file://``, made if it is not there."""
        store = ObjectStore(f"file://{tmp_path}/new")
        etag = store.put("a/b", b"1", new=True)
        with pytest.raises(ObjectExistsError):
            store.put("a/b", b"2", new=True)
        assert store.get("a/b", max_bytes=9, etag=etag) == b"1"
        assert [one.key for one in store.list()] == ["a/b"]
        assert store.folders() == ("a",)
        store.copy("a/b", "c")
        store.delete(["a/b", "gone"])
        assert (tmp_path / "new" / "c").read_bytes() == b"1"
        with pytest.raises(ObjectStoreError, match="no S3"):
            store.boto3()


def test_secrets_are_not_told(small_s3: SmallS3, aws: pytest.MonkeyPatch) -> None:
    """By repr, pickle, options or any error."""
    aws.setenv("AWS_SECRET_ACCESS_KEY", "MARKER")
    aws.setenv("AWS_SESSION_TOKEN", "MARKERTOO")
    store = ObjectStore("s3://bucket", StoreOptions(retries=0))
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(store)
    small_s3.faults["a"] = refused(403, "SignatureDoesNotMatch")
    small_s3.faults["b//c"] = refused(403, "SignatureDoesNotMatch")
    shown = [repr(store), store.options.dump(), repr(store.options)]
    for key in ("a", "b//c"):
        with pytest.raises(ObjectDeniedError) as raised:
            store.get(key, max_bytes=9)
        shown.append(repr(raised.value))
        assert raised.value.__cause__ is None
    assert "MARKER" not in "".join(shown)


_FORKS = """
import os
from penstock.errors import ObjectStoreError
from penstock.object_stores import ObjectStore

def in_child(store):
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if store.get("a", max_bytes=9) == b"x" else 1)
        except ObjectStoreError:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

store = ObjectStore("s3://bucket")
assert in_child(store) == 0, "a fork before the first request"
store.get("a", max_bytes=9)
assert in_child(store) == 7, "a fork behind it"
"""


def test_a_fork_behind_the_first_request_is_told_instead_of_waiting(small_s3: SmallS3) -> None:
    """One before it may make requests. In a process of its own: other libraries, too, have something against forks."""
    small_s3.put("a", b"x")
    subprocess.run([sys.executable, "-c", _FORKS], check=True, timeout=DEADLINE)


def test_what_is_in_flight_is_bounded_for_the_whole_process() -> None:
    """Requests and bytes; a large one goes alone, and is not passed by small ones that come later."""
    cap = InFlight(requests=2, nbytes=100)
    order: list[str] = []
    started = threading.Event()

    def large() -> None:
        started.set()
        with cap.hold(1000):
            order.append("large")
            assert cap.under_way == (1, 1000)

    def small() -> None:
        with cap.hold(1):
            order.append("small")

    with ThreadPoolExecutor(3) as threads, cap.hold(60), cap.hold(40):
        assert cap.under_way == (2, 100)
        first = threads.submit(large)
        started.wait()
        while not cap.waiting:
            started.wait(0.001)
        second = threads.submit(small)
    first.result()
    second.result()
    assert order == ["large", "small"]
    assert cap.under_way == (0, 0)


def test_a_second_client_of_boto3_does_not_read_what_botocore_knows_of_services_again(
    small_s3: SmallS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A megabyte of JSON for each volume, or other data set, that is published."""
    pytest.importorskip("boto3")
    from botocore.loaders import JSONFileLoader

    small_s3.put("a", b"1")
    ObjectStore("s3://bucket").boto3()
    read = list[str]()
    load: Callable[..., Any] = JSONFileLoader.load_file

    def watched(loader: Any, path: str) -> Any:
        read.append(path)
        return load(loader, path)

    monkeypatch.setattr(JSONFileLoader, "load_file", watched)
    assert ObjectStore("s3://bucket").boto3().get_object(Bucket="bucket", Key="a")["Body"].read() == b"1"
    assert read == []
