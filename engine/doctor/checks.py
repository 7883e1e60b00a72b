"""The single looks of ``penstock doctor``."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ...errors import SharedMemoryFullError
from ...formatting import plural, size
from ...registry import Registry
from ..config.model import ServiceConfig
from ..machine.resources import (
    SHARED_MEMORY,
    limited_by,
    machine_cores,
    memory_available,
    memory_limit,
    shared_memory_room,
    usable_cores,
)
from .findings import Finding, Status

EXTRAS: Final = {
    "jpeg": ("simplejpeg", "--decoder simplejpeg, about 15 % faster for JPEG"),
    "onnx": ("onnxruntime", "--embedder onnx:FILE.onnx"),
    "triton": ("tritonclient", "--embedder triton+grpc://..."),
    "report": ("matplotlib", "--report FILE.html"),
    "objects": ("obstore", "sources and data sets in s3://, gs://, az://"),
    "s3": ("boto3", "profiles and single sign-on of AWS, keys such as a//b, publishing Parquet to s3://"),
    "parquet": ("pyarrow", "parquet: as source and destination, arrow:, npy:"),
    "lance": ("pylance", "lance: as source and destination"),
    "videos": ("av", "penstock videos"),
    "yt-dlp": ("yt-dlp", "videos behind pages of the web"),
    "volumes": ("opencv-python-headless", "a faster dewarping of scanned pages"),
}
"""Extra -> module it brings, and what it is for."""

_PROXIES: Final = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})

_JAX_PROBE: Final = "import jax, json; print(json.dumps([jax.__version__, [str(d) for d in jax.devices()]]))"


def cores() -> Finding:
    """Cores, as affinity, container and environment allow."""
    usable, why = usable_cores(), limited_by()
    what = f"{usable}{f' of {machine_cores()} ({why})' if why else ''}"
    if usable == 1:
        return Finding("cores", "warn", what, "preprocessing grows with cores: use a machine with more")
    return Finding("cores", "ok", f"{what}, one worker process for each")


def memory() -> Finding:
    """Memory, as the container allows, against what the default job takes at most."""
    from ..jobs.common.autosize import fit_to_memory
    from ..jobs.common.plan import make_plan

    limit, available = memory_limit(), memory_available()
    config = ServiceConfig(to="photos.db")
    _, most = fit_to_memory(make_plan(config), config, room=shared_memory_room())
    what = f"{size(available)} to be had{' (the container allows no more)' if available == limit else ''}"
    text = f"{what}; the default job takes {most.brief()} (--memory makes it less)"
    if available < most.total:
        return Finding("memory", "warn", text, "--memory 75%, or lower --max-pixels or --max-file-bytes")
    return Finding("memory", "ok", text)


def shared_memory(directory: str = SHARED_MEMORY) -> Finding:
    """Room for the rings of the default job, and of one at 224 pixels of float32: the largest of the usual ones."""
    name = "shared memory"
    if not Path(directory).is_dir():
        return Finding(name, "fail", f"there is no {directory}", "mount a tmpfs there")
    if not os.access(directory, os.W_OK):
        return Finding(name, "fail", f"{directory} is not writable for this user", "chmod 1777 it")
    room = shared_memory_room(directory)
    default, clip = (_rings(room, preset) for preset in (None, "clip"))
    what = f"{size(room)} free in {directory}; the default job {default.said}, with --preset clip it {clip.said}"
    advice = next((rings.advice for rings in (default, clip) if rings.advice), "")
    less: Status = "warn" if advice else "ok"
    return Finding(name, "fail" if default.status == "fail" else less, what, advice)


@dataclass(frozen=True, slots=True)
class _Rings:
    """What a job does about shared memory: whether it can run (`Finding.status`), in words, and what to change."""

    status: Status
    said: str
    advice: str = ""


def _rings(room: int, preset: str | None) -> _Rings:
    from ..jobs.common.autosize import fit_to_memory
    from ..jobs.common.largest import roomier
    from ..jobs.common.memory_estimate import estimate_memory
    from ..jobs.common.plan import make_plan

    config = ServiceConfig(to="photos.db", preset=preset)
    plan = make_plan(config)
    wanted = estimate_memory(plan, config).rings
    try:
        _, job = fit_to_memory(plan, config, room=room)
    except SharedMemoryFullError:
        return _Rings("fail", f"needs {size(wanted)}", f"{roomier(wanted)}, or lower --workers or --image-size")
    if job.cramped:
        less = f"takes {size(job.rings)} instead of {size(wanted)} ({', '.join(job.lowered)})"
        return _Rings("warn", less, f"{roomier(wanted)} gives it more")
    return _Rings("ok", f"takes {size(wanted)}")


def processes() -> Finding:
    """Whether the end of a process can be seen, which all recovery needs."""
    try:
        pidfd = os.pidfd_open(os.getpid())
    except OSError as error:
        what = f"pidfd_open does not work here ({error})"
        return Finding("processes", "fail", what, "Linux 5.3 or later; gVisor and old seccomp profiles do not allow it")
    os.close(pidfd)
    return Finding("processes", "ok", "their end is seen (pidfd)")


def orphaned_segments() -> Finding:
    """What dead owners left in shared memory."""
    from ...shm import orphans

    found = orphans()
    if not found:
        return Finding("orphans", "ok", "no segment of a dead job")
    held = size(sum(orphan.nbytes for orphan in found))
    return Finding(
        "orphans", "warn", f"{plural(len(found), 'segment')} of dead jobs hold {held}", "the next job removes them"
    )


def jax() -> Finding:
    """Whether JAX imports and starts. In a process of its own: a broken build may crash."""
    probe = subprocess.run([sys.executable, "-c", _JAX_PROBE], capture_output=True, text=True, timeout=120, check=False)
    if probe.returncode:
        last = (probe.stderr.strip().splitlines() or [f"it ended with status {probe.returncode}"])[-1]
        return Finding("JAX", "fail", last[:300], "reinstall it: pip install --force-reinstall jax jaxlib")
    number, devices = json.loads(probe.stdout.strip().splitlines()[-1])
    return Finding("JAX", "ok", f"{number}, devices: {', '.join(devices)}")


def pillow() -> Finding:
    """Pillow, and the codecs of the formats that are decoded."""
    from PIL import __version__ as number
    from PIL import features

    codecs = {"jpg": "JPEG", "zlib": "PNG", "webp": "WEBP", "libtiff": "TIFF", "littlecms2": "colour profiles"}
    missing = [name for codec, name in codecs.items() if not features.check(codec)]
    if missing:
        advice = "these pictures would all be dead letters: pip install --force-reinstall pillow (its wheels have them)"
        return Finding("Pillow", "warn", f"{number}, without {', '.join(missing)}", advice)
    turbo = f", libjpeg-turbo {features.version('libjpeg_turbo')}" if features.check("libjpeg_turbo") else ""
    return Finding("Pillow", "ok", f"{number}{turbo}")


def gevent() -> Finding:
    """The engine's hub."""
    return _imports("gevent", "gevent", "the engine runs on it")


