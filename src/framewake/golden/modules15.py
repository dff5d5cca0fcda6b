"""Golden cases of HunyuanVideo-1.5's single models, its sparse attention and its upsamplers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from framewake.config import TilingConfig, VAEConfig
from framewake.config15 import HUNYUAN15_DIT, HUNYUAN15_VAE, DiT15Config, TileRule, UpsamplerConfig
from framewake.engine.contract import Engine, Tensor
from framewake.golden.cases import Case, dit_sizes, tensor, tiling_config
from framewake.golden.compare import Pair, valid_rows
from framewake.golden.modules import Arrays, Seen, SeenTokens, manner_among
from framewake.media.image import covering_pixels, squeezed_pixels
from framewake.models.dit import TextPart, TextStates
from framewake.models.dit15 import GLYPH, VISION, DiT15
from framewake.models.dit_shares import share_of
from framewake.models.qwen import SKIPPED, Qwen
from framewake.models.siglip import Siglip
from framewake.models.t5 import T5Encoder
from framewake.models.tile_attention import Tiling, tile_attention
from framewake.models.tiling import tiled_decode, tiled_encode
from framewake.models.upsampler import upsampler_of
from framewake.models.vae15 import CellVAE
from framewake.nn.convolution import Past
from framewake.nn.rope import rope_table
from framewake.sampling.guide import Denoise, with_image_channels, with_lesser_clip
from framewake.text.glyph import glyph_ids, glyph_text
from framewake.weights.checkpoint.configs15 import qwen_config, siglip_config, t5_config
from framewake.weights.reading.names15 import qwen as qwen_names
from framewake.weights.reading.names15 import tencent_dit
from framewake.weights.stores.store import Resident

TEXT = "txt_in"


def dit15_config(c: Mapping[str, Any]) -> DiT15Config:
    """A transformer's configuration as the cases write it."""
    joined = 2 * c["out_channels"] + 1 if c["concat_condition"] else c["in_channels"]
    return dataclasses.replace(
        HUNYUAN15_DIT,
        **dit_sizes(c),
        in_channels=joined,
        glyph_widths=tuple(c["byt5_widths"]),
        vision_width=c["vision_states_dim"],
        is_step_distilled=c["use_meanflow"],
    )


def dit15_weights(case: Case, engine: Engine, dit: DiT15) -> Resident:
    """A transformer's weights, drawn under Tencent's names."""
    width = dit.config.hidden_size
    return case.weights("dit", engine, dit.shapes(), rules=lambda held: tencent_dit(held, width))


def vae15_config(c: Mapping[str, Any]) -> VAEConfig:
    """An autoencoder's configuration as the cases write it."""
    return dataclasses.replace(
        HUNYUAN15_VAE,
        in_channels=c["in_channels"],
        out_channels=c["out_channels"],
        latent_channels=c["latent_channels"],
        block_out_channels=tuple(c["block_out_channels"]),
        layers_per_block=c["layers_per_block"],
        scaling_factor=c["scaling_factor"],
        spatial_compression=c["ffactor_spatial"],
        temporal_compression=c["ffactor_temporal"],
    )


def tiling15_config(c: Mapping[str, Any]) -> TilingConfig:
    """Tile sizes of a case: in space alone."""
    return tiling_config(dict(c) | {"tile_sample_min_tsize": 1, "tile_latent_min_tsize": 1, "temporal": False})


