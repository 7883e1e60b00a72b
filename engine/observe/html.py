"""Self-contained HTML pages from the templates beside this file. Nothing in them is fetched, nothing runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...formatting import count, duration, milliseconds, percent, printable, rate, size


def page(template: str, **values: Any) -> str:
    """A page of ``templates/``. Whatever is put in is escaped; what cannot be seen is shown as its escape.

    Args:
        template: file name.
        **values: what the template uses.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (count, duration, milliseconds, percent, printable, rate, size):
        environment.filters[function.__name__] = function
    return environment.get_template(template).render(**values)
