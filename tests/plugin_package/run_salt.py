"""Runs an audit with the installed plug-in, as its user would, and prints what came of it as JSON."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import wheeltap as wt
from wheeltap.plans.store import Store
from wheeltap.testing import planted


def main(store: str) -> None:
    """Runs twice into one store; the second time everything is there already."""
    case = planted.clusters()
    runs = [
        wt.audit(
            case.subject, case.task, audits=["score", "salt", "confidence"], store=store, effort=wt.Effort(draws=6)
        )
        for _ in range(2)
    ]
    (finding,) = runs[0]["WTX01"]
    with Store(store, readonly=True) as kept:
        outcomes = [kept.get(key) for key in finding.trials]
    page, text = runs[0].html(Path(store).with_suffix(".html")).read_text(), str(runs[0])
    other = wt.Subject(case.subject.model, name="again")
    pair = wt.compare(case.subject, other, case.task, audits=["confidence"])
    told = {
        "reading": [found.status for found in runs[0]["WTX02"]],
        "on the page": [words in page for words in ("Overconfidence", "how often they are right")],
        "in the terminal": "Overconfidence" in text,
        "section": ["Grains of salt" in page, "Score in each draw" in page, "Signs were turned in 6 draws." in text],
        "headline": runs[0].headline,
        "controls": {control.name: control.status for control in runs[0].controls},
        "pair": [found.status for found in pair["WTX02"] if " vs " in found.subject],
        "version": version("wheeltap-salt"),
        "home": str(Path(sys.modules["wheeltap_salt"].__file__ or "")),
        "status": finding.status,
        "verdict": finding.verdict,
        "loss": finding.estimates[0].value,
        "done": [outcome is not None and outcome.status == "done" for outcome in outcomes],
        "forwards": [run.cost.forwards for run in runs],
        "versions": wt.plan(case.subject, case.task, audits=["salt"]).versions["salt"],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
