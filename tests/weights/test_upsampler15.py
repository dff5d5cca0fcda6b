"""What enlarges HunyuanVideo-1.5's clips, as files: in Tencent's tree, from ComfyUI, in our own folders."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
from test_layouts15 import checked, same, split, write_tree
from toy15 import LARGER, UPSAMPLER, toy15_parts, write_toy15

from framewake.config15 import HUNYUAN15_DIT, UpsamplerConfig
from framewake.errors import CheckpointError
from framewake.golden import rule
from framewake.models.dit15 import DiT15
from framewake.models.upsampler import upsampler_of
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.weights.checkpoint import hunyuan15, upsampler15
from framewake.weights.checkpoint.layouts import parse_files
from framewake.weights.checkpoint.load import SinglePart, open_checkpoint
from framewake.weights.checkpoint.settings import Enlargement
from framewake.weights.writing.convert import convert
from framewake.weights.writing.files import write_tensors

FILE = "diffusion_pytorch_model.safetensors"
LEVELS = UpsamplerConfig("levels", channels=4, widths=(6, 10), blocks=2, adds_input=False)


@pytest.fixture(scope="module")
def parts():
    return toy15_parts(enlarges=True)


def write_larger(root, parts, name="720p_sr_distilled", *, upsampler=None, base="480p_i2v_distilled"):
    """The parts as Tencent's tree has them, beside the transformer whose config.json has the same sizes."""
    config, tensors = parts["upsampler"] if upsampler is None else upsampler
    content = json.loads((root / "transformer" / base / "config.json").read_text())
    del content["use_meanflow"]  # its tensors tell
    for folder, values in (("transformer", content), ("upsampler", {"global_residual": config.adds_input})):
        place = root / folder / name
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(values))
    write_tensors(root / "transformer" / name / FILE, split(parts["larger_dit"][1]))
    write_tensors(root / "upsampler" / name / FILE, tensors)


def levelled(config=LEVELS):
    return config, rule.weights(upsampler_of(None, config).shapes(), seed=7)


def test_tencents_tree(parts, tmp_path):
    root = write_tree(tmp_path / "tree")
    assert "upsampler" not in open_checkpoint(root).configs
    write_larger(root, parts)
    tree = checked(open_checkpoint(root))
    assert (tree.configs["upsampler"], tree.configs["larger_dit"]) == (UPSAMPLER, LARGER)
    assert tree.settings.enlargement == Enlargement(resolution="720p", side_px=960, steps=6, flow_shift=2.0)
    same(checked(open_checkpoint(write_toy15(tmp_path / "folder", enlarges=True))), tree)
    file = root / "transformer" / "720p_sr_distilled" / FILE
    with pytest.raises(CheckpointError, match=r"is a super-resolution transformer alone\. Take it with --part sr-dit="):
        open_checkpoint(file)


def test_each_size_has_its_own(parts, tmp_path):
    root = write_tree(tmp_path / "tree", "720p_i2v_distilled")
    write_larger(root, parts, base="720p_i2v_distilled")
    assert "larger_dit" not in open_checkpoint(root).configs, "those for 720p are not for what is 720p already"
    write_larger(root, parts, "1080p_sr_distilled", upsampler=levelled(), base="720p_i2v_distilled")
    found = checked(open_checkpoint(root))
    assert found.configs["upsampler"] == LEVELS
    assert (found.settings.enlargement.resolution, found.settings.enlargement.steps) == ("1080p", 8)
    shutil.copy(root / "upsampler" / "720p_sr_distilled" / FILE, root / "upsampler" / "1080p_sr_distilled" / FILE)
    with pytest.raises(CheckpointError, match="the latent upsampler leads to 720p, and clips go to 1080p here"):
        open_checkpoint(root)


