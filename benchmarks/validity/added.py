"""Added value: what a weight disturbance detects beyond outputs and input noise of equal cost."""

from typing import Any

from benchmarks.detection import tables
from benchmarks.detection.added_value import LEAST, added_value
from wheeltap.core.records import Estimate

TITLES = {
    "memorised": "memorised against learned examples",
    "imposter": "imposter against sound twin",
    "lock": "password lock against honest-weak and label-noise nets",
}


def measure(*, quick: bool) -> dict[str, Any]:
    """AUC of every single score and block, and what weights add, for each task."""
    found: dict[str, Any] = {}
    for task in tables.tasks():
        result = added_value(tables.table(task, seeds=range(10), quick=quick))
        found[task] = {
            "single": {estimate.name: _numbers(estimate) for estimate in result.single},
            "models": {estimate.name: _numbers(estimate) for estimate in result.models},
            "added": _numbers(result.added),
            "verdict": result.verdict,
        }
    return found


def _numbers(estimate: Estimate) -> list[float | None]:
    return [estimate.value, estimate.low, estimate.high]


def told(found: dict[str, Any]) -> str:
    """The section of the page."""
    parts = [
        f"""## Added value

Ten seeds per task; doses and draws are chosen on half of the examples and reported on the other half; input noise gets as many passes as weight
noise. AUC with 95 % intervals over seeds. Under {LEAST:g} of incremental AUC the verdict is "no evidence of added value".
"""
    ]
    for task, result in found.items():
        rows = [f"| {name} | {_show(v)} |" for block in ("single", "models") for name, v in result[block].items()]
        rows.append(f"| **added by weights** | **{_show(result['added'])}** |")
        table = "\n".join(rows)
        parts.append(
            f"### {TITLES[task].capitalize()}\n\n{result['verdict']}\n\n| scores | AUC |\n|---|---|\n{table}\n"
        )
    return "\n".join(parts)


def _show(triple: list[float | None]) -> str:
    value, low, high = ("?" if v is None else f"{v:.3f}" for v in triple)
    return f"{value} [{low}, {high}]"
