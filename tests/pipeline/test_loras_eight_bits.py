"""LoRAs over weights that are stored in eight bits, in memory and streamed: added to what the bits stand for."""

from __future__ import annotations

import numpy as np
import pytest
from lora_files import BASE as WIDE
from lora_files import SHAPES, adapted, expected, keys_of, write

from framewake.pipeline import Pipeline, Result
from framewake.pipeline.adapters import targets_of
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.lora.file import open_lora
from framewake.weights.lora.view import LoraView
from framewake.weights.reading.narrow import from_bfloat16, to_bfloat16
from framewake.weights.stores.quant import dequantise, is_quantised, quantise
from framewake.weights.writing.convert import convert

STREAMS = ("double_blocks", "single_blocks")
KINDS = ("fp8", "int8")


@pytest.fixture(scope="module")
def eight(toy, tmp_path_factory):
    """The toy checkpoint, converted as a user does it."""
    checkpoint = open_checkpoint(toy)
    shapes = HUNYUAN.shapes(checkpoint)
    folder = tmp_path_factory.mktemp("eight")
    for kind in KINDS:
        list(convert(checkpoint, folder / kind, shapes=shapes, dtype=kind, layout="framewake"))
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    # A tenth, so that frames are not driven to black and white, where nothing can be compared.
    tensors = {key: x * np.float32(0.1) if "up" in key else x for key, x in keys_of("kohya").items()}
    return write(tmp_path_factory.mktemp("loras") / "a.safetensors", tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_weights_are_exact_and_go_without_a_trace(engine, eight, file, kind):
    checkpoint = open_checkpoint(eight / kind)
    lora = open_lora(file, targets_of(checkpoint))
    stores = [checkpoint.store("dit", engine, "float32", shapes=SHAPES, streams=s) for s in ((), STREAMS)]
    assert any(is_quantised(name, shape) for name, shape in SHAPES.items())
    largest = 0.0
    for scale in (0.8, 0.0):
        views = [LoraView(engine, stores[0], [lora]), LoraView(engine, stores[1], [lora], keeps=False)]
        for view in views:
            view.use([scale])
        for name in STREAMS:
            for number, blocks in enumerate(zip(*(view.blocks(name) for view in views), strict=True)):
                for key in blocks[0]:
                    full = f"{name}.{number}.{key}"
                    resident, streamed = (engine.numpy(block[key]) for block in blocks)
                    assert np.array_equal(resident, streamed), full
                    base = WIDE[full]
                    is_small = not is_quantised(full, base.shape)
                    base = from_bfloat16(to_bfloat16(base)) if is_small else dequantise(quantise(base, kind), kind)
                    change = 0.1 * (expected(full, scale) - WIDE[full]) if full in adapted() else 0.0
                    largest = max(largest, float(np.abs(resident - (base + change)).max()))
                    assert scale or np.array_equal(resident, base), full
    stores[1].close()
    assert largest < 1e-5, f"largest difference {largest:.1e}"


@pytest.mark.parametrize("kind", KINDS)
def test_clips_with_and_without(engine, eight, file, request_of, kind):
    pipeline = Pipeline.load(eight / kind, engine=engine)

    def frames(**changes):
        return next(event.frames for event in pipeline.run(request_of(**changes)) if isinstance(event, Result))

    plain, strong = frames(), frames(loras=[str(file)])
    assert not np.array_equal(plain, strong)
    assert np.array_equal(frames(), plain) and np.array_equal(frames(loras=[f"{file}:0"]), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_what_depends_on_the_weights_depends_on_what_the_bits_stand_for(engine, eight, tmp_path, kind):
    """DoRA over eight bits, and a difference of a bias, in memory and streamed."""
    module = "double_blocks.0.img_mlp.fc1"
    name, bias = f"{module}.weight", f"{module}.bias"
    rows, columns = SHAPES[name]
    drawn = np.random.default_rng(0).standard_normal
    up, down, more = (drawn(shape).astype(np.float32) for shape in ((rows, 4), (4, columns), (rows,)))
    magnitude = np.abs(drawn((rows, 1))).astype(np.float32) + np.float32(0.5)
    parts = {"lora_up.weight": up, "lora_down.weight": down, "dora_scale": magnitude, "diff_b": more}
    path = write(tmp_path / "a.safetensors", {f"diffusion_model.{module}.{end}": x for end, x in parts.items()})
    checkpoint = open_checkpoint(eight / kind)
    lora = open_lora(path, targets_of(checkpoint))
    old = dequantise(quantise(WIDE[name], kind), kind).astype(np.float64)
    new = old + up.astype(np.float64) @ down
    new = old + 0.7 * (magnitude * new / np.linalg.norm(new, axis=1, keepdims=True) - old)
    wanted = {name: new, bias: from_bfloat16(to_bfloat16(WIDE[bias])) + 0.7 * more.astype(np.float64)}
    for streams in ((), STREAMS):
        store = checkpoint.store("dit", engine, "float32", shapes=SHAPES, streams=streams)
        view = LoraView(engine, store, [lora], keeps=not streams)
        view.use([0.7])
        [block] = view.blocks("double_blocks")
        for full, want in wanted.items():
            found = engine.numpy(block[full.removeprefix("double_blocks.0.")])
            assert np.abs(found - want).max() < 1e-5, full
        if streams:
            store.close()
