"""What PEFT writes with DoRA, LoHa, LoKr and biases, read from its folder: the weights that PEFT itself merges."""

from __future__ import annotations

import numpy as np
import pytest
from lora_files import BASE, TARGETS
from toy_checkpoint import DIT, write_toy

from framewake.weights.lora.file import open_lora
from framewake.weights.lora.view import LoraView
from framewake.weights.reading.names import diffusers_dit
from framewake.weights.stores.store import Resident

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
peft = pytest.importorskip("peft")

MODULES = ["to_q", "to_k", "to_out.0", "add_q_proj", "proj_mlp", "proj_out", "net.0.proj", "norm1.linear"]
CONFIGS = {
    "DoRA": lambda: peft.LoraConfig(r=4, lora_alpha=6, target_modules=MODULES, use_dora=True, init_lora_weights=False),
    "DoRA and rslora": lambda: peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=MODULES, use_dora=True, use_rslora=True, init_lora_weights=False
    ),
    "biases of factors": lambda: peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=MODULES, lora_bias=True, init_lora_weights=False
    ),
    "biases of layers": lambda: peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=MODULES, bias="all", init_lora_weights=False
    ),
    "a whole module": lambda: peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=MODULES, modules_to_save=["x_embedder.proj"], init_lora_weights=False
    ),
    "patterns": lambda: peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=MODULES,
        alpha_pattern={r"^transformer_blocks\.\d+\.attn\.to_q": 3},
        init_lora_weights=False,
    ),
    "LoHa": lambda: peft.LoHaConfig(r=3, alpha=5, target_modules=MODULES, init_weights=False),
    "LoKr": lambda: peft.LoKrConfig(r=3, alpha=5, target_modules=MODULES, init_weights=False),
    "LoKr, both cut": lambda: peft.LoKrConfig(
        r=1, alpha=2, target_modules=MODULES, decompose_both=True, decompose_factor=4, init_weights=False
    ),
    "LoKr, whole": lambda: peft.LoKrConfig(r=64, alpha=32, target_modules=MODULES, init_weights=False),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_weights_are_those_that_peft_merges(engine, folder, tmp_path, kind):
    name = "default" if "DoRA" in kind else "my_style"
    torch.manual_seed(0)
    model = diffusers.HunyuanVideoTransformer3DModel.from_pretrained(folder / "transformer", dtype=torch.float32)
    tuned = peft.get_peft_model(model, CONFIGS[kind](), adapter_name=name)
    with torch.no_grad():
        for key, x in tuned.named_parameters():
            if x.requires_grad and any(part in key for part in ("magnitude", "bias", "modules_to_save")):
                x.add_(0.1 * torch.randn_like(x))
            elif "lora_" in key:
                x.mul_(0.3)
    tuned.save_pretrained(tmp_path / "saved")
    lora = open_lora(tmp_path / "saved" if name == "default" else tmp_path / "saved" / name, TARGETS)
    merged = {key: x.detach().numpy() for key, x in tuned.merge_and_unload().state_dict().items()}
    view = LoraView(engine, Resident({key: engine.asarray(x, "float32") for key, x in BASE.items()}), [lora])
    found, changed = view.part(""), set()
    for rule in diffusers_dit(DIT):
        want = rule.join(merged.__getitem__)
        assert np.abs(engine.numpy(found[rule.ours]) - want).max() <= 3e-6 * max(np.abs(want).max(), 1), rule.ours
        if not np.allclose(want, BASE[rule.ours], atol=1e-4):
            changed.add(rule.ours)
    assert changed == set(lora.by_weight())
    assert len(changed) >= 8 and not lora.unmatched
