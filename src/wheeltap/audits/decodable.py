"""WT203: which factors can a linear probe read off a layer although the outputs do not hang on them?"""

from collections.abc import Sequence
from typing import Final, final

import msgspec
import numpy as np

from wheeltap.audits.base import Audit, Case, Draft, Unanswered, Values, Verdict
from wheeltap.audits.decodable_words import Words, estimates
from wheeltap.audits.factors import DecodableSettings, Factor, Layer
from wheeltap.plans import Plan
from wheeltap.records import Control, Finding, Scalar, SubjectRecord, Trial
from wheeltap.stats.among import above_draws
from wheeltap.stats.effect import exceeds, mean_effect, smallest_detectable

OWN: Final = "the model's own answers"
"""The reading's name for the factor that every model uses."""

_KINDS: Final = ("layers", "blocks", "named")

_WHY_NOT: Final = {
    1: "It has one class only, so there is nothing to tell apart.",
    2: "One of its classes has too few examples to fit a probe on one half and measure it on the other.",
    3: "It has more classes than its examples can carry: some have too few in one half.",
}

_GUESSED_FACTORS: Final = 3
"""For the cost of a plan, which does not know the factors."""


_READING: Final = ("factors", "layers", "most", "draws", "matched", "controls", "per_class")


@final
class DecodableAudit(Audit):
    """Factors that a probe reads off hidden layers, and what the outputs lose with the subspaces that tell them."""

    name = "decodable"
    code = "WT203"
    title = "Decodable but unused"
    settings_type = DecodableSettings
    large = {"most": 3, "draws": 24, "matched": 4}  # noqa: RUF012

    def ask(self, case: Case) -> list[Trial]:
        """One reading per subject."""
        if not case.known(case.plan.baselines()):
            return []
        return [self._trial(case.plan, subject) for subject in case.plan.subjects]

    def most(self, plan: Plan) -> int:
        """One per subject."""
        return len(plan.subjects)

    def most_passes(self, plan: Plan) -> float:
        """As if the probe knew three factors, and every subject had as many layers as are looked at."""
        runs = self.settings.draws + self.settings.matched + 3
        return len(plan.subjects) * self.settings.most * _GUESSED_FACTORS * runs / 2

    def judge(self, case: Case) -> Verdict:
        """One finding per subject and factor; random labels, random subspaces and its own answers as controls."""
        verdict = Verdict()
        for subject in case.plan.subjects:
            verdict.drafts += self._findings(case, subject)
        verdict.controls += self._controls(case)
        return verdict

    def _trial(self, plan: Plan, subject: SubjectRecord) -> Trial:
        given: dict[str, Scalar] = {name: getattr(self.settings, name) for name in _READING}
        return plan.trial(subject, "decodable", settings=given)

    def _factors(self, case: Case, subject: SubjectRecord) -> dict[str, Factor]:
        read = case.reading(self._trial(case.plan, subject))
        names = [key.rpartition("|")[0] for key in read if key.endswith("|status")]
        if not names:
            raise Unanswered(
                "not_applicable",
                "The examples come without factors: labels of what a probe could read (probe.with_factors; arrays "
                "factor_NAME in an .npz file; factors in the lines of a .jsonl file).",
            )
        layers = _names(subject, read, self.settings)
        labels = {name: read[f"{name}|labels"] for name in names if name != OWN and f"{name}|labels" in read}
        return {name: self._factor(case, name, layers, read, labels) for name in names}

    def _factor(
        self, case: Case, name: str, layers: Sequence[str], read: dict[str, Values], labels: dict[str, Values]
    ) -> Factor:
        mine = {key.rpartition("|")[2]: array for key, array in read.items() if key.startswith(f"{name}|")}
        status = int(mine["status"])
        whole = ("status", "classes", "labels", "majority", "targets")
        by_layer = {key: array for key, array in mine.items() if key not in whole}
        count = 0 if status else len(mine["rank"])
        found = tuple(
            Layer(layers[at - count], {key: array[at] for key, array in by_layer.items()}, mine["majority"],
                  self.settings)
            for at in range(count)
        )  # fmt: skip
        others = {other: known for other, known in labels.items() if other != name}
        return Factor(
            name, status, int(mine["classes"]), mine.get("targets", np.zeros((2, 1))), found, case.plan.alpha,
            mine.get("labels", np.zeros(1)), others,
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
        surely = least <= self.settings.sight
        finding = msgspec.structs.replace(
            blank,
            status="not_applicable" if surely else "inconclusive",
            estimates=(told, factor.best.accuracy),
            smallest_detectable=least if np.isfinite(least) else None,
            because=words.not_told(least, surely=surely),
        )
        return Draft(finding)

    def _told(self, blank: Finding, factor: Factor, words: Words) -> Draft:
        """Decodable: used or not?"""
        margin = self.settings.margin
        # The other way round a factor that is surely used a little could be called unused: never.
        p = 1.0 if factor.used else factor.unused
        tested = msgspec.structs.replace(factor.most_used.use, p=p)
        seen = smallest_detectable(tested, alpha=factor.alpha)
        finding = msgspec.structs.replace(
            blank,
            status="found",
            estimates=(tested, *estimates(factor)),
            smallest_detectable=seen if np.isfinite(seen) else margin,
            because=words.unused(),
        )
        if factor.used or factor.moves:
            told = words.used() if factor.used else words.moves()
            return Draft(finding, test=tested, worth=np.inf, otherwise=told)
        return Draft(finding, test=tested, worth=-1.0, otherwise=words.open(seen))

    def _controls(self, case: Case) -> list[Control]:
        names = [f"{self.code} {what}" for what in ("random labels", "random subspaces", "the model's own answers")]
        try:
            factors = self._factors(case, case.plan.reference)
            distinct = bool(case.reading(self._trial(case.plan, case.plan.reference))["distinct"])
        except Unanswered as gap:
            return [Control(name=name, kind="null", status="skipped", because=gap.because) for name in names]
        own = factors.pop(OWN, None)
        measured = [factor for factor in factors.values() if not factor.status]
        return [
            self._random_labels(names[0], measured if distinct else []),
            self._random_subspaces(names[1], [factor for factor in measured if factor.decodable]),
            self._own(names[2], own),
        ]

    def _random_labels(self, name: str, factors: list[Factor]) -> Control:
        """Random labels must not be decodable."""
        level, margin = self.settings.null_level, self.settings.null_margin
        if not factors:
            why = "Inputs repeat, so random labels can be remembered; or no factor was measured."
            return Control(name=name, kind="null", status="skipped", because=why)
        gains = [
            mean_effect(layer["control"] - layer.majority, level=level, name="above_majority", unit="share")
            for factor in factors
            for layer in factor.layers
        ]
        worst = max(gains, key=lambda gain: gain.low or -1.0)
        failed = exceeds(worst, margin) and (worst.value or 0.0) > 0.0
        return Control(
            name=name, kind="null", status="failed" if failed else "passed", estimates=(worst,),
            because=f"Labels drawn at random must not be told: at most {worst} more often than by the most frequent "
            f"class ({level:.1%} interval, over {len(gains)} factors and layers); the audit is void if that is surely "
            f"more than {margin:.2g}.",
        )  # fmt: skip

    def _random_subspaces(self, name: str, factors: list[Factor]) -> Control:
        """A random subspace in the place of the factor's must not come out as used more often than alpha."""
        shares = [_drawn_as_used(factor) for factor in factors]
        told = [share for share in shares if share is not None]
        if not told:
            why = "Nothing was taken away, as no factor is decodable."
            return Control(name=name, kind="null", status="skipped", because=why)
        worst, alpha = max(told), factors[0].alpha
        return Control(
            name=name, kind="null", status="failed" if worst > alpha else "passed",
            because=f"Each random subspace was put in the place of the factor's: at most {worst:.1%} of "
            f"{self.settings.draws} came out as used (allowed: {alpha:.0%}).",
        )  # fmt: skip

    def _own(self, name: str, own: Factor | None) -> Control:
        """What tells the model's own answers must not come out as unused."""
        if own is None or own.status or not any(layer.erased for layer in own.decodable):
            why = "The options are each example's own, the answers do not vary enough, or a probe does not tell them."
            return Control(name=name, kind="planted", status="skipped", because=why)
        use, wrong = own.layers[0].use, 1.0 - self.settings.null_level
        failed = use.p is not None and use.p <= wrong
        return Control(
            name=name, kind="planted", status="failed" if failed else "passed", estimates=(use,),
            because="On which side of the middle the model's own answers lie is a factor that it surely uses: without "
            f"it the outputs move {use} of what they move at most. The audit is void if that is surely less than "
            f"{self.settings.margin:g}.",
        )  # fmt: skip


def _names(subject: SubjectRecord, read: dict[str, Values], settings: DecodableSettings) -> list[str]:
    given = tuple(dict.fromkeys(name.strip() for name in settings.layers.split(",") if name.strip()))
    known = {"layers": subject.layers, "blocks": subject.blocks, "named": given}[_KINDS[int(read["kind"])]]
    return [known[int(at)] for at in read["layers"]]


def _drawn_as_used(factor: Factor) -> float | None:
    """Share of random subspaces that come out as used when each is held against the others."""
    erased = [layer["random"].mean(1) for layer in factor.decodable if layer.erased]
    if not erased:
        return None
    draws = np.stack(erased)
    told = [above_draws(draws[:, at], np.delete(draws, at, axis=1)) for at in range(draws.shape[1])]
    return float(np.mean([p <= factor.alpha for p in told]))
