"""WT203: which factors can a linear probe read off a layer although the outputs do not depend on them?"""

from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.base import Case, Hypothesis, NoAnswer
from wheeltap.audits.case import Arrays
from wheeltap.audits.controls import controls_of, silent
from wheeltap.audits.reading_audit import SingleReadingAudit
from wheeltap.core.records import OWN, Control, Estimate, SubjectRecord
from wheeltap.core.settings import comma_separated
from wheeltap.plans.plan import Plan
from wheeltap.stats.among import share_of
from wheeltap.stats.effect import mean_effect, smallest_detectable
from wheeltap.stats.evidence import NoEvidence
from wheeltap.suites.decodable.audits.factors import DecodableAuditSettings, DecodedFactor, FactorLayer, together
from wheeltap.suites.decodable.specs import DECODABLE

_WHY_NOT: Final = {
    "one class": "It has one class only, so there is nothing to distinguish.",
    "too few examples": "One of its classes has too few examples to fit a probe on one half and measure it on the "
    "other.",
    "too many classes": "It has more classes than its examples can carry: some have too few in one half.",
}

_WHOLE: Final = ("status", "classes", "labels", "majority", "targets")
"""Arrays of a factor that are not by layer."""

Factors = dict[str, DecodedFactor]
"""By name; the model's own answers among them."""


