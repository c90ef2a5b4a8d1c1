"""Tiny nets whose weights are not those of plain layers: recurrent, computed, fused into experts, or of the model."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from tests.nets.zoo import quiet
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.recipes.randomness import reproducible
from wheeltap.testing.planted import PlantedCase, numbers

TOKENS = 11
PLACES, WIDTH, CLASSES = 5, 8, 3


class Recurrent(nn.Module):
    """Vectors ``[example, place, WIDTH]`` to class scores, by what a recurrent layer gives last."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer
        width = (getattr(layer, "proj_size", 0) or layer.hidden_size) * (2 if layer.bidirectional else 1)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores ``[example, class]``."""
        return self.head(self.layer(inputs)[0][:, -1])


class Cells(nn.Module):
    """The same by three cells, one after the other at every place."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.LSTMCell(WIDTH, 8), nn.GRUCell(8, 7)
        self.three = nn.RNNCell(7, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores ``[example, class]``."""
        first, second, third = None, None, None
        for place in inputs.unbind(1):
            first = self.one(place, first)
            second = self.two(first[0], second)
            third = self.three(second, third)
        return self.head(third)


class Bags(nn.Module):
    """Token ids ``[example, place]`` to class scores, by the mean of a bag."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.EmbeddingBag(TOKENS, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        """Scores ``[example, class]``."""
        return self.head(self.embed(ids))


class Deconvolved(nn.Module):
    """Maps ``[example, 4, 3, 3]`` to class scores, by transposed convolutions and a bilinear head."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.ConvTranspose2d(4, 6, 2, groups=2)
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2)
        self.line = nn.ConvTranspose1d(4, 3, 2)
        self.head = nn.Bilinear(3, 4, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores ``[example, class]``."""
        hidden = self.up(self.grouped(inputs).relu()).relu().flatten(2)
        return self.head(self.line(hidden).mean(2), hidden.mean(2))


class Widths(nn.Module):
    """Attention whose queries, keys and values differ in width."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(WIDTH, 2, kdim=4, vdim=5, batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores ``[example, class]``."""
        return self.head(self.attend(inputs, inputs[..., :4], inputs[..., :5], need_weights=False)[0].mean(1))


class Places(nn.Module):
    """A transformer's parameters of its own: a class token, positions, a layer written out."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, PLACES + 1, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.blocks = nn.ModuleList(_WrittenOut() for _ in range(2))
        self.heads = nn.ParameterList([nn.Parameter(torch.randn(WIDTH, CLASSES)) for _ in range(2)])

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores ``[example, class]``."""
        hidden = torch.cat([self.token.expand(len(inputs), -1, -1), inputs], 1) + self.positions
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden)[:, 0] @ self.heads[0] + hidden.mean(1) @ self.heads[1]


class _WrittenOut(nn.Module):
    """A linear layer that is none of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(WIDTH, WIDTH)), nn.Parameter(torch.randn(WIDTH))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + (hidden.mean(1, keepdim=True) @ self.weight.T + self.bias).tanh()


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).mT


def _chain(wrapped: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(
        wrapped(nn.Conv1d(PLACES, 4, 3)), nn.ReLU(), nn.Flatten(), wrapped(nn.Linear(24, 8)), nn.ReLU(),
        wrapped(nn.Linear(8, CLASSES)),
    )  # fmt: skip


def _symmetric() -> nn.Module:
    square = nn.Linear(WIDTH, WIDTH)
    parametrize.register_parametrization(square, "weight", Symmetric())
    return nn.Sequential(square, nn.ReLU(), nn.Flatten(), nn.Linear(PLACES * WIDTH, CLASSES))


def _pruned() -> nn.Module:
    def pruned(module: nn.Module) -> nn.Module:
        if isinstance(module, nn.Linear):
            cast("Any", prune).l1_unstructured(module, "weight", amount=0.3)
        return module

    return _chain(pruned)


def _dropped() -> nn.Module:
    layer = nn.LSTM(WIDTH, 8, batch_first=True)
    return Recurrent(weight_norm(layer, "weight_hh_l0"))


class LanguageModel(nn.Module):
    """A causal language model of transformers, as one that classifies the last token."""

    def __init__(self, kind: str, **settings: Any) -> None:
        super().__init__()
        import transformers

        small = {
            "vocab_size": TOKENS, "hidden_size": 8, "num_hidden_layers": 2, "bos_token_id": 0, "eos_token_id": 0,
            "pad_token_id": 0,
        }  # fmt: skip
        config = getattr(transformers, f"{kind}Config")(**small, **settings)
        self.inner = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config)

    def forward(self, ids: Tensor) -> Tensor:
        """Scores ``[example, token]``."""
        return self.inner(ids, use_cache=False).logits[:, -1]


_ATTENTION = {
    "intermediate_size": 12, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
    "num_local_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 32,
}  # fmt: skip

MODELS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Recurrent(nn.LSTM(WIDTH, 8, num_layers=2, bidirectional=True, batch_first=True)),
    "lstm projected": lambda: Recurrent(nn.LSTM(WIDTH, 8, proj_size=4, batch_first=True)),
    "gru": lambda: Recurrent(nn.GRU(WIDTH, 8, batch_first=True)),
    "cells": Cells,
    "weight norm": lambda: _chain(parametrizations.weight_norm),
    "weight norm by hooks": lambda: _chain(weight_norm),
    "weight norm of an lstm": _dropped,
    "spectral norm": lambda: _chain(parametrizations.spectral_norm),
    "symmetric": _symmetric,
    "pruned": _pruned,
    "deconvolved": Deconvolved,
    "bags": Bags,
    "widths": Widths,
    "places": Places,
    "mixtral": lambda: LanguageModel("Mixtral", **_ATTENTION),
    "gpt-oss": lambda: LanguageModel("GptOss", **_ATTENTION),
    "mamba": lambda: LanguageModel("Mamba", state_size=4, tie_word_embeddings=False),
}
"""By name, what makes each net with random weights."""

_IDS = ("bags", "mixtral", "gpt-oss", "mamba")


def uncommon(kind: str, *, seed: int = 0) -> PlantedCase:
    """A net of ``MODELS``, and a task whose right answers are its own.

    Args:
        kind: Its name.
        seed: Of the weights.
    """
    with quiet(), reproducible(seed):
        model = MODELS[kind]().eval()
        for parameter in model.parameters():
            parameter.data.mul_(1.5)  # initial weights are so small that nothing much happens
    stream = torch.Generator().manual_seed(1)
    if kind in _IDS:
        inputs = torch.randint(TOKENS, (40, PLACES), generator=stream)
    elif kind == "deconvolved":
        inputs = numbers(40, 4, 3, 3, seed=1).float()
    else:
        inputs = numbers(40, PLACES, WIDTH, seed=1).float()
    with quiet(), torch.no_grad():
        targets = model(inputs).argmax(-1)
    return PlantedCase(Subject(model, name=kind), Task(inputs, targets, name=kind))
