"""``dedup``: what rules lose and leave on pictures whose truth is known; how long many take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from PIL import Image

from ..engine.dedup import Rule, decide
from .child import Measure, Measures
from .dedup_large import SAMPLE, make_synthetic
from .dedup_pictures import HARD, KINDS, distinct, write_signatures
from .harness import Options, Variant, run_rounds
from .result import Goal, Result, tabulate

_DISTINCT: Final = 20_000
_SHARE: Final = 25
"""Of so many pictures there are copies of one."""


def run(options: Options) -> Result:
    """Compare 20,000 distinct pictures (``--n``) and copies of 800; 10 times as many signatures, and 50 times.

    Raises:
        WorkerError: a variant broke down.
    """
    n = options.n or _DISTINCT
    make_pictures(options.data, n)
    for times in (10, 50):
        make_synthetic(options.data, _pictures_folder(options.data, n), times * n)
    own: dict[str, Any] = {"data": str(options.data), "n": n}
    rules = [Variant(rule, "dedup:judged", {**own, "rule": rule}, fresh=True) for rule in ("default", "strict")]
    judged = run_rounds(rules, 1)
    pairs = [Variant("all pairs", "dedup_large:large", {**own, "times": 10}, fresh=True)]
    buckets = [Variant("buckets", "dedup_large:large", {**own, "times": 50}, fresh=True)]
    timed, searched = run_rounds(pairs, 1), run_rounds(buckets, 1)
    large = {**timed.of("seconds"), **searched.of("seconds")}
    tables = [
        tabulate(
            f"Distinct pictures that stay, of {n:,}",
            "%",
            judged.of("stay"),
            goals=[Goal("default", 99.8), Goal("strict", 100)],
        ),
        tabulate(
            f"Copies that are found, {len(KINDS)} kinds of {-(-n // _SHARE):,} pictures",
            "%",
            judged.of("found"),
            goals=[Goal("default", 92)],
        ),
        tabulate(
            f"{10 * n:,} signatures compared with one another, {50 * n:,} in buckets, two threads",
            "s",
            large,
            goals=[Goal("all pairs", 480, at_most=True)],
        ),
        tabulate("The same: CPU time", "s", {**timed.of("cpu"), **searched.of("cpu")}),
        tabulate(
            "The same: peak memory of the process",
            "MiB",
            {**timed.of("mib"), **searched.of("mib")},
            goals=[Goal("all pairs", 400, at_most=True)],
        ),
        tabulate(
            f"Pairs of {SAMPLE:,} items that buckets find, of all",
            "",
            searched.of("recall"),
            goals=[Goal("buckets", 0.98)],
        ),
    ]
    return Result("dedup", tables, {**judged.skipped, **timed.skipped, **searched.skipped}, notes=_missed(judged))


def _missed(judged: Any) -> tuple[str, ...]:
    """Which kinds of copies are left, of those that are promised and of those that are not."""
    shares = {kind: judged.of(f"left, {kind}").get("default", [0.0])[0] for kind in (*KINDS, *HARD)}
    most = sorted(shares.items(), key=lambda item: -item[1])
    return ("default leaves " + ", ".join(f"{kind} {share:.0f} %" for kind, share in most if share >= 1),)


@contextmanager
def judged(data: str, n: int, rule: str) -> Generator[Measure, None, None]:
    """What a rule makes of distinct pictures and of copies."""
    folder = _pictures_folder(Path(data), n)

    def measure() -> Measures:
        decision = decide(folder, Rule.parse(rule), anew=True, workers=2)
        gone = {each.key: each.duplicate_of for each in decision.duplicates()}
        return _verdict([key.decode() for key in decision.signatures.keys], gone, n)

    yield measure


def _pictures_folder(data: Path, n: int) -> Path:
    return data / f"dedup-pictures-{n}"


def make_pictures(data: Path, n: int) -> None:
    """Make their signatures, if they are not there."""
    folder = _pictures_folder(data, n)
    if not folder.exists():
        unfinished = folder.with_suffix(".tmp")
        write_signatures(unfinished, _pictures(n))
        unfinished.rename(folder)


def _pictures(n: int) -> Iterator[tuple[str, Image.Image]]:
    for number, (key, picture) in enumerate(distinct(n)):
        yield key, picture
        if number % _SHARE == 0:
            for kind, make in {**KINDS, **HARD}.items():
                yield f"{key}~{kind}", make(picture)


def _verdict(keys: list[str], gone: dict[str, str], n: int) -> Measures:
    """Distinct pictures of which nothing stays, and copies that stay beside their picture; in percent.

    Two views of one scene are never held against each other.
    """
    stays = [key for key in keys if key not in gone]
    alive = {_picture(key) for key in stays}
    lost = [key for key in keys if "~" not in key and key not in alive and not _is_other_view(key, gone[key])]
    left = Counter(key.partition("~")[2] for key in stays if "~" in key)
    for key in alive & gone.keys():
        if _picture(gone[key]) == key:  # this copy stands for it
            left[gone[key].partition("~")[2]] -= 1
    copied = sum("~" in key for key in keys) // len({**KINDS, **HARD})
    shares = {f"left, {kind}": 100 * left[kind] / copied for kind in (*KINDS, *HARD)}
    promised = sum(left[kind] for kind in KINDS)
    found = 100 - 100 * promised / (copied * len(KINDS))
    return {"stay": 100 - 100 * len(lost) / n, "found": found, **shares}


def _picture(key: str) -> str:
    return key.partition("~")[0]


def _is_other_view(key: str, other: str) -> bool:
    scene, view = key.split("/")
    other_scene, other_view = other.split("/")
    return scene == other_scene and view.split("-")[0] != other_view.split("-")[0]
