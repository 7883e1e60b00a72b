"""From what the user asked for to what is done: the one place where a configuration becomes parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ....preprocess import PreprocessSpec, preset
from ....preprocess.decode.jpeg import check_decoder
from ...config.model import ServiceConfig
from ...embedders import Embedder, parse_embedder
from ...machine.resources import usable_cores
from ...workers import PreprocessPool

FACTORY = "penstock.engine.embedders:parse_embedder"
"""Makes an embedder of its spec, in a worker."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The embedder a configuration names, and the pixels it gets.

    Attributes:
        embedder: not opened; the same in every process, because it is made from a spec string.
        spec: checked against the embedder.
    """

    embedder: Embedder
    spec: PreprocessSpec

    def makes_as(self, other: Plan) -> bool:
        """Whether both make the same vectors."""
        return self.spec == other.spec and self.embedder.spec == other.embedder.spec

    def pool(self, config: ServiceConfig) -> PreprocessPool:
        """The worker processes for it, not started. An embedder that runs elsewhere must be open, for its dimension."""
        in_worker = self.embedder.runs == "worker"
        workers = config.workers or usable_cores()
        return PreprocessPool(
            self.spec,
            workers=workers,
            batch_size=config.batch_size,
            slots=self.slots(config, workers),
            threads=config.threads,
            embedder=(FACTORY, self.embedder.spec) if in_worker else None,
            dimension=self.embedder.dimension if self.embedder.knows_dimension or not in_worker else 0,
            devices=config.devices,
            item_timeout=config.item_timeout,
            sandbox=config.sandbox,
            named=self.embedder.runs == "green",
        )

    def slots(self, config: ServiceConfig, workers: int) -> int:
        """Slots per worker: as said, else two to work on and the embedder's share of what it works on at once."""
        if "slots" in config.model_fields_set or self.embedder.runs == "worker":
            return config.slots
        return max(config.slots, 2 - -self.embedder.concurrency // workers)


def make_plan(config: ServiceConfig) -> Plan:
    """Decide on embedder and pixels. Costs nothing: no model is loaded, no process started.

    What the user says wins over what the embedder likes best, and that over the defaults.

    Raises:
        ConfigError: a name is not known, a decoder is not installed, or pixels and embedder do not fit; the message
            names the knob.
    """
    embedder = parse_embedder(config.embedder)
    wants = embedder.wants
    own: dict[str, Any] = {
        "size": config.image_size,
        "dtype": config.dtype,
        "decoder": config.decoder,
        "max_pixels": config.max_pixels,
        "max_side": config.max_side,
        "max_file_bytes": config.max_file_bytes,
        "background": config.background,
        "value_range": config.value_range,
    }
    changes = {name: value for name, value in own.items() if value is not None}
    if config.preset is None:
        liked = {"size": wants.size, "dtype": wants.dtype, "layout": wants.layout}
        changes = {**{name: value for name, value in liked.items() if value is not None}, **changes}
    spec = preset(config.preset or "imagenet", **changes)
    if config.preset is None and wants.squash is not None:
        spec = spec.replace(resize=None if wants.squash else spec.size)
    if spec.dtype == "uint8" or (config.preset is None and wants.dtype == "uint8"):
        spec = spec.replace(mean=None, std=None)
    embedder.check(spec)
    check_decoder(spec)
    return Plan(embedder, spec)
