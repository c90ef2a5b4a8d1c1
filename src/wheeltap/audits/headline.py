"""The answer in one sentence for each model or pair: what it costs to ship it, and what stays open."""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import final

from wheeltap.audits.base import Answer, pair
from wheeltap.audits.case import TOO_FEW
from wheeltap.audits.losses import GROWN, LIKELIHOODS
from wheeltap.audits.sample_sizes import TELL, enough_for, enough_for_each
from wheeltap.audits.score import DIFFERENCE, SAME_OUTPUTS
from wheeltap.audits.slices import part_of
from wheeltap.core.plain import fixed
from wheeltap.core.records import Estimate, Finding, Instrument, SubjectRecord, TaskRecord
from wheeltap.core.section import Section
from wheeltap.plans.plan import ALPHA, Plan
from wheeltap.stats.draws import WITHIN

FULL = 0.9
"""Share of the weights from which a report need not begin with what was left alone."""

ENOUGH = 0.5
"""Share of the weights below which nothing is concluded of the model."""

_UNANSWERED = ("error", "not_applicable", "skipped")
"""Statuses of findings whose numbers, if any, say nothing."""

SINGLE = "worst-weight"
"""Scheme of what removes one number at a time: it says nothing of what share a disturbance of all weights reaches."""

MEASURED = "What was measured:"
"""What follows it, in a reason, is no answer."""

READ = ("census", "file")
"""Questions whose answers are read in the weights: a control that fails says nothing about them."""

_NAMED = 3
"""How many schemes a sentence names before it counts the rest."""


_SAME_OUTPUTS = "same outputs"

SAME = "Same outputs: weights written differently (a conversion), or that cancel."
"""What that means, once for all pairs."""


OwnLines = tuple[Sequence[str], Sequence[str]]
"""Lines of a headline that audits make themselves: those that stand before what is said of the models, and after it."""


def headline(
    plan: Plan,
    findings: Sequence[Finding],
    instruments: Sequence[Instrument],
    *,
    void: bool,
    own: OwnLines = ((), ()),
    same: Set[str] = frozenset(),
) -> str:
    """One line for a single model, one for each pair of a comparison, the most alarming first.

    Before them, whatever a control says, a line for each model with weights that stand out by their size.

    Args:
        plan: With the models.
        findings: Settled.
        instruments: Their words.
        void: Whether a control failed.
        own: See ``own_lines``.
        same: Names of the models that give the outputs of the first one.
    """
    before, after = own
    if plan.reference.role == "recorded":
        return "\n".join([*before, *after]) or f"Nothing was asked of {', '.join(one.name for one in plan.subjects)}."
    text = _Sentences(plan, findings, {one.code: one for one in instruments}, bool(before or after), same)
    first = text.outliers()
    if void:
        return "\n".join(["VOID: a control failed, so this run proves nothing about the model.", *first])
    first = [*before, *first]
    if len(plan.subjects) == 1:
        return "\n".join([*first, *filter(None, [text.of_one(plan.reference)]), *after])
    lines = [line for _, line in sorted((text.of_pair(rival) for rival in plan.subjects[1:]), key=lambda one: -one[0])]
    first_same = next((at for at, line in enumerate(lines) if len(lines) > 1 and _SAME_OUTPUTS in line), None)
    if first_same is not None:  # explained once, where it is first read
        lines[first_same] = f"{lines[first_same]} {SAME}"
    return "\n".join([*first, *filter(None, lines), *after])


def own_lines(
    plan: Plan,
    findings: Sequence[Finding],
    instruments: Sequence[Instrument],
    answers: Mapping[str, Answer],
    sections: Sequence[Section],
) -> OwnLines:
    """What audits say of their findings in words of their own: what is about a benchmark comes last.

    Args:
        plan: With the subjects.
        findings: Settled.
        instruments: Their words.
        answers: Of such audits, by code.
        sections: What the report shows beside the findings.
    """
    before, after = list[str](), list[str]()
    last = {one.code for one in instruments if one.asks == "benchmark"}
    for answer in dict.fromkeys(answers.values()):
        mine = [finding for finding in findings if answers.get(finding.code) == answer]
        if mine:
            (after if any(one.code in last for one in mine) else before).extend(answer(plan.subjects, mine, sections))
    return before, after


