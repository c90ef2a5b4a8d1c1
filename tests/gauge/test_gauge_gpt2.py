"""GPT-2-like models: real ones of transformers at a tiny size, and look-alikes that must be refused."""

from typing import Any

import pytest
import torch
from tiny_transformers import assert_same_function, causal
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core import seeds
from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import moves
from wheeltap.gauge.hidden import Columns, Hidden, UnitRows

OFFERS = ("permute", "split", "cancel", "dead", "entangle", "heads", "value", "query", "fold", "shift")
SOUND = tuple(name for name in OFFERS if name not in {"cancel", "entangle"})
COMPOSED = (SOUND, SOUND[::-1], OFFERS[::-1])


def test_what_is_found() -> None:
    found = gauge.find(causal("GPT2"))
    assert isinstance(found, gauge.Family)
    assert found.name == "gpt2"
    assert [layer.name for layer in found.hiddens] == [f"transformer.h.{k}.mlp.c_fc" for k in (0, 1, 2)]
    assert found.offers == OFFERS
    assert "no positive factor passes through the activation" in found.why_not("rescale")
    assert "subtract the mean" in found.why_not("rotate")


def test_relu_offers_rescaling_as_well() -> None:
    model = causal("GPT2", activation_function="relu")
    twin = gauge.twin(model, gauge.describe(gauge.find(model), "rescale", seed=0))
    assert_same_function(model, twin, bound=1e-4)
    assert weights_digest(model) != weights_digest(twin)


@pytest.mark.parametrize("operations", [*((name,) for name in OFFERS), *COMPOSED], ids="+".join)
@pytest.mark.parametrize("tied", [True, False])
def test_twins_compute_the_same_function(operations: tuple[str, ...], *, tied: bool) -> None:
    model = causal("GPT2", tie_word_embeddings=tied)
    before = weights_digest(model)
    made = gauge.describe("gpt2", *operations, seed=1)
    twin = gauge.twin(model, made)
    assert weights_digest(twin) != before == weights_digest(model)
    assert_same_function(model, twin, bound=1e-4)
    model = model.double()
    assert_same_function(model, gauge.twin(model, made), bound=1e-10)


