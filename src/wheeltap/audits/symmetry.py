"""WT204: do the outputs answer a change of a weight as symmetrically as the task is?

Where one mechanism serves both halves of a symmetric task, a changed weight changes both halves alike.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Case, Hypothesis, Margin, NoAnswer
from wheeltap.audits.case import Arrays, Values
from wheeltap.audits.controls import NULL_LEVEL, controls_of
from wheeltap.audits.reading_audit import ReadingAudit
from wheeltap.core.records import Control, Estimate, Scalar, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.symmetry import SYMMETRY_RESPONSE, TRIES, ResponseSettings
from wheeltap.stats.sample import Sample

_NONE = (
    "The task knows no symmetry of its examples: give it one, task.with_symmetry(wt.symmetry.mirror(points)), "
    "or leave this audit out."
)

_LIMITS = (
    "Symmetric responses come from inputs or weights that tie the symmetric parts together; they do not show that "
    "other capabilities have one mechanism each. The sample is of weights: nets trained from other seeds may differ."
)

_BUILT_IN = 0.99
"""S of shuffled copies from which the symmetry counts as built in: by the inputs, or by tied weights."""

_NULL_MARGIN = 0.05
"""Difference of the copy's S beyond which the null control fails."""


class SymmetrySettings(ResponseSettings, frozen=True, kw_only=True):
    """What is disturbed, and thresholds; these are differences of S, which goes from 0 to 1.

    Attributes:
        weights: Single weights disturbed, the layers in turn.
        copies: Copies with the weights shuffled within each layer, to compare with.
        margin: How far S may lie above that of the shuffled copies without mattering.
        difference: Difference between two subjects that does not matter: nets trained from other seeds differ by as
            much (small nets on a mirrored task: standard deviation of the difference .03 to .05).
        difference_min_effect: Difference that the null control must have been able to see.
    """

    weights: Annotated[int, msgspec.Meta(ge=2)] = 48
    copies: Annotated[int, msgspec.Meta(ge=0)] = 4
    margin: Margin = 0.05
    difference: Margin = 0.05
    difference_min_effect: Margin = 0.15


@dataclass(frozen=True)
class _SymmetricShares:
    """What a reading gave of one subject or copy.

    Attributes:
        weights: S of each single weight, ``[weight]``, mean over the signs that reached the effect.
        reached: Whether either sign did, ``[weight]``.
        directions: S of each random direction, ``[direction]``.
        directions_reached: Whether either sign did, ``[direction]``.
        unreached: Share of all changes (place and sign) that cannot have the effect.
        floor: S of a change that knows nothing of the symmetry.
        own: Symmetric share of the outputs' energy.
        broken: Share of the examples whose targets do not have the symmetry.
    """

    weights: Values
    reached: NDArray[np.bool_]
    directions: Values
    directions_reached: NDArray[np.bool_]
    unreached: float
    floor: float
    own: float
    broken: float


