"""What others can reach while a job runs: sockets (S11), segments (S8); and the floor under the decoder (S12).

That a segment is 0600, unguessable and never opened by name alone is tested in ``test_shm_segment``; that Milvus Lite's
server listens on the loopback only in ``test_sink_milvus_lite``; the demo's servers in ``test_servers``.
"""

from __future__ import annotations

import configparser
import ipaddress
import logging
import re
import stat
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from penstock import Report, StreamingMultiprocessPreprocessor, embed_images
from penstock.bench.hostile import make_hostile
from penstock.engine.workers import PreprocessPool
from penstock.preprocess import PreprocessSpec
from penstock.shm import janitor

ROOT = Path(__file__).parent.parent


def listening() -> set[tuple[str, int]]:
    """Addresses on which this process or one that it has started waits for strangers."""
    me = psutil.Process()
    found: set[tuple[str, int]] = set()
    for process in [me, *me.children(recursive=True)]:
        try:
            connections = process.net_connections("inet")
        except psutil.Error:  # it has just ended
            continue
        found |= {(each.laddr.ip, each.laddr.port) for each in connections if each.status == psutil.CONN_LISTEN}
    return found


class Spy:
    """A watcher that remembers every listening socket of the job and its children."""

    interval = 0.0

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()

    def update(self, report: Report) -> None:
        del report
        self.seen |= listening()


@pytest.mark.slow
def test_a_running_job_listens_on_the_loopback_only(photos: list[Path], tmp_path: Path) -> None:
    """The job itself on nothing, the store in a file on 127.0.0.1, because it has no access control."""
    spy = Spy()
    embed_images([str(photo) for photo in photos], to=str(tmp_path / "p.db"), workers=2, batch_size=4, watcher=spy)
    assert spy.seen, "the server of Milvus Lite was not seen: this test looks at nothing"
    assert all(ipaddress.ip_address(host.removeprefix("::ffff:")).is_loopback for host, _ in spy.seen)


@pytest.mark.slow
def test_workers_and_rings_listen_on_nothing(photos: list[Path]) -> None:
    """Parent and workers talk over socket pairs, which have no address."""
    before = listening()
    with StreamingMultiprocessPreprocessor(num_workers=2, batch_size=4) as stream:
        for _ in stream.preprocess_stream([str(photo) for photo in photos]):
            assert listening() <= before


@pytest.mark.slow
def test_segments_of_a_running_pool_are_private_and_not_talked_about(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever knows a name and is the same user can map it: owner only, 160 random bits, not in the log at INFO."""
    caplog.set_level(logging.INFO)
    folder = Path(janitor.DIRECTORY)
    before = set(folder.glob("penstock-*"))
    with PreprocessPool(PreprocessSpec(size=64, resize=64), workers=1, batch_size=2, slots=2, named=True):
        mine = {path for path in set(folder.glob("penstock-*")) - before if _is_mapped(path)}
        assert mine
        for path in mine:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert re.fullmatch(r"penstock-[0-9a-f]{40}", path.name)
    assert not any(path.name in caplog.text for path in mine)


def _is_mapped(path: Path) -> bool:
    """Whether this process has it, as opposed to a job that runs beside."""
    try:
        inode = str(path.stat().st_ino)
    except OSError:
        return False
    return any(line.split()[4:5] == [inode] for line in Path("/proc/self/maps").read_text().splitlines())


def test_the_floor_under_pillow_is_a_security_release() -> None:
    """12.3 fixed decoder holes; installing with less is refused, and what is installed here is not less."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    (floor,) = re.findall(r"^pillow>=([\d.]+)$", setup["options"]["install_requires"], re.MULTILINE)
    assert _number(floor) >= (12, 3)
    assert _number(version("pillow")) >= _number(floor)


def _number(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def test_the_hostile_files_are_swept(tmp_path: Path) -> None:
    """There are dozens of them, and tests send them through the decoder and through the whole job."""
    assert len(make_hostile(tmp_path / "hostile")) >= 40
    sweeps = {
        "test_hostile_folder": "test_every_file_of_a_hostile_folder_is_accounted_for",
        "test_decode_hostile": "test_mutated_files_are_settled",
        "test_bench_pictures": "test_decoding_the_hostile_folder_ends_as_expected",
    }
    for module, test in sweeps.items():
        assert f"def {test}(" in (Path(__file__).parent / f"{module}.py").read_text()
