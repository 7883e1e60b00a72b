"""How long Hypothesis looks: as long as a push can wait, or as long as ``PENSTOCK_EXAMPLES`` says (`make storm`)."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings


def searching(examples: int, **more: Any) -> settings:
    """So many examples, without a deadline for each. In CI they are the same ones each time (Hypothesis sees to it).

    Args:
        examples: of an ordinary run.
        **more: other settings.
    """
    return settings(max_examples=int(os.environ.get("PENSTOCK_EXAMPLES", examples)), deadline=None, **more)
