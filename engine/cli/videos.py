"""``penstock videos``: frames of videos into a store, each with its time."""

from __future__ import annotations

from typing import Any

import click

from ...errors import SourceError
from ...formatting import printable
from ..config.videos import VideoConfig
from .embed import run_and_tell
from .help import GroupedCommand
from .options import FIELDS, configured_as, setting_options

_EXAMPLES = """\b
Examples:
  penstock videos ~/Videos --to photos.db
  penstock videos clips/*.mp4 --to parquet:out --every 5s
  penstock videos @list.txt --to parquet:out --every keyframes --job clips-job
  penstock videos ~/Videos --to parquet:out --every scenes
  penstock videos ~/Videos --to parquet:out --filter blur,black,flat,slide --dedup video
  penstock videos @urls.txt --to parquet:out --job clips-job --keep frames --max-disk 50GB
  penstock videos ~/Videos --to parquet:out --classes person,dog --detector onnx:yolo.onnx
  penstock resume clips-job

\b
A row for each frame, with its video (video_key), its time (frame_pts_us, in microseconds from
the start) and a vector. In the job's folder, or beside the place of the rows, there is a table
of the videos with what became of each (videos.parquet), and with --every scenes one of their
shots (clips.parquet); with --filter and --dedup also those of the frames that were left out
(filtered.parquet, duplicates.parquet).

\b
Exit status: 0 all is accounted for within the failure budget, 1 the job failed or all videos
did, 2 wrong usage, 130 interrupted."""

_NOT_THEIRS = frozenset({"decoder", "threads", "devices", "sandbox", "background", "value_range", "max_side"})
_DOWNLOADS = ("downloads", "downloader", "per_host", "politeness", "download_timeout", "cookies")
_FILES = ("keep", "work", "max_disk", *_DOWNLOADS)
_FRAMES = ("every", "filter", "thresholds", "classes", "detector", "dedup")
_OWN = (*_FRAMES, *_FILES, "video_timeout", "max_duration", "max_frames", "async_mode", "html")
_FIELDS = (*_OWN, *(field for field in FIELDS if field not in _NOT_THEIRS))


@click.command(
    cls=GroupedCommand,
    epilog=_EXAMPLES,
    short_help="Embed frames of videos and keep their vectors.",
    options_metavar="--to URI [OPTIONS]",
)
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("-0", "--null", is_flag=True, help="Paths in lists end with NUL (find -print0) instead of with the line.")
@click.option("--config", "config_file", metavar="FILE.yaml", help="Settings from a file; what is given here wins.")
@setting_options(*_FIELDS, model=VideoConfig)
def videos(sources: tuple[str, ...], null: bool, config_file: str | None, **options: Any) -> int:
    """Take frames of videos, embed them and keep their vectors.

    SOURCE is a folder (searched to its end), a video file, a glob in quotes, a text file of paths and URLs (@list.txt),
    - for such a list on standard input, a URL of a file or a page (https://), or one of a store (s3://bucket/folder).
    Every video ends with a row for each of its frames, or as a dead letter with a reason; what is no video is counted.
    """
    from ..jobs.common.source_factory import make_source
    from ..observe.report_files import check_report_path

    config = configured_as(VideoConfig, config_file, options)
    if config.to is None:
        raise click.UsageError("--to is missing: where do the vectors go? For example --to photos.db")
    with config.spelled():
        for path in config.report:
            check_report_path(path)
    if config.html is not None:
        from ..observe.contact_sheet import check_sheet_path

        check_sheet_path(config.html)
    try:
        source = make_source(config, sources, null=null)
    except SourceError as error:
        raise click.UsageError(printable(str(error))) from error
    return run_and_tell(config, source)
