"""Policies by themselves: how they are spelled, what is transient, how long to wait."""

from __future__ import annotations

import errno
import pickle
import socket
import ssl
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock import ConfigError, Fail, Retry, ServiceConfig, Skip
from penstock.engine.core.patience import Patience
from penstock.engine.core.policies import Policy, asked_wait, is_transient, parse_policy
from penstock.errors import (
    DeadlineError,
    DownloadError,
    EmbedderError,
    EmbedError,
    HostStoppedError,
    ItemError,
    JournalDiskError,
    PoisonItemError,
    ReadError,
    SharedMemoryFullError,
    SinkError,
    SinkUnavailableError,
    TruncatedError,
    UnreadableError,
)
from penstock.fetch import read_file
from penstock.preprocess.worker.protocol import Task, Timings, decode_done, encode_done

SPELLED: dict[str, Policy] = {
    "skip": Skip(),
    "skip:100": Skip(100),
    "skip:-1": Skip(-1),
    "skip:1/20": Skip(Fraction(1, 20)),
    "fail": Fail(),
    "retry:30s": Retry(),
    "retry:0.5s,fail": Retry(within=0.5, then=Fail()),
    "retry:3": Retry(3),
    "retry:5": Retry(5),
    "retry:5,fail": Retry(5, then=Fail()),
    "retry:5,skip:7": Retry(5, then=Skip(7)),
}


@pytest.mark.parametrize("text", SPELLED)
def test_a_policy_and_its_spelling_are_the_same(text: str) -> None:
    """Both ways, so that the settings of a job can be written down."""
    assert parse_policy(text) == parse_policy(SPELLED[text]) == SPELLED[text]
    assert str(SPELLED[text]) == text


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("retry", Retry()),
        ("retry,fail", Retry(then=Fail())),
        ("retry:5,skip", Retry(5)),
        ("retry:30.0s", Retry()),
        ("skip:5%", Skip(Fraction(1, 20))),
        (" retry : 5 , skip : 5% ", Retry(5, then=Skip(Fraction(1, 20)))),
    ],
)
def test_some_things_can_be_left_out(text: str, policy: Policy) -> None:
    """Other spellings of the same."""
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    "text",
    [
        *("", "again", "Retry", 3, None, "fail:1", "fail,skip", "skip,fail", "skip:", "skip:200%"),
        *(
            "retry:",
            "retry:0",
            "retry:-1",
            "retry:many",
            "retry:s",
            "retry:-1s",
            "retry:1e3s",
            "retry:5,",
            "retry:5,retry",
            "retry:5,fail,fail",
        ),
    ],
)
def test_what_is_no_policy_is_refused_with_what_there_is(text: object) -> None:
    """Never guessed at."""
    with pytest.raises(ValueError, match="must be"):
        parse_policy(text)


@given(st.one_of(st.text(max_size=12), st.from_regex(r"(skip|fail|retry)[:,0-9a-z%/-]{0,8}", fullmatch=True)))
def test_any_text_is_taken_or_refused(text: str) -> None:
    """Never another error, and what is taken is written down so that it means the same."""
    try:
        policy = parse_policy(text)
    except ValueError:
        return
    assert parse_policy(str(policy)) == policy


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Retry(0), "attempts=0"),
        (lambda: Retry(True), "attempts=True"),
        (lambda: Retry(within=-1.0), "within"),
        (lambda: Retry(3, within=1.0), "one of them"),
        (lambda: Retry(first=-1.0), "first"),
        (lambda: Retry(longest=float("inf")), "longest"),
        (lambda: Retry(first=float("nan")), "first"),
        (lambda: Skip(-2), "max_failures"),
        (lambda: Skip(Fraction(3, 2)), "max_failures"),
    ],
)
def test_a_policy_is_checked_when_it_is_made(make: Any, said: str) -> None:
    """Wrong numbers are named."""
    with pytest.raises(ConfigError, match=said):
        make()


# -- waiting ----------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 10_000),
    st.floats(0.0, 1e9, allow_nan=False),
    st.floats(0.0, 1e9, allow_nan=False),
    st.integers(),
)
@example(2000, 1e9, 1e9, 0)
def test_a_wait_is_never_longer_than_its_bound(failed: int, first: float, longest: float, seed: int) -> None:
    """The bound doubles up to the longest; the same generator waits the same."""
    retry = Retry(first=first, longest=longest)
    seconds = retry.delay(failed, Random(seed))
    assert 0.0 <= seconds <= longest
    if failed <= 50:
        assert seconds <= first * 2 ** (failed - 1)
    assert seconds == retry.delay(failed, Random(seed))