def at_level(answer: str, alpha: float) -> str:
    """An answer, with the level of its verdicts behind its first line where that is not the usual one."""
    first, *others = answer.split("\n")
    said = f"Level {alpha:g}: a false alarm in up to {100 * alpha:.3g} % of such reports, a false reassurance likewise."
    return answer if alpha == ALPHA else "\n".join([*filter(None, [first]), said, *others])


def percent(share: float) -> str:
    """A share of the weights, rounded down, so that 99.6 % never reads as all; the same in every sentence."""
    return f"{int(100 * share + _EXACT)} %"


_EXACT = 1e-6
"""What the arithmetic of a share may take off a whole percent."""


def of_all(findings: Sequence[Finding]) -> list[Finding]:
    """Those with a share of the weights that their disturbances reached; where there are none, of single numbers."""
    known = [finding for finding in findings if finding.coverage is not None]
    return [finding for finding in known if finding.scheme != SINGLE] or known


def amount(value: float, task: TaskRecord) -> str:
    """A loss of score in the words of its measure: points, for a share of right answers."""
    return f"{fixed(100 * value, 1)} points" if task.in_points else f"{value:.3g} {task.measure}"


@final
@dataclass(frozen=True)
class _Sentences:
    """What findings say of one model or pair at a time; ``lined``: whether something has lines of its own."""

    plan: Plan
    findings: Sequence[Finding]
    instruments: dict[str, Instrument]
    lined: bool
    same: Set[str] = frozenset()

    def _mine(self, name: str, *asks: str) -> list[Finding]:
        """Findings on a subject or pair whose question is one of these kinds."""
        return [f for f in self.findings if f.subject == name and self._asks(f) in asks]

    def _asks(self, finding: Finding) -> str:
        asks = self.instruments[finding.code].asks if finding.code in self.instruments else ""
        sets = {one.name for one in self.plan.task.sets} if asks == "slices" else set[str]()
        return "sets" if part_of(finding)[1] in sets else asks

    @property
    def _together(self) -> str:
        """What pooled rows of several sets are: a statistic such as F1 is taken within each set."""
        if self.plan.task.range is None:
            return "Together, each example counting the same: "
        return f"Together, the mean of the sets' {self.plan.task.measure} weighted by examples: "

    def outliers(self) -> list[str]:
        """What the census found, a line for each of the first models; then what is wrong with files."""
        rows = _with([f for f in self.findings if self._asks(f) == "census"], "found")
        more = [f"OUTLIER WEIGHTS in {len(rows) - _NAMED} more models."] if len(rows) > _NAMED else []
        found = [*(f"OUTLIER WEIGHT in {row.said}" for row in rows[:_NAMED]), *more]
        files = _with([f for f in self.findings if self._asks(f) == "file"], "found")
        more = [f"DAMAGED: {len(files) - _NAMED} more files."] if len(files) > _NAMED else []
        return [*found, *(f"DAMAGED FILE: {row.said}" for row in files[:_NAMED]), *more]

    # ---- one model --------------------------------------------------------------------------------------------

    def of_one(self, subject: SubjectRecord) -> str:
        """What it costs to ship it; what else was found."""
        score, sets = next(iter(self._mine(subject.name, "score")), None), self._sets(subject.name)
        if score is not None and (score.status == "found" or score.verdict == TOO_FEW):
            return " ".join(filter(None, (sets, f"{score.verdict.upper()}: {score.because}")))
        rows = self._mine(subject.name, "deployment")
        files = [f for f in self._mine(subject.name, "file") if f.status != "found"]
        read = " ".join(f.said for f in files[:_NAMED]) if not rows else ""
        hidden, known = self._hidden(rows, subject.name), self._slices(rows, subject.name)
        first = self._together if sets else "On average: " if hidden else ""
        average = f"{first}{self._shipping(rows)}"
        said = [self._partly(subject), sets, hidden, average, known, self._others(subject.name), read]
        if not any(said[1:]) and not self._mine(subject.name, "file"):
            known = f"{subject.name} scores {score.estimates[0]}" if score and score.estimates else subject.name
            if not self.lined:
                said.append(f"{known}: nothing else was asked.")
            elif known != subject.name:  # a name alone says nothing: what was asked has lines of its own
                said.append(f"{known}.")
        return " ".join(part for part in said if part)

    def _partly(self, *subjects: SubjectRecord) -> str:
        """Say what share of the weights was disturbed, if that is not nearly all; and in which rows, if not in all.

        A converted copy is run as it ships, so its rows have no such share.
        """
        names = {subject.name for subject in subjects} | {pair(self.plan.reference, subject) for subject in subjects}
        rows = [finding for finding in self.findings if finding.subject in names]
        shares = [(finding.coverage or 0.0, finding) for finding in of_all(rows)]
        least = min((share for share, _ in shares), default=1.0)
        if least >= FULL:
            return ""
        partial = [finding for share, finding in shares if share < FULL]
        if not (self.plan.partial or any(finding.partly for finding in partial)):
            return f"Left alone: {percent(1.0 - least)} of the weights, less than a tenth without biases and norms."
        others = [row for row in rows if row.scheme and row.coverage is None and row.status not in _UNANSWERED]
        everywhere = len(partial) == len(shares) and not others
        return f"ONLY {percent(least)} OF THE WEIGHTS WERE DISTURBED{'' if everywhere else f' {_at(partial)}'}."

    def _shipping(self, rows: Sequence[Finding]) -> str:
        if not rows:
            return ""
        costs, safe = _with(rows, "found"), _with(rows, "excluded")
        leaning = [row for row in rows if row.leaning]
        undecided = [row for row in rows if row.status == "inconclusive" and not row.leaning]
        failed, gaps = _with(rows, "error"), [row for row in rows if row.status in _UNANSWERED]
        opened = costs or leaning or undecided
        unanswered = not opened and (failed or not safe)
        if costs:
            start = f"COSTS WHEN SHIPPED: {self._listed(costs, largest=False, verb=True)}."
        elif leaning:
            lost = self._listed(leaning, largest=False, verb=True)
            start = f"MAY COST WHEN SHIPPED: {lost}, not shown to be above or below the margin."
        elif undecided:
            start = f"CANNOT TELL {_at(undecided)}{_would_do(undecided)}."
        elif unanswered:
            start = f"NO ANSWER {_at(gaps)}: {(failed or gaps)[0].because.partition(f' {MEASURED}')[0]}"
        else:
            tried = (
                f"AT {'BOTH' if len(safe) == 2 else f'ALL {len(safe)}'} SCHEMES TRIED" if len(safe) > 1 else _at(safe)
            )
            most = f"loses no more than {amount(safe[0].margin or 0.0, self.plan.task)}"
            if all(map(_grown, safe)):
                most = f"{self.plan.task.reported} grows x {times(margin_of(safe[0]))} at most"
            drawn = [is_drawn(row) for row in safe]
            start = f"SAFE {tried}: {most}{_IN_NINE if all(drawn) else _OF_DRAWN if any(drawn) else ''}."
        beside = [
            f"May cost {_at(leaning)}." if costs and leaning else "",
            f"Cannot tell {_at(undecided)}{_would_do(undecided)}." if (costs or leaning) and undecided else "",
            f"No answer {_at(gaps)}." if gaps and not unanswered else "",
            f"Safe {_at(safe)}." if safe and (opened or unanswered) else "",
        ]
        return " ".join(part for part in (start, *beside) if part)

    def _sets(self, name: str) -> str:
        """Which test sets schemes are safe on and which they cost on, those that lose most first; empty of one set.

        Behind them what is open on a set where another scheme costs: of that set they say only that.
        """
        rows, own = self._mine(name, "sets"), [one.name for one in self.plan.task.sets]
        words = {"found": "COSTS", "leaning": "MAY COST", "inconclusive": "CANNOT TELL", "excluded": "SAFE"}
        costs = sorted(_with(rows, "found") or [row for row in rows if row.leaning], key=lambda row: -_value(row))
        said = dict[str, list[str]]()
        for part in [*dict.fromkeys(part_of(row)[1] for row in costs), *own] if rows else []:
            mine = {"leaning" if row.leaning else row.status for row in rows if part_of(row)[1] == part}
            word = next((word for status, word in words.items() if status in mine), "NO ANSWER")
            said.setdefault(word, []).append(part)
        undecided = [row for row in rows if row.status == "inconclusive" and not row.leaning]
        beside = [row for row in undecided if part_of(row)[1] not in said.get("CANNOT TELL", ())]
        needed = enough_for_each([row for row in undecided if row not in beside], "examples of each")
        listed = [
            f"{word} ON {', '.join(dict.fromkeys(parts))}"
            f"{f' ({needed} {TELL})' if needed and word == 'CANNOT TELL' else ''}"
            for word, parts in sorted(said.items(), reverse=True)
        ]
        leaning = [row for row in rows if row.leaning and row not in costs]
        more = f" May cost {_at(leaning)}." if leaning else ""
        more += f" Cannot tell {_at(beside)}{_would_do(beside)}." if beside else ""
        return f"{', '.join(listed)}{f': {self._listed(costs, verb=True)}' if costs else ''}.{more}" if said else ""

    def _hidden(self, rows: Sequence[Finding], name: str) -> str:
        """Where a scheme costs on a slice and is not found to on average, the largest loss first."""
        average = {row.title: row.status for row in rows}
        costs = sorted(_with(self._mine(name, "slices"), "found"), key=lambda row: -_value(row))
        costs = [row for row in costs if average.get(part_of(row)[0]) != "found"]
        if not costs:
            return ""
        parts = [*dict.fromkeys(part_of(row)[1] for row in costs)]
        named = (
            f"COSTS ON {', '.join(parts[:_NAMED])}{f' AND {len(parts) - _NAMED} MORE' if len(parts) > _NAMED else ''}"
        )
        safe = all(average.get(part_of(row)[0]) == "excluded" for row in costs)
        return f"{'SAFE ON AVERAGE, ' if safe else ''}{named}: {self._listed(costs, verb=True)}."

    def _slices(self, average: Sequence[Finding], name: str) -> str:
        """What the slices say beside that: where schemes lose most that cost on average too, and what stays open."""
        rows, known = self._mine(name, "slices"), {row.title for row in _with(average, "found")}
        if not rows:
            return ""
        failed, costs = _with(rows, "error"), _with(rows, "found")
        worst = [row for row in costs if part_of(row)[0] in known]
        few = [*dict.fromkeys(part_of(row)[1] for row in rows if row.verdict == TOO_FEW)]
        undecided = [row for row in _with(rows, "inconclusive") if row.verdict != TOO_FEW]
        needed = enough_for_each(undecided, "examples of each")
        said = [
            f"Slices: {failed[0].because}" if failed else "",
            f"On slices it loses {self._listed(worst)}." if worst else "",
            "No slice is shown to lose more than the margin." if not costs and undecided else "",
            f"Cannot tell in {len(undecided)} of {len(rows)} slices{f' ({needed} {TELL})' if needed else ''}."
            if undecided
            else "",
            f"Too few examples: {', '.join(few[:_NAMED])}{', ...' if len(few) > _NAMED else ''}." if few else "",
            "Every slice is safe." if all(row.status == "excluded" for row in rows) else "",
        ]
        return " ".join(part for part in said if part)

    def _listed(self, rows: Sequence[Finding], *, largest: bool = True, verb: bool = False) -> str:
        """How much is lost at each of the first rows: in their own order, or the largest loss first."""
        worst = sorted(rows, key=lambda row: -abs(_value(row))) if largest else rows
        grow, task = all(map(_grown, rows)), self.plan.task
        phrases = [
            f"{_grown(row) if grow else amount(abs(_value(row)), task)} {_placed(_lower(where(row)))}"
            for row in worst[:_NAMED]
        ]
        phrases[0] = f"{f'{task.reported} grows' if grow else 'loses'} {phrases[0]}" if verb else phrases[0]
        more = len(worst) - len(phrases)
        return f"{'; '.join(phrases)}{f'; and at {more} more' if more else ''}"

    def _others(self, name: str) -> str:
        """What other questions found, and how many stay undecided."""
        rest = self._mine(name, "weights", "learning", "structure", "merging")
        found = [f for f in _with(rest, "found") if f.alarm]
        shown = [f for f in _with(rest, "found") if not f.alarm and self.instruments[f.code].shows]
        undecided = [f for f in rest if f.status in ("inconclusive", "error")]
        if rest and len(_with(rest, "error")) == len(rest):
            return f"NO ANSWER: {_titles(rest)}: {rest[0].because}"
        said = [f"FOUND: {f.title}. {f.said}" for f in found]
        said += [f"Shown: {_titles(shown)}."] if shown else []
        said += [f"Cannot tell: {_titles(undecided)}."] if undecided else []
        if said:
            return " ".join(said)
        excluded, measured = _with(rest, "excluded"), [f for f in rest if f.status in ("found", "measured")]
        phrases = (
            ("No effect above the margin", excluded),
            ("Only measured", measured),
            ("No answer", [f for f in rest if f.status in _UNANSWERED]),
        )
        return " ".join(f"{words}: {_titles(some)}." for words, some in phrases if some)

    # ---- pairs ------------------------------------------------------------------------------------------------

    def of_pair(self, rival: SubjectRecord) -> tuple[int, str]:
        """How alarming it is, and the sentence: where the two differ, and by how much."""
        name = pair(self.plan.reference, rival)
        score = next(iter(self._mine(name, "score")), None)
        rows, merged = self._mine(name, "deployment"), self._merged(name)
        asked = [*rows, *self._mine(name, "weights", "learning", "structure")]
        differ = [f for f in _with(asked, "found") if f.alarm]
        leaning = [f for f in asked if f.leaning]
        undecided = [f for f in asked if f.status in ("inconclusive", "error") and not f.leaning]
        alike = _with(asked, "excluded")
        if differ:
            rank, verdict = 4, f"DIFFER: {self._worse(rival, differ)}"
        elif leaning:
            rank, verdict = 3, f"MAY DIFFER: {self._worse(rival, leaning)}"
        elif undecided:
            rank, verdict = 2, f"CANNOT TELL {_at(undecided)}{_would_do(undecided)}."
        elif alike:
            margin = amount(alike[0].margin or 0.0, self.plan.task)
            within = f" (within {margin})" if rows else ""
            rank, verdict = 0, f"EQUIVALENT{within} {_at(alike)}."
        elif asked:
            rank, verdict = 1, f"NOT COMPARED: {asked[0].because}"
        else:
            rank, verdict = 1, "" if merged or self.lined else "nothing else was compared."
        scores, cells, worst = self._scores(score, rival), *self._cells(rival)
        if cells:
            average = self._together if self.plan.task.sets else "On average: "
            cells, rank = f"{cells} {average}", max(rank, worst)
            verdict = verdict.replace("EQUIVALENT", "equivalent") if worst else verdict
        phrases = f"{name}: {cells}{scores}{verdict}"
        if not (verdict or merged):  # what else was asked has lines of its own
            phrases = f"{phrases.rstrip('; ')}." if scores else ""
        said = [self._partly(self.plan.reference, rival), phrases]
        said += [costs] if (costs := self._own_costs((self.plan.reference, rival), differ)) else []
        for one in (self.plan.reference, rival):
            hidden = f"{self._sets(one.name)} {self._hidden(self._mine(one.name, 'deployment'), one.name)}".strip()
            said += [f"{'By itself, ' if cells else ''}{one.name}: {hidden}"] if hidden else []
        if differ or leaning:
            said.append(self._conversion(rival, score))
            said.append(f"Cannot tell {_at(undecided)}." if undecided else "")
        if differ or leaning or undecided:
            said.append(f"Equivalent {_at(alike)}." if alike else "")
        return rank, " ".join(part.strip() for part in (*said, merged) if part)

    def _cells(self, rival: SubjectRecord) -> tuple[str, int]:
        """On which test sets and slices the two differ, what is open there, and how alarming that is; empty of none.

        A set or slice where less was compared than of all examples was not compared, whatever else is known of it.
        """
        name, both = pair(self.plan.reference, rival), (self.plan.reference.name, rival.name)
        rows, own = self._mine(name, "sets", "slices"), [one.name for one in self.plan.task.sets]
        pooled = {row.title for row in self._mine(name, "score", "deployment") if row.scheme != SINGLE}
        single = [row for one in both for row in self._mine(one, "slices")]
        words = ("DIFFER", "MAY DIFFER", "CANNOT TELL", "NOT COMPARED", "EQUIVALENT")
        said, bad, unsure = dict[str, list[str]](), list[Finding](), list[Finding]()
        for part in dict.fromkeys([*own, *(part_of(row)[1] for row in (*single, *rows))]) if pooled else ():
            mine = [row for row in rows if part_of(row)[1] == part]
            each = [_with(mine, "found"), [row for row in mine if row.leaning], _with(mine, "inconclusive")]
            gaps = pooled - {part_of(row)[0] for row in mine if row.status not in _UNANSWERED}
            word = next((word for word, some in zip(words, (*each, gaps), strict=False) if some), words[-1])
            said.setdefault(word, []).append(part)
            bad, unsure = [*bad, *(each[0] or each[1])], [*unsure, *(each[2] if word == words[2] else ())]
        bad = _with(bad, "found") or bad
        most, listed = max(_NAMED, len(own)), list[str]()
        for word in (one for one in words if one in said):
            parts, needed = said[word], enough_for_each(unsure, "examples of each") if word == words[2] else ""
            more = f" AND {len(parts) - most} MORE" if len(parts) > most else ""
            listed.append(f"{word} ON {', '.join(parts[:most])}{more}{f' ({needed} {TELL})' if needed else ''}")
        apart = [row for row in bad if part_of(row)[0] == DIFFERENCE]
        phrases = [
            f"{rival.name} scores {amount(abs(_value(row)), self.plan.task)} {'less' if _value(row) > 0.0 else 'more'} "
            f"on {part_of(row)[1]}"
            for row in sorted(apart, key=lambda row: -abs(_value(row)))[:_NAMED]
        ]
        worse = self._worse(rival, [row for row in bad if row not in apart])
        phrases += [worse.removesuffix(".")] if worse else []
        stated = ": ".join(filter(None, (", ".join(listed), "; ".join(phrases))))
        return stated and f"{stated}.", next(
            (rank for word, rank in zip(words, (4, 3, 2, 1), strict=False) if word in said), 0
        )

    def _conversion(self, rival: SubjectRecord, score: Finding | None) -> str:
        """That two models compute the same, so that the difference is in how it is written; empty where they do not."""
        if not self._same(rival, score) or self._said_once(rival, score):
            return ""
        cut = set(self.plan.reference.layers) != set(rival.layers)
        return (
            f"Both give the same outputs{', from layers that are cut in different ways' if cut else ''}: the "
            "difference is in how the weights are written, as after a conversion (a folded norm, fused projections, a "
            "merged adapter) or where weights cancel each other."
        )

    def _merged(self, name: str) -> str:
        """What averaging the two does: copies that compute the same in another order cannot be averaged either."""
        found = next(iter(self._mine(name, "merging")), None)
        if found is None:
            return ""
        if found.status == "excluded":
            return f"Merging the two loses no more than {amount(found.margin or 0.0, self.plan.task)}."
        words = {
            "found": "MERGING COSTS",
            "inconclusive": "MERGING MAY COST" if found.leaning else "CANNOT TELL of merging",
        }
        return f"{words.get(found.status, 'The two could not be merged')}: {found.said}"

    def _own_costs(self, subjects: Sequence[SubjectRecord], differ: Sequence[Finding]) -> str:
        """Where either model by itself loses more than the margin, beside the schemes at which the two differ."""
        known = {(row.code, row.scheme) for row in differ}
        found = {one.name: _with(self._mine(one.name, "deployment"), "found") for one in subjects}
        costs = {name: [row for row in rows if (row.code, row.scheme) not in known] for name, rows in found.items()}
        phrases = [f"{name} costs {_at(rows)}" for name, rows in costs.items() if rows]
        return f"By itself, {'; '.join(phrases)}." if phrases else ""

    def _same(self, rival: SubjectRecord, score: Finding | None) -> bool:
        """Whether it gives the outputs of the first model."""
        shown = score is not None and any(one.name == SAME_OUTPUTS for one in score.estimates)
        return shown or rival.name in self.same

    def _said_once(self, rival: SubjectRecord, score: Finding | None) -> bool:
        """Whether that is said beside the scores, and what it means once for all pairs."""
        several = len(self.plan.subjects) > 2 and score is not None and score.status == "excluded"
        return several and self._same(rival, score)

    def _scores(self, score: Finding | None, rival: SubjectRecord) -> str:
        if score is None or not score.estimates:
            return ""
        gap = score.estimates[0]
        phrases = _points(gap) if self.plan.task.in_points else str(gap)
        if self._said_once(rival, score):
            phrases = _SAME_OUTPUTS
        if score.status == "found" or score.leaning:
            better = self.plan.reference if (gap.value or 0.0) * self.plan.task.sign > 0.0 else rival
            phrases = f"{phrases}; {better.name} is better"
        if score.status == "inconclusive" and self._same(rival, score):
            return "outputs are the same; "
        words = {"found": "scores differ", "excluded": "scores are equivalent"}
        leaning = "scores may differ" if score.leaning else "cannot tell whether scores differ"
        return f"{words.get(score.status, leaning)} ({phrases}); "

    def _worse(self, rival: SubjectRecord, rows: Sequence[Finding]) -> str:
        """Who loses more, where and by how much."""
        shipped = [row for row in rows if self._asks(row) in ("deployment", "sets", "slices")]
        phrases: list[str] = []
        for sign, subject in ((1.0, rival), (-1.0, self.plan.reference)):
            mine = [row for row in shipped if sign * _value(row) > 0.0]
            phrases += [f"{subject.name} loses more: {self._listed(mine)}."] if mine else []
        return " ".join([*phrases, *(row.said for row in rows if row not in shipped)])


