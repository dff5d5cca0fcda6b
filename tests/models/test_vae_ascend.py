"""The VAE's graph for Ascend, inferred on this machine: it may only stop where kernels are chosen."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

# In a process of its own: the engine for Ascend must not be made beside the one that the other tests share.
SCRIPT = """
import sys
from dataclasses import replace
from framewake.config import HUNYUAN_VAE
from framewake.engine import mindspore
from framewake.golden import rule
from framewake.models.vae import CausalVAE

host, ascend = mindspore.make("cpu", ""), mindspore.make("cpu", "", branch="ascend")
config = replace(HUNYUAN_VAE, latent_channels=4, block_out_channels=(4, 8), layers_per_block=1, norm_groups=2,
                 spatial_compression=2, temporal_compression=2)
vae = CausalVAE(ascend, config)
w = {name: host.asarray(rule.weight(name, shape, 1), "float16") for name, shape in vae.shapes().items()}
shape = tuple(int(size) for size in sys.argv[2].split(","))
ascend.compile(getattr(vae, sys.argv[1]))(w, host.asarray(rule.input("x", shape, 1)))
"""


@pytest.mark.skipif(importlib.util.find_spec("mindspore") is None, reason="MindSpore is not installed")
@pytest.mark.parametrize(
    ("method", "shape", "stop"),
    [
        ("decode", "1,4,2,4,4", "Unsupported op [Conv3DExt] on CPU"),
        ("encode", "1,3,3,8,8", "Unsupported op [Conv3DExt] on CPU"),
        ("decode", "1,5,2,4,4", "in_channels/groups is 5, and weight[1] is 4"),
    ],
)
def test_graph_is_inferred_up_to_the_kernels(tmp_path, method, shape, stop):
    command = [sys.executable, "-c", SCRIPT, method, shape]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert stop in done.stderr, done.stderr[-2000:]