def milvus_lite() -> Finding:
    """The store in a file."""
    return _imports("Milvus Lite", "milvus_lite", "--to FILE.db needs it; a Milvus server (--to http://...) does not")


def cache() -> Finding:
    """Where compiled kernels are kept between runs."""
    from ...preprocess.worker.jax_runtime import compilation_cache

    folder = compilation_cache()
    if folder is not None:
        return Finding("cache", "ok", f"{folder} can be written")
    advice = (
        "set XDG_CACHE_HOME to a folder of your own that others cannot write to: without it each start compiles anew"
    )
    return Finding("cache", "warn", "there is no safe place for compiled kernels", advice)


def sandbox() -> Finding:
    """Whether workers can be confined here (--sandbox)."""
    from ...preprocess.sandbox.sandbox import lacking, means

    found, less = means(), lacking()
    advice = f"without {' and '.join(less)}" if less else ""
    if not found:
        return Finding("sandbox", "warn", "--sandbox cannot be had here", advice)
    # A part is enough for the job to run with --sandbox, and it is worth knowing which.
    return Finding("sandbox", "warn" if less else "ok", f"--sandbox confines workers by {', '.join(found)}", advice)


def proxies() -> Finding:
    """Proxies of the environment, by which stores and servers are reached, and pictures of the web are not."""
    found = sorted({name.upper() for name in os.environ if name.upper() in _PROXIES and os.environ[name]})
    what = f"{', '.join(found)}: object stores are reached through it; http(s) URLs of pictures are not"
    return Finding("proxy", "ok", what if found else "none")


def optional(extra: str) -> Finding:
    """An extra that may be installed."""
    module, purpose = EXTRAS[extra]
    name = f"extra [{extra}]"
    try:
        return Finding(name, "ok", f"{module} {version(module)}")
    except PackageNotFoundError:
        return Finding(name, "ok", f"not installed; for {purpose}: pip install 'penstock[{extra}]'")


def plugins(registry: Registry[Any]) -> Finding:
    """What can be asked for of one kind: built in, and brought by installed packages, which are not imported."""
    name, found = registry.group.removeprefix("penstock."), registry.plugins()
    ready = [f"{plugin.scheme} ({plugin.package})" for plugin in found if plugin.state == "ready"]
    what = f"{', '.join(sorted(registry.built_in))}; installed: {', '.join(ready) or 'none'}"
    useless = {
        f"{plugin.package} brings {plugin.scheme!r}, which"
        f" {'is built in' if plugin.state == 'hidden' else 'others bring, too'}"
        for plugin in found
        if plugin.state != "ready"
    }
    if useless:
        return Finding(name, "warn", f"{what}; not to be used: {'; '.join(sorted(useless))}", "uninstall it")
    return Finding(name, "ok", what)


def triton(url: str | None) -> Finding:
    """A Triton server, where one is asked about."""
    if url is None:
        return Finding("Triton", "ok", "not asked; --triton http://host:8000 does")
    try:
        host, status = _health(url if "://" in url else f"http://{url}")
    except (OSError, ValueError, http.client.HTTPException) as error:
        advice = "is it running, and is this the address of its HTTP port (8000 by default)?"
        return Finding("Triton", "fail", f"it does not answer: {error}", advice)
    if status != 200:
        advice = "wait until its models are loaded"
        return Finding("Triton", "fail", f"{host} is not ready (status {status})", advice)
    return Finding("Triton", "ok", f"{host} is ready")


def _health(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("no host is named")
    make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = make(parts.hostname, parts.port or 8000, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return parts.hostname, connection.getresponse().status
    finally:
        connection.close()


def _imports(name: str, module: str, purpose: str) -> Finding:
    try:
        import_module(module)
    except Exception as error:  # noqa: BLE001  (a broken binary raises whatever it likes)
        advice = f"{purpose}: pip install --force-reinstall {module.replace('_', '-')}"
        return Finding(name, "fail", f"cannot be imported: {type(error).__name__}: {error}", advice)
    return Finding(name, "ok", version(module.replace("_", "-")))
