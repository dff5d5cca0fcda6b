"""One set of random weights in every layout that is read."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from toy_checkpoint import DIT, SETTINGS, VAE, write_toy

from framewake.weights.checkpoint import diffusers
from framewake.weights.checkpoint.load import Checkpoint, open_checkpoint
from framewake.weights.checkpoint.settings import write_settings
from framewake.weights.reading.files import open_tensors
from framewake.weights.writing.files import write_tensors

MODEL = "hunyuan-video-i2v-720p"


def our_tensors(checkpoint: Checkpoint, component: str) -> dict[str, np.ndarray]:
    """A part's weights under the published names."""
    tensors = checkpoint.tensors(component)
    return {name: tensors.read(name) for name in tensors.names()}


def save_torch(path: Path, tensors: dict[str, np.ndarray], *keys: str, extra: dict | None = None) -> Path:
    """A ``.pt`` file as torch writes it, with the tensors below ``keys``."""
    torch = pytest.importorskip("torch")
    content = {name: torch.from_numpy(values) for name, values in tensors.items()}
    for key in reversed(keys):
        content = {key: content} | (extra or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def write_tencent(folder: Path, source: Path, model: str = MODEL, keys: tuple[str, ...] = ("module",)) -> Path:
    """The toy checkpoint ``source`` in the tree that the original reads."""
    checkpoint = open_checkpoint(source)
    dit = our_tensors(checkpoint, "dit")
    save_torch(folder / model / "transformers" / "mp_rank_00_model_states.pt", dit, *keys, extra={"step": 3})
    vae = {f"vae.{name}": values for name, values in our_tensors(checkpoint, "vae").items()}
    save_torch(folder / model / "vae" / "pytorch_model.pt", vae | {"loss.w": np.zeros(2, np.float32)}, "state_dict")
    content = diffusers.original_vae_content(checkpoint.vae)
    for name in ("spatial_compression_ratio", "temporal_compression_ratio", "mid_block_add_attention"):
        del content[name]  # the published file does not have them
    (folder / model / "vae" / "config.json").write_text(json.dumps(content))
    encoder = "text_encoder_i2v" if "i2v" in model else "text_encoder"
    for theirs, ours in (
        (encoder, ("text_encoder", "tokenizer")),
        ("text_encoder_2", ("text_encoder_2", "tokenizer_2")),
    ):
        for part in ours:
            shutil.copytree(source / part, folder / theirs, dirs_exist_ok=True)
    shutil.copy(source / "image_processor" / "preprocessor_config.json", folder / encoder)
    write_settings(folder, SETTINGS)
    return folder


def save_comfy(folder: Path, source: Path) -> dict[str, Path]:
    """The toy checkpoint as single files in the style of ComfyUI; the transformer in scaled 8 bits."""
    checkpoint = open_checkpoint(source)
    dit: dict[str, np.ndarray] = {}
    kinds: dict[str, str] = {}
    for name, values in our_tensors(checkpoint, "dit").items():
        theirs = "model.model." + comfy_name(name)
        if "blocks" in name and values.ndim == 2:
            scale = np.abs(values).max() / 448
            torch = pytest.importorskip("torch")
            bits = torch.from_numpy(values / scale).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
            dit |= {theirs: bits, theirs.removesuffix(".weight") + ".scale_weight": np.float32(scale).reshape(())}
            kinds[theirs] = "F8_E4M3"
        else:
            dit[theirs] = values
    dit["model.model.scaled_fp8"] = np.zeros(0, np.uint8)
    kinds["model.model.scaled_fp8"] = "F8_E4M3"
    llava = our_tensors(checkpoint, "llava")
    text = {n.removeprefix("language_model."): x for n, x in llava.items() if n.startswith("language_model.")}
    rest = {n.removeprefix("vision_tower."): x for n, x in llava.items() if not n.startswith("language_model.")}
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "dit": dit,
        "vae": our_tensors(checkpoint, "vae"),
        "llava": text,
        "llava-vision": rest,
        "clip": our_tensors(checkpoint, "clip_text"),
    }
    for name, tensors in files.items():
        write_tensors(folder / f"{name}.safetensors", tensors, kinds={k: v for k, v in kinds.items() if k in tensors})
    return {name: folder / f"{name}.safetensors" for name in files}


def comfy_name(name: str) -> str:
    """Another program's name of one of ours, written the other way round than the table that is tested."""
    pairs = [
        ("txt_in.t_embedder.mlp.0.", "txt_in.t_embedder.in_layer."),
        ("txt_in.t_embedder.mlp.2.", "txt_in.t_embedder.out_layer."),
        ("c_embedder.linear_1.", "c_embedder.in_layer."),
        ("c_embedder.linear_2.", "c_embedder.out_layer."),
        ("_mod.linear.", "_mod.lin."),
        ("_attn_qkv.", "_attn.qkv."),
        ("mlp.fc1.", "mlp.0."),
        ("mlp.fc2.", "mlp.2."),
        ("_attn_q_norm.weight", "_attn.norm.query_norm.scale"),
        ("_attn_k_norm.weight", "_attn.norm.key_norm.scale"),
        (".q_norm.weight", ".norm.query_norm.scale"),
        (".k_norm.weight", ".norm.key_norm.scale"),
        ("_attn_proj.", "_attn.proj."),
        (".modulation.linear.", ".modulation.lin."),
        ("_in.mlp.0.", "_in.in_layer."),
        ("_in.mlp.2.", "_in.out_layer."),
    ]
    for ours, theirs in pairs:
        name = name.replace(ours, theirs)
    return name


def write_wide_toy(folder: Path, condition: str = "token_replace", *, has_guidance: bool = True) -> Path:
    """A toy checkpoint whose rotary channels follow the published rule, so that no config has to say them."""
    wide = dataclasses.replace(DIT, hidden_size=64, rope_dims=(4, 14, 14), has_guidance=has_guidance)
    vae = dataclasses.replace(VAE, block_out_channels=(32, 32, 32, 32), norm_groups=32)
    return write_toy(folder, condition, dit=wide, vae=vae)


def text_to_video(folder: Path, source: Path) -> Path:
    """Tencent's tree for text-to-video: the language model of LLaVA is all of its text encoder."""
    tree = write_tencent(folder, source, model="hunyuan-video-t2v-720p")
    encoder = tree / "text_encoder"
    content = json.loads((encoder / "config.json").read_text())["text_config"]
    (encoder / "config.json").write_text(json.dumps(content))
    file = open_tensors(encoder)
    start = "language_model."
    text = {name.removeprefix(start): file.read(name) for name in file.names() if name.startswith(start)}
    next(encoder.glob("*.safetensors")).unlink()
    write_tensors(encoder / "model.safetensors", text)
    return tree
