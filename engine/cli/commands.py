"""The command line: ``penstock embed``, ``penstock search``, ``penstock doctor``.

Exit status: 0 everything is accounted for within the failure budget; 1 the job failed, or every item of it; 2 wrong
usage; 130 interrupted. Results go to standard output, progress and complaints to standard error.
"""

from __future__ import annotations

import gc
import json
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ... import __version__
from ...errors import ItemError, SourceError
from ...formatting import clock, printable
from ...registry import scheme_of
from .clean import clean
from .dedup import dedup
from .embed import run_and_tell
from .exit_status import OK, complain, run_command, say
from .help import GroupedCommand
from .import_parquet import import_
from .jobs import resume, retry
from .options import FIELDS, configured, setting_options
from .serve import serve_demo
from .sigusr1 import dumping
from .status import status
from .videos import videos
from .volumes import volumes

if TYPE_CHECKING:
    from ...sinks import Hit

_EXAMPLES = """\b
Examples:
  penstock embed ~/Pictures --to photos.db
  penstock search photos.db holiday.jpg --html matches.html
  penstock embed ~/Pictures --to photos.db --job photos-job && penstock status photos-job
  penstock doctor

'penstock COMMAND --help' tells more about each."""

_EMBED_EXAMPLES = """\b
Examples:
  penstock embed ~/Pictures --to photos.db
  penstock embed 'raw/**/*.jpg' more/ --to http://localhost:19530 --collection holidays
  penstock embed @list.txt --to photos.db --workers 4 --report report.html
  penstock embed data --include '*.jpg' --exclude thumbs/ --follow-links --to photos.db
  find . -name '*.png' -print0 | penstock embed - --null --to photos.db
  penstock embed ~/Pictures --to photos.db --embedder onnx:clip.onnx --preset clip
  penstock embed ~/Pictures --to photos.db --metadata albums.csv --field year:int64
  penstock embed ~/Pictures --to parquet:rows --job rows-job
  penstock embed ~/Pictures --to bulk:parts && penstock import parts --to http://localhost:19530
  penstock embed ~/Pictures --config job.yaml --max-failures 5% --progress json

\b
Exit status: 0 all is accounted for within the failure budget, 1 the job failed or all its items did,
2 wrong usage, 130 interrupted."""

_SEARCH_EXAMPLES = """\b
Examples:
  penstock search photos.db holiday.jpg
  penstock search photos.db holiday.jpg -k 50 --html matches.html
  penstock search http://localhost:19530 query.png --collection holidays
  penstock search parquet:s3://bucket/rows holiday.jpg

\b
IMAGE is embedded as the collection was, unless --embedder, --preset, --image-size or
--dtype say otherwise."""

_DOCTOR_EXAMPLES = """\b
Examples:
  penstock doctor
  penstock doctor --triton http://localhost:8000
  penstock doctor --json | jq '.[] | select(.status != "ok")'

Exit status: 0 the main job can run here (warnings allowed), 1 it cannot."""

_SEARCH_FIELDS = (
    "collection",
    "embedder",
    "preset",
    "image_size",
    "dtype",
    "decoder",
    "metric",
    "partition",
    "token",
    "anonymous",
    "instance_role",
    "retry_for",
    "max_pixels",
    "max_side",
    "background",
    "value_range",
)

_config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE.yaml",
    help="Settings from a file, one a line: batch_size: 64 for --batch-size 64, mode: overwrite for --overwrite, and"
    " a mapping fields: {year: int64} for --field. What is given on the line wins.",
)


