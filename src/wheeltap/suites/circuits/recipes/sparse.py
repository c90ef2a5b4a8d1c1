"""Transformers with sparse weights and their dense twins: trained on a generated corpus."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.canon import Scalar
from wheeltap.core.settings import Settings
from wheeltap.core.typed import named_modules
from wheeltap.recipes.base import Given, Recipe, require_fit
from wheeltap.recipes.fit import Fit, Hook, TrainSettings
from wheeltap.recipes.hooks import Decay, MatrixMask, TopK, UnitGradient, annealed
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.circuits.nets.python import TOKENS, PythonTokenizer, corpus
from wheeltap.suites.circuits.nets.sparse_transformer import Shape, SparseTransformer

_BETAS: Final = (0.9, 0.95)

EMBEDDING_SHARE: Final = 0.22
"""Weights that are not 0, of embeddings and of the matrix that gives scores of tokens; a dense net keeps all."""

UNTIL, WARM_UP = 0.5, 0.01
"""Shares of the steps after which the weights are as sparse as in the end, and the rate is largest."""

DECAY: Final = 0.1
"""Share of every weight of a matrix lost in a step, over the rate."""

SOFTNESS: Final = 0.1
"""Added by Adam to the sizes of gradients, whose mean square is 1: those far smaller move little."""

_AT_ONCE: Final = 64
"""Held-out sequences read in one pass."""

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Share = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
_Width = Annotated[int, msgspec.Meta(ge=1, le=8192)]


class SparseSettings(Settings, frozen=True, kw_only=True):
    """Which net, how many of its weights are not 0, and how it is trained.

    Attributes:
        share: Of each matrix, weights that are not 0 in the end; 1 for a dense net.
        steps: Batches in all.
        batch: Sequences per step.
        rate: Largest step size, of Adam; it rises over ``WARM_UP`` of the steps, and falls linearly to 0.
        layers: Blocks.
        width: Features of the stream.
        head: Features of a head.
    """

    share: Share = 0.05
    steps: Count = 1800
    batch: Count = 20
    rate: Share = 2e-2
    layers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    width: _Width = 128
    head: _Width = 16

    @property
    def shape(self) -> Shape:
        """Of the net."""
        return Shape(len(TOKENS), layers=self.layers, width=self.width, head=self.head)

    def __post_init__(self) -> None:
        _ = self.shape


class _Sharkfin(TrainSettings, frozen=True, kw_only=True):
    """Adam, with rates that rise as the share of the weights that are not 0 falls to ``share``."""

    share: float

    def optimizer_of(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """See ``TrainSettings.optimizer_of``."""
        return torch.optim.Adam(parameters, lr=self.rate, betas=_BETAS, eps=SOFTNESS)

    def schedule_of(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """See ``TrainSettings.schedule_of``."""
        warm = max(WARM_UP * steps, 1.0)

        def factor(step: int) -> float:
            fin = (self.share / annealed(self.share, step, steps=steps, until=UNTIL)) ** 0.5
            return fin * min((step + 1) / warm, 1.0) * (1.0 - step / steps)

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@final
@dataclass(eq=False)
class HeldOutLoss(Hook):
    """Records the loss on held-out sequences in the end, and how many weights of some matrices are not 0.

    Attributes:
        model: Gives scores of the next token at each place.
        held: Its tokens, ``[sequence, place]``.
        matrices: Those whose weights are counted.
    """

    model: nn.Module
    held: Tensor
    matrices: Sequence[Tensor]
    _found: Tensor = field(default_factory=lambda: torch.zeros(1), init=False)

    def finish(self, fit: Fit) -> None:
        """See ``Hook.finish``."""
        self.model.eval()
        with torch.no_grad():
            parts = [self.held[at : at + _AT_ONCE] for at in range(0, len(self.held), _AT_ONCE)]
            loss = torch.stack([next_token_loss(self.model, part) * len(part) for part in parts]).sum() / len(self.held)
        if bool(loss.isfinite()):
            self._found[0] = loss
        self.model.train()

    def tensors(self) -> dict[str, Tensor]:
        """See ``Hook.tensors``."""
        return {"held-out loss": self._found}

    def report(self) -> dict[str, NDArray[Any]]:
        """``validation``, the loss on held-out sequences (0 until the end); ``nonzero``, how many weights are not 0."""
        count = sum(int(torch.count_nonzero(matrix)) for matrix in self.matrices)
        return {"validation": self._found.numpy().copy(), "nonzero": np.array([count], dtype=np.int32)}


def next_token_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean cross-entropy of each token of ``[sequence, place]`` after those before it, nats, with a gradient."""
    scores: Tensor = model(tokens[:, :-1])
    return functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten().to(scores.device))


