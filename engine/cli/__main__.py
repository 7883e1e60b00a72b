"""``python -m penstock.engine.cli``, the longer name of ``python -m penstock``."""

from __future__ import annotations

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main())