@final
class DecodableAudit(SingleReadingAudit[Factors]):
    """Factors that a probe reads off hidden layers, and what the outputs lose with the subspaces that encode them."""

    name = "decodable"
    code = "WT203"
    title = "Decodable but unused"
    reads = (
        "A factor that a linear probe reads off a layer is ablated there, with the least change that removes it, "
        "and the change of the outputs is compared with that of random subspaces. What can be read but moves "
        "nothing is present without"
        " being used; a task alone cannot tell."
    )
    otherwise = "used"
    asks = "structure"
    shows = True
    by_example = True
    settings_type = DecodableAuditSettings
    large = {"most": 3, "draws": 24, "matched": 4}  # noqa: RUF012
    spares: ClassVar[dict[str, int]] = {"most": 2, "matched": 4}

    reading = DECODABLE

    def passes(self, plan: Plan, subject: SubjectRecord) -> float:
        """Counts every factor that the task knows as read off every layer that may be looked at."""
        classes, how = plan.sizes.factors, self.settings
        if not classes:
            return 0.0
        half = (plan.task.examples + 1) // 2 / plan.task.examples
        # Each option's slope takes a forward and a backward pass, which counts as two.
        return 1.0 + half * (3 + 3 * how.options + self._runs(subject, classes))

    def _runs(self, subject: SubjectRecord, classes: tuple[int, ...]) -> int:
        """Most passes over half of the examples with something ablated, of one subject.

        Factors of one rank share their random subspaces, as many for each of them; a rank is below the number of
        classes. Beside the factors the model's own answers, of rank 1, are ablated at the last layer.
        """
        how = self.settings
        factors = len(comma_separated(how.factors)) or len(classes)
        ranks = min(factors, max(classes) - 1)
        layers = len(comma_separated(how.layers)) or min(how.most, max(len(subject.layers) - 1, 1))
        each, beside = 2 + how.held + min(how.matched, how.draws), 1 + how.draws * factors
        return layers * (factors * each + ranks * beside) + each + beside

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> Factors:
        """Each factor, and how many others are held against random subspaces."""
        arrays = dict[str, Arrays]()
        for key, array in read.items():
            name, mark, own = key.rpartition("|")  # a name may hold the mark that stands between it and its arrays
            if mark:
                arrays.setdefault(name, {})[own] = array
        if not arrays:
            raise NoAnswer(
                "not_applicable",
                "The examples come without factors: labels of what a task could read (task.with_factors; arrays "
                "factor_NAME in an .npz file; factors in the lines of a .jsonl file).",
            )
        places = {"layers": subject.layers, "blocks": subject.blocks,
                  "named": comma_separated(self.settings.layers)}  # fmt: skip
        known, copies = places[DECODABLE.meant("kind", read["kind"])], int(read["copies"])
        layers = [known[int(at)] for at in read["layers"]]
        labels = {name: mine["labels"] for name, mine in arrays.items() if name != OWN and "labels" in mine}
        factors: Factors = {}
        for name, mine in arrays.items():
            status, found = DECODABLE.meant("status", mine["status"]), tuple[FactorLayer, ...]()
            if "majority" in mine:
                by_layer = {key: array for key, array in mine.items() if key not in _WHOLE}
                count = len(mine["rank"])  # the model's own answers are read off the last layer alone
                found = tuple(
                    FactorLayer(place, {key: array[at] for key, array in by_layer.items()}, mine["majority"],
                                self.settings)
                    for at, place in enumerate(layers[len(layers) - count :])
                )  # fmt: skip
            others = {other: one for other, one in labels.items() if other != name}
            factors[name] = DecodedFactor(
                name, status, int(mine["classes"]), mine.get("targets", np.zeros((2, 1))), found, case.plan.alpha,
                mine.get("labels", np.zeros(1)), others, copies,
            )  # fmt: skip
        own = {name: factor for name, factor in factors.items() if name == OWN}
        return together(factor for name, factor in factors.items() if name not in own) | own

    def singles(self, case: Case, subject: SubjectRecord, read: Factors) -> list[Hypothesis]:
        """One claim of each factor."""
        return [self._claim(subject, factor) for name, factor in read.items() if name != OWN]

    def _claim(self, subject: SubjectRecord, factor: DecodedFactor) -> Hypothesis:
        words = FactorWords(subject.name, factor, self.settings)
        title = f"{self.title}: {factor.name}"
        blank = partial(Hypothesis, test=None, title=title, alarm=False, status="not_applicable")
        if not factor.measured:
            return blank(found=_WHY_NOT[factor.status])
        if not any(float(layer["rank"]) >= 0.0 for layer in factor.layers):
            return blank(found=f"Every layer has too few directions for the {factor.classes} classes of {factor.name}: "
                         "ablating its subspace would ablate everything.")  # fmt: skip
        if not factor.decodable:
            return self._not_decodable(title, factor, words)
        # The other way round a factor that is surely used a little could be called unused: never.
        p = 1.0 if factor.perhaps else factor.unused
        name = f"use of {factor.name}: {factor.most_used.place}"
        use = msgspec.structs.replace(factor.most_used.use, p=p, name=name)
        shown = factor.used or factor.moves
        otherwise = words.used() if factor.used else words.moves() if factor.moves else None
        return Hypothesis(
            test=use, evidence=NoEvidence(), title=title, alarm=False, beside=estimates(factor), found=words.unused(),
            otherwise=otherwise or words.open(smallest_detectable(use, alpha=factor.alpha, df=use.n - 1)),
            fallback="excluded" if shown else "inconclusive",
        )  # fmt: skip

    def _not_decodable(self, title: str, factor: DecodedFactor, words: "FactorWords") -> Hypothesis:
        """The factor is decodable nowhere, or not shown to be."""
        gain, layers, margin = factor.best.gain, len(factor.layers), self.settings.decodable
        df = factor.best.gain_df
        least = smallest_detectable(gain, alpha=factor.alpha / layers, margin=margin, df=df)
        # What a single layer's test finds, or its interval holds, is not denied because many layers were looked at.
        seen = all(layer.unseen(self.settings.sight, alpha=factor.alpha) for layer in factor.layers)
        surely = least is not None and least <= self.settings.sight and seen
        return Hypothesis(
            test=None, shown=gain, among=layers, margin=margin, title=title, alarm=False,
            status="not_applicable" if surely else "inconclusive", beside=(factor.best.accuracy,),
            found=words.not_decodable(least, surely=surely),
        )  # fmt: skip

    def more_controls(self, case: Case) -> list[Control]:
        """Checks by random labels, by random subspaces, and by the model's own answers."""
        names = [f"{self.code} {what}" for what in ("random labels", "random subspaces", "the model's own answers")]
        try:
            factors = self.read(case, case.plan.reference)
        except NoAnswer as gap:
            return [Control(name=name, kind="null", status="skipped", because=gap.because) for name in names]
        own = factors.pop(OWN, None)
        measured = [factor for factor in factors.values() if factor.measured]
        erased = [factor for factor in measured if factor.erased]
        return controls_of(
            (names[0], "null", lambda name: self._random_labels(name, measured)),
            (names[1], "null", lambda name: self._random_subspaces(name, erased)),
            (names[2], "planted", lambda name: self._own(name, own)),
        )

    def _random_labels(self, name: str, factors: list[DecodedFactor]) -> Control:
        """Random labels must not be decodable."""
        level, margin = self.settings.null_level, self.settings.null_margin
        if not factors:
            raise NoAnswer("skipped", "No factor was measured.")
        gains = [
            mean_effect(layer["control"] - layer.majority, level=level, name="above_majority", unit="share")
            for factor in factors
            for layer in factor.layers
        ]
        worst = max(gains, key=lambda gain: gain.low or -1.0)
        return silent(
            name, worst, margin=margin, min_effect=self.settings.sight, one_sided=True,
            because=f"Random labels must not be decodable: probes are right at most {worst} more often than the most "
            f"frequent class ({level:.1%} interval, over {len(gains)} factors and layers); the audit is void if that "
            f"is shown to be more than {margin:.2g}.",
        )  # fmt: skip

    def _random_subspaces(self, name: str, factors: list[DecodedFactor]) -> Control:
        """Random subspaces in the place of the factor's must not all come out as used, nor move the outputs much."""
        settings = self.settings
        wide = [layer for factor in factors for layer in factor.wide]
        ranked = [one for one in factors if one.reachable and len(factors) * one.chance <= 1.0 - settings.null_level]
        if not ranked and not wide:
            why = "Nothing was ablated, or there are too few random subspaces in layers too narrow to show an error."
            raise NoAnswer("skipped", why)
        used = [sum(held.used for held in factor.held) for factor in ranked]
        failed = any(count == settings.held for count in used) or any(layer.loud for layer in wide)
        layers = wide or [layer for factor in ranked for layer in factor.erased]
        shares = [layer.share("held", name="use of held-out random subspaces") for layer in layers]
        worst = max(shares, key=lambda one: one.value or 0.0)
        said = [
            f"For each factor {settings.held} random subspaces took the place of its own: they move the outputs by "
            f"{worst} of the most, where they move them most"
        ]
        if ranked:
            said.append(
                f"{sum(used)} of {settings.held * len(used)} came out as used; the audit is void if all of one "
                f"factor's do (chance {sum(one.chance for one in ranked):.1g} where nothing is wrong)"
            )
        if wide:
            said.append(
                f"To first order they should move the outputs {max(float(one['expected']) for one in wide):.2g} of the "
                "most at most; the audit is void if they and all other random ones are shown to move them more than "
                f"{settings.null_use:g} of it"
            )
        return Control(
            name=name, kind="null", status="failed" if failed else "passed", estimates=(worst,),
            because=f"{'. '.join(said)}.",
        )  # fmt: skip

    def _own(self, name: str, own: DecodedFactor | None) -> Control:
        """What encodes the model's own answers must not come out as unused."""
        if own is None or not own.measured or not any(layer.erased for layer in own.decodable):
            why = "The options are each example's own, the answers do not vary enough, or no probe decodes them."
            raise NoAnswer("skipped", why)
        use, wrong = own.layers[0].use, 1.0 - self.settings.null_level
        steepest = own.layers[0]["steepest"]
        # The least p-value that there can be: of outputs that do not move at all.
        least = share_of(np.zeros_like(steepest), steepest, below=self.settings.margin).p or 0.0
        failed, blind = use.p is not None and use.p <= wrong, least > wrong
        why = " It could not have failed: so few examples would not show it of outputs that did not move at all."
        return Control(
            name=name, kind="planted", status="failed" if failed else "skipped" if blind else "passed",
            estimates=(use,),
            because="On which side of the middle the model's own answers lie is a factor that it uses: "
            f"without it the outputs move {use} of what they move at most. The run is void if that is shown to be "
            f"less than {self.settings.margin:g}.{why if blind else ''}",
        )  # fmt: skip


