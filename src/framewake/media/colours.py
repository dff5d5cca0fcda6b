"""Pictures in any colours as sRGB, by the embedded profile or whatever else the file says of its colours."""

from __future__ import annotations

import functools
import io
import os
import struct
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from framewake.media import hdr, profiles
from framewake.media.parsers import attempt
from framewake.media.profiles import Colours, matrix_profile

if TYPE_CHECKING:
    from PIL import ImageCms

SAME = 2  # levels that a profile may be off sRGB and still be called that: what rounding makes of it
EXIF, INTEROPERABILITY = 0x8769, 0xA005
COLOUR_SPACE, ADOBE, UNCALIBRATED, OPTIONAL = 0xA001, 2, 0xFFFF, "R03"
PROFILE_OF = slice(16, 20)  # where a profile says of which colours it is
JP2_PROFILES = (2, 3)  # ways of a JPEG 2000 to tell its colours that are profiles
SRGB_GAMMA = (0.42, 0.49)  # a PNG's number around 1 / 2.2, which stands for sRGB's own curve


def to_srgb(image: Image.Image, colours: Colours | None) -> tuple[Image.Image, str]:
    """An opaque picture as RGB in sRGB, and a note when that has changed what it looks like or had to be guessed.

    A picture in sRGB keeps every bit. A profile that cannot be used is left aside, which the note says.
    """
    guessed = ""
    if colours is not None and colours.curve:
        wide = np.asarray(image.convert("RGB")).astype(np.uint16) * 257
        plain = Image.fromarray(hdr.ordinary(wide, colours.curve, colours.primaries))
        return plain, hdr.note(colours.curve)
    if colours is not None and image.mode != "LAB":  # whose numbers say by themselves what is seen
        is_grey = (
            image.mode in ("1", "L") and colours.icc[PROFILE_OF] != b"RGB "
        )  # many programs leave that in grey ones
        mode = "L" if is_grey else "CMYK" if image.mode == "CMYK" else "RGB"
        change, failure = attempt(lambda: _change(colours.icc, mode))
        if change is not None and not change.is_needed:
            return image.convert("RGB"), ""
        if change is not None:
            moved = change.transform.apply(image if image.mode == mode else image.convert(mode))
            return moved, f"its colours are {colours.name} and were converted to sRGB."
        guessed = f"its colour profile cannot be used ({failure}), so its colours are taken as sRGB."
    if image.mode == "CMYK" and not guessed:
        guessed = "it is in CMYK without a colour profile, so its colours are only roughly right."
    return image.convert("RGB"), guessed


def stated_colours(image: Image.Image, head: bytes = b"") -> Colours | None:
    """What a picture says of its colours, None where that is nothing or sRGB; asked before it is converted.

    ``head`` is the beginning of its file. Of several answers the one counts that browsers take.
    """
    numbers = cicp(head)
    if numbers is not None:
        return _numbered(*numbers[:2])
    profile = image.info.get("icc_profile")
    if profile:
        return Colours(_described(profile), bytes(profile))
    if image.format == "PNG":
        return _png_colours(image.info)
    nclx = image.info.get("nclx_profile")
    if isinstance(nclx, dict):
        return _numbered(nclx.get("color_primaries", 1), nclx.get("transfer_characteristics", 13))
    return adobe_rgb() if attempt(lambda: _is_adobe(image))[0] else None


def frame_colours(primaries: int) -> Colours | None:
    """The colours of a video's frames by the number of its primaries, None where they are as good as sRGB's."""
    return _numbered(primaries, 13)


@functools.cache
def adobe_rgb() -> Colours:
    """Adobe RGB, which cameras name in EXIF without a profile."""
    return matrix_profile("in Adobe RGB, by EXIF,", profiles.ADOBE_RGB, gamma=profiles.ADOBE_GAMMA)


def cicp(head: bytes) -> tuple[int, int, int, int] | None:
    """Primaries, curve, matrix and range of a PNG's cICP chunk; Pillow does not tell of it."""
    if not head.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    place = 8
    while place + 12 <= len(head):
        size, kind = struct.unpack_from(">I4s", head, place)
        if kind == b"cICP" and size == 4 and place + 12 <= len(head):
            primaries, curve, matrix, whole = head[place + 8 : place + 12]
            return primaries, curve, matrix, whole
        if kind == b"IDAT":
            return None
        place += size + 12
    return None


