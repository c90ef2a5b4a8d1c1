"""How dictionaries are trained: settings, what they go down, unit rows, a steered penalty, dead features revived.

Vectors are centered and scaled to a mean square of 1 while a dictionary is trained; both are then written into its
biases and thresholds, so that it reads the net's own vectors. Rows of the decoder have norm 1 throughout.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, cast, final

import msgspec
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.errors import UsageError
from wheeltap.core.settings import Settings
from wheeltap.recipes.fit import Fit, Hook
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.dictionaries.activations import Activations, Positions
from wheeltap.suites.dictionaries.dictionary import Dictionary, Entry
from wheeltap.suites.dictionaries.specs import Kind

Trained = Literal["topk", "batchtopk", "jumprelu", "gated", "relu"]
"""TopK (arXiv:2406.04093), BatchTopK (arXiv:2412.06410), JumpReLU with a penalty on the distance of L0 from k
(arXiv:2407.14435), gated (arXiv:2404.16014), and an L1 penalty (``relu``)."""

COMPUTED: Final[tuple[Kind, ...]] = ("random", "identity", "pca", "mean codes", "least squares")
"""Kinds that take no steps."""

CONE: Final = 0.8
"""Least cosine between a row of a soft-frozen decoder and where it began. Source: arXiv:2602.14111."""

WINDOW: Final = 0.05
"""Share of the steps: a feature that was active in none of so many batches is dead, and so often dead ones are revived.
"""

REVIVED_UNTIL: Final = 0.75
"""Share of the steps after which no feature is revived: those left are as they are."""

_BANDWIDTH: Final = 0.5
"""Of the slope of a step of JumpReLU, where vectors have a mean square of 1."""

_PRESSURE: Final = 0.1
"""Of the squared relative distance of L0 from k, of JumpReLU, beside the unexplained share of the variance."""

_PENALTY: Final = 0.03
_STEER: Final = 0.02
"""The L1 penalty at the start, and by how much it grows in a step in which twice as many features are active as wanted.
"""

JUDGED: Final = 8192
"""Vectors that thresholds are set and features are counted on at the end."""

ROWS: Final = 1024
_TINY: Final = 1e-12

_Count = Annotated[int, msgspec.Meta(ge=1, le=2**24)]


class DictionaryTraining(Settings, frozen=True, kw_only=True):
    """Which dictionary, and how it is trained.

    Attributes:
        site: Module paths, separated by commas: one dictionary each. Only a name, where vectors are given themselves.
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


class DictionaryRecipeSettings(DictionaryTraining, frozen=True, kw_only=True):
    """Which dictionary, of which kind, and how it is trained.

    Attributes:
        kind: ``own`` and ``reseed`` are trained; ``frozen decoder``, ``frozen encoder`` and ``soft-frozen decoder``
            leave that at random, or within ``CONE`` of it; ``untrained net`` learns from the net with the weights of
            each tensor in another order. ``COMPUTED`` ones take no steps; ``random`` stands beside the entry that it is
            made of.
    """

    kind: Kind = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind in ("mean codes", "least squares") and self.positions == "all":
            raise UsageError("Labels are of examples, not of positions.", where=f"kind {self.kind!r}",
                             expected="positions 'last'", got="'all'")  # fmt: skip


@final
class _Jump(torch.autograd.Function):
    """JumpReLU and how many are active; slopes towards thresholds are those of a smoothed step.

    Source: Rajamanoharan et al. 2024, arXiv:2407.14435, equations 11 and 12.
    """

    @staticmethod
    def forward(ctx: Any, before: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """Codes ``[row, feature]`` and the mean number of active features of a row."""
        active = before > threshold
        ctx.save_for_backward(before, threshold, active)
        return before * active, active.sum() / len(before)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor]:
        """Of the preactivations and the thresholds."""
        before, threshold, active = ctx.saved_tensors
        near = ((before - threshold).abs() < _BANDWIDTH / 2) / _BANDWIDTH
        slopes = -(threshold * grads[0] * near).sum(0) - grads[1] * near.sum(0) / len(before)
        return grads[0] * active, slopes


