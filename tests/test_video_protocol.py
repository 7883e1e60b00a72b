"""What workers of videos are asked and answer; and what is refused as an answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock.engine.jobs.common.dead_letters import clear_letters
from penstock.engine.journal import Outcome
from penstock.errors import DecodeError, WorkerError
from penstock.preprocess.worker.frame_look import FrameLook
from penstock.preprocess.worker.protocol import Timings
from penstock.preprocess.worker.video_protocol import (
    WITHOUT,
    Kept,
    LeftOut,
    Piece,
    PieceCodec,
    PieceSaid,
    Seen,
    decode_pieces,
    encode_piece_done,
    video_layout,
)
from penstock.shm.protocol import HEAD
from penstock.sinks import DeadLetters, read_dead_letters

KEPT = Kept(5, "ab", "cd", 70)
SAID = PieceSaid(
    taken=3,
    has_more=True,
    left_out=[LeftOut(7, "black", None, 0, [1.0])],
    info={"width": 320, "height": 180},
    found={"packets": 9, "scenes": []},
    cpu_used=0.5,
    timings=Timings(0.0, 1.0, 2.0, 3.0),
    kept=KEPT,
    seen=[Seen([[0.0, 1.0, 2.0, 3.0]], [0.5], ["dog"])] * 2,
    hashes=[KEPT] * 2,
)


def test_a_task_is_a_piece_of_a_video_whatever_its_name() -> None:
    """Names that are not UTF-8, and what is known of the pieces before, travel whole."""
    piece = Piece("/clips/\udcff \n.mp4", 32, 1.5, KEPT, "/kept/frames")
    message = PieceCodec().encode(1, 2, [piece])
    assert decode_pieces(b"".join(bytes(part) for part in message.frame)[HEAD.size :]) == [piece]


def test_an_answer_says_what_is_in_the_slot_and_what_is_not() -> None:
    """Or why there is nothing."""
    codec = PieceCodec()
    done = codec.decode(encode_piece_done(1, 2, 2, SAID))
    done.check(1)
    assert (done.slot, done.generation, len(done.rows), done.said) == (1, 2, 2, SAID)
    failed = codec.decode(encode_piece_done(1, 2, 0, None, [(0, DecodeError("cut"))]))
    failed.check(1)
    assert failed.said is None
    assert str(failed.failures[0][1]) == "cut"


@pytest.mark.parametrize(
    "wrong",
    [
        replace(SAID, taken=4),
        replace(SAID, left_out=[]),
        replace(SAID, info={}),
        replace(SAID, info={"width": "wide", "height": 180}),
        replace(SAID, hashes=[KEPT]),
        replace(SAID, has_more="yes"),  # type: ignore[arg-type]
        None,
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(wrong: PieceSaid | None) -> None:
    """A worker is not trusted."""
    done = PieceCodec().decode(encode_piece_done(1, 2, 2, wrong))
    with pytest.raises(WorkerError):
        done.check(1)


def test_a_slot_of_frames_is_one_of_pictures_and_more() -> None:
    """So that embedders find what they know."""
    layout = video_layout(4, (3, 8, 8), "uint8", 16)
    assert [array.name for array in layout.arrays] == ["pixels", "embeddings", "frames", "statistics"]


def test_letters_of_frames_stay_as_long_as_that_of_their_video(tmp_path: Path) -> None:
    """And go with it, when the video is done."""
    entries = {
        Outcome.DEAD: [(0, SimpleNamespace(name="/clips/a.mp4"))],
    }
    folder: Any = SimpleNamespace(finished=True, entries=lambda fate: entries[fate])
    path = tmp_path / "letters.jsonl"
    keys = ["/clips/a.mp4", "/clips/a.mp4#t=100", "/clips/b.mp4", "/clips/b.mp4#t=100"]
    with DeadLetters(path) as letters:
        for key in keys:
            letters.write(key, "embed", DecodeError("cut"))
    clear_letters(path, folder, set())
    assert [letter.key for letter in read_dead_letters(path)] == keys[:2]
    folder.finished = False
    clear_letters(path, folder, {"/clips/a.mp4"})
    assert list(read_dead_letters(path)) == []


def test_frames_are_not_compared_with_one_in_which_a_detector_found_nothing() -> None:
    """It has gone: what repeats it, and has what was missed in it, is no repetition of a frame that was kept."""
    rng = np.random.default_rng(0)
    first, second = (np.repeat(np.repeat(rng.integers(0, 256, (8, 8, 3), np.uint8), 40, 0), 40, 1) for _ in range(2))
    look = FrameLook((), neighbours=True)
    assert not isinstance(look.at(0, first), LeftOut)
    kept = look.kept
    assert not isinstance(look.at(1, second), LeftOut)
    look.left_out(1, WITHOUT)
    assert look.kept == kept
    assert not isinstance(look.at(2, second), LeftOut)
    found = look.at(3, second)
    assert isinstance(found, LeftOut)
    assert found.of_us == 2
