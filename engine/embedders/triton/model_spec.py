"""What a model takes and gives, read from what the server says of it, and held against the pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ....errors import ConfigError
from ..base import PixelPreferences, Pixels, digest
from ..pictures import check_pixels, geometry
from .address import Address

PIXEL_TYPES: Final = {"FP32": "float32", "FP16": "float16", "UINT8": "uint8"}
VECTOR_TYPES: Final = {"FP32": "float32", "FP16": "float16", "FP64": "float64"}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model; None where the server leaves it open.

    Attributes:
        name, version: whom it is about.
        input, datatype: name and KServe element type of the pictures.
        layout: ``NCHW`` or ``NHWC``.
        size: side of the square.
        output, output_type: name and KServe element type of the vectors.
        dimension: floats of a vector.
        batched: whether shapes begin with the number of pictures.
        fixed: the only number of pictures that it takes at once.
        most: pictures of one request, at most.
        instances: of the model, at the server.
        squash: whether whole pictures are to be squashed into the square (True) or their centres cropped: the parameter
            ``squash`` of the model's configuration, which tensors cannot tell.
    """

    name: str
    version: str
    input: str
    datatype: str
    layout: str | None
    size: int | None
    output: str
    output_type: str
    dimension: int | None
    batched: bool
    fixed: int | None
    most: int | None
    instances: int
    squash: bool | None = None

    @property
    def dtype(self) -> str:
        """Of the pixels, as NumPy calls it."""
        return PIXEL_TYPES[self.datatype]

    @property
    def wants(self) -> PixelPreferences:
        """What the model fixes."""
        return PixelPreferences(size=self.size, squash=self.squash, dtype=self.dtype, layout=self.layout)

    @property
    def step(self) -> int | None:
        """Pictures of one request, at most; None: any number."""
        return (self.fixed or self.most) if self.batched else 1

    @property
    def fingerprint(self) -> str:
        """Of what makes the vectors; not of where, or how fast, they are made."""
        return digest("triton", *(f"{name}={value}" for name, value in self._meaning().items()))

    def differences(self, other: ModelSpec) -> list[str]:
        """In what another server's model differs."""
        mine, theirs = self._meaning() | {"batch": self.step}, other._meaning() | {"batch": other.step}
        return [
            f"{name} is {mine[name]} at one and {theirs[name]} at the other"
            for name in mine
            if mine[name] != theirs[name]
        ]

    def check(self, name: str, spec: Pixels) -> None:
        """Refuse pixels that the model does not take.

        Raises:
            ConfigError: the message names the setting to change.
        """
        check_pixels(name, spec, self.dtype, self.layout, self.size)

    def shape(self, rows: int, row: Sequence[int]) -> tuple[int, ...]:
        """Shape of a tensor of so many rows."""
        return (rows, *row) if self.batched else tuple(row)

    def _meaning(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "version": self.version,
            "input": f"{self.input} {self.datatype}",
            "layout": self.layout,
            "size": self.size,
            "output": f"{self.output} {self.output_type}",
            "dimension": self.dimension,
        }


def read_model_spec(address: Address, metadata: Mapping[str, Any], config: Mapping[str, Any]) -> ModelSpec:
    """Read a model's metadata and configuration.

    Raises:
        ConfigError: it is not a model from pictures to vectors, or it has to be said which parts of it are.
    """
    name = f"triton model {address.model!r}"
    most = int(config.get("max_batch_size") or 0)
    optional = {str(entry["name"]) for entry in config.get("input", ()) if entry.get("optional")}
    pictures = _choose_input(name, metadata["inputs"], address.input, optional)
    shape = [_number(d) for d in pictures["shape"]]
    batched = most > 0 or len(shape) == 4
    layout, size = _geometry(name, pictures, shape[1:] if batched else shape)
    vectors = _choose_output(name, metadata["outputs"], address.output, batched)
    said = _number(vectors["shape"][1 if batched else 0])
    if address.dimension and said and said != address.dimension:
        raise ConfigError(
            f"{name}: output {vectors['name']!r} has {said} floats a row, not dimension={address.dimension}"
        )
    return ModelSpec(
        name=address.model,
        version=address.version or max((str(v) for v in metadata.get("versions") or ()), key=_rank, default=""),
        input=str(pictures["name"]),
        datatype=str(pictures["datatype"]),
        layout=layout,
        size=size,
        output=str(vectors["name"]),
        output_type=str(vectors["datatype"]),
        dimension=said or address.dimension,
        batched=batched,
        fixed=shape[0] if batched and not most else None,
        most=most or None,
        instances=_instances(config.get("instance_group") or ()),
        squash=_squash(name, config.get("parameters") or {}),
    )


def _choose_input(name: str, found: Sequence[Any], wanted: str | None, optional: set[str]) -> Any:
    needed = [node for node in found if node["name"] not in optional or node["name"] == wanted]
    names = ", ".join(str(node["name"]) for node in found) or "none"
    if wanted is not None and wanted not in {node["name"] for node in found}:
        raise ConfigError(f"{name} has no input {wanted!r}; it has {names}")
    if len(needed) != 1:
        hint = " (it needs others besides)" if wanted else ""
        raise ConfigError(f"{name} must have one input, the pictures; it has {len(needed)}: {names}{hint}")
    node = needed[0]
    if node["datatype"] not in PIXEL_TYPES:
        raise ConfigError(f"{name}: input {node['name']!r} is {node['datatype']}; it may be {', '.join(PIXEL_TYPES)}")
    return node


def _geometry(name: str, node: Any, row: Sequence[int | None]) -> tuple[str | None, int | None]:
    """Layout and side of the square, as far as the shape of one picture tells."""
    where = f"{name}: input {node['name']!r} has shape {node['shape']}"
    if len(row) != 3:
        raise ConfigError(f"{where}; pictures are [3, H, W] or [H, W, 3], with or without the batch before them")
    return geometry(where, row)


def _choose_output(name: str, found: Sequence[Any], wanted: str | None, batched: bool) -> Any:
    """The output that holds the vectors: the one asked for, else the only one of a vector's shape and type."""
    described = ", ".join(f"{node['name']} {node['datatype']}{node['shape']}" for node in found) or "none"
    fitting = [node for node in found if _is_vector(node, batched)]
    if wanted is not None:
        fitting = [node for node in fitting if node["name"] == wanted]
        if not fitting:
            raise ConfigError(f"{name} has no output {wanted!r} of vectors; it has {described}")
    if len(fitting) != 1:
        example = found[0]["name"] if found else "NAME"
        raise ConfigError(f"{name}: say which output holds the vectors, as in ?output={example}; it has {described}")
    return fitting[0]


def _is_vector(node: Any, batched: bool) -> bool:
    row = list(node["shape"])[1 if batched else 0 :]
    return node["datatype"] in VECTOR_TYPES and bool(row) and all(d == 1 for d in row[1:])


def _instances(groups: Sequence[Mapping[str, Any]]) -> int:
    return sum(int(group.get("count") or 1) * max(1, len(group.get("gpus") or ())) for group in groups) or 1


def _squash(name: str, parameters: Mapping[str, Any]) -> bool | None:
    said = parameters.get("squash", {}).get("string_value")
    if said not in (None, "true", "false"):
        raise ConfigError(f"{name}: its parameter squash is {said!r}; it may be true or false")
    return None if said is None else said == "true"


def _rank(version: str) -> tuple[int, str]:
    return (int(version), version) if version.isdecimal() else (-1, version)


def _number(dimension: Any) -> int | None:
    value = int(dimension)
    return value if value > 0 else None