class _Commands(click.Group):
    """Lists its commands in the order in which people meet them, which is that of their being added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        del ctx
        return list(self.commands)


@click.group(
    cls=_Commands, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="penstock")
@click.option("--debug", is_flag=True, help="Show tracebacks; anywhere on the line, or PENSTOCK_DEBUG=1.")
def cli(debug: bool) -> None:
    """Millions of pictures into a vector store, and back out by search."""
    del debug  # main takes it out itself: it is needed where errors end, outside of click


@cli.command(
    cls=GroupedCommand,
    epilog=_EMBED_EXAMPLES,
    short_help="Embed pictures and keep their vectors.",
    options_metavar="--to URI [OPTIONS]",
)
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("-0", "--null", is_flag=True, help="Paths in lists end with NUL (find -print0) instead of with the line.")
@_config_option
@setting_options(*FIELDS)
def embed(sources: tuple[str, ...], null: bool, config_file: str | None, **options: Any) -> int:
    """Embed pictures and keep their vectors.

    SOURCE is a folder (searched to its end), a file, a tar or a table of pictures (.tar, .parquet, .arrow, .lance), a
    glob of any of these in quotes, a URL (s3://bucket/folder, https://host/a.jpg), a text file of paths (@list.txt), -
    for a list of paths on standard input, or scheme:... for what a plugin reads (penstock doctor lists them). Every
    picture ends as a row or as a dead letter with a reason; what is none is counted.
    """
    from ..jobs.common.source_factory import make_source
    from ..observe.report_files import check_report_path

    config = configured(config_file, options)
    if config.to is None:
        raise click.UsageError("--to is missing: where do the vectors go? For example --to photos.db")
    with config.spelled():
        for path in config.report:
            check_report_path(path)
    try:
        source = make_source(config, sources, null=null)
    except SourceError as error:
        raise click.UsageError(printable(str(error))) from error

    return run_and_tell(config, source)


@cli.command(cls=GroupedCommand, epilog=_SEARCH_EXAMPLES, short_help="Find the pictures nearest to one.")
@click.argument("uri", metavar="URI")
@click.argument("image", metavar="IMAGE")
@click.option(
    "-k", default=10, show_default=True, type=click.IntRange(1, 16_384), metavar="N", help="How many neighbours."
)
@click.option("--html", metavar="FILE", help="Also write a contact sheet: one page with the pictures in it.")
@_config_option
@setting_options(*_SEARCH_FIELDS)
def search(uri: str, image: str, k: int, html: str | None, config_file: str | None, **options: Any) -> int:
    """The pictures nearest to IMAGE in the store at URI, nearest first, with their scores."""
    config = configured(config_file, {**options, "to": uri}, to="URI")
    with config.spelled():
        (store,) = config.stores
    config = store.config
    _check_image(image)
    if scheme_of(store.address) is None:
        _mode("URI", "store", store.address, "; penstock embed ... --to makes one")
    if html is not None:
        from ..observe.contact_sheet import check_sheet_path

        check_sheet_path(html)
    from ..workers.picture_server import warm_start

    try:
        with warm_start():  # imports JAX for the query while this process imports the rest
            from ...sinks.milvus.lite import starting

            with starting(store.address):
                from ..jobs.images.search import search_images

                hits = search_images(config, image, k)
    except ItemError as error:
        raise click.UsageError(f"IMAGE: {printable(str(error))}") from error
    for number, hit in enumerate(hits, 1):
        say(f"{number:>{len(str(len(hits)))}}  {hit.score:8.4f}  {printable(hit.path or hit.key)}{_time_of(hit)}")
    if not hits:
        complain(f"the collection {config.collection!r} holds no pictures")
    if html is not None:
        from ...durable import write_text
        from ..jobs.common.shown_frames import show_frames
        from ..jobs.common.source_factory import urls_of
        from ..observe.contact_sheet import contact_sheet

        where = f"{config.shown_to}, collection {config.collection}"
        write_text(
            html, contact_sheet(image, hits, where, config.metric, show_frames=show_frames, urls=urls_of(config))
        )
        say(f"contact sheet: {printable(html)}")
    return OK


def _time_of(hit: Hit) -> str:
    """Where in its video a frame is: ``  at 1:02:03.5``; nothing of a picture."""
    pts = hit.metadata.get("frame_pts_us")
    return f"  at {clock(pts / 1e6)}" if isinstance(pts, int) else ""


def _check_image(image: str) -> None:
    mode = _mode("IMAGE", "file", image)
    if stat.S_ISDIR(mode):
        raise click.UsageError(f"IMAGE: {printable(image)!r} is a folder: give one picture of it")
    if not stat.S_ISREG(mode):
        raise click.UsageError(f"IMAGE: {printable(image)!r} is no regular file: save the picture to one")


def _mode(argument: str, what: str, path: str, hint: str = "") -> int:
    """Mode bits of what an argument names; wrong usage where nothing is there, or it cannot be looked at."""
    try:
        return Path(path).stat().st_mode
    except FileNotFoundError:
        raise click.UsageError(f"{argument}: there is no {what} {printable(path)!r}{hint}") from None
    except OSError as error:
        raise click.UsageError(f"{argument}: {printable(path)!r} cannot be read: {error.strerror}") from error


@click.command(epilog=_DOCTOR_EXAMPLES, short_help="Check this machine, and what to change.")
@click.option("--triton", metavar="URL", help="Also ask this Triton server, e.g. http://localhost:8000.")
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def doctor(triton: str | None, as_json: bool) -> int:
    """Whether this machine is ready: cores, memory, shared memory, libraries, servers; and what to change."""
    from ..doctor.examine import examine
    from ..doctor.findings import findings_json, findings_text, is_ready

    findings = examine(triton)
    say(json.dumps(findings_json(findings), indent=2) if as_json else findings_text(findings))
    return OK if is_ready(findings) else 1


for _command in (status, resume, retry, videos, dedup, volumes, import_, clean, serve_demo, doctor):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in options or bool(os.environ.get("PENSTOCK_DEBUG"))
    given = [word for word in options if word != "--debug"] + given[len(options) :]
    with dumping():
        status = run_command(lambda: cli.main(given, prog_name="penstock", standalone_mode=False), debug)
    if arguments is None:
        gc.freeze()  # this process ends now: to look through all that was imported for garbage would take it 0.2 s
    return status
