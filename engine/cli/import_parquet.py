"""``penstock import``: a folder of Parquet files into a Milvus server, which reads them itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from ...errors import ConfigError
from ...formatting import count, duration, plural
from .exit_status import OK, complain, say
from .help import GroupedCommand
from .options import configured, setting_options

if TYPE_CHECKING:
    from ...sinks import ImportProgress

_EXAMPLES = """\b
Examples:
  penstock embed ~/Pictures --to bulk:parts --field year:int64
  penstock import parts --to http://localhost:19530
  penstock import parts --to http://milvus:19530 --server-path bulk/parts --overwrite

\b
The server reads the files itself: from its own disk where that is its storage, or from its
bucket. Copy the folder there first, and say with --server-path what it is called there.

\b
Exit status: 0 every row is there and indexed, 1 the import failed, 2 wrong usage."""

_FIELDS = ("collection", "mode", "partition", "metric", "index", "index_params", "token", "retry_for")


@click.command(
    "import", cls=GroupedCommand, epilog=_EXAMPLES, short_help="Load what embed --to bulk:DIR wrote into Milvus."
)
@click.argument("folder", metavar="DIR")
@click.option("--to", required=True, metavar="URI", help="The Milvus server, as http://host:19530.")
@click.option("--server-path", metavar="PATH", help="DIR as the server knows it. [default: its absolute path here]")
@click.option(
    "--timeout",
    default=3600.0,
    show_default=True,
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="For all of it.",
)
@setting_options(*_FIELDS)
def import_(folder: str, to: str, server_path: str | None, timeout: float, **options: Any) -> int:
    """Load a bulk folder into a Milvus server, and wait until every row is there and indexed.

    DIR was made by 'penstock embed ... --to bulk:DIR'. Bulk import is the fast way into an empty collection: it does
    not look at keys, so a collection that has rows is refused, unless --overwrite empties it.
    """
    config = configured(None, {**options, "to": to})
    if "://" not in to:
        raise ConfigError(f"--to: {config.shown_to!r} is no server; Milvus Lite has no bulk import")
    from ...sinks import bulk_import

    begin = time.monotonic()
    with config.spelled():
        done = bulk_import(
            folder,
            to,
            collection=config.collection if "collection" in config.model_fields_set else None,
            token=config.token.get_secret_value() if config.token else None,
            mode=config.mode,
            partition=config.partition,
            metric=config.metric,
            index=config.index,
            index_params=config.index_params,
            server_path=server_path,
            timeout=timeout,
            on_progress=_Teller(),
        )
    seconds = time.monotonic() - begin
    say(
        f"{plural(done.rows, 'row')} from {plural(done.parts_done, 'part')} imported and indexed in {duration(seconds)}"
    )
    return OK


class _Teller:
    """A line on standard error for whatever has changed, at most one a second."""

    def __init__(self) -> None:
        self._last = ""
        self._due = 0.0

    def __call__(self, progress: ImportProgress) -> None:
        rows = f"{count(progress.rows_visible)} of {plural(progress.rows, 'row')}"
        line = f"{plural(progress.parts_done, 'part')} loaded, {rows} there"
        if progress.index is not None:
            line += f", index covers {count(progress.index.indexed)}"
        if line != self._last and time.monotonic() >= self._due:
            self._last, self._due = line, time.monotonic() + 1.0
            complain(line)
