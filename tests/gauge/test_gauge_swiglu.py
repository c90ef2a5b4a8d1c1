"""Gated MLPs: a real Llama of transformers at a tiny size, and look-alikes that must be refused."""

import importlib
import importlib.util
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.gauge.swiglu import SwiGLU
from wheeltap.subject import weights_digest


def llama(**settings: Any) -> nn.Module:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    try:
        importlib.import_module("torchaudio")
    except ModuleNotFoundError:
        pass
    except (ImportError, OSError):
        # A torchaudio of another build breaks transformers on the way to any model.
        sys.modules["torchaudio"] = None  # pyright: ignore[reportArgumentType]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transformers = importlib.import_module("transformers")
            config = transformers.LlamaConfig(
                vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, initializer_range=0.2, **settings,
            )  # fmt: skip
            torch.manual_seed(0)
            return transformers.LlamaForCausalLM(config).eval()
    finally:
        if sys.modules.get("torchaudio", 0) is None:
            del sys.modules["torchaudio"]


TOKENS = torch.randint(0, 61, (20, 30), generator=torch.Generator().manual_seed(0))


def scores(model: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return model(TOKENS).logits.flatten(0, 1).numpy()


@pytest.mark.parametrize("settings", [{}, {"mlp_bias": True, "hidden_act": "gelu"}, {"tie_word_embeddings": True}])
@pytest.mark.parametrize("operation", ["recode", "cancel"])
def test_twins_of_a_llama(settings: dict[str, Any], operation: str) -> None:
    model = llama(**settings)
    before = weights_digest(model)
    found = gauge.find(model)
    assert isinstance(found, SwiGLU)
    assert [layer.name for layer in found.hiddens] == [f"model.layers.{k}.mlp.up_proj" for k in (0, 1)]
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        model = model.to(dtype)
        twin = gauge.twin(model, gauge.describe(found, operation, seed=1))
        likeness = gauge.check(scores(model), scores(twin))
        assert likeness.difference <= bound, likeness
        assert likeness.agreement == 1
        assert weights_digest(twin) != weights_digest(model)
    assert weights_digest(model) == before
    assert model.config.intermediate_size == 40


def test_cancel_declares_the_width() -> None:
    model = llama()
    twin = gauge.twin(model, gauge.describe("swiglu", "cancel", seed=1, pairs=4, scale=3.0))
    mlp = twin.model.layers[1].mlp
    assert twin.config.intermediate_size == mlp.intermediate_size == mlp.down_proj.in_features == 48
    assert mlp.gate_proj.weight.shape == mlp.up_proj.weight.shape == (48, 24)
    assert torch.equal(mlp.gate_proj.weight[40::2], mlp.gate_proj.weight[41::2])
    assert torch.equal(mlp.up_proj.weight[40::2], mlp.up_proj.weight[41::2])
    assert torch.equal(mlp.down_proj.weight[:, 40::2], -mlp.down_proj.weight[:, 41::2])
    old = model.model.layers[1].mlp.down_proj.weight.detach()
    assert torch.equal(mlp.down_proj.weight[:, :40], old)
    assert 2 < float(mlp.down_proj.weight.detach()[:, 40::2].std() / old.std()) < 4


def test_same_derivation_same_bits() -> None:
    model = llama()
    for operation in ("recode", "cancel"):
        digests = [weights_digest(gauge.twin(model, gauge.describe("swiglu", operation, seed=s))) for s in (1, 1, 2)]
        assert digests[0] == digests[1] != digests[2]


def test_sixteen_bit_rescaling_keeps_every_bit() -> None:
    model = llama().bfloat16()
    twin = gauge.twin(model, gauge.describe("swiglu", "recode", seed=0, permute=False))
    assert weights_digest(twin) != weights_digest(model)
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, twin(TOKENS).logits)


class Gated(nn.Module):
    """Has the parts of a gated MLP; ``kind`` says what its forward does with them."""

    def __init__(self, kind: str = "right", act: nn.Module | None = None) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(6, 10), nn.Linear(6, 10), nn.Linear(10, 6)
        self.act_fn, self.kind = act or nn.SiLU(), kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "right":
            return self.down_proj(self.up_proj(x) * self.act_fn(self.gate_proj(x)))
        if self.kind == "function":
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        if self.kind == "swapped":
            return self.down_proj(self.gate_proj(x) * self.act_fn(self.up_proj(x)))
        if self.kind == "sum":
            return self.down_proj(self.act_fn(self.gate_proj(x)) + self.up_proj(x))
        if self.kind == "scaled":
            return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x)) * 2
        if self.kind == "branch" and x.sum() > 0:
            return x
        return self.down_proj(self.up_proj(self.down_proj(self.act_fn(self.gate_proj(x) * self.gate_proj(x)))))


def test_own_gated_modules() -> None:
    for made in (Gated(), nn.Sequential(Gated(), Gated("function"), nn.Linear(6, 3))):
        model = made.double().eval()
        inputs = torch.randn(500, 6).double()
        found = gauge.find(model)
        assert isinstance(found, SwiGLU)
        for operation in ("recode", "cancel"):
            twin = gauge.twin(model, gauge.describe(found, operation, seed=0))
            with torch.no_grad():
                likeness = gauge.check(model(inputs).numpy(), twin(inputs).numpy())
            assert likeness.difference < 1e-10
            assert likeness.agreement == 1


@pytest.mark.parametrize("kind", ["swapped", "sum", "scaled", "other"])
def test_another_forward_is_refused(kind: str) -> None:
    assert "its forward is not down(act(gate(x)) * up(x))" in gauge.find(Gated(kind).eval()).because


def test_refusals_say_why() -> None:
    assert "cannot be traced" in gauge.find(Gated("branch").eval()).because
    assert "unit by unit" in gauge.find(Gated(act=nn.Softmax(-1)).eval()).because
    assert "unit by unit" in gauge.find(Gated(act=nn.PReLU(10)).eval()).because
    assert "no module has gate_proj" in gauge.find(nn.Linear(3, 3)).because
    uneven = Gated().eval()
    uneven.gate_proj = nn.Linear(6, 1)
    assert "differ in width" in gauge.find(uneven).because
    odd = Gated().eval()
    odd.down_proj = nn.Bilinear(3, 3, 3)
    assert "down_proj is a Bilinear" in gauge.find(odd).because
    tied = nn.Sequential(Gated(), Gated()).eval()
    tied[1].up_proj.weight = tied[0].up_proj.weight
    assert "shares its weights" in gauge.find(tied).because
    hooked = Gated().eval()
    hooked.up_proj.register_forward_pre_hook(lambda module, args: None)
    assert "forward hooks" in gauge.find(hooked).because
    replaced = Gated().eval()
    replaced.forward = lambda x: x
    assert "forward method was replaced" in gauge.find(replaced).because


def test_only_sound_parts_are_rewritten() -> None:
    model = nn.Sequential(Gated(), Gated("sum"), Gated()).double().eval()
    model[0].config = type("Config", (), {"intermediate_size": 10})()
    found = gauge.find(model)
    assert isinstance(found, SwiGLU)
    assert [layer.name for layer in found.hiddens] == ["0.up_proj", "2.up_proj"]
    assert found.refused[0].startswith("1: ")
    twin = gauge.twin(model, gauge.describe(found, "recode", seed=0))
    assert torch.equal(twin[1].up_proj.weight, model[1].up_proj.weight)
