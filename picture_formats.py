"""Formats of pictures: which are decoded, their extensions, and the bytes they begin with."""

from __future__ import annotations

from typing import Final

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The picture formats a decoder may be started for. Others have plugins that start programs or that were seen to
allocate hundreds of MiB for a file of 300 bytes (EPS, BLP, DDS, FLI), so they cannot be asked for."""

DECODABLE = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff", "mpo"})
"""Extensions of the formats we decode."""

_OTHERS = """
    heic heif avif jxl jp2 j2k jpx jpf psd psb svg svgz tga ico icns cur pcx ppm pgm pbm pnm pfm exr hdr dds eps xcf
    bpg sgi xbm xpm qoi djvu wmf emf dng cr2 cr3 nef nrw arw srf sr2 orf rw2 raf pef srw x3f 3fr erf kdc mrw
"""
KNOWN = DECODABLE.union(_OTHERS.split())
"""Extensions of pictures, whether we decode them or not. One that we cannot decode must end as a dead letter with a
reason, not disappear among the text files."""

CR2: Final = "camera raw (CR2)"

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0\x10\0\0\0CR", CR2),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    # from here on: pictures, or nearly, that are never decoded
    (b"8BPS", "PSD"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"DDS ", "DDS"),
    (b"BLP1", "BLP"),
    (b"BLP2", "BLP"),
    (b"\0\0\1\0", "ICO"),
    (b"icns", "ICNS"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"SIMPLE  =", "FITS"),
    (b"qoif", "QOI"),
    (b"FUJIFILMCCD-RAW", "camera raw (RAF)"),
    (b"IIU\0", "camera raw (RW2)"),
    (b"IIRO", "camera raw (ORF)"),
    (b"IIRS", "camera raw (ORF)"),
    (b"MMOR", "camera raw (ORF)"),
    (b"FOVb", "camera raw (X3F)"),
    (b"\0MRM", "camera raw (MRW)"),
    (b"II\x1a\0\0\0HEAPCCDR", "camera raw (CRW)"),
    (b"P1\n", "PBM"),
    (b"P2\n", "PGM"),
    (b"P3\n", "PPM"),
    (b"P4\n", "PBM"),
    (b"P5\n", "PGM"),
    (b"P6\n", "PPM"),
)
_FTYP: Final = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"mif1": "HEIC",
    b"msf1": "HEIC",
    b"crx ": "camera raw (CR3)",
}


def picture_format(head: bytes) -> str | None:
    """The picture format of these first bytes by its signature, or None. 32 bytes are enough."""
    for magic, name in _SIGNATURES:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _FTYP.get(head[8:12])
    if head[4:6] in (b"\x11\xaf", b"\x12\xaf"):
        return "FLI"
    return None
