"""HunyuanVideo-1.5 against the classes of diffusers and transformers, with the same random weights.

Known departures of theirs: another rule for buckets, an autoencoder whose attention mask breaks more than one sample,
tiles of another overlap, and the layers behind byT5, whose widths are fixed.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image
from toy15 import DIT, VAE, write_toy15

from framewake import engine as engines
from framewake.config15 import HUNYUAN15_DIT, HUNYUAN15_VAE
from framewake.golden import rule
from framewake.media.video import to_uint8
from framewake.models.dit import TextPart, TextStates
from framewake.models.dit15 import GLYPH, VISION, DiT15
from framewake.models.vae15 import CellVAE
from framewake.nn.rope import rope_table
from framewake.pipeline import Job, Pipeline
from framewake.pipeline.adapters import targets_for
from framewake.pipeline.events import Result
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.pipeline.parts import Parts
from framewake.request import Request
from framewake.sampling.noise import draw
from framewake.text.glyph import glyph_ids
from framewake.train.about import Used, metadata_of
from framewake.train.factors import chosen, start
from framewake.train.optimiser import OptimiserState
from framewake.train.settings import training_from
from framewake.train.writer import write_lora
from framewake.weights.checkpoint import configs15
from framewake.weights.checkpoint.hunyuan15 import COMPONENTS
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.lora.file import open_lora
from framewake.weights.lora.view import LoraView
from framewake.weights.stores.store import Resident
from framewake.weights.writing.export import to_diffusers

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

TOLERANCE = 3e-5
GLYPH_WIDTHS = (16, *HUNYUAN15_DIT.glyph_widths[1:])
BASE = dataclasses.replace(DIT, glyph_widths=GLYPH_WIDTHS)
GRID = (3, 4, 6)
TEXT, QUOTED, SEEN = 7, 5, 4


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def engine():
    return engines.get("torch:cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy15(tmp_path_factory.mktemp("toy15"), glyph_widths=GLYPH_WIDTHS)


def check(found, expected):
    assert found.shape == expected.shape and float(expected.abs().max()) > 0.1
    assert float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())


def model_of(name, config, content, kind):
    """A class of theirs with our random weights, and these under our names."""
    ours = HUNYUAN15.models({name: config}, None)[name]
    weights = rule.weights(ours.shapes(), 3)
    theirs = kind(**{key: value for key, value in content.items() if not key.startswith("_")}).eval()
    named = to_diffusers(COMPONENTS[name], config, weights)
    theirs.load_state_dict({key: torch.from_numpy(np.array(x)) for key, x in named.items()}, strict=True)
    return theirs, weights


def transformer_of(config):
    return model_of("dit", config, configs15.dit_content(config), diffusers.HunyuanVideo15Transformer3DModel)


def draw_input(name, *shape):
    return torch.from_numpy(rule.input(name, shape, 1))


class Inputs:
    """What both transformers are told. ``lengths`` and ``quoted``: valid tokens of each sample."""

    def __init__(self, config, lengths, quoted):
        batch = len(lengths)
        self.config, self.lengths, self.quoted = config, lengths, quoted
        self.latents = draw_input("latents", batch, config.in_channels, *GRID)
        self.states, self.glyphs = (draw_input(n, batch, t, 16) for n, t in (("states", TEXT), ("glyphs", QUOTED)))
        self.seen = draw_input("seen", batch, SEEN, 16) * (1.0 if config.needs_picture else 0.0)
        self.timestep, self.until = torch.tensor([873.5, 120.25][:batch]), torch.tensor([700.0, 0.0][:batch])

    def ours(self, engine, weights):
        further = {GLYPH: TextPart(self.glyphs, self.quoted)} if max(self.quoted) else {}
        if self.config.needs_picture:
            further |= {VISION: TextPart(self.seen, (SEEN,) * len(self.lengths))}
        rope = rope_table(GRID, self.config.rope_dims, self.config.rope_theta)
        return DiT15(engine, self.config)(
            weights,
            self.latents,
            timestep=self.timestep,
            text=TextStates(self.states, self.lengths, None, further),
            rope=tuple(torch.from_numpy(x) for x in rope),
            until=self.until if self.config.has_next_timestep else None,
        )

    def theirs(self, model):
        def mask(lengths, count):
            return (torch.arange(count) < torch.tensor(lengths)[:, None]).long()

        return model(
            hidden_states=self.latents,
            timestep=self.timestep,
            timestep_r=self.until if self.config.has_next_timestep else None,
            encoder_hidden_states=self.states,
            encoder_attention_mask=mask(self.lengths, TEXT),
            encoder_hidden_states_2=self.glyphs,
            encoder_attention_mask_2=mask(self.quoted, QUOTED),
            image_embeds=self.seen,
            return_dict=False,
        )[0]


@pytest.mark.parametrize(("lengths", "quoted"), [((7,), (5,)), ((4,), (0,)), ((7, 3), (2, 0))], ids=str)
@pytest.mark.parametrize("changes", [{}, {"condition": "none"}, {"is_step_distilled": True}], ids=str)
def test_same_velocity(engine, changes, lengths, quoted):
    config = dataclasses.replace(BASE, **changes)
    theirs, weights = transformer_of(config)
    store, inputs = Resident({n: engine.asarray(x) for n, x in weights.items()}), Inputs(config, lengths, quoted)
    check(inputs.ours(engine, store), inputs.theirs(theirs))


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_a_trained_file_does_the_same_there(engine, tmp_path, alpha):
    theirs, weights = transformer_of(BASE)
    settings = training_from({"rank": 4, "alpha": alpha, "format": "diffusers", "stored": "float32"})
    targets = targets_for(BASE)
    factors = start(chosen(targets.tensors, HUNYUAN15.trained.modules), settings.rank, settings.seed)
    moved = {name: (x + 0.2 * rule.input(name, x.shape, 3)).astype(np.float32) for name, x in factors.items()}
    about = metadata_of(settings, 3, Used("toy", HUNYUAN15.trained, "float32", None, [(5, 64, 64)], 1, 1))
    path = tmp_path / "trained.safetensors"
    write_lora(path, OptimiserState(3, moved, moved, moved), settings, targets=targets, about=about)
    inputs = Inputs(BASE, (7,), (5,))
    plain = inputs.theirs(theirs)
    theirs.load_lora_adapter(str(tmp_path), weight_name=path.name, prefix="transformer")
    changed = inputs.theirs(theirs)
    assert float((changed - plain).abs().max()) > 0.05 * float(changed.abs().max())
    view = LoraView(engine, Resident({n: engine.asarray(x) for n, x in weights.items()}), [open_lora(path, targets)])
    view.use([1.0])
    found = inputs.ours(engine, view)
    assert float((found - changed).abs().max()) <= 5e-5 * float(changed.abs().max())


@pytest.fixture(scope="module", params=[1, 2])
def autoencoders(request):
    """Ours, its weights, and theirs with the same weights."""
    engine, config = engines.get("torch:cpu"), dataclasses.replace(VAE, layers_per_block=request.param)
    theirs, weights = model_of("vae", config, configs15.vae_content(config), diffusers.AutoencoderKLHunyuanVideo15)
    return CellVAE(engine, config), {name: engine.asarray(x) for name, x in weights.items()}, theirs


@pytest.mark.parametrize("shape", [(1, 3, 1, 32, 48), (1, 3, 9, 32, 16)], ids=str)
def test_encode(autoencoders, shape):
    ours, weights, theirs = autoencoders
    pixels = draw_input("pixels", *shape)
    mean, logvar = ours.encode(weights, pixels)
    posterior = theirs.encode(pixels).latent_dist
    check(mean, posterior.mode())
    check(logvar, posterior.logvar)


@pytest.mark.parametrize("grid", [(1, 4, 3), (3, 2, 4)], ids=str)
def test_decode(autoencoders, grid):
    ours, weights, theirs = autoencoders
    latents = draw_input("latents", 1, ours.config.latent_channels, *grid)
    check(ours.decode(weights, latents), theirs.decode(latents).sample)


def test_published_names():
    for name, config, content, kind in (
        ("dit", HUNYUAN15_DIT, configs15.dit_content(HUNYUAN15_DIT), diffusers.HunyuanVideo15Transformer3DModel),
        ("vae", HUNYUAN15_VAE, configs15.vae_content(HUNYUAN15_VAE), diffusers.AutoencoderKLHunyuanVideo15),
    ):
        with torch.device("meta"):
            theirs = kind(**{key: value for key, value in content.items() if not key.startswith("_")}).state_dict()
        rules = COMPONENTS[name].diffusers(config)
        assert sorted(their for rule in rules for their in rule.theirs) == sorted(theirs)
        shapes = {rule.ours: rule.shape(lambda key, held=theirs: tuple(held[key].shape)) for rule in rules}
        assert shapes == HUNYUAN15.models({name: config}, None)[name].shapes()


def test_the_encoders_of_a_written_folder(engine, folder):
    """Configurations and weights as they are written, read by transformers."""
    parts = Parts(open_checkpoint(folder), engine, HUNYUAN15)
    rng = np.random.default_rng(0)
    qwen, byt5, siglip = (parts.get(name, "float32") for name in ("qwen", "byt5", "siglip"))
    kind = transformers.Qwen2_5_VLTextModel
    config = kind.config_class.from_pretrained(folder / "text_encoder")
    config.rope_parameters["mrope_section"] = [1, 1, 2]  # theirs are for wider heads; of text, all three are the same
    theirs = kind.from_pretrained(folder / "text_encoder", config=config, dtype=torch.float32).eval()
    ids = rng.integers(0, 200, (2, 150))
    mask = np.ones_like(ids)
    states = theirs(torch.from_numpy(ids), output_hidden_states=True, use_cache=False).hidden_states
    check(qwen.model(qwen.weights, ids, mask), states[-3])
    theirs = transformers.T5EncoderModel.from_pretrained(folder / "text_encoder_2", dtype=torch.float32).eval()
    ids = glyph_ids('Text "Open". ')
    check(byt5.model(byt5.weights, ids), theirs(torch.from_numpy(ids)).last_hidden_state)
    theirs = transformers.SiglipVisionModel.from_pretrained(folder / "image_encoder", dtype=torch.float32).eval()
    pixels = draw_input("pixels", 1, 3, 28, 28)
    check(siglip.model(siglip.weights, pixels), theirs(pixels).last_hidden_state)


@pytest.mark.parametrize("is_step_distilled", [False, True])
def test_both_pipelines_make_the_same_clip(engine, tmp_path, is_step_distilled):
    """From a square picture, whose bucket is the same; the states of the prompts are ours."""
    side, steps, seed = 96, 3, 5
    folder = write_toy15(tmp_path / "toy", glyph_widths=GLYPH_WIDTHS, is_step_distilled=is_step_distilled)
    picture = Image.fromarray(rule.image("photo", side, side, 3))
    picture.save(tmp_path / "picture.png")
    pipeline = Pipeline(open_checkpoint(folder), engine)
    request = Request(
        prompt='a sign says "Open"', image=str(tmp_path / "picture.png"), steps=steps, seed=seed, precision="float32"
    )
    plan = pipeline.plan(Job(request))
    assert (plan.shape.height, plan.shape.width) == (side, side)
    found = next(event.frames for event in pipeline.run(request) if isinstance(event, Result))

    prompts = [pipeline.reader.tokens(text) for text in ("", request.prompt)]
    told = [pipeline.reader.states(pipeline.parts, [tokens], None, "float32") for tokens in prompts]
    nothing = torch.zeros((1, 1, 16)), torch.zeros((1, 1), dtype=torch.long)
    quoted = told[1].further[GLYPH].states
    given = {}
    for start_of, text, further in (
        ("negative_", told[0], nothing),
        ("", told[1], (quoted, torch.ones(quoted.shape[:2], dtype=torch.long))),
    ):
        given |= {
            f"{start_of}prompt_embeds": text.states,
            f"{start_of}prompt_embeds_mask": torch.ones(text.states.shape[:2], dtype=torch.long),
            f"{start_of}prompt_embeds_2": further[0],
            f"{start_of}prompt_embeds_mask_2": further[1],
        }
    theirs = their_pipeline(folder, side, plan.request)
    latents = torch.from_numpy(draw((1, *plan.latent), seed))
    video = theirs(image=picture, num_frames=5, num_inference_steps=steps, latents=latents, **given).frames[0]
    expected = to_uint8(np.asarray(video))
    assert found.shape == expected.shape and expected.std() > 1
    assert int(np.abs(found.astype(int) - expected.astype(int)).max()) <= 1


def their_pipeline(folder, side, request):
    """Their pipeline over a written folder; the two tokenizers are not asked."""
    kinds = {
        "transformer": diffusers.HunyuanVideo15Transformer3DModel,
        "vae": diffusers.AutoencoderKLHunyuanVideo15,
        "image_encoder": transformers.SiglipVisionModel,
    }
    parts = {name: kind.from_pretrained(folder / name, dtype=torch.float32).eval() for name, kind in kinds.items()}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=request.flow_shift)
    pipeline = diffusers.HunyuanVideo15ImageToVideoPipeline(
        **parts,
        scheduler=scheduler,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=request.guidance_scale),
        feature_extractor=transformers.SiglipImageProcessor.from_pretrained(folder / "feature_extractor"),
    )
    pipeline.target_size = side
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
