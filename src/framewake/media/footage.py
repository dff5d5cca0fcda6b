"""Frames of a video file as people see them: upright, with square pixels, in sRGB."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image

from framewake.errors import InputError
from framewake.media import hdr
from framewake.media.colours import frame_colours, to_srgb
from framewake.media.mp4 import BT709, DAMAGED, import_av, opened
from framewake.media.opacity import WHITE_RGB, over, split
from framewake.media.parsers import MAX_PIXELS, parsing, too_big

MOST_TO_THE_END = 1500  # frames that are decoded behind the last one that can be found alone
END_SECONDS = 0.5  # before the end of a clip, where its last frame is looked for first
BT709_HEIGHT, BT709_WIDTH = 720, 1280  # an untagged clip that has either follows BT.709, and BT.601 below
# As H.273 and FFmpeg number them; all other matrices are as good as BT.601's.
UNTOLD, BT2020_MATRICES, FULL_RANGE = 2, (9, 10), 2
MATRICES = {BT709: "ITU709", 4: "FCC", 7: "SMPTE240M"}
WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
COVER = 1 << 10  # FFmpeg's mark of a picture that lies beside sound
MOST_STRETCHED = 8
NO_FRAMES = np.empty((0, 1, 1, 3), np.uint8)
# Signs of a display matrix's first four numbers: how a frame becomes upright.
TURNS = {
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


class Frame(NamedTuple):
    """One frame, RGB or RGBA, and what a person should know of it."""

    image: Image.Image
    notes: tuple[str, ...]


class Footage(NamedTuple):
    """Frames of a clip, how many there are a second, and what a person should know of them.

    ``decoded`` is how many there were to decode, of which some may have been let go.
    Shapes: frames uint8 (F, H, W, 3).
    """

    frames: np.ndarray
    fps: float
    notes: tuple[str, ...]
    decoded: int


def taken(*, is_first: bool) -> str:
    """The note on a clip that was handed in as picture."""
    if is_first:
        return "it is moving: its first frame is taken."
    return "it is moving: its last frame is taken (--first-frame, or first_frame in the API, takes the first)."


def read_frames(
    path: Path, *, most: int | None = None, kept: Container[int] | None = None, longest_px: int | None = None
) -> Footage:
    """The frames of the first video stream; with ``most``, no more of them are decoded.

    ``kept``: the numbers of those that are wanted; the others take no memory.
    ``longest_px``: frames with a longer side are shrunk to it one by one.
    Raises: InputError for a file that is no video or is damaged.
    """
    name, notes, count = str(path), _Notes(), 0
    frames: list[np.ndarray] = []
    sizes = set()
    with parsing(f"{name}:", DAMAGED), opened(path) as container:
        stream = _video_stream(container, name)
        _check_size(stream, name)
        for frame in itertools.islice(_frames(container, stream), most):
            sizes.add((frame.height, frame.width))
            if kept is None or count in kept:
                image = _opaque(_shown(frame, stream, notes), notes)
                if longest_px is not None:
                    image.thumbnail((longest_px, longest_px))
                frames.append(np.asarray(image))
            count += 1
        fps = float(stream.average_rate or stream.guessed_rate or 0)
    if not count:
        raise InputError(f"{name} holds no video frames.")
    if len(sizes) > 1 or len({frame.shape for frame in frames}) > 1:
        raise InputError(f"{name}: the video changes its size on the way, which cannot be read here.")
    return Footage(np.stack(frames) if frames else NO_FRAMES, fps, tuple(notes), count)


def one_frame(path: Path, *, is_first: bool, check: Callable[[tuple[int, int], str], None]) -> Frame:
    """The last frame of a clip, or the first; what lies between is not decoded.

    ``check`` refuses a size before anything of it is decoded.
    Raises: InputError for a clip that is damaged, or whose end is far behind the last frame that stands alone.
    """
    name, notes = str(path), _Notes()
    with parsing(f"{name}:", DAMAGED), opened(path) as container:
        stream = _video_stream(container, name)
        check((stream.codec_context.width, stream.codec_context.height), name)
        frame = next(_frames(container, stream), None) if is_first else _last(container, stream, name)
        if frame is None and not is_first:
            frame = _last_by_packets(path, name)
        if frame is None:
            raise InputError(f"{name} holds no video frames.")
        image = _shown(frame, stream, notes)
    return Frame(image, (taken(is_first=is_first), *notes))


def header_size(source: IO[bytes], name: str) -> tuple[int, int]:
    """Width and height of a clip as its header says, before it is turned.

    Raises: InputError for a file that is no video or is damaged.
    """
    with parsing(f"{name}:", DAMAGED), opened(source) as container:
        context = _video_stream(container, name).codec_context
        return context.width, context.height


def _video_stream(container: Any, name: str) -> Any:
    """The first stream of moving pictures: a sound file's cover is a video stream too."""
    for stream in container.streams.video:
        mark = getattr(stream, "disposition", 0)  # a number, or one with a name, as PyAV's release has it
        if not getattr(mark, "value", mark) & COVER:
            return stream
    raise InputError(f"{name} holds no video: it is sound alone, or was cut off.")


