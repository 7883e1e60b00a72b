"""Near-duplicates as an algorithm: held against a model that compares everything with everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.dedup import Duplicate, Rule, Signatures, SignatureWriter, decide
from penstock.errors import ConfigError

WIDTH = 6


@dataclass(frozen=True)
class Thing:
    """One item, as the model knows it: all a signature is made of."""

    key: str
    vector: tuple[int, ...]
    bits: frozenset[int]
    quality: int
    short_side: int
    content: int


def write(folder: Path, name: str, things: Sequence[Thing]) -> None:
    """A part with these."""
    pdq = np.zeros((len(things), 32), np.uint8)
    digest = np.zeros((len(things), 16), np.uint8)
    for row, thing in enumerate(things):
        for bit in thing.bits:
            pdq[row, bit // 8] |= 1 << bit % 8
        digest[row, 0] = thing.content
    SignatureWriter(folder).write(
        name,
        Signatures.of(
            [thing.key for thing in things],
            np.array([thing.vector for thing in things], np.float32).reshape(-1, WIDTH),
            pdq=pdq,
            digest=digest,
            quality=[thing.quality for thing in things],
            short_side=[thing.short_side for thing in things],
        ),
    )


def quantized(thing: Thing) -> list[int]:
    peak = max(map(abs, thing.vector))
    return [round(each * (127 / peak)) if peak else 0 for each in thing.vector]


def similarity(a: Thing, b: Thing, rule: Rule) -> float | None:
    """How near two are if they are duplicates, by the words of the rule."""
    away = len(a.bits ^ b.bits)
    if rule.pdq is not None and (away > rule.pdq or min(a.quality, b.quality) < rule.quality):
        return None
    if rule.cosine is None:
        return 1 - away / 256
    ours, theirs = quantized(a), quantized(b)
    length = math.sqrt(sum(x * x for x in ours) * sum(x * x for x in theirs))
    cosine = sum(x * y for x, y in zip(ours, theirs, strict=True)) / length if length else 0.0
    return cosine if cosine >= rule.cosine else None


def rank(thing: Thing) -> tuple[int, int, bytes]:
    return -thing.short_side, -thing.quality, thing.key.encode()


def model(things: Sequence[Thing], rule: Rule, stays: Sequence[Thing] = ()) -> dict[str, tuple[str, float]]:
    """Who goes, with its keeper: greedy by rank, of each item the first keeper that it is near."""
    kept = list(stays)
    twins: dict[int, Thing] = {}
    gone: dict[str, tuple[str, float]] = {}
    for thing in sorted(things, key=rank):
        first = twins.setdefault(thing.content, thing) if thing.content else thing
        if first is not thing:
            gone[thing.key] = gone.get(first.key, (first.key, 1.0))
            continue
        near = [(other.key, how) for other in kept if (how := similarity(thing, other, rule)) is not None]
        if near:
            gone[thing.key] = near[0]
        else:
            kept.append(thing)
    return gone


def found(duplicates: Sequence[Duplicate]) -> dict[str, tuple[str, float]]:
    return {each.key: (each.duplicate_of, each.similarity) for each in duplicates}


SOME_BITS = st.sets(st.integers(0, 255), max_size=24).map(frozenset)


@st.composite
def collections(draw: st.DrawFn) -> list[Thing]:
    """Items around a few centres, so that near ones are common; items of one content are alike but for their keys."""
    centres = draw(st.lists(st.tuples(*[st.integers(-9, 9)] * WIDTH), min_size=1, max_size=4))
    shapes = [
        (
            tuple(each + draw(st.integers(-1, 1)) for each in draw(st.sampled_from(centres))),
            draw(SOME_BITS),
            draw(st.sampled_from([10, 50, 80])),
        )
        for _ in range(draw(st.integers(1, 6)))
    ]
    things = []
    for number in range(draw(st.integers(0, 30))):
        at = draw(st.integers(0, len(shapes) - 1))
        vector, bits, quality = shapes[at]
        if draw(st.booleans()):
            things.append(Thing(f"é{number}", vector, bits, quality, draw(st.integers(1, 3)), at + 1))
        else:
            own = tuple(each + draw(st.integers(0, 1)) for each in vector)
            things.append(Thing(f"{number}", own, bits ^ draw(SOME_BITS), quality, draw(st.integers(1, 3)), 0))
    return things


RULES = st.sampled_from(["default", "strict", "vectors:0.9", "vectors:0.97"])


@pytest.mark.slow
@settings(deadline=None)
@given(collections(), RULES, st.randoms(use_true_random=False), st.integers(1, 4))
def test_who_goes_is_what_comparing_all_by_rank_says_whatever_the_order(
    things: list[Thing], rule: str, random: Random, parts: int
) -> None:
    """In parts of any size, in any order, some items twice, with one thread or four."""
    with TemporaryDirectory() as folder:
        shuffled = [*things, *things[:3]]
        random.shuffle(shuffled)
        for part in range(parts):
            write(Path(folder), f"{part}", shuffled[part::parts])
        decision = decide(Path(folder), Rule.parse(rule), workers=parts)
        duplicates = list(decision.duplicates())
    assert found(duplicates) == model(things, Rule.parse(rule))
    assert [each.key.encode() for each in duplicates] == sorted(each.key.encode() for each in duplicates)


@pytest.mark.slow
@settings(deadline=None)
@given(collections(), st.integers(0, 30), RULES)
def test_of_two_runs_the_second_keeps_who_stayed_and_judges_what_is_new(
    things: list[Thing], split: int, rule: str
) -> None:
    """Nobody who stayed goes; no two that stay are near; whoever goes is near its keeper itself."""
    chosen = Rule.parse(rule)
    first, later = things[:split], things[split:]
    with TemporaryDirectory() as folder:
        write(Path(folder), "0", first)
        before = found(list(decide(Path(folder), chosen).duplicates()))
        write(Path(folder), "1", later)
        after = found(list(decide(Path(folder), chosen).duplicates()))
        assert found(list(decide(Path(folder), chosen).duplicates())) == after
    assert {key: after[key] for key in before} == before
    assert not {each.key for each in first} & (after.keys() - before.keys())
    everything = {each.key: each for each in things}
    stays = [each for key, each in everything.items() if key not in after]
    for at, a in enumerate(stays):
        for b in stays[at + 1 :]:
            assert similarity(a, b, chosen) is None
            assert not a.content or a.content != b.content
    for key, (keeper, how) in after.items():
        a, b = everything[key], everything[keeper]
        assert keeper not in after
        assert how == (1.0 if a.content and a.content == b.content else similarity(a, b, chosen))


def test_an_item_that_changed_is_judged_anew_and_so_are_its_duplicates(tmp_path: Path) -> None:
    """Nothing stays a duplicate of what is not there any more."""
    big, small = (Thing(key, (1, 2, 3, 4, 5, 6), frozenset(), 80, side, 0) for key, side in (("big", 9), ("small", 1)))
    write(tmp_path, "0", [big, small])
    assert found(list(decide(tmp_path, Rule.parse("default")).duplicates())) == {"small": ("big", 1.0)}
    write(tmp_path, "1", [Thing("big", (6, -5, 4, -3, 2, -1), frozenset(), 80, 9, 0)])
    assert not list(decide(tmp_path, Rule.parse("default")).duplicates())


def test_deciding_anew_forgets_who_stayed(tmp_path: Path) -> None:
    """A better copy that came later takes the place of the first."""
    small, big = (Thing(key, (1, 2, 3, 4, 5, 6), frozenset(), 80, side, 0) for key, side in (("small", 1), ("big", 9)))
    write(tmp_path, "0", [small])
    decide(tmp_path, Rule.parse("default"))
    write(tmp_path, "1", [big])
    assert found(list(decide(tmp_path, Rule.parse("default")).duplicates())) == {"big": ("small", 1.0)}
    assert found(list(decide(tmp_path, Rule.parse("default"), anew=True).duplicates())) == {"small": ("big", 1.0)}


@pytest.mark.parametrize("text", ["", "vectors", "vectors:", "vectors:0.2", "vectors:nan", "vectors:1.1", "Default"])
def test_a_rule_that_is_none_is_refused_with_those_that_are(text: str) -> None:
    """The message says what to write."""
    with pytest.raises(ConfigError, match=r"vectors:0\.97"):
        Rule.parse(text)


def test_what_killed_runs_have_left_half_written_goes(tmp_path: Path) -> None:
    """Half a kilobyte an item, under the names of processes that are no more."""
    left = [tmp_path / f".{name}.999999" for name in ("merged.set", "decided-default.set", "000000000001.signatures")]
    for path in left:
        path.write_bytes(b"PENSIGNA")
    assert decide(tmp_path, Rule.parse("default")).items == 0
    assert not any(path.exists() for path in left)


def test_vectors_of_another_length_take_buckets_of_their_own(tmp_path: Path) -> None:
    """Those that were trained on the vectors of before are no use; a part without items says nothing of lengths."""
    writer, rule = SignatureWriter(tmp_path), Rule.parse("vectors:0.97")
    for dimension in (2, 5):
        writer.write("0", Signatures.of([], np.zeros((0, 7), np.float32)))
        writer.write("1", Signatures.of(["a", "b"], np.ones((2, dimension), np.float32)))
        assert [each.key for each in decide(tmp_path, rule, all_pairs=1).duplicates()] == ["b"]
