"""Transformers with sparse weights and their dense twins: trained on a generated corpus, or from a model at hand."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, cast, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.canon import Scalar
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.inputs import answered, as_scores, as_tensor, require_short
from wheeltap.core.settings import Settings
from wheeltap.core.task import Task
from wheeltap.core.typed import named_modules
from wheeltap.plans.artifacts import Artifacts
from wheeltap.recipes.base import Given, Recipe, require_fit, specified
from wheeltap.recipes.fit import Fit, Hook, TrainSettings
from wheeltap.recipes.hooks import Decay, MatrixMask, TopK, UnitGradient, annealed
from wheeltap.recipes.make import Artifact, Watch, make
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import named
from wheeltap.suites.circuits.nets.python import TOKENS, PythonTokenizer, corpus
from wheeltap.suites.circuits.nets.sparse_transformer import Shape, SparseTransformer

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
class HeldOutLoss(Hook):
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


def cuts_of(model: nn.Module, how: SparsitySettings, *, vocabulary: int) -> dict[Tensor, MatrixMask]:
    """How each matrix of a model is cut. Biases and other vectors are not, nor a table of scores by token (bigrams).

    Args:
        model: Any language model.
        how: Shares.
        vocabulary: Tokens that it scores.
    """
    embeddings = {id(weight) for weight in embeddings_of(model, vocabulary=vocabulary)}
    cuts: dict[Tensor, MatrixMask] = {}
    for name, module in named_modules(model):
        bigrams = isinstance(module, nn.Embedding) and module.embedding_dim == vocabulary
        for weight in module.parameters(recurse=False):
            if weight.ndim < 2 or not weight.requires_grad or bigrams:
                continue
            columns = weight.shape[0] < weight.shape[1] or name.rpartition(".")[2] in _WRITERS
            inner = MatrixMask(how.share, how.alive, neurons=int(columns))
            cuts[weight] = MatrixMask(how.embedding_share) if id(weight) in embeddings else inner
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
    hooks: list[Hook] = [HeldOutLoss(model, held, matrices), UnitGradient(), Decay(how.decay, list(cuts))]
    if how.share < 1.0:
        hooks.append(TopK(how.share, how.until, cuts))
    settings = _Sharkfin(
        seed=seed, steps=how.steps, batch=how.batch, rate=how.rate, share=how.share, until=how.until,
        warm_up=how.warm_up, softness=how.softness,
    )  # fmt: skip

    def loss(rows: Tensor, step: int) -> Tensor:
        return next_token_loss(model, tokens[rows])

    return Fit(model, loss, examples=len(tokens), settings=settings, hooks=hooks)


HELD: Final = 128
"""Sequences on which every net is measured in the end: none is trained on them."""

DENSE: Final[Mapping[str, Scalar]] = {"share": 1.0, "steps": 1250, "rate": 5e-3}
"""What a dense twin is trained with instead: to a loss within 1 % of the sparse net's (measured: 1.695 and 1.684)."""

_MOST: Final = 65_536
"""Sequences of a lesson; where there are more steps, they come again."""

_Layers = Annotated[int, msgspec.Meta(ge=1, le=64)]
_Width = Annotated[int, msgspec.Meta(ge=1, le=8192)]


class SparseSettings(SparsitySettings, frozen=True, kw_only=True):
    """Which net, and how it is trained.

    Attributes:
        layers: Blocks.
        width: Features of the stream.
        head: Features of a head.
        sink: Whether heads may attend to nothing.
        bigram: Whether there is a table of scores by token.
        active: Share of features that are not 0 at each place (AbsTopK).
    """

    layers: _Layers = 2
    width: _Width = 128
    head: _Width = 16
    sink: bool = True
    bigram: bool = True
    active: Share = 1.0

    @property
    def shape(self) -> Shape:
        """Of the net."""
        return Shape(
            len(TOKENS), layers=self.layers, width=self.width, head=self.head, sink=self.sink, bigram=self.bigram,
            active=self.active,
        )  # fmt: skip

    def __post_init__(self) -> None:
        _ = self.shape


@final
class Sparse(Recipe):
    """A transformer trained on the next token of a Python-like corpus, with sparse weights or (``share`` 1) dense."""

    name = "sparse"
    title = "transformer with sparse weights, trained on a Python-like corpus"
    settings_type = SparseSettings
    settings: SparseSettings

    @property
    def tokenizer(self) -> PythonTokenizer:
        """See ``Recipe.tokenizer``."""
        return PythonTokenizer()

    def blank(self, given: Given) -> nn.Module:
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


Net = TypeVar("Net", bound=nn.Module)

_WHERE: Final = "wheeltap.circuits.sparsify"

_ALIKE: Final = 1e-3
"""By how much two passes over the same tokens may differ, beside and relative to the scores."""


class SparsifiedSettings(SparsitySettings, frozen=True, kw_only=True):
    """How the net is trained.

    Attributes:
        held: Share of the sequences that it is not trained on, drawn by the seed: one at least.
    """

    held: Annotated[float, msgspec.Meta(ge=0.0, le=0.9)] = 0.05