_TOO: Final = "the use of a correlated factor counts here too."

_SIZES = ("the factor's subspace", "the probe's directions", "the steepest subspace", "random subspaces")


@final
@dataclass(frozen=True)
class FactorWords:
    """Sentences about one factor of one subject."""

    subject: str
    factor: DecodedFactor
    settings: DecodableAuditSettings

    def not_decodable(self, least: float | None, *, surely: bool) -> str:
        """It is not decodable, as far as could be seen."""
        name, best = self.factor.name, self.factor.best
        start = f"{name} is not linearly decodable in {self.subject}; other codes are not tested"
        start = start if surely else f"There are too few examples to tell whether {name} is decodable"
        could = least is not None and least < 1.0
        seen = f"{least:.2f} would have been seen (4 times out of 5)" if could else "hardly anything could be seen"
        return (
            f"{start}. {self._probe(best)}, which is {best.gain} more than what is known without the layer: not shown "
            f"to be more than {self.settings.decodable:g} in any of {len(self.factor.layers)} layers; {seen}."
        )

    def unused(self) -> str:
        """It is decodable, and the outputs do not depend on it."""
        return (
            f"{self.factor.name} is decodable, but the outputs of {self.subject} hardly depend on it. "
            f"{self._without()}, shown to be less than {self.settings.margin:g} of that. {self._decodable()} "
            f"{self._afterwards()} {self._beside()} This does not prove that the network never uses it: a linear "
            "code was ablated at one layer at a time; what later layers compute again, and nonlinear codes, are not "
            f"tested. {self._explains()}."
        )

    def used(self) -> str:
        """It is decodable, and used."""
        return (
            f"{self.factor.name} is decodable in {self.subject}, and used. {self._without()}, more than without random "
            f"subspaces ({self._p()}). {self._decodable()} {self._beside()} {self._explains()}; {_TOO}"
        )

    def moves(self) -> str:
        """It is decodable and surely not unused; but random subspaces do as much."""
        narrow = "the layer is narrow, and they depend on much of it"
        why = self._too_few() or (f"alone p {self.factor.beyond:.2g}" if self.factor.perhaps else narrow)
        return (
            f"{self.factor.name} is decodable in {self.subject}, and not unused. {self._without()}, shown to be "
            "more than "
            f"{self.settings.margin:g} of that, but not shown to be more than without random subspaces ({self._p()}): "
            f"{why}. {self._decodable()} {self._beside()} {self._explains()}; {_TOO}"
        )

    def open(self, seen: float | None) -> str:
        """It is decodable; whether it is used stays open."""
        start = f"{self.factor.name} is decodable; whether {self.subject} uses it is undecided."
        if not self.factor.most_used.erased:
            return f"{start} The outputs have no slope there, so what they depend on is not known. {self._decodable()}"
        few = f": {self._too_few()}" if self._too_few() else ""
        rest = f"{self._decodable()} {self._beside()}"
        if self.factor.perhaps and self.factor.unused <= self.factor.alpha:
            return (
                f"{start} {self._without()}, surely less than {self.settings.margin:g} of that, but perhaps more than "
                f"without random subspaces (alone p {self.factor.beyond:.2g}; {self._p()}){few}. {rest}"
            )
        least = 0.0 if seen is None else self.settings.margin - seen
        could = f"a share of {least:.2g} or less would have counted as unused"
        could = could if least > 0.0 else "even one that nothing depends on could have stayed undecided"
        return (
            f"{start} {self._without()}, not shown to be less than {self.settings.margin:g} of that nor more, and not "
            f"surely more than without random subspaces ({self._p()}){few}. With so many examples {could}. {rest}"
        )

    def _without(self) -> str:
        """What the outputs do without the factor."""
        layer = self.factor.most_used
        return (
            f"Without the subspace that encodes it the outputs move {layer.use} of what they move without the steepest "
            f"subspace to first order (at {layer.place})"
        )

    def _afterwards(self) -> str:
        """How much of the factor was left, and what that means for its use."""
        layer = self.factor.remaining or self.factor.most_used
        said = (
            f"Afterwards a new probe at {layer.place} is right in {layer.left} of them (most frequent class "
            f"{layer.majority.mean():.2f})"
        )
        if self.factor.remaining is None:
            return f"{said}."
        return f"{said}: with these examples the subspace is known only in part, and what was left of it may be used."

    def _probe(self, layer: FactorLayer) -> str:
        copies = self.factor.copies
        left_out = f" ({copies} were left out, as others have the same inputs)" if copies else ""
        return f"A linear probe at {layer.place} is right in {layer.accuracy} of the examples it has not seen{left_out}"

    def _p(self) -> str:
        factors = len(self.factor.rivals) + 1
        corrected = "" if factors == 1 else f", corrected for {factors} factors"
        return f"p {self.factor.corrected:.2g}{corrected}; {self.factor.draws} draws"

    def _too_few(self) -> str:
        """That the comparison with random subspaces could not have come out; nothing where it could."""
        if self.factor.reachable:
            return ""
        enough = ceil(1.0 / self.factor.alpha - 1e-9)  # for each factor, however many there are
        return (
            f"so few draws cannot show more, whatever the factor does (set draws to {enough} or more; more than the "
            "margin still counts)"
        )

    def _decodable(self) -> str:
        best, where = self.factor.best, self.factor.decodable
        return (
            f"{self._probe(best)} ({best['control'].mean():.2f} for random labels, {best.majority.mean():.2f} for the "
            f"most frequent class); it is shown to be decodable from {len(where)} of {len(self.factor.layers)} layers."
        )

    def _beside(self) -> str:
        """Random subspaces, sizes and the projection, at the same layer."""
        layer = self.factor.most_used
        random, matched = (layer.share(which, name="").value or 0.0 for which in ("random", "matched"))
        sizes = layer["sizes"]
        return (
            f"Random subspaces of rank {int(layer['rank'])} move them {random:.3f} of that, and {matched:.3f} once "
            f"their change is as large (the change is {sizes[0]:.2f} of the layer's spread, {sizes[3]:.2f} for random "
            f"ones, {sizes[2]:.2f} for the steepest)."
        )

    def _explains(self) -> str:
        """What the factor goes with."""
        nearest = self.factor.nearest
        other = "" if nearest is None else f", and {nearest[1]} of that of {nearest[0]}, more than of other factors"
        return f"The factor explains {self.factor.correlation} of the variance of the targets{other}"


