"""WT204: do the outputs answer a change of a weight as symmetrically as the task is?

Where one mechanism serves both halves of a symmetric task, a changed weight changes both halves alike.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Audit, AuditSettings, Case, Draft, Unanswered, Values, Verdict, pair
from wheeltap.audits.controls import silent
from wheeltap.audits.limits import Margin, Share
from wheeltap.core.records import Control, Estimate, Finding, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats.effect import mean_effect, smallest_detectable

READING = "symmetry-response"

_TRIES = 5
"""Passes that finding the size of one change takes at most, on average over all: the reading stops there."""

_NONE = (
    "The task knows no symmetry of its examples: give it one, task.with_symmetry(wt.symmetry.mirror(points)), "
    "or leave this audit out."
)

_LIMITS = (
    "Symmetric answers come from inputs or weights that tie the symmetric parts together; they do not show that other "
    "capabilities have one mechanism each. The sample is of weights: nets trained from other seeds may differ."
)


class SymmetrySettings(AuditSettings, frozen=True, kw_only=True):
    """What is disturbed, and thresholds; these are differences of S, which goes from 0 to 1.

    Attributes:
        weights: Single weights disturbed, the layers in turn.
        directions: Random directions over an input's weights, disturbed beside them.
        copies: Copies with the weights shuffled within each layer, to compare with.
        effect: Root mean square change of the outputs that each is given, as a share of the outputs' spread.
        margin: How far S may lie above that of the shuffled copies without mattering.
        worth: Smallest difference that a ``not_found`` must have been able to see.
        built_in: S of shuffled copies from which the symmetry counts as built in: by the inputs, or by tied weights.
        difference: Difference between two subjects that does not matter: nets trained from other seeds differ by as
            much (small nets on a mirrored task: standard deviation of the difference .03 to .05).
        difference_worth: Smallest one that a ``not_found`` must have been able to see.
        null_margin: The null control fails if the twin's S differs by more than this with ``null_level``.
        null_level: Confidence with which the twin must differ before the audit is void.
    """

    weights: Annotated[int, msgspec.Meta(ge=2)] = 48
    directions: Annotated[int, msgspec.Meta(ge=0)] = 24
    copies: Annotated[int, msgspec.Meta(ge=0)] = 4
    effect: Annotated[float, msgspec.Meta(gt=0.0, le=10.0)] = 0.1
    margin: Margin = 0.05
    worth: Margin = 0.15
    built_in: Share = 0.99
    difference: Margin = 0.05
    difference_worth: Margin = 0.15
    null_margin: Margin = 0.05
    null_level: Share = 0.999


@dataclass(frozen=True)
class _Read:
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

    @classmethod
    def of(cls, values: dict[str, Values]) -> "_Read":
        """What the arrays say.

        Raises:
            Unanswered: If the task knows no symmetry.
        """
        if not float(values["known"]):
            raise Unanswered("not_applicable", _NONE)
        single: NDArray[np.bool_] = values["unit"] >= 0
        told: NDArray[np.bool_] = values["reached"] > 0.5
        shares = (values["symmetry"] * told).sum(1) / np.maximum(told.sum(1), 1)
        reached: NDArray[np.bool_] = np.logical_or(told[:, 0], told[:, 1])
        return cls(
            shares[single], reached[single], shares[~single], reached[~single],
            float(1.0 - told.mean()), float(values["floor"]), float(values["own"]), float(values["broken"]),
        )  # fmt: skip


@final
class SymmetryAudit(Audit):
    """Mean S of single weights at equal effect, above that of copies with their weights shuffled within layers.

    A weight with several changes is one observation: intervals are over weights (and copies).
    """

    name = "symmetry"
    code = "WT204"
    title = "Symmetry of response"
    reads = (
        "Single weights are changed until the outputs move by a set amount, and the share of that movement that "
        "has the task's symmetry is taken. Near 1, one mechanism serves the symmetric parts; near the floor, each"
        " part has its own."
    )
    asks = "structure"
    shows = True
    settings_type = SymmetrySettings
    spares: ClassVar[dict[str, int]] = {"weights": 12, "directions": 0, "copies": 1}
    large = {"weights": 12, "directions": 0, "copies": 1}  # noqa: RUF012 - as in the other audits

    # ---- asking -----------------------------------------------------------------------------------------------

    def ask(self, case: Case) -> list[Trial]:
        """A reading of each subject, of its shuffled copies and of the re-coded twin."""
        if not case.known(case.plan.baselines()):
            return []
        wanted = [self._trial(case, subject, copy) for subject in case.plan.subjects for copy in self._copies]
        twin = case.plan.twin
        return wanted if twin is None else [*wanted, self._trial(case, twin, 0)]

    def most(self, plan: Plan) -> int:
        """One reading each."""
        return len(plan.subjects) * len(self._copies) + (plan.twin is not None)

    def most_passes(self, plan: Plan) -> float:
        """A clean pass, and either sign of every place a few times; none where the task knows no symmetry."""
        if not plan.sizes.symmetric:
            return 0.0
        return self.most(plan) * (1.0 + 2 * _TRIES * (self.settings.weights + self.settings.directions))

    @property
    def _copies(self) -> range:
        return range(1 + self.settings.copies)

    def _trial(self, case: Case, subject: SubjectRecord, copy: int) -> Trial:
        how = self.settings
        settings = {"weights": how.weights, "directions": how.directions, "effect": how.effect, "copy": copy}
        return case.plan.reading(subject, READING, settings)

    # ---- judging ----------------------------------------------------------------------------------------------

    def judge(self, case: Case) -> Verdict:
        """One finding per subject, one per pair; the targets and the re-coded twin as controls."""
        return Verdict(
            drafts=[
                *(self._single(case, subject) for subject in case.plan.subjects),
                *(self._pair(case, rival) for rival in case.rivals),
            ],
            controls=[self._targets(case), self._null(case)],
        )

    def _read(self, case: Case, subject: SubjectRecord) -> _Read:
        found = _Read.of(case.reading(self._trial(case, subject, 0)))
        if found.reached.sum() < 2:
            raise Unanswered(
                "not_applicable",
                f"Fewer than two of {len(found.reached)} weights can change the outputs by {self.settings.effect:g} of "
                "their spread: ask for a smaller effect.",
            )
        return found

    def _shuffled(self, case: Case, subject: SubjectRecord) -> list[_Read]:
        """The shuffled copies that answer at all: shuffled, a sparse net may give the same for every input."""
        found: list[_Read] = []
        for copy in self._copies[1:]:
            try:
                read = _Read.of(case.reading(self._trial(case, subject, copy)))
            except Unanswered:
                continue
            if read.reached.sum() >= 2:
                found.append(read)
        return found

    def _single(self, case: Case, subject: SubjectRecord) -> Draft:
        try:
            read = self._read(case, subject)
        except Unanswered as gap:
            return self.unanswered(subject.name, gap)
        copies, how = self._shuffled(case, subject), self.settings
        gap, beside = self._tested(read, copies)
        mean = _mean(read.weights[read.reached], "single_weights")
        start = (
            f"Changes of single weights of {subject.name} that move its outputs equally much ({how.effect:g} of their "
            f"spread) are answered symmetrically to a share of {mean}, {gap} more than {beside}"
        )
        rest = (
            f"The outputs themselves are symmetric to a share of {read.own:.3f}; a change that knows nothing of the "
            f"symmetry would be to {read.floor:.3f}. {_told(read)} {_LIMITS}{_warning(read)}"
        )
        finding = Finding(
            code=self.code, title=self.title, status="found", subject=subject.name,
            estimates=(gap, mean, *self._beside(read, copies)),
            smallest_detectable=smallest_detectable(gap, alpha=case.plan.alpha, margin=how.margin),
            because=f"{start}. {rest}", alarm=False,
            trials=tuple(self._trial(case, subject, copy).key for copy in self._copies),
        )  # fmt: skip
        otherwise = f"{start}: not shown to be more than {how.margin:g}. {rest}"
        return Draft(finding, test=gap, worth=how.worth, one_sided=True, otherwise=otherwise)

    def _tested(self, read: _Read, copies: list[_Read]) -> tuple[Estimate, str]:
        """How much S lies above that of copies whose weights mean nothing, and what that is in words.

        Where such copies answer symmetrically too, any weights would: it is built in, and S is compared with the floor.
        """
        margin, floor = self.settings.margin, read.weights[read.reached] - read.floor
        gap = _above_shuffled(read, copies, margin=margin)
        several = f"cop{'y' if len(copies) == 1 else 'ies'}"
        if gap is None:
            words = "a change that knows nothing of the symmetry (no copy with shuffled weights could be compared)"
        elif min(float(copy.weights[copy.reached].mean()) for copy in copies) >= self.settings.built_in:
            words = (
                "a change that knows nothing of the symmetry; it is built in, for with the weights shuffled within "
                "each layer the share is as large"
            )
        else:
            return gap, f"with the weights shuffled within each layer ({len(copies)} {several})"
        return _over_weights(floor[None, :], margin=margin, name="above_floor"), words

    def _beside(self, read: _Read, copies: list[_Read]) -> list[Estimate]:
        """What stands beside the tested number."""
        shuffled = np.array([copy.weights[copy.reached].mean() for copy in copies])
        found: list[Estimate] = []
        if len(copies):
            over = f"t over {len(copies)} copies" if len(copies) > 1 else "one copy: no interval over copies"
            found.append(msgspec.structs.replace(_mean(shuffled, "shuffled_copies"), method=over))
        if read.directions_reached.sum() >= 2:
            found.append(_mean(read.directions[read.directions_reached], "random_directions"))
        exact = {"floor": read.floor, "outputs_themselves": read.own, "unreached": read.unreached}
        return [*found, *(_exact(name, value) for name, value in exact.items())]

    def _pair(self, case: Case, rival: SubjectRecord) -> Draft:
        plan, title, how = case.plan, f"{self.title}: difference", self.settings
        name = pair(plan.reference, rival)
        try:
            one, two = self._read(case, plan.reference), self._read(case, rival)
            gap = _gap(one, two, margin=how.difference)
        except Unanswered as gap_:
            return self.unanswered(name, gap_, title=title)
        words = (
            f"The share to which {rival.name} answers changes of single weights symmetrically is {gap} larger than "
            f"that of {plan.reference.name}"
        )
        beside, limits = _direction_gap(one, two), f"{_LIMITS}{_warning(one)}"
        finding = Finding(
            code=self.code, title=title, status="found", subject=name, estimates=(gap, *beside),
            because=f"{words}. {limits}",
            smallest_detectable=smallest_detectable(gap, alpha=plan.alpha, margin=how.difference),
            trials=tuple(self._trial(case, subject, 0).key for subject in (plan.reference, rival)),
        )  # fmt: skip
        otherwise = f"{words}. Not shown to be more than {how.difference:g} either way. {limits}"
        return Draft(finding, test=gap, worth=how.difference_worth, otherwise=otherwise)

    def _targets(self, case: Case) -> Control:
        """A symmetry that the targets do not have spoils no number, but is not what was meant."""
        name = f"{self.code} targets have the symmetry"
        try:
            read = self._read(case, case.plan.reference)
        except Unanswered as why:
            return Control(name=name, kind="gate", status="skipped", because=why.because)
        because = _warning(read).strip() or "Every example has the target of its images."
        return Control(name=name, kind="gate", status="skipped" if read.broken else "passed", because=because)

    def _null(self, case: Case) -> Control:
        name, twin = f"{self.code} re-coded twin", case.plan.twin
        if twin is None:
            return Control(name=name, kind="null", status="skipped", because=case.plan.no_controls)
        level, margin = self.settings.null_level, self.settings.null_margin
        try:
            gap = _gap(self._read(case, case.plan.reference), self._read(case, twin), margin=margin, level=level)
        except Unanswered as why:
            return Control(name=name, kind="null", status="skipped", because=why.because)
        return silent(
            name, gap, margin=margin, worth=self.settings.difference_worth,
            because=f"A copy that computes the same must not look different: its S is {gap} larger ({level:.1%} "
            f"interval); the audit is void if they surely differ by over {margin:g}.",
        )  # fmt: skip


def _gap(one: _Read, two: _Read, *, margin: float, level: float = 0.95) -> Estimate:
    """How much larger S is in ``two``: weight by weight, at the same places where the nets are of one shape.

    Places are drawn at random, so pairing other ones only loses precision.

    Raises:
        Unanswered: If fewer than two weights reach the effect in both.
    """
    shared = min(len(one.reached), len(two.reached))
    both = one.reached[:shared] & two.reached[:shared]
    if both.sum() < 2:
        raise Unanswered("not_applicable", "Fewer than two weights can have the effect in both networks.")
    gaps = (two.weights[:shared] - one.weights[:shared])[both]
    return _over_weights(gaps[None, :], level=level, margin=margin, name="difference")


def _above_shuffled(read: _Read, copies: list[_Read], *, margin: float) -> Estimate | None:
    """How much larger S is than in the shuffled copies, at the same places; ``None`` where too few can be compared."""
    if not copies:
        return None
    common = read.reached & np.stack([copy.reached for copy in copies]).all(0)
    if common.sum() < 2:
        return None
    gaps = np.stack([read.weights - copy.weights for copy in copies])[:, common]
    return _over_weights(gaps, margin=margin, name="above_shuffled")


def _direction_gap(one: _Read, two: _Read) -> tuple[Estimate, ...]:
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
    found = mean_effect(shares, level=level, margin=margin, name=name, unit="share")
    copies, weights = shares.shape
    method = f"t over {weights} weights" if copies == 1 else f"crossed t, {copies} copies x {weights} weights"
    return msgspec.structs.replace(found, method=method)


def _exact(name: str, value: float) -> Estimate:
    return Estimate(name=name, value=value, low=value, high=value, level=1.0, n=1, unit="share", method="exact")


def _told(read: _Read) -> str:
    """How many changes are no part of the mean."""
    if read.unreached == 0.0:
        return "All changes had that effect."
    return f"{read.unreached:.0%} of the changes cannot have that effect and are left out."


def _warning(read: _Read) -> str:
    """A paragraph of its own where the symmetry is none of the targets; nothing where it is one."""
    if not read.broken:
        return ""
    return (
        "\n\nWarning: this is no symmetry of the task. The targets of "
        f"{100 * read.broken:.2g} % of the examples differ from those of their images, so that answers that have the "
        "symmetry are not what the targets ask for. Was another permutation meant?"
    )
