"""Settings in sections (``workers: {count: 8, batch_size: 64}``): another way to write the same fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...errors import ConfigError
from .messages import no_such

SECTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "source": {
        **{name: name for name in ("follow_links", "include", "exclude", "metadata", "list_filtered")},
        **{name: name for name in ("anonymous", "instance_role", "allow_hosts")},
    },
    "workers": {
        "count": "workers",
        **{name: name for name in ("batch_size", "slots", "memory", "threads", "devices", "decoder", "sandbox")},
        **{name: name for name in ("item_timeout", "max_pixels", "max_side", "max_file_bytes")},
    },
    "embedder": {
        "spec": "embedder",
        **{name: name for name in ("preset", "image_size", "dtype", "background", "value_range")},
    },
    "sink": {
        "uri": "to",
        **{name: name for name in ("collection", "mode", "insert_batch_size", "token", "retry_for", "backlog")},
        "fields": "fields",
        **{name: name for name in ("metric", "index", "index_params", "wait_index", "partition", "partition_key")},
    },
}
"""Section -> its names -> the field of `ServiceConfig` that each stands for."""

_LISTS: Final[Mapping[str, str]] = {"sinks": "to"}
"""Lists that stand for a field: ``sinks: [photos.db, bulk:parts]``."""


def flattened(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What was given, without sections.

    Args:
        values: fields, and sections as mappings. ``workers: 8`` is the field, ``workers: {count: 8}`` the section.

    Returns:
        Field -> value, and field -> ``section.name``, or the list, for those that came otherwise.

    Raises:
        ConfigError: a section has no such name, or a field was given in two ways.
    """
    flat: dict[str, Any] = {}
    said: dict[str, str] = {}
    for name, value in values.items():
        section = SECTIONS.get(name)
        if section is not None and isinstance(value, Mapping):
            for key, inner in value.items():
                dotted = f"{name}.{key}"
                if key not in section:
                    raise ConfigError(f"{dotted}: {no_such(str(key), list(section))}")
                _put(flat, said, section[key], inner, dotted)
        elif section is not None and name not in section.values():
            raise ConfigError(f"{name}: must be a section with some of {', '.join(section)}, not {value!r}")
        else:
            _put(flat, said, _LISTS.get(name, name), value, name)
    return flat, said


def _put(flat: dict[str, Any], said: dict[str, str], field: str, value: Any, how: str) -> None:
    if field in flat:
        raise ConfigError(f"{how}: is also given as {said.get(field, field)}: give it once")
    flat[field] = value
    if how != field:
        said[field] = how
