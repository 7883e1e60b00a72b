"""What can go wrong with a server of our own."""

from __future__ import annotations

from ...errors import PenstockError


class ServerError(PenstockError, RuntimeError):
    """A server did not start, or not in time. The message ends with the last lines of its log."""


class ServerUnavailableError(ServerError):
    """This machine cannot run the server at all: says what is missing. Tests skip on it."""
