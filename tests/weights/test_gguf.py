"""GGUF files: blocks against the package of their inventors, names, orders and shapes, in memory and streamed."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from cut_tensors import check_file
from toy_checkpoint import DIT, VAE, write_toy

from framewake.errors import CheckpointError
from framewake.models.dit import DiT
from framewake.models.llava import Llava
from framewake.weights.checkpoint.layouts import Files
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.reading.containers import container_of
from framewake.weights.reading.files import open_file
from framewake.weights.reading.gguf_blocks import KINDS, bytes_of

gguf = pytest.importorskip("gguf")
BLOCKS = {number: kind for number, kind in KINDS.items() if kind.widen is not None}
Q8, F32, F16, BF16 = (gguf.GGMLQuantizationType[name] for name in ("Q8_0", "F32", "F16", "BF16"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A toy of which every matrix is some whole blocks wide."""
    import dataclasses

    dit = dataclasses.replace(DIT, hidden_size=64, rope_dims=(4, 14, 14))
    vae = dataclasses.replace(VAE, block_out_channels=(32, 32, 32, 32), norm_groups=32)
    return write_toy(tmp_path_factory.mktemp("source"), dit=dit, vae=vae)


def our_tensors(checkpoint, component):
    tensors = checkpoint.tensors(component)
    return {name: tensors.read(name) for name in tensors.names()}


def write(path, tensors, kinds=None, *, arch="hyvid", numbers=None, flattened=None):
    """A GGUF file as converters write it; ``kinds`` are block types by name, all others are float32."""
    writer = gguf.GGUFWriter(path, arch)
    for key, value in (numbers or {}).items():
        writer.add_uint32(key, value)
    for name, shape in (flattened or {}).items():
        writer.add_array(f"comfy.gguf.orig_shape.{name}", list(shape))
    for name, values in tensors.items():
        kind = (kinds or {}).get(name, F32)
        data = values.reshape(-1, 256) if name in (flattened or {}) else values
        writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(data), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def after(values, kind):
    """What is left of numbers in a type, by the package."""
    return gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind).reshape(values.shape)