def estimates(factor: DecodedFactor) -> tuple[Estimate, ...]:
    """Numbers of one factor, layer by layer, and all of the layer where it is used most.

    Only the first estimate of a finding is tested.
    """
    found: list[Estimate] = [factor.best.gain, factor.correlation]
    if factor.nearest is not None:
        found.append(msgspec.structs.replace(factor.nearest[1], name=f"variance of {factor.nearest[0]}"))
    for layer in factor.layers:
        found.append(layer.accuracy)
        if layer.erased:
            found += [layer.share("erased", name="use"), layer.share("random", name="use of random subspaces")]
    return (*found, *_erased(factor.most_used)) if factor.most_used.erased else tuple(found)


def _erased(layer: FactorLayer) -> list[Estimate]:
    """What was measured where the subspace was ablated."""
    unit = "nats of KL, or share of the outputs' variance"
    found = [
        layer.share("matched", name="use of random subspaces as large"),
        layer.share("projected", name="use without the probe's directions"),
    ]
    for which in ("erased", "steepest", "random"):
        effect, name = layer[which].reshape(-1, layer[which].shape[-1]), f"moved by {which}: {layer.place}"
        found.append(mean_effect(effect, name=name, unit=unit))
    found += [mean_effect(layer["lost"][None], name=f"score lost: {layer.place}", unit="score"), layer.left]
    sizes = zip((f"size of the change, {what}" for what in _SIZES), layer["sizes"], strict=True)
    what = ("angle to the steepest subspace, the factor's", "angle to the steepest subspace, mean of random ones")
    angles = zip(what, layer["angles"], strict=True)
    for numbers, unit in ((sizes, "share of the layer's spread"), (angles, "degrees")):
        for name, value in numbers:
            found.append(Estimate(
                name=f"{name}: {layer.place}", value=float(value), low=None, high=None, level=0.95, n=1, unit=unit,
                method="of the ablated subspaces; no interval",
            ))  # fmt: skip
    return found
