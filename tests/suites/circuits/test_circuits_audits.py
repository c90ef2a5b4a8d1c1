"""What the audits of circuits say of planted ones, the line that sums them up, and what the page of the study shows."""

from typing import Any

import msgspec
import numpy as np
import planted_nets
import pytest

import wheeltap as wt
from tests.nets.planted_circuit import Planted, planted_circuit
from wheeltap.audits.case import Case
from wheeltap.core.canon import ArtifactSpec
from wheeltap.core.records import Estimate, Finding, FindingStatus, Outcome, SubjectRecord, TaskRecord, Trial
from wheeltap.core.section import Chart, Graph, Table
from wheeltap.plans.plan import Plan
from wheeltap.report.report import Report
from wheeltap.suites.circuits.audits.claims import (
    CircuitNecessaryAudit,
    CircuitNullsAudit,
    CircuitStableAudit,
    CircuitSufficientAudit,
)
from wheeltap.suites.circuits.audits.common import CircuitAudit
from wheeltap.suites.circuits.audits.headline import of_circuit
from wheeltap.suites.circuits.circuit import packed
from wheeltap.suites.circuits.studies import SparseCircuits

CHEAP: dict[str, Any] = {"random": 19, "weight_draws": 2, "subsets": 4, "steps": 3, "tries": 1, "again": 2}


def judged(planted: Planted, *names: str, **settings: Any) -> Report:
    how = {"circuit": packed(planted_nets.flags(planted)), **CHEAP, **settings}
    audits = [wt.AuditSpec(name, how) for name in names]
    return wt.audit(wt.Subject(planted.net, name="planted"), planted_nets.task(planted), audits=audits)


def by_title(report: Report) -> dict[str, Finding]:
    return {finding.title: finding for finding in report.findings if finding.code.startswith("WT30")}


def test_a_false_account_is_flagged_and_a_true_one_is_not() -> None:
    for fake in (False, True):
        found = by_title(judged(planted_circuit(0, fake=fake, count=96), "circuit-sufficient"))
        assert len(found) == 6
        verdicts = {title.partition(": ")[2]: finding.status for title, finding in found.items()}
        assert verdicts["mean ablation"] == verdicts["zero ablation"] == "excluded"
        strict = [verdicts[key] for key in ("values of other prompts", "the worst subset found")]
        assert strict == (["found", "found"] if fake else ["excluded", "excluded"])


def test_a_true_circuit_is_necessary_and_better_than_random_ones() -> None:
    report = judged(planted_nets.true(), "circuit-necessary", "circuit-nulls", "circuit-stable")
    found = by_title(report)
    assert {found[f"Circuit is necessary: {how}"].status for how in ("mean ablation", "zero ablation",
            "counterfactual values", "values of other prompts")} == {"excluded"}  # fmt: skip
    assert found["Weights of the circuit: pruning"].status == "found"
    assert not found["Weights of the circuit: pruning"].alarm
    nulls = [finding for title, finding in found.items() if title.startswith("Circuit beats its nulls")]
    assert [finding.status for finding in nulls] == ["excluded"] * 3
    assert found["Circuit is stable: rephrased"].status == "not_applicable"


def test_where_nothing_is_kept_the_circuit_is_not_sufficient_and_random_ones_do_as_well() -> None:
    planted = planted_nets.true()
    nothing = packed(planted_nets.flags(planted) & False)
    found = by_title(judged(planted, "circuit-sufficient", "circuit-necessary", "circuit-nulls", circuit=nothing))
    assert found["Circuit is sufficient: mean ablation"].status == "found"
    assert found["Circuit is necessary: mean ablation"].status == "found"
    random = found["Circuit beats its nulls: random circuits"]
    assert random.status == "found" and random.alarm and random.verdict == "not evidence"


def test_a_circuit_of_another_model_is_no_answer() -> None:
    report = judged(planted_nets.true(), "circuit-sufficient", circuit="8:/w==")
    assert {finding.status for finding in by_title(report).values()} == {"not_applicable"}


def test_a_search_that_fails_says_why() -> None:
    planted = planted_nets.true()
    report = judged(planted, "circuit-sufficient", circuit="", penalties="0.5", target=1e-12)
    assert {finding.status for finding in by_title(report).values()} == {"not_applicable"}


def rows(audit: type[CircuitAudit], count: int, status: FindingStatus) -> list[Finding]:
    """The first few claims of one audit, all of one status."""
    titles = list(audit().claims())[:count]
    shared = Estimate.exact("shared", 0.44, "share of units", n=3)
    return [
        Finding(
            code=audit.code, title=title, status=status, subject="net", because=f"{audit.brief}, {title}. And more.",
            brief=f"{audit.brief}, {title}.", margin=0.1, estimates=(shared,),
        )
        for title in titles
    ]  # fmt: skip


SOUND: list[Finding] = [
    *rows(CircuitSufficientAudit, 6, "excluded"), *rows(CircuitNecessaryAudit, 4, "excluded"),
    *rows(CircuitNullsAudit, 3, "excluded"), *rows(CircuitStableAudit, 2, "excluded"),
]  # fmt: skip
PLACES = {"mean": 0, "other prompts": 3, "remove mean": 6, "random": 10, "labels": 12, "held out": 13, "rephrased": 14}


