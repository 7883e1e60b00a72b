"""What every embedder is: something that turns a slot of pixels into vectors, and says where it runs."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, Protocol, Self
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, EmbedderError, EmbedError
from ...shm import Place

Array = NDArray[Any]
Runs = Literal["worker", "thread", "green"]
Options = dict[str, str]

Refusals = Mapping[int, EmbedError]
"""Row -> why the embedder refused it. The vectors of the other rows are in place."""

NONE_REFUSED: Final[Refusals] = MappingProxyType({})


class Pixels(Protocol):
    """What an embedder asks of a preprocessing specification; ``preprocess.PreprocessSpec`` is one.

    ``pixel_shape`` and ``pixel_dtype`` describe one row as the embedder will find it in a slot, also where a user's own
    ``transform`` made it.
    """

    @property
    def size(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def layout(self) -> str: ...
    @property
    def mean(self) -> tuple[float, float, float] | None: ...
    @property
    def std(self) -> tuple[float, float, float] | None: ...
    @property
    def transform(self) -> str | None: ...
    def pixel_shape(self) -> tuple[int, ...]: ...
    def pixel_dtype(self) -> np.dtype[Any]: ...


class View(Protocol):
    """One batch: a slot of a ring (``workers.LeasedView``), or ordinary arrays (`ArrayView`).

    ``place`` says where ``pixels`` and ``embeddings`` lie for a process that maps them by name; None: nobody else can.
    ``pin()`` says that such a process may read or write it from now on, until the function it returns is called (once
    or more often). A slot that is released while pinned is in quarantine: nobody gets it before the last pin ends.
    """

    @property
    def pixels(self) -> Array: ...
    @property
    def embeddings(self) -> Array: ...
    @property
    def place(self) -> Place | None: ...
    def pin(self) -> Callable[[], None]: ...


@dataclass(frozen=True, slots=True)
class ArrayView:
    """A batch in ordinary memory, for use without a ring.

    Attributes:
        pixels: ``[rows, *pixel_shape]``, rows being what the embedder was opened with.
        embeddings: ``[rows, dimension]`` float32, written by `Embedder.embed`.
    """

    pixels: Array
    embeddings: NDArray[np.float32]

    @property
    def place(self) -> Place | None:
        """Nowhere that another process could map."""
        return None

    def pin(self) -> Callable[[], None]:
        """Nobody else can use it, so nothing is held."""
        return lambda: None


@dataclass(frozen=True, slots=True)
class PixelPreferences:
    """Pixels an embedder likes best, used wherever the user said nothing. None: it does not mind.

    Attributes:
        size: side of the square, in pixels.
        squash: True: the whole picture is squashed into the square; False: the centre is cropped.
        dtype: ``"uint8"``, ``"float16"`` or ``"float32"``.
        layout: ``"NCHW"`` or ``"NHWC"``.
    """

    size: int | None = None
    squash: bool | None = None
    dtype: str | None = None
    layout: str | None = None


class Embedder(ABC):
    """Turns the pixels of a batch into vectors.

    It is made from a spec string, in the parent and in a worker alike (`parse_embedder`), which costs nothing.
    Its life: ``check`` -> ``open`` -> ``embed`` many times -> ``close``. The vector of a picture depends on that
    picture alone, never on its neighbours in the batch.

    Attributes:
        name: what messages and reports call it, e.g. ``gist``.
        spec: what `parse_embedder` makes the same embedder from.
    """

    runs: ClassVar[Runs]
    """In the ``worker`` that made the pixels, in a ``thread`` of the engine's pool, or ``green``: in a greenlet.

    A green one finds its batches in named shared memory, and ``embed`` is also called in threads that have no hub (by
    the faces without worker processes).
    """

    def __init__(self, name: str, spec: str) -> None:
        self.name = name
        self.spec = spec

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Floats per row.

        Raises:
            EmbedderError: it is not known before `open`.
        """

    @property
    def knows_dimension(self) -> bool:
        """Whether `dimension` is known already."""
        try:
            return self.dimension > 0
        except EmbedderError:
            return False

    @property
    def concurrency(self) -> int:
        """Batches it can work on at once, in a thread or a greenlet."""
        return 1

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever the vectors of the same pixels would change. Needs no `open`.

        Raises:
            ConfigError: what it is made of cannot be found.
        """

    @property
    def wants(self) -> PixelPreferences:
        """The pixels it likes best."""
        return PixelPreferences()

    def memory(self, spec: Pixels, rows: int) -> int | None:
        """Bytes it takes at most in each process it runs in, for batches of up to `rows`. None: nobody knows."""
        del spec, rows
        return None

    def check(self, spec: Pixels) -> None:  # noqa: B027  (an embedder that takes any pixels has nothing to check)
        """Refuse pixels that do not fit, before anything is started.

        Raises:
            ConfigError: they do not fit; the message names the setting to change.
        """

    @abstractmethod
    def open(self, spec: Pixels, rows: int) -> None:
        """Load what is needed to embed batches of up to `rows` pictures.

        A JAX embedder compiles with its first `embed`, so that a worker can tell its layout before it compiles.

        Raises:
            ConfigError: pixels or settings do not fit.
            EmbedderError: it cannot work at all.
        """

    @abstractmethod
    def embed(self, view: View, rows: int) -> Refusals:
        """Write the vectors of ``view.pixels[:rows]`` into ``view.embeddings[:rows]``; nothing else is touched.

        The view is not kept after the call, except by a pin.

        Returns:
            The rows that were refused; their vectors mean nothing.

        Raises:
            EmbedderError: it does not work at all.
        """

    def attempt(self, view: View, rows: int) -> Refusals:
        """As `embed`, for a caller who will try again: what is transient is raised, and no row is blamed for it.

        Raises:
            EmbedError: of something transient, see `policies.is_transient`.
            EmbedderError: it does not work at all.
        """
        return self.embed(view, rows)

    def start_in_hub(self) -> None:  # noqa: B027  (most have nothing that lives on a hub)
        """Runs in a greenlet on the engine's hub before the first batch of a run."""

    def stop_in_hub(self) -> None:  # noqa: B027
        """Runs there after the last batch."""

    def close(self) -> None:  # noqa: B027  (most hold nothing)
        """Let go of models and threads. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec!r})"


def bisect(
    run: Callable[[int, int], object], start: int, stop: int, is_theirs: Callable[[EmbedError], bool] = lambda _: True
) -> Refusals:
    """Run on rows ``[start, stop)``; where that is refused, on halves of them, down to the rows that are to blame.

    Args:
        run: raises EmbedError for rows of which at least one is refused. One bad row of n costs about 2 log2(n) runs.
        is_theirs: whether rows can be to blame for this error; else it is raised.

    Returns:
        The rows that were refused alone.
    """
    try:
        run(start, stop)
    except EmbedError as error:
        if not is_theirs(error):
            raise
        if stop - start == 1:
            return {start: error}
        middle = (start + stop) // 2
        return {**bisect(run, start, middle, is_theirs), **bisect(run, middle, stop, is_theirs)}
    return NONE_REFUSED


def digest(*parts: str | bytes) -> str:
    """A short fingerprint: 32 hexadecimal digits that change with any part."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()


