"""WT401 to WT405: is a dictionary better than dictionaries that know nothing, at what dictionaries are for?

A score of the dictionary is held against the same score of nulls, row by row. It is better only where it lies beyond
what one more null of every kind would get; it is no better where its lead over some kind is shown to be within the
margin.

Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366 (the three tests); arXiv:2602.14111 (frozen decoders that score
as well).
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.base import Case, Hypothesis, NoAnswer, Verdict
from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import Words
from wheeltap.audits.controls import Check, silent, surely
from wheeltap.core.plain import fixed
from wheeltap.core.records import Control, Estimate, Scalar, SubjectRecord, Trial
from wheeltap.core.section import Block, Cell, Section, Table, Text
from wheeltap.plans.plan import Plan
from wheeltap.stats.sample import Sample
from wheeltap.suites.dictionaries import specs
from wheeltap.suites.dictionaries.audits.common import (
    CONTROLS,
    INTERPRETABLE,
    SUFFICIENT,
    BesideNullsAudit,
    DictionaryAudit,
    called,
    means_of,
)
from wheeltap.suites.dictionaries.audits.scores import (
    SHARE,
    Scores,
    by_attribute,
    edited,
    f1_of,
    joined,
    reconstructed,
)

AUDITS: Final = (
    "dictionary-sufficient", "dictionary-control", "dictionary-interpretable", "dictionary-disturbed",
    "dictionary-splitting",
)  # fmt: skip


@final
class DictionarySufficientAudit(BesideNullsAudit):
    """What reconstructions keep of the task, and what is lost with the rest."""

    name = "dictionary-sufficient"
    code = "WT401"
    title = SUFFICIENT
    more = ("Dictionary is necessary",)
    reads = (
        "The site's vectors are replaced by what the dictionary makes of them, and by what it leaves out. 1: the "
        "answers are as sure as before (of what is left out: no surer than with the mean vector). Nulls are put there "
        "in the same way: the lead over them is what the dictionary adds."
    )
    reading = specs.DICTIONARY_RECONSTRUCTION
    what = "Kept by reconstructions"
    bounded: ClassVar[bool] = False

    def scores(self, read: Arrays) -> Scores:
        """See ``reconstructed``."""
        return reconstructed(read)[0]

    def judged(self, one: Scores) -> Scores:
        """The share, less twice what it has beyond 1 and the margin: answers that are surer than before are not kept.

        Else a dictionary that makes vectors too long would lead over every null.
        """
        beyond = max(one.mean - 1.0 - self.settings.margin, 0.0)
        return replace(one, values=one.values - 2.0 * beyond)

    def singles(self, case: Case, subject: SubjectRecord, read: Arrays) -> list[Hypothesis]:
        """Also necessity: measured, for what reconstructs nothing lacks all as well."""
        lost = self.known(case, subject, lambda read: reconstructed(read)[1])
        own = self.effect(case, reconstructed(read)[1], "lost with what is left out")
        said = f"With what the dictionary leaves out, {own} of the margin is lost; {means_of(lost)}."
        return [*super().singles(case, subject, read), measured(self.more[0], said, own)]

    def judge(self, case: Case) -> Verdict:
        """Also what the report says beside its findings."""
        verdict = super().judge(case)
        if self.settings.notes and verdict.drafts:
            *rest, last = verdict.drafts
            because = f"{last.finding.because}\n\n{self.settings.notes}"
            noted = replace(last, finding=msgspec.structs.replace(last.finding, because=because))
            verdict.drafts = [*rest, noted]
        return verdict


def measured(title: str, said: str, *beside: Estimate) -> Hypothesis:
    """A claim that is no test."""
    return Hypothesis(title=title, status="measured", alarm=False, by_example=False, beside=beside, found=said)


@final
class DictionaryControlAudit(BesideNullsAudit):
    """Whether edits of few features change one attribute as an exact patch does."""

    name = "dictionary-control"
    code = "WT402"
    title = CONTROLS
    reads = (
        "A few features are taken out of a vector and others put in, so that it comes nearest to the vector of an "
        "example that differs in one attribute alone. Scored is how often the answer is that of the exact patch, where "
        "the patch changes it."
    )
    reading = specs.DICTIONARY_CONTROL
    bound: ClassVar[float | None] = 1.0
    what = "Edits that agree with the exact patch"

    def scores(self, read: Arrays) -> Scores:
        """See ``edited``."""
        return edited(read, least=self.settings.least)

    def checks(self, case: Case) -> list[Check]:
        """Also: supervised codes must be found better than random ones."""
        return [*super().checks(case), (f"{self.code} supervised codes control", "planted", partial(self._plant, case))]

    def _plant(self, case: Case, name: str) -> Control:
        known = self.known(case, case.plan.reference)
        plants = [one for kind in specs.SUPERVISED for one in known.get(kind, [])]
        nulls = known.get("random", [])
        if not plants or len(nulls) < 2:
            raise NoAnswer("skipped", "It takes a supervised dictionary and two random ones that can be edited here.")
        best = max(plants, key=lambda one: one.mean)
        beside = self.beside(case, "random", best, nulls)
        low, high = (None, None) if beside.lead.law is None else beside.lead.law.interval(1.0 - _PLANTED)
        effect = msgspec.structs.replace(beside.lead.estimate, low=low, high=high, level=_PLANTED)
        # Where attributes do not add up at a site, exact values control nothing: no fault of the instrument.
        passed = low is not None and low > self.settings.margin
        because = (
            f"Features that are the values themselves agree in {fixed(best.mean, 3)} of the edits (one out, one in), "
            f"random ones in {fixed(beside.score, 3)}: {effect} more.{'' if passed else _NOT_PLANTED}"
        )
        return Control(name=name, kind="planted", status="passed" if passed else "skipped", estimates=(effect,),
                       because=because)  # fmt: skip


_PLANTED: Final = 0.998  # confidence with which the planted control passes

_NOT_PLANTED: Final = (
    " Not found: the values do not add up in this site's vectors, or there are too few pairs or random dictionaries to "
    "show it. Then no edit that fails says anything against a dictionary."
)


@final
class DictionaryInterpretableAudit(BesideNullsAudit):
    """Whether single features stand for values of attributes."""

    name = "dictionary-interpretable"
    code = "WT403"
    title = INTERPRETABLE
    more = ("What interpretable features do",)
    reads = (
        "For every value of an attribute that feature is taken which fits it best on half of the examples; its F1 on "
        "the other half is scored. The best of many random features fits too: only the lead over nulls with as many "
        "features says something."
    )
    reading = specs.DICTIONARY_FEATURES
    what = "F1 of the best feature of a value"

    def scores(self, read: Arrays) -> Scores:
        """See ``f1_of``."""
        return f1_of(read)

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """Also what the page shows."""
        return [*super().readings(plan, subject), *self._views(plan, subject).values()]

    def _views(self, plan: Plan, subject: SubjectRecord) -> dict[str, Trial]:
        return {
            self.kinds[at]: plan.reading(subject, specs.DICTIONARY_VIEW.name, {"entry": at}) for at in self.one_of_each
        }

    def judge(self, case: Case) -> Verdict:
        """Also the features of the dictionary and of nulls, side by side."""
        verdict = super().judge(case)
        for subject in case.plan.subjects:
            found = dict[str, Arrays]()
            for kind, trial in self._views(case.plan, subject).items():
                with suppress(NoAnswer):
                    found[kind] = case.reading(trial)
            verdict.sections += [section(subject.name, case.plan.task.name, found)] if found else []
        return verdict

    def singles(self, case: Case, subject: SubjectRecord, read: Arrays) -> list[Hypothesis]:
        """Also what is left of the margin with interpretable features alone, or without them, beside others."""
        margin = {name: read["margin"][at] for at, name in enumerate(specs.PARTS)}
        drop = float((margin["clean"] - margin["mean"]).mean())
        count, live = int(read["interpretable"]), len(read["features"])
        of, claims = f"Of {live:,} live features {count:,} are interpretable by an attribute.", super().singles
        if drop <= 0.0 or not count:
            none = Hypothesis(title=self.more[0], status="not_applicable", found=of, alarm=False)
            return [*claims(case, subject, read), none]
        left = [
            self.effect(case, Scores((margin[part] - margin["mean"]) / drop, np.arange(len(margin[part]))), words)
            for part, words in _PARTS.items()
            if "others" not in part or live - count >= count
        ]
        said = f"{of} Left of the margin: {'; '.join(f'{one.name} {one}' for one in left)}."
        return [*claims(case, subject, read), measured(self.more[0], said, *left)]


_PARTS: Final = {"kept": "kept alone", "others kept": "as many others kept alone", "removed": "removed",
                 "others removed": "as many others removed"}  # fmt: skip


_SHOWN: Final = 90  # letters of an example that are shown


def section(subject: str, task: str, known: Mapping[str, Arrays]) -> Section:
    """Features of a dictionary and of nulls side by side, from the readings ``dictionary-view`` by kind."""
    heads = ("Feature", "Active", "Margin lost without it (logits)", "Answers changed", "Top examples (code)")
    blocks: list[Block] = [Text(text=_SIDE_BY_SIDE, place="page")]
    for kind, read in known.items():
        texts = msgspec.json.decode(bytes(read["texts"].astype("uint8").tolist()), type=list[list[str]])
        tops = ("; ".join(f"{text[:_SHOWN]} ({fixed(float(code), 2)})" for text, code in zip(*one, strict=True))
                for one in zip(texts, read["codes"], strict=True))  # fmt: skip
        rows = tuple(
            (f"feature {int(feature)}", f"{100 * active:.0f} %", fixed(float(lost), 3), f"{100 * changed:.0f} %",
             Cell(note=top))  # a note folds, where a text beside numbers would not
            for feature, active, lost, changed, top in zip(
                *(read[name] for name in ("features", "frequency", "lost", "changed")), tops, strict=True)
        )  # fmt: skip
        title = called(kind)
        blocks.append(Table(title=title[:1].upper() + title[1:], heads=heads, rows=rows))
    return Section(title=f"Features of {subject}, {task}", subject=subject, blocks=tuple(blocks))


_SIDE_BY_SIDE: Final = (
    "The features that add most to reconstructions, with the examples where each is most active, and what happens to "
    "the answers of these and all others where it is active once it is removed. Nulls beside it: features without "
    "training have top examples too."
)


_SURVIVES: Final = Words("does not survive", "survives", "may not survive")
_TWIN, _REWRITTEN = "gauge twin", "gauge twin, rewritten"

_TWIN_MEANS: Final = (
    " The twin computes the same function: features are of the way the net is written, and another writing of it has "
    "others. Lost with the dictionary in the twin's basis: "
)

_NO_GAUGE: Final = "No gauge is known that moves this site's vectors and leaves the function as it is."


@final
class DictionaryDisturbedAudit(DictionaryAudit):
    """Whether features, and what they are used for, survive changes of the net."""

    name = "dictionary-disturbed"
    code = "WT404"
    title = "Dictionary after a change of the net"
    reads = (
        "The net is disturbed and the same dictionary is used on it: how many edits that agreed before do not agree "
        "any more. A gauge twin computes the same function with its vectors in another basis: what a dictionary loses "
        "there it never had of the function, only of how the net is written."
    )
    reading = specs.DICTIONARY_DISTURBED
    each: ClassVar[float] = 60.0

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """One, of the dictionary and of one null of each of two kinds."""
        return [self.trial(plan, subject)] if self.kinds else []

    def trial(self, plan: Plan, subject: SubjectRecord, *, seed: int = 0, **changed: Scalar) -> Trial:
        """See ``SingleReadingAudit.trial``."""
        return super().trial(plan, subject, seed=seed, dictionaries=",".join(map(str, self.one_of_each)))

    def titles(self) -> tuple[str, ...]:
        """One for each disturbance."""
        return tuple(f"{self.title}: {words}" for words in specs.DISTURBANCES[1:-1])

    def singles(self, case: Case, subject: SubjectRecord, read: Arrays) -> list[Hypothesis]:
        """A claim for each disturbance."""
        each = {self.kinds[entry]: _of(read, at) for at, entry in enumerate(self.one_of_each)}
        return [self._claim(case, each, words) for words in specs.DISTURBANCES[1:-1]]

    def _lost(self, read: Arrays, words: str) -> Scores:
        """Of edits that agreed before, and whose answer an exact patch changes: whether they do not now, pair by pair.

        Raises:
            NoAnswer: If there are too few of them, or no such gauge.
        """
        if words in (_TWIN, _REWRITTEN) and specs.GAUGES[int(read["gauge"])] == "none":
            raise NoAnswer("not_applicable", _NO_GAUGE)
        at, parts = specs.DISTURBANCES.index(words), dict[str, Scores]()
        for name, mine in by_attribute(read).items():
            moved, agree = ~mine["unedited"][0].astype(bool), mine["agree"].astype(np.float64)
            before = moved & (agree[0] > 0.0)
            parts[name] = Scores(1.0 - agree[at][before], mine["rows"][before])
        if (count := sum(len(one.values) for one in parts.values())) < self.settings.least:
            raise NoAnswer("not_applicable", f"Before the change {count} edits agreed where an exact patch changes the "
                           f"answer, and {self.settings.least} are needed: there is nothing to lose.")  # fmt: skip
        return joined(parts)

    def _claim(self, case: Case, read: Mapping[str, Arrays], words: str) -> Hypothesis:
        title, own, known = f"{self.title}: {words}", read["own"], dict[str, list[Scores]]()
        for kind, one in read.items():
            try:
                known[kind] = [self._lost(one, words)]
            except NoAnswer as gap:
                if kind == "own":
                    return Hypothesis(title=title, status=gap.status, found=gap.because, alarm=False)
        [scores] = known["own"]
        sample = Sample(scores.values[None], bound=1.0, groups=case.groups_of(scores.rows))
        lost = sample.effect(margin=self.settings.margin, name="edits lost", unit=SHARE)
        kept, how = float(own["correlation"][specs.DISTURBANCES.index(words)]), specs.GAUGES[int(own["gauge"])]
        numbers = (
            f"Edits lost{f' ({how} of the site)' if words == _TWIN else ''}: {lost}"
            f"{'; ' if len(known) > 1 else ''}{means_of(known)}. Live features keep a correlation of {fixed(kept, 3)} "
            "with themselves."
        )
        back = f"{_TWIN_MEANS}{fixed(self._lost(own, _REWRITTEN).mean, 3)}." if words == _TWIN else ""
        return Hypothesis(
            test=lost, margin=self.settings.margin, evidence=sample, words=_SURVIVES, one_sided=True, alarm=False,
            title=title, beside=(Estimate.exact("correlation of live features", kept, "correlation"),),
            found=f"The dictionary does not survive: {words}. {numbers}{back}", otherwise=numbers,
        )  # fmt: skip

    def checks(self, case: Case) -> list[Check]:
        """A dictionary that is rewritten along with the net must lose nothing."""
        return [(f"{self.code} a dictionary rewritten with the net", "null", partial(self._rewritten, case))]

    def _rewritten(self, case: Case, name: str) -> Control:
        read, margin = _of(self.read(case, case.plan.reference), 0), self.settings.margin
        scores = self._lost(read, _REWRITTEN)
        # The same computation in another basis: no pair need differ, so no bound widens the interval.
        sample = Sample(scores.values[None], groups=case.groups_of(scores.rows))
        gap = sample.effect(margin=margin, name="edits lost", unit=SHARE)
        because = f"In the gauge twin, with the dictionary in its basis, edits lost: {gap}; it must be nothing."
        return surely(silent(name, gap, margin=margin, min_effect=self.settings.min_effect, because=because), gap)


def _of(read: Arrays, at: int) -> Arrays:
    """What was read of one of several dictionaries."""
    each = {name for name in read if name == "correlation" or name.endswith("|agree")}
    return {name: array[at] if name in each else array for name, array in read.items()}


@final
class DictionarySplittingAudit(DictionaryAudit):
    """Over how many features a value is split, and which attributes are left out."""

    name = "dictionary-splitting"
    code = "WT405"
    title = "Splitting and occlusion"
    reads = (
        "How many features it takes to cover the examples of a value: more than one is over-splitting. How much of an "
        "attribute's part of the vectors reconstructions keep: little, of a small part, is occlusion by larger ones."
    )
    reading = specs.DICTIONARY_FEATURES

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """Of the dictionary, and of one null of each of two kinds."""
        return [self.trial(plan, subject, entry=entry) for entry in self.one_of_each]

    def singles(self, case: Case, subject: SubjectRecord, read: Arrays) -> list[Hypothesis]:
        """Measured, attribute by attribute."""
        each = {self.kinds[entry]: by_attribute(self.read(case, subject, entry=entry)) for entry in self.one_of_each}
        if not each["own"]:
            raise NoAnswer("not_applicable", "No attribute of the task could be measured.")
        return [self._measured(name, each) for name in each["own"]]

    def _measured(self, name: str, read: Mapping[str, Mapping[str, Arrays]]) -> Hypothesis:
        parts, beside = list[str](), list[Estimate]()
        for kind, mine in ((called(kind), attributes[name]) for kind, attributes in read.items() if name in attributes):
            covered, values, kept = mine["needed"][mine["needed"] > 0], len(mine["needed"]), float(mine["retained"])
            beside += [Estimate.exact(f"values covered, {kind}", len(covered) / values, SHARE, n=values),
                       Estimate.exact(f"kept of the attribute, {kind}", kept, SHARE)]  # fmt: skip
            by = ""
            if len(covered):
                mean, what = float(covered.mean()), f"features of a covered value, {kind}"
                by = f", by {fixed(mean, 1)} features in the mean"
                beside.append(Estimate.exact(what, mean, "features", n=len(covered)))
            parts.append(f"Of {kind}, {len(covered)} of {values} values are covered{by}; {fixed(kept, 3)} of the "
                         "attribute's part is kept.")  # fmt: skip
        size = fixed(float(read["own"][name]["size"]), 3)
        said = f"The attribute {name} is {size} of the vectors' variance. {' '.join(parts)}"
        return measured(f"{self.title}: {name}", said, *beside)
