"""A language model at hand, trained on until its weights are sparse."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, cast, final

import msgspec
import torch
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.canon import Scalar
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.inputs import answered, as_scores, as_tensor
from wheeltap.core.lengths import require_short
from wheeltap.core.task import Task
from wheeltap.plans.artifacts import Artifacts
from wheeltap.recipes.at_hand import AtHand, named
from wheeltap.recipes.base import Given, require_fit, specified
from wheeltap.recipes.fit import Fit
from wheeltap.recipes.make import Made, Watch, make
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.circuits.recipes.sparsity import SparsitySettings, sparse_fit

Net = TypeVar("Net", bound=nn.Module)

_WHERE: Final = "wheeltap.recipes.sparsify"

_ALIKE: Final = 1e-3
"""By how much two passes over the same tokens may differ, beside and relative to the scores."""


class SparsifiedSettings(SparsitySettings, frozen=True, kw_only=True):
    """How the net is trained.

    Attributes:
        held: Share of the sequences that it is not trained on, drawn by the seed: one at least.
    """

    held: Annotated[float, msgspec.Meta(ge=0.0, le=0.9)] = 0.05


@final
class Sparsified(AtHand):
    """The net, trained on the next token of the task's sequences (inputs, and the target as the last token)."""

    name = "sparsified"
    title = "language model at hand, trained on with sparse weights"
    settings_type = SparsifiedSettings
    settings: SparsifiedSettings

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


def sparsify(  # noqa: PLR0913 - a door: each is a choice of its own
    module: Net,
    data: Any,
    *,
    share: float = 0.05,
    embedding_share: float | None = None,
    steps: int = 1800,
    batch: int = 20,
    rate: float = 2e-2,
    settings: Mapping[str, Scalar] | None = None,
    places: int = 48,
    seed: int = 0,
    folder: str | Path | None = None,
    watch: Watch | None = None,
) -> Net:
    """A copy of a causal language model, trained on with fewer and fewer weights that are not 0.

    Equal arguments give equal bits, however often it was broken off.

    Args:
        module: Called with tokens ``[sequence, place]``, gives scores ``[sequence, place, token]`` or an object with
            ``.logits``. It is left as it is; where it is, the copy is trained.
        data: Tokens: integers ``[sequence, place]``, or one row ``[place]`` that is cut into sequences.
        share: Of each matrix, weights that are not 0 in the end; 1 for a dense twin.
        embedding_share: The same of embeddings and of the matrix that gives scores; the root of ``share`` by default.
        steps: Batches in all.
        batch: Sequences per step.
        rate: Largest step size.
        settings: Others of ``SparsifiedSettings``.
        places: Tokens of a sequence where ``data`` is one row.
        seed: Of the order of the sequences, and of which are held out.
        folder: Where its state and the result are kept: an interrupted call is resumed by the same call.
        watch: Called with the steps taken, and those in all.

    Raises:
        DataError: If there are no two sequences of two tokens, or tokens that the model does not know.
        ModelError: If the model does not score each next token, reads later tokens, or training diverged.
        UsageError: If a setting cannot be used.
    """
    how = {
        "share": share, "embedding_share": math.sqrt(share) if embedding_share is None else embedding_share,
        "steps": steps, "batch": batch, "rate": rate, **(settings or {}),
    }  # fmt: skip
    made = sparsified(module, sequences(data, places=places), how, seed=seed, folder=folder, watch=watch)
    return cast("Net", made.done(_WHERE))


def sparsified(
    module: nn.Module,
    tokens: Tensor,
    settings: Mapping[str, Scalar],
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    watch: Watch | None = None,
) -> Made:
    """As ``sparsify``, with what was recorded: ``validation`` and ``nonzero`` (see ``Recorded``).

    Args:
        module: A causal language model.
        tokens: ``[sequence, place]``.
        settings: Of ``SparsifiedSettings``.
        seed: Of the order of the sequences, and of which are held out.
        folder: Where its state and the result are kept. Nothing is where not all of the model could be read: another
            one could have the same key.
        watch: Called with the steps taken, and those in all.
    """
    recipe, task = Sparsified(dict(settings)), Task(tokens[:, :-1], tokens[:, -1], name="sequences")
    of, known = named(module)
    spec = specified(Sparsified, settings, seed=seed, of=(of,), data=task.digest)
    given = Given(spec, (module,), task, next(module.parameters()).device)
    return make(given, recipe, Artifacts(Path(folder)) if folder and known else None, watch=watch)


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
