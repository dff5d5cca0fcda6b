"""Where saved latents come from is kept with them, and a difference is told."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from framewake.errors import InputError
from framewake.pipeline import Note, Output, Pipeline, Step
from framewake.pipeline.latents import latents_path, load_latents
from framewake.pipeline.origin import differences, origin_of, part_sources
from framewake.request import Request
from framewake.weights.checkpoint.identity import identity
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.reading.files import weight_files


def stopped(pipeline, request, output):
    events = pipeline.run(request, output)
    for event in events:
        if isinstance(event, Step) and event.index == 2:
            events.close()
    return load_latents(latents_path(output))


def notes(pipeline, saved, output):
    return [event.text for event in pipeline.resume(saved, Output(output)) if isinstance(event, Note)]


@pytest.mark.parametrize(("threads", "count"), [("1", 0), ("2", 1)])
def test_another_number_of_threads_is_told(toy, engine, request_of, tmp_path, monkeypatch, threads, count):
    pipeline, output = Pipeline(open_checkpoint(toy), engine), tmp_path / "clip.mp4"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    saved = stopped(pipeline, request_of(steps=4), output)
    assert saved.origin == origin_of(engine) and saved.origin["threads"] == 1
    assert "origin" not in saved.metadata, "it would get into the clip, which must not tell of the machine"
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    found = [text for text in notes(pipeline, saved, output) if "made elsewhere" in text]
    assert len(found) == count and all("threads 1, now 2" in text for text in found)
    assert output.exists()


def test_kernels_of_attention_are_recorded_and_taken_again(toy, request_of, tmp_path):
    """Which one is the fastest is measured in each process, and another one is another last bit."""
    here = pytest.importorskip("cuda_here")

    class Otherwise(here.CudaHere):
        kernels = ("memory-efficient", "flash", "plain")

    first, then, output = here.CudaHere(), Otherwise(), tmp_path / "clip.mp4"
    saved = stopped(Pipeline(open_checkpoint(toy), first), request_of(steps=4), output)
    assert saved.origin["attention"] == "flash, memory-efficient, plain"
    assert then.attention_kernels()[0] == "memory-efficient"
    assert not [text for text in notes(Pipeline(open_checkpoint(toy), then), saved, output) if "made elsewhere" in text]
    assert then.attention_kernels() == first.attention_kernels() and output.exists()


OTHERS = {
    "seed 5, saved 3": {"seed": 5},
    "prompt 'a blue square', saved": {"prompt": "a blue square"},
    "steps 9, saved 4": {"steps": 9},
    "frames 9, saved 5": {"frames": 9},
    "is_stable False, saved True": {"is_stable": False},
    "fps 30.0, saved 12": {"fps": 30},
}


def test_latents_of_another_clip_are_not_believed(toy, engine, request_of, tmp_path):
    pipeline, output = Pipeline(open_checkpoint(toy), engine), tmp_path / "clip.mp4"
    saved = stopped(pipeline, request_of(steps=4), output)
    for told, changes in OTHERS.items():
        events = pipeline.resume(saved, Output(output), request=request_of(**({"steps": 4} | changes)))
        with pytest.raises(InputError, match=f"of another clip.*{told}"):
            list(events)
    list(pipeline.resume(saved, Output(output), request=request_of(steps=4, seed=None)))


def test_latents_of_other_weights_are_not_believed(toy, engine, request_of, tmp_path):
    """A checkpoint of the same name and shapes, such as one with a LoRA merged in."""
    output, other = tmp_path / "clip.mp4", shutil.copytree(toy, tmp_path / "other")
    saved = stopped(Pipeline(open_checkpoint(toy), engine), request_of(steps=4), output)
    list(Pipeline(open_checkpoint(other), engine).resume(saved, Output(output)))  # a copy is the same checkpoint
    for part in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        (file,) = (other / part).glob("*.safetensors")
        whole = file.read_bytes()
        file.write_bytes(whole[:-2000] + bytes(value ^ 1 for value in whole[-2000:]))
        with pytest.raises(InputError, match="is not what the clip was begun with"):
            list(Pipeline(open_checkpoint(other), engine).resume(saved, Output(output)))
        file.write_bytes(whole)


def test_latents_that_do_not_fit_their_settings_are_not_believed(toy, engine, request_of, tmp_path):
    pipeline, output = Pipeline(open_checkpoint(toy), engine), tmp_path / "clip.mp4"
    saved = stopped(pipeline, request_of(steps=4), output)
    for changed in (
        saved._replace(sources={**saved.sources, "the picture": "0"}),
        saved._replace(sources={}),
        saved._replace(step=5),
        saved._replace(latents=saved.latents[:, :, :, :4], step=4),
    ):
        with pytest.raises(InputError, match=r"begun with|do not fit their own settings"):
            list(pipeline.resume(changed, Output(output)))


def test_differences():
    then = {"engine": "a", "threads": 2, "versions": {"torch": "1", "av": "3"}, "processor": "x"}
    now = {"engine": "a", "threads": 4, "versions": {"torch": "2", "av": "3"}, "device memory": "1 GiB"}
    assert differences(then, now) == ["threads 2, now 4", "torch 1, now 2"]


# As they stood when the format of saved latents was settled: with others, no clip or batch goes on after an update.
PARTS = {
    "the transformer": "DiTConfig(patch_size=(1, 2, 2), in_channels=4, out_channels=4, hidden_size=32, heads=2, "
    "rope_dims=(4, 6, 6), rope_theta=256.0, mlp_ratio=4.0, double_blocks=1, single_blocks=1, refiner_blocks=1, "
    "text_width=16, pooled_width=16, condition='token_replace', has_guidance=True)",
    "the autoencoder": "VAEConfig(in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8, 8, 8), "
    "layers_per_block=1, norm_groups=4, scaling_factor=0.476986, spatial_compression=8, temporal_compression=4, "
    "mid_block_attention=True)",
}
SETTINGS = {
    **{"prompt": "p", "image": None, "negative_prompt": None, "resolution": None, "frames": None, "steps": None},
    **{"seed": None, "is_stable": True, "flow_shift": None, "embedded_guidance": 6.0, "guidance_scale": None},
    **{"fps": None, "precision": "auto", "vae_tiling": True, "rng": "philox", "loras": []},
    **{"ignores_lora_alpha": False, "allows_partial_loras": False, "cache": "off"},
}


@pytest.mark.parametrize("name", PARTS)
def test_clips_that_an_earlier_version_stopped_go_on(toy, name):
    checkpoint = open_checkpoint(toy)
    component = {"the transformer": "dit", "the autoencoder": "vae"}[name]
    files = [file for path in checkpoint.layout.weights[component] for file in weight_files(path)]
    text = f"{PARTS[name]} {identity(files)}"
    assert part_sources(checkpoint)[name] == hashlib.sha256(text.encode()).hexdigest()


def test_batches_that_an_earlier_version_began_go_on():
    assert Request("p").to_dict() == SETTINGS
