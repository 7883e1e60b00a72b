"""Whatever a file holds, decoding ends in a picture or in the right ItemError, quickly and in little memory."""

import contextlib
import io
import os
import random
import socket
import stat
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from penstock.errors import (
    DecodeError,
    ItemError,
    ReadError,
    TooLargeError,
    TruncatedError,
    UnreadableError,
    UnsupportedFormatError,
)
from penstock.fetch import read_file
from penstock.picture_formats import FORMATS
from penstock.preprocess.decode import decode
from penstock.preprocess.decode.decode import decode_into
from penstock.preprocess.decode.headers import refusal, webp_size
from penstock.preprocess.kernel.canvas import make_canvas
from penstock.preprocess.spec import PreprocessSpec
from penstock.tests.drawn import tiff

SPEC = PreprocessSpec(size=64, resize=64)
CANVAS = make_canvas(SPEC, 1)[0]


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def noisy(size: int = 160) -> Image.Image:
    """A picture that does not compress, so that a cut hits pixels."""
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (size, size, 3), dtype=np.uint8))


FILES = {
    "JPEG": encoded(noisy(), "JPEG", quality=90),
    "progressive": encoded(noisy(), "JPEG", quality=90, progressive=True),
    "PNG": encoded(noisy(), "PNG"),
    "WEBP": encoded(noisy(), "WEBP", quality=90),
    "GIF": encoded(noisy(), "GIF"),
    "BMP": encoded(noisy(), "BMP"),
    "TIFF": encoded(noisy(), "TIFF", compression="tiff_lzw"),
}

GREY = np.zeros((8, 8), np.uint16)

