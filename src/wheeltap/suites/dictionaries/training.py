"""How dictionaries are trained: what they go down, rows of norm 1, a steered penalty, dead features revived.

Vectors are centered and scaled to a mean square of 1 while a dictionary is trained; both are then written into its
biases, so that it reads the net's own vectors.
"""

from typing import Annotated, Any, Final, Literal, final

import msgspec
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core.errors import UsageError
from wheeltap.core.settings import Settings
from wheeltap.recipes.fit import Fit, Hook
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.dictionaries.activations import Positions, center
from wheeltap.suites.dictionaries.dictionary import Dictionary
from wheeltap.suites.dictionaries.specs import SUPERVISED, Kind

Trained = Literal["topk", "relu"]
"""TopK (arXiv:2406.04093), and a ReLU with an L1 penalty (``relu``). Others are read and evaluated, not trained."""

CONE: Final = 0.8  # Least cosine between a row of a soft-frozen decoder and where it began. Source: arXiv:2602.14111.
WINDOW, REVIVED_UNTIL = 0.05, 0.75
"""Shares of the steps: a feature that was active in none of so many batches is dead, and so often dead ones are
revived; and after so many no more."""

_PENALTY, _STEER = 0.03, 0.02
"""The L1 penalty at the start, and the logarithm by which it grows in a step in which twice as many features are active
as wanted."""

_JUDGED: Final = 8192  # vectors, at most, that thresholds are set on and random dictionaries are fitted to
_TINY: Final = 1e-12

_Count = Annotated[int, msgspec.Meta(ge=1, le=2**24)]


class DictionaryTrainingSettings(Settings, frozen=True, kw_only=True):
    """Which dictionary, and how it is trained.

    Attributes:
        site: Module path whose output is meant; only a name, where vectors are given themselves.
        architecture: See ``Trained``.
        features: How many there are.
        k: How many are active in a vector, on average: penalties are steered to it.
        positions: See ``Positions``.
        steps: Batches in all.
        batch: Vectors per step.
        rate: First step size, of Adam, in units of a number of a row of norm 1: it is divided by the root of the width.
            It falls linearly.
    """

    site: str = ""
    architecture: Trained = "topk"
    features: _Count = 512
    k: _Count = 8
    positions: Positions = "last"
    steps: _Count = 2000
    batch: _Count = 256
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.04

    def __post_init__(self) -> None:
        if self.k > self.features:
            raise UsageError("More features are to be active than there are.", where="setting k",
                             expected=f"at most {self.features:,}", got=f"{self.k:,}")  # fmt: skip


class DictionaryRecipeSettings(DictionaryTrainingSettings, frozen=True, kw_only=True):
    """Which dictionary, of which kind, and how it is trained.

    Attributes:
        kind: ``own`` and ``reseed`` are trained; ``frozen decoder``, ``frozen encoder`` and ``soft-frozen decoder``
            leave that at random, or near it; ``untrained net`` learns from the net with the weights of each tensor in
            another order, around the mean and in the scale of the net's own vectors. ``COMPUTED`` ones take no steps;
            ``random`` stands beside the dictionary that it is made of.
    """

    kind: Kind = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind in SUPERVISED and self.positions == "all":
            raise UsageError("Labels are of examples, not of positions.", where=f"kind {self.kind!r}",
                             expected="positions 'last'", got="'all'")  # fmt: skip


