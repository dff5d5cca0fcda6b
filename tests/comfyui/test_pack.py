"""The pack as far as it can be seen without ComfyUI: its texts, what it asks framewake for, how it is published."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from comfyui_pack import PACK, load

from framewake.demo import PICTURES
from framewake.request import CENTRE, MAX_SEED, PRESETS, from_dict, resolve, settings
from framewake.shapes import KNOWN_RESOLUTIONS

ROOT = Path(__file__).parents[2]
pack_settings, values = load("settings"), load("values")
WISH = values.Wish("the red circle moves right", "360p", 33, 0, 7, "dynamic", "fast", "blur", 2.0, 5.0)
LORAS = (values.LoraFile("shapes/trails.safetensors", "/loras/shapes/trails.safetensors", "0.8"),)


def nodes():
    """Ids of nodes with inputs, each with whether it has a widget, and outputs, from the text of nodes.py."""
    tree, found = ast.parse((PACK / "nodes.py").read_text(encoding="utf-8")), {}
    for schema in (n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "io.Schema"):
        given = {keyword.arg: keyword.value for keyword in schema.keywords}
        inputs = [(ast.unparse(call.func), call.args[0].value) for call in given["inputs"].elts]
        widgets = {name: kind in SIMPLE or kind == "_guidance" for kind, name in inputs}
        found[given["node_id"].value] = (widgets, [call.args[0].value for call in given["outputs"].elts])
    return found


SIMPLE = {f"io.{kind}.Input" for kind in ("Combo", "String", "Int", "Float", "Boolean")}
NODES = nodes()


def test_every_node_has_chinese_names_and_help_in_both_languages():
    chinese = json.loads((PACK / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert list(chinese) == list(NODES) and len(NODES) == 5
    for name, (inputs, outputs) in NODES.items():
        assert list(chinese[name]["inputs"]) == list(inputs), name
        assert list(chinese[name]["outputs"]) == [str(number) for number in range(len(outputs))], name
        assert all(entry["name"] and entry["tooltip"] for entry in chinese[name]["inputs"].values())
        for page in (PACK / "web" / "docs" / f"{name}.md", PACK / "web" / "docs" / name / "zh.md"):
            text = page.read_text(encoding="utf-8")
            named = set(re.findall(r"\*\*(\w+)\*\*", text))
            assert text.startswith("# framewake ") and named <= {*inputs, *outputs}, page.name


@pytest.mark.parametrize("name", ["demonstration", "trails", "server"])
def test_example_graphs_fit_the_nodes(name):
    graph = json.loads((PACK / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    by_id = {node["id"]: node for node in graph["nodes"]}
    for node in graph["nodes"]:
        if node["type"] == "SaveVideo":
            continue
        widgets, outputs = NODES[node["type"]]
        sockets = [given for given, has_widget in widgets.items() if not has_widget]
        assert [entry["name"] for entry in node["inputs"]] == sockets, node["type"]
        assert [entry["name"] for entry in node["outputs"]] == outputs
        extra = "seed" in widgets  # control_after_generate takes a place of its own
        assert len(node.get("widgets_values", ())) == sum(widgets.values()) + extra
    for number, source, slot, target, place, kind in graph["links"]:
        assert number in by_id[source]["outputs"][slot]["links"] and by_id[source]["outputs"][slot]["type"] == kind
        assert by_id[target]["inputs"][place] == {
            "name": by_id[target]["inputs"][place]["name"],
            "type": kind,
            "link": number,
        }


def test_ranges_and_words_are_those_of_a_request():
    known = settings()
    text = re.sub(r'"\n +"', "", (PACK / "nodes.py").read_text(encoding="utf-8"))  # texts of several lines
    assert (pack_settings.OWN, *KNOWN_RESOLUTIONS) == pack_settings.RESOLUTIONS
    assert known["frames"].maximum == pack_settings.MOST_FRAMES and known["steps"].maximum == pack_settings.MOST_STEPS
    assert pack_settings.MOST_SEED == MAX_SEED and known["guidance_scale"].maximum == pack_settings.MOST_GUIDANCE
    assert tuple(PRESETS) == pack_settings.PRESETS and pack_settings.CENTRE == CENTRE
    same = ("prompt", "resolution", "frames", "seed", "negative_prompt", "guidance_scale", "embedded_guidance")
    same += ("crop", "super_resolution")
    missing = [name for name in same if f'"{known[name].help}"' not in text]
    assert not missing, "a tooltip differs from the setting's help"


def test_a_wish_is_a_request():
    request = from_dict(pack_settings.request_settings(WISH, LORAS))
    assert (request.frames, request.steps, request.seed, request.is_stable) == (33, None, 7, False)
    assert request.uses[0].path == LORAS[0].path and request.uses[0].weight(3) == 0.8
    assert request.negative_prompt == "blur" and resolve(request).flow_shift == 17.0
    plain = values.Wish("x", "720p", 1, 3, MAX_SEED, "stable", "off")
    assert from_dict(pack_settings.request_settings(plain, ())).steps == 3
    whole = values.Wish("x", "720p", 1, 3, 1, "stable", "off", crop=" fit ")
    assert from_dict(pack_settings.request_settings(whole, ())).crop == pack_settings.body(whole, ())["crop"] == "fit"
    larger = values.Wish("x", "720p", 1, 3, 1, "stable", "off", super_resolution=True)
    assert from_dict(pack_settings.request_settings(larger, ())).super_resolution
    assert pack_settings.body(larger, ())["super_resolution"] and not request.super_resolution


def test_what_a_wish_leaves_to_the_checkpoint():
    own = values.Wish("x", "own", 1, 0, 1, "stable", "off")
    request = from_dict(pack_settings.request_settings(own, ()))
    assert (request.resolution, request.guidance_scale, request.steps) == (None, None, None)
    assert not {"resolution", "true_cfg_scale", "num_inference_steps"} & pack_settings.body(own, ()).keys()
    named = pack_settings.body(WISH, ())
    assert (named["resolution"], named["true_cfg_scale"]) == ("360p", 2.0)


def test_frames_that_cannot_be():
    assert pack_settings.frames_are_possible(33) is True and pack_settings.frames_are_possible(1) is True
    assert pack_settings.frames_are_possible(34) == "frames is 34: expected a multiple of 4 plus 1, such as 33."


def test_what_a_server_cannot_take_is_said():
    by_step = (values.LoraFile("a.safetensors", "/a.safetensors", "0-20=1.0"),)
    with pytest.raises(pack_settings.Refused, match="takes one number"):
        pack_settings.body(WISH, by_step)
    with pytest.raises(pack_settings.Refused, match="below"):
        pack_settings.body(values.Wish("x", "720p", 1, 3, MAX_SEED, "stable", "off"), ())


def test_licence_and_picture_are_the_project_s():
    assert (PACK / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (PACK / "red-circle.png").read_bytes() == (PICTURES / "red-circle.png").read_bytes()


def test_the_registry_can_take_it():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    found = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))
    project, comfy = found["project"], found["tool"]["comfy"]
    assert "comfyui" not in project["name"].lower() and len(project["version"].split(".")) == 3
    assert project["license"] == {"file": "LICENSE"} and {"PublisherId", "DisplayName", "requires-comfyui"} <= set(
        comfy
    )
    assert (PACK / "requirements.txt").read_text().split() == project["dependencies"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "S102,S307,E702", str(PACK)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_only_a_run_imports_framewake():
    """ComfyUI starts no slower with the pack: at the top of its files, nothing of framewake is imported."""
    for path in PACK.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not any(name.split(".")[0] == "framewake" for name in names), path.name
