"""Golden cases of single models: transformer, autoencoder, and the merge of a LoRA."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from framewake.config import DiTConfig, TilingConfig
from framewake.engine.contract import Engine, Tensor
from framewake.errors import CheckpointError
from framewake.golden import rule
from framewake.golden.cases import Case, dit_config, tensor, tiling_config, vae_config
from framewake.golden.compare import Pair, valid_rows
from framewake.models.arrangement import arrange
from framewake.models.dit import DiT, TextStates
from framewake.models.dit_shares import Share, share_of
from framewake.models.manner import Manner
from framewake.models.tiling import tiled_decode, tiled_encode
from framewake.models.vae import CausalVAE
from framewake.nn.rope import rope_table
from framewake.sampling.flow import rounded_guidance, schedule
from framewake.sampling.guide import Denoise, Timestep, with_image_channels
from framewake.weights.lora.file import fit
from framewake.weights.lora.targets import Targets
from framewake.weights.lora.view import LoraView

Arrays = dict[str, np.ndarray]


class Seen:
    """Inner activations by name, copied to the host as they appear."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.arrays: Arrays = {}

    def __call__(self, name: str, value: Any) -> None:
        self.arrays[name] = np.array(value if isinstance(value, np.ndarray) else self.engine.numpy(value))

    def pairs(self, stored: Arrays) -> Iterator[Pair]:
        """What was seen beside what is stored."""
        return (Pair(name, self.arrays[name], want) for name, want in stored.items() if name in self.arrays)


class SeenTokens(Seen):
    """Those of the transformer, of which each of several devices has its tokens only: put together again."""

    def __init__(self, engine: Engine, share: Share) -> None:
        super().__init__(engine)
        self.share = share

    def __call__(self, name: str, value: Any) -> None:
        """Image tokens are gathered; the text behind them is the same on all devices."""
        if not self.share.is_alone and re.fullmatch(r"img_in|double_\d+_img|single_\d+", name):
            start, stop = self.share.division.run
            image, text = value[:, : stop - start], value[:, stop - start :]
            image = self.share.gathered(image)
            value = self.engine.concat([image, text], 1) if text.shape[1] else image
        super().__call__(name, value)


def manner_among(engine: Engine, config: DiTConfig) -> Manner:
    """How the transformer works on the devices of an engine: all of them take all samples."""
    return Manner(arrangement=arrange(engine.size(), config.heads))


def text_states(engine: Engine, states: np.ndarray, mask: Any, pooled: np.ndarray) -> TextStates:
    """Text with its mask turned into lengths.

    Raises: CheckpointError for a mask whose ones are not a prefix.
    """
    mask = np.asarray(mask)
    lengths = tuple(int(row.sum()) for row in mask)
    if not all((row == (np.arange(len(row)) < length)).all() for row, length in zip(mask, lengths, strict=True)):
        raise CheckpointError("a text_mask has zeros before ones; valid tokens come first.")
    return TextStates(tensor(engine, states), lengths, tensor(engine, pooled))


