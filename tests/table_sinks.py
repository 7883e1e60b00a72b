"""Sinks of tables, for tests of what all of them do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.errors import ConfigError
from penstock.sinks import RowBatch, Sink, SinkOptions, make_sink
from penstock.testing.sinks import DIMENSION


def sink_at(uri: str, **options: Any) -> Sink:
    """A sink for vectors of `DIMENSION` floats, unless said otherwise."""
    with_dimension: dict[str, Any] = {"dimension": DIMENSION, **options}
    return make_sink(uri, SinkOptions(**with_dimension))


def assert_finds_the_nearest(uri: str, rows: RowBatch, metric: Any) -> None:
    """Those that a sort of all rows there finds, with their scores; L2 is the square of the distance."""
    query = rows.vectors[7] + 0.1
    products = rows.vectors @ query
    norms = np.linalg.norm(rows.vectors, axis=1) * np.linalg.norm(query)
    wanted = {"COSINE": products / norms, "IP": products, "L2": ((rows.vectors - query) ** 2).sum(1)}[metric]
    nearest = np.argsort(wanted if metric == "L2" else -wanted)[:12]
    with make_sink(uri, SinkOptions(metric=metric)) as sink:
        reader = sink.reader()
        assert reader is not None
        hits = reader.search(query, 12)
        with pytest.raises(ConfigError, match=r"\[3\] given, \[8\] needed"):
            reader.search(np.zeros(3, np.float32))
    assert [hit.key for hit in hits] == [rows.keys[row] for row in nearest]
    np.testing.assert_allclose([hit.score for hit in hits], wanted[nearest], rtol=1e-5)
