"""LLaVA with its crop against arrays of the original, at the published template's layout."""

from __future__ import annotations

import re

import numpy as np
import pytest
import text_golden as golden
from PIL import Image

from framewake.golden import rule
from framewake.media.image import clip_pixels
from framewake.models.llava import Llava, merged_layout
from framewake.text.crop import TextLayout

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NAMES = golden.ids_of("llava_encode")
TOLERANCE = 3e-5


@pytest.fixture(scope="module")
def weights(engine):
    name = NAMES[0]
    model = Llava(engine, golden.llava_config(name))
    assert model.shapes() | model.unused_shapes() == golden.table(name, "llava")
    assert len({golden.CASES[other]["seed"] for other in NAMES}) == 1
    return golden.store(engine, model.shapes(), golden.CASES[name]["seed"])


@pytest.mark.parametrize("name", NAMES)
def test_matches_the_original(engine, weights, name):
    case, expected = golden.CASES[name], golden.arrays(name)
    photo = case["inputs"]["photo"]
    picture = Image.fromarray(rule.image("photo", photo["height"], photo["width"], photo["seed"], block=photo["block"]))
    config = golden.llava_config(name)
    pixels = clip_pixels(picture, config.vision.image_size, mean=MEAN, std=STD)
    ids, mask = golden.tokens(name)
    seen = {}
    llava = Llava(engine, config)
    hidden = llava(
        weights,
        ids,
        mask,
        engine.asarray(pixels[None]),
        skip_layers=case["config"]["hidden_state_skip_layer"],
        observe=lambda key, x: seen.update({key: engine.numpy(x)}),
    )
    differences = {"hidden_m3": golden.largest(engine.numpy(hidden), expected["hidden_m3"])}
    if "image_features" in expected:
        differences["image_features"] = golden.largest(seen["image_features"], expected["image_features"])
    rows = [int(n) for n in re.findall(r"\d+", case["arrays"]["inputs_embeds_rows"]["meaning"].split("(")[0])]
    differences["inputs_embeds"] = golden.largest(seen["inputs_embeds"][:, rows], expected["inputs_embeds_rows"])

    sizes = case["config"]
    merged, positions = merged_layout(mask, sizes["image_emb_start"], sizes["image_emb_len"])
    np.testing.assert_array_equal(merged, expected["merged_mask"])
    np.testing.assert_array_equal(positions, expected["position_ids"])

    layout = TextLayout(
        crop_start=sizes["crop_start"],
        image_at=sizes["image_emb_start"],
        image_tokens=llava.image_tokens,
        double_return_id=sizes["double_return_token_id"],
        dropped=4,
        max_length=sizes["max_length"],
    )
    for interleave in (4, 2):
        if f"prompt_mask_{interleave}" not in expected:
            continue
        states, (length,) = layout.kept(engine, hidden, ids, mask, interleave=interleave)
        full = expected[f"prompt_mask_{interleave}"]
        np.testing.assert_array_equal((np.arange(full.shape[1]) < length)[None], full)
        assert full.shape[1] == layout.prompt_limit + -(-llava.image_tokens // interleave)
        kept = expected[f"prompt_embeds_{interleave}"][:, :length]
        differences[f"prompt_embeds_{interleave}"] = golden.largest(engine.numpy(states), kept)
    worst = max(differences, key=differences.get)
    assert differences[worst] <= TOLERANCE, (worst, differences[worst])