REFUSED = [
    (b"", UnreadableError, "empty file"),
    (b"\0" * 5000, UnreadableError, "only zero bytes"),
    (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", UnreadableError, "HTML"),
    (b"\n\n  <HTML lang=en>", UnreadableError, "HTML"),
    (b"\xef\xbb\xbf<?xml version='1.0'?>", UnreadableError, "XML"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'>", UnreadableError, "SVG"),
    (b'{"error": "AccessDenied"}', UnreadableError, "JSON"),
    (b"AccessDenied: no such key\n", UnreadableError, "plain text"),
    (b"%PDF-1.7 ...", UnreadableError, "PDF"),
    (b"PK\x03\x04 ...", UnreadableError, "ZIP"),
    (b"\x1f\x8b\x08 ...", UnreadableError, "gzip"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", UnreadableError, "Git LFS"),
    (b"RIFF\x24\0\0\0WAVEfmt ", UnreadableError, "RIFF"),
    (b"\0\0\0\x18ftypmp42....", UnreadableError, "film"),
    (b"\x7fELF\x02\x01", UnreadableError, "program"),
    (b"\x07\x91\xfe\xa3junk\xff", UnreadableError, "07 91 fe a3"),
    (b"\xff\xd8", UnreadableError, "ff d8"),
    (b"\xff\xd8\xff", UnreadableError, "only the signature of a JPEG"),
    (b"\x89PNG\r\n\x1a\n", UnreadableError, "only the signature of a PNG"),
    (b"GIF89a", UnreadableError, "only the signature of a GIF"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", UnsupportedFormatError, "EPS"),
    (b"\xc5\xd0\xd3\xc6" + b"\0" * 99, UnsupportedFormatError, "EPS"),
    (b"8BPS\0\1" + b"\0" * 99, UnsupportedFormatError, "PSD"),
    (b"BLP2" + b"\0" * 200, UnsupportedFormatError, "BLP"),
    (b"DDS |\0\0\0" + b"\0" * 200, UnsupportedFormatError, "DDS"),
    (b"\x0c\0\0\0\x11\xaf" + b"\0" * 122, UnsupportedFormatError, "FLI"),
    (b"\0\0\1\0\1\0" + b"\0" * 99, UnsupportedFormatError, "ICO"),
    (b"\0\0\0\x1cftypheic" + b"\0" * 99, UnsupportedFormatError, "HEIC"),
    (b"\0\0\0\x1cftypavif" + b"\0" * 99, UnsupportedFormatError, "AVIF"),
    (b"\0\0\0\x18ftypcrx " + b"\0" * 99, UnsupportedFormatError, r"camera raw \(CR3\)"),
    (b"II*\0\x10\0\0\0CR\2\0" + b"\0" * 99, UnsupportedFormatError, r"camera raw \(CR2\).*convert the file"),
    (b"FUJIFILMCCD-RAW 0201" + b"\0" * 99, UnsupportedFormatError, r"camera raw \(RAF\)"),
    (b"IIU\0\x18\0\0\0" + b"\0" * 99, UnsupportedFormatError, r"camera raw \(RW2\)"),
    (tiff(GREY, _50706=0x401), UnsupportedFormatError, r"camera raw \(DNG\).*convert the file"),
    (tiff(GREY, _254=1, _271=0, _330=0), UnsupportedFormatError, r"camera raw \(TIFF/EP\)"),
    (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 99, UnsupportedFormatError, "JPEG 2000"),
    (b"SIMPLE  =                    T" + b" " * 99, UnsupportedFormatError, "FITS"),
    (b"P6\n2 2\n255\n" + b"\0" * 12, UnsupportedFormatError, "PPM"),
    (b"\0\0\2\0" + b"\0" * 8 + b"\x02\0\x02\0\x18\0" + b"\0" * 12, UnreadableError, "TGA|unknown"),
]


@pytest.mark.parametrize(("data", "error", "says"), REFUSED, ids=[f"{s}-{i}" for i, (_, _, s) in enumerate(REFUSED)])
def test_refused_by_signature_says_what_it_looks_like(data: bytes, error: type[ItemError], says: str) -> None:
    """Nothing here reaches a decoder; the message tells a person what the file is."""
    with pytest.raises(error, match=says):
        decode_into(data, SPEC, CANVAS)


@pytest.mark.parametrize("data", [d for d, _, _ in REFUSED])
def test_refused_files_start_no_plugin(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow is not even asked to open what is not on the allow-list: no plugin, no Ghostscript."""

    def opened(*_: object, **__: object) -> None:
        pytest.fail("Pillow was asked")

    monkeypatch.setattr(decode, "PLUGINS", dict.fromkeys(FORMATS, opened))
    monkeypatch.setattr(subprocess, "Popen", opened)
    with pytest.raises(DecodeError):
        decode_into(data, SPEC, CANVAS)


def test_only_the_plugin_of_the_signature_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is shown to one plugin, whatever its name says."""
    asked: list[str] = []

    def spied(name: str) -> Any:
        def plugin(*given: Any) -> Any:
            asked.append(name)
            return real[name](*given)

        return plugin

    real = decode.PLUGINS
    monkeypatch.setattr(decode, "PLUGINS", {name: spied(name) for name in real})
    for data in FILES.values():
        decode_into(data, SPEC, CANVAS)
    assert asked == ["JPEG", "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]


def test_format_that_was_not_allowed_is_refused_with_the_knob() -> None:
    """The user's own narrower list holds, and the message says which knob to turn."""
    with pytest.raises(UnsupportedFormatError, match=r"GIF .*formats"):
        decode_into(FILES["GIF"], SPEC.replace(formats=("JPEG", "PNG")), CANVAS)


@pytest.mark.parametrize("name", ["JPEG", "progressive", "PNG", "WEBP"])
@pytest.mark.parametrize("decoder", ["pillow", "simplejpeg"])
def test_each_of_199_truncations_is_refused_as_truncated(name: str, decoder: Any) -> None:
    """Cut anywhere, a file is never a half-grey picture."""
    data, spec = FILES[name], SPEC.replace(decoder=decoder)
    for k in range(1, 200):
        with pytest.raises(TruncatedError):
            decode_into(data[: len(data) * k // 200], spec, CANVAS)


@pytest.mark.parametrize("name", sorted(FILES))
def test_truncations_of_every_format_are_refused(name: str) -> None:
    """A few cuts for all formats, on every run."""
    data = FILES[name]
    for k in range(1, 20):
        with pytest.raises(TruncatedError):
            decode_into(data[: len(data) * k // 20], SPEC, CANVAS)


def png(width: int, height: int, bits: int = 1, kind: int = 0, body: bytes = b"") -> bytes:
    """A PNG with any promise in its header."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, kind, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def promising_jpeg(width: int, height: int) -> bytes:
    """A JPEG whose frame header says another size."""
    data = bytearray(FILES["JPEG"])
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def promising_webp(width: int, height: int) -> bytes:
    """An extended WEBP whose canvas says another size."""
    data = bytearray(encoded(noisy(), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


BOMBS = [
    ("1-bit PNG of 169 Mpx", png(13_000, 13_000, body=bytes(1626 * 13_000))),
    ("PNG of 2^31 a side", png(2**31 - 1, 2**31 - 1)),
    ("PNG, long side", png(40_000, 10)),
    ("PNG of 65 Mpx", png(8_125, 8_000)),
    ("JPEG of 65535 a side", promising_jpeg(65535, 65535)),
    ("WEBP of 16383 a side", promising_webp(16383, 16383)),
    ("GIF of 65535 a side", b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;" + b"\0" * 20),
    ("TIFF, one tile", tiff(GREY, _259=5, _322=16_384, _323=16_384, _324=8, _325=128)),
    (
        "BMP",
        b"BM" + b"\0" * 8 + b"\x36\0\0\0\x28\0\0\0" + (2**30).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + bytes(24),
    ),
]


@pytest.mark.parametrize("tags", [{}, {"_254": 1}, {"_330": 0, "_271": 0}])
def test_a_tiff_that_is_no_raw_file_is_decoded(tags: dict[str, int]) -> None:
    """A preview that stands alone is the picture; scanners and phones write their make, too."""
    decode_into(tiff(GREY, **tags), SPEC, CANVAS)


def test_messages_hold_no_address() -> None:
    """The same failure has the same words each time, so that dead letters can be counted by them."""
    broken = (b"GIF89a" + b"\1" * 40, b"BM" + b"\1" * 40, b"II*\0" + b"\1" * 40, FILES["PNG"][:20] + b"\1" * 40)
    for data in (*broken, *(file[: len(file) // 2] for file in FILES.values())):
        with pytest.raises(DecodeError) as caught:
            decode_into(data, SPEC, CANVAS)
        assert "0x" not in str(caught.value)
    assert "0x" not in str(refusal("PNG", b"", ValueError("cannot read <_io.BytesIO object at 0x7f6c827776f0>")))


@pytest.mark.parametrize("filtered", ["error", "ignore"])
@pytest.mark.parametrize(("what", "data"), BOMBS, ids=[w for w, _ in BOMBS])
def test_bombs_are_refused_by_their_header(
    what: str, data: bytes, filtered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many pixels are refused before they exist, whatever the process does with Pillow's warning."""

    def loaded(*_: object, **__: object) -> None:
        pytest.fail("pixels were made")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", loaded)
    if what.startswith("WEBP"):  # its plugin allocates the canvas while opening
        monkeypatch.setattr(decode, "PLUGINS", {"WEBP": loaded})
    with warnings.catch_warnings():
        warnings.simplefilter(filtered, Image.DecompressionBombWarning)
        with pytest.raises(TooLargeError):
            decode_into(data, SPEC, CANVAS)


def test_limit_is_the_users() -> None:
    """The same picture passes or not by max_pixels and max_side, and the message names them."""
    data = FILES["PNG"]
    decode_into(data, SPEC.replace(max_pixels=160 * 160, max_side=160), CANVAS)
    with pytest.raises(TooLargeError, match="max_pixels=25599"):
        decode_into(data, SPEC.replace(max_pixels=160 * 160 - 1), CANVAS)
    with pytest.raises(TooLargeError, match="max_side=159"):
        decode_into(data, SPEC.replace(max_side=159), CANVAS)
    for source in (noisy(), np.asarray(noisy())):
        with pytest.raises(TooLargeError, match="max_side=159"):
            decode_into(source, SPEC.replace(max_side=159), CANVAS)


@pytest.mark.parametrize("kind", ["VP8 ", "VP8L", "VP8X"])
def test_webp_size_is_read_from_each_kind_of_header(kind: str) -> None:
    """Our own reading of the header agrees with the file."""
    image = Image.new("RGBA" if kind == "VP8X" else "RGB", (123, 45))
    options: dict[str, Any] = {"lossless": kind == "VP8L"}
    if kind == "VP8X":
        options |= {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}
    data = encoded(image, "WEBP", **options)
    assert data[12:16] == kind.encode()
    assert webp_size(data) == (123, 45)
    assert webp_size(data[:20]) is None


@pytest.mark.parametrize(
    "error",
    [ValueError("v"), SyntaxError("s"), IndexError(), RuntimeError("n"), OverflowError("o"), MemoryError(),
     UnicodeDecodeError("utf-8", b"x", 0, 1, "u"), OSError("o"), ZeroDivisionError(), RecursionError(), KeyError("k"),
     AssertionError(), Image.DecompressionBombError("b"), Image.DecompressionBombWarning("w")],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_any_exception_of_a_plugin_costs_one_item(error: Exception, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every exception class seen from a plugin, and some more, becomes a DecodeError with its cause."""

    def fail(self: Image.Image) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("PIL.ImageFile.ImageFile.load", fail)
        with pytest.raises(DecodeError) as caught:
            decode_into(FILES[name], SPEC, CANVAS)
    assert caught.value.__cause__ is error
    decode_into(FILES[name], SPEC, CANVAS)  # and the next one is well


@contextlib.contextmanager
def odd_file(kind: str, folder: Path) -> Generator[Path, None, None]:
    """Something at a path that is not a regular file."""
    path = folder / "x.jpg"
    if kind == "directory":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            here = Path.cwd()
            os.chdir(folder)
            sock.bind("x.jpg")
            os.chdir(here)
            yield path
            return
    elif kind == "character device":
        path.symlink_to("/dev/zero")
    yield path


@pytest.mark.parametrize("kind", ["directory", "FIFO", "socket", "character device"])
def test_what_is_no_regular_file_is_refused_unopened(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FIFO would wait for ever, a device never end: neither is opened."""

    def opened(*_: object) -> int:
        pytest.fail("it was opened")

    with odd_file(kind, tmp_path) as path:
        monkeypatch.setattr(os, "open", opened)
        with pytest.raises(ReadError, match=f"not a regular file but a {kind}"):
            decode_into(str(path), SPEC, CANVAS)


def test_a_fifo_swapped_in_after_the_check_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race between looking and opening is harmless too."""
    path = tmp_path / "x"
    path.write_bytes(b"x")
    looked = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, "stat", lambda _: looked)
    with pytest.raises(ReadError, match="FIFO"):
        read_file(str(path), 100)


@pytest.mark.parametrize("path", ["/no/such/file", "a\0b", "x" * 5000, ""])
def test_paths_that_cannot_be_read_are_read_errors(path: str) -> None:
    """Not there, impossible, too long: an item error each."""
    with pytest.raises(ReadError):
        decode_into(path, SPEC, CANVAS)


def test_file_without_permission_is_a_read_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says is passed on."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "x.png"
    path.write_bytes(FILES["PNG"])
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ReadError, match="Permission denied"):
        decode_into(str(path), SPEC, CANVAS)


def test_large_file_is_refused_unread(tmp_path: Path) -> None:
    """A sparse file of a terabyte costs nothing."""
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(2**34)
    with pytest.raises(TooLargeError, match="max_file_bytes"):
        decode_into(str(path), SPEC, CANVAS)


def test_empty_file_on_disk_is_unreadable(tmp_path: Path) -> None:
    """Zero bytes are named as such."""
    (tmp_path / "x.jpg").touch()
    with pytest.raises(UnreadableError, match="empty file"):
        decode_into(tmp_path / "x.jpg", SPEC, CANVAS)


def test_file_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    """Names are bytes to the system; surrogates carry them."""
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    Path(name).write_bytes(FILES["PNG"])
    assert read_file(name, 2**20) == FILES["PNG"]
    assert decode_into(name, SPEC, CANVAS).format == "PNG"


def test_files_are_closed(tmp_path: Path) -> None:
    """No descriptor is left, whether the read went well or not."""
    (tmp_path / "good").write_bytes(FILES["PNG"])
    (tmp_path / "bad").write_bytes(b"<html>")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("good", "bad", "missing") * 20:
        with contextlib.suppress(ItemError):
            decode_into(str(tmp_path / name), SPEC, CANVAS)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert stat.S_ISREG((tmp_path / "good").stat().st_mode)


def settle(data: bytes, spec: PreprocessSpec) -> None:
    """A picture or an ItemError: anything else fails the test that calls this."""
    with contextlib.suppress(ItemError):
        placed = decode_into(data, spec, CANVAS)
        assert all(np.isfinite(placed.params))
        assert 1 <= placed.params[4] <= CANVAS.shape[1]
        assert 1 <= placed.params[5] <= CANVAS.shape[0]


HEADS = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"II*\0\x08\0\0\0",
    b"MM\0*",
    b"RIFF\xff\0\0\0WEBPVP8X",
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(HEADS), st.binary(max_size=400))
def test_random_bytes_are_settled(head: bytes, tail: bytes) -> None:
    """Signatures with nonsense behind them never raise anything but an ItemError."""
    settle(head + tail, SPEC)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 2**32), st.integers(1, 30), st.booleans())
def test_mutated_files_are_settled(name: str, seed: int, changes: int, head_only: bool) -> None:
    """Valid files with some bytes changed, moved or cut out never raise anything but an ItemError."""
    rng, data = random.Random(seed), bytearray(FILES[name])
    for _ in range(changes):
        at = rng.randrange(min(len(data), 700 if head_only else len(data)))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at : at + rng.randrange(1, 50)]
            case _:
                data[at:at] = data[rng.randrange(len(data)) :][: rng.randrange(1, 50)]
    settle(bytes(data), SPEC.replace(decoder="simplejpeg" if seed % 2 else "pillow"))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["L", "RGB", "RGBA", "P", "1", "I;16"]), st.booleans())
def test_pictures_of_any_size_are_settled_well(width: int, height: int, mode: str, squash: bool) -> None:
    """Every size, however odd, is placed within the canvas and keeps its own size in the books."""
    image = Image.new(mode, (width, height))
    placed = decode_into(image, SPEC.replace(resize=None if squash else 64), CANVAS)
    assert (placed.width, placed.height) == (width, height)
    assert max(placed.params[2:4]) <= 2.04
    settle(encoded(image, "PNG"), SPEC)


def test_a_thousand_refusals_keep_memory_flat() -> None:
    """Errors hold nothing of the files they came from once they are gone."""
    code = f"""
import resource, sys
sys.path[:0] = {[str(p) for p in sys.path]!r}
from penstock.preprocess.decode import decode
from penstock.preprocess.kernel.canvas import make_canvas
from penstock.preprocess.decode.decode import decode_into
from penstock.picture_formats import FORMATS
from penstock.preprocess.spec import PreprocessSpec
from penstock.tests.drawn import tiff
from penstock.errors import ItemError
spec = PreprocessSpec(size=64, resize=64); canvas = make_canvas(spec, 1)[0]
data = open(sys.argv[1], 'rb').read()
def some(n):
    for i in range(n):
        try: decode_into(data[:1000 + i % 50_000], spec, canvas)
        except ItemError: pass
some(200); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
some(1000); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    with tempfile.NamedTemporaryFile() as file:
        file.write(FILES["PNG"])
        file.flush()
        done = subprocess.run([sys.executable, "-c", code, file.name], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10_000  # KiB