def blocks_of(kind, count, seed=0):
    """Random blocks whose two-byte scales are ordinary numbers."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, kind.size)).astype(np.uint8)
    places = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2)}
    for at in places.get(kind.name, (0, 2) if kind.name == "Q5_K" else (0,)):
        blocks[:, at : at + 2] = rng.normal(0, 1, (count, 1)).astype("<f2").view(np.uint8)
    return blocks


@pytest.mark.parametrize("number", BLOCKS, ids=[kind.name for kind in BLOCKS.values()])
def test_every_block_type_to_the_last_bit(number):
    kind, theirs = BLOCKS[number], gguf.GGMLQuantizationType(number)
    assert theirs.name == kind.name and gguf.GGML_QUANT_SIZES[theirs] == (kind.numbers, kind.size)
    blocks = blocks_of(kind, 300)
    found = kind.widen(blocks)
    assert found.dtype == np.float32 and found.shape == (300, kind.numbers)
    assert np.array_equal(found, gguf.quants.dequantize(blocks, theirs).reshape(found.shape))
    assert bytes_of(kind.name, 300 * kind.numbers) == blocks.size


@pytest.mark.parametrize("number", BLOCKS, ids=[kind.name for kind in BLOCKS.values()])
def test_every_block_type_in_a_file(number, tmp_path):
    kind = BLOCKS[number]
    blocks = blocks_of(kind, 512 * 256 // kind.numbers)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "hyvid")
    rows = blocks.reshape(512, -1)
    writer.add_tensor("a", rows, raw_dtype=gguf.GGMLQuantizationType(number))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = open_file(tmp_path / "x.gguf")
    assert file.shape("a") == (512, 256) and file.dtype("a") == "F32" and file.stored("a") == kind.name
    assert np.array_equal(file.read("a"), kind.widen(blocks).reshape(512, 256))
    half = np.empty((512, 256), np.float16)
    file.fill("a", half, "float16")
    check_file(file, "float16")
    assert np.array_equal(half, file.read("a").astype(np.float16))


@pytest.mark.parametrize("kind", [F32, F16, BF16], ids=["F32", "F16", "BF16"])
def test_plain_types(kind, tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    file = open_file(write(tmp_path / "x.gguf", {"a": values}, {"a": kind}))
    assert container_of(tmp_path / "x.gguf").key == "gguf"
    assert file.stored("a") == kind.name and np.array_equal(file.read("a"), after(values, kind))
    for dtype, numpy_type in (("float32", np.float32), ("bfloat16", np.uint16)):
        out = np.empty((6, 5), numpy_type)
        file.fill("a", out, dtype)
        assert out.any()


def large(tensors):
    return {name: Q8 for name, values in tensors.items() if "_blocks" in name and values.ndim == 2}


def test_a_transformer(engine, source, tmp_path):
    tensors = our_tensors(open_checkpoint(source), "dit")
    kinds = large(tensors)
    # As ComfyUI's converter does where a row is no whole number of blocks, and for five axes.
    flat = {
        n: x.shape for n, x in tensors.items() if n in ("img_in.proj.weight", "double_blocks.0.img_attn_qkv.weight")
    }
    path = write(tmp_path / "x.gguf", tensors, kinds, flattened=flat)
    checkpoint = open_checkpoint(source, Files(dit=path))
    assert checkpoint.dit == open_checkpoint(source).dit
    shapes = DiT(None, checkpoint.dit).shapes()
    right = {n: after(x.reshape(-1, 256) if n in flat else x, kinds.get(n, F32)).reshape(x.shape)
             for n, x in tensors.items()}  # fmt: skip
    found = checkpoint.store("dit", engine, "float32", shapes=shapes).part("")
    assert set(found) == set(right)
    assert all(np.array_equal(engine.numpy(values), right[name]) for name, values in found.items())
    streamed = checkpoint.store("dit", engine, "float32", shapes=shapes, streams=("double_blocks", "single_blocks"))
    for name in ("double_blocks", "single_blocks"):
        (block,) = streamed.blocks(name)
        assert all(np.array_equal(engine.numpy(x), right[f"{name}.0.{n}"]) for n, x in block.items())
    streamed.close()


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("arch", ["hyvid", "pig"])
def test_prefixes_and_other_converters(source, tmp_path, prefix, arch):
    tensors = our_tensors(open_checkpoint(source), "dit")
    path = write(tmp_path / "x.gguf", {prefix + name: x for name, x in tensors.items()}, arch=arch)
    found = our_tensors(open_checkpoint(source, Files(dit=path)), "dit")
    assert all(np.array_equal(found[name], x) for name, x in tensors.items())


LLAMA = {
    "language_model.model.embed_tokens.": "token_embd.",
    "language_model.model.norm.": "output_norm.",
    "language_model.lm_head.": "output.",
    "language_model.model.layers.": "blk.",
    ".self_attn.o_proj.": ".attn_output.",
    ".self_attn.q_proj.": ".attn_q.",
    ".self_attn.k_proj.": ".attn_k.",
    ".self_attn.v_proj.": ".attn_v.",
    ".post_attention_layernorm.": ".ffn_norm.",
    ".input_layernorm.": ".attn_norm.",
    ".mlp.gate_proj.": ".ffn_gate.",
    ".mlp.up_proj.": ".ffn_up.",
    ".mlp.down_proj.": ".ffn_down.",
}
TOWER = {
    "multi_modal_projector.linear_1.": "mm.0.",
    "multi_modal_projector.linear_2.": "mm.2.",
    "vision_tower.vision_model.embeddings.class_embedding": "v.class_embd",
    "vision_tower.vision_model.embeddings.patch_embedding.": "v.patch_embd.",
    "vision_tower.vision_model.embeddings.position_embedding.": "v.position_embd.",
    "vision_tower.vision_model.pre_layrnorm.": "v.pre_ln.",
    "vision_tower.vision_model.post_layernorm.": "v.post_ln.",
    "vision_tower.vision_model.encoder.layers.": "v.blk.",
    ".self_attn.out_proj.": ".attn_out.",
    ".self_attn.q_proj.": ".attn_q.",
    ".self_attn.k_proj.": ".attn_k.",
    ".self_attn.v_proj.": ".attn_v.",
    ".layer_norm1.": ".ln1.",
    ".layer_norm2.": ".ln2.",
    ".mlp.fc1.": ".ffn_up.",
    ".mlp.fc2.": ".ffn_down.",
}


def theirs(name, table):
    for ours, their in table.items():
        name = name.replace(ours, their)
    return name


def turned(values, heads):
    """llama.cpp's order of a query's or key's rows: pairs of neighbours instead of halves."""
    return values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def as_llama_cpp(checkpoint, folder, *, old_tower=False, kind=F16):
    """LLaVA as two GGUF files: the language model, and the tower with its projector."""
    text, tower = checkpoint.configs["llava"].text, {}
    language = {}
    for name, values in our_tensors(checkpoint, "llava").items():
        if not name.startswith("language_model."):
            their = theirs(name, TOWER)
            if old_tower:
                their = their.replace("ffn_up", "fc").replace("ffn_down", "ffn_up").replace("fc", "ffn_down")
            tower[their] = values
            continue
        heads = text.heads if ".q_proj" in name else text.kv_heads if ".k_proj" in name else 0
        language[theirs(name, LLAMA)] = turned(values, heads) if heads else values
    numbers = {"llama.attention.head_count": text.heads, "llama.attention.head_count_kv": text.kv_heads}
    kinds = {name: kind for name, values in language.items() if values.ndim == 2}
    text = write(folder / "text.gguf", language, kinds, arch="llama", numbers=numbers)
    return Files({"llava": text, "llava-vision": write(folder / "mmproj.gguf", tower, arch="clip")})


