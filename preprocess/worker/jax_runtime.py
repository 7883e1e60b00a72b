"""Settings of a whole process that preprocesses: worth more than any tweak of the kernel, and never made in the parent.

Set `worker_environment` before the process starts, and call `prepare_jax` before JAX's backend starts. In a process
that is the user's, `on_cpu` is all there is.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import stat
import sys
import threading
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final, cast

from ...errors import ConfigError

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def worker_environment() -> dict[str, str]:
    """Variables a worker needs before it imports numpy or JAX.

    `NPROC` is what makes XLA's CPU client one-threaded (jax 0.10; `--xla_cpu_multi_thread_eigen=false` does nothing):
    with as many workers as cores its thread pools cost 12-14 %. The others do the same for numpy's BLAS; the client of
    object stores would have a thread for each core in each worker. The secret of the store that vectors go to is none
    of a worker's business: strangers' bytes are decoded there.
    """
    one_thread = {"NPROC": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return {**one_thread, "TOKIO_WORKER_THREADS": "2", "MILVUS_TOKEN": ""}


def prepare_jax(device: int | None = None) -> None:
    """Set up this process for preprocessing. Once, before the first JAX array; imports JAX, starts no backend.

    Args:
        device: The accelerator this process owns, counted among those it can see. None: the CPU, whatever there is.

    Raises:
        ConfigError: `CUDA_VISIBLE_DEVICES` shows fewer accelerators.
    """
    _keep_memory()
    # A million files would warn of a million broken metadata.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if device is not None:
        _own_device(device)
    import jax

    config: Any = jax.config  # untyped
    if device is None:
        config.update("jax_platforms", "cpu")
    # A canvas refilled while a call is still in flight would be a race: the kernel reads it in place.
    config.update("jax_cpu_enable_async_dispatch", False)
    use_compilation_cache()


def use_compilation_cache() -> None:
    """Keep compiled programs on disk, and find those of earlier processes. For a process of our own; imports JAX."""
    import jax

    config: Any = jax.config
    if (folder := compilation_cache()) is not None:
        config.update("jax_compilation_cache_dir", str(folder))
        config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        config.update("jax_persistent_cache_min_entry_size_bytes", 0)


class _Host:
    """How this process, which is the user's, runs our kernels: decided once, before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.decided = False
        self.device: Any = None


_host = _Host()


def on_cpu() -> AbstractContextManager[Any]:
    """While the block runs this thread's JAX computes on the CPU. For our own work in a process that is the user's.

    Where nobody has imported JAX before, it is confined to the CPU for good, before a backend starts: no accelerator is
    touched, none of its memory taken, and compiled programs are kept and found as workers do. Where somebody has, JAX
    is theirs: nothing of its configuration is changed, only our own calls are sent to the CPU.
    """
    with _host.lock:
        if not _host.decided:
            _host.device = _share_jax()
            _host.decided = True
    if _host.device is None:
        return nullcontext()
    import jax

    return cast("AbstractContextManager[Any]", jax.default_device(_host.device))


def _share_jax() -> Any:
    """The device to send our calls to; None where JAX is ours alone, or what the user has allowed has no CPU."""
    theirs = "jax" in sys.modules
    import jax

    if theirs:
        try:
            return jax.devices("cpu")[0]
        except RuntimeError:  # JAX_PLATFORMS without it: the user's choice
            return None
    config: Any = jax.config
    if config.jax_platforms is None:
        config.update("jax_platforms", "cpu")
    if config.jax_compilation_cache_dir is None:
        use_compilation_cache()
    return None


def keep_no_more_kernels() -> None:
    """What is compiled from now on in this process is not written to the compilation cache; it is still read."""
    import jax

    config: Any = jax.config
    config.update("jax_persistent_cache_min_compile_time_secs", math.inf)


def check_device(device: int) -> None:
    """Make sure that this process has the accelerator it is to own. Starts JAX's backend: only in a worker.

    Raises:
        ConfigError: JAX has the CPU only, and would work there without a word.
    """
    import jax

    try:
        platforms = {found.platform for found in jax.devices()}
        why = "" if platforms - {"cpu"} else "JAX sees the CPU only"
    except RuntimeError as error:  # of a platform that JAX_PLATFORMS asks for, or of a driver
        why = str(error).splitlines()[0]
    if why:
        raise ConfigError(
            f"devices: accelerator {device} is not there: {why}. It needs a driver, a JAX made for it"
            " (pip install 'jax[cuda12]'), and a number below that of the accelerators; leave devices out for the CPU"
        )


def _own_device(device: int) -> None:
    # Of those visible: a scheduler may have hidden some, and then names the rest in its own way.
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = [name.strip() for name in (said or "").split(",") if name.strip()]
    if said is not None and device >= len(visible):
        raise ConfigError(
            f"devices: accelerator {device} is not there: CUDA_VISIBLE_DEVICES={said!r} shows {len(visible)}"
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[device] if visible else str(device)
    # The default of three quarters at the start leaves nothing for a second process on the same device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _keep_memory() -> None:
    """Let glibc keep freed batches: a result of 38 MB is otherwise faulted in again at every call."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(_M_MMAP_THRESHOLD, 2**30)
    mallopt(_M_TRIM_THRESHOLD, 2_000_000_000)


def compilation_cache() -> Path | None:
    """The folder where compiled kernels are kept, made if need be; None when it cannot be had or trusted.

    Under `XDG_CACHE_HOME`, by kind of CPU and version of JAX: an entry holds native code. For the same reason it must
    belong to this user and be closed to others. A warm cache makes a pool of two ready in 0.18 s instead of 1.3 s.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = root if root.is_absolute() else Path.home() / ".cache"
        folder = base / "penstock" / "jax" / _machine()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        return None
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return folder if private and os.access(folder, os.W_OK | os.X_OK) else None


def _machine() -> str:
    import jax

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        wanted = ("vendor_id", "cpu family", "model", "model name", "flags", "Features")
        cpu = "\n".join(sorted({line for line in lines if line.split("\t")[0].strip() in wanted}))
    except OSError:
        cpu = platform.processor() or platform.machine()  # the former runs a program
    return hashlib.blake2b(f"{cpu}\n{jax.__version__}".encode(), digest_size=8).hexdigest()
