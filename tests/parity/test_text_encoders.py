"""Text encoders and tokenizers against transformers at toy size, with random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from demonstration.tokenizers import write_tokenizers  # noqa: E402
from demonstration.world import corpus  # noqa: E402
from framewake import engine as engines  # noqa: E402
from framewake.models.clip_text import ClipText  # noqa: E402
from framewake.models.clip_vision import ClipVision  # noqa: E402
from framewake.models.llama import Llama  # noqa: E402
from framewake.models.llava import Llava  # noqa: E402
from framewake.text import encode, template  # noqa: E402
from framewake.text.tokenize import Tokenizer  # noqa: E402
from framewake.weights.checkpoint import configs  # noqa: E402
from framewake.weights.stores.store import Resident  # noqa: E402

TOLERANCE = 3e-5
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 20,
    "patch_size": 5,
}
CLIP_TEXT = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "vocab_size": 60,
    "max_position_embeddings": 16,
}


@pytest.fixture(scope="module")
def engine():
    return engines.get("torch:cpu")


def largest(found, expected):
    assert tuple(found.shape) == tuple(expected.shape)
    return float((found - expected).abs().max() / expected.abs().max())


def randomise(model):
    """Weights far from the tidy ones of a fresh model, so that a swapped norm or a missing bias shows."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.2) + ("norm" in name))
    return model.eval()


def published(model, table):
    """A transformers state under published names: ``table`` maps the start of a name."""
    state = {}
    for name, tensor in model.state_dict().items():
        old = next((start for start in table if name.startswith(start)), "")
        state[table.get(old, "") + name[len(old) :]] = tensor
    return state


