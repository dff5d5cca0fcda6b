"""The picture that starts a clip: fully checked, upright, opaque, in sRGB."""

from __future__ import annotations

import importlib
import io
import os
import re
import shlex
from pathlib import Path
from typing import IO, NamedTuple

from PIL import Image, TiffImagePlugin

from framewake.demo import PICTURES, shipped, shipped_names
from framewake.errors import InputError, nearest, said
from framewake.media import footage
from framewake.media.colours import add_jp2_profile, stated_colours, to_srgb
from framewake.media.kinds import HEAD_BYTES, RAW, Kind, kind_of
from framewake.media.levels import check_planes, eight_bits
from framewake.media.opacity import GREY_BITS, WHITE, WHITE_RGB, background_colour, over, split
from framewake.media.parsers import MAX_PIXELS, attempt, parsing, too_big

MAX_ELONGATION = 100  # beyond it a crop shows under 4 % of the picture and the resize explodes
# Of a moving picture: what has to be decoded on the way to its last frame, in frames and in pixels.
MOST_FRAMES, MOST_DECODED = 20_000, 3_000_000_000

# Only these are tried: Pillow would hand an EPS to Ghostscript, and a PSD has layers, not frames.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "TGA")
ADVICE = "Hand in a picture as PNG, JPEG or WebP."
DAMAGED = "the picture is damaged or cut off"
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)

ORIENTATION = 0x0112
XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)\s*([1-8])")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Of TIFF: a small version of another picture, pictures below this one, and Adobe's raw format.
SMALL_VERSION, BELOW, DNG = 254, 330, 50706
MOST_PREVIEWS = 8  # that are passed over at the beginning of a TIFF


class Loaded(NamedTuple):
    """A picture as the models take it: 8-bit RGB in sRGB, upright and opaque; and what a person should know of it."""

    image: Image.Image
    notes: tuple[str, ...] = ()


def load_picture(path: str | os.PathLike[str], *, background: str = WHITE, takes_first_frame: bool = False) -> Loaded:
    """Opens a picture, or a frame of a clip: the last one, or the first.

    Orientation and colour profile are applied, which the original does not do: photographs of phones would lie on
    their side and be dull. What is transparent shows ``background``, where the original shows whatever colour is
    hidden there. Size and frames are checked from the header, before a pixel is decoded.

    Raises: InputError for a file that is missing, damaged, empty, too big or no picture.
    Source: specification, sections 2.2 and 2.6.
    """
    colour = background_colour(background)
    file = existing_file(path)
    with file.open("rb") as stream:
        kind, head = _known(stream, str(file))
        if kind is not None and kind.reader == "clip":
            frame = footage.one_frame(file, is_first=takes_first_frame, check=check_size)
            found = finished(frame.image, str(file), colour=colour)
            check_size(found.image.size, str(file))
            return Loaded(found.image, _named(file, (*frame.notes, *found.notes)))
        with _opened(stream, kind, str(file)) as image:
            check_size(image.size, str(file))
            note = _choose_frame(image, str(file), is_first=takes_first_frame)
            check_planes(image, str(file))
            with parsing(f"{file}:", DAMAGED, advice=ADVICE):
                image.load()
            found = finished(image, str(file), colour=colour, head=head)
            return Loaded(found.image, _named(file, (*note, *found.notes)))