@final
class SymmetryAudit(ReadingAudit[_SymmetricShares]):
    """Mean S of single weights at equal effect, above that of copies with their weights shuffled within layers.

    A weight with several changes is one observation: intervals are over weights (and copies).
    """

    name = "symmetry"
    code = "WT204"
    title = "Symmetry of response"
    reads = (
        "Single weights are changed until the outputs move by a set amount, and the share of that movement that "
        "has the task's symmetry is taken. Near 1, one mechanism drives the symmetric parts; near the floor, each"
        " part has its own."
    )
    asks = "structure"
    shows = True
    settings_type = SymmetrySettings
    spares: ClassVar[dict[str, int]] = {"weights": 12, "directions": 0, "copies": 1}
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {"weights": 12, "directions": 0, "copies": 1}
    reading = SYMMETRY_RESPONSE

    # ---- asking -----------------------------------------------------------------------------------------------

    def passes(self, plan: Plan, subject: SubjectRecord) -> float:
        """A clean pass, and either sign of every place a few times; none where the task knows no symmetry."""
        places = self.settings.weights + self.settings.directions
        return 1.0 + 2 * TRIES * places if plan.sizes.symmetric else 0.0

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """A reading of a subject and one of each of its shuffled copies; one alone of the twin."""
        copies = 0 if subject == plan.twin else self.settings.copies
        shuffled = [self.trial(plan, subject, copy=at) for at in range(1, 1 + copies)]
        return [self.trial(plan, subject), *shuffled]

    # ---- judging ----------------------------------------------------------------------------------------------

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> _SymmetricShares:
        """S of every weight and direction, over its signs."""
        if not bool(read["known"]):
            raise NoAnswer("not_applicable", _NONE)
        single, effective = read["unit"] >= 0, read["reached"].astype(np.bool_)
        shares = (read["symmetry"] * effective).sum(1) / np.maximum(effective.sum(1), 1)
        reached: NDArray[np.bool_] = np.logical_or(effective[:, 0], effective[:, 1])
        if reached[single].sum() < 2:
            raise NoAnswer(
                "not_applicable",
                f"Fewer than two of {single.sum()} weights can change the outputs by {self.settings.effect:g} of "
                "their spread: ask for a smaller effect.",
            )
        return _SymmetricShares(
            shares[single], reached[single], shares[~single], reached[~single],
            float(1.0 - effective.mean()), float(read["floor"]), float(read["own"]), float(read["broken"]),
        )  # fmt: skip

    def _shuffled(self, case: Case, subject: SubjectRecord) -> list[_SymmetricShares]:
        """The shuffled copies that answer at all: shuffled, a sparse net may give the same for every input."""
        found: list[_SymmetricShares] = []
        for trial in self.readings(case.plan, subject)[1:]:
            try:
                found.append(self.parsed(case, subject, case.reading(trial)))
            except NoAnswer:
                continue
        return found

    def singles(self, case: Case, subject: SubjectRecord, read: _SymmetricShares) -> list[Hypothesis]:
        """Whether S is larger than in the shuffled copies."""
        copies, how = self._shuffled(case, subject), self.settings
        cells, name, beside = self._tested(read, copies)
        gap = _over_weights(cells, margin=how.margin, name=name)
        mean = _mean(read.weights[read.reached], "single_weights")
        share = f"{mean} of the effect of changing one weight has the task's symmetry, {gap} more than {beside}"
        rest = (
            f"Each change moves the outputs by {how.effect:g} of their spread. The outputs themselves are symmetric to "
            f"a share of {read.own:.3f}; a change unrelated to the symmetry would be to {read.floor:.3f}. "
            f"{_left_out(read)} {_LIMITS}{_warning(read)}"
        )
        claim = Hypothesis(
            test=gap, margin=how.margin, evidence=Sample(cells, least=0.0), beside=(mean, *self._beside(read, copies)),
            by_example=False, one_sided=True, alarm=False,
            found=f"{subject.name} responds more symmetrically than chance: {share}. {rest}",
            otherwise=f"{subject.name} is not shown to respond more symmetrically than chance: {share}, not shown to "
            f"be more than {how.margin:g}. {rest}",
        )  # fmt: skip
        return [claim]

    def _tested(self, read: _SymmetricShares, copies: list[_SymmetricShares]) -> tuple[Values, str, str]:
        """How much S lies above that of copies whose weights mean nothing, its name, and what that is in words.

        Where such copies answer symmetrically too, any weights would: it is built in, and S is compared with the floor.
        """
        floor = read.weights[read.reached] - read.floor
        gaps = _above_shuffled(read, copies)
        shuffled = "with the weights shuffled within each layer"
        if gaps is None:
            why = "no copy with shuffled weights could be compared"
        elif min(float(copy.weights[copy.reached].mean()) for copy in copies) >= _BUILT_IN:
            why = f"the symmetry is built in: {shuffled} the share is as large"
        else:
            return gaps, "above_shuffled", f"{shuffled} ({len(copies)} cop{'y' if len(copies) == 1 else 'ies'})"
        return floor[None, :], "above_floor", f"for a change unrelated to it ({why})"

    def _beside(self, read: _SymmetricShares, copies: list[_SymmetricShares]) -> list[Estimate]:
        """What stands beside the tested number."""
        shuffled = np.array([copy.weights[copy.reached].mean() for copy in copies])
        found: list[Estimate] = []
        if len(copies):
            over = f"t over {len(copies)} copies" if len(copies) > 1 else "one copy: no interval over copies"
            found.append(msgspec.structs.replace(_mean(shuffled, "shuffled_copies"), method=over))
        if read.directions_reached.sum() >= 2:
            found.append(_mean(read.directions[read.directions_reached], "random_directions"))
        exact = {"floor": read.floor, "outputs_themselves": read.own, "unreached": read.unreached}
        return [*found, *(Estimate.exact(name, value, "share") for name, value in exact.items())]

    def compared(self, case: Case, rival: SubjectRecord, one: _SymmetricShares, two: _SymmetricShares) -> Hypothesis:
        """In which of the two S is larger."""
        how = self.settings
        cells = _gaps(one, two)
        gap = _over_weights(cells, margin=how.difference, name="difference")
        words = (
            f"The symmetric share of the response to a change of one weight is {gap} larger in {rival.name} than in "
            f"{case.plan.reference.name}."
        )
        limits = f"{_LIMITS}{_warning(one)}"
        return Hypothesis(
            test=gap, margin=how.difference, evidence=Sample(cells, least=0.0), min_effect=how.difference_min_effect,
            by_example=False, beside=_direction_gap(one, two),
            found=f"{words} {limits}",
            otherwise=f"{words} Not shown to be more than {how.difference:g} either way. {limits}",
        )  # fmt: skip

    def null(self, case: Case, one: _SymmetricShares, two: _SymmetricShares) -> Hypothesis:
        """The same function, so the same S."""
        level, margin = NULL_LEVEL, _NULL_MARGIN
        gap = _over_weights(_gaps(one, two), level=level, margin=margin, name="difference")
        return Hypothesis(
            test=gap, margin=margin, min_effect=self.settings.difference_min_effect,
            found=f"A copy that computes the same must not look different: its S is {gap} larger ({level:.1%} "
            f"interval); the run is void if they are shown to differ by more than {margin:g}.",
        )  # fmt: skip

    def more_controls(self, case: Case) -> list[Control]:
        """A symmetry that the targets do not have spoils no number, but is not what was meant."""

        def targets(name: str) -> Control:
            read = self.read(case, case.plan.reference)
            because = _warning(read).strip() or "Every example has the target of its images."
            return Control(name=name, kind="gate", status="skipped" if read.broken else "passed", because=because)

        return controls_of((f"{self.code} targets have the symmetry", "gate", targets))


