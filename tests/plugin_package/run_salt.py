"""Runs an audit with the installed plug-in, as its user would, and checks what came of it."""

import sys
from importlib.metadata import version
from pathlib import Path

import wheeltap as wt
from wheeltap.plans.store import Store
from wheeltap.testing import planted


def main(site: str, store: str) -> None:
    """Runs twice into one store; the second time everything is there already."""
    case = planted.clusters()
    audits = ["score", "salt", "confidence"]
    first, again = (
        wt.audit(case.subject, case.task, audits=audits, store=store, effort=wt.Effort(draws=6)) for _ in range(2)
    )
    assert version("wheeltap-salt") == "0.1.0"
    assert Path(sys.modules["wheeltap_salt"].__file__ or "").is_relative_to(site)
    (finding,) = first["WTX01"]
    assert (finding.status, finding.verdict) == ("found", "costs") and finding.estimates[0].value > 0.02
    with Store(store, readonly=True) as kept:
        outcomes = [kept.get(key) for key in finding.trials]
    assert [outcome is not None and outcome.status for outcome in outcomes] == ["done"] * 6
    # One clean pass, and two perturbed trials that show that stored outcomes are still those of this model.
    assert first.cost.forwards >= 6 and again.cost.forwards == 3, again.cost.forwards
    assert wt.plan(case.subject, case.task, audits=["salt"]).versions["salt"] == 1
    pair = wt.compare(case.subject, wt.Subject(case.subject.model, name="again"), case.task, audits=["confidence"])
    assert [found.status for found in first["WTX02"]] == ["excluded"]
    assert [found.status for found in pair["WTX02"] if " vs " in found.subject] == ["excluded"]
    assert {control.name: control.status for control in first.controls}["WTX02 reparametrized copy"] == "passed"
    # First class wherever a finding is read: the words are the audit's own.
    page = first.html(Path(store).with_suffix(".html")).read_text()
    assert "Overconfidence" in page and "Grains of salt" in page and "Score in each draw" in page
    assert first.headline.startswith("FOUND: Turned signs.")


if __name__ == "__main__":
    main(*sys.argv[1:])
