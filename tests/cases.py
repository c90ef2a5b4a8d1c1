"""One table of models with their declared properties, for the contract tests of all folders.

Each new kind of layer gets a row here: perturbations, gauges, and the engine are then checked on it.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.nets.uncommon import CLASSES, MODELS, PLACES, TOKENS, WIDTH, LanguageModel
from tests.nets.zoo import quiet
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.models.mlp import mlp
from wheeltap.recipes.randomness import reproducible
from wheeltap.testing.planted import PlantedCase, numbers


def cases(names: Iterable[str], *, daily: Collection[str]) -> list[Any]:
    """Parameters of a test: these in every run, all others with the marker ``release``.

    Raises:
        AssertionError: One of the daily ones is not among the names.
    """
    names = list(names)
    assert set(daily) <= set(names), f"unknown cases: {set(daily) - set(names)}"
    return [name if name in daily else pytest.param(name, marks=pytest.mark.release) for name in names]


class Residual(nn.Module):
    """Images ``[example, 2, 6, 6]`` to class scores: batch norms, a shortcut, and a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.inner, self.inner_norm = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6)
        self.point, self.head = nn.Conv2d(6, 6, 1), nn.Linear(6, CLASSES)
        for norm in (self.norm, self.inner_norm):
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.normal_(norm.bias)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)

    def forward(self, images: Tensor) -> Tensor:
        """Scores ``[example, class]``."""
        hidden = self.norm(self.stem(images)).relu()
        hidden = hidden + self.point(self.inner_norm(self.inner(hidden)).relu())
        return self.head(hidden.relu().mean((2, 3)))


class Encoder(nn.Module):
    """Vectors ``[example, place, WIDTH]`` to class scores: torch's own transformer layer, and its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(WIDTH, 2, 12, batch_first=True), nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores ``[example, class]``."""
        return self.head(self.layer(inputs).mean(1))


class Frozen(nn.Module):
    """Its first weight is a buffer of whole numbers with a scale, its second a buffer; only the head is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randint(-7, 8, (10, PLACES * WIDTH), dtype=torch.int8))
        self.register_buffer("scale", torch.rand(10, 1) / 7)
        self.register_buffer("frozen", torch.randn(8, 10))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores ``[example, class]``."""
        weight = self.get_buffer("codes") * self.get_buffer("scale")
        hidden = nn.functional.linear(inputs.flatten(1), weight).relu()
        return self.head(nn.functional.linear(hidden, self.get_buffer("frozen")).relu())


def _vectors() -> Tensor:
    return numbers(40, PLACES, WIDTH, seed=1).float()


def _rows() -> Tensor:
    return numbers(40, WIDTH, seed=1).float()


def _maps() -> Tensor:
    return numbers(40, 4, 3, 3, seed=1).float()


def _images() -> Tensor:
    return numbers(40, 2, 6, 6, seed=1).float()


def _tokens() -> Tensor:
    return torch.randint(TOKENS, (40, PLACES), generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class ModelCase:
    """A model of the table.

    Attributes:
        make: Constructs the model with random weights.
        inputs: Inputs of its task, whose targets are what the model prefers, compared with its mean scores.
        kinds: Kinds of its layers.
        gauges: Gauges that hold on all of it.
        tied: Layers whose weight is used in a second place.
        fixed: Weights that are no parameters.
        dtype: Of the weights.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    kinds: frozenset[str]
    gauges: frozenset[str] = frozenset()
    tied: frozenset[str] = frozenset()
    fixed: int = 0
    dtype: torch.dtype = torch.float32

    def planted(self, *, seed: int = 0) -> PlantedCase:
        """The model in eval mode and its task."""
        with quiet(), reproducible(seed):
            model = self.make().to(self.dtype).eval()
            for parameter in model.parameters():
                parameter.data.mul_(1.5)  # initial weights are so small that nothing much happens
            inputs = self.inputs()
            inputs = inputs.to(self.dtype) if inputs.is_floating_point() else inputs
            with torch.no_grad():
                scores = model(inputs)
                targets = (scores - scores.mean(0)).argmax(-1)
        return PlantedCase(Subject(model, name="case"), Task(inputs, targets, name="case"))


def _case(
    make: Callable[[], nn.Module], inputs: Callable[[], Tensor], kinds: str, gauges: str = "", **more: Any
) -> ModelCase:
    return ModelCase(make, inputs, frozenset(kinds.split()), frozenset(gauges.split()), **more)


_UNITS, _HEADS = "permute rescale split cancel dead entangle", "heads value query"
_CAUSAL = {
    "intermediate_size": 12, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
}  # fmt: skip

MODEL_CASES: dict[str, ModelCase] = {
    "mlp": _case(lambda: mlp((WIDTH, 12, 10, CLASSES)), _rows, "linear", f"{_UNITS} regroup"),
    "half precision": _case(
        lambda: mlp((WIDTH, 12, 10, CLASSES)), _rows, "linear", "permute rescale cancel dead", dtype=torch.bfloat16
    ),
    "residual": _case(Residual, _images, "conv linear", f"{_UNITS} regroup"),
    "encoder": _case(Encoder, _vectors, "attention linear", f"{_UNITS} {_HEADS}"),
    "llama": _case(
        lambda: LanguageModel("Llama", tie_word_embeddings=True, **_CAUSAL), _tokens, "embedding linear",
        f"{_UNITS} {_HEADS} fold regroup", tied=frozenset({"inner.model.embed_tokens"}),
    ),
    "gpt2": _case(
        lambda: LanguageModel("GPT2", n_embd=8, n_layer=2, n_head=2, n_positions=32), _tokens,
        "embedding transposed", f"permute split cancel dead entangle {_HEADS} fold shift",
        tied=frozenset({"inner.transformer.wte"}),
    ),
    "mixtral": _case(
        MODELS["mixtral"], _tokens, "embedding linear plain", f"{_UNITS} heads experts value query regroup"
    ),
    "mamba": _case(MODELS["mamba"], _tokens, "conv embedding linear plain", f"{_UNITS} fold"),
    "lstm": _case(MODELS["lstm"], _vectors, "recurrent linear", "permute cancel dead regroup"),
    "weight norm": _case(
        MODELS["weight norm"], _vectors, "conv linear", "permute rescale split cancel entangle regroup"
    ),
    "own parameters": _case(MODELS["places"], _vectors, "plain stacked"),
    "deconvolved": _case(MODELS["deconvolved"], _maps, "conv_transposed bilinear"),
    "frozen": _case(Frozen, _vectors, "linear", f"{_UNITS} regroup", fixed=10 * PLACES * WIDTH + 10 + 80),
}  # fmt: skip
"""By name."""
