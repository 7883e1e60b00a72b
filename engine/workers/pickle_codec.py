"""Calls of functions as they travel between a `WorkerPool` and its workers, and the worker's own side.

Pickle is allowed here, and here only: both ends are one program, and nobody else can reach the socket.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import pickle
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import FunctionType, ModuleType
from typing import Any

from ...errors import ConfigError, ItemError, WorkerStartError
from ...shm import SlotLayout
from ...shm.protocol import HEAD, TASK, Message
from ..core.operations import ListOf
from .serving import Task, serve

ENTRY = f"{__name__}:main"
"""Where a worker begins."""

LAYOUT = SlotLayout(1)
"""A slot has room for nothing: what is called with, and what comes of it, is in the messages."""

_FUNCTION = struct.Struct("<I")
"""Bytes of the pickled function, which follows; then come the arguments."""

_PROTOCOL = pickle.HIGHEST_PROTOCOL
_loading: list[str] = []  # the main script, while a worker loads it


def refuse_while_loading() -> None:
    """Refuse to make workers while a worker loads the main script: the script would start itself for ever.

    Raises:
        ConfigError: it does.
    """
    if _loading:
        raise ConfigError(
            f"{_loading[0]} makes a WorkerPool when it is loaded by a worker: put what starts the work under "
            'if __name__ == "__main__":'
        )


@dataclass(slots=True)
class PickledCall:
    """A call, ready to travel.

    Attributes:
        fn: the function, for people.
        data: all of it.
    """

    fn: Callable[..., Any]
    data: bytes


@dataclass(slots=True)
class Returned:
    """What a worker says of its call: it was made. What came of it is for `load_answer`."""

    slot: int
    generation: int
    answer: memoryview
    rows: Sequence[object] = ()
    failures: Sequence[tuple[int, ItemError]] = ()

    def check(self, size: int) -> None:
        """Nothing in it can be wrong."""


class CallCodec:
    """A task is one call, and so is its answer."""

    def encode(self, slot: int, generation: int, items: Sequence[PickledCall]) -> Message:
        """A TASK."""
        (call,) = items
        return Message.of([HEAD.pack(TASK, slot, generation, 1)], [call.data])

    def decode(self, frame: bytes) -> Returned:
        """A DONE."""
        _, slot, generation, rows = HEAD.unpack_from(frame)
        if rows:
            raise ValueError(f"{rows} rows in a slot that has none")
        return Returned(slot, generation, memoryview(frame)[HEAD.size :])

    def describe(self, item: PickledCall) -> str:
        """The function."""
        return repr(item.fn)


def dump_call(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> PickledCall:
    """A call, ready to travel, with the module it needs: one that is not importable by name is loaded from its file.

    Raises:
        ConfigError: `fn` is not importable.
        Exception: whatever pickling an argument raises.
    """
    function = _dump_once(fn) if isinstance(fn, FunctionType) else _dump_function(fn)
    return PickledCall(fn, function + pickle.dumps((args, kwargs), _PROTOCOL))


def _dump_function(fn: Callable[..., Any]) -> bytes:
    try:
        sent = pickle.dumps(fn, _PROTOCOL)
    except Exception as error:
        raise ConfigError(
            f"{fn!r} cannot be sent to a worker process ({error}): use a function or class at the top of a module, "
            "or leave executor= out to run it in this process"
        ) from error
    module = _home(fn)
    function = pickle.dumps((module, _file_of(module), sent), _PROTOCOL)
    return _FUNCTION.pack(len(function)) + function


_dump_once = functools.lru_cache(_dump_function)
"""For plain functions: they travel as their names, so nothing about them changes."""


def load_answer(answer: memoryview) -> tuple[Any, BaseException | None, float]:
    """A worker's answer: result, error, seconds.

    Raises:
        Exception: whatever unpickling raises.
    """
    result: tuple[Any, BaseException | None, float] = pickle.loads(answer)  # noqa: S301  (our own child)
    return result


def main(sock: socket.socket, _argument: bytes, _fds: Sequence[int]) -> None:
    """A worker's life: make one call after the other until the socket closes."""
    serve(sock, LAYOUT, _work)


def _work(task: Task) -> tuple[int, bytes]:
    task.mark(0)
    return 0, _answer(task.body)


def _answer(request: memoryview) -> bytes:
    began = perf_counter()
    try:
        arguments = _FUNCTION.size + _FUNCTION.unpack_from(request)[0]
        fn = _find(*pickle.loads(request[_FUNCTION.size : arguments]))  # noqa: S301  (our own parent)
        args, kwargs = pickle.loads(request[arguments:])  # noqa: S301
        began = perf_counter()
        result = fn(*args, **kwargs)
        return pickle.dumps((result, None, perf_counter() - began), _PROTOCOL)
    except BaseException as raised:  # noqa: BLE001  (SystemExit, too, is an answer and not the worker's end)
        return pickle.dumps((None, _portable(raised), perf_counter() - began), _PROTOCOL)


def _find(module: str, file: str | None, sent: bytes) -> Callable[..., Any]:
    """The function to call.

    Raises:
        WorkerStartError: it cannot be had here, which is no item's fault.
    """
    try:
        _ensure(module, file)
        fn: Callable[..., Any] = pickle.loads(sent)  # noqa: S301
    except BaseException as error:
        cause = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
        raise WorkerStartError(f"a worker cannot load module {module!r}: {type(cause).__name__}: {cause}") from error
    return fn


def _portable(error: BaseException) -> BaseException:
    """The error as it can travel, with the worker's traceback as a note."""
    note = f"in worker process {os.getpid()}:\n{''.join(traceback.format_exception(error)).rstrip()}"
    try:
        error.add_note(note)
        pickle.loads(pickle.dumps(error, _PROTOCOL))  # noqa: S301  (many an error pickles but does not unpickle)
    except Exception:  # noqa: BLE001
        error = ItemError(f"{type(error).__name__}: {error}")
        error.add_note(note)
    return error


def _home(fn: Any) -> str:
    """The name of the module that must be loaded for `fn`."""
    while True:
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, ListOf):
            fn = fn.op
        elif inspect.ismethod(fn):
            fn = fn.__self__ if inspect.isclass(fn.__self__) else type(fn.__self__)
        elif inspect.isroutine(fn) or inspect.isclass(fn):
            return getattr(fn, "__module__", None) or "builtins"
        else:
            fn = type(fn)


def _file_of(module: str) -> str | None:
    return getattr(sys.modules.get(module), "__file__", None)


def _ensure(name: str, file: str | None) -> None:
    """Have a module loaded here under its name there.

    The main script is not importable by name, nor is a test module loaded by pytest's importlib mode.
    """
    if name in sys.modules and name != "__main__":
        return
    if name != "__main__":
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            if file is None:
                raise
        else:
            return
    elif getattr(sys.modules["__main__"], "__file__", None) == file:
        return
    if file is None:
        raise ConfigError(
            "functions typed into an interactive session cannot run in worker processes: put them in a module"
        )
    sys.modules[name] = _load(name, file)


def _load(name: str, file: str) -> ModuleType:
    # Not as "__main__": what a script guards with `if __name__ == "__main__"` must not run again here.
    alias = "__penstock_main__" if name == "__main__" else name
    spec = importlib.util.spec_from_file_location(alias, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"the worker cannot load {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    _loading.extend([file] if name == "__main__" else [])
    try:
        spec.loader.exec_module(module)
    finally:
        _loading.clear()
    return module