def told(**changed: FindingStatus) -> str:
    """The line where some findings have another status."""
    findings = list(SOUND)
    for name, status in changed.items():
        at = PLACES[name.replace("_", " ")]
        findings[at] = msgspec.structs.replace(findings[at], status=status)
    return of_circuit("net", findings, "37 of 2,816 units")


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "EVIDENCE"),
        ({"mean": "found"}, "SUFFICIENT ONLY UNDER ZERO ABLATION"),
        ({"other_prompts": "inconclusive"}, "CANNOT TELL"),
        ({"remove_mean": "found"}, "NOT NECESSARY"),
        ({"remove_mean": "inconclusive"}, "CANNOT TELL"),
        ({"random": "found"}, "NOT EVIDENCE"),
        ({"labels": "error"}, "CANNOT TELL"),
        ({"held_out": "found"}, "NOT STABLE"),
        ({"rephrased": "found"}, "NOT STABLE"),
        ({"other_prompts": "found", "labels": "found"}, "NOT EVIDENCE"),
    ],
)
def test_the_strongest_objection_decides_the_verdict(changed: dict[str, FindingStatus], word: str) -> None:
    assert told(**changed).startswith(word)


SITES = ("mlp0.read", "mlp0.units", "mlp0.write")


def _searched(size: int) -> dict[str, Any]:
    return {
        "rank": np.arange(30), "size": np.array(size), "edges": np.array(9), "weights": np.array(90),
        "sizes": np.array([1, 5, 30]), "losses": np.array([0.7, 0.1 if size else 0.7, 0.05 if size else 0.7]),
    }  # fmt: skip


def _graph() -> dict[str, Any]:
    return {
        "names": np.array(list("\n".join(SITES).encode())), "site": np.array([0, 1, 2]), "unit": np.array([4, 2, 4]),
        "mean": np.zeros(3), "spread": np.ones(3), "held": np.ones((2, 2, 3)), "source": np.array([0, 1]),
        "target": np.array([1, 2]), "weight": np.array([0.5, -0.5]), "edges": np.array(2),
        "tokens": np.array([[[3, 4], [5, 6]], [[3, 5], [5, 7]]]), "answer": np.array([[1, 1], [2, 2]]),
        "gap": np.ones((2, 2)),
    }  # fmt: skip


def _outcome(trial: Trial) -> Outcome:
    """Task 0 is solved by sparse nets alone, task 1 by all; nulls reach nothing."""
    how = dict(trial.settings)
    if trial.kind != "read":
        found = {"accuracy": np.ones(4)}
    elif trial.perturbation == "circuit-graph":
        found = _graph()
    elif how.get("null") != "none" or int(how["group"]) >= 3:
        found = _searched(0)
    else:
        sparse = trial.subject in SPARSE
        found = _searched(5 if int(how["group"]) == 1 else 5 * sparse)
    return Outcome(key=trial.key, status="done", values=found)


STUDY = SparseCircuits({"seeds": 2, "tasks": 2, "penalties": "1e-3"})
SPARSE = {f"sparse {at}" for at in (1, 2)}
PLAN = Plan(
    command="study", audits=(), seed=0, alpha=0.05, study=STUDY.spec(),
    task=TaskRecord(name="lines", digest="0f" * 16, examples=4, measure="accuracy", measures=("accuracy",)),
    subjects=tuple(
        SubjectRecord(name=asked.name, fingerprint=asked.name, parameters=90, artifact=ArtifactSpec(recipe="sparse"))
        for cast in STUDY.cast() for asked in cast.members
    ),
)  # fmt: skip


def test_one_task_of_the_first_pair_is_shown_with_both_twins_and_its_nulls() -> None:
    known: dict[str, Outcome] = {}
    asked: list[Trial] = []
    while True:
        case = Case(PLAN, known.get)
        more = [trial for trial in STUDY.ask(case) if trial.key not in known]
        if not more:
            break
        asked += more
        known |= {trial.key: _outcome(trial) for trial in more}
    graphs = [trial for trial in asked if trial.perturbation == "circuit-graph"]
    assert [trial.settings["group"] for trial in graphs] == [1, 1] and len({trial.subject for trial in graphs}) == 2

    sections = STUDY.judge(case).sections
    assert [one.subject for one in sections] == ["sparse 1", "dense 1"]
    for one in sections:
        assert one.title == f"Circuit of {one.subject}, bracket" and one.brief == "5 of 30 units"
        [graph], [frontier], [_, found] = (
            [block for block in one.blocks if isinstance(block, kind)] for kind in (Graph, Chart, Table)
        )
        assert graph.rows == SITES and [node.name.rpartition(" ")[2] for node in graph.nodes] == ["4", "2", "4"]
        assert [link.weight for link in graph.links] == [0.5, -0.5] and len(graph.views) == 4
        assert [row[1] for row in found.rows] == ["task", "task", "null", "null", "null"]
        assert {row[2] for row in found.rows if row[1] == "null"} == {"none"}
        assert found.rows[0][0] == one.subject and frontier.series
