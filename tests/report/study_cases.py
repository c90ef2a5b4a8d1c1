"""Studies made by hand: tables of members with known numbers, judged by the real rules, without any net."""

from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np

from tests.report.report_cases import HOSTILE
from tests.report.report_pieces import subject, task
from wheeltap.audits.settle import settle, voided
from wheeltap.core.records import Control, Cost, Instrument
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Picture, Pictures, Section
from wheeltap.core.study import Cohort, Member, Metric, Rule, StudyRecord
from wheeltap.report import png
from wheeltap.stats.members import Single
from wheeltap.studies import rules
from wheeltap.studies.table import MemberTable

METRICS = (
    Metric(
        key="symmetry", title="symmetry of response", unit="share", code="WT204", toward="high", ends=(0.0, 1.0),
        reads="Each weight moved until the picture changes by as much; the share that has its symmetry.",
    ),
    Metric(key="maps", title="distinct feature maps", unit="maps", code="WT207", toward="low", grain=1.0),
    Metric(key="parts", title="parts one weight moves", unit="parts", code="WT202", toward="low"),
    Metric(key="noise", title="symmetry under function-space noise", unit="share", code="WT102", ends=(0.0, 1.0)),
    Metric(key="rank", title="effective rank", unit="dimensions", reads="Shown beside the others."),
)  # fmt: skip

COHORTS = (
    Cohort(name="face", members=("face",), about="The net that draws the picture."),
    Cohort(name="sgd", members=tuple(f"sgd {i}" for i in range(6)), role="compared", about="Trained to draw it."),
    Cohort(name="abs-x", members=tuple(f"abs-x {i}" for i in range(4)), role="null", about="Nets that read |x|."),
)

MEANS = {"face": (0.99, 22, 2.1, 0.66, 9.0), "sgd": (0.66, 150, 3.8, 0.60, 14.0), "abs-x": (0.99, 139, 3.6, 0.9, 14.4)}
SPREADS = (0.02, 6.0, 0.12, 0.05, 1.0)

RULES = (
    Rule(
        code="WT204", title="Symmetry of response: face is not one of sgd", metric="symmetry", cohorts=("face", "sgd"),
        statistic="one_of", direction="more", margin=0.05,
        supports="Weights of the composed net move the picture as a whole; those of trained nets do not.",
        refutes="Trained nets answer as symmetrically as the composed net.",
    ),
    Rule(
        code="WT207", title="Distinct feature maps", metric="maps", cohorts=("face", "sgd"), statistic="one_of",
        direction="less", margin=0.1, relative=True, supports="The composed net holds fewer different maps.",
    ),
    Rule(
        code="WT102", title="Symmetry under noise", metric="noise", cohorts=("face", "sgd"), statistic="one_of",
        margin=0.05,
    ),
    Rule(
        code="WT206", title="Nets that read |x| are no less symmetric than trained ones", metric="symmetry",
        cohorts=("abs-x", "sgd"), statistic="difference", direction="less", margin=0.05, alarm=True,
        supports="Nets that read |x| are less symmetric: the metric is wrong.",
        refutes="Nets that read |x| look unified by symmetry alone.",
    ),
    Rule(
        code="WT208", title="Rank goes with maps", metric="rank", cohorts=("sgd", "abs-x"), statistic="association",
        with_metric="maps", beyond=("parts",), within=True, margin=0.1,
    ),
)  # fmt: skip

LOST = {"sgd 5": "Its training diverged."}


def numbers(cohorts: Sequence[Cohort] = COHORTS, *, seed: int = 0) -> dict[str, dict[str, Single]]:
    """Each member's numbers: its cohort's, with a spread over nets."""
    rng, found = np.random.default_rng(seed), dict[str, dict[str, Single]]()
    for cohort in cohorts:
        for name in cohort.members:
            if name in LOST:
                continue
            own = {}
            for metric, mean, spread in zip(METRICS, MEANS.get(cohort.name, MEANS["sgd"]), SPREADS, strict=True):
                drawn = mean + (spread * rng.normal() if len(cohort.members) > 1 else 0.0)
                drawn = round(drawn) if metric.grain else float(np.clip(drawn, 0.0, 1.0 if metric.ends[1] else None))
                own[metric.key] = Single(float(drawn), 0.01 if len(cohort.members) == 1 and not metric.grain else 0.0)
            found[name] = own
    found.get("abs-x 3", {}).pop("parts", None)
    return found


def picture(at: int) -> bytes:
    """A small picture: a ramp, turned."""
    ramp = np.linspace(0.0, 1.0, 24)
    return png.encode(np.stack([np.add.outer(np.roll(ramp, at), ramp) / 2.0] * 3, -1))


