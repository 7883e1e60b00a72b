"""The video miner in one go: make a few clips, take their frames, find the duplicates, name the pages to open.

Run it with ``make demo-video``, or ``python examples/demo_video.py FOLDER --out FOLDER``. The clips are made of the
pictures in the folder: the camera moves over three of them in each; one clip is there twice, the second time smaller
and by another encoder, and one is cut off in the middle, as a broken download is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageOps

from penstock.examples.demo_steps import folders, name_pages, penstock, pictures_in

CLIPS, SHOTS, SECONDS, RATE, SIZE = 5, 3, 2.5, 24, (480, 270)


def shot(picture: Path, zooms_in: bool) -> Iterator[Image.Image]:
    """A few seconds of a camera that moves over a picture."""
    with Image.open(picture) as opened:
        still = ImageOps.fit(ImageOps.exif_transpose(opened).convert("RGB"), (SIZE[0] * 3 // 2, SIZE[1] * 3 // 2))
    count = round(SECONDS * RATE)
    for number in range(count):
        way = number / (count - 1)
        share = 1 - 0.3 * (way if zooms_in else 1 - way)
        width, height = still.width * share, still.height * share
        left, top = (still.width - width) * way, (still.height - height) / 2
        yield still.resize(SIZE, Image.Resampling.BILINEAR, (left, top, left + width, top + height))


def make_clip(path: Path, frames: Iterator[Image.Image], codec: str = "libx264", size: tuple[int, int] = SIZE) -> None:
    """Encode pictures as a video."""
    options = {"preset": "ultrafast"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = cast("VideoStream", container.add_stream(codec, rate=RATE, options=options))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = RATE
        for picture in frames:
            frame = VideoFrame.from_ndarray(np.asarray(picture.resize(size)), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def make_clips(pictures: Sequence[Path], folder: Path) -> None:
    """The clips, the copy and the broken one."""
    folder.mkdir(parents=True, exist_ok=True)

    def frames(clip: int) -> Iterator[Image.Image]:
        for turn in range(SHOTS):
            yield from shot(pictures[(clip * SHOTS + turn) % len(pictures)], zooms_in=turn % 2 == 0)

    for clip in range(CLIPS):
        make_clip(folder / f"clip-{clip + 1}.mp4", frames(clip))
    make_clip(folder / "clip-1-again.mkv", frames(0), "mpeg4", (320, 180))
    whole = (folder / "clip-2.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(whole[: len(whole) // 2])


def main() -> None:
    options = folders(__doc__)
    pictures = pictures_in(options.images, "make demo-video")
    clips, rows = options.out / "clips", options.out / "frames"
    frames, duplicates = options.out / "frames.html", options.out / "duplicates.html"
    print(f"making {CLIPS + 2} clips in {clips}", flush=True)
    make_clips(pictures, clips)

    where = f"parquet:{rows}"
    penstock("videos", str(clips), "--to", where, "--overwrite", "--filter", "blur,black,flat", "--html", str(frames))
    table = str(options.out / "duplicates.parquet")
    penstock("dedup", where, "--rule", "vectors:0.96", "--to", table, "--html", str(duplicates))
    penstock("search", where, str(pictures[0]), "-k", "5")
    name_pages(
        {
            frames: "frames that were kept, with their times",
            duplicates: "duplicates among them: the clip that is there twice",
        }
    )


if __name__ == "__main__":
    main()
