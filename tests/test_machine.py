"""What this process may use of its machine: control groups of both versions, nested and seen from namespaces."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from penstock.engine.machine import resources as machine
from penstock.engine.machine.cgroups import cpu_quota, memory_left, memory_limit
from penstock.errors import ConfigError

MIB, GIB = 2**20, 2**30

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
CPU = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:7 - cgroup cgroup rw,cpu,cpuacct"
MEMORY = "36 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"


def tree(root: Path, group: str, mounts: str, files: Mapping[str, str]) -> Path:
    """A root with this ``/proc/self/cgroup``, this ``/proc/self/mountinfo``, and files below ``/sys/fs/cgroup``."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group + "\n")
    (root / "proc/self/mountinfo").write_text(f"22 27 0:21 / /proc rw - proc proc rw\n{mounts}\n")
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("group", "mounts", "files", "quota", "limit"),
    [
        pytest.param("0::/", V2, {}, None, None, id="no limit"),
        pytest.param("0::/", V2, {"cpu.max": "max 100000", "memory.max": "max"}, None, None, id="max"),
        pytest.param(
            "0::/", V2, {"cpu.max": "150000 100000", "memory.max": str(GIB)}, 1.5, GIB, id="container, own namespace"
        ),
        pytest.param(
            "0::/user.slice/job.scope",
            V2,
            {"user.slice/cpu.max": "200000 100000", "user.slice/job.scope/cpu.max": "max 100000"},
            2.0,
            None,
            id="a slice above limits",
        ),
        pytest.param(
            "0::/kubepods/pod7/main",
            V2,
            {
                "kubepods/memory.max": str(8 * GIB),
                "kubepods/pod7/memory.max": str(2 * GIB),
                "kubepods/pod7/main/memory.max": str(4 * GIB),
                "kubepods/cpu.max": "800000 100000",
                "kubepods/pod7/main/cpu.max": "50000 100000",
                "kubepods/pod8/cpu.max": "10000 100000",
            },
            0.5,
            2 * GIB,
            id="the tightest level counts, neighbours do not",
        ),
        pytest.param("0::/a", V2, {"a/memory.high": str(GIB), "a/memory.max": str(2 * GIB)}, None, GIB, id="high"),
        pytest.param(
            "0::/../../slurm/job_3", V2, {"cpu.max": "400000 100000"}, 4.0, None, id="outside of its own namespace"
        ),
        pytest.param(
            "0::/docker/abc",
            V2.replace(" / /sys", " /docker/abc /sys"),
            {"cpu.max": "100000 50000", "memory.max": str(GIB)},
            2.0,
            GIB,
            id="a part is mounted, no namespace",
        ),
        pytest.param(
            "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n0::/docker/abc",
            "\n".join(line.replace(" / /sys", " /docker/abc /sys") for line in (CPU, MEMORY, UNIFIED)),
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "200000",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": str(MIB),
            },
            2.0,
            MIB,
            id="version 1, docker",
        ),
        pytest.param(
            "4:cpu,cpuacct:/slurm/job/step\n3:memory:/slurm/job\n1:name=systemd:/",
            f"{CPU}\n{MEMORY}",
            {
                "cpu,cpuacct/slurm/job/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/slurm/job/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/slurm/job/step/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/slurm/job/step/cpu.cfs_period_us": "100000",
                "memory/slurm/memory.limit_in_bytes": str(4 * GIB),
                "memory/slurm/job/memory.limit_in_bytes": "9223372036854771712",
            },
            3.0,
            4 * GIB,
            id="version 1, nested",
        ),
        pytest.param(
            "0::/a b",
            V2.replace("/sys/fs/cgroup", r"/sys/fs/cgroup/with\040blank"),
            {"with blank/a b/cpu.max": "700000 100000"},
            7.0,
            None,
            id="blanks in names",
        ),
        pytest.param(
            "0::/own",
            f"{V2.replace(' / /sys/fs/cgroup', ' /other /sys/fs/cgroup/elsewhere')}\n{V2}",
            {"elsewhere/cpu.max": "10000 100000", "own/cpu.max": "600000 100000"},
            6.0,
            None,
            id="another group's mount is not ours",
        ),
    ],
)
def test_limits_are_read_along_the_groups_of_the_process(
    tmp_path: Path, group: str, mounts: str, files: dict[str, str], quota: float | None, limit: int | None
) -> None:
    """Each level up to the top, of both versions, as a container or a batch system sets them."""
    root = tree(tmp_path, group, mounts, files)
    assert cpu_quota(root) == quota
    assert memory_limit(root) == limit