def sections() -> tuple[Section, ...]:
    """Pictures of members, a weight that is moved."""
    own = Picture(png=picture(0), alt="What face draws", name="face", says="28.8 dB")
    moved = Picture(png=picture(3), alt="face as mouth moves", name="face", says="mouth, weight 12, -1 to 1")
    maps = Picture(png=picture(1), alt="Feature maps of sgd 1", name="sgd 1")
    blocks = (Pictures(pictures=(own,)), Pictures(pictures=(maps,), title="Feature maps", wide=True, place="folded"))
    strips = Section(title="Weights moved", says="One at a time.", blocks=(Pictures(pictures=(moved,), wide=True),))
    return Section(title="Pictures", blocks=blocks), strips


def study_record(table: MemberTable, *, pictures: bool = True) -> StudyRecord:
    names = [(cohort.name, name) for cohort in table.cohorts for name in cohort.members]
    return StudyRecord(
        name="pictures", question="Is a net that draws a picture wired like nets trained to draw it?",
        about="A face with a mouth that opens, written in code.", cohorts=table.cohorts, rules=RULES,
        members=tuple(
            Member(
                name=name, cohort=cohort, status="left out" if name in table.lost else "done",
                because=table.lost.get(name, ""), note="28.8 dB" if at and pictures else "",
            )
            for at, (cohort, name) in enumerate(names)
        ),
        rows=table.rows(),
        notes=("By symmetry alone, nets that read |x| would pass for unified.",),
        caveats=("One net is compared with a few trained by one recipe.", "Metrics ask for what is known beforehand."),
    )  # fmt: skip


def report_of(table: MemberTable, *, pictures: bool = True, headline: str = "") -> ReportRecord:
    """The report on a table: real drafts, one correction over all."""
    drafts = [rules.draft(rule, table, among=len(RULES), alpha=0.05) for rule in RULES]
    findings = settle(drafts, alpha=0.05)
    study = study_record(table, pictures=pictures)
    study = msgspec.structs.replace(study, rows=rules.with_verdicts(study.rows, RULES, findings))
    names = [name for cohort in table.cohorts for name in cohort.members]
    return ReportRecord(
        command="study pictures", headline=headline or rules.headline(RULES, findings),
        subjects=tuple(subject(name, parameters=1234) for name in names), task=task("face, 64 x 64 pixels"),
        findings=tuple(findings), controls=tuple(rules.left_out(table, RULES)),
        cost=Cost(forwards=120.0, seconds=140.0, trials=42, reused=3), provenance={"wheeltap": "0.1.0", "seed": 0},
        instruments=tuple(Instrument(code=one.code, name=one.title, asks="structure") for one in RULES), study=study,
        sections=sections() if pictures else (),
    )  # fmt: skip


def table(cohorts: Sequence[Cohort] = COHORTS) -> MemberTable:
    return MemberTable(cohorts=tuple(cohorts), metrics=METRICS, numbers=numbers(cohorts), lost=LOST)


@cache
def study() -> ReportRecord:
    """Three cohorts, five metrics, five rules; pictures, a strip; one net left out."""
    return report_of(table())


@cache
def study_plain() -> ReportRecord:
    """The same without anything drawn."""
    return report_of(table(), pictures=False)


@cache
def study_void() -> ReportRecord:
    made = study_plain()
    assert made.study is not None
    failed = Control(name="a copy has the same numbers", kind="null", status="failed", because="It has others.")
    findings = tuple(voided(one) for one in made.findings)
    rows = rules.with_verdicts(made.study.rows, RULES, findings)
    return msgspec.structs.replace(
        made, void=True, controls=(failed, *made.controls), findings=findings,
        study=msgspec.structs.replace(made.study, rows=rows),
        headline="VOID: a control failed, so this study proves nothing about these nets.",
    )  # fmt: skip


@cache
def study_hostile() -> ReportRecord:
    """Names and words that would break a page or a terminal if they were trusted."""
    evil = f'{HOSTILE}"><img src=x onerror=alert(2)>[bold red]\x1b[31m{{{{ 7*7 }}}}\u202e'
    made = study()
    assert made.study is not None
    text = msgspec.json.encode(made).decode()
    for name in ("A face with a mouth", "effective rank", "sgd 1", "abs-x", "mouth", "By symmetry alone"):
        text = text.replace(name, msgspec.json.encode(evil).decode()[1:-1] + name[-1])
    return msgspec.json.decode(text, type=ReportRecord)


STUDIES = {f.__name__: f for f in (study, study_plain, study_void, study_hostile)}
