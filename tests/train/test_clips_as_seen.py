"""Clips are trained on as people see them, and what was encoded of them otherwise does not survive."""

from __future__ import annotations

import shutil
import struct

import numpy as np

from framewake.media.clips import read_clip
from framewake.media.video import write_video
from framewake.pipeline.events import Note
from framewake.train import cache
from framewake.train.events import Started

QUARTER = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)


def started(trainer, engine):
    """A run up to its first update's beginning: what it found encoded, and its notes."""
    events, notes, found = trainer.run(engine), [], None
    for event in events:
        if isinstance(event, Started):
            found = event
        elif isinstance(event, Note):
            notes.append(event.text)
        elif found is not None and type(event).__name__ == "Update":
            events.close()
    return found, notes


def test_a_turned_clip_is_encoded_anew_and_upright(engine, trainer_of, clips, tmp_path, monkeypatch):
    clips = shutil.copytree(clips, tmp_path / "data", ignore=shutil.ignore_patterns(".framewake"))
    write_video(clips / "0.mp4", np.zeros((7, 48, 80, 3), np.uint8), fps=12, metadata=None)
    lying = read_clip(clips / "0.mp4", 5)
    content = bytearray((clips / "0.mp4").read_bytes())
    place = content.index(b"tkhd") + 44
    content[place : place + 36] = struct.pack(">9i", *QUARTER)
    (clips / "0.mp4").write_bytes(content)
    assert (lying.frames.shape, read_clip(clips / "0.mp4", 5).frames.shape) == ((5, 48, 80, 3), (5, 80, 48, 3))
    with monkeypatch.context() as before:
        before.setattr(cache, "VERSION", 1)  # of runs that read such clips lying on their side
        assert started(trainer_of("1.safetensors", data=clips), engine)[0].cached == 0
        assert started(trainer_of("2.safetensors", data=clips), engine)[0].cached == 3
    found, notes = started(trainer_of("3.safetensors", data=clips), engine)
    assert found.cached == 0
    assert notes == ["0.mp4: it was turned upright, as its header says."]
