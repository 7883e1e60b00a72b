"""Settings that are more than a number or a word, in both spellings: a text on a command line, a mapping in a file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator

from ..core.policies import Policy, parse_policy
from ..machine.resources import memory_total


def _pairs(value: object, between: str, comma: str, wrong: str) -> object:
    """Names with what stands for them: one text, several of them, or the mapping they make."""
    if isinstance(value, str):
        value = re.split(comma, value)
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        return value
    found: dict[str, str] = {}
    for part in cast("Iterable[object]", value):
        name, mark, said = str(part).partition(between)
        if not (name.strip() and mark and said.strip()):
            raise ValueError(wrong)
        if name.strip() in found:
            raise ValueError(f"{name.strip()} is given twice")
        found[name.strip()] = said.strip()
    return found


def _declarations(value: object) -> object:
    """``year:int64``."""
    wrong = "must be NAME:TYPE, as in year:int64 or album:varchar(256)"
    return _pairs(value, ":", r",\s*(?![^(]*\))", wrong)


def _policies(value: object) -> object:
    """``embed=retry:5,fail``."""
    return _pairs(value, "=", r",\s*(?=\w+=)", "must be STAGE=POLICY, as in embed=retry:5 or insert=fail")


def _size(value: object) -> object:
    """Bytes: 4GiB, 512M, 1.5GB, 50% of what there is, or a number."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B?|%)\s*", value, re.IGNORECASE)
    if match is None or (match[2] == "" and match[3].lower() not in ("", "b", "%")) or (match[2] and match[3] == "%"):
        raise ValueError("must be a size, as 4GiB, 512M, 1.5GB, a share as 50%, or a number of bytes")
    number, power, unit = Fraction(match[1]), " KMGT".index(match[2].upper() or " "), match[3].lower()
    if unit == "%":
        if number > 100:
            raise ValueError("must be at most 100% of the memory there is")
        return int(number * memory_total() / 100)
    return int(number * (1000 if power and unit == "b" else 1024) ** power)


def _parameters(value: object) -> object:
    """``M=16,efConstruction=200``, or the mapping it makes."""
    if not isinstance(value, str):
        return value
    found: dict[str, Any] = {}
    for part in filter(None, re.split(r"[,\s]+", value)):
        name, equals, said = part.partition("=")
        if not (name and equals and said) or name in found:
            raise ValueError("must be NAME=VALUE,NAME=VALUE with each name once, as in M=16,efConstruction=200")
        found[name] = int(said) if re.fullmatch(r"-?\d+", said) else said
    return found


def _colour(value: object) -> tuple[int, ...]:
    """``255,128,0``, or three numbers."""
    parts = value.split(",") if isinstance(value, str) else value
    found: list[int] = []
    if isinstance(parts, list | tuple):
        for part in cast("list[object]", parts):
            text = str(part).strip()
            found += [int(text)] if text.isdecimal() and int(text) <= 255 else []
        if len(found) == len(cast("list[object]", parts)) == 3:
            return tuple(found)
    raise ValueError("must be R,G,B, each 0..255, as in 255,255,255")


def _several(value: object) -> object:
    """One path, or several; each once, nothing for none."""
    if value is None:
        return ()
    if isinstance(value, str | Path):
        return (value,)
    return tuple(dict.fromkeys(cast("Iterable[Any]", value))) if isinstance(value, list | tuple) else value


def _value_range(value: object) -> tuple[float, ...]:
    """``0,4095``, or two numbers."""
    try:
        found = tuple(map(float, value.split(",") if isinstance(value, str) else cast("list[float]", value)))
    except (TypeError, ValueError):
        found = ()
    if len(found) == 2 and -math.inf < found[0] < found[1] < math.inf:
        return found
    raise ValueError("must be BLACK,WHITE, two numbers of which the first is smaller, as in 0,4095")


def _embedder(value: str) -> str:
    """One whose kind there is; the rest is seen to when it is made."""
    from ..embedders.registry import EMBEDDERS  # numpy and all: only where somebody names one

    kind = value.partition("?")[0].partition(":")[0]
    why = EMBEDDERS.problem(kind)
    if why and kind in get_args(PresetName):
        raise ValueError(
            f"{kind} is a preset, the preprocessing of such a model; the model itself is said as onnx:FILE.onnx, "
            "triton+http://host:8000/model, python:module:callable or jax:module:callable"
        )
    if why:
        raise ValueError(why)
    return value


PresetName = Literal["imagenet", "clip", "siglip", "dinov2"]
"""The presets of `penstock.preprocess`; named here, because the help must not wait for the import of their floor."""

EmbedderSpec = Annotated[str, Field(min_length=1), AfterValidator(_embedder)]
"""``gist``, ``onnx:FILE.onnx``..."""

Colour = Annotated[tuple[int, int, int], BeforeValidator(_colour)]
"""Red, green, blue, 0..255."""

Files = Annotated[tuple[Path, ...], BeforeValidator(_several)]
"""Paths of files: one, several, or none."""

ValueRange = Annotated[tuple[float, float], BeforeValidator(_value_range)]
"""The samples that are black and white."""

Declarations = Annotated[dict[str, str], BeforeValidator(_declarations)]
"""Name -> type."""


def _globs(value: object) -> object:
    """One is as good as a list of one."""
    return (value,) if isinstance(value, str) else value


Globs = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_globs)]
"""Patterns of file names."""


def _capitals(value: object) -> object:
    """``cosine`` is meant."""
    return value.upper() if isinstance(value, str) else value


Metric = Annotated[Literal["COSINE", "L2", "IP"], BeforeValidator(_capitals)]
"""How vectors are compared."""

Parameters = Annotated[dict[str, int | float | str], BeforeValidator(_parameters)]
"""Name -> value."""

Size = Annotated[int, BeforeValidator(_size), Field(ge=1)]
"""Bytes. K, M, G, T and KiB... are powers of 1024, KB... of 1000."""

Stage = Literal["preprocess", "embed", "insert"]
"""The stages of a job that can fail."""

_Policy = Annotated[Policy, PlainValidator(parse_policy), PlainSerializer(str)]

Policies = Annotated[dict[Stage, _Policy], BeforeValidator(_policies)]
"""Stage -> what a failure there leads to."""
