"""Asking the servers, before the start, what they serve. Blocks its thread; needs no hub."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from ....errors import ConfigError, EmbedderError
from .address import Address, HostPort
from .errors import Fault, Trouble, fault_of
from .io_backend import InThread, Waits
from .model_spec import Contract, read_contract
from .transport import ServerSaid, Transport

_logger = logging.getLogger(__name__)

Connect = Callable[[HostPort, Waits], Transport]

_SHOWN: Final = 20


def discover(name: str, address: Address, connect: Connect) -> Contract:
    """What all servers that answer have agreed to serve.

    Raises:
        ConfigError: the model does not fit, is not there, or differs between servers.
        EmbedderError: no server answers, or none has the model ready.
    """
    found: dict[HostPort, Contract] = {}
    silent: dict[HostPort, Exception] = {}
    for server in address.servers:
        transport = connect(server, InThread())
        try:
            found[server] = contract_at(name, server, address, transport)
        except (*Trouble, EmbedderError) as error:
            silent[server] = error
        finally:
            transport.close()
    if not found:
        raise _nobody(name, address, silent)
    for server, reason in silent.items():
        _logger.warning("%s: %s cannot be asked yet (%s); it is used as soon as it can", name, server, reason)
    (first, contract), *others = found.items()
    for server, other in others:
        need_same(name, first, contract, server, other)
    return contract


def contract_at(name: str, server: HostPort, address: Address, transport: Transport) -> Contract:
    """What one server serves.

    Raises:
        ConfigError: it has no such model, or one that does not fit.
        EmbedderError: it has the model, which is not ready.
        OSError, ServerSaid: it does not answer, or its model is not ready.
    """
    version = address.version or ""
    try:
        metadata = transport.metadata(address.model, version)
        config = transport.config(address.model, version)
    except ServerSaid as error:
        _explain(name, server, address, transport, error)
        raise
    return read_contract(address, metadata, config)


def need_same(name: str, first: HostPort, contract: Contract, server: HostPort, other: Contract) -> None:
    """Refuse servers whose vectors would not go together.

    Raises:
        ConfigError: they differ; says in what.
    """
    differences = contract.differences(other)
    if differences:
        raise ConfigError(f"{name}: {first} and {server} do not serve the same: {'; '.join(differences)}")


def _explain(name: str, server: HostPort, address: Address, transport: Transport, error: ServerSaid) -> None:
    """Say what the server has instead, where that is the trouble."""
    if fault_of(error) is not Fault.AWAY:
        return
    try:
        models = transport.models()
    except Trouble:
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