def header_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height of a picture or a clip that is not a file yet, by its header alone.

    Raises: InputError for something that is neither.
    """
    stream = io.BytesIO(data)
    kind, _ = _known(stream, name)
    if kind is not None and kind.reader == "clip":
        return footage.header_size(stream, name)
    with _opened(stream, kind, name) as image:
        return image.size


def finished(image: Image.Image, name: str, *, colour: tuple[int, int, int] = WHITE_RGB, head: bytes = b"") -> Loaded:
    """A decoded picture as 8-bit RGB in sRGB, upright and opaque. ``head`` is the beginning of its file.

    Raises: InputError for colours that cannot be read.
    """
    with parsing(f"{name}: its colours, of the kind {image.mode},", "cannot be read", advice=ADVICE):
        opaque, alpha = split(image)
        shallow, guessed = eight_bits(opaque, name)
        plain, converted = to_srgb(shallow, stated_colours(image, head))
        whole = over(plain, alpha, colour)
        turn = TURNS.get(orientation(image))
        places = "everywhere" if alpha is not None and alpha.getextrema()[1] == 0 else "in places"
        under = f"it is transparent {places}: {_colour_name(colour)} lies under it (background takes another)."
        notes = (guessed, converted, "" if alpha is None else under)
        return Loaded(whole if turn is None else whole.transpose(turn), tuple(filter(None, notes)))


def _colour_name(colour: tuple[int, int, int]) -> str:
    return WHITE if colour == WHITE_RGB else "#{:02x}{:02x}{:02x}".format(*colour)


def _named(file: Path, notes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{file.name}: {note}" for note in notes)


def orientation(image: Image.Image) -> int:
    """How a picture was held, as EXIF numbers it from 1 to 8; XMP is asked where EXIF does not tell.

    Asked behind the decoding: a TIFF is turned by then, and a PNG may tell it at its end.
    """
    # Turned by their readers: what EXIF says of a HEIC does not count, and of a TIFF some Pillows leave it standing.
    if image.format in ("HEIF", "TIFF"):
        return 1
    value, _ = attempt(lambda: image.getexif().get(ORIENTATION))
    if isinstance(value, int) and 1 <= value <= 8:
        return value
    texts = [image.info.get(key) for key in ("xmp", "XML:com.adobe.xmp")]
    texts += [content for _, content in getattr(image, "applist", ()) if content.startswith(b"http://ns.adobe.com/xap")]
    for text in texts:
        content = text.encode("utf-8", "replace") if isinstance(text, str) else text
        found = XMP_ORIENTATION.search(content) if isinstance(content, bytes) else None
        if found is not None:
            return int(found[1])
    return 1


def existing_file(path: str | os.PathLike[str]) -> Path:
    """The file that a path names; ~ is the user's home.

    Raises: InputError for an address, and for a file that is missing, empty or cannot be read.
    """
    text = os.fspath(path)
    if not text:
        raise InputError(f"no picture was named. {ADVICE}")
    if text.lower().startswith("data:"):
        raise InputError(f"{text[:30]}... is a picture in an address: save it as a file first, and name that.")
    scheme = ADDRESS.match(text)
    if scheme is not None:
        if scheme[1].lower() == "file":
            raise InputError(f"{text} is an address: name the picture by its path alone, without file://.")
        how = f", such as with `curl -fLO {shlex.quote(text)}`" if scheme[1].lower() in ("http", "https", "ftp") else ""
        raise InputError(
            f"{text} is an address, and nothing is fetched from the network here. Save the picture first{how}, and "
            "name the file."
        )
    file = picture_path(text)
    try:
        if not file.exists():
            hint = nearest(file.name, os.listdir(file.parent)) if file.parent.is_dir() else ""
            if file.parent == PICTURES:
                raise InputError(f"{text}: no such picture ships.{nearest(text, shipped_names(PICTURES))}")
            raise InputError(f"{file}: there is no such file.{hint} Check the path of the picture.")
        if file.is_dir():
            raise InputError(f"{file} is a folder, not a picture. Name one file in it.")
        if not file.is_file():
            raise InputError(f"{file} is a device or a pipe, not a file. Save what comes through it first. {ADVICE}")
        if file.stat().st_size == 0:
            raise InputError(f"{file} is empty (0 bytes). {ADVICE}")
        with file.open("rb"):
            pass
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: the picture cannot be read ({said(error)}).") from error
    return file


def picture_path(text: str) -> Path:
    """A path as it was typed: ~ is the user's home, and "demo/red-circle" a picture that ships."""
    return shipped(text, PICTURES) or Path(os.path.expanduser(text))


def _known(stream: IO[bytes], name: str) -> tuple[Kind | None, bytes]:
    """The kind of a file and its beginning, which it stands at again.

    Raises: InputError for kinds that are not read.
    """
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    kind = kind_of(head)
    if kind is not None and kind.reader == "tiff" and attempt(lambda: _is_raw(stream, head))[0]:
        raise InputError(f"{name} is {RAW}")
    stream.seek(0)
    if kind is not None and kind.reader == "none":
        raise InputError(f"{name} is {kind.name}, not a picture that can be read here. {kind.advice}")
    return kind, head


