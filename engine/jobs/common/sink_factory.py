"""Where a job's rows go, made of its configuration, by the registry of sinks."""

from __future__ import annotations

from typing import Any

from ....errors import ConfigError
from ....messages import redact
from ....sinks import Searchable, Sink, SinkOptions, TeeSink, make_sink
from ...config.model import ServiceConfig, Store
from ...journal import job_id


def job_sink(config: ServiceConfig, collection: str | None = None, dimension: int = 2, note: str = "") -> Sink:
    """The sink to write to, not open. To look at it, or to ask what it is, any dimension will do.

    Args:
        config: of the job.
        collection: its name, in all stores; default: the configured one, which is of each store its own.
        dimension: floats of a vector.
        note: what the vectors are made by.

    Raises:
        ConfigError: there is none, or a setting of it that cannot be.
    """
    if not config.to:
        raise ConfigError('to is missing: say where the rows go, e.g. to="photos.db" or to="http://host:19530"')
    other = collection if collection != config.collection else None
    members = [_member(store, other, dimension, note) for store in config.stores]
    if other and not all(member.has_collections for member in members):
        raise ConfigError(
            f"{config.shown_to} is for the collection {config.collection!r}; {other!r} needs its own place"
        )
    return members[0] if len(members) == 1 else TeeSink(members, config.backlog)


def _member(store: Store, collection: str | None, dimension: int, note: str) -> Sink:
    config = store.config
    with store.named():
        options = SinkOptions(
            dimension=dimension,
            note=note,
            mode=config.mode,
            fields=config.fields,
            partition_key=config.partition_key,
            index=config.index,
            index_params=config.index_params,
            wait_index=config.wait_index is not None,
            job=job_id(config.job) if config.job else "",
            **_access(store, collection),
        )
        sink = make_sink(store.address, options)
        if "collection" in store.own and not (sink.has_collections or sink.keeps_collection_name):
            raise ConfigError(f"collection: {sink.uri} has none")
        return sink


def sink_to_read(config: ServiceConfig, collection: str) -> Sink:
    """The sink to search, not open: of several the first that can be; the collection must be there.

    Raises:
        ConfigError: it cannot be searched.
    """
    other = collection if collection != config.collection else None
    sinks: list[Sink] = []
    for store in config.stores:
        with store.named():
            sinks.append(make_sink(store.address, SinkOptions(**_access(store, other))))
    sink = next((sink for sink in sinks if sink.reader()), sinks[0])
    searchable(sink)
    return sink


def sink_to_scan(config: ServiceConfig) -> Sink:
    """The one store of a configuration, to read all of it, not open; what it names must be there."""
    (store,) = config.stores
    with store.named():
        return make_sink(store.address, SinkOptions(**_access(store, None)))


def searchable(sink: Sink) -> Searchable:
    """What finds the rows of a sink again.

    Raises:
        ConfigError: it cannot be searched; says what can be done with it.
    """
    reader = sink.reader()
    if reader is None:
        raise ConfigError(f"{sink.uri} cannot be searched{sink.next_step and f'; {sink.next_step}'}")
    return reader


def _access(store: Store, collection: str | None) -> dict[str, Any]:
    """How a collection is reached, to write or to search; default: the configured one."""
    config, token = store.config, None
    # The variable is for every store that has no secret in its address: that of one server is none of another's.
    if config.token and ("token" in config.model_fields_set or redact(store.address) == store.address):
        token = config.token.get_secret_value()
    return {
        "collection": collection or config.collection,
        "token": token,
        "partition": config.partition,
        "retry_for": config.retry_for,
        "anonymous": config.anonymous,
        "instance_role": config.instance_role,
        "metric": config.metric,
    }
