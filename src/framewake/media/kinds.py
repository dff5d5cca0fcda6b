"""What a picture's file is by its first bytes, whatever its name: read, a clip, or refused with advice."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

HEAD_BYTES = 4096

Reader = Literal["pillow", "heif", "tiff", "clip", "none"]


class Kind(NamedTuple):
    """A kind of file. ``advice`` is what becomes of it, or the way out; ``demuxer`` is FFmpeg's name for a clip's."""

    name: str
    reader: Reader
    advice: str
    fits: Callable[[bytes], bool]
    demuxer: str = ""


def _at(place: int, *beginnings: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[place:].startswith(beginnings)


def _like(pattern: bytes) -> Callable[[bytes], bool]:
    found = re.compile(pattern, re.DOTALL | re.IGNORECASE)
    return lambda head: found.match(head) is not None


def _riff(kind: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[:4] == b"RIFF" and head[8:12] == kind


def _brands(head: bytes) -> list[bytes]:
    """The brands of an ISO media file, the major one first."""
    if head[4:8] != b"ftyp":
        return []
    size = min(int.from_bytes(head[:4], "big"), len(head))
    return [head[8:12], *(head[place : place + 4] for place in range(16, size - 3, 4))]


def _branded(*names: bytes) -> Callable[[bytes], bool]:
    """By the major brand, or by any where that one only says "a picture" or "pictures"."""

    def fits(head: bytes) -> bool:
        brands = _brands(head)
        if not brands:
            return False
        return brands[0] in names or (brands[0] in (b"mif1", b"msf1", b"miaf") and any(b in names for b in brands))

    return fits


def _is_transport(head: bytes) -> bool:
    """MPEG-TS, whose packets of 188 bytes begin with 0x47; cameras put 4 bytes before each."""
    return any(head[start : start + 3 * step : step] == b"GGG" for start, step in ((0, 188), (4, 192)))


def _is_text(head: bytes) -> bool:
    try:
        text = head[: max(len(head) - 4, 8)].decode("utf-8")  # a character may be cut at the end
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)


_FRAME = "The last frame is taken, or the first with --first-frame; training reads its frames."
DEVELOP = "Develop it in the camera's program or a photo editor and save it as JPEG or PNG."
RAW = f"a camera's raw picture. {DEVELOP}"
_EDITOR = "Save a copy as PNG, in which all layers are one."
_AS_PNG = "Open it in a viewer and save it as PNG."
HEIF_ADVICE = "Read where the library for it is installed (`pip install pillow-heif`); else save it as JPEG or PNG."

# The first that fits counts.
KINDS: tuple[Kind, ...] = (
    Kind("JPEG", "pillow", "Of a file with several (MPO), the first picture.", _at(0, b"\xff\xd8\xff")),
    Kind("PNG", "pillow", "Of a moving one (APNG), the last frame or the first.", _at(0, b"\x89PNG\r\n\x1a\n")),
    Kind("WebP", "pillow", "Of a moving one, the last frame or the first.", _riff(b"WEBP")),
    Kind("GIF", "pillow", "Of a moving one, the last frame or the first.", _at(0, b"GIF87a", b"GIF89a")),
    Kind("AVIF", "pillow", "With Pillow 11.3 or newer.", _branded(b"avif", b"avis")),
    Kind(
        "HEIC, HEIF",
        "heif",
        HEIF_ADVICE,
        _branded(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"),
    ),
    Kind("JPEG 2000", "pillow", "Still pictures.", _at(0, b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
    Kind("CR2, a camera's raw picture", "none", DEVELOP, _at(8, b"CR\x02")),
    Kind("CR3, a camera's raw picture", "none", DEVELOP, _branded(b"crx ")),
    Kind("JPEG XR", "none", _AS_PNG, _at(0, b"II\xbc")),
    Kind("TIFF", "tiff", "8 and 16 bits, and whole numbers of 32; of several pages, the first that is no preview.",
         _at(0, b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    Kind("BMP", "pillow", "Every kind that Pillow reads.", _like(rb"BM.{12}[\x0c\x28\x40\x34\x38\x6c\x7c]\0\0\0")),
    Kind("PPM, PGM, PBM", "pillow", "Of 16 bits too.", _like(rb"P[1-6][\s#]")),
    Kind("JPEG XL", "none", "Save it as PNG, such as with `djxl in.jxl out.png`.",
         _at(0, b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    Kind("a Photoshop document (PSD)", "none", _EDITOR, _at(0, b"8BPS")),
    Kind("a GIMP picture (XCF)", "none", _EDITOR, _at(0, b"gimp xcf")),
    Kind("a PDF document", "none", "Export the page as PNG.", _like(rb".{0,1000}?%PDF-")),
    Kind("PostScript (EPS)", "none", "Export it as PNG.", _at(0, b"%!PS", b"\xc5\xd0\xd3\xc6")),
    Kind("OpenEXR", "none", "Its light has no upper end: save it as PNG with the exposure that you want.",
         _at(0, b"v/1\x01")),
    Kind("Radiance HDR", "none", "Its light has no upper end: save it as PNG with the exposure that you want.",
         _at(0, b"#?RADIANCE", b"#?RGBE")),
    Kind("RAF, a camera's raw picture", "none", DEVELOP, _at(0, b"FUJIFILMCCD-RAW")),
    Kind("ORF, a camera's raw picture", "none", DEVELOP, _at(0, b"IIRO", b"IIRS", b"MMOR")),
    Kind("RW2, a camera's raw picture", "none", DEVELOP, _at(0, b"IIU\0")),
    Kind("X3F, a camera's raw picture", "none", DEVELOP, _at(0, b"FOVb")),
    Kind("DICOM", "none", "Export the picture as PNG from the program that shows it.", _at(128, b"DICM")),
    Kind("FITS", "none", _AS_PNG, _at(0, b"SIMPLE  =")),
    Kind("QOI", "none", _AS_PNG, _at(0, b"qoif")),
    Kind("DDS", "none", _AS_PNG, _at(0, b"DDS ")),
    Kind("an icon (ICO, CUR, ICNS)", "none", _AS_PNG, _like(rb"\0\0[\x01\x02]\0[^\0]\0|icns")),
    Kind("a Windows metafile (WMF, EMF)", "none", "Export it as PNG.",
         _like(rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF")),
    Kind("DjVu", "none", "Export the page as PNG.", _at(0, b"AT&TFORM")),
    Kind("sound", "none", "Name a picture.",
         lambda head: head.startswith((b"ID3", b"fLaC")) or _riff(b"WAVE")(head) or _branded(b"M4A ", b"M4B ")(head)),
    Kind("mp4, mov, m4v, 3gp", "clip", _FRAME,
         lambda head: bool(_brands(head)) or head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot",
         b"styp", b"moof", b"uuid"), "mp4"),
    Kind("webm, mkv", "clip", _FRAME, _at(0, b"\x1a\x45\xdf\xa3"), "matroska"),
    Kind("avi", "clip", _FRAME, _riff(b"AVI "), "avi"),
    Kind("ts, m2ts", "clip", _FRAME, _is_transport, "mpegts"),
    Kind("mpg", "clip", _FRAME, _at(0, b"\0\0\x01\xba"), "mpeg"),
    Kind("wmv, asf", "clip", _FRAME, _at(0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), "asf"),
    Kind("flv", "clip", _FRAME, _at(0, b"FLV\x01"), "flv"),
    Kind("ogv", "clip", _FRAME, _at(0, b"OggS"), "ogg"),
    Kind("an archive (zip, 7z, rar, gz)", "none", "Unpack it and name the picture inside.",
         _at(0, b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a", b"\x1f\x8b")),
    Kind("SVG, a drawing", "none", "Export it as PNG, 1280 px wide or more.",
         _like(rb"(\xef\xbb\xbf)?\s*(<\?xml.{0,3000}?|<!--.{0,3000}?-->\s*|<!doctype svg.{0,500}?)*<svg[\s>]")),
    Kind("a web page (HTML)", "none", "The address led to a page about the picture: save the picture itself.",
         _like(rb"(\xef\xbb\xbf)?\s*(<\?xml.{0,500}?>\s*)?<(!doctype html|html|head|body)")),
    Kind("a Git LFS pointer", "none", "It stands for the picture: fetch that with `git lfs pull`.",
         _at(0, b"version https://git-lfs")),
    Kind("text", "none", "Name the picture itself.", _is_text),
)  # fmt: skip


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file that begins so; None where the bytes tell nothing, as those of a TGA."""
    return next((kind for kind in KINDS if kind.fits(head)), None)
