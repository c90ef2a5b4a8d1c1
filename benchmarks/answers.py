"""``python -m benchmarks.answers [--stores DIR] [--held] [--full IDS] [--record [FILE ...]]``: writes docs/results/answers.md.

Every number on the page is put in from the record of a run, whose stores are read again (what they lack is run), or
from a source of the ledger. With ``--record``, from records that were written before, and nothing is run. The texts
below hold no number: a test reads the page with all that was put in left out.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import msgspec

from wheeltap import __version__
from wheeltap.audits.settle import judge, wanted
from wheeltap.cli.progress import run_progress
from wheeltap.core.records import Cost
from wheeltap.plans.store import Outcomes, Store
from wheeltap.report import figures, words
from wheeltap.runs.request import StudyRequest
from wheeltap.runs.stored import plan_of
from wheeltap.studies.base import Size
from wheeltap.suites.claims import sections
from wheeltap.suites.claims.ledger import Claim, Ledger, Retest, Source, read
from wheeltap.suites.claims.record import ClaimResult, ClaimsRecord, RetestResult, RuleResult
from wheeltap.suites.claims.record import read as read_record
from wheeltap.suites.claims.retest import RetestRun, claim_result, judged, retested

DOCS: Final = Path(__file__).parent.parent / "docs" / "results"
RECORD: Final = DOCS / "answers.json"
MOST: Final = 2
"""Works that contradict our verdict of a claim, the newest that were read."""

MONTHS: Final = 6
"""Before the newest verdict of the ledger: what counts as recent."""

_RECOMPUTED: Final = (
    "Verdicts were recomputed when rules began to allow for failing seeds ([validation]"
    "(validity.md#levels-how-often-each-claim-is-false)). The records hold means, intervals and numbers of nets, and no "
    "number of each net, so the recomputation took the nets of a run as all alike: its p-value is the least that there "
    "can be, and what it leaves undecided is undecided. What was run again since has its own numbers.\n"
)

Put = Callable[[str], str]
"""What is done with a text that holds numbers of a run or of a source: it is put in as it is."""


@dataclass(frozen=True, kw_only=True)
class FailureClass:
    """A kind of failure.

    Attributes:
        name: In a few words.
        benchmark: Whether a benchmark could see it in principle.
        weights: Whether disturbed weights show it, and under what condition.
        works: What the literature has, by ID.
        retests: Claim and retest that speak of it; a retest that is not there yet is left out.
    """

    name: str
    benchmark: str
    weights: str
    works: tuple[str, ...]
    retests: tuple[tuple[str, str], ...]


CLASSES: Final = (
    FailureClass(
        name="What appears or goes once the weights are modified: quantized, tuned, relearned, flipped",
        benchmark="no: it is no function of the weights as they are",
        weights="yes, if they are disturbed as they will be modified",
        works=("2605.02105", "2606.10154", "2410.16454", "2502.05209", "2606.08044"),
        retests=(("C7", "unlearned"), ("C7", "rounded"), ("C7", "backdoor"), ("C7", "predictor"), ("C9", "")),
    ),
    FailureClass(
        name="Broken organization inside, as such",
        benchmark="no",
        weights="not by plain noise: copies that compute the same function answer it differently",
        works=("2505.11581", "2603.16382", "2506.22712"),
        retests=(("C1", ""), ("C2", "fragile"), ("C3", "")),
    ),
    FailureClass(
        name="Failure on other inputs",
        benchmark="yes: ask the other inputs",
        weights="not reliably: the sign changes from shift to shift",
        works=("2302.07011", "2510.12451"),
        retests=(("C2", "shift"),),
    ),
    FailureClass(
        name="Ambiguity that was filtered out of the items",
        benchmark="yes: keep the items on which people disagree",
        weights="the question is what weight noise adds to the outputs' own entropy",
        works=("2411.14103", "2603.13285"),
        retests=(("C4", ""),),
    ),
    FailureClass(
        name="Ability that comes of training, or not",
        benchmark="yes, with many tries and right nulls",
        weights="not asked here",
        works=("2506.14245", "2504.13837", "2506.10947"),
        retests=(("C5", "support"), ("C5", "right")),
    ),
)

CONDITIONS: Final = (
    "The disturbance is one of those that will be applied: noise stands for quantization no better than for tuning.",
    "Its size is relative to the weights, or to what layers compute; an absolute one reads the units that a net is "
    "written in.",
    "Nets are compared at equal score, and copies that compute the same function show nothing (a null in every run).",
    "What is shown adds to outputs and to disturbed inputs at equal cost; else the cheaper ones are enough.",
    "Small nets are no evidence about large ones: there, random noise also improves honest models ({2603.12228}).",
)

OPEN: Final = (
    (
        "Which property of training or architecture keeps the inside robust at equal score?", "C9",
        "These are small nets and one family of modifications at a time. A ranking here does not carry over to another "
        "scale, and a property that is undecided is not shown to do nothing: see the effect that would have been found. Drawn digits, a character transformer, and each modification "
        "by itself: [training.md](training.md).",
    ),
    (
        "Can an audit by disturbance be distilled into a light check at deployment?", "C8",
        "Identity and health are two questions: a check that reacts to any change says what a net is, and one that "
        "lets harmless change pass says how sound it is. For the first, where the file can be read, its digest is "
        "cheaper. For the second, what is undecided or refuted here is so for these responses and these nets.",
    ),
)  # fmt: skip


@final
class Page:
    """The page, part by part.

    Args:
        ledger: The claims.
        records: Of runs; of one retest in several, the last one counts.
        put: See ``Put``.
    """

    def __init__(self, ledger: Ledger, records: Sequence[ClaimsRecord], put: Put = str) -> None:
        self.ledger, self.put = ledger, put
        self.results = merged(ledger, records)
        self.runs = {
            (claim.id, one.name): record for record in records for claim in record.claims for one in claim.retests
        }
        self.works = {name: one for claim in ledger.claims for one in claim.sources if (name := _bare(one))}
        self.alpha = {record.alpha for record in records}

    def text(self) -> str:
        """All of it, as Markdown."""
        return "\n".join([*self._top(), *self._claims(), *self._classes(), *self._models(), *self._against(), *self._ours(),
                          *self._open(), *self._runs()])  # fmt: skip

    # ---- what is put in ---------------------------------------------------------------------------------------

    def cite(self, name: str) -> str:
        """A work by its ID, with what was read of it."""
        work = self.works[name]
        return f"[{self.put(work.arxiv)}]({self.put(f'https://arxiv.org/abs/{work.arxiv}')}) ({work.grade})"

    def number(self, claim: str, retest: RetestResult, rule: RuleResult) -> str:
        """An effect with its interval, as a link to the run that made it."""
        effect = rule.effect
        if effect is None or effect.value is None:
            return f"[no number]({_anchor(claim, retest.name)})"
        ends = "" if effect.low is None or effect.high is None else (
            f" ({_number(effect.low, effect)} to {_number(effect.high, effect)})"
        )  # fmt: skip
        return f"[{self.put(_number(effect.value, effect) + ends)}]({_anchor(claim, retest.name)})"

    def rule(self, claim: str, retest: RetestResult, rule: RuleResult) -> str:
        """What a rule found, beside what counts."""
        counts = self.put(f"{words.number(rule.null + (-1 if rule.direction == 'less' else 1) * rule.margin)}")
        side = {
            "more": f"above {counts}",
            "less": f"below {counts}",
            "either": f"beyond {self.put(words.number(rule.margin))}",
        }
        found = self.number(claim, retest, rule)
        return f"{self.put(rule.title)}: {found}, counts {side[rule.direction]}"

    def verdict(self, claim: str, retest: RetestResult) -> str:
        """What a retest says, with the rule that decided."""
        if not retest.plan and not retest.because:
            return f"{claim} {retest.name}: not run"
        same = [rule for rule in retest.rules if rule.answer == retest.answer] or list(retest.rules)
        shown = f" ({self.rule(claim, retest, same[0])})" if same else f" ({self.put(retest.because)})"
        return f"{claim} {retest.name} **{retest.answer}**{shown}"

    # ---- the parts ----------------------------------------------------------------------------------------------

    def _top(self) -> Iterator[str]:
        counts = {
            word: sum(one.answer == word for one in self.results) for word in ("supports", "refutes", "undecided")
        }
        yield "# Answers\n"
        yield "Written by `python -m benchmarks.answers`: every number is put in from a run, which it links to, or from a work that is cited.\n"
        yield "**The question.** How do disturbed weights show what benchmarks cannot measure?\n"
        yield (
            "**The answer.** A benchmark is a function of the weights as they are. What happens once they are changed, by "
            "quantization, another round of tuning or a flipped bit, is no function of that, so no benchmark can measure it, "
            "however good its items. Disturbed weights can, where they are disturbed as they will be changed. Of every other "
            "kind of failure, disturbed weights are one noisy sign among several, and have to show what they add.\n"
        )  # fmt: skip
        yield (
            f"Of {self.put(str(len(self.results)))} [claims of the literature](../claims.md) that our own runs tested again, on small "
            f"nets and by rules fixed beforehand, these support {self.put(str(counts['supports']))}, refute "
            f"{self.put(str(counts['refutes']))} and leave {self.put(str(counts['undecided']))} undecided. A claim is refuted as "
            "a law by one counterexample; undecided means that neither side was shown.\n"
        )  # fmt: skip
        yield "![Effects of all retests with their intervals](answers-effects.svg)\n"
        yield f"*{sections.EFFECTS}*\n"

    def _claims(self) -> Iterator[str]:
        yield "## The claims\n"
        yield "| | claim | the literature says | our runs say |\n|---|---|---|---|"
        results = {one.id: one for one in self.results}
        for claim in self.ledger.claims:
            ours = "not run" if claim.id not in results else results[claim.id].answer
            open_ = [one.name for one in results[claim.id].retests if not one.because] if claim.id in results else []
            ours += f" (not run: {', '.join(open_)})" if open_ else ""
            yield f"| {claim.id} | {self.put(claim.statement)} | {claim.verdict.word} | {ours} |"
        yield ""

    def _classes(self) -> Iterator[str]:
        yield "## Which failures, under which conditions\n"
        yield "| failure | could a benchmark see it? | do disturbed weights show it? | the literature | our runs |\n|---|---|---|---|---|"
        for one in CLASSES:
            said = [
                self.verdict(claim.id, retest)
                for claim in self.results
                for retest in claim.retests
                if any(claim.id == id_ and name in ("", retest.name) for id_, name in one.retests)
            ]
            works = ", ".join(map(self.cite, one.works))
            yield f"| {one.name} | {one.benchmark} | {one.weights} | {works} | {'<br>'.join(said) or 'not run'} |"
        yield "\nConditions, each of which removed a naive result somewhere:\n"
        for text in CONDITIONS:
            yield "- " + re.sub(r"\{(.*?)\}", lambda found: self.cite(found[1]), text)
        yield ""

    def _models(self) -> Iterator[str]:
        yield "## In which models\n"
        yield "![Claims by kinds of models: shown, run, open](answers-scope.svg)\n"
        yield f"*{sections.SCOPE}* In words: `wheeltap claims show`.\n"

    def _against(self) -> Iterator[str]:
        newest = max(claim.verdict.date for claim in self.ledger.claims if claim.verdict.date is not None)
        yield "## The strongest work against\n"
        yield f"Of the {self.put(str(MONTHS))} months before {self.put(str(newest))}, and what speaks against each claim beside it. Grades say what was read.\n"
        for claim in self.ledger.claims:
            against = [one for one in claim.sources if one.side == "against" and one.grade in ("grounded", "secondary")]
            recent = sorted((one for one in against if is_recent(one, newest)), key=lambda one: one.grade or "")
            read_whole = [one for one in recent if one.grade == "grounded"] or recent
            for one in read_whole or against[:1]:
                older = "" if recent else " (older; nothing recent)"
                cited = self.cite(_bare(one)) if _bare(one) else f"{self.put(one.name)} ({one.grade})"
                yield f"- **{claim.id}**{older}: {cited}: {self.put(one.says)}"
            if not against:
                yield f"- **{claim.id}**: no work against it is in the ledger."
        yield ""

    def _ours(self) -> Iterator[str]:
        yield "## What contradicts our own runs\n"
        lines = [line for claim in self.results for line in self._tensions(claim)]
        yield "\n".join(lines or ["Nothing that is in the ledger."]) + "\n"

    def _tensions(self, result: ClaimResult) -> Iterator[str]:
        """Where the literature's verdict or effect is not what we found."""
        claim, head = self._claim(result.id), f"- **{result.id}**"
        if result.answer != "undecided":
            side = "for" if result.answer == "refutes" else "against"
            works = [one for one in claim.sources if one.side == side and one.grade == "grounded" and _bare(one)]
            works = sorted(works, key=_bare, reverse=True)[:MOST]
            said = "; ".join(f"{self.cite(_bare(one))}: {self.put(one.says.rstrip('.'))}" for one in works)
            yield f"{head}: our runs {_does(result.answer)} it. {side.capitalize()} it: {said or 'nothing that was read'}."
        for one in result.retests:
            expected, first = one.expected, one.rules[0] if one.rules else None
            effect = None if first is None else first.effect
            if first is None or expected is None or effect is None or effect.low is None or effect.high is None:
                continue
            low, high = (expected.value if end is None else end for end in (expected.low, expected.high))
            if high < effect.low or low > effect.high:
                stated = self.put(f"{words.number(expected.value)} ({expected.unit or 'the effect'})")
                whose = (
                    "an own pilot"
                    if expected.source == "pilot"
                    else self.cite(expected.source)
                    if expected.source in self.works
                    else self.put(expected.source)
                )
                yield f"{head} {one.name}: {stated} by {whose}; we found {self.number(result.id, one, first)}."
        if len({one.answer for one in result.retests} - {"undecided"}) > 1:
            parts = "; ".join(self.verdict(result.id, one) for one in result.retests)
            yield f"{head}: its parts came out differently in our own runs. {parts}."

    def _open(self) -> Iterator[str]:
        yield "## Two open questions\n"
        for question, name, limits in OPEN:
            yield f"**{question}**\n"
            found = [one for one in self.results if one.id == name]
            for claim in found:
                for one in claim.retests:
                    if not one.because:
                        yield f"- {self.put(one.question)} Not run."
                        continue
                    yield f"- {self.put(one.question)} {one.answer.capitalize()}: {self.put(one.because)} " + "; ".join(
                        f"{self.rule(name, one, rule)}{self._detectable(rule)}" for rule in one.rules
                    ) + "."  # fmt: skip
            if not found:
                yield "- Not run."
            yield f"\n*Not shown.* {limits}\n"

    def _detectable(self, rule: RuleResult) -> str:
        if rule.answer != "undecided" or rule.detectable is None:
            return ""
        return f" (an effect of {self.put(words.number(rule.detectable))} would have been found)"

    def _runs(self) -> Iterator[str]:
        yield "## The runs\n"
        level = ", ".join(words.percent(alpha) for alpha in sorted(self.alpha))
        yield f"Rules of each retest are tested at {self.put(level)} together: all retests of the ledger share one level.\n"
        yield _RECOMPUTED
        yield "| run | command | nets | plan | took (by the clock of a busy machine) | says |\n|---|---|---|---|---|---|"
        for claim in self.results:
            for one in claim.retests:
                record = self.runs[claim.id, one.name]
                command = (
                    f"`wheeltap claims retest {claim.id} --size {record.size} --seed {self.put(str(record.seed))}`"
                )
                place = f'<a id="{_anchor(claim.id, one.name)[1:]}"></a>{claim.id} {one.name}'
                if not one.because:
                    yield f"| {place} | {command} | | | | not run |"
                    continue
                cells = [
                    self.put(f"{one.nets:,}"),
                    f"`{self.put(one.plan[:16])}`",
                    self.put(words.seconds(one.seconds)),
                ]
                yield f"| {place} | {command} | {' | '.join(cells)} | {one.answer} |"
        yield ""

    def _claim(self, name: str) -> Claim:
        return next(claim for claim in self.ledger.claims if claim.id == name)


