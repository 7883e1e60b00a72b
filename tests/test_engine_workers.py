"""The worker pool: what kills a worker costs nothing, or one item at most.

The table of deaths below is the contract: where the worker dies, and how.
"""

from __future__ import annotations

import faulthandler
import functools
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, wait
from pathlib import Path
from typing import Any

import psutil
import pytest

from penstock.engine import PipelineBuilder
from penstock.engine.workers import pool_worker
from penstock.engine.workers.callables import WorkerPool
from penstock.errors import ConfigError, ItemError, PoisonItemError, WorkerError, WorkerStartError
from penstock.tests.waiting import DEADLINE, wait_until


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    """One pool for this module; it must survive all that is done to it."""
    with WorkerPool(2) as pool:
        yield pool


def square(x: int) -> int:
    return x * x


def where(_: object = None) -> int:
    return os.getpid()


class Dies:
    """Dies when it is unpickled in another process."""

    def __init__(self, home: int) -> None:
        self.home = home

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self.home,)


def _unpickle(home: int) -> Dies:
    if os.getpid() != home:
        os.kill(os.getpid(), signal.SIGKILL)
    return Dies(home)


class DiesLater:
    """Dies when it is pickled in another process."""

    def __init__(self, home: int) -> None:
        self.home = home

    def __reduce__(self) -> tuple[Any, ...]:
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return DiesLater, (self.home,)


def die(how: str) -> Any:
    match how:
        case "SIGKILL" | "SIGSEGV" | "SIGTERM" | "SIGABRT":
            os.kill(os.getpid(), getattr(signal, how))
        case "status 3":
            os._exit(3)
        case "status 0":
            os._exit(0)
        case "result":
            return DiesLater(0)
        case _:
            return None
    threading.Event().wait()
    return None


def be_quiet() -> None:
    """What crashes on purpose need not print its stack."""
    faulthandler.disable()


ROWS = ["SIGKILL", "SIGSEGV", "SIGTERM", "SIGABRT", "status 3", "status 0", "result"]


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.parametrize("how", ROWS)
def test_an_item_that_kills_every_worker_fails_alone(how: str, pool: WorkerPool) -> None:
    """Three workers are spent on it; the others' items are untouched."""
    wait([pool.submit(be_quiet) for _ in range(8)], DEADLINE)
    others = [pool.submit(square, x) for x in range(10)]
    poison = pool.submit(die, how)
    more = [pool.submit(square, x) for x in range(10)]
    with pytest.raises(PoisonItemError, match="killed by signal 9" if how == "result" else how):
        poison.result(DEADLINE)
    assert [future.result(DEADLINE) for future in [*others, *more]] == [square(x) for x in range(10)] * 2


@pytest.mark.kills
@pytest.mark.slow
def test_an_item_that_kills_while_it_is_unpickled_fails_alone(pool: WorkerPool) -> None:
    """Death before the operation begins is death all the same."""
    with pytest.raises(PoisonItemError):
        pool.submit(type, Dies(os.getpid())).result(DEADLINE)
    assert pool.submit(square, 3).result(DEADLINE) == 9


def die_once(marker: str, x: int) -> int:
    """Kills the worker the first time it sees an odd number."""
    path = Path(f"{marker}-{x}")
    if x % 2 and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.kills
@pytest.mark.slow
@pytest.mark.parametrize("order", ["completion", "input"])
def test_killed_workers_cost_a_pipeline_nothing(order: Any, pool: WorkerPool, tmp_path: Path) -> None:
    """Every item arrives once, whoever died on the way."""
    op = functools.partial(die_once, str(tmp_path / "killed"))
    builder = PipelineBuilder().add_source(range(8)).pipe(op, executor=pool, concurrency=3, output_order=order)
    with builder.add_sink().build(num_threads=1, max_failures=0).auto_stop() as pipeline:
        items = list(pipeline.get_iterator(timeout=DEADLINE))
    assert (items if order == "input" else sorted(items)) == list(range(8))
    assert len(list(tmp_path.iterdir())) == 4
    assert pipeline.report().stages[1].kind == "process"