@final
class SparsifiedModel(Recipe):
    """The net, trained on the next token of the task's sequences (inputs, and the target as the last token)."""

    name = "sparsified"
    title = "language model at hand, trained on with sparse weights"
    settings_type = SparsifiedSettings
    settings: SparsifiedSettings

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``: a copy of the net."""
        return copy.deepcopy(given.of[0]).eval()

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        require_fit(given, self)
        model, task, how, seed = self.blank(given).to(given.device), given.examples, self.settings, given.spec.seed
        assert isinstance(task, Task) and isinstance(task.inputs, Tensor)
        tokens = torch.cat([task.inputs, task.targets[:, None]], 1)
        with reproducible(seeds.derive(seed, self.name, "probe")):
            _require_causal(model, tokens)
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seeds.derive(seed, self.name)))
        held = max(round(how.held * len(tokens)), 1)
        lesson, rest = (tokens[rows].to(given.device) for rows in (order[held:], order[:held]))
        return sparse_fit(model, lesson, how, held=rest, seed=seeds.derive(seed, self.name, "order"))


def sparsify(
    module: Net,
    data: Any,
    *,
    places: int = 48,
    seed: int = 0,
    folder: str | Path | None = None,
    watch: Watch | None = None,
    **settings: Scalar,
) -> Net:
    """A copy of a causal language model, trained on with fewer and fewer weights that are not 0.

    Equal arguments give equal bits, however often it was broken off.

    Args:
        module: Called with tokens ``[sequence, place]``, gives scores ``[sequence, place, token]`` or an object with
            ``.logits``. It is left as it is; where it is, the copy is trained.
        data: Tokens: integers ``[sequence, place]``, or one row ``[place]`` that is cut into sequences.
        places: Tokens of a sequence where ``data`` is one row.
        seed: Of the order of the sequences, and of which are held out.
        folder: Where its state and the result are kept: an interrupted call is resumed by the same call. Nothing is
            where not all of the model could be read: another one could have the same key.
        watch: Called with the steps taken, and those in all.
        settings: ``share``, ``steps``, ``batch``, ``rate`` and all others of ``SparsifiedSettings``;
            ``embedding_share`` is the root of ``share`` where it is not said.

    Raises:
        DataError: If there are no two sequences of two tokens, or tokens that the model does not know.
        ModelError: If the model does not score each next token, reads later tokens, or training diverged.
        UsageError: If a setting cannot be used.
    """
    made = sparsified(module, sequences(data, places=places), settings, seed=seed, folder=folder, watch=watch)
    return cast("Net", made.done(_WHERE))


def sparsified(
    module: nn.Module, tokens: Tensor, settings: Mapping[str, Scalar], *, seed: int = 0,
    folder: str | Path | None = None, watch: Watch | None = None,
) -> Artifact:  # fmt: skip
    """As ``sparsify``, with what was recorded: ``validation`` and ``nonzero`` (see ``HeldOutLoss``)."""
    settings = {"embedding_share": float(settings.get("share", SparsifiedSettings().share)) ** 0.5, **settings}
    recipe, task = SparsifiedModel(settings), Task(tokens[:, :-1], tokens[:, -1], name="sequences")
    of = named(module, tokens[:, :-1])
    spec = specified(SparsifiedModel, settings, seed=seed, of=(of,), data=task.digest)
    given = Given(spec, (module,), task, next(module.parameters()).device)
    return make(given, recipe, Artifacts(Path(folder)) if folder else None, watch=watch)


def sequences(data: Any, *, places: int) -> Tensor:
    """Tokens ``[sequence, place]`` of what a user gives.

    Args:
        data: Integers ``[sequence, place]``, or ``[place]``: then cut into rows; what is left over is left out.
        places: Tokens of a row.

    Raises:
        DataError: If it is none of these, or there are no two sequences of two tokens.
    """
    tokens = as_tensor(data, what="tokens", where=_WHERE)
    if tokens.ndim == 1 and places > 0:
        tokens = tokens[: len(tokens) // places * places].view(-1, places)
    whole = not (tokens.is_floating_point() or tokens.is_complex() or tokens.dtype is torch.bool)
    if tokens.ndim != 2 or not whole or min(tokens.shape) < 2:
        raise DataError(
            "There are no sequences of tokens to train on.",
            where=_WHERE,
            expected="whole numbers [sequence, place], two sequences of two tokens at least; or one long row",
            got=f"{tokens.dtype}, shape {list(tokens.shape)}",
        )
    return tokens.long().cpu()


def _require_causal(model: nn.Module, tokens: Tensor) -> None:
    """Raises ``DataError`` or ``ModelError`` unless a model scores each next token from those before it alone."""
    require_short(model, [tokens.shape[1] - 1], where=_WHERE)
    with torch.no_grad():
        probe = torch.zeros_like(tokens[:1, :-1])
        scores = as_scores(answered(model, probe))
        if scores.ndim != 3 or scores.shape[:2] != probe.shape:
            raise ModelError(
                "The model does not score the next token at each place.",
                where=_WHERE,
                expected=f"scores [sequence, place, token], [{probe.shape[0]}, {probe.shape[1]}, ...]",
                got=str(list(scores.shape)),
            )
        if not 0 <= int(tokens.min()) <= int(tokens.max()) < scores.shape[2]:
            raise DataError(
                "There are tokens that the model does not know.",
                where=_WHERE,
                expected=f"numbers from 0 to {scores.shape[2] - 1}",
                got=f"from {int(tokens.min())} to {int(tokens.max())}",
            )
        other = probe.clone()
        other[:, -1] = 1
        again = as_scores(answered(model, other))[:, :-1]
        if not torch.allclose(again, scores[:, :-1], rtol=_ALIKE, atol=_ALIKE, equal_nan=True):
            raise ModelError(
                "The model reads tokens that are still to come, so there is nothing to learn from the next one.",
                where=_WHERE,
                expected="scores at a place that depend on tokens up to it",
                got="others when the last token is another",
                do="Use a causal (decoder) model.",
            )
