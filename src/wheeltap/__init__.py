"""wheeltap: audits what a benchmark score cannot see.

    import wheeltap as wt

    subject = wt.Subject(model, name="resnet20")
    probe = wt.Probe(inputs, targets)
    report = wt.audit(subject, probe, store="resnet20.wheeltap")
    report.html("report.html")

Everything is loaded when first used: importing wheeltap imports neither torch nor anything else heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wheeltap import gauge, perturb, sources, stats
    from wheeltap.api import Progress, audit, compare, run
    from wheeltap.audits import Audit
    from wheeltap.core import errors, measure
    from wheeltap.core.choices import ChoiceProbe
    from wheeltap.core.probe import Probe
    from wheeltap.core.subject import Subject
    from wheeltap.perturb import Perturbation
    from wheeltap.plans.plan import AuditSpec, Effort, Plan
    from wheeltap.report.report import Report
    from wheeltap.runs.planning import plan
    from wheeltap.runs.stored import judge

_HOME = {
    "audit": "api",
    "compare": "api",
    "plan": "planning",
    "run": "api",
    "judge": "judging",
    "Audit": "audits",
    "AuditSpec": "plans",
    "ChoiceProbe": "choices",
    "Effort": "plans",
    "Perturbation": "perturb",
    "Plan": "plans",
    "Progress": "api",
    "Probe": "probe",
    "Report": "report.report",
    "Subject": "subject",
}
_MODULES = ("errors", "gauge", "measure", "perturb", "sources", "stats")

__all__ = [
    "Audit",
    "AuditSpec",
    "ChoiceProbe",
    "Effort",
    "Perturbation",
    "Plan",
    "Probe",
    "Progress",
    "Report",
    "Subject",
    "__version__",
    "audit",
    "compare",
    "errors",
    "gauge",
    "judge",
    "measure",
    "perturb",
    "plan",
    "run",
    "sources",
    "stats",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"wheeltap.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"wheeltap.{name}")
    raise AttributeError(f"module 'wheeltap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
