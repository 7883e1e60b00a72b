"""Profiles: values laid under what the user sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

ProfileName = Literal["default", "high_throughput", "low_memory"]

PROFILES: Final[Mapping[str, Mapping[str, Any]]] = {
    "default": {},
    "high_throughput": {
        "batch_size": 64,
        "insert_batch_size": 256,
        "slots": 4,
        "async_pipeline": {"preprocess_workers": 4, "insert_batch_size": 200, "queue_maxsize": 150},
    },
    "low_memory": {
        "batch_size": 16,
        "insert_batch_size": 64,
        "slots": 2,
        "async_pipeline": {"preprocess_workers": 2, "insert_batch_size": 50, "queue_maxsize": 50},
    },
}
"""Values laid under what the user sets."""


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, where ``above`` wins; sections are merged field by field."""
    result = dict(below)
    for name, value in above.items():
        under = result.get(name)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        result[name] = merged(under, value) if both else value  # type: ignore[arg-type]
    return result


def over_profile(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a configuration, over those of the profile among them."""
    profile = values.get("profile", "default")
    return merged(PROFILES.get(profile, {}) if isinstance(profile, str) else {}, values)