def die_twice(marker: str) -> int:
    """Kills its worker the first two times."""
    before = len(list(Path(marker).parent.glob(f"{Path(marker).name}-*")))
    if before < 2:
        Path(f"{marker}-{before}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return before


@pytest.mark.kills
@pytest.mark.slow
def test_a_worker_that_died_while_it_was_idle_counts_for_no_item(tmp_path: Path) -> None:
    """The next item has its three attempts all the same."""
    with WorkerPool(1) as pool:
        assert pool.submit(square, 3).result(DEADLINE) == 9
        idle = psutil.Process(pool.pids[0])
        idle.kill()
        idle.wait(DEADLINE)
        assert pool.submit(die_twice, str(tmp_path / "killed")).result(DEADLINE) == 2


@pytest.mark.kills
@pytest.mark.slow
def test_a_worker_that_was_stopped_while_it_was_idle_counts_for_no_call() -> None:
    """The next call is not late by it: another worker makes it."""
    with WorkerPool(1, item_timeout=1.0) as pool:
        first = pool.submit(where).result(DEADLINE)
        os.kill(first, signal.SIGSTOP)
        assert pool.submit(square, 3).result(DEADLINE) == 9
        assert pool.pids != [first]


@pytest.mark.kills
@pytest.mark.slow
def test_workers_that_cannot_be_kept_alive_fail_what_they_have_and_no_later_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next call has workers started anew."""
    monkeypatch.setattr(pool_worker, "_DEATHS", -1)
    with WorkerPool(1) as pool:
        with pytest.raises(WorkerError, match="times in a row"):
            pool.submit(die, "SIGKILL").result(DEADLINE)
        monkeypatch.undo()
        assert pool.submit(square, 3).result(DEADLINE) == 9


@pytest.mark.kills
@pytest.mark.slow
def test_workers_that_are_killed_from_outside_cost_nothing(pool: WorkerPool) -> None:
    """kill -9 of every worker, idle or busy, again and again."""
    builder = PipelineBuilder().add_source(range(300)).pipe(square, executor=pool, concurrency=4, output_order="input")
    got: list[int] = []
    with builder.add_sink().build(num_threads=1, max_failures=0).auto_stop() as pipeline:
        for item in pipeline.get_iterator(timeout=DEADLINE):
            got.append(item)
            if len(got) in (10, 100, 200):
                for pid in pool.pids:
                    os.kill(pid, signal.SIGKILL)
    assert got == [square(x) for x in range(300)]


def boom(text: str) -> None:
    raise ValueError(text)


class Unpicklable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def boom_oddly() -> None:
    raise Unpicklable(1, 2)


def test_an_exception_comes_back_with_the_workers_traceback(pool: WorkerPool) -> None:
    """Type and message as they were, and where it happened as a note."""
    with pytest.raises(ValueError, match="text") as caught:
        pool.submit(boom, "text").result(DEADLINE)
    assert "in boom" in caught.value.__notes__[0]


def test_an_exception_that_does_not_unpickle_comes_back_as_an_item_error(pool: WorkerPool) -> None:
    """It names the type, and costs no worker."""
    before = pool.submit(where).result(DEADLINE)
    with pytest.raises(ItemError, match="Unpicklable: 1 and 2"):
        pool.submit(boom_oddly).result(DEADLINE)
    assert before in pool.pids


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_odd_exceptions_do_not_end_a_worker(error: type[BaseException], pool: WorkerPool) -> None:
    """They are answers like others."""
    raised = pool.submit(raise_it, error).exception(DEADLINE)
    assert isinstance(raised, error)


def raise_it(error: type[BaseException]) -> None:
    raise error


@pytest.mark.parametrize("fn", [lambda: 1, threading.Lock().acquire], ids=["lambda", "lock"])
def test_what_cannot_travel_is_refused_at_once(fn: Callable[..., Any], pool: WorkerPool) -> None:
    """A lambda, or the method of an object that does not pickle."""
    with pytest.raises(ConfigError, match="top of a module"):
        pool.submit(fn)


@pytest.mark.parametrize("fn", [functools.partial(divmod, 7), Path("a").joinpath, Path, str.upper], ids=str)
def test_what_is_importable_travels(fn: Callable[..., Any], pool: WorkerPool) -> None:
    """Partials, methods of picklable objects, classes."""
    argument: Any = 2 if isinstance(fn, functools.partial) else "b"
    assert pool.submit(fn, argument).result(DEADLINE) == fn(argument)


def test_an_argument_that_does_not_pickle_is_that_items_failure(pool: WorkerPool) -> None:
    """Others may travel."""
    with pytest.raises(TypeError, match="pickle"):
        pool.submit(square, threading.Lock()).result(DEADLINE)  # type: ignore[arg-type]


def test_results_of_any_size_come_back(pool: WorkerPool) -> None:
    """Also what is larger than a socket's buffer."""
    assert pool.submit(bytes, 20_000_000).result(DEADLINE) == bytes(20_000_000)


def test_arguments_of_any_size_travel(pool: WorkerPool) -> None:
    """What is much goes beside the message."""
    assert pool.submit(len, bytes(20_000_000)).result(DEADLINE) == 20_000_000


@pytest.mark.slow
def test_workers_import_nothing_that_no_function_needs() -> None:
    """NumPy starts threads, which a fork server must not have."""
    with WorkerPool(1) as fresh:
        assert not fresh.submit(eval, "'numpy' in __import__('sys').modules").result(DEADLINE)


def test_workers_are_processes_of_their_own_that_stay(pool: WorkerPool) -> None:
    """Two at most, neither this one, and the same ones again."""
    pids = {pool.submit(where).result(DEADLINE) for _ in range(6)}
    assert os.getpid() not in pids
    assert pids <= set(pool.pids)
    assert len(pool.pids) <= 2


@pytest.mark.slow
def test_a_pool_that_is_shut_down_takes_no_calls_and_leaves_nothing() -> None:
    """No process, no thread; waiting calls are done first, or cancelled."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    pool = WorkerPool(1)
    futures = [pool.submit(square, x) for x in range(5)]
    pool.shutdown()
    assert [future.result(0) for future in futures] == [0, 1, 4, 9, 16]
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(square, 1)
    pool.shutdown()
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before
    other = WorkerPool(1)
    held = [other.submit(square, x) for x in range(50)]
    other.shutdown(cancel_futures=True)
    assert not wait(held, DEADLINE).not_done
    assert any(future.cancelled() for future in held)
    WorkerPool(1).shutdown()


def block(path: str) -> None:
    """Say that it has begun, and never come back."""
    Path(path).touch()
    threading.Event().wait()


@pytest.mark.slow
def test_workers_are_killed_in_the_middle_of_their_calls(tmp_path: Path) -> None:
    """Whoever waits for a call is told; no process is left."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    pool = WorkerPool(1)
    under_way, waiting = pool.submit(block, str(tmp_path / "begun")), pool.submit(square, 1)
    wait_until((tmp_path / "begun").exists)
    pool.kill_workers()
    with pytest.raises(WorkerError, match="have been ended"):
        under_way.result(DEADLINE)
    with pytest.raises(CancelledError):
        waiting.result(DEADLINE)
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(square, 1)
    pool.shutdown()
    pool.kill_workers()
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before
    WorkerPool(1).kill_workers()


@pytest.mark.slow
@pytest.mark.parametrize("times", [3, pytest.param(30, marks=pytest.mark.nightly)])
def test_the_fork_server_leaves_with_the_last_worker(times: int) -> None:
    """However close together the workers leave."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    for _ in range(times):
        with WorkerPool(3) as pool:
            wait([pool.submit(square, x) for x in range(9)], DEADLINE)
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before


@pytest.mark.slow
def test_a_forgotten_pool_lets_its_workers_go() -> None:
    """Garbage collection is as good as a shutdown."""
    pool = WorkerPool(1)
    process = psutil.Process(pool.submit(where).result(DEADLINE))
    del pool
    gc.collect()
    process.wait(DEADLINE)


def test_a_pool_needs_a_worker() -> None:
    """`num_workers` is checked."""
    with pytest.raises(ConfigError, match="num_workers"):
        WorkerPool(0)


@pytest.mark.slow
def test_a_preload_that_does_not_import_is_told() -> None:
    """The reason is in the message, and the pipeline fails loudly."""
    with WorkerPool(1, preload=["no_such_module"]) as pool, pytest.raises(WorkerStartError, match="no_such_module"):
        pool.submit(square, 1).result(DEADLINE)


@pytest.mark.slow
def test_workers_have_the_environment_they_were_given() -> None:
    """Variables over those of this process."""
    with WorkerPool(1, env={"PENSTOCK_TEST": "yes"}) as pool:
        assert pool.submit(os.getenv, "PENSTOCK_TEST").result(DEADLINE) == "yes"


SCRIPT = """
import sys
from penstock.engine import PipelineBuilder
from penstock.engine.workers.callables import WorkerPool

class Item:
    def __init__(self, x): self.x = x

def both(item):
    return [item.x, -item.x]

def op(x):
    return x + 1

{main}
    with WorkerPool(2) as pool:
        builder = PipelineBuilder().add_source(Item(x) for x in range(3)).fanout(both, executor=pool)
        builder.pipe(op, executor=pool).gather()
        with builder.add_sink().build(num_threads=1, max_failures=0).auto_stop() as pipeline:
            print([each.results for each in pipeline])
"""


@pytest.mark.slow
@pytest.mark.parametrize("main", ['if __name__ == "__main__":', "if True:"], ids=["guarded", "unguarded"])
def test_functions_of_the_main_script_can_run_in_workers(main: str, tmp_path: Path) -> None:
    """With the usual guard they do; without it the script ends loudly instead of starting itself for ever."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(main=main))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=DEADLINE, check=False)
    if "True" in main:
        assert done.returncode == 1
        assert "put what starts the work under" in done.stderr
    else:
        assert done.stdout == "[[1, 1], [2, 0], [3, -1]]\n", done.stderr


FORKS = """
import os
from penstock.engine.workers.callables import WorkerPool
from penstock.errors import WorkerStartError

with WorkerPool(1) as pool:
    worker = pool.submit(os.getpid).result()
    if (pid := os.fork()) == 0:
        try:
            pool.submit(abs, -1)
        except WorkerStartError as error:
            pool.shutdown(cancel_futures=True)
            os._exit(0 if "is a fork" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert pool.submit(os.getpid).result() == worker
"""


@pytest.mark.slow
def test_a_fork_of_the_host_has_no_say() -> None:
    """It can neither call with its copy of the pool nor end the original's workers by shutting it down."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_pool_serves_several_pipelines_at_once(pool: WorkerPool) -> None:
    """Its workers are shared, its answers are not mixed up."""
    builders = [PipelineBuilder().add_source(itertools.repeat(x, 40)).pipe(square, executor=pool) for x in range(4)]
    pipelines = [builder.add_sink().build(num_threads=1) for builder in builders]
    for pipeline in pipelines:
        pipeline.start()
    for x, pipeline in enumerate(pipelines):
        assert list(pipeline) == [square(x)] * 40
        pipeline.stop()