def _with(rows: Sequence[Finding], status: str) -> list[Finding]:
    return [row for row in rows if row.status == status]


def times(ratio: float) -> str:
    """How many times, in three digits."""
    return f"{ratio:.2f}" if abs(ratio) < 10.0 else f"{ratio:.3g}"


_IN_NINE, _OF_DRAWN = " in 9 of 10 draws", " (under noise or flipped bits in 9 of 10 draws)"
"""What a safe row of a random scheme is safe in."""


def is_drawn(row: Finding) -> bool:
    """Return whether a row is about a random scheme, of which a user deploys one draw."""
    return any(one.name == WITHIN for one in row.estimates)


def _grown(row: Finding) -> str:
    """How many times the undisturbed error it is, of a row about an error; else empty."""
    found = next((one.value for one in row.estimates if one.name == GROWN), None)
    return "" if found is None else f"x {times(found)}"


def margin_of(row: Finding) -> float:
    """How many times the undisturbed error the margin of a row about an error is; 1 where that is not known."""
    if any(one.unit == LIKELIHOODS for one in row.estimates):
        return math.exp(row.margin or 0.0)
    before = next((one.value or 0.0 for one in row.estimates if one.name == "score"), 0.0) - _value(row)
    return 1.0 + (row.margin or 0.0) / before if before > 0.0 else 1.0


