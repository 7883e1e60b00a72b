"""How URLs are read: what travels to workers as text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Self

from ...object_stores.options import StoreOptions
from ...references import Locator

_FACTORY: Final = f"{__package__}.url_fetcher:open_urls"


@dataclass(frozen=True, slots=True)
class UrlOptions:
    """How URLs are read; no secrets.

    Attributes:
        stores: how stores are spoken to.
        allowed: hosts of http(s) URLs that may have private addresses: ``host`` or ``host:port``.
        deadline: seconds for one http(s) URL.
    """

    stores: StoreOptions = field(default_factory=StoreOptions)
    allowed: tuple[str, ...] = ()
    deadline: float = 30.0

    @property
    def locator(self) -> Locator:
        """By which workers read."""
        options: dict[str, Any] = {"stores": self.stores.dump(), "allowed": self.allowed, "deadline": self.deadline}
        return Locator(_FACTORY, json.dumps(options))

    @classmethod
    def load(cls, text: str) -> Self:
        """Of the options of `locator`."""
        options = json.loads(text)
        return cls(StoreOptions.load(options["stores"]), tuple(options["allowed"]), options["deadline"])
