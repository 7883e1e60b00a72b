"""From a URI to the sink it names: ``scheme:rest``, or a path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Final, Literal, cast

from ..errors import ConfigError
from ..messages import redact
from ..object_stores.options import StoreOptions
from ..registry import Registry, scheme_of
from .base import Sink
from .lance import LanceSink
from .local import local_path
from .milvus.bulk_files import ParquetBulkSink
from .milvus.index_options import Number
from .milvus.sink import MilvusSink
from .npy.sink import NpySink
from .null import URI, NullSink
from .parquet.places import PATIENT, parquet_place
from .parquet.sink import ParquetSink
from .parquet.table_sink import FolderSink, TableOptions
from .tee import TeeSink


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """What a job asks of a sink. A factory refuses what its sink does not have: `refuse_others`."""

    collection: str = "images"
    """Name of what holds the rows, where the place has room for several."""

    dimension: int | None = None
    """Floats of a vector; None for a sink that is only read: what it names must be there already."""

    note: str = ""
    """What the vectors are made by: kept with a collection that is made, to be read back by `Sink.note` and `look`."""

    mode: Literal["append", "overwrite"] = "append"
    """What becomes of rows that are there: kept, or deleted when the first new ones come."""

    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    """Typed columns: name -> type, as `parse_fields` takes them."""

    metric: str = "COSINE"
    """How vectors are compared: COSINE, IP or L2."""

    index: str | None = None
    """Kind of index of a collection that is made."""

    index_params: Mapping[str, Number] = field(default_factory=dict[str, Number])
    """What to build it with."""

    wait_index: bool = False
    """Whether `Sink.wait_index` will be asked for."""

    partition: str | None = None
    """The part of the collection that everything is about."""

    partition_key: str | None = None
    """The column by whose values the store divides the collection."""

    token: str | None = field(default=None, repr=False)
    """Secret for the store."""

    job: str = ""
    """Id of the job that writes, 32 hex digits: it finds again by it what it left in a place; empty: no books are kept,
    and no later run will ask."""

    anonymous: bool = False
    """Of an object store that is only read: requests are not signed."""

    instance_role: bool = False
    """Credentials for an object store may be asked of the cloud's metadata service."""

    retry_for: float | None = None
    """Seconds to go on trying while the store does not answer."""

    def refuse_others(self, uri: str, *known: str, hint: str = "") -> None:
        """Refuse every option that was given and that a sink does not have.

        Args:
            uri: of the sink, for the message.
            known: options it has, besides collection, dimension, note, job, and what is about access: token, anonymous,
                instance_role and retry_for.
            hint: what to do instead.

        Raises:
            ConfigError: there is one.
        """
        # Access may be of the environment, or about the source.
        access = {"token", "anonymous", "instance_role", "retry_for"}
        always = {"collection", "dimension", "note", "job", *access}
        for each in fields(self):
            if each.name not in {*always, *known} and getattr(self, each.name) != _DEFAULTS[each.name]:
                raise ConfigError(f"{each.name}: {redact(uri)} has none{hint and f'; {hint}'}")


_DEFAULTS: Final[Mapping[str, Any]] = {each.name: getattr(SinkOptions(), each.name) for each in fields(SinkOptions)}

SinkFactory = Callable[[str, SinkOptions], Sink]
"""Takes the whole URI, as the user wrote it, and what the job asks for. Connects to nothing."""


_SETTINGS: Final = sorted(_DEFAULTS.keys() - {"dimension", "note", "job", "token", "anonymous", "instance_role"})
"""What can be said of a store behind its address; jobs take it from there before a factory sees the address."""

_QUERY: Final = re.compile(r"\?(?=\w+=)")


def refuse_settings(uri: str) -> None:
    """Refuse what stands behind a question mark of an address: for sinks that have no options of their own.

    Raises:
        ConfigError: something does; names it.
    """
    address, query = [*_QUERY.split(uri, maxsplit=1), ""][:2]
    if query:
        name = query.partition("=")[0]
        near = difflib.get_close_matches(name, _SETTINGS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_SETTINGS)}"
        raise ConfigError(f"uri: {redact(address)!r}: {name}: no such setting of a store; {hint}")


