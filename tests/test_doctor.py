"""``penstock doctor``: each finding names what to change, and the exit status is that of the worst."""

from __future__ import annotations

import errno
import http.server
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.engine.cli import main
from penstock.engine.doctor import checks as doctor_checks
from penstock.engine.doctor.examine import examine
from penstock.engine.doctor.findings import Finding, findings_text, is_ready
from penstock.engine.machine import resources as machine
from penstock.preprocess.sandbox import landlock, seccomp
from penstock.shm import Orphan


class Health(http.server.BaseHTTPRequestHandler):
    """A server that is ready, or not, as Triton says it."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/v2/health/ready" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    """Address of such a server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_machine_that_runs_these_tests_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    """All is looked at, as text and as JSON, with status 0."""
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[-1].startswith("ready")
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = {finding["name"] for finding in found}
    assert {
        "cores",
        "memory",
        "shared memory",
        "orphans",
        "JAX",
        "Pillow",
        "gevent",
        "Milvus Lite",
        "cache",
        "Triton",
    } <= names
    assert all(set(finding) == {"name", "status", "detail", "advice"} for finding in found)


def test_one_failure_makes_the_machine_not_ready(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1, a verdict, and the advice below the line."""

    def examine(triton: str | None) -> list[Finding]:
        return [Finding("JAX", "fail", "broken\x1b[0m", "reinstall it"), Finding("cores", "warn", "1", "more")]

    monkeypatch.setattr("penstock.engine.doctor.examine.examine", examine)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "not ready: 1 to put right, 1 could be better" in out
    assert "-> reinstall it" in out
    assert "\x1b" not in out


def test_warnings_do_not_make_it_unready() -> None:
    """The job runs, only not as well as it could."""
    findings = [Finding("cores", "warn", "1", "use more")]
    assert is_ready(findings)
    assert findings_text(findings).endswith("ready, 1 could be better")


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are made all the same."""

    def broken() -> Finding:
        raise RuntimeError("psutil is confused")

    monkeypatch.setattr(doctor_checks, "memory", broken)
    monkeypatch.setattr(doctor_checks, "jax", lambda: Finding("JAX", "ok", ""))
    found = {finding.name: finding for finding in examine()}
    assert found["memory"].status == "fail"
    assert "psutil is confused" in found["memory"].detail
    assert found["Pillow"].status == "ok"


@pytest.mark.parametrize(
    ("free", "status", "said", "then"),
    [
        (2**40, "ok", "", "ok"),
        (64 * 2**20, "warn", "batch_size 16, not 32", "ok"),
        (2**20, "warn", "instead of", "warn"),
        (0, "fail", "", "warn"),
    ],
)
def test_shared_memory_is_judged_by_what_the_default_job_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, status: str, said: str, then: str
) -> None:
    """Docker gives 64 MiB by default: the job runs there with smaller batches. The option that is named gives it all
    that it wants; what the larger job of the two wants may be told next."""

    def found(room: int) -> Finding:
        pages = room // 4096
        statvfs = os.statvfs_result((4096, 4096, pages, pages, pages, 0, 0, 0, 0, 255))
        monkeypatch.setattr(os, "statvfs", lambda path: statvfs)
        return doctor_checks.shared_memory(str(tmp_path))

    monkeypatch.setenv("PENSTOCK_CORES", "2")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    finding = found(free)
    assert finding.status == status
    assert said in finding.detail
    if status != "ok":
        mib = int(finding.advice.partition("--shm-size=")[2].partition("m")[0])
        assert mib * 2**20 >= free + 2**20
        advised = found(mib * 2**20)
        assert advised.status == then
        assert re.search(r"the default job takes [\d.]+ MiB, with", advised.detail)


def test_no_shared_memory_at_all_is_a_failure(tmp_path: Path) -> None:
    """As in some sandboxes."""
    assert doctor_checks.shared_memory(str(tmp_path / "nowhere")).status == "fail"


def test_orphans_are_counted_and_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take memory until the next job; their names are not shown."""
    import penstock.shm

    monkeypatch.setattr(penstock.shm, "orphans", lambda: [Orphan("/dev/shm/penstock-secret", 3 * 2**20)])
    finding = doctor_checks.orphaned_segments()
    assert (finding.status, finding.detail) == ("warn", "1 segment of dead jobs hold 3.0 MiB")


def test_a_jax_that_crashes_is_a_failure_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started in another process, so even an illegal instruction is survived."""

    def crashed(*args: Any, **how: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], -4, "", "Traceback\nIllegal instruction: needs AVX")

    monkeypatch.setattr(subprocess, "run", crashed)
    finding = doctor_checks.jax()
    assert finding.status == "fail"
    assert "needs AVX" in finding.detail


