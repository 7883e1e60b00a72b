"""A batch of ``StreamingMultiprocessPreprocessor``: pixels in shared memory, and what the user gave beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ....errors import ItemError
from ...core.values import PlainValues

# All else is imported once the workers' fork server is starting, see `preprocess_stream`.
if TYPE_CHECKING:
    import numpy as np

    from ....preprocess import Source
    from ...workers import SlotBatch


@dataclass(frozen=True, slots=True)
class Input:
    """One picture to preprocess, with what the user wants to get back beside its pixels."""

    source: Source
    id: Any
    metadata: Any


class PreprocessedBatch(dict[str, Any]):
    """One batch, as a dict.

    Keys:
        preprocessed: ``[n, C, H, W]`` (or what the specification says), a **view into shared memory**: valid until the
            stream is asked for the next batch or is closed (a ``break`` closes a stream that only the loop holds), or
            until ``release()``. Afterwards this key raises. Copy what you want to keep.
        ids: ids of the ``n`` pictures.
        metadata: metadata of the ``n`` pictures.
        errors: a dict ``{"id", "metadata", "error", "message"}`` for each picture of the batch that could not be used.

    Raises:
        RuntimeError: from ``batch["preprocessed"]``: its memory has been given back.
    """

    def __init__(self, slot: SlotBatch, inputs: Sequence[Input], empty: np.ndarray[Any, np.dtype[Any]]) -> None:
        super().__init__(
            preprocessed=slot.pixels if slot.rows else empty,
            ids=[inputs[row.position].id for row in slot.rows],
            metadata=[inputs[row.position].metadata for row in slot.rows],
            errors=[_as_error(inputs[position], error) for position, error in slot.failures],
        )
        self._slot = slot

    def release(self) -> None:
        """Give the memory back now; the ``preprocessed`` view must not be used any more. Idempotent, any thread."""
        self.pop("preprocessed", None)
        self._slot.release()

    def __missing__(self, key: str) -> Any:
        if key == "preprocessed":
            raise RuntimeError(
                "this batch has given its memory back: its stream was asked for the next one, was closed or has ended, "
                "or it was released. Use it before that, or copy what you want to keep"
            )
        raise KeyError(key)


def _as_error(item: Input, error: ItemError) -> dict[str, Any]:
    return {"id": item.id, "metadata": item.metadata, "error": type(error).__name__, "message": str(error)}


class BatchValues(PlainValues):
    """Value model of this graph: a batch counts as its pictures, and gives its slot back when it goes no further."""

    def units(self, value: Any) -> int:
        return len(value["ids"]) if isinstance(value, PreprocessedBatch) else len(value)

    def failed(self, stage: str, value: Any, failures: Sequence[Any]) -> None:
        """Failures reach the user in their batch, under ``errors``."""

    def discard(self, value: Any) -> None:
        if isinstance(value, PreprocessedBatch):
            value.release()


def input_batches(rows: Iterable[tuple[int, Any, Any, Any]], size: int, numbered: bool) -> Iterator[list[Input]]:
    """Lists of up to ``size`` inputs, fewer where they are large and in memory."""
    from ..common.payloads import grouped, nbytes_of
    from .inputs import source_of

    made = (Input(source_of(value), position if numbered else id_, extra) for position, value, id_, extra in rows)
    return grouped(made, size, lambda item: nbytes_of(item.source))
