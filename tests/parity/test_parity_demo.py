"""The shipped demonstration checkpoint through diffusers' own pipeline and through ours: the same clip.

Known departures of diffusers that are taken into account: it always mixes the picture into the noise
(stability on), never rounds the guidance to bfloat16 (ours does not in float32 either), decodes without
tiles unless told to, and rounds frames to uint8 instead of cutting off.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from demonstration.lora import LORA
from demonstration.render import render_frame
from demonstration.world import sample_scene
from framewake.pipeline import Output, Pipeline, Result
from framewake.pipeline.adapters import targets_of
from framewake.request import Request
from framewake.sampling.noise import draw
from framewake.text.encode import derive_layout
from framewake.text.template import VIDEO_I2V
from framewake.text.tokenize import Tokenizer
from framewake.weights.lora.convert import convert
from framewake.weights.lora.file import open_lora

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

SIDE, FRAMES, STEPS, SEED = 64, 9, 4, 5


@pytest.mark.parametrize("has_lora", [False, True])
def test_both_pipelines_make_the_same_clip(tmp_path, has_lora):
    scene = sample_scene(np.random.default_rng(21), motion="right")
    picture = Image.fromarray(render_frame(scene, SIDE, SIDE, 0.0))
    picture.save(tmp_path / "picture.png")
    pipeline = Pipeline.load("demo", engine="torch:cpu")
    request = Request(
        prompt=scene.prompt,
        image=str(tmp_path / "picture.png"),
        resolution="360p",
        frames=FRAMES,
        steps=STEPS,
        seed=SEED,
        precision="float32",
        is_stable=True,
        flow_shift=7.0,
        loras=(str(LORA),) if has_lora else (),
    )
    events = list(pipeline.run(request, Output(tmp_path / "frames/")))
    ours = next(event for event in events if isinstance(event, Result)).frames

    folder = pipeline.checkpoint.folder
    llava = pipeline.checkpoint.configs["llava"]
    layout = derive_layout(
        Tokenizer.from_folder(folder / "tokenizer"),
        VIDEO_I2V,
        image_token_id=llava.image_token_id,
        image_tokens=llava.vision.patches,
    )
    template = {
        "template": VIDEO_I2V.before + "{}" + VIDEO_I2V.after,
        "crop_start": layout.crop_start,
        "image_emb_start": layout.image_at,
        "image_emb_end": layout.image_at + layout.image_tokens,
        "image_emb_len": layout.image_tokens,
        "double_return_token_id": layout.double_return_id,
    }
    theirs = diffusers.HunyuanVideoImageToVideoPipeline.from_pretrained(folder, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    if has_lora:
        targets = targets_of(pipeline.checkpoint)
        convert(open_lora(LORA, targets), tmp_path / "theirs.safetensors", "diffusers", targets)
        theirs.load_lora_weights(str(tmp_path), weight_name="theirs.safetensors")
    with torch.no_grad():
        video = theirs(
            image=picture,
            prompt=scene.prompt,
            prompt_template=template,
            height=SIDE,
            width=SIDE,
            num_frames=FRAMES,
            num_inference_steps=STEPS,
            guidance_scale=6.0,
            latents=torch.from_numpy(draw((1, 16, 3, SIDE // 8, SIDE // 8), SEED)),
            output_type="np",
        ).frames[0]
    expected = np.clip(np.asarray(video) * 255, 0, 255).astype(np.uint8)
    assert ours.shape == expected.shape
    assert int(np.abs(ours.astype(int) - expected.astype(int)).max()) <= 1
