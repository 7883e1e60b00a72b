"""Settings of jobs on videos that are more than a number or a word."""

from __future__ import annotations

import pytest

from penstock.engine.config.videos import VideoConfig
from penstock.errors import ConfigError


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({}, {}),
        ("blur=0.05, black_mean=10", {"blur": 0.05, "black_mean": 10.0}),
        ({"blur": 0.05, "noise": 8}, {"blur": 0.05}),
    ],
)
def test_thresholds_of_filters_are_said_in_either_spelling(said: object, meant: dict[str, float]) -> None:
    """As a text, or as a mapping; what is the default is not kept. A saved configuration is read again."""
    config = VideoConfig(to="parquet:out", filter="blur", thresholds=said)
    assert config.thresholds == meant
    assert VideoConfig(to="parquet:out", thresholds=config.model_dump()["thresholds"]).thresholds == meant


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("blurr=1", "thresholds.*there is no 'blurr', there are black_mean, .*; did you mean 'blur'"),
        ("blur", "thresholds.*'blur': they are written name=number"),
        ({"blur": -1}, "thresholds.*blur=-1.*must be a finite number from 0 up"),
        (5, "thresholds"),
    ],
)
def test_wrong_thresholds_are_refused(said: object, message: str) -> None:
    """By name, with what there is."""
    with pytest.raises(ConfigError, match=message):
        VideoConfig(to="parquet:out", thresholds=said)


def test_rows_that_were_chosen_by_other_thresholds_are_another_jobs() -> None:
    """Only where a filter asks for them."""

    def chosen(**said: object) -> str:
        return VideoConfig(to="parquet:out", **said).own_fingerprints["frames"]

    assert chosen(filter="blur") != chosen(filter="blur", thresholds="blur=0.05")
    assert chosen(filter="blur", thresholds="blur=0.05") == chosen(filter=["blur"], thresholds={"blur": "0.050"})
    assert chosen(thresholds="blur=0.05") == chosen()
