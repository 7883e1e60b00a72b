"""The benchmarks' harness: children, interleaving, what is missing, what breaks; and the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.bench.__main__ import BENCHMARKS, main
from penstock.bench.harness import Child, Options, Variant, rotated, run_rounds
from penstock.bench.pictures import make_set
from penstock.bench.result import Result, tabulate
from penstock.errors import ConfigError, WorkerDiedError, WorkerStartError


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Two small inputs."""
    return make_set("imagenet500", tmp_path, 2)


def test_each_variant_is_first_in_turn() -> None:
    """Whoever runs after a heavy neighbour does not always do so."""
    variants = [Variant(name, "chains:pillow") for name in "abc"]
    assert ["".join(v.name for v in rotated(variants, n)) for n in range(4)] == ["abc", "bca", "cab", "abc"]
    assert rotated([], 3) == []


@pytest.mark.parametrize("field", ["n", "rounds"])
def test_options_refuse_nothing_to_do(field: str, tmp_path: Path) -> None:
    """Zero pictures or rounds are refused by name."""
    settings = {"n": 1, "rounds": 1, field: 0}
    with pytest.raises(ConfigError, match=f"{field}=0"):
        Options(tmp_path, settings["n"], settings["rounds"])


@pytest.mark.slow
def test_every_round_gives_every_variant_a_figure(paths: list[str]) -> None:
    """One warm-up is thrown away, the measured rounds are kept, for processes that stay and for fresh ones alike."""
    variants = [
        Variant("stays", "chains:pillow", {"paths": paths}, one_core=True),
        Variant("fresh", "chains:pillow", {"paths": paths}, fresh=True),
    ]
    samples = run_rounds(variants, 2)
    rates = samples.of("rate")
    assert {name: len(values) for name, values in rates.items()} == {"stays": 2, "fresh": 2}
    assert all(rate > 0 for values in rates.values() for rate in values)
    assert samples.of("nothing") == {}


@pytest.mark.slow
def test_a_pinned_child_keeps_to_one_core(paths: list[str]) -> None:
    """The affinity is set before the variant is made."""
    with Child(Variant("pinned", "chains:pillow", {"paths": paths}, one_core=True)) as child:
        assert os.sched_getaffinity(child.pid) == {min(os.sched_getaffinity(0))}


@pytest.mark.slow
def test_a_missing_library_costs_its_variant_only(tmp_path: Path, paths: list[str]) -> None:
    """The others are measured, and the reason is kept."""
    (tmp_path / "simplejpeg.py").write_text("raise ModuleNotFoundError('gone', name='simplejpeg')\n")
    variants = [
        Variant("best", "chains:best", {"paths": paths}, env={"PYTHONPATH": str(tmp_path)}),
        Variant("pillow", "chains:pillow", {"paths": paths}),
    ]
    samples = run_rounds(variants, 1)
    assert samples.skipped == {"best": "simplejpeg is not installed"}
    assert list(samples.of("rate")) == ["pillow"]


@pytest.mark.slow
def test_a_variant_that_cannot_start_is_told_with_its_traceback(tmp_path: Path) -> None:
    """The child's own error is in the message, not just an exit status."""
    broken = Variant("broken", "chains:pillow", {"paths": [str(tmp_path / "none.jpg")]})
    with pytest.raises(WorkerStartError, match=r"(?s)'broken' failed:.*FileNotFoundError.*none\.jpg"):
        run_rounds([broken], 1)


@pytest.mark.slow
def test_a_variant_that_breaks_in_a_round_is_told(paths: list[str]) -> None:
    """A file that is no picture breaks the chain, not the harness."""
    Path(paths[0]).write_bytes(b"no picture")
    with pytest.raises(WorkerDiedError, match=r"(?s)'broken' failed:.*UnidentifiedImageError"):
        run_rounds([Variant("broken", "chains:pillow", {"paths": paths})], 1)


@pytest.mark.slow
def test_a_killed_child_is_told_and_leaves_no_process(paths: list[str]) -> None:
    """Death is an end of file, not a hang."""
    with Child(Variant("killed", "chains:pillow", {"paths": paths})) as child:
        os.kill(child.pid, 9)
        with pytest.raises(WorkerDiedError, match="'killed' died with status -9"):
            child.measure()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_help_teaches_every_benchmark() -> None:
    """Names, what each compares, and examples."""
    said = CliRunner().invoke(main, ["--help"]).output
    assert all(f"  {name} " in said for name in BENCHMARKS)
    assert "python -m penstock.bench chain" in said


@pytest.mark.parametrize("arguments", [["nonsense"], ["chain", "--n", "0"], ["chain", "--rounds", "x"], []])
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    """As for any command line."""
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_the_table_is_printed_and_every_figure_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text for people on standard output, JSON in the file."""
    asked: list[Options] = []

    def run(name: str, options: Options) -> Result:
        asked.append(options)
        return Result(name, (tabulate("speed", "pictures/s", {"a": [1.0, 2.0]}),))

    monkeypatch.setattr("penstock.bench.__main__.run", run)
    file = tmp_path / "out.json"
    data = tmp_path / "data"
    outcome = CliRunner().invoke(main, ["chain", "--n", "8", "--rounds", "2", "--json", str(file), "--data", str(data)])
    assert outcome.exit_code == 0, outcome.output
    assert "speed" in outcome.output
    assert json.loads(file.read_text())["tables"][0]["rows"][0]["values"] == [1.0, 2.0]
    assert asked == [Options(data, 8, 2)]


def test_a_benchmark_that_breaks_is_status_1_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message, not a traceback; and the temporary pictures are gone."""
    folders: list[Path] = []

    def run(name: str, options: Options) -> Result:
        folders.append(options.data)
        raise WorkerDiedError("variant 'x' died")

    monkeypatch.setattr("penstock.bench.__main__.run", run)
    outcome = CliRunner().invoke(main, ["chain"])
    assert outcome.exit_code == 1
    assert "variant 'x' died" in outcome.output
    assert not folders[0].exists()