@final
class DictionaryHook(Hook):
    """What a dictionary goes down, and what is done to it at each step.

    Rows of the decoder keep norm 1: what would change the norm alone is taken out of the gradient. Those of a
    soft-frozen one are turned back to the cone around where they began.

    A feature is dead once it was active in none of the batches of ``WINDOW``. So often, and at most as many as a batch
    has vectors, dead features are pointed at what is left of a vector of the batch, drawn with a chance that rises with
    its squared length, each at another one; the encoder gets the mean norm of the others. Where the decoder is held,
    they encode what they decode; where the encoder is, none is revived.

    Args:
        one: The dictionary; it begins as random rows that encode what they decode.
        learned: Vectors ``[row, width]`` that are learned from.
        own: Those of the net itself, whose mean and scale are written into the biases at the end.
        how: How to train, and what is held.
        seed: Of the rows.

    Source: of revival, after Bricken et al. 2023 (Towards Monosemanticity, neuron resampling).
    """

    def __init__(
        self, one: Dictionary, learned: Tensor, own: Tensor, how: DictionaryRecipeSettings, *, seed: int
    ) -> None:
        self.one, self.how, self.learned, self.own = one, how, learned, own
        self.device = one.b_dec.device
        self.mean, self.scale = center(learned, where=how.site)
        self.quiet = torch.zeros(how.features, dtype=torch.int32, device=self.device)
        self.penalty, self.active = (torch.tensor(start, device=self.device) for start in (_PENALTY, 0.0))
        self.revived, self.latest = torch.zeros(1, dtype=torch.int32), torch.zeros(0)
        self.every = max(round(WINDOW * how.steps), 1)
        frozen = {"frozen decoder": "W_dec", "frozen encoder": "W_enc"}.get(how.kind)
        with reproducible(seed), torch.no_grad():
            one.W_dec.copy_(unit(torch.randn(one.W_dec.shape)))
            one.W_enc.copy_(one.W_dec.T)
            if how.architecture == "relu":  # k features are active at the start
                one.b_enc.fill_(-self.least())
        for name, parameter in one.named_parameters():
            parameter.requires_grad_(name != frozen)
        self.began = one.W_dec.detach().clone()

    def vectors(self, rows: Tensor) -> Tensor:
        """Centered and scaled vectors, where the dictionary is."""
        return ((self.learned[rows] - self.mean) * self.scale).to(self.device)

    def least(self) -> float:
        """What k preactivations of a vector are larger than, on average; at least 0."""
        rows = spread(len(self.learned), max(min(_JUDGED, 2**24 // self.how.features), 1))
        before = self.one.preactivations(self.vectors(rows)).flatten()
        ranked = before.kthvalue(max(len(before) - self.how.k * len(rows), 1)).values
        return max(float(ranked), 0.0)

    def loss(self, rows: Tensor, step: int) -> Tensor:
        """Unexplained share of the variance and penalty; see ``Fit``."""
        self.latest = vectors = self.vectors(rows)
        one, penalty = self.one, vectors.new_zeros(())
        if self.how.architecture == "topk":
            decoded, values, index = one.reconstructed(vectors)
            fired = torch.zeros_like(self.quiet, dtype=torch.bool)
            fired[index[values > 0]] = True
        else:
            values = one.encode(vectors)
            penalty = self.penalty * values.sum() / vectors.numel()
            decoded, fired = one.decode(values), (values != 0).any(0)
        self.active = (values != 0).sum() / len(vectors)
        self.quiet.add_(1).masked_fill_(fired, 0)
        return (decoded - vectors).square().mean() + penalty

    def after_gradient(self, fit: Fit) -> None:
        """See ``Hook.after_gradient``."""
        rows, slopes = self.one.W_dec.detach(), self.one.W_dec.grad
        if slopes is not None:
            slopes.sub_(rows * (slopes * rows).sum(1, keepdim=True))

    @torch.no_grad()
    def after_step(self, fit: Fit) -> None:
        """See ``Hook.after_step``."""
        rows = self.one.W_dec
        self.penalty.mul_((_STEER * (self.active / self.how.k - 1.0).clamp(-1.0, 1.0)).exp())
        if rows.requires_grad:
            rows.copy_(unit(rows))
        if self.how.kind == "soft-frozen decoder":
            along = (rows * self.began).sum(1, keepdim=True)
            edge = CONE * self.began + (1.0 - CONE**2) ** 0.5 * unit(rows - along * self.began)
            rows.copy_(torch.where(along < CONE, edge, rows))
        # Dead features are revived.
        if fit.step % self.every or fit.step > REVIVED_UNTIL * fit.steps or self.how.kind == "frozen encoder":
            return
        one, dead, live = self.one, (self.quiet >= self.every).nonzero()[:, 0], self.quiet < self.every
        if not len(dead) or not bool(live.any()):
            return
        if self.how.kind not in ("frozen decoder", "soft-frozen decoder"):
            left, dead = self.latest - one(self.latest), dead[: len(self.latest)]
            chances = left.square().sum(1).double().cpu() + _TINY
            one.W_dec[dead] = unit(left[torch.multinomial(chances, len(dead)).to(left.device)])
        one.W_enc[:, dead] = one.W_enc.square().sum(0).sqrt()[live].mean() * one.W_dec[dead].T
        one.b_enc[dead] = one.b_enc[live].mean()
        self.quiet[dead] = 0
        self.revived += len(dead)

    @torch.no_grad()
    def finish(self, fit: Fit) -> None:
        """See ``Hook.finish``."""
        mean, scale = center(self.own, where=self.how.site)
        self.one.b_enc.div_(scale)
        self.one.b_dec.div_(scale).add_(mean.to(self.device))

    def tensors(self) -> dict[str, Tensor]:
        """See ``Hook.tensors``."""
        return {"quiet": self.quiet, "penalty": self.penalty, "revived": self.revived}

    def report(self) -> dict[str, NDArray[Any]]:
        """``revived`` features, and those that are ``dead`` at the end."""
        dead = (self.quiet >= self.every).sum(dtype=torch.int32)[None]
        return {"revived": self.revived.numpy().copy(), "dead": dead.cpu().numpy()}


def unit(rows: Tensor) -> Tensor:
    """Rows scaled to norm 1."""
    return rows / rows.square().sum(1, keepdim=True).sqrt().clamp_min(_TINY)


def spread(rows: int, most: int = _JUDGED) -> Tensor:
    """At most so many rows, evenly spaced."""
    return torch.linspace(0, rows - 1, min(rows, most)).round().long()