def merged(ledger: Ledger, records: Sequence[ClaimsRecord]) -> list[ClaimResult]:
    """Claims and retests in the ledger's order; of several results for one retest, the last."""
    ran = {(claim.id, one.name): one for record in records for claim in record.claims for one in claim.retests}
    held = [
        (claim, [ran[claim.id, one.name] for one in claim.retests if (claim.id, one.name) in ran])
        for claim in ledger.claims
    ]
    return [claim_result(claim, results) for claim, results in held if results]


def is_recent(work: Source, newest: date) -> bool:
    """Whether a work appeared on arXiv at most so many months before a date."""
    name = _bare(work)
    if not name:
        return False
    year, month = 2000 + int(name[:2]), int(name[2:4])
    return 0 <= (newest.year - year) * 12 + newest.month - month <= MONTHS


def _bare(work: Source) -> str:
    """An arXiv ID without its version."""
    return re.sub(r"v\d+$", "", work.arxiv)


def _anchor(claim: str, retest: str) -> str:
    return f"#run-{claim}-{retest}".lower()


def _number(value: float, effect: Any) -> str:
    return words.number(value, like=(effect.value, effect.low, effect.high))


def _does(answer: str) -> str:
    return answer.removesuffix("s")


def held(ledger: Ledger, ids: Sequence[str], folder: Path, size: Size = "small") -> ClaimsRecord:
    """What the stores of a folder say, without running anything; a retest that is not over says nothing."""
    run, claims = RetestRun(size, StudyRequest(alpha=ledger.alpha), folder), list[ClaimResult]()
    for claim in ledger.chosen(ids):
        results = [
            _stored(claim, one, run) or RetestResult(
                name=one.name, question=one.question, answer="not run", because="", study=one.study
            )
            for one in claim.retests
        ]  # fmt: skip
        if any(one.plan for one in results):
            claims.append(claim_result(claim, results))
    return ClaimsRecord(size=size, seed=0, alpha=ledger.alpha, claims=tuple(claims), wheeltap=__version__)


