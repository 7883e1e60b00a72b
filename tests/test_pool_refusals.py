"""What workers cannot do is said in a line before any work begins, not by their tracebacks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from penstock import ConfigError, StreamingMultiprocessPreprocessor
from penstock.engine.cli import main
from penstock.preprocess import PreprocessSpec
from penstock.shm.protocol import REFUSED, decode_layout, encode_json
from penstock.tests.waiting import DEADLINE
from penstock.tests.whole_jobs import draw_folder, penstock

SPEC = PreprocessSpec(size=32, resize=32)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_folder(tmp_path / "pictures", 2)


@pytest.fixture
def _no_simplejpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.preprocess.decode.jpeg._simplejpeg", lambda: None)


@pytest.mark.usefixtures("_no_simplejpeg")
def test_a_decoder_that_is_not_installed_is_refused_at_once(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the line that installs it; no worker is started, no job begun."""
    job = tmp_path / "job"
    assert (
        main(["embed", str(pictures), "--to", f"bulk:{tmp_path / 'b'}", "--job", str(job), "--decoder", "simplejpeg"])
        == 2
    )
    errors = capsys.readouterr().err
    assert "pip install 'penstock[jpeg]'" in errors
    assert "Traceback" not in errors
    assert not job.exists()
    with pytest.raises(ConfigError, match=r"penstock\[jpeg\]"):
        StreamingMultiprocessPreprocessor(spec=SPEC.replace(decoder="simplejpeg"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "device", "says"),
    [
        ({"JAX_PLATFORMS": "cpu"}, "0", "accelerator 0 is not there: JAX sees the CPU only"),
        ({"CUDA_VISIBLE_DEVICES": "3,5"}, "7", "accelerator 7 is not there: CUDA_VISIBLE_DEVICES='3,5' shows 2"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "0", "accelerator 0 is not there: CUDA_VISIBLE_DEVICES='' shows 0"),
    ],
)
def test_devices_that_are_not_there_are_refused(
    environment: dict[str, str], device: str, says: str, pictures: Path, tmp_path: Path
) -> None:
    """Rather than work on the CPU without a word. A worker has looked; this process has no backend."""
    command = penstock("embed", str(pictures), "--to", f"bulk:{tmp_path / 'b'}", "--workers", "2", "--devices", device)
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "b").glob("*.parquet"))


def test_a_refusal_is_an_error_of_the_configuration() -> None:
    """Whatever the worker says, it is text."""
    with pytest.raises(ConfigError, match="devices: none"):
        decode_layout(encode_json(REFUSED, "devices: none"))
    with pytest.raises(ConfigError, match="7"):
        decode_layout(encode_json(REFUSED, [7]))