def test_without_proc_there_is_no_limit(tmp_path: Path) -> None:
    """Nothing is known, nothing fails."""
    assert (cpu_quota(tmp_path), memory_limit(tmp_path), memory_left(tmp_path)) == (None, None, None)


@pytest.mark.parametrize(
    ("group", "mounts", "folder", "limit", "used", "idle"),
    [
        ("0::/job", V2, "job", "memory.max", "memory.current", "inactive_file"),
        (
            "3:memory:/job",
            MEMORY,
            "memory/job",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)
def test_what_a_container_has_in_use_cannot_be_had(
    tmp_path: Path, group: str, mounts: str, folder: str, limit: str, used: str, idle: str
) -> None:
    """But for file pages, which the kernel gives back."""
    files = {
        f"{folder}/{limit}": str(100 * MIB),
        f"{folder}/{used}": str(90 * MIB),
        f"{folder}/memory.stat": f"anon 5\n{idle} {30 * MIB}\nother 7",
    }
    root = tree(tmp_path, group, mounts, files)
    assert machine.memory_available(root) == 40 * MIB
    assert machine.memory_total(root) == 100 * MIB


def test_what_a_neighbour_has_taken_of_a_common_limit_cannot_be_had_either(tmp_path: Path) -> None:
    """The level with the least left counts, which need not be the one with the least limit."""
    files = {
        "pod/memory.max": str(1000 * MIB),
        "pod/memory.current": str(990 * MIB),
        "pod/main/memory.max": str(500 * MIB),
        "pod/main/memory.current": str(100 * MIB),
    }
    assert memory_left(tree(tmp_path, "0::/pod/main", V2, files)) == 10 * MIB


@pytest.mark.parametrize(
    ("cores", "quota", "said", "usable", "why"),
    [
        (64, "max 100000", None, 64, "affinity"),
        (64, "200000 100000", None, 2, "cgroup quota"),
        (64, "150000 100000", None, 2, "cgroup quota"),
        (64, "10000 100000", None, 1, "cgroup quota"),
        (64, "800000 100000", "3", 3, "PENSTOCK_CORES"),
        (4, "800000 100000", "", 4, "affinity"),
        (4, "max 100000", " 64 ", 4, "affinity"),
    ],
)
def test_the_least_of_what_is_said_of_cores_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, quota: str, said: str | None, usable: int, why: str
) -> None:
    """Affinity, quota rounded up, the variable."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.delenv("PENSTOCK_CORES", raising=False)
    if said is not None:
        monkeypatch.setenv("PENSTOCK_CORES", said)
    root = tree(tmp_path, "0::/", V2, {"cpu.max": quota})
    assert machine.usable_cores(root) == usable
    limits = machine.core_limits(root)
    assert limits[why] == usable
    for machine_has, limited in ((usable + 1, why), (usable, "")):
        monkeypatch.setattr(os, "cpu_count", lambda count=machine_has: count)
        assert machine.limited_by(root) == limited


@pytest.mark.parametrize("said", ["0", "-1", "two", "1.5"])
def test_a_number_of_cores_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """With the variable's name."""
    monkeypatch.setenv("PENSTOCK_CORES", said)
    with pytest.raises(ConfigError, match="PENSTOCK_CORES"):
        machine.usable_cores()


def test_nothing_else_counts_cores() -> None:
    """Whoever needs a number of cores asks the one place that knows containers."""
    root = Path(machine.__file__).parents[2]
    counting = {
        str(path.relative_to(root))
        for floor in ("engine", "preprocess", "shm", "sinks", "bench")
        for path in (root / floor).rglob("*.py")
        if "len(os.sched_getaffinity" in path.read_text() or "os.cpu_count()" in path.read_text()
    }
    assert counting == {"engine/machine/resources.py"}
