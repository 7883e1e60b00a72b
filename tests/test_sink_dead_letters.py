"""Dead letters: no item disappears silently, also when the writer is killed or the name is hostile."""

from __future__ import annotations

import json
import resource
import stat
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError, DecodeError, ReadError, TruncatedError
from penstock.sinks import DeadLetters, read_dead_letters
from penstock.sinks.dead_letters import keep_dead_letters
from penstock.tests.waiting import DEADLINE

HOSTILE = [
    "-x",
    "$(id)",
    "; rm -rf ~",
    "a\nb",
    "\x1b[31mred",
    "\u2028",
    "\udce9.jpg",
    '"},{"',
    "\x00",
    "<script>",
    "図",
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dead_letters.jsonl"


def test_a_letter_says_what_where_why_and_when(path: Path) -> None:
    """Every field that was given is read back, with the error's class and a UTC time."""
    with DeadLetters(path) as letters:
        letters.write("a.jpg", "decode", TruncatedError("it ends too early"), attempts=2, size=17)
    (letter,) = read_dead_letters(path)
    assert (letter.key, letter.stage, letter.error, letter.message) == (
        "a.jpg",
        "decode",
        "TruncatedError",
        "it ends too early",
    )
    assert letter.attempts == 2
    assert letter.fields == {"size": 17}
    assert datetime.fromisoformat(letter.time).utcoffset() == timedelta(0)


def test_the_same_trouble_has_the_same_message(path: Path) -> None:
    """Without the address of an object, so that letters can be grouped by what they say."""
    with DeadLetters(path) as letters:
        for key in "ab":
            letters.write(key, "decode", DecodeError(f"cannot identify image file {object()!r}"))
    assert {letter.message for letter in read_dead_letters(path)} == {"cannot identify image file <object object>"}


def test_no_letter_makes_no_file(path: Path) -> None:
    """A clean run leaves nothing to look at, and reading that is not an error."""
    with DeadLetters(path) as letters:
        assert letters.count == 0
    assert not path.exists()
    assert list(read_dead_letters(path)) == []


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    """File names can be private: mode 0600."""
    with DeadLetters(path) as letters:
        letters.write("a", "read", ReadError("gone"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_one_plain_ascii_line(path: Path, name: str) -> None:
    """Newlines, terminal escapes and broken Unicode can neither forge a letter nor act on a terminal."""
    with DeadLetters(path) as letters:
        letters.write(name, name, DecodeError(name), note=name)
    raw = path.read_bytes()
    assert raw.count(b"\n") == 1
    assert all(0x20 <= byte < 0x7F for byte in raw.rstrip(b"\n"))
    (letter,) = read_dead_letters(path)
    assert (letter.key, letter.stage, letter.message, letter.fields) == (name, name, name, {"note": name})


def test_a_name_of_bytes_reads_back_as_its_path(path: Path) -> None:
    """A name that is not UTF-8 is the text that os.fsdecode makes of it."""
    with DeadLetters(path) as letters:
        letters.write(b"caf\xe9.jpg", "read", ReadError("gone"))
    assert next(read_dead_letters(path)).key == "caf\udce9.jpg"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(min_value=1, max_value=400))
def test_a_torn_last_line_costs_that_line_only(path: Path, cut: int) -> None:
    """Wherever the writer was killed, whole lines before and letters after it are all read."""
    path.unlink(missing_ok=True)
    with DeadLetters(path) as letters:
        for number in range(3):
            letters.write(f"before-{number}", "decode", DecodeError("x" * 20))
    whole = path.read_bytes()
    torn = whole[: max(1, len(whole) - cut)]
    path.write_bytes(torn)
    with DeadLetters(path) as letters:
        letters.write("after", "decode", DecodeError("y"))
    keys = [letter.key for letter in read_dead_letters(path)]
    # a line that lost nothing but its newline is whole
    expected = [f"before-{number}" for number in range(torn.count(b"\n") + whole.startswith(torn + b"\n"))]
    assert keys == [*expected, "after"]


@pytest.mark.parametrize("limit", range(1, 400, 57))
def test_a_letter_that_the_disk_takes_half_of_costs_no_other(path: Path, limit: int) -> None:
    """Its own write fails, so its item is not called dead; those written before and after it are all read."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with DeadLetters(path) as letters:
        letters.write("before", "decode", DecodeError("x" * 20))
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + limit, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                letters.write("half", "decode", DecodeError("x" * 400))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        letters.write("after", "decode", DecodeError("x"))
    assert [letter.key for letter in read_dead_letters(path)] == ["before", "after"]


def test_letters_are_synced_when_asked_and_at_the_end(path: Path, synced: list[str]) -> None:
    """With the name of their file; without new ones nothing is done."""
    with DeadLetters(path) as letters:
        letters.sync()
        assert synced == []
        letters.write("a", "read", ReadError("gone"))
        letters.sync()
        letters.sync()
        assert synced == [str(path), str(path.parent)]
        letters.write("b", "read", ReadError("gone"))
    assert synced == [str(path), str(path.parent)] * 2


def test_a_file_that_was_taken_away_does_not_keep_its_writer_from_closing(path: Path) -> None:
    """There is nothing left to sync."""
    letters = DeadLetters(path)
    letters.write("a", "read", ReadError("gone"))
    path.unlink()
    letters.close()
    assert not path.exists()


def test_lines_that_are_not_letters_are_passed_over(path: Path) -> None:
    """A reader outlives any content: other JSON, other bytes, missing fields."""
    path.write_bytes(b'{"key": 1}\n[1]\n\xff\xfe\nnull\n\n')
    assert list(read_dead_letters(path)) == []


def test_several_threads_write_whole_lines(path: Path) -> None:
    """Letters of concurrent stages do not mix."""
    with DeadLetters(path) as letters:

        def write(name: int) -> None:
            for number in range(100):
                letters.write(f"{name}-{number}", "decode", DecodeError("z" * 300))

        threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert letters.count == 400
    assert len({letter.key for letter in read_dead_letters(path)}) == 400


def test_a_rerun_adds_to_the_file(path: Path) -> None:
    """Letters of earlier runs are kept; the count is of this run."""
    for run in range(2):
        with DeadLetters(path) as letters:
            letters.write(f"run-{run}", "read", ReadError("gone"))
            assert letters.count == 1
    assert [letter.key for letter in read_dead_letters(path)] == ["run-0", "run-1"]


def test_credentials_never_get_into_the_file(path: Path) -> None:
    """Addresses in keys, messages and fields lose what stands before the @."""
    secret = "MARKER-5b1f"
    uri = f"https://user:{secret}@host/a.jpg"
    with DeadLetters(path) as letters:
        letters.write(uri, "read", ReadError(f"no answer from {uri}"), source=uri, also=[uri, {"deep": (uri,)}])
    assert secret not in path.read_text()
    assert next(read_dead_letters(path)).key == "https://***@host/a.jpg"


def test_a_field_cannot_replace_the_letters_own(path: Path) -> None:
    """Extra fields have their own names, or the letter would lie."""
    with DeadLetters(path) as letters, pytest.raises(ConfigError, match="message"):
        letters.write("a", "read", ReadError("gone"), message="all is well")


def test_values_that_are_not_json_are_kept_as_text(path: Path) -> None:
    """A letter is never lost because of what a caller wanted to note in it."""
    with DeadLetters(path) as letters:
        letters.write("a", "read", ReadError("gone"), span={1}, file=path)
    assert next(read_dead_letters(path)).fields == {"span": "{1}", "file": str(path)}


def test_a_line_is_json_for_other_tools(path: Path) -> None:
    """One flat object a line: what jq and pandas read."""
    with DeadLetters(path) as letters:
        letters.write("a", "read", ReadError("gone"), shard=3)
    record = json.loads(path.read_text())
    assert list(record) == ["key", "stage", "error", "message", "attempts", "time", "shard"]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    """Nothing is counted that was not written."""
    full = tmp_path / "letters.jsonl"
    full.symlink_to("/dev/full")
    letters = DeadLetters(full)
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\).*letters\.jsonl"):
        letters.write("a", "embed", ValueError("no"))
    assert letters.count == 0


# -- letters that do not stand any more -------------------------------------------------------------------------------


def write(path: Path, *keys: str) -> None:
    with DeadLetters(path) as letters:
        for attempts, key in enumerate(keys, 1):
            letters.write(key, "decode", ReadError("no"), attempts=attempts)


def listed(path: Path) -> list[tuple[str, int]]:
    return [(letter.key, letter.attempts) for letter in read_dead_letters(path)]


def test_letters_that_do_not_stand_leave_the_file(path: Path) -> None:
    """With all but the newest of each key, and with lines that are torn; the others are as they were."""
    write(path, "a", "b", "c", "b")
    with path.open("a") as file:
        file.write('{"key": "torn')
    before = path.read_text().splitlines(keepends=True)
    keep_dead_letters(path, lambda key: key != "c")
    assert path.read_text() == before[0] + before[3]
    assert listed(path) == [("a", 1), ("b", 4)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_without_letters_there_is_no_file(path: Path) -> None:
    """As after a run that met nothing bad."""
    keep_dead_letters(path, lambda _: False)
    write(path, "a")
    keep_dead_letters(path, lambda _: False)
    assert not path.exists()


def test_letters_that_all_stand_are_left_alone(path: Path) -> None:
    """Nothing is written."""
    write(path, "a", "b")
    before = path.stat()
    keep_dead_letters(path, lambda _: True)
    assert path.stat() == before


def test_a_disk_that_refuses_leaves_the_letters_as_they_were(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does whoever dies before the new file has its name; what is left of it is written over."""
    write(path, "a", "b")

    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        keep_dead_letters(path, lambda key: key == "b")
    assert listed(path) == [("a", 1), ("b", 2)]
    monkeypatch.undo()
    keep_dead_letters(path, lambda key: key == "b")
    assert listed(path) == [("b", 2)]