def _stored(claim: Claim, retest: Retest, run: RetestRun) -> RetestResult | None:
    path = run.store(retest)
    if not path.is_file():
        return None
    run.sound(claim, retest)  # made under the same rules
    with Store(path, readonly=True) as kept:
        if not kept.plans():
            return None
        plan, known = msgspec.structs.replace(plan_of(kept)[1], alpha=run.request.alpha), Outcomes(kept)
        if any(known(trial.key) is None for trial in wanted(plan, known)):
            return None
        report = judge(plan, known, cost=Cost(forwards=0.0, seconds=0.0), provenance={})
        seconds = sum(one.seconds for key in sorted(kept.keys()) if (one := kept.get(key)) is not None)
    return msgspec.structs.replace(judged(retest, plan, report), store=path.name, seconds=round(seconds, 1))


def pictures(ledger: Ledger, records: Sequence[ClaimsRecord]) -> dict[str, str]:
    """Both pictures as SVG, on white: a page of documentation may be dark."""
    results = merged(ledger, records)
    charts = {"scope": sections.scope_chart(ledger, results, width=sections.WIDE)}
    if rules := sections.effects(results):
        charts["effects"] = sections.effects_chart(rules, width=sections.WIDE)
    white = '<svg style="background: #fff" '
    return {name: figures.svg(chart).replace("<svg ", white, 1) for name, chart in charts.items()}


