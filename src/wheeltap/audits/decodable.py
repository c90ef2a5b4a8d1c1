"""WT203: which factors can a linear probe read off a layer although the outputs do not hang on them?"""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.base import Audit, Case, Draft, Unanswered, Values, Verdict
from wheeltap.audits.controls import silent
from wheeltap.audits.decodable_words import Words, estimates, of_null
from wheeltap.audits.factors import DecodableSettings, Factor, Layer, together
from wheeltap.core.records import OWN, Control, Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats.effect import mean_effect, smallest_detectable

_KINDS: Final = ("layers", "blocks", "named")

_WHY_NOT: Final = {
    1: "It has one class only, so there is nothing to tell apart.",
    2: "One of its classes has too few examples to fit a probe on one half and measure it on the other.",
    3: "It has more classes than its examples can carry: some have too few in one half.",
}

_OPTIONS: Final = 16
"""Options at most whose slopes the reading takes, each by a forward and a backward pass, which counts as two."""


_READING: Final = ("factors", "layers", "most", "draws", "matched", "held", "controls", "per_class")


@final
@dataclass(frozen=True)
class _Known:
    """What all factors share: names of layers, everybody's labels, and how many examples were left out as copies."""

    layers: list[str]
    labels: dict[str, Values]
    copies: int