def test_waits_fill_the_whole_range() -> None:
    """Full jitter: those who failed together do not come back together."""
    random = Random(1)
    waits = sorted(Retry(first=1.0, longest=100.0).delay(3, random) for _ in range(2000))
    assert [round(waits[len(waits) * part // 4]) for part in (1, 2, 3)] == [1, 2, 3]


def test_a_time_is_spent_with_full_jitter_and_its_last_attempt_is_at_its_end() -> None:
    """A hiccup of two seconds is outlived; the attempts are not many, and no wait goes beyond the end."""
    patience, waited, attempts = Patience(Retry(), places=1), 0.0, [0.0]
    while not patience.is_last(len(attempts), waited):
        waited += patience.pause(len(attempts), waited)
        attempts.append(waited)
        assert len(attempts) < 200
    assert waited == pytest.approx(30.0)
    assert sum(2 <= at <= 30 for at in attempts) >= 3


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.ETIMEDOUT])
def test_a_connection_that_was_cut_in_a_worker_is_transient(number: int) -> None:
    """Its class stays there, and its number arrives."""
    error = ReadError("the connection ended")
    error.errno = number
    assert is_transient(error)


def test_a_wait_that_a_server_asks_for_is_waited_for_if_there_is_time() -> None:
    """A wait of an hour is not: it would hold the item's place meanwhile."""
    timed, counted = Patience(Retry(within=30.0, first=0.1), places=1), Patience(Retry(3, first=0.1), places=1)
    assert timed.pause(1, 0.0, asked=5.0) == counted.pause(1, 0.0, asked=5.0) == 5.0
    assert [timed.can_wait(seconds, 20.0) for seconds in (0.0, 10.0, 11.0)] == [True, True, False]
    assert [counted.can_wait(seconds, 20.0) for seconds in (0.0, 600.0, 601.0)] == [True, True, False]


def test_what_a_server_asks_for_is_found_in_what_an_error_was_caused_by() -> None:
    """Also where another error was made of it, and after it came from a worker."""
    asked = DownloadError("HTTP 429")
    asked.errno, asked.retry_after, asked.status = errno.ETIMEDOUT, 7.0, 429
    wrapped = ReadError("cannot be read")
    wrapped.__cause__ = pickle.loads(pickle.dumps(asked))
    assert (asked_wait(wrapped), is_transient(wrapped), asked_wait(ReadError(""))) == (7.0, True, 0.0)


def test_where_nothing_passes_the_time_is_not_spent_on_each_item() -> None:
    """After as many in a row as the stage does at once there are three attempts; one that helps begins anew."""
    patience = Patience(Retry(), places=2)
    for _ in range(2):
        assert not patience.is_last(3, 1.0)
        patience.learn(in_vain=True)
    assert [patience.is_last(attempt, 1.0) for attempt in (1, 2, 3)] == [False, False, True]
    patience.learn(in_vain=False)
    assert not patience.is_last(3, 1.0)


def test_a_count_is_kept_to_whatever_came_of_it() -> None:
    """However long it takes."""
    patience = Patience(Retry(4), places=1)
    for _ in range(5):
        patience.learn(in_vain=True)
    assert [patience.is_last(attempt, 1e6) for attempt in range(1, 5)] == [False, False, False, True]


# -- what is transient ------------------------------------------------------------------------------------------------


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def met(error: BaseException, other: BaseException, *, hidden: bool = False) -> BaseException:
    """As one that is raised while another is handled, perhaps ``from None``."""
    error.__context__, error.__suppress_context__ = other, hidden
    return error


def read_error(number: int) -> ReadError:
    error = ReadError("cannot be read")
    error.errno = number
    return error


PASSING = (
    "EAGAIN EHOSTDOWN EHOSTUNREACH EINTR EIO EMFILE ENETDOWN ENETRESET ENETUNREACH ENFILE ENOBUFS ENOMEM ENOTCONN "
    "EREMOTEIO ESTALE ETIMEDOUT"
)
OF_THE_FILE = "EACCES EINVAL EISDIR ELOOP ENAMETOOLONG ENOENT ENOSPC ENOTDIR EPERM EROFS"

TRANSIENT: dict[str, BaseException] = {
    "ConnectionResetError": ConnectionResetError(),
    "ConnectionRefusedError": ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
    "BrokenPipeError": BrokenPipeError(errno.EPIPE, "gone"),
    "TimeoutError": TimeoutError("no answer"),
    **{name: OSError(getattr(errno, name), "of a mount or of this machine") for name in PASSING.split()},
    "ReadError with an errno": read_error(errno.EIO),
    "a cause": caused(EmbedError("refused"), ConnectionError()),
    "a cause of a cause": caused(ItemError("x"), caused(ValueError("y"), OSError(errno.ESTALE, "stale"))),
    "as HTTP clients do": met(ValueError("x"), caused(RuntimeError("pool"), ConnectionRefusedError())),
    "a store out of reach": SinkUnavailableError("no answer"),
    "a name server that is busy": socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    "as urllib says it": met(OSError("urlopen error"), socket.gaierror(socket.EAI_AGAIN, "Temporary failure")),
    "TLS that was cut off": ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
}

LASTING: dict[str, BaseException] = {
    **{name: OSError(getattr(errno, name), "of the file") for name in OF_THE_FILE.split()},
    "OSError without errno": OSError("odd"),
    "ReadError of a directory": ReadError("is a directory"),
    "ReadError with an errno": read_error(errno.ENOENT),
    "TruncatedError": TruncatedError("short"),
    "UnreadableError over a lost connection": caused(UnreadableError("HTML"), ConnectionError()),
    "DeadlineError": DeadlineError("too long"),
    "a host that is not asked any more": caused(HostStoppedError("429"), ConnectionError()),
    "PoisonItemError": PoisonItemError("three times"),
    "EmbedderError over a lost connection": caused(EmbedderError("no server"), ConnectionError()),
    "SinkError": SinkError("wrong"),
    "SharedMemoryFullError": SharedMemoryFullError("full"),
    "JournalDiskError": caused(JournalDiskError("disk"), OSError(errno.EIO, "disk")),
    "ValueError": ValueError("x"),
    "MemoryError": MemoryError(),
    "SystemExit over a lost connection": met(SystemExit(), ConnectionError()),
    "a cause that lasts": caused(EmbedError("x"), FileNotFoundError(errno.ENOENT, "gone")),
    "a lasting error over a passing one": met(FileNotFoundError(errno.ENOENT, "gone"), ConnectionError()),
    "a host that is not known": socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    "a certificate that is wrong": ssl.SSLCertVerificationError(1, "certificate verify failed"),
    "raised from None": met(ValueError("x"), ConnectionError(), hidden=True),
}


@pytest.mark.parametrize("name", TRANSIENT)
def test_what_may_pass_by_itself_is_transient(name: str) -> None:
    """Connections, timeouts, and what network mounts and full tables of this machine say; or one of them caused it."""
    assert is_transient(TRANSIENT[name])


@pytest.mark.parametrize("name", LASTING)
def test_what_would_fail_again_is_not(name: str) -> None:
    """The file itself, the picture itself, the job itself."""
    assert not is_transient(LASTING[name])


def test_a_chain_of_causes_that_bites_its_tail_ends() -> None:
    """Errors can be put together by hand."""
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_transient(first)


def test_an_error_keeps_its_number_on_the_way_from_the_worker(tmp_path: Path) -> None:
    """What the parent judges is what the worker met; the message says it too."""
    with pytest.raises(ReadError) as gone:
        read_file(str(tmp_path / "gone.jpg"), 100)
    assert gone.value.errno == errno.ENOENT
    errors = [(0, gone.value), (1, read_error(errno.EIO)), (2, ReadError("no errno")), (3, TruncatedError("x"))]
    errors[1][1].retry_after = 7.0
    frame = encode_done(Task(1, 2, [""] * 4), [], errors, Timings())
    failures = decode_done(frame).failures
    assert [asked_wait(error) for _, error in failures] == [0.0, 7.0, 0.0, 0.0]
    assert [(position, type(error), str(error)) for position, error in failures] == [
        (position, type(error), str(error)) for position, error in errors
    ]
    assert [getattr(error, "errno", None) for _, error in failures] == [errno.ENOENT, errno.EIO, None, None]
    assert [is_transient(error) for _, error in failures] == [False, True, False, False]


# -- in a configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given_value",
    [
        {"embed": "retry:5,fail", "insert": "fail"},
        {"embed": Retry(5, then=Fail()), "insert": Fail()},
        "embed=retry:5,fail,insert=fail",
        ("embed=retry:5,fail", "insert=fail"),
    ],
)
def test_a_configuration_says_it_for_some_stages(given_value: Any) -> None:
    """In every spelling; other stages keep their own, and what is written down is read back."""
    config = ServiceConfig(on_failure=given_value)
    assert config.policies == {"preprocess": Retry(), "embed": Retry(5, then=Fail()), "insert": Fail()}
    dumped = config.model_dump(mode="json", include={"on_failure"})
    assert dumped == {"on_failure": {"embed": "retry:5,fail", "insert": "fail"}}
    assert ServiceConfig(**dumped) == config