def write(ledger: Ledger, records: Sequence[ClaimsRecord], folder: Path = DOCS) -> None:
    """Writes the page, its pictures and the records that they come from."""
    (folder / "answers.md").write_text(Page(ledger, records).text())
    (folder / RECORD.name).write_bytes(msgspec.json.format(msgspec.json.encode(list(records)), indent=1) + b"\n")
    for name, svg in pictures(ledger, records).items():
        (folder / f"answers-{name}.svg").write_text(svg)


def records_in(path: Path = RECORD) -> list[ClaimsRecord]:
    """The records that the page was written from."""
    return msgspec.json.decode(path.read_bytes(), type=list[ClaimsRecord])


def main() -> None:
    """Reads the stores again, and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--stores", type=Path, default=RetestRun.folder, help="folder of the stores; what is missing is run"
    )
    parser.add_argument("--held", action="store_true", help="only what the stores hold: nothing is run")
    parser.add_argument("--full", default="", help="claims that are run at full size, with commas between")
    parser.add_argument("--record", type=Path, nargs="*", help="records to write from, by default those of the page")
    given = parser.parse_args()
    ledger, watch = read(), partial(run_progress, quiet=False)
    full = [one for one in given.full.split(",") if one]
    sizes: list[tuple[Size, list[str]]] = [("small", [claim.id for claim in ledger.claims if claim.id not in full])]
    if full:
        sizes.append(("full", full))
    if given.record is not None:
        records = [read_record(path) for path in given.record] or records_in()
    elif given.held:
        records = [held(ledger, ids, given.stores, size) for size, ids in sizes]
    else:
        records = [retested(ledger, ids, RetestRun(size, folder=given.stores, watch=watch)) for size, ids in sizes]
    write(ledger, records)


if __name__ == "__main__":
    main()
