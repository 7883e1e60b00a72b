"""``StreamingMultiprocessPreprocessor``: batches of pixels out of worker processes."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import ConfigError, PipelineFailure, StreamingMultiprocessPreprocessor
from penstock.preprocess import Preprocessor, PreprocessSpec

Array = np.ndarray[Any, np.dtype[Any]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def preprocessor() -> Iterator[StreamingMultiprocessPreprocessor]:
    """One for the module: it is made to be used again and again."""
    with StreamingMultiprocessPreprocessor(num_workers=2, batch_size=8, image_size=(64, 64), queue_maxsize=4) as made:
        yield made


def pixels(spec: PreprocessSpec, photos: list[Path]) -> Array:
    """The same, made in this process."""
    local = Preprocessor(spec, len(photos))
    for row, photo in enumerate(photos):
        local.load(row, str(photo))
    out = np.zeros((len(photos), *spec.pixel_shape()), spec.pixel_dtype())
    local.run(out, range(len(photos)))
    return out


def test_batches_come_in_input_order(preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]) -> None:
    """Pixels, ids and metadata of every picture, batch after batch."""
    found = [
        (batch["preprocessed"].copy(), batch["ids"], batch["metadata"], batch["errors"])
        for batch in preprocessor.preprocess_stream(photos[:20], ids="abcdefghijklmnopqrst", metadata=range(20))
    ]
    assert [len(ids) for _, ids, _, _ in found] == [8, 8, 4]
    assert [id_ for _, ids, _, _ in found for id_ in ids] == list("abcdefghijklmnopqrst")
    assert [extra for _, _, metadata, _ in found for extra in metadata] == list(range(20))
    assert not any(errors for _, _, _, errors in found)
    made = np.concatenate([batch for batch, _, _, _ in found])
    assert made.shape == (20, 3, 64, 64)
    np.testing.assert_allclose(made, pixels(preprocessor.spec, photos[:20]), atol=1e-5)


def test_ids_count_the_inputs_by_default(preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]) -> None:
    """0, 1, 2... and no metadata."""
    batches = [(b["ids"], b["metadata"]) for b in preprocessor.preprocess_stream(photos[:5], batch_size=2)]
    assert batches == [([0, 1], [None, None]), ([2, 3], [None, None]), ([4], [None])]


def test_what_cannot_be_used_is_an_error_of_its_batch(
    preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]
) -> None:
    """The others keep their ids; the failure says id, error and message."""
    (batch,) = [dict(b) for b in preprocessor.preprocess_stream([photos[0], b"junk", photos[1]], ids="xyz")]
    assert batch["ids"] == ["x", "z"]
    (error,) = batch["errors"]
    assert (error["id"], error["error"]) == ("y", "UnreadableError")
    assert error["message"]


def test_a_batch_of_failures_only_is_an_empty_batch(preprocessor: StreamingMultiprocessPreprocessor) -> None:
    """It still comes, so that its errors are seen; nothing hangs for want of slots."""
    batches = [dict(b) for b in preprocessor.preprocess_stream([b"junk"] * 40, batch_size=2)]
    assert len(batches) == 20
    assert all(batch["preprocessed"].shape == (0, 3, 64, 64) and len(batch["errors"]) == 2 for batch in batches)


def test_a_stream_may_be_left_early(preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]) -> None:
    """An endless source is read a little ahead only, and the next stream starts clean."""
    taken = itertools.count()
    endless = (photos[0] for _ in taken)
    stream = preprocessor.preprocess_stream(endless)
    assert len(next(stream)["ids"]) == 8
    stream.close()
    assert next(taken) < 200
    assert [len(b["ids"]) for b in preprocessor.preprocess_stream(photos[:3])] == [3]


def test_all_at_once_gives_arrays_of_ones_own(
    preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]
) -> None:
    """``preprocess_batch_sync``: the whole result in input order."""
    whole = preprocessor.preprocess_batch_sync([*photos[:10], b"junk"])
    assert whole["ids"] == list(range(10))
    assert [error["id"] for error in whole["errors"]] == [10]
    np.testing.assert_allclose(whole["preprocessed"], pixels(preprocessor.spec, photos[:10]), atol=1e-5)


def test_nothing_in_nothing_out(preprocessor: StreamingMultiprocessPreprocessor) -> None:
    """No inputs: no batches, and empty arrays of the right shape."""
    assert list(preprocessor.preprocess_stream([])) == []
    assert preprocessor.preprocess_batch_sync([])["preprocessed"].shape == (0, 3, 64, 64)


@pytest.mark.kills
def test_a_killed_worker_costs_no_picture(preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]) -> None:
    """SIGKILL in the middle of a stream: every id arrives once, in order."""
    ids: list[int] = []
    for batch in preprocessor.preprocess_stream(photos[:24] * 8):
        if not ids:
            os.kill(preprocessor.worker_pids[0], signal.SIGKILL)
        ids += batch["ids"]
    assert ids == list(range(24 * 8))


def test_ids_that_run_out_are_said_before_the_start(preprocessor: StreamingMultiprocessPreprocessor) -> None:
    """Lists of different length: nothing is begun."""
    with pytest.raises(ConfigError, match="2 inputs, 1 ids"):
        next(preprocessor.preprocess_stream(["a", "b"], ids=["x"]))


def test_a_generator_of_ids_that_runs_out_fails_the_stream(
    preprocessor: StreamingMultiprocessPreprocessor, photos: list[Path]
) -> None:
    """Where the number is not known before, the stream ends in an error, not in silence."""
    with pytest.raises(PipelineFailure) as caught:
        list(preprocessor.preprocess_stream(photos[:4], ids=iter("ab")))
    assert any(isinstance(error, ConfigError) for error in caught.value.exceptions)


def test_a_users_own_jax_function_makes_the_pixels(
    tmp_path: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``transform``: any fixed shape, compiled in the workers."""
    (tmp_path / "users_transform.py").write_text("def grey(image):\n    return image.mean(axis=2) / 255\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with StreamingMultiprocessPreprocessor(1, 4, 32, transform="users_transform:grey") as made:
        whole = made.preprocess_batch_sync(photos[:6])
    assert whole["preprocessed"].shape == (6, 32, 32)
    assert 0.0 < whole["preprocessed"].mean() < 1.0


@pytest.mark.parametrize(
    ("settings", "knob"),
    [
        ({"num_workers": -1}, "num_workers"),
        ({"num_workers": "2"}, "num_workers='2' must be a whole number"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"image_size": (3, 4)}, "image_size"),
        ({"preset": "nope"}, "preset"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, object], knob: str) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError, match=knob):
        StreamingMultiprocessPreprocessor(**settings)  # type: ignore[arg-type]