def _gaps(one: _SymmetricShares, two: _SymmetricShares) -> Values:
    """How much larger S is in ``two``, ``[1, weight]``: at the same places where the nets are of one shape.

    Places are drawn at random, so pairing other ones only loses precision.

    Raises:
        NoAnswer: If fewer than two weights reach the effect in both.
    """
    shared = min(len(one.reached), len(two.reached))
    both = one.reached[:shared] & two.reached[:shared]
    if both.sum() < 2:
        raise NoAnswer("not_applicable", "Fewer than two weights can have the effect in both networks.")
    return (two.weights[:shared] - one.weights[:shared])[both][None, :]


def _above_shuffled(read: _SymmetricShares, copies: list[_SymmetricShares]) -> Values | None:
    """How much larger S is than in the shuffled copies, ``[copy, weight]``; ``None`` where too few can be compared."""
    if not copies:
        return None
    common = read.reached & np.stack([copy.reached for copy in copies]).all(0)
    if common.sum() < 2:
        return None
    return np.stack([read.weights - copy.weights for copy in copies])[:, common]


def _direction_gap(one: _SymmetricShares, two: _SymmetricShares) -> tuple[Estimate, ...]:
    shared = min(len(one.directions), len(two.directions))
    both = one.directions_reached[:shared] & two.directions_reached[:shared]
    if both.sum() < 2:
        return ()
    return (_mean((two.directions[:shared] - one.directions[:shared])[both], "random_directions"),)


def _mean(shares: Values, name: str) -> Estimate:
    """Without a p-value: it only stands beside the tested number."""
    return msgspec.structs.replace(_over_weights(shares[None, :], name=name), p=None)


def _over_weights(shares: Values, *, name: str, margin: float = 0.0, level: float = 0.95) -> Estimate:
    """Mean of a table ``[copy, weight]``, both as samples; of a single row, over weights alone."""
    found = Sample(shares, least=0.0).effect(level=level, margin=margin, name=name, unit="share")
    copies, weights = shares.shape
    method = f"t over {weights} weights" if copies == 1 else f"crossed t, {copies} copies x {weights} weights"
    return msgspec.structs.replace(found, method=method)


def _left_out(read: _SymmetricShares) -> str:
    """How many changes are no part of the mean."""
    if read.unreached == 0.0:
        return "All changes had that effect."
    return f"{read.unreached:.0%} of the changes cannot have that effect and are left out."


def _warning(read: _SymmetricShares) -> str:
    """A paragraph of its own where the symmetry is none of the targets; nothing where it is one."""
    if not read.broken:
        return ""
    percent = f"{100 * read.broken:.{0 if read.broken >= 0.01 else 2}f} %"
    return (
        f"\n\nWarning: this is no symmetry of the task. The targets of {percent} of the examples differ from those of "
        "their images, so that answers that have the symmetry are not what the targets ask for. Was another "
        "permutation meant?"
    )
