"""SIGKILL, at any moment, of anybody: nothing is lost, nothing waits for the dead, nothing stays behind.

* A worker killed anywhere in the slot protocol leaves a slot that is either whole or refused, and its grant comes back.
* A host killed at any moment takes its fork server and its workers with it, even if a fork of it lives on and holds
  copies of all their sockets and descriptors; its segments are swept by the next start.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.errors import StaleSlotError
from penstock.preprocess.slot_layout import pixel_layout
from penstock.shm import Child, Ring, SlotState, SlotTable, Zygote, orphans, recv_frame, send_frame_fds, sweep
from penstock.tests.waiting import DEADLINE, patient

LAYOUT = pixel_layout(4, (3, 32, 32), "uint8", 0)

WORKER = '''
import signal, struct
from penstock.preprocess.slot_layout import pixel_layout
from penstock.shm import Ring, recv_frame_fds, send_frame

LAYOUT = pixel_layout(4, (3, 32, 32), "uint8", 0)

def work(sock, argument, fds):
    """One task, up to the point where it is to be killed; there it says so and waits for it."""
    generation, point = struct.unpack("<Q16s", argument)
    point = point.rstrip(b"\\0").decode()
    def reach(name):
        if name == point:
            send_frame(sock, name.encode())
            signal.pause()
    _, (fd,) = recv_frame_fds(sock)
    ring = Ring.attach(fd, LAYOUT, 1)
    reach("granted")
    ring.begin(0, generation)
    reach("begun")
    ring.mark(0, 2)
    ring.view(0)["pixels"][:2] = generation % 256
    reach("half")
    ring.view(0)["pixels"][...] = generation % 256
    reach("copied")
    ring.commit(0, generation, 4)
    reach("committed")
    send_frame(sock, b"ready")
    reach("answered")

def stay(sock, argument, fds):
    """Deaf to its socket: only a kill ends it."""
    send_frame(sock, b"here")
    signal.pause()
'''

HOST = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from penstock.preprocess.slot_layout import pixel_layout
from penstock.shm import Ring, Zygote, recv_frame
ring = Ring.create(pixel_layout(4, (3, 32, 32), "uint8", 0), 2, directory=sys.argv[2])
zygote = Zygote()
children = [zygote.fork("shm_worker:stay") for _ in range(2)]
for child in children:
    assert recv_frame(child.socket) == b"here"
if sys.argv[3] == "forked":
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writing, b"x")
        signal.pause()
    os.read(reading, 1)
    print(pid, end=" ")
print(zygote.pid, *(child.pid for child in children), flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("worker")
    (folder / "shm_worker.py").write_text(WORKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield str(folder)


@pytest.fixture(scope="module")
def zygote(worker: str) -> Iterator[Zygote]:
    with Zygote(["shm_worker"], {"OPENBLAS_NUM_THREADS": "1"}) as made:
        yield made


@contextmanager
def task(zygote: Zygote, ring: Ring, generation: int, point: str) -> Generator[Child]:
    argument = generation.to_bytes(8, "little") + point.encode().ljust(16, b"\0")
    with zygote.fork("shm_worker:work", argument) as child:
        child.socket.settimeout(10)
        send_frame_fds(child.socket, b"ring", [ring.fd])
        yield child


@pytest.mark.kills
@pytest.mark.parametrize("point", ["granted", "begun", "half", "copied", "committed", "answered"])
def test_a_worker_may_die_at_any_point_of_the_protocol(zygote: Zygote, tmp_path: Path, point: str) -> None:
    """The slot passes only if it is whole and answered for; the next worker does the task again on the same ring."""
    table = SlotTable(1)
    with Ring.create(LAYOUT, 1, directory=str(tmp_path)) as ring:
        grant = table.grant()
        assert grant is not None
        with task(zygote, ring, grant.generation, point) as child:
            heard = [recv_frame(child.socket) for _ in range(1 + (point == "answered"))]
            assert heard[-1] == point.encode()
            child.kill()
            assert recv_frame(child.socket) is None
            assert child.describe_exit(10) == "was killed by signal 9 (SIGKILL)"
        if heard[0] == b"ready":
            table.ready(grant, 4)
            ring.check(0, grant.generation, 4)
            assert (ring.view(0)["pixels"] == grant.generation).all()
            table.release(grant)
        elif point != "committed":  # whole, but not answered for: it is done again, which is harmless
            with pytest.raises(StaleSlotError):
                ring.check(0, grant.generation, 4)
        begun = point != "granted"
        row = 2 if begun and point != "begun" else None
        assert ring.progress(0, grant.generation) == (begun, row)
        assert table.reclaim() == ([] if heard[0] == b"ready" else [grant])
        assert table.state(0) is SlotState.FREE

        again = table.grant()
        assert again is not None
        with task(zygote, ring, again.generation, "never") as child:
            assert recv_frame(child.socket) == b"ready"
        table.ready(again, 4)
        ring.check(0, again.generation, 4)
        assert (ring.view(0)["pixels"] == again.generation).all()
        with pytest.raises(StaleSlotError):
            ring.check(0, grant.generation, 4)


def end_of(pid: int, deadline: float) -> bool:
    """Whether a process that is not our child ends in time; waits on its pidfd."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
    finally:
        os.close(pidfd)


@pytest.mark.kills
@pytest.mark.parametrize("fork", ["alone", "forked"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_nothing_outlives_a_killed_host(worker: str, tmp_path: Path, how: signal.Signals, fork: str) -> None:
    """Fork server and workers are gone within a second, and the next start finds and removes the segment."""
    place = tmp_path / "segments"
    place.mkdir()
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, worker, str(place), fork],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with host:
        assert host.stdout is not None
        pids = [int(word) for word in host.stdout.readline().split()]
        bystander = pids.pop(0) if fork == "forked" else 0
        try:
            assert len(pids) == 3
            assert orphans(str(place)) == []
            host.send_signal(how)
            host.wait(DEADLINE)
            deadline = time.monotonic() + patient(1.0)
            assert [end_of(pid, deadline) for pid in pids] == [True] * 3
            (orphan,) = orphans(str(place))
            assert orphan.nbytes >= LAYOUT.ring_bytes(2)
            assert sweep(str(place)) == [orphan.path]
            assert list(place.iterdir()) == []
            assert not bystander or not end_of(bystander, 0.0), "it was there all the time"
        finally:
            if bystander:
                os.kill(bystander, signal.SIGKILL)


@pytest.mark.kills
@pytest.mark.slow
def test_a_worker_may_die_at_any_time(zygote: Zygote, tmp_path: Path) -> None:
    """A hundred kills, each a little later than the one before: always an end, never a slot that is half and passes."""
    with Ring.create(LAYOUT, 1, directory=str(tmp_path)) as ring:
        table = SlotTable(1)
        for delay in range(100):
            grant = table.grant()
            assert grant is not None
            with task(zygote, ring, grant.generation, "never") as child:
                select.select([child.socket], [], [], delay / 50_000)
                child.kill()
                answer = recv_frame(child.socket)
                child.describe_exit(10)
            try:
                ring.check(0, grant.generation, 4)
                assert (ring.view(0)["pixels"] == grant.generation % 256).all()
            except StaleSlotError:
                assert answer is None
            if answer:
                table.ready(grant, 4)
                table.release(grant)
            else:
                assert table.reclaim() == [grant]
