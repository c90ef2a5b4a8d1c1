"""The line on a circuit: evidence only where every ablation, necessity and every null say so."""

import msgspec
import pytest

from wheeltap.core.records import Estimate, Finding, FindingStatus
from wheeltap.suites.circuits.audits.claims import (
    CircuitNecessaryAudit,
    CircuitNullsAudit,
    CircuitStableAudit,
    CircuitSufficientAudit,
)
from wheeltap.suites.circuits.audits.common import CircuitAudit
from wheeltap.suites.circuits.audits.headline import of_circuit


def rows(audit: type[CircuitAudit], count: int, status: FindingStatus) -> list[Finding]:
    """The first few claims of one audit, all of one status."""
    titles = audit().titles()[:count]
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


def test_a_sound_circuit_is_evidence_and_says_of_what() -> None:
    line = told()
    assert line.startswith("EVIDENCE: the circuit of net (37 of 2,816 units) does the task alone under mean ablation,")
    assert "without it the task fails (mean ablation" in line.lower() and "Better than its nulls." in line
    assert line.endswith("Holds when rephrased.")


@pytest.mark.parametrize(
    ("name", "status", "start", "says"),
    [
        ("mean", "found", "SUFFICIENT ONLY UNDER ZERO ABLATION", "does not do it alone under mean ablation"),
        ("other_prompts", "found", "SUFFICIENT ONLY UNDER MEAN ABLATION, ZERO", "So the rest may still be used."),
        ("other_prompts", "inconclusive", "CANNOT TELL", "undecided under values of other prompts"),
        ("remove_mean", "found", "NOT NECESSARY", "the rest does the task without it (mean ablation)"),
        ("remove_mean", "inconclusive", "CANNOT TELL", "undecided whether the rest does"),
        ("random", "found", "NOT EVIDENCE", "found where nothing is, Circuit beats its nulls: random circuits."),
        ("labels", "found", "NOT EVIDENCE", "found where nothing is, Circuit beats its nulls: answers swapped."),
        ("labels", "error", "CANNOT TELL", "Nulls without an answer: answers swapped."),
        ("held_out", "found", "NOT STABLE", "rise when rephrased, Circuit is stable: held-out pairs."),
        ("rephrased", "found", "NOT STABLE", "Fails when rephrased."),
    ],
)
def test_one_thing_against_it_is_said_first(name: str, status: FindingStatus, start: str, says: str) -> None:
    line = told(**{name: status})
    assert line.startswith(start), line
    assert says in line


def test_a_null_outweighs_everything_and_a_failing_circuit_is_not_sufficient() -> None:
    assert told(other_prompts="found", labels="found").startswith("NOT EVIDENCE")
    failing = [*rows(CircuitSufficientAudit, 6, "found"), *SOUND[6:]]
    assert of_circuit("net", failing, "").startswith("NOT SUFFICIENT: the circuit of net does not do the task alone")


def test_what_was_not_asked_is_no_evidence() -> None:
    line = of_circuit("net", SOUND[:10], "37 of 2,816 units")
    assert line.startswith("CANNOT TELL") and "Nulls were not asked for." in line
    none = [msgspec.structs.replace(finding, status="not_applicable") for finding in SOUND]
    assert of_circuit("net", none, "") == f"NO ANSWER on a circuit of net: {SOUND[0].because}"
