"""``penstock volumes``: volumes of scanned pages into published data sets of Parquet."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import PipelineFailure, SourceError
from ...formatting import count, plural, printable, size
from ..config.volumes import PipelineConfig
from .exit_status import FAILED, INTERRUPTED, OK, complain, draining, say
from .help import GroupedCommand
from .options import configured_as, setting_options, spelled_as_options

if TYPE_CHECKING:
    from .. import Report
    from ..jobs.common.memory_estimate import MemoryEstimate
    from ..journal import Status

_EXAMPLES = """\b
Examples:
  penstock volumes 's3://bucket/vol_*/' --to parquet:s3://bucket/out
  penstock volumes scans/vol_1 scans/vol_2 --to parquet:out
  penstock volumes 's3://bucket/vol_*/' --to parquet:s3://bucket/out --job volumes-job
  penstock resume volumes-job --update
  penstock volumes 'scans/*' --to parquet:out --embedder onnx:clip.onnx --preset clip
  penstock volumes 'scans/*' --to parquet:out --html pages.html
  penstock volumes 'scans/*' --to parquet:out --max-passes 0

\b
Each volume becomes a data set of its own, OUT/VOLUME, with a row for each page; readers see
nothing of it before it is complete, and then there is a _SUCCESS.json. A volume that is
published already is left alone: the same command does what is new. A job (--job) looks at its
volumes again with --update: those with new, changed or removed pages are published anew.

\b
Exit status: 0 all is accounted for within the failure budget, 1 the job failed, all its pages
did, or a volume could not be published, 2 wrong usage, 130 interrupted."""

_FIELDS = (
    *("anonymous", "instance_role", "to", "embedder", "preset", "image_size", "dtype", "background", "value_range"),
    *("max_passes", "min_angle", "min_bend", "min_quality"),
    *("job", "update", "accept_changes", "memory", "s3_max_inflight", "decode_threads", "compute_threads"),
    *("batch_size", "batch_timeout", "insert_batch_size", "max_failures", "on_failure", "stall_after"),
    *("max_pixels", "max_side", "max_file_bytes", "report", "progress"),
)


@click.command(
    cls=GroupedCommand,
    epilog=_EXAMPLES,
    short_help="Straighten and embed scanned volumes; publish them.",
    options_metavar="--to parquet:PLACE [OPTIONS]",
)
@click.argument("volumes", nargs=-1, metavar="VOLUME...")
@click.option("--config", "config_file", metavar="FILE.yaml", help="Settings from a file; what is given here wins.")
@click.option("--html", metavar="FILE", help="Write a contact sheet: the first pages of each volume, before and after.")
@setting_options(*_FIELDS, model=PipelineConfig)
def volumes(volumes: tuple[str, ...], html: str | None, config_file: str | None, **options: Any) -> int:
    """Measure, straighten and embed the pages of scanned volumes, and publish each volume as Parquet.

    VOLUME is a folder of page images, a prefix of an object store (s3://bucket/vol_1/, gs://, az://), or a pattern of
    either in quotes. How a page lies (angle, bend of its lines) is measured in patches of 512 pixels; a page that lies
    askew is turned and dewarped and looked at again. Every page ends as a row, or as a dead letter with a reason.
    """
    cfg = configured_as(PipelineConfig, config_file, options)
    if cfg.destination is None:
        raise click.UsageError("--to is missing: where are the volumes published? For example --to parquet:out")
    try:
        return _run_and_report(cfg, volumes, html)
    except SourceError as error:
        raise click.UsageError(printable(str(error))) from error


def go_on_with_volumes(found: Status, given: Mapping[str, Any]) -> int:
    """Go on with a job that keeps books.

    Args:
        found: the job.
        given: settings for this run, which win over those of the run before.

    Raises:
        ConfigError: a setting is not allowed.
    """
    from ..jobs.common.fingerprints import specs_of

    with spelled_as_options():
        cfg = PipelineConfig(**{**found.settings["config"], **given}, job=Path(found.path))
    return _run_and_report(cfg, specs_of(found), None)


def _run_and_report(cfg: PipelineConfig, specs: Sequence[str], html: str | None) -> int:
    from ..jobs.common.drive import Interrupt
    from ..jobs.volumes.run_volumes import run_volumes
    from ..observe.progress import make_progress

    interrupt, remaining = Interrupt(), None

    def begins(ceiling: MemoryEstimate, pages: int | None) -> None:
        nonlocal remaining
        remaining = pages
        _prepare_process()
        if cfg.progress == "json":
            print(json.dumps({"event": "memory_ceiling", **ceiling.to_dict()}), file=sys.stderr, flush=True)
        elif cfg.progress != "none":
            complain(f"memory: {ceiling if cfg.memory is not None else f'at most {size(ceiling.total)}'}")

    progress = make_progress(cfg.progress, lambda: remaining)
    again = f"to go on: {_way_on(cfg, specs)}"
    with draining(interrupt, progress.announce):
        try:
            report = run_volumes(cfg, specs, watcher=progress, interrupt=interrupt, begins=begins, html=html)
        except PipelineFailure as failure:
            if cfg.job is not None:
                failure.add_note(printable(again))
            raise
        finally:
            progress.close()
    _report(cfg, report)
    if html is not None and report.stages and cfg.progress != "json":
        say(f"contact sheet: {printable(html)}")
    if interrupt.requested:
        complain(printable(f"interrupted; {again}"))
        return INTERRUPTED
    failed = [volume["error"] for volume in report.extra["volumes"]["each"].values() if "error" in volume]
    for error in failed:
        complain(printable(error))
    books = report.extra.get("job")
    written, dead = (books["written"], books["dead"]) if books else (report.accounting.written, report.accounting.dead)
    return FAILED if failed or (dead and not written) else OK


def _prepare_process() -> None:
    """What is not done in a process of the user's: programs are kept, and OpenCV starts no threads beside ours."""
    from ...preprocess.pages.resample import best_resampler, confine_opencv
    from ...preprocess.worker.jax_runtime import use_compilation_cache

    use_compilation_cache()
    if best_resampler() == "opencv":
        confine_opencv()


def _way_on(cfg: PipelineConfig, specs: Sequence[str]) -> str:
    if cfg.job is not None:
        return shlex.join(["penstock", "resume", str(cfg.job)])
    return shlex.join(["penstock", "volumes", *specs, "--to", cfg.shown_to])


def _report(cfg: PipelineConfig, report: Report) -> None:
    """The report, and what there is now."""
    from ..jobs.volumes.letters import letters_path
    from ..observe.render_text import render_text, report_json

    if cfg.progress == "json":
        say(json.dumps({"event": "report", **report_json(report)}))
        return
    if report.stages:
        say(render_text(report))
    if found := report.extra.get("job", {}).get("update"):
        say(f"pages: {', '.join(f'{count(found[name])} {name}' for name in ('new', 'changed', 'gone', 'same'))}")
    figures = report.extra["volumes"]
    done = f"{plural(figures['all'], 'volume')}: {count(figures['published'])} published in {cfg.shown_to}"
    failed = sum("error" in volume for volume in figures["each"].values())
    done += f", {count(failed)} could not be" if failed else ""
    nothing = "" if failed else ". Nothing to do"
    say(printable(done if report.stages else f"finished already: {done}{nothing}"))
    if dead := sum(volume["dead"] for volume in figures["each"].values()):
        say(printable(f"{plural(dead, 'dead letter')} in {letters_path(cfg)}"))
    for path in cfg.report:
        say(f"report: {printable(str(path))}")
