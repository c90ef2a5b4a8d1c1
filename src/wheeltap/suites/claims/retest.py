"""Runs the retests of claims: each study into a store of its own, judged by rules that were fixed beforehand."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

import msgspec

from wheeltap import __version__
from wheeltap.cli import COMMAND
from wheeltap.core import canon
from wheeltap.core.bounded import inside
from wheeltap.core.errors import StoreError
from wheeltap.core.report import ReportRecord
from wheeltap.core.study import StudySpec
from wheeltap.plans.plan import Plan
from wheeltap.plans.store import Store
from wheeltap.report import files
from wheeltap.runs import loop, studying
from wheeltap.runs.pace import Watch
from wheeltap.runs.ray_cluster import RayCluster
from wheeltap.runs.request import StudyRequest
from wheeltap.runs.stored import plans_of
from wheeltap.studies.base import Size, Study
from wheeltap.studies.rules import listed
from wheeltap.suites.claims import sections
from wheeltap.suites.claims.ledger import Claim, Ledger, Retest
from wheeltap.suites.claims.record import (
    ClaimResult,
    ClaimsRecord,
    RetestResult,
    RuleResult,
    Verdict,
    answer_of,
    as_json,
    together,
)


@dataclass(frozen=True)
class RetestRun:
    """How retests are run.

    Attributes:
        size: Of the studies.
        request: Seed and level.
        folder: Where stores, ``claims.json`` and ``claims.html`` lie.
        workers: Processes, or a Ray cluster.
        watch: From the name of a retest to what watches its run.
        allow_code: Whether a study in a file may name code, which is run.
        data: Folder of the files that some retests need.
        known: What a store says that more than one retest asks.
    """

    size: Size = "small"
    request: StudyRequest = field(default_factory=StudyRequest)
    folder: Path = Path("claims.wheeltap.d")
    workers: int | RayCluster = 1
    watch: Callable[[str], AbstractContextManager[Watch]] | None = None
    allow_code: bool = False
    data: Path | None = None
    known: dict[Path, tuple[Plan, ReportRecord]] = field(default_factory=dict[Path, tuple[Plan, ReportRecord]])

    def store(self, retest: Retest) -> Path:
        """Where outcomes are kept: of all retests that ask one study with the same settings and file."""
        settings = {**retest.settings, **(retest.small if self.size == "small" else {})}
        settings |= {} if retest.data is None else {"data": retest.data.file}
        digest = f"-{canon.digest('retest', canon.canonical(settings))[:8]}" if settings else ""
        # Quoted whole: a/sam.toml, b/sam.toml and a registered study sam are three.
        return self.folder / f"{quote(retest.study, safe='')}{digest}-{self.size}.wheeltap"

    def sound(self, claim: Claim, retest: Retest) -> Study | None:
        """The study of a retest, whose store holds nothing else; none where its file is missing."""
        store, needed = self.store(retest), retest.data
        if needed is not None:
            given = None if self.data is None else inside(self.data, needed.file, "file that a retest needs")
            if given is None or not given.is_file():
                return None
            retest = msgspec.structs.replace(retest, settings={**retest.settings, "data": str(given)})
        study = claim.study(retest, self.request, size=self.size, allow_code=self.allow_code)
        if store.is_file():
            with Store(store, readonly=True) as kept:
                for stored in plans_of(kept):
                    _require_same(store, stored.plan, study.spec(), self.request)
        return study

    def result(self, claim: Claim, retest: Retest, study: Study | None) -> RetestResult:
        """What a retest says, once what its store lacks has been run; ``study`` is what ``sound`` gave.

        Without a study, the result names the missing file.
        """
        if study is None:
            assert retest.data is not None, "a retest without a needed file always has its study"
            because = f"Not run: it needs {retest.data.file} ({retest.data.get}). Give its folder: --files FOLDER."
            return RetestResult(
                name=retest.name, question=retest.question, answer="not run", because=because, study=retest.study
            )
        store = self.store(retest)
        if store not in self.known:
            with nullcontext() if self.watch is None else self.watch(f"{claim.id} {retest.name}") as watch:
                made = studying.planned(study, self.request)
                report = loop.run(
                    made.plan, [], made.task, store=store, workers=self.workers, watch=watch,
                    members=made.members(studying.folder_of(store)), again=COMMAND.get(),
                )  # fmt: skip
            self.known[store] = made.plan, report.record
        with Store(store, readonly=True) as kept:
            outcomes = [kept.get(key) for key in sorted(kept.keys())]
        seconds = sum(one.seconds for one in outcomes if one is not None)
        return msgspec.structs.replace(judged(retest, *self.known[store]), store=store.name, seconds=round(seconds, 1))


def retested(ledger: Ledger, ids: Sequence[str] = (), run: RetestRun | None = None) -> ClaimsRecord:
    """Runs the retests of some claims (all where none is given). Stopped at any time, the same call resumes.

    Rules and level are part of each plan, so of its key. One correction is made over the whole ledger: a verdict does
    not depend on which others are run.

    Raises:
        UnknownName: If there is no such claim, study or rule.
        UsageError: If a study cannot be asked so, or a rule is dead.
        StoreError: If a store was made under other rules.
    """
    run = run or RetestRun()
    run = replace(run, request=replace(run.request, alpha=ledger.alpha), known={})
    # All studies are looked at before the first one is run.
    asked = [(claim, [(one, run.sound(claim, one)) for one in claim.retests]) for claim in ledger.chosen(ids)]
    claims = tuple(claim_result(claim, [run.result(claim, *one) for one in several]) for claim, several in asked)
    seed, alpha = run.request.seed, ledger.alpha
    record = ClaimsRecord(size=run.size, seed=seed, alpha=alpha, claims=claims, wheeltap=__version__)
    files.write(run.folder / "claims.json", as_json(record))
    files.write(run.folder / "claims.html", sections.page(ledger, record).encode())
    return record


def _require_same(store: Path, plan: Plan | None, spec: StudySpec, request: StudyRequest) -> None:
    """Raises ``StoreError`` if a store holds a plan that was judged otherwise than it would be today.

    A stricter level is none that was chosen to suit what was seen: a ledger may grow.
    """
    differ = ["kind of plan, or version of wheeltap"]
    if plan is not None and (was := plan.study) is not None:
        same = {
            "rules": (was.rules, was.metrics) == (spec.rules, spec.metrics),
            "settings": was.settings == spec.settings,
            "seed": plan.seed == request.seed,
            "level (the ledger had more retests)": plan.alpha >= request.alpha,
            "study": (was.name, was.version) == (spec.name, spec.version),
        }
        differ = [name for name, kept in same.items() if not kept]
    if differ:
        raise StoreError(
            "The store was made under other rules.", where=str(store),
            expected="rules, level, settings and seed as they are now: they were fixed before the first net was made",
            got=f"another {listed(differ)}", do="Give another --out; or what was given when it was made.",
        )  # fmt: skip


def judged(retest: Retest, plan: Plan, report: ReportRecord) -> RetestResult:
    """What the report of its study says of the claim; nothing, where a control failed."""
    assert plan.study is not None, "a retest is a study"
    planned, found = {one.title: one for one in plan.study.rules}, {one.title: one for one in report.findings}
    rules, uses = list[RuleResult](), [use for use in retest.rules if use.title in found]
    for use in uses:
        rule, finding = planned[use.title], found[use.title]
        effect = finding.estimates[0] if finding.estimates else None
        null = {"auc": 0.5, "exact": rule.share}.get(rule.statistic, 0.0)
        share = " of the second mean" if rule.relative else ""
        way = f", decides only that it {use.decides}" if use.decides != "both" else ""
        rules.append(RuleResult(
            title=rule.title, about=finding.subject, answer=answer_of(finding.status, use), status=finding.status,
            fixed=f"{rule.statistic}, {rule.direction}, margin {rule.margin:g}{share}; {use.supports} supports{way}",
            null=1.0 if effect is not None and effect.unit == "ratio" else null, direction=rule.direction,
            margin=rule.margin if finding.margin is None else finding.margin,
            effect=effect, detectable=finding.smallest_detectable,
        ))  # fmt: skip
    answer = together([one.answer for one in rules], retest.needs, [use.decides for use in uses])
    said: list[str] = []
    for one in rules:
        rule, finding = planned[one.title], found[one.title]
        outcome = {"found": rule.supports, "excluded": rule.refutes}.get(finding.status, "")
        said += [outcome or f"{rule.title}: {finding.verdict or finding.status}."] if one.answer == answer else []
    if report.void:
        failed = (f"{one.name}: {one.because}" for one in report.controls if one.status == "failed")
        said = ["Void: a control failed.", *failed]
    # Of a file that was given its name alone: where it lies is the reader's own business.
    own = {} if retest.data is None else {"data": retest.data.file}
    return RetestResult(
        name=retest.name, question=retest.question, answer=answer, because=" ".join(dict.fromkeys(said)),
        study=retest.study, settings={**plan.study.settings, **own}, rules=tuple(rules), needs=retest.needs,
        expected=retest.expected, nets=len(plan.subjects), plan=plan.key,
    )  # fmt: skip


def claim_result(claim: Claim, results: Sequence[RetestResult]) -> ClaimResult:
    """All retests of a claim that were run: it takes every one to support it, and one to refute it."""
    named = dict[Verdict, list[str]]()
    for one in results:
        named.setdefault(one.answer, []).append(one.name)
    run: list[Verdict] = [one.answer for one in results if one.answer != "not run"]
    answer = together(run, "all") if run or not results else "not run"
    several = "; ".join(f"{listed(names)}: {word}" for word, names in named.items())
    because = results[0].because if len(results) == 1 else f"{several}." if results else "It has no retest."
    return ClaimResult(
        id=claim.id, statement=claim.statement, literature=claim.verdict.word, date=str(claim.verdict.date or ""),
        answer=answer, because=because, retests=tuple(results),
    )  # fmt: skip
