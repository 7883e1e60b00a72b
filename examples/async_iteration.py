"""A pipeline read with ``async for``, beside another task of the same asyncio loop.

    python examples/async_iteration.py

A coroutine takes thumbnails as they are made and sends them over a connection (here: to a server in the same process),
while a second task counts what has arrived. Decoding runs in the pipeline's threads, never in the loop's.
"""

from __future__ import annotations

import asyncio
import io
from contextlib import suppress
from pathlib import Path

from PIL import Image

import penstock

PHOTOS = Path(__file__).parent / "photos"


def thumbnail(path: Path) -> bytes:
    """A small JPEG of a photograph."""
    with Image.open(path) as image:
        image.thumbnail((64, 64))
        out = io.BytesIO()
        image.convert("RGB").save(out, "JPEG")
        return out.getvalue()


async def send(writer: asyncio.StreamWriter) -> int:
    """Send all thumbnails, each behind its length; how many."""
    pipeline = (
        penstock.PipelineBuilder()
        .add_source(sorted(PHOTOS.glob("*.jpg")))
        .pipe(thumbnail, concurrency=2, output_order="input")
        .add_sink()
        .build(num_threads=2)
    )
    sent = 0
    async with pipeline.auto_stop() as stream:
        async for picture in stream:
            writer.write(len(picture).to_bytes(4) + picture)
            await writer.drain()
            sent += 1
    writer.close()
    await writer.wait_closed()
    return sent


async def main() -> None:
    sizes: list[int] = []
    received = asyncio.Event()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            with suppress(asyncio.IncompleteReadError):  # the end
                sizes.append(len(await reader.readexactly(int.from_bytes(await reader.readexactly(4)))))
        writer.close()
        received.set()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        sent = await send(writer)
        await received.wait()
    print(f"sent {sent} thumbnails, received {len(sizes)} with {sum(sizes)} bytes")


if __name__ == "__main__":
    asyncio.run(main())
