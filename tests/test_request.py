from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demonstration.models import RESOLUTION_BASES
from framewake.batch import read_batch
from framewake.errors import InputError
from framewake.request import (
    MAX_SEED,
    PRESETS,
    PUBLISHED_DEFAULTS,
    Defaults,
    Request,
    from_dict,
    preset,
    resolve,
    settings,
    validate,
)
from framewake.train.settings import training_from

DEMO = Defaults(frames=33, steps=20, fps=12.0, resolutions=RESOLUTION_BASES)


def values_of(setting):
    """Every value that the declaration of a setting allows."""
    if setting.kind in ("text", "path"):
        kind = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
    elif setting.kind == "texts":
        kind = st.lists(st.sampled_from(["a.safetensors", "C:\\b:0.5", "c:0-3=1,3-9=-0.5"]), max_size=3)
    elif setting.kind == "choice":
        kind = st.sampled_from(setting.choices)
    elif setting.kind == "integer":
        kind = st.integers(int(setting.minimum), int(setting.maximum))
    elif setting.kind == "number":
        kind = st.floats(setting.minimum, setting.maximum) | st.integers(math.ceil(setting.minimum), 100)
    else:
        kind = st.booleans()
    return kind | st.none() if setting.is_optional else kind


requests = st.fixed_dictionaries(
    {
        **{name: values_of(setting) for name, setting in settings().items()},
        "prompt": values_of(settings()["prompt"]).filter(str.strip),
        "resolution": st.sampled_from(list(RESOLUTION_BASES)) | st.none(),
        "crop": st.tuples(*[st.floats(0, 1)] * 2).map(lambda place: f"{place[0]},{place[1]}") | st.just("fit"),
        "cache": st.sampled_from(["off", "fast", "easy:0.05", "taylor2:3", "fixed:0,2,4"]),
        "frames": st.integers(0, 256).map(lambda count: 4 * count + 1) | st.none(),
    }
)


@given(requests)
def test_round_trip_through_json(values):
    request = validate(Request(**values))
    assert from_dict(json.loads(json.dumps(request.to_dict(), allow_nan=False))) == request
    assert from_dict(values) == request


@given(requests)
def test_resolving_leaves_nothing_open_and_changes_nothing_said(values):
    request = Request(**values)
    full = resolve(request, DEMO)
    assert resolve(full, DEMO) == full
    for name, value in request.to_dict().items():
        if value is not None:
            assert full.to_dict()[name] == value
        elif name not in ("image", "negative_prompt"):
            assert getattr(full, name) is not None
    assert 0 <= full.seed <= MAX_SEED


def test_every_field_is_described():
    for name, setting in settings().items():
        assert setting.help.endswith("."), name
        assert all(flag.startswith("--") for flag in setting.flag.split("/")), name
        assert bool(setting.unset) == setting.is_optional, name
        if setting.kind in ("integer", "number"):
            assert setting.minimum < setting.maximum, name
    assert len({setting.flag for setting in settings().values()}) == len(settings())


def test_defaults_of_checkpoints():
    published = resolve(Request("a cat", seed=3))
    assert (published.frames, published.steps, published.fps, published.flow_shift) == (129, 50, 24.0, 7.0)
    assert (published.embedded_guidance, published.guidance_scale, published.is_stable) == (6.0, 1.0, True)
    demo = resolve(Request("a cat", is_stable=False), DEMO)
    assert (demo.frames, demo.steps, demo.fps, demo.flow_shift) == (33, 20, 12.0, 17.0)
    assert PUBLISHED_DEFAULTS.resolutions["720p"] == 960


def test_a_seed_is_drawn_when_none_is_given():
    seeds = {resolve(Request("a cat")).seed for _ in range(20)}
    assert len(seeds) > 1
    assert all(0 <= seed <= 1_000_000 for seed in seeds)


def test_presets():
    for name, is_stable, shift in (("stable", True, 7.0), ("dynamic", False, 17.0)):
        made = resolve(Request("x", seed=0, **preset(name)))
        assert (made.is_stable, made.flow_shift) == (is_stable, shift)
    own = dataclasses.replace(DEMO, flow_shift=5.0, dynamic_shift=5.0)
    assert {resolve(Request("x", **preset(name)), own).flow_shift for name in PRESETS} == {5.0}
    with pytest.raises(InputError, match="Did you mean 'dynamic'"):
        preset("dynamik")