def test_llama(engine):
    config = transformers.LlamaConfig(**LLAMA, rope_parameters={"rope_theta": 5e5, "rope_type": "default"})
    theirs = randomise(transformers.LlamaModel(config))
    ours = Llama(engine, configs.llama_config(config.to_dict()), prefix="m")
    weights = Resident(published(theirs, {"": "m."}))
    ids = np.random.default_rng(0).integers(0, 100, (2, 200))
    with torch.no_grad():
        states = theirs(torch.from_numpy(ids), output_hidden_states=True).hidden_states
    for skip in (0, 2):
        found = ours(weights, ours.embed(weights, ids), skip_layers=skip)
        assert largest(found, states[-(skip + 1)]) <= TOLERANCE


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip_vision(engine, activation):
    config = transformers.CLIPVisionConfig(**VISION, hidden_act=activation)
    theirs = randomise(transformers.CLIPVisionModel(config))
    ours = ClipVision(engine, configs.clip_vision_config(config.to_dict()), prefix="v")
    start = "vision_model." if any(n.startswith("vision_model.") for n in theirs.state_dict()) else ""
    weights = Resident(published(theirs, {start: "v."}))
    pixels = torch.randn((2, 3, 20, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = theirs(pixels, output_hidden_states=True).hidden_states
    for layer in (-1, -2, 0, 1):
        assert largest(ours(weights, pixels, feature_layer=layer), states[layer]) <= TOLERANCE


@pytest.mark.parametrize("end_id", [2, 7])
def test_clip_text(engine, end_id):
    config = transformers.CLIPTextConfig(**CLIP_TEXT, eos_token_id=end_id, bos_token_id=0)
    theirs = randomise(transformers.CLIPTextModel(config))
    ours = ClipText(engine, configs.clip_text_config(config.to_dict()))
    start = "text_model." if any(n.startswith("text_model.") for n in theirs.state_dict()) else ""
    weights = Resident(published(theirs, {start: "text_model."}))
    ids = np.random.default_rng(0).integers(10, 58, (2, 16))
    mask = np.ones_like(ids)
    for row, length in enumerate((16, 6)):
        ids[row, length - 1 :] = 59 if end_id == 2 else end_id
        mask[row, length:] = 0
    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
    pooled, hidden = ours(weights, ids, mask)
    assert largest(pooled, expected.pooler_output) <= TOLERANCE
    for row, length in enumerate((16, 6)):
        assert largest(hidden[row, :length], expected.last_hidden_state[row, :length]) <= TOLERANCE


@pytest.mark.parametrize("strategy", ["default", "full"])
def test_llava(engine, strategy):
    """Departure there: newer versions want the image id once per patch; here it stands once."""
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**LLAMA),
        vision_config=transformers.CLIPVisionConfig(**VISION),
        image_token_index=90,
        vision_feature_select_strategy=strategy,
    )
    theirs = randomise(transformers.LlavaForConditionalGeneration(config))
    ours = Llava(engine, configs.llava_config(config.to_dict()))
    table = {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head."}
    table |= {"model.vision_tower.vision_model.": "vision_tower.vision_model."}
    table |= {"model.vision_tower.": "vision_tower.vision_model."}
    table |= {"model.multi_modal_projector.": "multi_modal_projector."}
    state = published(theirs, table)
    assert {n: tuple(x.shape) for n, x in state.items() if "position_ids" not in n} == (
        ours.shapes() | ours.unused_shapes()
    )
    ids = np.array([[1, 2, 3, 90, 4, 5, 6, 7, 8]])
    pixels = torch.randn((1, 3, 20, 20), generator=torch.Generator().manual_seed(1))
    expanded = torch.tensor([[1, 2, 3, *[90] * ours.image_tokens, 4, 5, 6, 7, 8]])
    with torch.no_grad():
        states = theirs(input_ids=expanded, pixel_values=pixels, output_hidden_states=True).hidden_states
    padded = np.concatenate([ids, [[0, 0]]], axis=1)
    found = ours(Resident(state), padded, (padded > 0).astype(np.int64), pixels)
    assert largest(found, states[-3]) <= TOLERANCE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizers")
    write_tokenizers(path, corpus())
    return path


PROMPTS = ["The red circle moves up and to the left.", "a star spins", "Ünusual text, 12 + 3:\n\nnew line", "x " * 90]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_demonstration_llava_tokenizer(folder, prompt):
    """Departure there: LlamaTokenizerFast of transformers 5 makes a Llama 2 tokenizer of any file."""
    theirs = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer", padding_side="right")
    ours = Tokenizer.from_folder(folder / "tokenizer")
    for shape in template.TEMPLATES.values():
        layout = encode.derive_layout(
            ours, shape, image_token_id=ours.token_id("<image>"), image_tokens=4, text_length=64
        )
        found = encode.encode_in_template(ours, shape, prompt, layout=layout)
        expected = theirs(
            shape.fill(prompt.strip()), max_length=layout.max_length, padding="max_length", truncation=True
        )
        assert found.ids[0].tolist() == expected.input_ids
        assert found.mask[0].tolist() == expected.attention_mask


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("from_parts", [False, True])
def test_demonstration_clip_tokenizer(folder, tmp_path, prompt, from_parts):
    source = folder / "tokenizer_2"
    if from_parts:
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            (tmp_path / name).write_bytes((source / name).read_bytes())
        source = tmp_path
    theirs = transformers.CLIPTokenizer.from_pretrained(source)
    expected = theirs(prompt.strip(), max_length=77, padding="max_length", truncation=True)
    found = encode.encode_clip(Tokenizer.from_folder(source), prompt, 77)
    assert found.ids[0].tolist() == expected.input_ids
    assert found.mask[0].tolist() == expected.attention_mask


@pytest.mark.parametrize(
    "content",
    [
        {"text_config": {"vocab_size": 128320, "num_key_value_heads": 8, "intermediate_size": 14336}},
        {"text_config": {"hidden_size": 64, "num_attention_heads": 4}, "vision_config": {"patch_size": 14}},
        {},
    ],
)
def test_defaults_of_a_llava_file_are_those_of_its_class(content):
    config = transformers.LlavaConfig.from_dict(json.loads(json.dumps({"model_type": "llava", **content})))
    assert configs.llava_config(content) == configs.llava_config(config.to_dict())


def test_defaults_of_a_clip_text_file_are_those_of_its_class():
    assert configs.clip_text_config({}) == configs.clip_text_config(transformers.CLIPTextConfig().to_dict())
    whole = transformers.CLIPConfig().to_dict()
    assert configs.clip_text_config({}) == configs.clip_text_config(whole)
