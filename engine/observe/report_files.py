"""A report as a file: JSON, or one self-contained HTML page."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

from ...durable import write_text
from ...errors import ConfigError
from .render_text import report_json
from .report import Report


def check_report_path(path: str | os.PathLike[str]) -> None:
    """Whether a report could be written there; to be asked before the job starts.

    Raises:
        ConfigError: neither .json nor .html, no such folder, or what .html needs is not installed.
    """
    target = Path(path)
    if target.suffix not in (".json", ".html"):
        raise ConfigError(f"report: {str(target)!r} must end in .json or .html")
    if not target.parent.is_dir() or target.is_dir() or not os.access(target.parent, os.W_OK):
        raise ConfigError(f"report: {str(target)!r} cannot be written: its folder must exist and be writable")
    if target.suffix == ".html" and find_spec("matplotlib") is None:
        raise ConfigError("report: the plots of an .html report need matplotlib: pip install 'penstock[report]'")


def write_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Write the report, by the name's ending as JSON or as one self-contained HTML page.

    Raises:
        ConfigError: see `check_report_path`.
    """
    check_report_path(path)
    if Path(path).suffix == ".html":
        from .render_html import report_page

        write_text(path, report_page(report))
    else:
        write_text(path, json.dumps(report_json(report), indent=2) + "\n")