def spec_string(head: str, **options: str | int | None) -> str:
    """The spec that `parse_embedder` reads back; options of None are left out."""
    given = {name: value for name, value in options.items() if value is not None}
    return f"{head}?{urlencode(given, safe='/:')}" if given else head


def need_batch(embedder: Embedder, view: View, rows: int, capacity: int) -> None:
    """Hold a view against what the embedder was opened with; one compiled program serves one shape only.

    Raises:
        EmbedderError: it has another capacity, too many rows, or no room of the right width for the vectors.
    """
    if len(view.pixels) != capacity or not 0 <= rows <= capacity:
        raise EmbedderError(
            f"{embedder.name} was opened for batches of {capacity}: got {rows} rows in a view of {len(view.pixels)}"
        )
    if view.embeddings.shape != (capacity, embedder.dimension):
        raise EmbedderError(
            f"{embedder.name} writes [{capacity}, {embedder.dimension}] vectors, but the view has room for "
            f"{list(view.embeddings.shape)}; was the slot laid out for another embedder?"
        )


def need_vectors(name: str, shape: tuple[int | None, ...], rows: int) -> int:
    """Find the dimension in the shape of what a user's function returned for `rows` pictures.

    Raises:
        EmbedderError: it is not ``[rows, D]``.
    """
    if len(shape) != 2 or shape[0] != rows or not shape[1]:
        raise EmbedderError(f"{name} must return [n, D] vectors: for {rows} pictures it returned shape {list(shape)}")
    return shape[1]


def nonfinite_rows(vectors: Array) -> list[int]:
    """Rows ``[n, D]`` that hold a NaN or an infinity; a sink refuses these one by one."""
    rows: list[int] = np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist()
    return rows


def no_options(name: str, options: Options, known: tuple[str, ...] = (), field: str = "embedder") -> None:
    """Refuse options nobody reads, so that a misspelt one is not silently ignored.

    Args:
        name: what the message calls what has them.
        options: that were given.
        known: all there are.
        field: the setting, for the message.

    Raises:
        ConfigError: one is not in `known`.
    """
    for option in sorted(options.keys() - set(known)):
        can = f"it has {', '.join(known)}" if known else "it has none"
        raise ConfigError(f"{field} {name} has no option {option!r}: {can}")
