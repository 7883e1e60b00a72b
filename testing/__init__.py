"""Contracts as classes of tests: subclass one, give it your own part, and pytest runs them all.

::

    from penstock.testing.embedders import EmbedderContract

    class TestMine(EmbedderContract):
        @pytest.fixture
        def made(self) -> tuple[str, str]:
            return "mine:small", "mine:large"

Needs pytest.
"""

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in ("embedders", "sinks", "sources", "workers")))
