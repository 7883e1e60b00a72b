"""``penstock serve-demo``: a real Triton server to try things with."""

from __future__ import annotations

import shlex
import signal
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click

from ...errors import ConfigError
from ...formatting import printable
from .exit_status import FAILED, OK, complain, say

_EXAMPLES = """\b
Examples:
  penstock serve-demo
  penstock serve-demo --onnx clip.onnx --port 0
  penstock serve-demo --models ~/triton-models

\b
Then, in another terminal:
  penstock embed ~/Pictures --to photos.db --embedder triton+http://127.0.0.1:8000/gist

\b
Exit status: 0 ended by Ctrl-C once it served, 130 before, 1 the server ended or cannot run here, 2 wrong usage."""

_LOOK_SECONDS = 0.5


@click.command("serve-demo", epilog=_EXAMPLES, short_help="Serve models with a real Triton, on this machine.")
@click.option("--onnx", metavar="FILE.onnx", help="Also serve this model, as 'onnx'.")
@click.option("--models", metavar="FOLDER", help="Also serve the models of this Triton model repository.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="For HTTP; 0 for a free one."
)
def serve_demo(onnx: str | None, models: str | None, port: int) -> int:
    """Serve models with a real Triton on this machine, until Ctrl-C.

    It serves penstock's own GIST as 'gist', on the CPU and to this machine only: to see how penstock embeds through a
    server that reads the pixels from shared memory, without docker or a GPU. The first time it installs Triton into a
    cache folder ($PENSTOCK_SERVERS, by default ~/.cache/penstock/servers), which takes about a minute and 830 MB.
    """
    from ..servers import TritonServer, triton_venv
    from ..servers.models import add_gist, add_onnx

    repositories = [] if models is None else [_existing(models)]
    with tempfile.TemporaryDirectory(prefix="penstock-models-") as folder, _sigterm_as_sigint():
        own = Path(folder)
        add_gist(own)
        if onnx is not None:
            add_onnx(own, Path(onnx).expanduser())
        triton_venv(complain)
        complain("starting Triton")
        with TritonServer(own, *repositories, http_port=port) as server:
            served = sorted(entry.name for repository in (own, *repositories) for entry in repository.glob("[!.]*/"))
            try:
                for model in served:
                    say(f"serving  triton+http://{server.http}/{printable(model)}")
                say(f"now, in another terminal:\n  {_next_command(server.http)}\nCtrl-C ends it")
                while server.alive():
                    time.sleep(_LOOK_SECONDS)
            except KeyboardInterrupt:
                return OK
            complain(f"Triton has ended by itself:\n{server.log.read_text(errors='replace')[-2000:]}")
    return FAILED


def _existing(folder: str) -> Path:
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ConfigError(f"--models: there is no folder {folder!r}")
    if not any(path.glob("[!.]*/*/")):
        raise ConfigError(
            f"--models: there is no model in {folder!r}; a Triton model repository has a folder for each model, and in"
            f" it one for each version: {folder}/NAME/1/model.onnx"
        )
    return path


def _next_command(address: str) -> str:
    pictures = "examples/photos" if Path("examples/photos").is_dir() else "PICTURES"
    return shlex.join(
        ["penstock", "embed", pictures, "--to", "photos.db", "--embedder", f"triton+http://{address}/gist"]
    )


@contextmanager
def _sigterm_as_sigint() -> Generator[None]:
    """Both raise KeyboardInterrupt, also where a shell had SIGINT ignored: whatever is going on then cleans up."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