@final
class DecodableAudit(Audit):
    """Factors that a probe reads off hidden layers, and what the outputs lose with the subspaces that tell them."""

    name = "decodable"
    code = "WT203"
    title = "Decodable but unused"
    reads = (
        "A factor that a linear probe reads off a layer is ablated there, with the least change that removes it, "
        "and the outputs are watched beside random subspaces. What can be read but moves nothing is there without"
        " being used; a task alone cannot tell."
    )
    otherwise = "used"
    asks = "structure"
    shows = True
    settings_type = DecodableSettings
    large = {"most": 3, "draws": 24, "matched": 4}  # noqa: RUF012
    spares: ClassVar[dict[str, int]] = {"most": 2, "matched": 4}

    def ask(self, case: Case) -> list[Trial]:
        """One reading per subject."""
        if not case.known(case.plan.baselines()):
            return []
        return [self._trial(case.plan, subject) for subject in case.plan.subjects]

    def most(self, plan: Plan) -> int:
        """One per subject."""
        return len(plan.subjects)

    def most_passes(self, plan: Plan) -> float:
        """As if every factor that the task knows could be read off every layer that may be looked at."""
        classes = plan.sizes.factors
        if not classes:
            return 0.0
        half = (plan.task.examples + 1) // 2 / plan.task.examples
        return sum(1.0 + half * (3 + 3 * _OPTIONS + self._runs(subject, classes)) for subject in plan.subjects)

    def _runs(self, subject: SubjectRecord, classes: tuple[int, ...]) -> int:
        """Most passes over half of the examples with something taken away, of one subject.

        Factors of one rank share their random subspaces, as many for each of them; a rank is below the number of
        classes. Beside the factors the model's own answers, of rank 1, are taken away at the last layer.
        """
        how = self.settings
        factors = len(_listed(how.factors)) or len(classes)
        ranks = min(factors, max(classes) - 1)
        layers = len(_listed(how.layers)) or min(how.most, max(len(subject.layers) - 1, 1))
        each, beside = 2 + how.held + min(how.matched, how.draws), 1 + how.draws * factors
        return layers * (factors * each + ranks * beside) + each + beside

    def judge(self, case: Case) -> Verdict:
        """One finding per subject and factor; random labels, random subspaces and its own answers as controls."""
        verdict = Verdict()
        for subject in case.plan.subjects:
            verdict.drafts += self._findings(case, subject)
        verdict.controls += self._controls(case)
        return verdict

    def _trial(self, plan: Plan, subject: SubjectRecord) -> Trial:
        given: dict[str, Scalar] = {name: getattr(self.settings, name) for name in _READING}
        return plan.reading(subject, "decodable", given)

    def _factors(self, case: Case, subject: SubjectRecord) -> dict[str, Factor]:
        read = case.reading(self._trial(case.plan, subject))
        arrays = _by_factor(read)
        if not arrays:
            raise Unanswered(
                "not_applicable",
                "The examples come without factors: labels of what a task could read (task.with_factors; arrays "
                "factor_NAME in an .npz file; factors in the lines of a .jsonl file).",
            )
        layers = _names(subject, read, self.settings)
        labels = {name: mine["labels"] for name, mine in arrays.items() if name != OWN and "labels" in mine}
        known = _Known(layers, labels, int(read["copies"]))
        factors = {name: self._factor(case, name, known, mine) for name, mine in arrays.items()}
        own = {name: factor for name, factor in factors.items() if name == OWN}
        return together(factor for name, factor in factors.items() if name not in own) | own

    def _factor(self, case: Case, name: str, known: "_Known", mine: dict[str, Values]) -> Factor:
        status = int(mine["status"])
        whole = ("status", "classes", "labels", "majority", "targets")
        by_layer = {key: array for key, array in mine.items() if key not in whole}
        count = 0 if status else len(mine["rank"])
        found = tuple(
            Layer(known.layers[at - count], {key: array[at] for key, array in by_layer.items()}, mine["majority"],
                  self.settings)
            for at in range(count)
        )  # fmt: skip
        others = {other: told for other, told in known.labels.items() if other != name}
        return Factor(
            name, status, int(mine["classes"]), mine.get("targets", np.zeros((2, 1))), found, case.plan.alpha,
            mine.get("labels", np.zeros(1)), others, known.copies,
        )  # fmt: skip

    def _findings(self, case: Case, subject: SubjectRecord) -> list[Draft]:
        try:
            factors = self._factors(case, subject)
        except Unanswered as gap:
            return [self.unanswered(subject.name, gap)]
        trial = self._trial(case.plan, subject)
        return [self._finding(subject, factor, trial) for name, factor in factors.items() if name != OWN]

    def _finding(self, subject: SubjectRecord, factor: Factor, trial: Trial) -> Draft:
        words = Words(subject.name, factor, self.settings)
        blank = Finding(
            code=self.code, title=f"{self.title}: {factor.name}", status="not_applicable", subject=subject.name,
            trials=(trial.key,), alarm=False,
        )  # fmt: skip
        if factor.status:
            return Draft(msgspec.structs.replace(blank, because=_WHY_NOT[factor.status]))
        if not any(float(layer["rank"]) >= 0.0 for layer in factor.layers):
            return Draft(msgspec.structs.replace(blank, because=words.too_narrow()))
        if not factor.decodable:
            return self._not_told(blank, factor, words)
        return self._told(blank, factor, words)

    def _not_told(self, blank: Finding, factor: Factor, words: Words) -> Draft:
        """Nowhere decodable, or not shown to be."""
        told = factor.best.told
        least = smallest_detectable(told, alpha=factor.alpha / len(factor.layers), margin=self.settings.decodable)
        # What a single layer's test finds, or its interval holds, is not denied because many layers were looked at.
        seen = all(layer.unseen(self.settings.sight, alpha=factor.alpha) for layer in factor.layers)
        surely = least is not None and least <= self.settings.sight and seen
        finding = msgspec.structs.replace(
            blank,
            status="not_applicable" if surely else "inconclusive",
            estimates=(told, factor.best.accuracy),
            smallest_detectable=least,
            because=words.not_told(least, surely=surely),
        )
        return Draft(finding)

    def _told(self, blank: Finding, factor: Factor, words: Words) -> Draft:
        """Decodable: used or not?"""
        # The other way round a factor that is surely used a little could be called unused: never.
        p = 1.0 if factor.perhaps else factor.unused
        name = f"use of {factor.name}: {factor.most_used.place}"
        tested = msgspec.structs.replace(factor.most_used.use, p=p, name=name)
        seen = smallest_detectable(tested, alpha=factor.alpha)
        finding = msgspec.structs.replace(
            blank,
            status="found",
            estimates=(tested, *estimates(factor)),
            smallest_detectable=seen,
            because=words.unused(),
        )
        if factor.used or factor.moves:
            told = words.used() if factor.used else words.moves()
            return Draft(finding, test=tested, fallback="not_found", otherwise=told)
        return Draft(finding, test=tested, fallback="inconclusive", otherwise=words.open(seen))

    def _controls(self, case: Case) -> list[Control]:
        names = [f"{self.code} {what}" for what in ("random labels", "random subspaces", "the model's own answers")]
        try:
            factors = self._factors(case, case.plan.reference)
        except Unanswered as gap:
            return [Control(name=name, kind="null", status="skipped", because=gap.because) for name in names]
        own = factors.pop(OWN, None)
        measured = [factor for factor in factors.values() if not factor.status]
        return [
            self._random_labels(names[0], measured),
            self._random_subspaces(names[1], [factor for factor in measured if factor.erased]),
            self._own(names[2], own),
        ]

    def _random_labels(self, name: str, factors: list[Factor]) -> Control:
        """Random labels must not be decodable."""
        level, margin = self.settings.null_level, self.settings.null_margin
        if not factors:
            return Control(name=name, kind="null", status="skipped", because="No factor was measured.")
        gains = [
            mean_effect(layer["control"] - layer.majority, level=level, name="above_majority", unit="share")
            for factor in factors
            for layer in factor.layers
        ]
        worst = max(gains, key=lambda gain: gain.low or -1.0)
        return silent(
            name, worst, margin=margin, worth=self.settings.sight, one_sided=True,
            because=f"Labels drawn at random must not be told: at most {worst} more often than by the most frequent "
            f"class ({level:.1%} interval, over {len(gains)} factors and layers); the audit is void if that is surely "
            f"more than {margin:.2g}.",
        )  # fmt: skip

    def _random_subspaces(self, name: str, factors: list[Factor]) -> Control:
        """Random subspaces in the place of the factor's must not all come out as used, nor move the outputs much."""
        settings = self.settings
        wide = [layer for factor in factors for layer in factor.wide]
        ranked = [one for one in factors if one.reachable and len(factors) * one.chance <= 1.0 - settings.null_level]
        if not ranked and not wide:
            why = "Nothing was taken away, or too few random subspaces in layers that are too narrow to prove a fault."
            return Control(name=name, kind="null", status="skipped", because=why)
        used = [sum(held.used for held in factor.held) for factor in ranked]
        failed = any(count == settings.held for count in used) or any(layer.loud for layer in wide)
        layers = wide or [layer for factor in ranked for layer in factor.erased]
        worst = max((layer.share("held", name="use of held-out random subspaces") for layer in layers), key=_value)
        return Control(
            name=name, kind="null", status="failed" if failed else "passed", estimates=(worst,),
            because=of_null(settings, worst, used=used, ranked=ranked, wide=wide)
        )  # fmt: skip

    def _own(self, name: str, own: Factor | None) -> Control:
        """What tells the model's own answers must not come out as unused."""
        if own is None or own.status or not any(layer.erased for layer in own.decodable):
            why = "The options are each example's own, the answers do not vary enough, or a probe does not tell them."
            return Control(name=name, kind="planted", status="skipped", because=why)
        use, wrong = own.layers[0].use, 1.0 - self.settings.null_level
        failed, blind = use.p is not None and use.p <= wrong, own.layers[0].unmoved > wrong
        why = " It could not have failed: so few examples would not show it of outputs that did not move at all."
        return Control(
            name=name, kind="planted", status="failed" if failed else "skipped" if blind else "passed",
            estimates=(use,),
            because="On which side of the middle the model's own answers lie is a factor that it surely uses: without "
            f"it the outputs move {use} of what they move at most. The audit is void if that is surely less than "
            f"{self.settings.margin:g}.{why if blind else ''}",
        )  # fmt: skip


def _names(subject: SubjectRecord, read: dict[str, Values], settings: DecodableSettings) -> list[str]:
    given = tuple(dict.fromkeys(name.strip() for name in settings.layers.split(",") if name.strip()))
    known = {"layers": subject.layers, "blocks": subject.blocks, "named": given}[_KINDS[int(read["kind"])]]
    return [known[int(at)] for at in read["layers"]]


def _value(estimate: Estimate) -> float:
    return estimate.value or 0.0


def _by_factor(read: dict[str, Values]) -> dict[str, dict[str, Values]]:
    """The arrays of each factor; a name may hold the mark that stands between it and theirs."""
    found: dict[str, dict[str, Values]] = {}
    for key, array in read.items():
        name, mark, own = key.rpartition("|")
        if mark:
            found.setdefault(name, {})[own] = array
    return found


def _listed(text: str) -> list[str]:
    """Names separated by commas."""
    return [name for name in text.split(",") if name.strip()]