def _milvus(uri: str, options: SinkOptions) -> Sink:
    return MilvusSink(
        uri,
        options.collection,
        options.dimension,
        token=options.token,
        metric=options.metric,
        index=options.index,
        index_params=options.index_params,
        retry_for=options.retry_for,
        note=options.note,
        mode=options.mode,
        fields=options.fields,
        partition=options.partition,
        partition_key=options.partition_key,
    )


def _bulk(uri: str, options: SinkOptions) -> Sink:
    hint = "partition, index and the wait for it are for the import: penstock import DIR --to URI"
    options.refuse_others(uri, "mode", "fields", "partition_key", "metric", "index", "index_params", hint=hint)
    return ParquetBulkSink(
        local_path(uri, "parts"),
        options.dimension or 2,  # not to be opened without: it cannot be read
        collection=options.collection,
        note=options.note,
        mode=options.mode,
        fields=options.fields,
        partition_key=options.partition_key,
    )


def _table_options(uri: str, options: SinkOptions) -> TableOptions:
    """Those of sinks that write tables; refuses others."""
    options.refuse_others(uri, "mode", "fields", "metric", "wait_index")
    return {"note": options.note, "fields": options.fields, "mode": options.mode, "metric": options.metric}


def _parquet(uri: str, options: SinkOptions) -> Sink:
    own = _table_options(uri, options)
    return ParquetSink(parquet_place(uri, _store_options(options)), options.dimension, job=options.job, **own)


def _in_folder(kind: type[FolderSink], example: str, uri: str, options: SinkOptions) -> Sink:
    own = _table_options(uri, options)
    return kind(local_path(uri, example), options.dimension, **own)


def _store_options(options: SinkOptions) -> StoreOptions:
    """How an object store is spoken to: through an outage of two minutes, unless said otherwise."""
    reads = options.dimension is None
    patience = PATIENT.retry_for if options.retry_for is None else options.retry_for
    anonymous = options.anonymous and reads  # else it is about the source
    return replace(PATIENT, anonymous=anonymous, instance_role=options.instance_role, retry_for=patience)


def _signatures(uri: str, options: SinkOptions) -> Sink:
    from .signatures.sink import SignatureSink  # imports Pillow, which no other sink needs

    options.refuse_others(uri, "mode", "fields", "metric", "wait_index")
    return SignatureSink(local_path(uri, "signatures"), options.dimension, options.note)


def _null(uri: str, options: SinkOptions) -> Sink:
    if uri != URI:
        raise ConfigError(f"uri: {uri!r}: nothing follows {URI}")
    return NullSink(options.collection, options.dimension)


SCHEMES: Final[dict[str, SinkFactory]] = {
    "http": _milvus,
    "https": _milvus,
    "bulk": _bulk,
    "parquet": _parquet,
    "npy": partial(_in_folder, NpySink, "embeddings"),
    "lance": partial(_in_folder, LanceSink, "rows.lance"),
    "signatures": _signatures,
    "null": _null,
}
"""Scheme -> factory, of what is built in. What has no scheme is a path: a Milvus Lite store."""

SINKS: Final[Registry[SinkFactory]] = Registry("to", "penstock.sinks", SCHEMES)
"""These, and what installed packages bring."""


def make_sink(uri: str | Sequence[str], options: SinkOptions) -> Sink:
    """The sink that a URI names, not open; of several URIs a tee. Connects to nothing, and makes nothing.

    Args:
        uri: ``photos.db``, ``http://host:19530``, ``bulk:DIR``, ``null:``, or with the scheme of an installed package.
        options: what is asked of it.

    Raises:
        ConfigError: there is no such sink, it does not have what is asked for, or a value is not possible.
    """
    if not isinstance(uri, str):
        members = [make_sink(each, options) for each in uri]
        return members[0] if len(members) == 1 else TeeSink(members)
    scheme = scheme_of(uri)
    factory = _milvus if scheme is None else SINKS.factory(scheme, redact(uri))
    if scheme is None or scheme in SCHEMES:  # none of these has options of its own behind its address
        refuse_settings(uri)
    sink = cast("object", factory(uri, options))  # a package may be untyped
    if not isinstance(sink, Sink):
        raise ConfigError(
            f"to: {redact(uri)!r}: the plugin of {scheme!r} made a {type(sink).__name__}, which is no Sink"
        )
    return sink
