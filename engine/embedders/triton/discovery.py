"""Asking the servers, before the start, what they serve. Blocks its thread; needs no hub."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from ....errors import ConfigError, EmbedderError
from .address import Address, HostPort
from .errors import ErrorKind, RequestError, kind_of
from .io_backend import IoBackend, ThreadIo
from .model_spec import ModelSpec, read_model_spec
from .transport import ServerError, Transport

_logger = logging.getLogger(__name__)

Connect = Callable[[HostPort, IoBackend], Transport]

_SHOWN: Final = 20


def discover(name: str, address: Address, connect: Connect) -> ModelSpec:
    """What all servers that answer have agreed to serve.

    Raises:
        ConfigError: the model does not fit, is not there, or differs between servers.
        EmbedderError: no server answers, or none has the model ready.
    """
    found: dict[HostPort, ModelSpec] = {}
    silent: dict[HostPort, Exception] = {}
    for server in address.servers:
        transport = connect(server, ThreadIo())
        try:
            found[server] = model_spec_at(name, server, address, transport)
        except (*RequestError, EmbedderError) as error:
            silent[server] = error
        finally:
            transport.close()
    if not found:
        raise _nobody(name, address, silent)
    for server, reason in silent.items():
        _logger.warning("%s: %s cannot be asked yet (%s); it is used as soon as it can", name, server, reason)
    (first, model), *others = found.items()
    for server, other in others:
        need_same(name, first, model, server, other)
    return model


def model_spec_at(name: str, server: HostPort, address: Address, transport: Transport) -> ModelSpec:
    """What one server serves.

    Raises:
        ConfigError: it has no such model, or one that does not fit.
        EmbedderError: it has the model, which is not ready.
        OSError, ServerError: it does not answer, or its model is not ready.
    """
    version = address.version or ""
    try:
        metadata = transport.metadata(address.model, version)
        config = transport.config(address.model, version)
    except ServerError as error:
        _explain(name, server, address, transport, error)
        raise
    return read_model_spec(address, metadata, config)


def need_same(name: str, first: HostPort, model: ModelSpec, server: HostPort, other: ModelSpec) -> None:
    """Refuse servers whose vectors would not go together.

    Raises:
        ConfigError: they differ; says in what.
    """
    differences = model.differences(other)
    if differences:
        raise ConfigError(f"{name}: {first} and {server} do not serve the same: {'; '.join(differences)}")


def _explain(name: str, server: HostPort, address: Address, transport: Transport, error: ServerError) -> None:
    """Say what the server has instead, where that is the trouble."""
    if kind_of(error) is not ErrorKind.AWAY:
        return
    try:
        models = transport.models()
    except RequestError:
        return
    version = f" in version {address.version}" if address.version else ""
    if address.model not in models:
        shown = ", ".join(models[:_SHOWN]) + (", ..." if len(models) > _SHOWN else "") or "none"
        raise ConfigError(f"{name}: {server} has no model {address.model!r}; it has {shown}") from error
    raise EmbedderError(f"{name}: {server} has the model{version}, but it is not ready: {error}") from error


def _nobody(name: str, address: Address, silent: dict[HostPort, Exception]) -> EmbedderError:
    for error in silent.values():
        if isinstance(error, EmbedderError):
            return error
    reasons = "; ".join(f"{server}: {type(error).__name__}: {error}" for server, error in silent.items())
    return EmbedderError(
        f"{name}: no Triton server answers ({reasons}). Is one running there, and is this its "
        f"{address.protocol.upper()} port?"
    )
