"""Llama-like models: real ones of transformers at a tiny size, and look-alikes that must be refused."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_transformers import TOKENS, assert_same_function, causal, in_float64
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.subject import Subject, derived_record

OFFERS = (
    "permute", "rescale", "split", "cancel", "dead", "entangle", "heads", "value", "query", "fold", "rotate",
)  # fmt: skip
SOUND = tuple(name for name in OFFERS if name not in {"cancel", "entangle"})
COMPOSED = (SOUND, SOUND[::-1], OFFERS[::-1])
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "untied": ("Llama", {}),
    "tied": ("Llama", {"tie_word_embeddings": True}),
    "gelu": ("Llama", {"hidden_act": "gelu", "attention_bias": False, "mlp_bias": False}),
    "qwen": ("Qwen2", {}),
}


def calm(kind: str) -> Any:
    """A model with matrices half as large: its own rounding is then far below the bound on twins."""
    name, settings = KINDS[kind]
    model = causal(name, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5 if parameter.ndim == 2 else 1)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_found(kind: str) -> None:
    found = gauge.find(calm(kind))
    assert isinstance(found, gauge.Family)
    assert found.name == "llama"
    assert [layer.name for layer in found.hiddens] == [f"model.layers.{k}.mlp.up_proj" for k in (0, 1, 2)]
    assert found.offers == OFFERS
    assert any("lm_head" in reason and "tied" in reason for reason in found.refused) == (kind == "tied")


@pytest.mark.parametrize("operations", [*((name,) for name in OFFERS), *COMPOSED], ids="+".join)
@pytest.mark.parametrize("kind", KINDS)
def test_twins_compute_the_same_function(kind: str, operations: tuple[str, ...]) -> None:
    model = calm(kind)
    before = weights_digest(model)
    made = gauge.describe("llama", *operations, seed=1)
    twin = gauge.twin(model, made)
    assert weights_digest(twin) != before == weights_digest(model)
    assert model.config.intermediate_size == 48
    assert model.config.tie_word_embeddings == (kind == "tied")
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == (kind == "tied")
    assert_same_function(model, twin, bound=1e-4)
    model = in_float64(model)
    assert_same_function(model, gauge.twin(model, made), bound=1e-9)


def test_the_same_derivation_gives_the_same_bits() -> None:
    model = causal("Llama")
    for operation in OFFERS:
        digests = [weights_digest(gauge.twin(model, gauge.describe("llama", operation, seed=s))) for s in (1, 1, 2)]
        assert digests[0] == digests[1], operation
        assert (digests[0] == digests[2]) == (operation == "fold"), operation


def test_cancel_declares_the_width() -> None:
    model = causal("Llama")
    twin = gauge.twin(model, gauge.describe("llama", "cancel", seed=1, pairs=4, scale=3.0))
    mlp = twin.model.layers[1].mlp
    assert twin.config.intermediate_size == mlp.intermediate_size == mlp.down_proj.in_features == 56
    assert mlp.gate_proj.weight.shape == mlp.up_proj.weight.shape == (56, 32)
    assert torch.equal(mlp.gate_proj.weight[48::2], mlp.gate_proj.weight[49::2])
    assert torch.equal(mlp.up_proj.weight[48::2], mlp.up_proj.weight[49::2])
    assert torch.equal(mlp.down_proj.weight[:, 48::2], -mlp.down_proj.weight[:, 49::2])
    old = model.model.layers[1].mlp.down_proj.weight.detach()
    assert torch.equal(mlp.down_proj.weight[:, :48], old)
    assert 2 < float(mlp.down_proj.weight.detach()[:, 48::2].std() / old.std()) < 4


def test_sixteen_bit_weights() -> None:
    """What moves bits only is offered and exact to the bit (rescaling) or to rounding (another order of sums)."""
    model = causal("Llama").bfloat16()
    found = gauge.find(model)
    assert isinstance(found, gauge.Family)
    assert found.offers == ("permute", "rescale", "cancel", "dead", "heads")
    for name in ("split", "entangle", "value", "query", "fold", "rotate"):
        with pytest.raises(ModelError, match="not be exact in 16-bit"):
            gauge.describe(found, name, seed=0)
    twin = gauge.twin(model, gauge.describe(found, "rescale", seed=0))
    assert weights_digest(twin) != weights_digest(model)
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, twin(TOKENS).logits)


def test_a_rotated_twin_is_disturbed_only_where_its_base_is() -> None:
    subject = Subject(causal("Llama", tie_word_embeddings=True))
    made = gauge.describe("llama", "rotate", seed=0)
    child = subject.derived(gauge.twin(subject.model, made), derived_record(subject.record, made, role="twin"))
    assert [(layer.name, layer.tied) for layer in child.layers] == [
        (layer.name, layer.tied) for layer in subject.layers
    ]
    assert child.model.lm_head.weight is not child.model.model.embed_tokens.weight
    assert "lm_head" not in [layer.name for layer in child.layers]


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
        assert isinstance(found, gauge.Family)
        assert found.offers == OFFERS[:6]
        for operation in found.offers:
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
    assert "down_proj: it is a Bilinear, not a plain Linear" in gauge.find(odd).because
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
    assert isinstance(found, gauge.Family)
    assert [layer.name for layer in found.hiddens] == ["0.up_proj", "2.up_proj"]
    assert found.refused[0].startswith("1: ")
    twin = gauge.twin(model, gauge.describe(found, "permute", seed=0))
    assert torch.equal(twin[1].up_proj.weight, model[1].up_proj.weight)