def _check_size(stream: Any, name: str) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise InputError(too_big(name, f"{width} x {height} px"))


def _last(container: Any, stream: Any, name: str) -> Any:
    """The last frame, decoded from the last one before the end that stands alone; None where that is not found."""
    if not container.duration:
        return None
    end = (container.start_time or 0) + container.duration
    try:
        container.seek(max(int(end - END_SECONDS * 1_000_000), 0))
        return _final(_frames(container, stream), name)
    except import_av().error.FFmpegError:
        return None  # no index, or one that leads nowhere: the packets are looked through instead


def _last_by_packets(path: Path, name: str) -> Any:
    """The last frame of a clip that cannot be sought in: its packets are read twice, few are decoded."""
    alone = 0
    with opened(path) as container:
        for number, packet in enumerate(container.demux(_video_stream(container, name))):
            alone = number if packet.is_keyframe else alone
    with opened(path) as container:
        return _final(_frames(container, _video_stream(container, name), begin=alone), name)


def _frames(container: Any, stream: Any, *, begin: int = 0) -> Iterator[Any]:
    """The frames from here on, behind ``begin`` packets.

    FFmpeg's own decoders of VP8 and VP9 leave the transparency aside, which lies beside each packet; libvpx's do not.
    """
    context = stream.codec_context
    if stream.metadata.get("alpha_mode") == "1" and context.name in WITH_ALPHA:
        context = import_av().CodecContext.create(WITH_ALPHA[context.name], "r")
    for packet in itertools.islice(container.demux(stream), begin, None):  # the last one is empty and lets all out
        yield from context.decode(packet)


def _final(frames: Iterator[Any], name: str) -> Any:
    last = None
    for number, frame in enumerate(frames):
        if number >= MOST_TO_THE_END:
            raise InputError(
                f"{name}: its end lies more than {MOST_TO_THE_END} frames behind the last one that stands alone. Take "
                f"its first frame with --first-frame, or save the last: `ffmpeg -sseof -1 -i CLIP -update 1 last.png`."
            )
        last = frame
    return last


class _Notes(dict[str, None]):
    """Sentences, each once, in their order."""

    def add(self, text: str) -> None:
        if text:
            self[text] = None


def _opaque(image: Image.Image, notes: _Notes) -> Image.Image:
    """A frame over white where it is transparent."""
    plain, alpha = split(image)
    if alpha is not None:
        notes.add("it is transparent in places: white lies under it.")
    return over(plain, alpha, WHITE_RGB)