def _value(row: Finding) -> float:
    return (row.estimates[0].value if row.estimates else None) or 0.0


def where(row: Finding) -> str:
    """What was done in one row of the deployment table."""
    # A difference has no name of its own; one with an underscore is a key of numbers.
    if " vs " in row.subject or not row.estimates or "_" in row.estimates[0].name.partition(" ")[0]:
        return row.title.removesuffix(": difference")
    return row.estimates[0].name.removeprefix("loss ")


def _at(rows: Sequence[Finding]) -> str:
    """Where the first few rows are, and how many more there are."""
    labels = sorted(dict.fromkeys(_lower(where(row)) for row in rows), key=lambda label: label == _placed(label))
    more = len(labels) - _NAMED
    return _placed("; ".join(labels[:_NAMED])) + (f"; {more} more" if more > 0 else "")


def _placed(label: str) -> str:
    return label if label.startswith(("without ", "under ")) else f"at {label}"


def _titles(rows: Sequence[Finding]) -> str:
    return ", ".join(dict.fromkeys(_lower(row.title) for row in rows))


def _would_do(rows: Sequence[Finding]) -> str:
    """How many examples would decide all of these."""
    many = enough_for(rows, "examples")
    return f" ({many} {TELL})" if many else ""


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _points(gap: Estimate) -> str:
    """A difference of shares in points."""
    value, low, high = ("open" if end is None else fixed(100 * end, 1) for end in (gap.value, gap.low, gap.high))
    return f"{value} points [{low}, {high}]"