def dit_forward(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """One call of the transformer with its inner activations."""
    config = dit_config(case.config)
    dit = DiT(engine, config)
    weights = case.weights("dit", engine, dit.shapes())
    timestep, guidance = _numbers(case, "t"), _numbers(case, "guidance")
    text = text_states(engine, case.input("text_states"), case.need("inputs", "text_mask"), case.input("text_states_2"))
    rope = case.need("inputs", "rope")
    grid = tuple(rope["sizes"])
    table = rope_table(grid, tuple(rope["dims"]), float(rope["theta"]))
    manner = manner_among(engine, config)
    seen = SeenTokens(engine, share_of(engine, manner.arrangement, int(np.prod(grid)), config.heads))

    def told(latents: Tensor, timestep: Timestep) -> Tensor:
        return dit(
            weights,
            latents,
            timestep=tensor(engine, timestep),
            text=text,
            guidance=None if guidance is None else tensor(engine, guidance),
            rope=(tensor(engine, table[0]), tensor(engine, table[1])),
            observe=seen,
            manner=manner,
        )

    denoise: Denoise = told
    if "image_latents" in case.inputs:
        denoise = with_image_channels(engine, told, tensor(engine, case.input("image_latents")))
    denoise(tensor(engine, case.input("latents")), np.asarray(timestep))
    image_tokens = int(np.prod(grid))
    tokens = image_tokens + text.states.shape[1]
    starts = np.arange(len(text.lengths)) * tokens
    ends = np.stack([starts + image_tokens + np.asarray(text.lengths), starts + tokens], axis=1)
    seen.arrays["cu_seqlens"] = np.concatenate([[0], ends.reshape(-1)])
    seen.arrays["t"] = np.asarray(timestep, dtype=np.float32)
    if guidance is not None:
        seen.arrays["guidance"] = np.asarray(guidance, dtype=np.float32)
    for name, want in arrays.items():
        if name in seen.arrays:
            yield _without_padding(name, seen.arrays[name], want, image_tokens, text.lengths)


def _numbers(case: Case, name: str) -> list[float] | None:
    """Timesteps or guidance numbers, written out or taken from a step of a sampling loop."""
    values = case.need("inputs", name)
    if not isinstance(values, dict):
        return values
    loop = case.need("inputs", name, "from_loop")
    if name == "guidance":
        return [rounded_guidance(loop["embedded_guidance_scale"], "bfloat16")]
    return [float(schedule(loop["steps"], loop["shift"], is_reverse=loop["reverse"]).timesteps[loop["index"]])]


def _without_padding(name: str, got: np.ndarray, want: np.ndarray, image_tokens: int, lengths: tuple[int, ...]) -> Pair:
    """Text rows behind a sample's length mean nothing and are left out."""
    if name in ("cu_seqlens", "t", "guidance"):
        return Pair(name, got, want, "exact")
    if name == "txt_in" or (name.startswith("double_") and name.endswith("_txt")):
        return Pair(name, valid_rows(got, lengths), valid_rows(want, lengths))
    if name.startswith("single_"):
        counts = [image_tokens + length for length in lengths]
        return Pair(name, valid_rows(got, counts), valid_rows(want, counts))
    return Pair(name, got, want)


def _tiling(case: Case) -> TilingConfig | None:
    tiling = case.content.get("tiling")
    return tiling_config(tiling) if tiling else None


def vae_encode(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Encoding, whole or in tiles."""
    vae = CausalVAE(engine, vae_config(case.config))
    w = case.weights("vae", engine, vae.shapes()).part("")
    pixels, tiling, seen = tensor(engine, case.input("pixels")), _tiling(case), Seen(engine)
    mean, logvar = vae.encode(w, pixels, observe=seen) if tiling is None else tiled_encode(vae, w, pixels, tiling)
    seen("mean", mean)
    seen("logvar", logvar)
    seen.arrays["std"] = np.exp(np.float32(0.5) * seen.arrays["logvar"])
    yield from seen.pairs(arrays)


def vae_decode(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Decoding, whole or in tiles."""
    vae = CausalVAE(engine, vae_config(case.config))
    w = case.weights("vae", engine, vae.shapes()).part("")
    latents, tiling, seen = tensor(engine, case.input("latents")), _tiling(case), Seen(engine)
    seen("sample", vae.decode(w, latents, observe=seen) if tiling is None else tiled_decode(vae, w, latents, tiling))
    yield from seen.pairs(arrays)


class HeldTensors:
    """Arrays under the keys of a LoRA file."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self.metadata: dict[str, str] = {}

    def names(self) -> tuple[str, ...]:
        """Every key."""
        return tuple(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        """An array's shape."""
        return self._arrays[name].shape

    def dtype(self, name: str) -> str:
        """Every array is of float32."""
        return "F32"

    def read(self, name: str) -> np.ndarray:
        """An array."""
        return self._arrays[name]


def lora_merge(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Weights seen through a LoRA, alpha ignored as in the original, and the module of every pair of it."""
    config = dit_config(case.need("config", "dit"))
    shapes = DiT(engine, config).shapes()
    base = case.weights("dit", engine, shapes)
    lora = {name: rule.weight(name, entry["shape"], case.seed) for name, entry in case.need("inputs", "lora").items()}
    if case.inputs.get("alpha"):
        keys = {name.rsplit(".lora_", 1)[0] for name in lora}
        lora |= {f"{key}.alpha": np.asarray(case.need("inputs", "alpha", "value"), np.float32) for key in keys}
    opened = fit(case.file, HeldTensors(lora), Targets.of(config, shapes))._replace(ignores_alpha=True)
    found = {update.module.name: update.place.weight.removesuffix(".weight") for update in opened.updates}
    prefix = case.need("config", "prefix")
    expected = {entry["key"]: entry["module"] for entry in case.need("resolved")}
    right = [found.get(key.removeprefix(f"{prefix}_")) == module for key, module in expected.items()]
    yield Pair("resolved", np.asarray(right), np.ones(len(right), dtype=bool), "exact")
    view = LoraView(engine, base, [opened])
    for scale in case.need("config", "scales"):
        view.use([scale])
        merged = view.part("")
        names = {name.split("/", 1)[1] for name in arrays if name.startswith(f"scale_{scale}/")}
        same = [merged[name] is x for name, x in base.part("").items() if name not in names]
        yield Pair(f"scale_{scale}/unlisted", np.asarray(same), np.ones(len(same), dtype=bool), "exact")
        for name in sorted(names & set(merged)):
            yield Pair(f"scale_{scale}/{name}", engine.numpy(merged[name]), arrays[f"scale_{scale}/{name}"])
