"""Equal frames give an equal mp4, whatever the memory held before."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from framewake.media.video import write_video

WRITE = """
import sys
from pathlib import Path
import numpy as np
from framewake.media.mp4 import write_mp4

random = np.random.default_rng(0)
blocks = random.integers(0, 255, (1, 16, 16, 3)).repeat(4, 1).repeat(4, 2)
frames = np.concatenate([np.roll(blocks, 2 * index, 2) for index in range(9)]) + random.normal(0, 12, (9, 64, 64, 3))
for _ in write_mp4(Path(sys.argv[1]), np.clip(frames, 0, 255).astype(np.uint8), fps=12, comment=None, crf=18):
    pass
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's setting that fills fresh memory is glibc's")
def test_fresh_memory_never_reaches_the_file(tmp_path: Path):
    hashes = set()
    for fill in (0, 1, 85):
        path = tmp_path / f"{fill}.mp4"
        environment = os.environ | {"GLIBC_TUNABLES": f"glibc.malloc.perturb={fill}"}
        subprocess.run([sys.executable, "-c", WRITE, str(path)], env=environment, check=True, timeout=60)
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(hashes) == 1


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (144, 176)])
def test_what_the_heap_held_never_reaches_the_file(tmp_path: Path, size):
    random = np.random.default_rng(0)
    height, width = size
    blocks = random.integers(0, 255, (height // 16 + 2, width // 16 + 2, 3)).repeat(16, 0).repeat(16, 1)
    noise = random.normal(0, 3, (20, height, width, 3))
    frames = np.stack([np.roll(blocks, 2 * index, 1)[:height, :width] for index in range(20)]) + noise
    frames = np.clip(frames, 0, 255).astype(np.uint8)
    hashes = set()
    for number in range(8):
        path = write_video(tmp_path / f"{number}.mp4", frames, fps=24, metadata=None)
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
        litter = [os.urandom(length) for length in (1_000, 5_000, 20_000, 70_000, 300_000) * 8]
        del litter
    assert len(hashes) == 1
