"""H.264 in mp4 through PyAV, which is imported only when an mp4 is written or read."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from framewake.errors import EngineError, InputError
from framewake.media.kinds import HEAD_BYTES, kind_of
from framewake.media.parsers import parsing

BT709 = 1  # the number of this matrix, its primaries and its transfer curve in H.264
LIMITED_RANGE = 1
# The number of threads changes the bytes x264 puts out; with four of them equal frames gave another file once in
# thirty times. One thread costs seconds beside minutes of sampling.
THREADS = 1
DAMAGED = "the video is damaged or of a kind that is not read"
WANTED = "Name an mp4, mov, webm, mkv or avi file."
METADATA_IS_UTF8 = 19  # PyAV from here on replaces what is not UTF-8, and knows no argument for it
# x264's AVX-512 code lets memory that it never wrote decide between equally good choices, so that equal frames gave two
# different files by chance. Its older code does not, and costs a quarter more time. The name exists on x86 only, and
# every processor that runs today's numpy has it.
X86_CODE = {"x264-params": "asm=sse4.2"}

_RED, _BLUE = 0.2126, 0.0722
_GREEN = 1 - _RED - _BLUE
# RGB of 0..255 to luma of 16..235 and chroma of 16..240 around 128.
_TO_LUMA = (np.array([_RED, _GREEN, _BLUE]) * (219 / 255)).astype(np.float32)
_TO_CHROMA = (
    np.array(
        [
            [-_RED / (2 - 2 * _BLUE), -_GREEN / (2 - 2 * _BLUE), 0.5],
            [0.5, -_GREEN / (2 - 2 * _RED), -_BLUE / (2 - 2 * _RED)],
        ]
    )
    * (224 / 255)
).astype(np.float32)


def import_av() -> ModuleType:
    """PyAV.

    Raises: EngineError with the line that installs it.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise EngineError(
            f"mp4 files need the package av ({error}): install it with `pip install av`, or use a folder of PNG files."
        ) from error


def as_file(path: Path) -> str:
    """A path as FFmpeg takes it: the colon in clips:new/a.mp4 would be the end of a protocol's name."""
    return f"file:{path}"


def opened(source: Path | IO[bytes]) -> Any:
    """A video's container, to be used in a ``with``; metadata in a strange encoding is no reason to refuse it.

    Its first bytes choose what reads it: FFmpeg left alone would also follow lists of addresses and of other files.

    Raises: InputError for a file that does not begin as a video does.
    """
    if isinstance(source, Path):
        with source.open("rb") as stream:
            kind = kind_of(stream.read(HEAD_BYTES))
    else:
        kind = kind_of(source.read(HEAD_BYTES))
        source.seek(0)
    if kind is None or kind.reader != "clip":
        what = "nothing that begins as a video does" if kind is None else kind.name
        raise InputError(f"{source if isinstance(source, Path) else 'this'} is no video but {what}. {WANTED}")
    av = import_av()
    place = as_file(source) if isinstance(source, Path) else source
    if int(av.__version__.partition(".")[0]) >= METADATA_IS_UTF8:
        return av.open(place, format=kind.demuxer)
    return av.open(place, format=kind.demuxer, metadata_errors="replace")


def pad_to_even(frame: np.ndarray) -> np.ndarray:
    """A frame whose odd last row or column is repeated: 4:2:0 video has even sides only."""
    height, width, _ = frame.shape
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return frame


def to_yuv420(frame: np.ndarray) -> np.ndarray:
    """BT.709 limited range, chroma averaged over 2 x 2 pixels.

    Written out because the converter inside PyAV rounds by up to 3 levels and differs between versions.

    Shapes: (H, W, 3) uint8 with even sides -> (H * 3 / 2, W) uint8, the planes Y, U and V in a row.
    Precision: float32, rounded half up.
    """
    height, width, _ = frame.shape
    values = frame.astype(np.float32)
    luma = (values.reshape(-1, 3) @ _TO_LUMA + np.float32(16.5)).astype(np.uint8)
    blocks = values.reshape(height // 2, 2, width // 2, 2, 3)
    means = (blocks[:, 0, :, 0] + blocks[:, 0, :, 1] + blocks[:, 1, :, 0] + blocks[:, 1, :, 1]) * np.float32(0.25)
    chroma = (means.reshape(-1, 3) @ _TO_CHROMA.T + np.float32(128.5)).astype(np.uint8)
    return np.concatenate([luma, chroma[:, 0], chroma[:, 1]]).reshape(height * 3 // 2, width)


def write_mp4(
    path: Path, frames: np.ndarray, *, fps: float, comment: str | None, crf: int
) -> Generator[float, None, None]:
    """Writes H.264 yuv420p, frame by frame: tells what share is done; equal frames and settings give equal bytes.

    The encoder keeps some fifty frames back, which it gives out one by one behind the last.

    Shapes: frames (F, H, W, 3) uint8.
    """
    av = import_av()
    height, width = pad_to_even(frames[0]).shape[:2]
    # The index goes first, so that a browser can start before it has the whole file.
    container_options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(as_file(path), "w", format="mp4", options=container_options) as container:
        if comment is not None:
            container.metadata["comment"] = comment
        rate = Fraction(fps).limit_denominator(1001)
        options = {"crf": str(crf), "flags": "+bitexact"}
        if platform.machine().lower() in {"x86_64", "amd64"}:
            options |= X86_CODE
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.thread_count = THREADS
        context.color_range = LIMITED_RANGE
        context.colorspace = context.color_primaries = context.color_trc = BT709
        done = 0  # frames handed in, and frames that have come out
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(to_yuv420(pad_to_even(frame)), format="yuv420p")
            packets = stream.encode(picture)
            container.mux(packets)
            done += 1 + len(packets)
            yield done / (2 * len(frames))
        for packet in context.encode_lazy():
            packet.stream = stream
            container.mux(packet)
            done += 1
            yield done / (2 * len(frames))


def count_frames(path: Path) -> int:
    """How many frames of an mp4 are there in full, without decoding them.

    Raises: InputError for a file that is no video or is damaged.
    """
    with parsing(f"{path}:", DAMAGED), opened(path) as container:
        packets = container.demux(container.streams.video)
        return sum(1 for packet in packets if packet.size and not packet.is_corrupt)


def read_mp4_comment(path: Path) -> str | None:
    """The comment in the header, None when there is none.

    Raises: InputError for a file that is no video or is damaged.
    """
    with parsing(f"{path}:", DAMAGED), opened(path) as container:
        if not container.streams.video:
            raise InputError(f"{path} holds no video.")
        return container.metadata.get("comment")
