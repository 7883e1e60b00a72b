"""The help of commands with many options: in groups, in the order in which people need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "Source": (
        *("null", "follow_links", "include", "exclude", "list_filtered", "metadata", "fields"),
        *("anonymous", "instance_role", "allow_hosts"),
    ),
    "Frames": ("every", "filter", "thresholds", "classes", "detector", "dedup", "keep", "work"),
    "Duplicates": ("duplicates", "rule", "delete", "flag", "rededup"),
    "Pages": ("max_passes", "min_angle", "min_bend", "min_quality"),
    "Downloads": ("downloads", "per_host", "politeness", "download_timeout", "cookies", "downloader", "max_disk"),
    "Model and pixels": ("embedder", "preset", "image_size", "dtype", "background", "value_range", "decoder"),
    "Store": (
        *(
            "to",
            "collection",
            "mode",
            "server_path",
            "timeout",
            "token",
            "retry_for",
            "backlog",
            "metric",
        ),
        *("index", "index_params", "wait_index", "partition", "partition_key"),
    ),
    "A job that goes on where it was": (
        "job",
        "jobs",
        "everything",
        "dry_run",
        "update",
        "redo",
        "accept_store",
        "accept_changes",
    ),
    "Speed and memory": (
        *("workers", "memory", "batch_size", "batch_timeout", "insert_batch_size", "slots", "threads", "devices"),
        *("s3_max_inflight", "decode_threads", "compute_threads", "profile", "async_mode"),
    ),
    "Failures": (
        *("stage", "error", "max_failures", "on_failure", "item_timeout", "video_timeout", "stall_after"),
        *("max_pixels", "max_side", "max_duration", "max_frames", "max_file_bytes", "sandbox"),
    ),
    "Output": ("k", "html", "report", "progress"),
    "More": ("config_file", "debug", "help"),
}
"""Title -> names of options, those of the configuration's fields among them. What is in none comes with the last."""

_PLACES: Final = {name: (title, place) for title, names in GROUPS.items() for place, name in enumerate(names)}
_LAST: Final = ("More", -1)


class GroupedCommand(click.Command):
    """A command that lists its options by `GROUPS`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        options = [parameter for parameter in self.get_params(ctx) if isinstance(parameter, click.Option)]
        for title in GROUPS:
            mine = sorted(
                (place, n) for n, option in enumerate(options) for at, place in [_place(option)] if at == title
            )
            records = [record for _, n in mine if (record := options[n].get_help_record(ctx))]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _place(option: click.Option) -> tuple[str, int]:
    name = option.name or ""
    # A choice among flags is one field: mode_append and mode_overwrite are mode.
    return _PLACES.get(name) or _PLACES.get(name.rpartition("_")[0], _LAST)