def test_by_default_what_is_transient_is_retried_and_then_skipped() -> None:
    """The sink tries again by itself."""
    assert ServiceConfig().policies == {"preprocess": Retry(within=30), "embed": Retry(within=30), "insert": Skip()}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"decode": "skip"}, r"on_failure: .*'preprocess', 'embed' or 'insert'"),
        ({"embed": "again"}, r"on_failure: 'again' is not allowed: must be skip"),
        ("embed", "STAGE=POLICY"),
        (("embed=skip", "embed=fail"), "embed is given twice"),
        (3, "on_failure: 3 is not allowed"),
    ],
)
def test_a_stage_or_policy_that_is_none_is_refused(value: Any, said: str) -> None:
    """With what there is."""
    with pytest.raises(ConfigError, match=said):
        ServiceConfig(on_failure=value)


def test_a_file_says_it_too(tmp_path: Path) -> None:
    """A mapping; its line is named where it is wrong."""
    file = tmp_path / "job.yaml"
    file.write_text("workers: 1\non_failure:\n  preprocess: retry:9\n  insert: fail\n")
    config = ServiceConfig.from_yaml(file)
    assert (config.policies["preprocess"], config.policies["insert"]) == (Retry(9), Fail())
    file.write_text("on_failure:\n  insert: perhaps\n")
    with pytest.raises(ConfigError, match=r"job\.yaml, line 1: on_failure: 'perhaps'"):
        ServiceConfig.from_yaml(file)
