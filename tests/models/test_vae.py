"""The causal 3D VAE: names, arithmetic of its parts, causality, gradients."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from framewake.config import HUNYUAN_VAE
from framewake.errors import CheckpointError
from framewake.golden import rule
from framewake.models.vae import CausalVAE, level_factors
from framewake.models.vae_blocks import FrameCausalAttention, Upsample
from framewake.nn.convolution import CausalConv3d

DATA = Path(__file__).parent.parent / "data"
TOY = replace(HUNYUAN_VAE, latent_channels=4, block_out_channels=(4, 8, 8, 8), layers_per_block=1, norm_groups=2)


def weights_of(engine, part, seed=1):
    return {name: engine.asarray(rule.weight(name, shape, seed)) for name, shape in part.shapes().items()}


def largest(found, expected):
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max())


def test_published_names_and_shapes(engine):
    published = {name: tuple(shape) for name, shape in json.loads((DATA / "vae-keys.json").read_text()).items()}
    assert len(published) == 248
    assert CausalVAE(engine, HUNYUAN_VAE).shapes() == published


def test_names_follow_the_configuration(engine):
    shapes = CausalVAE(engine, replace(TOY, layers_per_block=3, mid_block_attention=False)).shapes()
    assert "encoder.down_blocks.3.resnets.2.conv1.conv.weight" in shapes
    assert "decoder.up_blocks.3.resnets.3.conv1.conv.weight" in shapes
    assert not [name for name in shapes if "attentions" in name]
    assert shapes["encoder.conv_out.conv.weight"] == (8, 8, 3, 3, 3)
    assert shapes["post_quant_conv.weight"] == (4, 4, 1, 1, 1)


@pytest.mark.parametrize(
    ("widths", "spatial", "temporal", "expected"),
    [
        ((1, 1, 1, 1), 8, 4, [(1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 1, 1)]),
        ((1, 1, 1), 4, 4, [(2, 2, 2), (2, 2, 2), (1, 1, 1)]),
        ((1, 1, 1, 1), 4, 2, [(1, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 1)]),
        ((1, 1), 2, 1, [(1, 2, 2), (1, 1, 1)]),
    ],
)
def test_levels_follow_the_compression(widths, spatial, temporal, expected):
    config = replace(TOY, block_out_channels=widths, spatial_compression=spatial, temporal_compression=temporal)
    assert level_factors(config) == expected


@pytest.mark.parametrize("field", ["spatial_compression", "temporal_compression"])
@pytest.mark.parametrize("ratio", [0, 6, 16])
def test_impossible_compression_is_refused(engine, field, ratio):
    with pytest.raises(CheckpointError, match=f"{field} {ratio}.*power of two up to 8"):
        CausalVAE(engine, replace(TOY, **{field: ratio}))


@pytest.mark.parametrize("config", [TOY, replace(TOY, spatial_compression=4, temporal_compression=2)])
@pytest.mark.parametrize("size", [(1, 16, 24), (5, 17, 9), (9, 8, 8)])
def test_sizes_round_up_and_come_back(engine, config, size):
    vae = CausalVAE(engine, config)
    w = weights_of(engine, vae)
    frames, height, width = size
    mean, logvar = vae.encode(w, engine.asarray(rule.input("pixels", (2, 3, *size), 1)))
    space, time = config.spatial_compression, config.temporal_compression
    latent = (-(-frames // time), -(-height // space), -(-width // space))
    assert tuple(mean.shape) == tuple(logvar.shape) == (2, 4, *latent)
    pixels = vae.decode(w, mean)
    assert tuple(pixels.shape) == (2, 3, 1 + (latent[0] - 1) * time, latent[1] * space, latent[2] * space)


def test_log_variance_is_clamped(engine):
    vae = CausalVAE(engine, TOY)
    w = weights_of(engine, vae)
    w["quant_conv.bias"] = engine.asarray(np.array([0, 0, 0, 0, 100, -100, 100, -100], dtype=np.float32))
    _, logvar = vae.encode(w, engine.asarray(rule.input("pixels", (1, 3, 1, 8, 8), 1)))
    assert np.unique(engine.numpy(logvar)).tolist() == [-30.0, 20.0]


def convolve(x, weight, bias, stride):
    """The same in numpy and float64, tap by tap."""
    kernel = weight.shape[2]
    side = kernel // 2
    x = np.pad(x, [(0, 0), (0, 0), (kernel - 1, 0), (side, side), (side, side)], mode="edge").astype(np.float64)
    sizes = [(n - kernel) // s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
    out = np.zeros((x.shape[0], weight.shape[0], *sizes))
    for tap in np.ndindex(kernel, kernel, kernel):
        cells = tuple(slice(t, t + (n - 1) * s + 1, s) for t, n, s in zip(tap, sizes, stride, strict=True))
        out += np.einsum("bifhw,oi->bofhw", x[(slice(None), slice(None), *cells)], weight[(..., *tap)])
    return out + bias[:, None, None, None]


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize(("kernel", "stride"), [(3, (1, 1, 1)), (3, (1, 2, 2)), (3, (2, 2, 2)), (1, (1, 1, 1))])
def test_causal_convolution(engine, frames, kernel, stride):
    conv = CausalConv3d(engine, "c", inputs=3, outputs=4, kernel=kernel, stride=stride)
    w = weights_of(engine, conv)
    x = rule.input("x", (2, 3, frames, 7, 6), 1)
    expected = convolve(
        x, rule.weight("c.weight", (4, 3, kernel, kernel, kernel), 1), engine.numpy(w["c.bias"]), stride
    )
    assert largest(engine.numpy(conv(w, engine.asarray(x))), expected) <= 2e-6


def test_convolution_does_not_see_the_future(engine):
    conv = CausalConv3d(engine, "c", inputs=2, outputs=2)
    w = weights_of(engine, conv)
    x = rule.input("x", (1, 2, 5, 6, 6), 1)
    other = x.copy()
    other[:, :, 3:] += 1
    found, changed = (engine.numpy(conv(w, engine.asarray(value))) for value in (x, other))
    assert np.array_equal(found[:, :, :3], changed[:, :, :3])
    assert np.abs(found[:, :, 3:] - changed[:, :, 3:]).max() > 0.1


@pytest.mark.parametrize("frames", [1, 4])
def test_attention_equals_one_masked_attention(engine, frames):
    channels, height, width = 8, 2, 3
    part = FrameCausalAttention(engine, "a", channels=channels, groups=2)
    w = weights_of(engine, part)
    x = rule.input("x", (2, channels, frames, height, width), 1)

    def linear(name, tokens):
        return tokens @ engine.numpy(w[f"a.{name}.weight"]).T.astype(np.float64) + engine.numpy(w[f"a.{name}.bias"])

    grouped = x.reshape(2, 2, -1).astype(np.float64)
    normed = (grouped - grouped.mean(-1, keepdims=True)) / np.sqrt(grouped.var(-1, keepdims=True) + 1e-6)
    normed = normed.reshape(2, channels, -1) * engine.numpy(w["a.group_norm.weight"])[:, None]
    normed = (normed + engine.numpy(w["a.group_norm.bias"])[:, None]).transpose(0, 2, 1)
    scores = linear("to_q", normed) @ linear("to_k", normed).transpose(0, 2, 1) / np.sqrt(channels)
    frame = np.arange(frames * height * width) // (height * width)
    scores[:, frame[None, :] > frame[:, None]] = -np.inf
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    y = linear("to_out.0", scores / scores.sum(-1, keepdims=True) @ linear("to_v", normed))
    expected = x + y.transpose(0, 2, 1).reshape(x.shape)
    assert largest(engine.numpy(part(w, engine.asarray(x))), expected) <= 3e-6


def test_gradient_agrees_with_differences(engine):
    config = replace(TOY, block_out_channels=(4, 8), spatial_compression=2, temporal_compression=2)
    vae = CausalVAE(engine, config)
    w = weights_of(engine, vae)
    pixels = engine.asarray(rule.input("pixels", (1, 3, 3, 8, 8), 1))

    def loss(w, pixels):
        mean, _ = vae.encode(w, pixels)
        error = vae.decode(w, mean) - pixels
        return engine.mean(error * error, (0, 1, 2, 3, 4))

    _, gradients = engine.grad(loss)(w, pixels)
    assert gradients.keys() == w.keys()
    step = 1e-2
    direction = {name: rule.input(name, tuple(x.shape), 2) / np.sqrt(len(w)) for name, x in w.items()}
    ahead, behind = (
        {name: x + engine.asarray(direction[name] * np.float32(sign * step)) for name, x in w.items()}
        for sign in (1, -1)
    )
    slope = (float(engine.numpy(loss(ahead, pixels))) - float(engine.numpy(loss(behind, pixels)))) / (2 * step)
    predicted = sum(float((engine.numpy(gradients[name]) * direction[name]).sum()) for name in w)
    assert slope == pytest.approx(predicted, rel=3e-2), (slope, predicted)


def test_half_precision_keeps_its_type_and_stays_close(engine):
    vae = CausalVAE(engine, TOY)
    w = weights_of(engine, vae)
    latents = engine.asarray(rule.input("latents", (1, 4, 2, 3, 3), 1))
    half = vae.decode({name: engine.cast(x, "float16") for name, x in w.items()}, latents)
    assert engine.dtype(half) == "float16"
    assert largest(engine.numpy(half), engine.numpy(vae.decode(w, latents))) <= 1e-2


def test_blocks_compile_once_for_all_weights(engine):
    attention = FrameCausalAttention(engine, "a", channels=4, groups=2)
    upsample = Upsample(engine, "u", channels=4, factors=(2, 2, 2))

    def level(w, x):
        return upsample(w, attention(w, x))

    compiled = engine.compile(level)
    x = engine.asarray(rule.input("x", (1, 4, 2, 3, 3), 1))
    for seed in (1, 2):
        w = weights_of(engine, attention, seed) | weights_of(engine, upsample, seed)
        assert largest(engine.numpy(compiled(w, x)), engine.numpy(level(w, x))) <= 1e-5
