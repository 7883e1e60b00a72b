"""How a store is spoken to: what travels to workers as text beside its URL. No secrets: they are in the environment."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store is spoken to.

    Attributes:
        anonymous: requests are not signed; for public buckets.
        instance_role: credentials may be asked of the cloud's metadata service. Never done otherwise: elsewhere than
            in a cloud nothing answers there, for minutes.
        timeout: seconds that one attempt of a request may take, its body included.
        connect_timeout: seconds that a connection may take.
        retries: attempts after the first, where the store is busy or the connection was cut.
        retry_for: seconds in which attempts begin. A request takes `retry_for` + `timeout` + one wait at most.

    Raises:
        ConfigError: a number is negative, or no number.
    """

    anonymous: bool = False
    instance_role: bool = False
    timeout: float = 30.0
    connect_timeout: float = 5.0
    retries: int = 3
    retry_for: float = 20.0

    def __post_init__(self) -> None:
        for name in ("timeout", "connect_timeout", "retries", "retry_for"):
            value: float = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name}={value!r}: must be a number from 0 on")

    def dump(self) -> str:
        """As text, only what differs from the defaults."""
        default = asdict(StoreOptions())
        return json.dumps({name: value for name, value in asdict(self).items() if value != default[name]})

    @classmethod
    def load(cls, text: str) -> StoreOptions:
        """Of `dump`."""
        values: dict[str, Any] = json.loads(text) if text else {}
        return cls(**values)
