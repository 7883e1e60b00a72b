"""Process settings of workers: one thread, a private compilation cache, no backend where only imports happen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.preprocess.worker.jax_runtime import compilation_cache, worker_environment
from penstock.tests.waiting import DEADLINE

PATHS = f"import sys; sys.path[:0] = {[str(p) for p in sys.path if p]!r}\n"


def python(code: str, **env: str) -> str:
    """What a fresh process prints."""
    command = [sys.executable, "-W", "error", "-c", PATHS + code]
    done = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache root."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_cache_is_private_and_under_xdg(cache: Path) -> None:
    """The folder is made under XDG_CACHE_HOME and closed to others: it holds native code."""
    folder = compilation_cache()
    assert folder is not None
    assert folder.is_relative_to(cache / "penstock")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert compilation_cache() == folder


def test_cache_that_others_may_write_is_not_trusted(cache: Path) -> None:
    """A folder open to others could hold somebody else's code."""
    folder = compilation_cache()
    assert folder is not None
    folder.chmod(0o777)
    assert compilation_cache() is None


def test_cache_that_is_a_link_is_not_trusted(cache: Path, tmp_path: Path) -> None:
    """A link leads to a place that was not looked at."""
    folder = compilation_cache()
    assert folder is not None
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    assert compilation_cache() is None


def test_cache_that_cannot_be_made_is_gone_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work goes on without a cache."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compilation_cache() is None


def test_relative_cache_home_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The XDG specification says so; a cache must not land in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    folder = compilation_cache()
    assert folder is not None
    assert folder.is_relative_to(tmp_path / "home" / ".cache")


def test_worker_has_one_thread_for_blas_and_xla() -> None:
    """The variables that were measured to matter are there."""
    assert worker_environment()["NPROC"] == "1"
    assert worker_environment()["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.slow
def test_preparing_starts_no_backend(cache: Path) -> None:
    """A forkserver may preload every module here: no JAX backend is started by import or by preparing."""
    code = """
import threading
import penstock.preprocess.kernel.kernel, penstock.preprocess.worker.preprocessor
import penstock.preprocess.worker.jax_runtime as runtime
runtime.prepare_jax()
from jax._src import xla_bridge
print(len(xla_bridge._backends), threading.active_count())
"""
    assert python(code, **worker_environment()) == "0 1"


@pytest.mark.slow
def test_specification_imports_no_jax() -> None:
    """Who only declares a job does not pay for JAX."""
    code = "import penstock.preprocess.presets as p; p.preset('clip').pixel_shape(); print('jax' in sys.modules)"
    assert python(code) == "False"


@pytest.mark.slow
def test_cached_kernel_gives_the_same_pixels(cache: Path) -> None:
    """A worker with the cache warm, one with it cold, and this library in a free process agree to the bit."""
    code = """
import hashlib, os
import numpy as np
from penstock.preprocess.worker.jax_runtime import prepare_jax
if "NPROC" in os.environ:
    prepare_jax()
from penstock.preprocess.worker.preprocessor import Preprocessor
from penstock.preprocess.presets import preset
p = Preprocessor(preset("clip", size=64), 2)
p.load(1, np.random.default_rng(0).integers(0, 256, (77, 101, 3), dtype=np.uint8))
out = np.empty((1, 3, 64, 64), np.float32)
p.run(out, [1])
print(hashlib.sha256(out.tobytes()).hexdigest())
"""
    cold = python(code, **worker_environment())
    entries = [path.name for path in cache.rglob("*-cache")]
    assert any("batch" in name for name in entries)
    assert python(code, **worker_environment()) == cold
    assert python(code) == cold