def embeddings_of(model: SparseTransformer) -> tuple[Tensor, ...]:
    """Tables of tokens and places, and the matrix that gives the scores of tokens."""
    return model.embed.weight, model.position.weight, model.unembed.weight


def cuts_of(model: SparseTransformer, share: float) -> dict[Tensor, MatrixMask]:
    """Return the mask of each matrix that is cut: all but biases, other vectors, and the table of scores by token."""
    embeddings = set(map(id, embeddings_of(model)))
    cuts: dict[Tensor, MatrixMask] = {}
    for _, module in named_modules(model):
        for weight in module.parameters(recurse=False) if module is not model.bigram else ():
            if weight.ndim < 2:
                continue
            cuts[weight] = MatrixMask(EMBEDDING_SHARE if id(weight) in embeddings else share)
    return cuts


def sparse_fit(model: SparseTransformer, tokens: Tensor, how: SparseSettings, *, held: Tensor, seed: int) -> Fit:
    """A model in training, on the next token of sequences.

    Args:
        model: Gives scores of the next token at each place.
        tokens: ``[sequence, place]``.
        how: How it is trained.
        held: Sequences that it is not trained on.
        seed: Of the order of the sequences.
    """
    cuts, embeddings = cuts_of(model, how.share), set(map(id, embeddings_of(model)))
    matrices = [matrix for matrix in cuts if id(matrix) not in embeddings]
    hooks: list[Hook] = [HeldOutLoss(model, held, matrices), UnitGradient(), Decay(DECAY, list(cuts))]
    if how.share < 1.0:
        hooks.append(TopK(how.share, UNTIL, cuts))
    settings = _Sharkfin(seed=seed, steps=how.steps, batch=how.batch, rate=how.rate, share=how.share)

    def loss(rows: Tensor, step: int) -> Tensor:
        return next_token_loss(model, tokens[rows])

    return Fit(model, loss, examples=len(tokens), settings=settings, hooks=hooks)


HELD: Final = 128
"""Sequences on which every net is measured in the end: none is trained on them."""

_MOST: Final = 65_536
"""Sequences of a lesson; where there are more steps, they come again."""


FORMER: Final[dict[str, Scalar]] = {
    "embedding_share": EMBEDDING_SHARE, "alive": 0, "until": UNTIL, "warm_up": WARM_UP, "decay": DECAY,
    "softness": SOFTNESS, "sink": True, "bigram": True, "active": 1.0,
}  # fmt: skip
"""Settings that files of earlier nets hold, with the values that are constants now: others are refused."""


@final
class Sparse(Recipe):
    """A transformer trained on the next token of a Python-like corpus, with sparse weights or (``share`` 1) dense."""

    name = "sparse"
    title = "transformer with sparse weights, trained on a Python-like corpus"
    settings_type = SparseSettings
    settings: SparseSettings

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        given = settings or {}
        super().__init__({name: value for name, value in given.items() if FORMER.get(name) != value})

    @property
    def tokenizer(self) -> PythonTokenizer:
        """See ``Recipe.tokenizer``."""
        return PythonTokenizer()

    def blank(self, given: Given) -> SparseTransformer:
        """See ``Recipe.blank``."""
        with reproducible(seeds.derive(given.spec.seed, self.name, "init")):
            return SparseTransformer(self.settings.shape).eval()

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        require_fit(given, self)
        how, seed = self.settings, given.spec.seed
        lesson = corpus(seed=seeds.derive(seed, self.name, "lesson"), sequences=min(how.steps * how.batch, _MOST))
        held = corpus(seed=seeds.derive(0, self.name, "held out"), sequences=HELD)
        model, order = self.blank(given).to(given.device), seeds.derive(seed, self.name, "order")
        return sparse_fit(model, lesson.to(given.device), how, held=held.to(given.device), seed=order)
