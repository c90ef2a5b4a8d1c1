"""What the audits of circuits say of planted ones: the true account, one that mean ablation does not see through."""

from typing import Any

import planted_nets
import pytest

import wheeltap as wt
from benchmarks.nets.planted_circuit import Planted, planted_circuit
from wheeltap.core.records import Finding
from wheeltap.report.report import Report
from wheeltap.suites.circuits.circuit import packed

CHEAP: dict[str, Any] = {"random": 19, "weight_draws": 2, "subsets": 4, "steps": 3, "tries": 1, "again": 2}


def judged(planted: Planted, *names: str, **settings: Any) -> Report:
    how = {"circuit": packed(planted_nets.flags(planted)), **CHEAP, **settings}
    audits = [wt.AuditSpec(name, how) for name in names]
    return wt.audit(wt.Subject(planted.net, name="planted"), planted_nets.task(planted), audits=audits)


def by_title(report: Report) -> dict[str, Finding]:
    return {finding.title: finding for finding in report.findings if finding.code.startswith("WT30")}


@pytest.mark.parametrize("seed", range(2))
def test_a_false_account_is_flagged_and_a_true_one_is_not(seed: int) -> None:
    for fake in (False, True):
        found = by_title(judged(planted_circuit(seed, fake=fake, count=96), "circuit-sufficient"))
        assert len(found) == 6
        verdicts = {title.partition(": ")[2]: finding.status for title, finding in found.items()}
        assert verdicts["mean ablation"] == verdicts["zero ablation"] == "excluded"
        strict = [verdicts[key] for key in ("values of other prompts", "the worst subset found")]
        assert strict == (["found", "found"] if fake else ["excluded", "excluded"])
        assert any(finding.alarm for finding in found.values()) and (not fake or found)


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
    assert random.status == "found" and random.alarm and "not evidence" in random.because


def test_a_circuit_of_another_model_is_no_answer() -> None:
    report = judged(planted_nets.true(), "circuit-sufficient", circuit="8:/w==")
    assert {finding.status for finding in by_title(report).values()} <= {"not_applicable", "error"}


def test_a_search_that_fails_says_why() -> None:
    planted = planted_nets.true()
    report = judged(planted, "circuit-sufficient", circuit="", penalties="0.5", target=1e-12)
    said = {finding.because for finding in by_title(report).values()}
    assert len(said) == 1 and "nothing to explain" in said.pop().lower()
