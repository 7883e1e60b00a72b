"""Videos that are the same: found by their frames, of which no second index is needed.

Two frames match if the same frame stays for both. A video is a duplicate of another if of the informative frames of the
shorter one `SHARE` match. Frames that stay for those of very many videos (intros, logos) tell nothing, and are left
out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...preprocess.pdq import INFORMATIVE
from ...sinks.signatures import Signatures, Texts
from ...sinks.signatures.columns import decoded
from .near import Index
from .survivors import CAP

SHARE: Final = 0.8
"""Of the informative frames of the shorter video."""


@dataclass(frozen=True, slots=True)
class SameVideos:
    """Videos that are duplicates.

    Attributes:
        keepers: whom each is a duplicate of, with the share of matched frames; by key.
        capped: frames that stay for more than `CAP` videos, which were left out.
    """

    keepers: Mapping[str, tuple[str, float]]
    capped: int


def same_videos(signatures: Signatures, keeper: Index, generation: NDArray[np.int32]) -> SameVideos:
    """Find videos that are the same, once it is decided which frames stay.

    The longer one stays, then the one with the longer short side, then the first by key; of an earlier generation all
    that stayed stay.

    Args:
        signatures: of frames, whose groups are videos; what is in none does not matter.
        keeper: int64 ``[n]``, of each; -1 for those that stay.
        generation: int32 ``[n]``.
    """
    frames: dict[bytes, Counter[int]] = defaultdict(Counter)
    best: dict[bytes, tuple[int, int]] = {}
    for item, video in _informative(signatures.groups, signatures.quality):
        kept = int(keeper[item])
        frames[video][kept if kept >= 0 else item] += 1
        first, side = best.get(video, (1 << 31, 0))
        best[video] = min(first, int(generation[item])), max(side, int(signatures.short_side[item]))
    lengths = {video: of.total() for video, of in frames.items()}
    order = sorted(frames, key=lambda video: (best[video][0], -lengths[video], -best[video][1], video))
    rank = {video: place for place, video in enumerate(order)}
    matched, capped = _matched(frames)
    near: dict[bytes, list[tuple[int, bytes, float]]] = defaultdict(list)
    for (a, b), (of_a, of_b) in matched.items():
        is_shorter = (lengths[a], a) < (lengths[b], b)
        share = of_a / lengths[a] if is_shorter else of_b / lengths[b]
        if share >= SHARE:
            later, earlier = (a, b) if rank[a] > rank[b] else (b, a)
            near[later].append((rank[earlier], earlier, share))
    gone: dict[bytes, tuple[bytes, float]] = {}
    for video in order:
        stays = [(place, other, share) for place, other, share in near[video] if other not in gone]
        if stays:
            _, other, share = min(stays)
            gone[video] = other, share
    return SameVideos({decoded(key): (decoded(gone[key][0]), gone[key][1]) for key in sorted(gone)}, capped)


def _informative(groups: Texts, quality: NDArray[np.uint8]) -> Iterator[tuple[int, bytes]]:
    """Frames that show something, each with its video."""
    telling = quality >= INFORMATIVE
    return ((item, video) for item, video in enumerate(groups) if video and telling[item])


def _matched(frames: Mapping[bytes, Counter[int]]) -> tuple[dict[tuple[bytes, bytes], tuple[int, int]], int]:
    """For each two videos with frames that match how many frames of either do; and how many frames say nothing."""
    videos: dict[int, list[bytes]] = defaultdict(list)
    for video in sorted(frames):
        for stays in frames[video]:
            videos[stays].append(video)
    found: dict[tuple[bytes, bytes], tuple[int, int]] = {}
    capped = 0
    for stays, of in videos.items():
        if len(of) > CAP:
            capped += 1
            continue
        for a, b in combinations(of, 2):
            of_a, of_b = found.get((a, b), (0, 0))
            found[a, b] = of_a + frames[a][stays], of_b + frames[b][stays]
    return found, capped