def test_sizes_are_those_of_the_tensors(parts, tmp_path):
    root, config = write_tree(tmp_path / "tree"), replace(UPSAMPLER, widths=(7,), blocks=1, adds_input=True)
    write_larger(root, parts, upsampler=levelled(config))
    assert checked(open_checkpoint(root)).configs["upsampler"] == config
    for each in (UPSAMPLER, LEVELS, config):
        shapes = upsampler_of(None, each).shapes()
        assert upsampler15.infer_upsampler(shapes, each) == each
        content = upsampler15.upsampler_content(each)
        assert upsampler15.read_upsampler(content).adds_input == each.adds_input
    path, tensors = root / "upsampler" / "720p_sr_distilled" / FILE, parts["upsampler"][1]
    write_tensors(path, {**tensors, "blocks.0.block.6.conv.weight": tensors["out_conv.conv.bias"]})
    opened = open_checkpoint(root)
    with pytest.raises(CheckpointError, match=r"blocks\.0\.block\.6: unexpected conv\.weight"):
        opened.check("upsampler", HUNYUAN15.shapes(opened)["upsampler"])


def test_single_files(parts, tmp_path):
    folder = write_toy15(tmp_path / "plain")
    files = {"sr-dit": "hunyuanvideo1.5_720p_sr_distilled_fp16", "upsampler": "hunyuanvideo15_latent_upsampler_720p"}
    for flag, name in (("sr-dit", "larger_dit"), ("upsampler", "upsampler")):
        files[flag] = tmp_path / f"{files[flag]}.safetensors"
        write_tensors(files[flag], parts[name][1])
        alone = SinglePart(files[flag])
        assert (alone.row.name, alone.kind.flag) == (name, flag)
    given = [f"{flag}={path}" for flag, path in files.items()]
    found = checked(open_checkpoint(folder, parse_files(given)))
    assert found.configs["upsampler"] == UPSAMPLER
    assert replace(found.configs["larger_dit"], rope_dims=LARGER.rope_dims) == LARGER, "all but what no tensor tells"
    own = folder / "transformer" / FILE
    wrong = [
        (
            f"dit={files['sr-dit']}",
            r"is a super-resolution transformer, no transformer\. Name it with --part sr-dit=",
        ),
        (f"sr-dit={own}", r"is a transformer, no super-resolution transformer\. Name it with --part dit=FILE"),
        (f"upsampler={folder / 'vae' / FILE}", "is an autoencoder, no latent upsampler"),
    ]
    for text, words in wrong:
        with pytest.raises(CheckpointError, match=words):
            open_checkpoint(folder, parse_files([text]))
    other = files["sr-dit"].rename(tmp_path / "hunyuanvideo1.5_1080p_sr_distilled_fp16.safetensors")
    with pytest.raises(CheckpointError, match="is called 1080p_sr, and clips go to 720p here"):
        open_checkpoint(folder, parse_files([f"sr-dit={other}"]))


@pytest.mark.parametrize("layout", ["diffusers", "framewake", "tencent"])
def test_it_is_converted(tmp_path, layout):
    checkpoint = open_checkpoint(write_toy15(tmp_path / "whole", enlarges=True))
    list(convert(checkpoint, tmp_path / "x", shapes=HUNYUAN15.shapes(checkpoint), layout=layout))
    found = checked(open_checkpoint(tmp_path / "x"))
    assert found.configs == checkpoint.configs and found.settings == checkpoint.settings
    same(checkpoint, found)
    if layout == "tencent":
        return
    index = json.loads((tmp_path / "x" / "model_index.json").read_text())
    assert "transformer" in index and not {"upsampler", "sr_transformer"} & set(index), "diffusers knows none of these"


def test_parameters_are_those_of_the_published_file():
    config = replace(HUNYUAN15_DIT, in_channels=98, is_step_distilled=True)
    assert sum(map(math.prod, DiT15(None, config).shapes().values())) == 8_331_398_432
    assert hunyuan15.LARGER.read({}).in_channels == 98