def jump(before: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Codes ``[row, feature]`` and the mean number of active features of a row, with slopes; see ``_Jump``."""
    return cast("tuple[Tensor, Tensor]", _Jump.apply(before, threshold))  # pyright: ignore[reportUnknownMemberType]


@final
@dataclass(eq=False)
class Lesson:
    """What the dictionaries of an entry go down: the unexplained share of the variance, and a penalty.

    Attributes:
        entry: The dictionaries, one for each site.
        learned: Vectors that are learned from.
        own: Those of the net itself.
        how: Settings.
        quiet: Of each site: batches since each feature was active, ``[feature]``.
        penalty: Of L1, ``[site]``.
        active: Mean active features in the last batch, ``[site]``.
        latest: Vectors of the last batch, of each site.
    """

    entry: Entry
    learned: Activations
    own: Activations
    how: DictionaryRecipeSettings
    quiet: list[Tensor] = field(default_factory=list[Tensor], init=False)
    latest: list[Tensor] = field(default_factory=list[Tensor], init=False)

    def __post_init__(self) -> None:
        self.dictionaries = dictionaries(self.entry)
        self.device = self.dictionaries[0].b_dec.device
        self.centers = [self.learned.center(site) for site in self.learned.sites]
        self.quiet = [torch.zeros(self.how.features, dtype=torch.int32, device=self.device) for _ in self.dictionaries]
        self.penalty = torch.full((len(self.dictionaries),), _PENALTY)
        self.active = torch.zeros(len(self.dictionaries))

    def vectors(self, at: int, rows: Tensor) -> Tensor:
        """Centered and scaled vectors of a site, where the dictionary is."""
        mean, scale = self.centers[at]
        return ((self.learned.batch(self.learned.sites[at], rows) - mean) * scale).to(self.device)

    def begin(self, seed: int) -> None:
        """Random rows of norm 1 that encode what they decode, and biases at which k features are active."""
        frozen = {"frozen decoder": "W_dec", "frozen encoder": "W_enc"}.get(self.how.kind)
        with reproducible(seed), torch.no_grad():
            for at, one in enumerate(self.dictionaries):
                rows = torch.randn(one.W_dec.shape)
                rows = (rows / _length(rows)).to(self.device)
                one.W_dec.copy_(rows)
                one.W_enc.copy_(rows.T)
                least = self.least(at)
                for name, value in {"b_enc": -least, "b_gate": -least, "threshold": least}.items():
                    if name in one.settings.shapes and one.settings.k == 0 and (
                        name != "b_enc" or self.how.architecture == "relu"
                    ):  # fmt: skip
                        getattr(one, name).fill_(value)
        for one in self.dictionaries:
            for name, parameter in one.named_parameters():
                learned = name != frozen and (name != "threshold" or self.how.architecture == "jumprelu")
                parameter.requires_grad_(learned)

    def least(self, at: int) -> float:
        """What k preactivations of a vector are larger than, on average."""
        one = self.dictionaries[at]
        rows = spread(self.learned.rows, max(min(JUDGED, 2**24 // self.how.features), 1))
        before = one.preactivations(self.vectors(at, rows)).flatten()
        ranked = before.kthvalue(max(len(before) - self.how.k * len(rows), 1)).values
        return max(float(ranked), 0.0)

    def loss(self, rows: Tensor, step: int) -> Tensor:
        """See ``Fit``: the mean over sites."""
        found = list[Tensor]()
        self.latest = [self.vectors(at, rows) for at in range(len(self.dictionaries))]
        for at, (one, vectors) in enumerate(zip(self.dictionaries, self.latest, strict=True)):
            loss, fired, count = self._objective(one, vectors, float(self.penalty[at]))
            self.quiet[at].add_(1).masked_fill_(fired, 0)
            self.active[at] = count
            found.append(loss)
        return torch.stack(found).mean()

    def _objective(self, one: Dictionary, vectors: Tensor, penalty: float) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, which features were active ``[feature]``, and the mean number of active ones of a vector."""
        beside = vectors.new_zeros(())
        match self.how.architecture:
            case "topk":
                decoded, values, index = one.reconstructed(vectors)
                fired = torch.zeros(self.how.features, dtype=torch.bool, device=self.device)
                fired[index[values > 0]] = True
                loss = (decoded - vectors).square().mean()
                return loss, fired, (values > 0).sum() / len(vectors)
            case "batchtopk":
                codes = one.batch_codes(vectors)
            case "jumprelu":
                codes, count = jump(one.preactivations(vectors), one.threshold)
                beside = _PRESSURE * (count / self.how.k - 1.0).square()
            case "relu":
                codes = one.encode(vectors)
                beside = penalty * codes.sum() / vectors.numel()
            case "gated":
                codes = one.encode(vectors)
                gates = (one.preactivations(vectors) + one.b_gate).relu()
                beside = penalty * gates.sum() / vectors.numel()
                beside = beside + (gates @ one.W_dec.detach() + one.b_dec.detach() - vectors).square().mean()
        active = codes.detach() != 0
        loss = (one.decode(codes) - vectors).square().mean() + beside
        return loss, active.any(0), active.sum() / len(vectors)


def _length(rows: Tensor) -> Tensor:
    return rows.square().sum(1, keepdim=True).sqrt().clamp_min(_TINY)


@final
@dataclass(eq=False)
class UnitRows(Hook):
    """Rows of the decoder keep norm 1; of a soft-frozen one they stay near where they began.

    Attributes:
        lesson: Whose dictionaries.
    """

    lesson: Lesson
    began: list[Tensor] = field(default_factory=list[Tensor], init=False)

    def start(self, fit: Fit) -> None:
        """See ``Hook.start``."""
        if self.lesson.how.kind == "soft-frozen decoder":
            self.began = [one.W_dec.detach().clone() for one in self.lesson.dictionaries]

    def after_gradient(self, fit: Fit) -> None:
        """See ``Hook.after_gradient``: what would change the norm alone is taken out of the gradient."""
        for one in self.lesson.dictionaries:
            if one.W_dec.grad is not None:
                rows = one.W_dec.detach()
                one.W_dec.grad.sub_(rows * (one.W_dec.grad * rows).sum(1, keepdim=True))

    def after_step(self, fit: Fit) -> None:
        """See ``Hook.after_step``."""
        with torch.no_grad():
            for at, one in enumerate(self.lesson.dictionaries):
                if one.W_dec.requires_grad:
                    one.W_dec.div_(_length(one.W_dec))
                    if self.began:
                        one.W_dec.copy_(_within(one.W_dec, self.began[at]))


def _within(rows: Tensor, began: Tensor) -> Tensor:
    """Rows of norm 1, turned back to the cone around where they began."""
    along = (rows * began).sum(1, keepdim=True)
    across = rows - along * began
    edge = CONE * began + (1.0 - CONE**2) ** 0.5 * across / _length(across)
    return torch.where(along < CONE, edge, rows)


@final
@dataclass(eq=False)
class Upkeep(Hook):
    """Steers the penalty to the wanted number of active features, and revives dead features.

    A feature is dead once it was active in none of the batches of ``WINDOW``. So often, and at most as many as a batch
    has vectors, dead features are pointed at what is left of a vector of the batch, drawn with a chance that rises with
    its squared length, each at another one; the encoder gets the mean norm of the others. Where the decoder is held,
    they encode what they decode; where the encoder is, none is revived.

    Source: after Bricken et al. 2023 (Towards Monosemanticity, neuron resampling).

    Attributes:
        lesson: Whose dictionaries.
    """

    lesson: Lesson

    def start(self, fit: Fit) -> None:
        """See ``Hook.start``."""
        count = len(self.lesson.dictionaries)
        self.revived = torch.zeros(count, dtype=torch.int32)
        self.ended = torch.zeros(3, count)
        self.every = max(round(WINDOW * fit.steps), 1)

    def tensors(self) -> dict[str, Tensor]:
        """See ``Hook.tensors``."""
        quiet = {f"quiet.{at}": one for at, one in enumerate(self.lesson.quiet)}
        return {**quiet, "penalty": self.lesson.penalty, "revived": self.revived, "ended": self.ended}

    def after_step(self, fit: Fit) -> None:
        """See ``Hook.after_step``."""
        lesson = self.lesson
        lesson.penalty.mul_((_STEER * (lesson.active / lesson.how.k - 1.0).clamp(-1.0, 1.0)).exp())
        if fit.step % self.every or fit.step > REVIVED_UNTIL * fit.steps or lesson.how.kind == "frozen encoder":
            return
        with torch.no_grad():
            for at, one in enumerate(lesson.dictionaries):
                self.revived[at] += self._revive(one, lesson.latest[at], lesson.quiet[at])

    def _revive(self, one: Dictionary, vectors: Tensor, quiet: Tensor) -> int:
        """How many features were revived."""
        dead, live = (quiet >= self.every).nonzero()[:, 0], quiet < self.every
        if not len(dead) or not bool(live.any()):
            return 0
        held = self.lesson.how.kind in ("frozen decoder", "soft-frozen decoder")
        if not held:
            left = vectors - one(vectors)
            chances = left.square().sum(1).double().cpu() + _TINY
            dead = dead[: len(vectors)]
            rows = left[torch.multinomial(chances, len(dead), replacement=False).to(left.device)]
            one.W_dec[dead] = rows / _length(rows)
        norm = _length(one.W_enc.T)[live].mean()
        one.W_enc[:, dead] = norm * one.W_dec[dead].T
        for name in ("b_enc", "b_gate", "b_mag", "r_mag", "threshold"):
            if name in one.settings.shapes:
                values = cast("Tensor", getattr(one, name))
                values[dead] = values[live].mean()
        quiet[dead] = 0
        return len(dead)

    def finish(self, fit: Fit) -> None:
        """See ``Hook.finish``: thresholds are set, features are counted, and the scale is written into the biases."""
        lesson = self.lesson
        with torch.no_grad():
            for at, one in enumerate(lesson.dictionaries):
                if lesson.how.architecture == "batchtopk":
                    one.threshold.fill_(lesson.least(at))
                self.ended[:, at] = torch.tensor(self._counts(at, one))
                mean, scale = lesson.own.center(lesson.own.sites[at])
                for name in ("b_enc", "b_gate", "b_mag", "threshold", "b_dec"):
                    if name in one.settings.shapes:
                        getattr(one, name).div_(scale)
                one.b_dec.add_(mean.to(one.b_dec.device))

    def _counts(self, at: int, one: Dictionary) -> tuple[float, float, float]:
        """Dead features, active features of a vector, and the share of the variance that is explained."""
        fired = torch.zeros(self.lesson.how.features, dtype=torch.bool, device=self.lesson.device)
        rows, active, left, whole = spread(self.lesson.learned.rows, JUDGED), 0.0, 0.0, 0.0
        for part in cast("Sequence[Tensor]", rows.split(ROWS)):  # pyright: ignore[reportUnknownMemberType]
            vectors = self.lesson.vectors(at, part)
            codes = one.encode(vectors)
            fired |= (codes != 0).any(0)
            active += float((codes != 0).sum()) / len(rows)
            left += float((one.decode(codes) - vectors).square().sum())
            whole += float(vectors.square().sum())
        return float((~fired).sum()), active, 1.0 - left / whole

    def report(self) -> dict[str, NDArray[Any]]:
        """Of each site, on vectors trained on: ``revived``; at the end ``dead``, ``active``, ``explained``."""
        ended = dict(zip(("dead", "active", "explained"), self.ended.numpy().copy(), strict=True))
        return {"revived": self.revived.numpy().copy(), **ended}


def spread(rows: int, most: int = JUDGED) -> Tensor:
    """At most so many rows, evenly spaced."""
    return torch.linspace(0, rows - 1, min(rows, most)).round().long()


def dictionaries(entry: nn.Module) -> list[Dictionary]:
    """Those of an entry."""
    return [cast("Dictionary", one) for one in cast("Entry", entry)]
