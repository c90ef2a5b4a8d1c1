"""Rounded activations and caches, against models whose code rounds by itself, in three families."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import made, run_on
from tiny_transformers import VOCABULARY, causal, in_float64
from torch import Tensor, nn
from twins import Wired

from wheeltap.audits.schemes import scheme
from wheeltap.core.errors import UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.engine.activations import NoCache, require_whole
from wheeltap.engine.apply import Disturbance
from wheeltap.perturb import create

FAMILIES = ("Llama", "GPT2")
SCHEMES = ("w8a8", "fp8", "fp8-tensor", "kv8", "kv4")
IDS = torch.randint(0, VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(1))


def language_model(family: str) -> Any:
    """A random model in double precision: no number comes near a tie of both sides."""
    return in_float64(causal(family)).requires_grad_(False)


# ---- independent code -------------------------------------------------------------------------------------------

E4M3 = np.array([m / 8 * 2.0**-6 if not e else (1 + m / 8) * 2.0 ** (e - 7) for e in range(16) for m in range(8)][:127])
"""Magnitudes of FP8 E4M3 by code; 127 is no number."""


def nearest_e4m3(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The nearest magnitude, of two as near the one of an even code."""
    away = np.abs(E4M3[:, None] - np.abs(numbers))
    lower = away.argmin(0)
    tied = (lower % 2 == 1) & (away[np.minimum(lower + 1, 126), np.arange(len(numbers))] == away.min(0))
    return np.copysign(E4M3[lower + tied], numbers)


def on_grid(numbers: np.ndarray[Any, Any], form: str) -> np.ndarray[Any, Any]:
    """A vector whose largest magnitude is the end of its grid."""
    step = np.abs(numbers).max() / (127 if form == "w8a8" else 448)
    each = np.rint if form == "w8a8" else nearest_e4m3
    return numbers if step == 0 else each(numbers / step) * step


def between(numbers: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """A vector in equal steps from its least to its largest number."""
    levels = np.linspace(numbers.min(), numbers.max(), 2**bits)
    return levels[np.abs(levels[:, None] - numbers).argmin(0)]


def by_row(values: Tensor, rounded: Any, *more: Any) -> Tensor:
    rows = values.reshape(-1, values.shape[-1]).numpy()
    return torch.tensor(np.stack([rounded(row, *more) for row in rows])).reshape(values.shape)


class RoundedMap(nn.Module):
    """A linear map, from weights ``[unit, in]``, of rounded inputs."""

    def __init__(self, weight: Tensor, bias: Tensor | None, name: str) -> None:
        super().__init__()
        form, _, tensor = name.partition("-")
        rounded = on_grid(weight.reshape(-1).numpy(), form).reshape(weight.shape) if tensor else None
        self.form, self.bias = form, bias
        self.rounded = by_row(weight, on_grid, form) if rounded is None else torch.tensor(rounded)

    def forward(self, values: Tensor) -> Tensor:
        return nn.functional.linear(by_row(values, on_grid, self.form), self.rounded, self.bias)


def attention(bits: int) -> Any:
    """Attention over rounded keys and values, without any cache."""

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float, **_: Any
    ) -> tuple[Tensor, None]:
        key, value = (by_row(one.contiguous(), between, bits) for one in (key, value))
        key, value = (one.repeat_interleave(query.shape[1] // one.shape[1], dim=1) for one in (key, value))
        logits = scaling * query @ key.mT
        later = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
        return (logits.masked_fill(later, -torch.inf).softmax(-1) @ value).transpose(1, 2), None

    return attend


def by_hand(model: Any, name: str) -> Any:
    """A model that computes what a scheme says, by its own code."""
    made = copy.deepcopy(model)
    if name.startswith("kv"):
        from transformers import AttentionInterface

        AttentionInterface.register(f"rounded-{name}", attention(int(name[2:])))
        made.config._attn_implementation = f"rounded-{name}"
        return made
    for path, module in list(made.named_modules()):
        kind = type(module).__name__
        if kind not in ("Linear", "Conv1D") or path in ("lm_head", "embed_out"):
            continue
        weight = module.weight.T if kind == "Conv1D" else module.weight
        parent, _, last = path.rpartition(".")
        setattr(made.get_submodule(parent), last, RoundedMap(weight.contiguous(), module.bias, name))
    return made


def disturbance(model: Any, name: str, *, dose: float | None = None) -> Disturbance:
    subject, one = Subject(model), scheme(name)
    spared = one.spared(subject.record)
    return Disturbance(subject, create(one.perturbation, one.settings), Site.without(spared))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_scheme_is_what_independent_code_computes_and_is_undone(family: str) -> None:
    model = language_model(family)
    digest, clean = weights_digest(model), model(IDS, use_cache=False).logits
    for name in SCHEMES:
        with disturbance(model, name) as under_way:
            under_way.apply(scheme(name).dose, root=0, seed=0)
            given = model(IDS, use_cache=False).logits
            reach = under_way.reach
        expected = by_hand(model, name)(IDS, use_cache=False).logits
        assert torch.allclose(given, expected, rtol=0.0, atol=1e-9), name
        assert (given - clean).abs().max() > 1e-3, name
        assert reach is None if name.startswith("kv") else reach == 1.0, name
        assert weights_digest(model) == digest and torch.equal(model(IDS, use_cache=False).logits, clean), name


@pytest.mark.parametrize("family", FAMILIES)
def test_at_sixteen_bits_nothing_changes_to_the_bit(family: str) -> None:
    model = language_model(family).float()
    clean = model(IDS, use_cache=False).logits
    for name in ("w8a8", "fp8", "kv8"):
        with disturbance(model, name) as under_way:
            under_way.apply(16, root=0, seed=0)
            assert torch.equal(model(IDS, use_cache=False).logits, clean), name
            assert under_way.hooks is not None and under_way.relative_norm == 0.0
            assert under_way.hooks.cached == (3 if name == "kv8" else 0)


def test_a_map_whose_inputs_cannot_be_rounded_is_not_counted() -> None:
    """One map is called, the other one's weight is read by a function."""
    parts = {"called": nn.Linear(8, 8, bias=False), "read_by": nn.Linear(8, 4, bias=False)}
    aside = Wired(lambda net, x: nn.functional.linear(net.called(x).relu(), net.read_by.weight), **parts)
    with Disturbance(Subject(aside.eval()), create("quantize-inputs"), WHOLE) as under_way:
        under_way.apply(8, root=0, seed=0)
        under_way.subject.model(torch.randn(3, 8))
        assert under_way.coverage == under_way.reach == 64 / 96


def test_a_model_without_a_cache_is_told_so_and_a_part_of_one_is_refused() -> None:
    model = made("bert")
    with Disturbance(Subject(model), create("quantize-cache"), WHOLE) as under_way:
        under_way.apply(8, root=0, seed=0)
        run_on("bert", seed=0)(model)
        assert under_way.hooks is not None
        with pytest.raises(NoCache):
            under_way.hooks.require_cached()
    with pytest.raises(UsageError):
        require_whole(create("quantize-cache"), Site("block", "layers.0"))
