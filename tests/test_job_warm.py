"""The warm pool of a pipeline."""

from __future__ import annotations

import pytest

from penstock import ServiceConfig
from penstock.engine.jobs.common.plan import Plan, make_plan
from penstock.engine.jobs.common.pool_cache import PoolCache
from penstock.engine.workers import PreprocessPool

pytestmark = pytest.mark.slow


def test_a_pool_is_used_again_until_its_workers_cannot_be_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ServiceConfig(to="a.db", workers=1, batch_size=2, slots=1, image_size=32, embedder="gist:32")
    plan, warm = make_plan(config), PoolCache(Plan.pool)
    try:
        first = warm.started(plan, config)
        assert warm.started(plan, config) is first
        (pid,) = first.pids
        monkeypatch.setattr(PreprocessPool, "is_broken", property(lambda pool: pool is first))
        second = warm.started(plan, config)
        assert second is not first
        assert pid not in second.pids
    finally:
        warm.close()
