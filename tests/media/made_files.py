"""Pictures and clips of every kind, made by the tests."""

from __future__ import annotations

import struct
import zlib

import av
import numpy as np
from PIL import Image

from framewake.golden import rule

ONE, UNIT = 1 << 16, 1 << 30
# Display matrices of an mp4's header: how a frame becomes upright, as numpy does it.
TURNS = {
    "clockwise": ((0, ONE, 0, -ONE, 0, 0, 0, 0, UNIT), lambda frame: np.rot90(frame, -1)),
    "half": ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, UNIT), lambda frame: np.rot90(frame, 2)),
    "anticlockwise": ((0, -ONE, 0, ONE, 0, 0, 0, 0, UNIT), lambda frame: np.rot90(frame, 1)),
    "mirror": ((-ONE, 0, 0, 0, ONE, 0, 0, 0, UNIT), lambda frame: frame[:, ::-1]),
    "flip": ((ONE, 0, 0, 0, -ONE, 0, 0, 0, UNIT), lambda frame: frame[::-1]),
    "transpose": ((0, ONE, 0, ONE, 0, 0, 0, 0, UNIT), lambda frame: frame.transpose(1, 0, 2)),
    "transverse": ((0, -ONE, 0, -ONE, 0, 0, 0, 0, UNIT), lambda frame: frame[::-1, ::-1].transpose(1, 0, 2)),
}


def sample(mode="RGB", size=(40, 30)):
    """A picture of blocks."""
    values = rule.image("sample", size[1], size[0], 3, block=8)
    return Image.fromarray(values).convert(mode)


def moving(count=9, height=48, width=64):
    """Frames that get redder, with a white corner at their upper left."""
    frames = np.full((count, height, width, 3), 40, np.uint8)
    frames[..., 0] = (np.arange(count) * 200 // max(count - 1, 1))[:, None, None]
    frames[:, : height // 4, : width // 4] = 250
    return frames


def write_clip(path, frames, *, kind="mp4", codec="libx264", pixels="yuv420p", context=None, options=None):
    """A clip of any kind; ``context`` are attributes of its codec's context."""
    with av.open(f"file:{path}", "w", format=kind) as container:
        stream = container.add_stream(codec, rate=24, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for name, value in (context or {}).items():
            setattr(stream.codec_context, name, value)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_sound(path):
    """An mp4 without pictures."""
    with av.open(f"file:{path}", "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        for index in range(5):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 44100, index * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn_clip(path, matrix):
    """Put a display matrix into an mp4's header."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 20 + 16
    content[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
    return path


def png_chunk(name, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunks(path, *chunks):
    """Put chunks behind a PNG's header."""
    content = path.read_bytes()
    path.write_bytes(content[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + content[33:])
    return path


def tiff_pages(count):
    """A TIFF of one grey pixel a page."""
    fields = ((256, 4, 1), (257, 4, 1), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 0), (277, 3, 1), (278, 4, 1))
    fields += ((279, 4, 1),)
    size = 2 + 12 * len(fields) + 4
    pages = [struct.pack("<2sHI", b"II", 42, 8)]
    for page in range(count):
        start = 8 + page * (size + 2)
        entries = [struct.pack("<HHII", tag, kind, 1, start + size if tag == 273 else v) for tag, kind, v in fields]
        after = start + size + 2 if page < count - 1 else 0
        pages.append(struct.pack("<H", len(fields)) + b"".join(entries) + struct.pack("<I", after) + b"\xc8\0")
    return b"".join(pages)