def dit15_forward(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """One call of the transformer with its inner activations."""
    config = dit15_config(case.config)
    dit = DiT15(engine, config)
    weights = dit15_weights(case, engine, dit)
    text = _text(case, engine)
    grid = tuple(case.need("inputs", "latents", "shape")[2:])
    rope = rope_table(grid, config.rope_dims, config.rope_theta)
    manner = manner_among(engine, config)
    seen = SeenTokens(engine, share_of(engine, manner.arrangement, int(np.prod(grid)), config.heads))
    numbers = {name: tensor(engine, case.need("inputs", ours)) for name, ours in (("timestep", "t"), ("until", "t_r"))
               if case.inputs.get(ours) is not None}  # fmt: skip

    def told(latents: Tensor, timestep: Any) -> Tensor:
        table = (tensor(engine, rope[0]), tensor(engine, rope[1]))
        return dit(weights, latents, **numbers, text=text, rope=table, observe=seen, manner=manner)

    denoise: Denoise = told
    if "lq_latents" in case.inputs:
        denoise = with_lesser_clip(engine, denoise, tensor(engine, case.input("lq_latents")))
    image = tensor(engine, case.input("image_latents")) if "image_latents" in case.inputs else None
    with_image_channels(engine, denoise, image)(tensor(engine, case.input("latents")), case.inputs["t"][0])

    seen("rope_cos", rope[0])
    seen("rope_sin", rope[1])
    lengths = {TEXT: text.lengths} | {name: part.lengths for name, part in text.further.items()}
    joined = [sum(each) for each in zip(*lengths.values(), strict=True)]
    if VISION not in lengths:  # masked out, but looked at in the original
        seen(VISION, np.zeros_like(arrays[VISION]))
        lengths[VISION] = (0,) * len(joined)
    seen.arrays["txt_joined_mask"] = np.arange(arrays["txt_joined_mask"].shape[1]) < np.asarray(joined)[:, None]
    for name, want in arrays.items():
        if name in seen.arrays:
            kept = lengths.get(name, joined if name == "txt_joined" or name.endswith("_txt") else None)
            got = seen.arrays[name]
            yield Pair(name, got, want) if kept is None else Pair(name, valid_rows(got, kept), valid_rows(want, kept))


def _text(case: Case, engine: Engine) -> TextStates:
    """The tokens of a case; what a picture would give is left out of text to video."""
    further = {}
    if case.inputs["mask_type"] == "i2v":
        states = case.input("vision_states")
        further[VISION] = TextPart(tensor(engine, states), (states.shape[1],) * states.shape[0])
    further[GLYPH] = TextPart(tensor(engine, case.input("byt5_states")), _lengths(case, "byt5_mask"))
    return TextStates(tensor(engine, case.input("text_states")), _lengths(case, "text_mask"), None, further)


def _lengths(case: Case, name: str) -> tuple[int, ...]:
    return tuple(int(sum(row)) for row in case.need("inputs", name))


def vae15_encode(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Encoding, whole or in tiles."""
    vae = CellVAE(engine, vae15_config(case.config))
    w = case.weights("vae", engine, vae.shapes()).part("")
    pixels, tiling, seen = tensor(engine, case.input("pixels")), case.content.get("tiling"), Seen(engine)
    if tiling is None:
        mean, logvar = vae.encode(w, pixels, observe=seen)
    else:
        mean, logvar = tiled_encode(vae, w, pixels, tiling15_config(tiling))
    seen("mean", mean)
    seen("logvar", logvar)
    seen.arrays["scaled"] = seen.arrays["mean"] * np.float32(vae.config.scaling_factor)
    yield from seen.pairs(arrays)


def vae15_decode(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Decoding, whole or in tiles, and a frame at a time."""
    vae = CellVAE(engine, vae15_config(case.config))
    w = case.weights("vae", engine, vae.shapes()).part("")
    latents, tiling, seen = tensor(engine, case.input("latents")), case.content.get("tiling"), Seen(engine)
    if tiling is None:
        seen("sample", vae.decode(w, latents, observe=seen))
        yield Pair("sample", engine.numpy(vae.decode_slabs(w, latents, 1)), arrays["sample"])
    else:
        seen("sample", tiled_decode(vae, w, latents, tiling15_config(tiling)))
    yield from seen.pairs(arrays)


def qwen_encode(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Template and prompt as ids into text states."""
    encoder = Qwen(engine, qwen_config(case.need("config", "qwen")))
    unused = encoder.language.unused_shapes(SKIPPED)
    weights = case.weights("qwen", engine, encoder.shapes(), optional=unused, rules=qwen_names)
    ids, first = np.asarray(case.need("inputs", "input_ids")), case.need("config", "crop_start")
    valid = np.asarray(case.need("inputs", "valid_ids"))
    mask = (np.arange(ids.shape[1]) < valid[:, None]).astype(np.int64)
    hidden = engine.numpy(encoder(weights, ids, mask))[:, first:]
    kept = valid - first
    yield Pair("prompt_embeds", valid_rows(hidden, kept), valid_rows(arrays["prompt_embeds"], kept))
    yield Pair("prompt_mask", mask[:, first:], arrays["prompt_mask"])
    yield Pair("hidden_states_count", np.asarray([encoder.config.layers + 1]), arrays["hidden_states_count"])
    begun = encoder.language(
        weights, encoder.language.embed(weights, ids[:, :4]), skip_layers=encoder.config.layers - 1
    )
    yield Pair("after_layer_0", engine.numpy(begun), arrays["after_layer_0"])


def byt5_encode(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """A prompt's quoted text into states, and those in the transformer's width."""
    length = case.need("config", "length")
    text = glyph_text(case.need("inputs", "prompt"))
    ids = glyph_ids(text, limit=length)[:, : length if text else 0]
    count = ids.shape[1]
    yield Pair("byt5_mask", (np.arange(length) < count)[None], arrays["byt5_mask"])
    if count == 0:
        yield Pair("byt5_states", np.zeros_like(arrays["byt5_states"]), arrays["byt5_states"])
        return
    encoder = T5Encoder(engine, t5_config(case.need("config", "byt5")))
    yield Pair("ids", np.pad(ids, ((0, 0), (0, length - count))), arrays["ids"])
    states = encoder(case.weights("byt5", engine, encoder.shapes()), ids)
    yield Pair("byt5_states", engine.numpy(states), arrays["byt5_states"][:, :count])
    *widths, hidden = case.need("config", "mapper")
    dit = DiT15(engine, dataclasses.replace(HUNYUAN15_DIT, hidden_size=hidden, glyph_widths=tuple(widths)))
    shapes = {name: shape for name, shape in dit.shapes().items() if name.startswith(GLYPH)}
    mapped = dit.projected(case.weights("mapper", engine, shapes).part(GLYPH), GLYPH, states)
    yield Pair("mapped", engine.numpy(mapped), arrays["mapped"][:, :count])


def siglip_encode(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """A picture into the states of its patches."""
    tower = Siglip(engine, siglip_config(case.need("config", "siglip")))
    crop = covering_pixels(case.picture(), *case.need("config", "target"))
    pixels = squeezed_pixels(crop, tower.config.image_size)[None]
    head = [name for name in case.tables["siglip"] if name.startswith("vision_model.head.")]
    states = tower(case.weights("siglip", engine, tower.shapes(), optional=head), tensor(engine, pixels))
    made = {"crop": crop, "pixel_values": pixels, "last_hidden_state": engine.numpy(states)}
    yield from (Pair(name, made[name], want) for name, want in arrays.items() if name in made)


def ssta(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Sparse attention and its mask."""
    c, valid = case.config, case.need("inputs", "text_valid")
    rule = TileRule(tuple(c["tile"]), tuple(c["window"]), c["topk"], c["lambda_"])
    tiling = Tiling(rule, tuple(c["thw"]), case.need("inputs", "text_len"))
    q, k, v = (tensor(engine, case.input(name).transpose(0, 2, 1, 3)) for name in "qkv")
    scale = float(q.shape[3]) ** -0.5
    out, mask = tile_attention(engine, q, k, v, tiling=tiling, valid=valid, scale=scale)
    yield Pair("block_mask", mask, arrays["block_mask"])
    yield Pair("kept", np.asarray([mask.mean()]), arrays["kept"])
    rows = [int(np.prod(tiling.grid)) + count for count in valid]
    want = arrays["output"].transpose(0, 2, 1, 3)
    yield Pair("output", valid_rows(engine.numpy(out), rows), valid_rows(want, rows))


def upsampler_config(c: Mapping[str, Any]) -> UpsamplerConfig:
    """An upsampler's configuration as the cases write it."""
    if c["kind"] == "720p":
        adds_input = c.get("global_residual", False)
        return UpsamplerConfig("plain", c["in_channels"], (c["hidden_channels"],), c["num_blocks"], adds_input)
    widths, resnets = tuple(c["block_out_channels"]), c["num_res_blocks"] + 1
    return UpsamplerConfig("levels", c["z_channels"], widths, resnets, adds_input=False)


def sr_upsampler(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Latents through an upsampler."""
    model = upsampler_of(engine, upsampler_config(case.config))
    w = case.weights("upsampler", engine, model.shapes()).part("")
    latents, past = tensor(engine, case.input("latents")), Past()
    yield Pair("output", engine.numpy(model(w, latents)), arrays["output"])
    frames = [model(w, latents[:, :, index : index + 1], past=past) for index in range(latents.shape[2])]
    yield Pair("output", engine.numpy(engine.concat(frames, 2)), arrays["output"])
