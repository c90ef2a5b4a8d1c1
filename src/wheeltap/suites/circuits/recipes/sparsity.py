"""How a language model is trained while its weights become sparse; its dense twin is trained the same way.

Steps go down gradients of unit size, at a rate that grows as weights are cut; after each step only the largest weights
of every matrix stay.

Source: Gao et al. 2025, arXiv:2511.13653, section 2 and appendix A.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core.inputs import answered, as_scores
from wheeltap.core.settings import Settings
from wheeltap.core.typed import named_modules
from wheeltap.recipes.fit import Fit, TrainSettings
from wheeltap.recipes.hooks import Cut, Decay, Hook, TopK, Training, UnitGradient, annealed

_BETAS: Final = (0.9, 0.95)

_WRITERS: Final = ("output", "out_proj", "o_proj")
"""Names of matrices whose neurons have columns though they are square."""

_AT_ONCE: Final = 64
"""Held-out sequences read in one pass."""

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Share = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]


class SparsitySettings(Settings, frozen=True, kw_only=True):
    """How much of the weights is left, and how a net is trained.

    Attributes:
        share: Of each matrix, weights that are not 0 in the end; 1 for a dense net.
        embedding_share: The same of embeddings and of the matrix that gives scores of tokens; a dense net keeps all.
        alive: Largest weights of each neuron, which always stay.
        until: Share of the steps after which the weights are as sparse as in the end.
        steps: Batches in all.
        batch: Sequences per step.
        rate: Largest step size, of Adam; it rises over ``warm_up``, and falls linearly to 0.
        warm_up: Share of the steps.
        decay: Share of every weight of a matrix lost in a step, over the rate.
        softness: Added by Adam to the sizes of gradients, whose mean square is 1: those far smaller move little.
    """

    share: Share = 0.05
    embedding_share: Share = 0.22
    alive: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    until: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.5
    steps: Count = 1800
    batch: Count = 20
    rate: Share = 2e-2
    warm_up: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.01
    decay: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] = 0.1
    softness: Share = 0.1


class _Sharkfin(TrainSettings, frozen=True, kw_only=True):
    """As ``SparsitySettings``: Adam, with rates that go with the share that is left."""

    share: float
    until: float
    warm_up: float
    softness: float

    def optimizer_of(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """See ``TrainSettings.optimizer_of``."""
        return torch.optim.Adam(parameters, lr=self.rate, betas=_BETAS, eps=self.softness)

    def schedule_of(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
        """See ``TrainSettings.schedule_of``."""
        warm = max(self.warm_up * steps, 1.0)

        def factor(step: int) -> float:
            fin = (self.share / annealed(self.share, step, steps=steps, until=self.until)) ** 0.5
            return fin * min((step + 1) / warm, 1.0) * (1.0 - step / steps)

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@final
@dataclass(eq=False)
class Recorded(Hook):
    """Records the loss on held-out sequences in the end, and how many weights of some matrices are not 0.

    Attributes:
        model: Any language model.
        held: Its tokens, ``[sequence, place]``.
        matrices: Those whose weights are counted.
    """

    model: nn.Module
    held: Tensor
    matrices: Sequence[Tensor]
    _found: Tensor = field(default_factory=lambda: torch.zeros(1), init=False)

    def finish(self, fit: Training) -> None:
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
    """Mean cross-entropy of each token after those before it, in nats, with a gradient.

    Args:
        model: Gives scores of the next token at each place.
        tokens: ``[sequence, place]``.
    """
    scores = as_scores(answered(model, tokens[:, :-1]))
    return functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten().to(scores.device))


def embeddings_of(model: nn.Module, *, vocabulary: int) -> list[Tensor]:
    """Tables of tokens and places, and the matrix that gives the scores of tokens: the last one of so many rows.

    Args:
        model: Any language model.
        vocabulary: Tokens that it scores.
    """
    modules = [module for _, module in named_modules(model)]
    tables = [module.weight for module in modules if isinstance(module, nn.Embedding)]
    scoring = [one.weight for one in modules if isinstance(one, nn.Linear) and one.out_features == vocabulary]
    return [*tables, *scoring[-1:]]


def cuts_of(model: nn.Module, how: SparsitySettings, *, vocabulary: int) -> dict[Tensor, Cut]:
    """How each matrix of a model is cut. Biases and other vectors are not, nor a table of scores by token (bigrams).

    Args:
        model: Any language model.
        how: Shares.
        vocabulary: Tokens that it scores.
    """
    embeddings = {id(weight) for weight in embeddings_of(model, vocabulary=vocabulary)}
    cuts: dict[Tensor, Cut] = {}
    for name, module in named_modules(model):
        bigrams = isinstance(module, nn.Embedding) and module.embedding_dim == vocabulary
        for weight in module.parameters(recurse=False):
            if weight.ndim < 2 or not weight.requires_grad or bigrams:
                continue
            columns = weight.shape[0] < weight.shape[1] or name.rpartition(".")[2] in _WRITERS
            inner = Cut(how.share, how.alive, neurons=int(columns))
            cuts[weight] = Cut(how.embedding_share) if id(weight) in embeddings else inner
    return cuts


def sparse_fit(model: nn.Module, tokens: Tensor, how: SparsitySettings, *, held: Tensor, seed: int) -> Fit:
    """A model in training, on the next token of sequences.

    Args:
        model: Gives scores of the next token at each place.
        tokens: ``[sequence, place]``.
        how: How it is trained.
        held: Sequences that it is not trained on.
        seed: Of the order of the sequences.
    """
    with torch.no_grad():
        vocabulary = as_scores(answered(model, held[:1, :-1])).shape[-1]
    cuts = cuts_of(model, how, vocabulary=vocabulary)
    embeddings = {id(weight) for weight in embeddings_of(model, vocabulary=vocabulary)}
    matrices = [matrix for matrix in cuts if id(matrix) not in embeddings]
    hooks: list[Hook] = [Recorded(model, held, matrices), UnitGradient(), Decay(how.decay, list(cuts))]
    if how.share < 1.0:
        hooks.append(TopK(how.share, how.until, cuts))
    settings = _Sharkfin(
        seed=seed, steps=how.steps, batch=how.batch, rate=how.rate, share=how.share, until=how.until,
        warm_up=how.warm_up, softness=how.softness,
    )  # fmt: skip

    def loss(rows: Tensor, step: int) -> Tensor:
        return next_token_loss(model, tokens[rows])

    return Fit(model, loss, examples=len(tokens), settings=settings, hooks=hooks)