def _is_raw(stream: IO[bytes], head: bytes) -> bool:
    """Whether a TIFF begins with the small version of what a camera's sensor saw."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(head[:16] if b"+" in head[2:4] else head[:8])
    stream.seek(tags.next)
    tags.load(stream)
    return DNG in tags or (bool(tags.get(SMALL_VERSION, 0) & 1) and BELOW in tags)


def _opened(stream: IO[bytes], kind: Kind | None, name: str) -> Image.Image:
    Image.init()
    formats = [each for each in FORMATS if each in Image.OPEN]
    failure, advice = "is not a picture that can be read here", ADVICE
    if kind is not None and kind.reader == "heif":
        formats = [_heif(kind, name)]
    if kind is not None:
        failure = f"is damaged or cut off, or a {kind.name} of a sort that is not read here"
    if kind is not None and kind.name == "AVIF" and "AVIF" not in Image.OPEN:
        failure, advice = "is AVIF, which this Pillow does not read", "Take Pillow 11.3 or newer, or save it as PNG."
    with parsing(name, failure, advice=advice):
        image = Image.open(stream, formats=formats)
        if image.format == "JPEG2000":
            add_jp2_profile(image, stream)
        if image.format == "PNG" and image.mode == "L" and image.tile:
            image.info[GREY_BITS] = {"L;2": 2, "L;4": 4}.get(str(image.tile[0][3]), 8)
        return image


def _heif(kind: Kind, name: str) -> str:
    """Pillow's name of the format, once its library is there.

    Raises: InputError with the line that installs it.
    """
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError as error:
        ending = Path(name).suffix.lower()
        told = "" if ending in ("", ".heic", ".heif", ".hif") else f", although its name ends in {ending}"
        raise InputError(
            f"{name} is a HEIC picture{told}. Install the library that reads it with `pip install pillow-heif`, or "
            "save the picture as JPEG or PNG."
        ) from error
    return "HEIF"


def check_size(size: tuple[int, int], name: str) -> None:
    """Whether a picture of this width and height is of any use.

    Raises: InputError when it is not.
    """
    width_px, height_px = size
    if width_px < 1 or height_px < 1:
        raise InputError(f"{name} has no area ({width_px} x {height_px} px). {ADVICE}")
    if width_px * height_px > MAX_PIXELS:
        raise InputError(too_big(name, f"{width_px} x {height_px} px"))
    if max(size) > MAX_ELONGATION * min(size):
        raise InputError(
            f"{name} is {width_px} x {height_px} px: one side may be at most {MAX_ELONGATION} times the other. "
            "Crop it first."
        )


def _choose_frame(image: Image.Image, name: str, *, is_first: bool) -> tuple[str, ...]:
    """Go to the page or frame that is taken; a note where there are several.

    Raises: InputError for a moving picture that is too long to look for its end.
    """
    # The second picture of an MPO or a HEIC is another view or a depth map: the first is the photograph.
    if image.format in ("MPO", "HEIF"):
        return ()
    if image.format == "TIFF":
        return _choose_page(image, name)
    with parsing(f"{name}:", DAMAGED, advice=ADVICE):
        frames = getattr(image, "n_frames", 1)
    if frames <= 1:
        return ()
    wanted = frames - 1
    if is_first:  # that of a PNG may be in place of the moving picture only, for viewers that show none
        wanted = 1 if getattr(image, "default_image", False) else 0
    elif frames > MOST_FRAMES or frames * image.width * image.height > MOST_DECODED:
        raise InputError(
            f"{name} is moving and its last frame is far away ({frames} frames of {image.width} x {image.height} "
            "px). Take its first with --first-frame, or save the frame that you want as PNG."
        )
    with parsing(f"{name}:", DAMAGED, advice=ADVICE):
        image.seek(wanted)
    return (footage.taken(is_first=is_first),)


def _choose_page(image: Image.Image, name: str) -> tuple[str, ...]:
    """Go to the first page of a TIFF that is no small version of another; a note where there are several.

    They are not counted, which takes as long as there are pages.
    """
    has_more = _has_page(image, 1, name)
    page = next((page for page in range(MOST_PREVIEWS) if _is_whole(image, page, name)), 0) if has_more else 0
    with parsing(f"{name}:", DAMAGED, advice=ADVICE):
        image.seek(page)
    check_size(image.size, name)
    if not has_more:
        return ()
    which = "the first one" if page == 0 else f"number {page + 1}, the first in full size,"
    return (f"it has several pages: {which} is taken.",)


def _is_whole(image: Image.Image, page: int, name: str) -> bool:
    return _has_page(image, page, name) and not getattr(image, "tag_v2", {}).get(SMALL_VERSION, 0) & 1


def _has_page(image: Image.Image, page: int, name: str) -> bool:
    try:
        with parsing(f"{name}:", DAMAGED, advice=ADVICE):
            image.seek(page)
    except InputError as error:
        # Pillow 10 refuses a page that is too big here, newer ones when it is read.
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise
        return False
    return True