@pytest.mark.parametrize(("short", "name"), [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_short_names_of_types_are_accepted_and_written_out(tmp_path, short, name):
    assert Request("a", precision=short) == Request("a", precision=name)
    assert validate(Request("a", precision=short)).to_dict()["precision"] == name
    (tmp_path / "batch.jsonl").write_text(json.dumps({"prompt": "a", "precision": short}))
    (made,) = read_batch(tmp_path / "batch.jsonl")
    assert made.precision == name
    if name != "float16":  # in which no training is
        assert training_from({"precision": short, "stored": short}) == training_from(
            {"precision": name, "stored": name}
        )
    with pytest.raises(InputError, match="choose one of auto, float32, bfloat16, float16"):
        validate(Request("a", precision=short.upper()))


def test_paths_and_whole_numbers_are_accepted():
    assert Request("a", image=Path("b") / "c.png").image == str(Path("b") / "c.png")
    assert Request("a", flow_shift=7) == Request("a", flow_shift=7.0)
    assert type(Request("a", flow_shift=7).flow_shift) is float


def test_a_request_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Request("a").steps = 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": " \n\t"}, "the prompt is empty"),
        ({"prompt": None}, "prompt is None: expected text"),
        ({"prompt": b"a"}, "prompt is b'a': expected text"),
        ({"prompt": "a\ud800"}, "prompt holds characters that are not valid"),
        ({"prompt": "a\0"}, "prompt holds a zero byte"),
        ({"negative_prompt": 3}, "negative_prompt is 3: expected text"),
        ({"image": ""}, "path of the picture is empty"),
        ({"image": 3}, "image is 3: expected text"),
        ({"resolution": "72Op"}, r"'72Op': choose one of 1080p, 720p, 540p, 480p, 360p\. Did you mean '720p'"),
        ({"resolution": 720}, "resolution is 720: choose one of"),
        ({"frames": 130}, "nearest is 129"),
        ({"frames": 0}, "frames is 0: expected a number from 1 to 1025"),
        ({"frames": 9.0}, r"frames is 9\.0: expected a whole number"),
        ({"frames": 1029}, "from 1 to 1025"),
        ({"steps": 0}, "steps is 0: expected a number from 1 to 1000"),
        ({"steps": True}, "steps is True: expected a whole number"),
        ({"steps": "50"}, "steps is '50': expected a whole number"),
        ({"seed": -1}, f"seed is -1: expected a number from 0 to {MAX_SEED}"),
        ({"seed": MAX_SEED + 1}, f"from 0 to {MAX_SEED}"),
        ({"seed": 10**5000}, "seed is a number of 16610 bits"),
        ({"flow_shift": float("nan")}, r"flow_shift is nan: expected a number from 0\.01 to 1000"),
        ({"flow_shift": 0}, r"flow_shift is 0\.0: expected"),
        ({"flow_shift": 10**400}, "flow_shift is a number of 1329 bits"),
        ({"embedded_guidance": float("inf")}, "embedded_guidance is inf"),
        ({"embedded_guidance": None}, "embedded_guidance is None"),
        ({"guidance_scale": -1}, r"guidance_scale is -1\.0"),
        ({"fps": 0}, r"fps is 0\.0: expected a number from 1 to 120"),
        ({"precision": "bfloat"}, r"choose one of auto, float32, bfloat16, float16\. Did you mean 'bfloat16'"),
        ({"vae_tiling": 1}, "vae_tiling is 1: expected true or false"),
        ({"is_stable": None}, "is_stable is None: expected true or false"),
        ({"rng": "tourch"}, "Did you mean 'torch'"),
        ({"rng": []}, r"rng is \[\]: choose one of"),
        ({"loras": "a.safetensors"}, "loras is 'a.safetensors': expected a list of texts"),
        ({"loras": [3]}, "loras is 3: expected text"),
        ({"loras": [""]}, "the path of a LoRA is empty"),
        ({"loras": ["a.safetensors:much"]}, "the weight 'much' is no number"),
        ({"ignores_lora_alpha": 1}, "ignores_lora_alpha is 1: expected true or false"),
    ],
)
def test_bad_values_are_refused(values, words):
    with pytest.raises(InputError, match=words) as caught:
        validate(Request(**{"prompt": "a cat", **values}))
    assert "\n" not in str(caught.value)