@pytest.mark.parametrize("old_tower", [False, True])
def test_a_text_encoder(source, tmp_path, old_tower):
    checkpoint = open_checkpoint(source)
    found = open_checkpoint(source, as_llama_cpp(checkpoint, tmp_path, old_tower=old_tower))
    found.check("llava", Llava(None, checkpoint.configs["llava"]).shapes())
    right, tensors = our_tensors(checkpoint, "llava"), our_tensors(found, "llava")
    assert set(right) == set(tensors)
    for name, values in right.items():
        is_half = name.startswith("language_model.") and values.ndim == 2
        assert np.array_equal(tensors[name], after(values, F16) if is_half else values), name


def test_turned_rows_in_blocks(tmp_path):
    values = np.random.default_rng(1).normal(size=(64, 96)).astype(np.float32)
    numbers = {"llama.attention.head_count": 4, "llama.attention.head_count_kv": 2}
    tensors = {"blk.3.attn_q.weight": turned(values, 4), "blk.3.attn_k.weight": turned(values, 2)}
    path = write(tmp_path / "x.gguf", tensors, dict.fromkeys(tensors, Q8), arch="llama", numbers=numbers)
    file = open_file(path)
    for name in file.names():
        assert np.array_equal(file.read(name), after(values, Q8)), name
    check_file(file, "bfloat16")


def test_the_tower_of_a_whole_llava(source, tmp_path):
    checkpoint = open_checkpoint(source)
    files = as_llama_cpp(checkpoint, tmp_path)
    found = open_checkpoint(source, Files(files | {"llava-vision": source / "text_encoder"}))
    found.check("llava", Llava(None, checkpoint.configs["llava"]).shapes())
    with pytest.raises(CheckpointError, match=r"no vision tower.*--part llava-vision=FILE"):
        open_checkpoint(source, Files(llava=files["llava"]))


@pytest.mark.parametrize(
    ("arch", "part", "message"),
    [
        ("flux", "dit", "'flux' model"),
        ("wan", "dit", "'wan' model"),
        ("llama", "dit", "no transformer: name it with --part llava=FILE"),
        ("hyvid", "llava", "no LLaVA text encoder: name it with --part dit=FILE"),
        ("t5", "llava", "'t5' model"),
        ("hyvid", "vae", "--part dit=FILE"),
        ("pig", "clip", "safetensors"),
    ],
)
def test_other_models_are_named(source, tmp_path, arch, part, message):
    path = write(tmp_path / "x.gguf", {"a": np.ones((2, 32), np.float32)}, arch=arch)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(source, Files({part: path})).tensors("clip_text" if part == "clip" else part)


def test_pieces_and_types_that_are_not_read(tmp_path):
    write(tmp_path / "x.gguf", {"a": np.ones((2, 32), np.float32)}, numbers={"split.count": 3})
    with pytest.raises(CheckpointError, match=r"one of 3 pieces.*llama-gguf-split --merge"):
        open_file(tmp_path / "x.gguf")
    writer = gguf.GGUFWriter(tmp_path / "y.gguf", "hyvid")
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.IQ3_S][1]
    writer.add_tensor("a", np.zeros((2, size), np.uint8), raw_dtype=gguf.GGMLQuantizationType.IQ3_S)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=r"IQ3_S.*Q8_0.*are read"):
        open_file(tmp_path / "y.gguf")


def test_damage_of_every_byte_of_a_header(source, tmp_path):
    """Cut anywhere or changed anywhere, it is read, or refused as ours."""
    whole = write(tmp_path / "x.gguf", {"a": np.ones((4, 32), np.float32)}, {"a": Q8}, numbers={"a.b": 3},
                  flattened={"b": (2, 2)}).read_bytes()  # fmt: skip
    header = len(whole) - 4 * 34
    path = tmp_path / "y.gguf"
    for at in range(4, header):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :]):
            path.write_bytes(content)
            try:
                file = open_file(path)
                for name in file.names():
                    file.read(name)
            except CheckpointError as error:
                assert str(path) in str(error)


def test_a_download_that_was_cut(source, tmp_path):
    path = write(tmp_path / "x.gguf", our_tensors(open_checkpoint(source), "dit"))
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 1000)
    with pytest.raises(CheckpointError, match="beyond the file"):
        open_checkpoint(shutil.copytree(source, tmp_path / "copy"), Files(dit=path))