def test_a_library_that_cannot_be_imported_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it is for."""

    def broken(name: str) -> None:
        raise ImportError("libfoo.so.1 is missing")

    monkeypatch.setattr(doctor_checks, "import_module", broken)
    finding = doctor_checks.milvus_lite()
    assert finding.status == "fail"
    assert "libfoo" in finding.detail
    assert "--to FILE.db" in finding.advice


def test_missing_codecs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of that format would all be dead letters."""
    from PIL import features

    monkeypatch.setattr(features, "check", lambda codec: codec != "webp")  # pyright: ignore[reportUnknownArgumentType]
    finding = doctor_checks.pillow()
    assert finding.status == "warn"
    assert "without WEBP" in finding.detail


def test_a_missing_extra_is_no_fault_but_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main job does without."""
    monkeypatch.setitem(doctor_checks.EXTRAS, "jpeg", ("no-such-package", "speed"))
    finding = doctor_checks.optional("jpeg")
    assert finding.status == "ok"
    assert "pip install 'penstock[jpeg]'" in finding.detail


def test_every_extra_for_users_is_looked_for() -> None:
    """Also those that came later."""
    setup = ConfigParser()
    setup.read(Path(penstock.__file__).parent / "setup.cfg")
    assert set(doctor_checks.EXTRAS) == set(setup["options.extras_require"]) - {"bench", "dev"}


def test_triton_is_asked_when_it_is_given(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready, not ready, and nobody there."""
    assert doctor_checks.triton(None).status == "ok"
    assert doctor_checks.triton(server).status == "ok"
    assert doctor_checks.triton(server.removeprefix("http://")).status == "ok"
    monkeypatch.setattr(Health, "status", 400)
    assert "status 400" in doctor_checks.triton(server).detail


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://host:notaport", "http://", "http://[::1"])
def test_a_triton_that_does_not_answer_is_a_failure(url: str) -> None:
    """Whatever was typed."""
    finding = doctor_checks.triton(url)
    assert finding.status == "fail"
    assert finding.advice


def test_a_container_with_less_time_than_cores_gets_a_worker_for_each_core_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many as a job starts, with what limits them."""
    monkeypatch.setattr(machine, "core_limits", lambda *_: {"affinity": 16, "cgroup quota": 3})
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    finding = doctor_checks.cores()
    assert (finding.status, finding.advice) == ("ok", "")
    assert finding.detail.startswith("3 of 16 (cgroup quota)")


def test_a_sandbox_that_cannot_be_had_is_a_warning_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main job runs without; what is missing is named, wholly and in part."""
    monkeypatch.setattr(seccomp, "is_available", lambda: False)
    monkeypatch.setattr(landlock, "version", lambda: 4)
    part = doctor_checks.sandbox()
    assert (part.status, "Landlock 4" in part.detail, "seccomp" in part.advice) == ("warn", True, True)
    monkeypatch.setattr(landlock, "version", lambda: 0)
    nothing = doctor_checks.sandbox()
    assert (nothing.status, "cannot be had" in nothing.detail, "Landlock" in nothing.advice) == ("warn", True, True)


def test_a_cache_that_is_not_ours_alone_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Compiled code from a folder that others can write to would not be trusted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert doctor_checks.cache().status == "ok"
    for folder in tmp_path.glob("penstock/jax/*"):
        folder.chmod(0o777)
    assert doctor_checks.cache().status == "warn"


def test_a_system_where_processes_cannot_be_watched_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker could be started there."""

    def refused(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    assert doctor_checks.processes().status == "ok"
    monkeypatch.setattr(os, "pidfd_open", refused)
    finding = doctor_checks.processes()
    assert finding.status == "fail"
    assert "gVisor" in finding.advice


def test_proxies_of_the_environment_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their variables, not by their addresses, which may have passwords; and what goes through them."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert doctor_checks.proxies().detail == "none"
    monkeypatch.setenv("https_proxy", "http://user:MARKER@proxy:3128")
    found = doctor_checks.proxies()
    assert found.detail.startswith("HTTPS_PROXY: object stores")
    assert "MARKER" not in found.detail
