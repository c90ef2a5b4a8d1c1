"""Norms folded and shifted, and the stream turned, in transformers of many families."""

import copy
from typing import Any

import numpy as np
import pytest
from tiny_families import made, run_on
from torch import nn

from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import residual as residuals
from wheeltap.gauge.base import Refusal
from wheeltap.gauge.bench import check
from wheeltap.gauge.residual import Residual

BOUND = 1e-4
HOLD = {
    "gemma": ("fold", "rotate"), "gemma2": ("fold",), "gemma3": ("fold",), "phi3": ("fold", "rotate"),
    "mamba": ("fold", "rotate"), "mamba2": ("fold", "rotate"), "neox": ("fold", "shift"), "phi": ("fold", "shift"),
    "phi-normed": ("fold", "shift"), "vit": ("fold", "shift"),
}  # fmt: skip


def found(model: nn.Module) -> Residual:
    read = residuals.find(model)
    assert not isinstance(read, Refusal), read
    return read


def twin_of(model: nn.Module, read: Residual, move: str) -> Any:
    twin = copy.deepcopy(model)
    if move == "rotate":
        residuals.rotate(twin, read, np.random.default_rng(0))
    else:
        {"fold": residuals.fold, "shift": residuals.shift}[move](twin, read)
    return twin


def difference(name: str, model: nn.Module, twin: nn.Module) -> float:
    run = run_on(name, seed=1)
    return check(run(model).numpy(), run(twin).numpy()).difference


@pytest.mark.parametrize("name", HOLD)
def test_twins_compute_the_same(name: str) -> None:
    model = made(name)
    before = weights_digest(model)
    read = found(model)
    assert read.moves == HOLD[name]
    tied = name in ("gemma", "gemma2", "gemma3", "mamba")
    norms = {"mamba": 2, "mamba2": 3, "phi": 3, "phi-normed": 3, "vit": 4}.get(name, 4 if tied else 5)
    assert len(read.folds) == norms, "the final norm too, where its reader is no embedding"
    for move in read.moves:
        twin = twin_of(model, read, move)
        assert difference(name, model, twin) <= BOUND, move
        assert weights_digest(twin) != before == weights_digest(model)


def test_what_is_normed_on_its_way_to_the_stream_is_not_turned() -> None:
    assert "rotate: its blocks norm what they add to the stream" in found(made("gemma2")).refused
    assert "rotate: its norms subtract the mean, which a rotation does not keep" in found(made("neox")).refused


@pytest.mark.parametrize("name", ["gemma", "mamba2"])
def test_a_wrong_gauge_is_seen(name: str) -> None:
    """With the gains as they were after all."""
    model = made(name)
    for move in HOLD[name]:
        twin = twin_of(model, found(model), move)
        for path, parameter in model.named_parameters():
            if "norm.weight" in path:
                twin.get_parameter(path).data.copy_(parameter.data)
        assert difference(name, model, twin) > 100 * BOUND
