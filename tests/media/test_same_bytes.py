"""Equal frames give an equal mp4, whatever the memory held before."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

WRITE = """
import sys
from pathlib import Path
import numpy as np
from framewake.media.mp4 import write_mp4

random = np.random.default_rng(0)
blocks = random.integers(0, 255, (1, 16, 16, 3)).repeat(4, 1).repeat(4, 2)
frames = np.concatenate([np.roll(blocks, 2 * index, 2) for index in range(9)]) + random.normal(0, 12, (9, 64, 64, 3))
write_mp4(Path(sys.argv[1]), np.clip(frames, 0, 255).astype(np.uint8), fps=12, comment=None, crf=18)
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