def add_jp2_profile(image: Image.Image, stream: IO[bytes]) -> None:
    """Hand the profile in a JPEG 2000's header to its picture, which Pillow does not do; the stream stays where it is.

    Source: ISO/IEC 15444-1, annex I.
    """
    back = stream.tell()
    profile, _ = attempt(lambda: _jp2_profile(stream))
    stream.seek(back)
    if profile:
        image.info["icc_profile"] = profile


def _jp2_profile(stream: IO[bytes]) -> bytes | None:
    place, end = 0, stream.seek(0, os.SEEK_END)
    while place + 8 <= end:
        stream.seek(place)
        size, kind = struct.unpack(">I4s", stream.read(8))
        if kind == b"jp2h":  # which holds other boxes
            place += 8
            continue
        if kind == b"colr":
            method = stream.read(3)[0]
            if method in JP2_PROFILES:
                return stream.read(size - 11)
        if kind == b"jp2c" or size < 8:
            return None
        place += size
    return None


@functools.lru_cache(maxsize=64)
def _numbered(primaries: int, curve: int) -> Colours | None:
    if curve in hdr.NAMES:
        return Colours("in HDR", primaries=primaries, curve=curve)
    gamma = {4: 2.2, 5: 2.8, 8: 1.0}.get(curve)  # every other one is made for the same screens as sRGB's
    name, points = profiles.NUMBERED.get(primaries, ("sRGB", profiles.SRGB))
    if points == profiles.SRGB and gamma is None:
        return None
    return matrix_profile(f"in {name}" if gamma is None else f"in {name} with gamma {gamma:g}", points, gamma=gamma)


def _png_colours(info: Mapping[Any, Any]) -> Colours | None:
    """gAMA and cHRM of a PNG, which count where neither a profile nor sRGB is named."""
    gamma, points = info.get("gamma"), info.get("chromaticity")
    if "srgb" in info or (not gamma and not points):
        return None
    lowest, highest = SRGB_GAMMA
    unusual = None if not gamma or lowest <= gamma <= highest else 1 / gamma
    if points and len(points) == 8 and max(np.abs(np.subtract((*points[2:], *points[:2]), profiles.SRGB))) > 0.005:
        corners = (*points[2:], *points[:2])
    else:
        corners = profiles.SRGB
    if unusual is None and corners == profiles.SRGB:
        return None
    # Nonsense is left aside, as by browsers.
    return attempt(lambda: matrix_profile("named by gAMA and cHRM", corners, gamma=unusual))[0]


def _is_adobe(image: Image.Image) -> bool:
    exif = image.getexif()
    space = exif.get_ifd(EXIF).get(COLOUR_SPACE)
    is_optional = space == UNCALIBRATED and str(exif.get_ifd(INTEROPERABILITY).get(1, "")).startswith(OPTIONAL)
    return space == ADOBE or is_optional


def _described(profile: bytes) -> str:
    """A profile's name for people."""

    def look() -> str:
        from PIL import ImageCms

        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))

    text = attempt(look)[0] or ""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return f"in {line[:40]!r}" if line else "in a profile of their own"


class Change(NamedTuple):
    """A conversion to sRGB, and whether it changes anything."""

    transform: ImageCms.ImageCmsTransform
    is_needed: bool


@functools.lru_cache(maxsize=8)
def _change(profile: bytes, mode: str) -> Change:
    """What converts pictures of a mode to sRGB; a profile that is damaged or for other pictures raises."""
    from PIL import ImageCms  # a Pillow that was built without littlecms2 has none

    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    change = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return Change(change, True)
    sides = np.arange(256, dtype=np.uint8) if mode == "L" else np.arange(0, 256, 15, dtype=np.uint8)
    probe = sides[None] if mode == "L" else np.stack(np.meshgrid(sides, sides, sides), -1).reshape(1, -1, 3)
    picture = Image.fromarray(np.ascontiguousarray(probe))
    moved = np.asarray(change.apply(picture), np.int16) - np.asarray(picture.convert("RGB"), np.int16)
    return Change(change, bool(np.abs(moved).max() > SAME))