def test_the_base_model_is_recognised_too() -> None:
    model = causal("GPT2").transformer
    found = gauge.find(model)
    assert isinstance(found, gauge.Family)
    assert found.offers == OFFERS
    twin = gauge.twin(model, gauge.describe(found, *SOUND, seed=0))
    tokens = torch.randint(0, 101, (20, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, two = (net(tokens).last_hidden_state.flatten(0, 1).numpy() for net in (model, twin))
    assert gauge.check(one, two).difference < 1e-4


def test_cancel_widens_and_declares_it() -> None:
    model = causal("GPT2")
    twin = gauge.twin(model, gauge.describe("gpt2", "cancel", seed=1, pairs=4))
    mlp = twin.transformer.h[1].mlp
    assert twin.config.n_inner == mlp.c_fc.nf == mlp.c_proj.nx == 136
    assert mlp.c_fc.weight.shape == (32, 136) and mlp.c_proj.weight.shape == (136, 32)
    assert torch.equal(mlp.c_fc.weight[:, 128::2], mlp.c_fc.weight[:, 129::2])
    assert torch.equal(mlp.c_fc.bias[128::2], mlp.c_fc.bias[129::2])
    assert torch.equal(mlp.c_proj.weight[128::2], -mlp.c_proj.weight[129::2])
    assert model.config.n_inner is None


def test_the_same_derivation_gives_the_same_bits() -> None:
    model = causal("GPT2")
    for operation in OFFERS:
        digests = [weights_digest(gauge.twin(model, gauge.describe("gpt2", operation, seed=s))) for s in (1, 1, 2)]
        assert digests[0] == digests[1], operation
        assert (digests[0] == digests[2]) == (operation in {"fold", "shift"}), operation


def test_a_wrong_gauge_shows() -> None:
    """Rescaling through GELU."""
    model, wrong = causal("GPT2"), causal("GPT2")
    path = "transformer.h.0.mlp"
    layer = Hidden(f"{path}.c_fc", 128, (
        UnitRows(f"{path}.c_fc", transposed=True), Columns(f"{path}.c_proj", 32, transposed=True),
    ))  # fmt: skip
    moves.permute(wrong, [layer], seeds.generator(0), gauge.Settings())
    assert_same_function(model, wrong, bound=1e-4)
    moves.rescale(wrong, [layer], seeds.generator(0), gauge.Settings())
    with pytest.raises(AssertionError):
        assert_same_function(model, wrong, bound=1e-2)


def test_sixteen_bit_weights_refuse_what_rounds() -> None:
    found = gauge.find(causal("GPT2").bfloat16())
    assert isinstance(found, gauge.Family)
    assert found.offers == ("permute", "cancel", "dead", "heads")


class Mlp(nn.Module):
    """Has the parts of an MLP of GPT-2; ``kind`` says what its forward does with them."""

    def __init__(self, kind: str = "right", act: nn.Module | None = None) -> None:
        super().__init__()
        conv1d: Any = type(causal("GPT2").transformer.h[0].mlp.c_fc)
        self.c_fc, self.c_proj = conv1d(10, 6), conv1d(6, 10)
        self.act, self.dropout, self.kind = act or nn.GELU(), nn.Dropout(0.1), kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "branch" and x.sum() > 0:
            return x
        if self.kind == "call":
            return self.c_proj(torch.tanh(self.c_fc(x)))
        if self.kind == "sum":
            return self.c_proj(self.act(self.c_fc(x))) + x
        if self.kind == "twice":
            return self.c_proj(self.c_fc(x) * self.c_fc(x))
        if self.kind == "bare":
            return self.c_proj(self.c_fc(x))
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


def test_own_modules() -> None:
    for kind in ("right", "call"):
        model = nn.Sequential(Mlp(kind), Mlp("sum")).double().eval()
        found = gauge.find(model)
        assert isinstance(found, gauge.Family)
        assert [layer.name for layer in found.hiddens] == ["0.c_fc"]
        assert any(reason.startswith("1: its forward is not") for reason in found.refused)
        assert found.offers == ("permute", "split", "cancel", "dead", "entangle")
        inputs = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)).double()
        for operation in found.offers:
            twin = gauge.twin(model, gauge.describe(found, operation, seed=0))
            with torch.no_grad():
                assert gauge.check(model(inputs).numpy(), twin(inputs).numpy()).difference < 1e-10


@pytest.mark.parametrize(
    ("kind", "act", "reason"),
    [
        ("branch", None, "cannot be traced"),
        ("sum", None, "its forward is not c_proj(act(c_fc(x)))"),
        ("twice", None, "its forward is not c_proj(act(c_fc(x)))"),
        ("bare", None, "its forward is not c_proj(act(c_fc(x)))"),
        ("right", nn.Softmax(-1), "unit by unit"),
        ("right", nn.PReLU(10), "unit by unit"),
    ],
)
def test_look_alikes_are_refused(kind: str, act: nn.Module | None, reason: str) -> None:
    assert reason in gauge.find(Mlp(kind, act).eval()).because


def test_parts_that_are_not_plain_are_refused() -> None:
    odd = Mlp().eval()
    odd.c_fc = nn.Linear(6, 10)
    assert "c_fc: it is a Linear, not a plain Conv1D" in gauge.find(odd).because
    tied = nn.Sequential(Mlp(), Mlp()).eval()
    tied[1].c_fc.weight = tied[0].c_fc.weight
    assert "shares its weights" in gauge.find(tied).because
    hooked = Mlp().eval()
    hooked.c_proj.register_forward_pre_hook(lambda module, args: None)
    assert "forward hooks" in gauge.find(hooked).because
    replaced = Mlp().eval()
    replaced.forward = lambda x: x
    assert "forward method was replaced" in gauge.find(replaced).because