def test_the_demonstration_has_its_own_resolutions():
    with pytest.raises(InputError, match="choose one of 64p"):
        validate(Request("a", resolution="128p"), {"64p": 64})
    with pytest.raises(InputError, match="take 64p, or a checkpoint for 720p"):
        validate(Request("a", resolution="720p"), {"64p": 64})
    assert resolve(Request("a"), dataclasses.replace(DEMO, resolutions={"64p": 64})).resolution == "64p"
    assert validate(Request("a", resolution="64p"), {"64p": 64}).resolution == "64p"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompt": "a", "step": 3}, "setting 'step' is unknown. Did you mean 'steps'"),
        ({"prompt": "a", 3: 3}, "setting 3 is unknown"),
        ({}, "needs a prompt"),
        ([], "expected names and values"),
        ({"prompt": "a", "steps": 0}, "steps is 0"),
    ],
)
def test_strange_dictionaries_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        from_dict(values)


# --- batch files


def write(tmp_path, text):
    path = tmp_path / "batch.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_batch_lines_become_requests(tmp_path):
    text = '\ufeff{"prompt": "one", "seed": 1, "image": "a.png"}\r\n\n {"prompt": "two\u2028", "steps": 4} \n'
    first, second = read_batch(write(tmp_path, text), common={"steps": 9, "image": "/x/b.png"})
    assert first == Request("one", seed=1, steps=9, image=str(tmp_path / "a.png"))
    assert second == Request("two\u2028", steps=4, image="/x/b.png")


def test_batch_keeps_absolute_paths(tmp_path):
    (only,) = read_batch(write(tmp_path, '{"prompt": "one", "image": "/pictures/a.png"}'))
    assert only.image == "/pictures/a.png"


def test_loras_count_from_the_batchs_folder(tmp_path):
    (only,) = read_batch(write(tmp_path, '{"prompt": "one", "loras": ["a.safetensors:0.5", "/x/b.safetensors"]}'))
    assert only.loras == (str(tmp_path / "a.safetensors:0.5"), "/x/b.safetensors")


def test_loras_that_are_the_same_anywhere_stay_as_they_are(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "own").touch()
    (only,) = read_batch(write(tmp_path, '{"prompt": "one", "loras": ["demo/trails:0.8", "~/b", "demo/own:1"]}'))
    assert only.loras == ("demo/trails:0.8", "~/b", str(tmp_path / "demo" / "own:1"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"prompt": "a"}\n{"prompt": "a",}', "line 2: this is not JSON"),
        ('{"prompt": "a"}\n\n{"promt": "a"}', "line 3: setting 'promt' is unknown. Did you mean 'prompt'"),
        ("[1, 2]", r"line 1: expected a JSON object in \{ \}, received '\[1, 2\]'"),
        ('{"prompt": "a", "fps": NaN}', "line 1: NaN is not a number"),
        ('{"prompt": "a", "prompt": "b"}', "line 1: setting 'prompt' stands there twice"),
        ('{"prompt": "a", "frames": 8}', "line 1: 8 frames .* nearest is 9"),
        ('{"prompt": "a", "image": 3}', "line 1: image is 3"),
        ('{"prompt": "\\ud800"}', "line 1: prompt holds characters"),
        ("[" * 100_000, "line 1: this is not JSON"),
        ('{"prompt": "a", "seed": ' + "1" * 5000 + "}", "line 1: (this is not JSON|seed is)"),
        ("\n \n", "holds no request"),
        (b"\xff\xfe\x00", "is not UTF-8"),
    ],
)
def test_bad_batches_name_the_line(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as caught:
        read_batch(write(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "batch.jsonl"))


def test_a_missing_batch(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        read_batch(tmp_path / "no.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_batch(tmp_path)


def test_a_batch_through_a_pipe_counts_paths_from_here(tmp_path):
    code = "from framewake.batch import read_batch; print(read_batch('/dev/stdin')[0].image)"
    line = '{"prompt": "x", "image": "a.png"}'
    assert subprocess.check_output([sys.executable, "-c", code], input=line, cwd=tmp_path, text=True) == "a.png\n"
