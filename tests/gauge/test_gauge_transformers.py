"""Transformers with known MLPs: real ones of transformers at a tiny size, and look-alikes that must be refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_transformers import TOKENS, assert_same_function, causal, in_float64
from torch import Tensor, nn
from twins import Wired

from wheeltap import gauge
from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject, derived_record
from wheeltap.engine.apply import Disturbance
from wheeltap.perturb import create

OFFERS = {
    "llama": (
        "permute", "rescale", "split", "cancel", "dead", "entangle", "heads", "value", "query", "fold", "rotate",
    ),
    "gpt2": ("permute", "split", "cancel", "dead", "entangle", "heads", "value", "query", "fold", "shift"),
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "untied": ("Llama", {}),
    "tied": ("Llama", {"tie_word_embeddings": True}),
    "gelu": ("Llama", {"hidden_act": "gelu", "attention_bias": False, "mlp_bias": False}),
    "qwen": ("Qwen2", {}),
    "gpt2": ("GPT2", {"tie_word_embeddings": False}),
    "gpt2-tied": ("GPT2", {"tie_word_embeddings": True}),
}


def family_of(kind: str) -> str:
    return "gpt2" if kind.startswith("gpt2") else "llama"


def calm(kind: str) -> Any:
    """A model; of Llama with matrices half as large: its own rounding is then far below the bound on twins."""
    name, settings = KINDS[kind]
    model = causal(name, **settings)
    with torch.no_grad():
        for parameter in model.parameters() if name != "GPT2" else ():
            parameter.mul_(0.5 if parameter.ndim == 2 else 1)
    return model


SOUND = {family: tuple(name for name in OFFERS[family] if name not in {"cancel", "entangle"}) for family in OFFERS}


def operations(kind: str) -> tuple[tuple[str, ...], ...]:
    """All together in both orders; of one kind of each family each by itself as well."""
    offers, sound = OFFERS[family_of(kind)], SOUND[family_of(kind)]
    alone = tuple((name,) for name in offers) if kind in ("tied", "gpt2") else ()
    return (*alone, sound, offers[::-1])


@pytest.mark.parametrize(("kind", "operations"), [(kind, names) for kind in KINDS for names in operations(kind)])
def test_twins_compute_the_same_function(kind: str, operations: tuple[str, ...]) -> None:
    model, family = calm(kind), family_of(kind)
    before = weights_digest(model)
    made = gauge.describe(family, *operations, seed=1)
    twin = gauge.twin(model, made)
    assert weights_digest(twin) != before == weights_digest(model)
    if family == "llama":
        assert model.config.intermediate_size == 48
        assert model.config.tie_word_embeddings == (kind == "tied")
        assert (model.lm_head.weight is model.model.embed_tokens.weight) == (kind == "tied")
    assert_same_function(model, twin, bound=1e-4)
    model = in_float64(model) if family == "llama" else model.double()
    assert_same_function(model, gauge.twin(model, made), bound=1e-9 if family == "llama" else 1e-10)


@pytest.mark.parametrize(("name", "family"), [("Llama", "llama"), ("GPT2", "gpt2")])
def test_the_same_derivation_gives_the_same_bits(name: str, family: str) -> None:
    model = causal(name)
    for operation in OFFERS[family]:
        digests = [weights_digest(gauge.twin(model, gauge.describe(family, operation, seed=s))) for s in (1, 1, 2)]
        assert digests[0] == digests[1], operation
        assert (digests[0] == digests[2]) == (operation in {"fold", "shift"}), operation


@pytest.mark.parametrize("kind", ["tied", "gpt2"])
def test_a_twin_in_the_memory_of_its_base_has_the_same_bits(kind: str) -> None:
    for operation in OFFERS[family_of(kind)]:
        model, made = causal(*KINDS[kind][:1], **KINDS[kind][1]), gauge.describe(family_of(kind), operation, seed=1)
        expected = weights_digest(gauge.twin(model, made))
        memory = {parameter.data_ptr(): parameter.shape for parameter in model.parameters()}
        twin = gauge.twin(model, made, emptied=True)
        assert weights_digest(twin) == expected, operation
        assert not any(parameter.numel() for parameter in model.parameters())
        new = [name for name, one in twin.named_parameters() if memory.get(one.data_ptr()) != one.shape]
        if operation not in {"split", "cancel", "dead", "entangle"} and "tied" not in kind.split("-"):
            assert not new, operation


def test_cancel_widens_and_declares_it() -> None:
    model = causal("Llama")
    twin = gauge.twin(model, gauge.describe("llama", "cancel", seed=1, pairs=4, scale=3.0))
    mlp, old = twin.model.layers[1].mlp, model.model.layers[1].mlp.down_proj.weight.detach()
    assert twin.config.intermediate_size == mlp.intermediate_size == mlp.down_proj.in_features == 56
    for part in (mlp.gate_proj.weight, mlp.up_proj.weight):
        assert part.shape == (56, 32) and torch.equal(part[48::2], part[49::2])
    written = mlp.down_proj.weight.detach()
    assert torch.equal(written[:, 48::2], -written[:, 49::2]) and torch.equal(written[:, :48], old)
    assert 2 < float(written[:, 48::2].std() / old.std()) < 4
    model = causal("GPT2")
    twin = gauge.twin(model, gauge.describe("gpt2", "cancel", seed=1, pairs=4))
    mlp = twin.transformer.h[1].mlp
    assert twin.config.n_inner == mlp.c_fc.nf == mlp.c_proj.nx == 136
    assert mlp.c_fc.weight.shape == (32, 136) and mlp.c_proj.weight.shape == (136, 32)
    for part in (mlp.c_fc.weight, mlp.c_fc.bias[None]):
        assert torch.equal(part[:, 128::2], part[:, 129::2])
    assert torch.equal(mlp.c_proj.weight[128::2], -mlp.c_proj.weight[129::2])
    assert model.config.n_inner is None


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
    found = gauge.find(causal("GPT2").bfloat16())
    assert isinstance(found, gauge.Family)
    assert found.offers == ("permute", "cancel", "dead", "heads")


def test_a_rotated_twin_is_disturbed_only_where_its_base_is_and_counts_alike() -> None:
    subject = Subject(causal("Llama", tie_word_embeddings=True), name="tied")
    made = gauge.describe("llama", "rotate", seed=0)
    child = subject.derived(gauge.twin(subject.model, made), derived_record(subject.record, made, role="twin"))
    assert [(layer.name, layer.tied) for layer in child.layers] == [(each.name, each.tied) for each in subject.layers]
    assert child.model.lm_head.weight is not child.model.model.embed_tokens.weight
    assert "lm_head" not in [layer.name for layer in child.layers]
    assert child.record.ends == subject.record.ends == ("model.embed_tokens",)
    for site in (WHOLE, Site.without(["model.embed_tokens"])):
        shares: list[float | None] = []
        for one in (subject, child):
            with Disturbance(one, create("relative"), site) as disturbance, torch.no_grad():
                before = one.model(TOKENS).logits
                disturbance.apply(0.1, root=0, seed=0)
                assert not torch.equal(one.model(TOKENS).logits, before)
            shares.append(disturbance.coverage)
        assert shares[0] is not None and 0.9 < shares[0] < 1.0
        assert shares[0] == shares[1]
    # A part of a model has no coverage.
    with Disturbance(subject, create("relative"), Site("block", subject.record.blocks[-1])) as disturbance:
        disturbance.apply(0.1, root=0, seed=0)
        assert disturbance.coverage is None


Forward = Callable[[Any, Tensor], Tensor]
GATED_MLPS: dict[str, Forward] = {
    "right": lambda m, x: m.down_proj(m.up_proj(x) * m.act_fn(m.gate_proj(x))),
    "function": lambda m, x: m.down_proj(F.silu(m.gate_proj(x)) * m.up_proj(x)),
    "sum": lambda m, x: m.down_proj(m.act_fn(m.gate_proj(x)) + m.up_proj(x)),
    "branch": lambda m, x: x if x.sum() > 0 else m.down_proj(m.up_proj(x) * m.act_fn(m.gate_proj(x))),
    "other": lambda m, x: m.down_proj(m.up_proj(m.down_proj(m.act_fn(m.gate_proj(x) * m.gate_proj(x))))),
}
PLAIN_MLPS: dict[str, Forward] = {
    "right": lambda m, x: m.dropout(m.c_proj(m.act(m.c_fc(x)))),
    "call": lambda m, x: m.c_proj(torch.tanh(m.c_fc(x))),
    "sum": lambda m, x: m.c_proj(m.act(m.c_fc(x))) + x,
    "bare": lambda m, x: m.c_proj(m.c_fc(x)),
    "branch": lambda m, x: x if x.sum() > 0 else m.c_proj(m.act(m.c_fc(x))),
}
"""What a module with the parts of such an MLP may do with them."""


def gated(kind: str = "right", act: nn.Module | None = None) -> Any:
    parts = {"gate_proj": nn.Linear(6, 10), "up_proj": nn.Linear(6, 10), "down_proj": nn.Linear(10, 6)}
    return Wired(GATED_MLPS[kind], **parts, act_fn=act or nn.SiLU())


def plain(kind: str = "right", act: nn.Module | None = None) -> Any:
    conv1d: Any = type(causal("GPT2").transformer.h[0].mlp.c_fc)
    parts = {"c_fc": conv1d(10, 6), "c_proj": conv1d(6, 10), "dropout": nn.Dropout(0.1)}
    return Wired(PLAIN_MLPS[kind], **parts, act=act or nn.GELU())


@pytest.mark.parametrize(
    "model",
    [
        *(lambda kind=kind: gated(kind) for kind in GATED_MLPS if kind not in ("right", "function")),
        *(lambda kind=kind: plain(kind) for kind in PLAIN_MLPS if kind not in ("right", "call")),
        *(lambda kind=kind: kind(act=nn.Softmax(-1)) for kind in (gated, plain)),
    ],
)
def test_look_alikes_are_refused(model: Callable[[], nn.Module]) -> None:
    assert isinstance(gauge.find(model().eval()), gauge.Refusal)