def _shown(frame: Any, stream: Any, notes: _Notes) -> Image.Image:
    """A frame as people see it, RGB or RGBA."""
    context = stream.codec_context
    curve, primaries = int(context.color_trc or 0), int(context.color_primaries or 0)
    if frame.interlaced_frame:
        notes.add("it is interlaced: combs are seen where it moves. `ffmpeg -i CLIP -vf bwdif NEW.mp4` removes them.")
    if curve in hdr.NAMES:
        image = Image.fromarray(hdr.ordinary(_wide(frame), curve, primaries))
        notes.add(hdr.note(curve))
    else:
        if frame.colorspace in BT2020_MATRICES and not frame.format.is_rgb:
            image = Image.fromarray(np.rint(_wide(frame) / np.float32(257)).astype(np.uint8))
        else:
            image = Image.fromarray(_plain(frame))
        colours = frame_colours(primaries)
        if colours is not None:
            mask = image.getchannel("A") if image.mode == "RGBA" else None
            image, note = to_srgb(image.convert("RGB"), colours)
            notes.add(note)
            if mask is not None:
                image.putalpha(mask)
    return _upright(_square(image, stream, notes), frame, notes)


def _plain(frame: Any) -> np.ndarray:
    """Shapes: -> uint8 (H, W, 3), or (H, W, 4) where the video has transparency."""
    has_alpha = any(component.is_alpha for component in frame.format.components)
    form = "rgba" if has_alpha else "rgb24"
    if frame.format.is_rgb:
        return frame.reformat(format=form).to_ndarray()
    is_large = frame.height >= BT709_HEIGHT or frame.width >= BT709_WIDTH  # cinema's bars may have been cut away
    matrix = MATRICES.get(frame.colorspace, "ITU601")
    if frame.colorspace == UNTOLD and is_large:
        matrix = "ITU709"
    return frame.reformat(
        format=form,
        src_colorspace=matrix,
        src_color_range=_range(frame),
        dst_color_range="JPEG",
    ).to_ndarray()


def _range(frame: Any) -> str:
    return "JPEG" if frame.color_range == FULL_RANGE else "MPEG"


def _wide(frame: Any) -> np.ndarray:
    """R'G'B' of sixteen bits by the matrix of BT.2020, which older PyAV cannot name.

    Shapes: -> uint16 (H, W, 3).
    """
    if frame.format.is_rgb:
        return frame.reformat(format="rgb48le").to_ndarray()
    span = _range(frame)
    planes = frame.reformat(format="yuv444p16le", src_color_range=span, dst_color_range=span).planes
    # Codes of eight bits, whatever the depth: only zeros are added at their end.
    luma, blue, red = (
        np.frombuffer(plane, np.uint16).reshape(plane.height, -1)[:, : plane.width].astype(np.float32) / 256
        for plane in planes
    )
    low, tall, wide = (0, 255, 255) if span == "JPEG" else (16, 219, 224)
    luma, blue, red = (luma - low) / tall, (blue - 128) / wide, (red - 128) / wide
    kr, kb = (0.2627, 0.0593) if frame.colorspace in BT2020_MATRICES else (0.2126, 0.0722)
    rgb = np.stack([luma + 2 * (1 - kr) * red, luma, luma + 2 * (1 - kb) * blue], axis=-1)
    rgb[..., 1] = (luma - kr * rgb[..., 0] - kb * rgb[..., 2]) / (1 - kr - kb)
    return (np.clip(rgb, 0, 1) * 65535 + 0.5).astype(np.uint16)


def _square(image: Image.Image, stream: Any, notes: _Notes) -> Image.Image:
    """A frame whose pixels are square: the longer side of them decides, so that nothing is lost."""
    ratio = float(stream.sample_aspect_ratio or 1)
    if not 1 / MOST_STRETCHED <= ratio <= MOST_STRETCHED:
        return image  # nonsense, as players take it to be
    width = round(image.width * max(ratio, 1))
    height = round(image.height / min(ratio, 1))
    if (width, height) == image.size:
        return image
    notes.add(f"its pixels are not square: it was stretched to {width} x {height} px, as players do.")
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _upright(image: Image.Image, frame: Any, notes: _Notes) -> Image.Image:
    """A frame turned as the header asks, which phones use for every clip that was not held their own way."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    numbers = struct.unpack("=5i", bytes(matrix)[:20])
    a, b, _, c, d = (int(np.sign(number)) if abs(number) > 1 << 10 else 0 for number in numbers)
    turn = TURNS.get((a, b, c, d))
    if turn is None:
        return image
    notes.add("it was turned upright, as its header says.")
    return image.transpose(turn)
