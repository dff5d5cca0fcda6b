"""The VAE, whole and in tiles, against arrays of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from framewake.golden.cases import read_cases, tiling_config, vae_config
from framewake.models.tiling import tiled_decode, tiled_encode
from framewake.models.vae import CausalVAE

CASES = {case.id: case for case in read_cases(Path(__file__).parent.parent / "golden")}
TOLERANCE = 3e-5


def ids_of(*kinds):
    return [name for name, case in CASES.items() if case.kind in kinds]


def prepare(engine, name):
    case = CASES[name]
    vae = CausalVAE(engine, vae_config(case.config))
    return case, vae, case.weights("vae", engine, vae.shapes()).part("")


def check(case, found):
    expected = case.arrays()
    assert found.keys() == expected.keys()
    differences = {}
    for name, want in expected.items():
        assert found[name].shape == want.shape, name
        differences[name] = float(np.abs(found[name].astype(np.float64) - want).max() / np.abs(want).max())
    worst = max(differences, key=differences.get)
    assert differences[worst] <= TOLERANCE, (worst, differences[worst])


@pytest.mark.parametrize("name", ids_of("vae_encode"))
def test_encode(engine, name):
    case, vae, w = prepare(engine, name)
    found = {}
    keeps = set(case.arrays())

    def observe(key, value):
        if key in keeps:
            found[key] = engine.numpy(value)

    mean, logvar = vae.encode(w, engine.asarray(case.input("pixels")), observe=observe)
    found |= {"mean": engine.numpy(mean), "logvar": engine.numpy(logvar)}
    check(case, found | {"std": np.exp(found["logvar"] / 2)})


@pytest.mark.parametrize("name", ids_of("vae_decode"))
def test_decode(engine, name):
    case, vae, w = prepare(engine, name)
    found = {}
    keeps = set(case.arrays())

    def observe(key, value):
        if key in keeps:
            found[key] = engine.numpy(value)

    found["sample"] = engine.numpy(vae.decode(w, engine.asarray(case.input("latents")), observe=observe))
    check(case, found)


@pytest.mark.parametrize("name", ids_of("vae_encode_tiled"))
def test_tiled_encode(engine, name):
    case, vae, w = prepare(engine, name)
    tiling = tiling_config(case.need("tiling"))
    mean, logvar = tiled_encode(vae, w, engine.asarray(case.input("pixels")), tiling)
    check(case, {"mean": mean, "logvar": logvar, "std": np.exp(logvar / 2)})


@pytest.mark.parametrize("name", ids_of("vae_decode_tiled"))
def test_tiled_decode(engine, name):
    case, vae, w = prepare(engine, name)
    tiling = tiling_config(case.need("tiling"))
    check(case, {"sample": tiled_decode(vae, w, engine.asarray(case.input("latents")), tiling)})
