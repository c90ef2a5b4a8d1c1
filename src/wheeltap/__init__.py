"""wheeltap: audits what a benchmark score cannot see.

    import wheeltap as wt

    subject = wt.Subject(model, name="resnet20")
    task = wt.Task(inputs, targets)
    report = wt.audit(subject, task, store="resnet20.wheeltap")
    report.html("report.html")

Everything is loaded when first used: importing wheeltap imports neither torch nor anything else heavy.
"""

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wheeltap import gauge, perturb, recipes, sources, stats
    from wheeltap.api import audit, compare, study
    from wheeltap.audits import Audit
    from wheeltap.core import errors, measure, symmetry
    from wheeltap.core.choices import ChoiceTask
    from wheeltap.core.subject import Subject
    from wheeltap.core.task import Task
    from wheeltap.perturb import Perturbation
    from wheeltap.plans.plan import AuditSpec, Effort, Plan
    from wheeltap.report.report import Report
    from wheeltap.runs.loop import Progress, run
    from wheeltap.runs.planning import plan
    from wheeltap.runs.stored import judge
    from wheeltap.studies.base import Study
    from wheeltap.suites import seal
    from wheeltap.suites.circuits import doors as circuits

_HOME = {
    "audit": "api",
    "compare": "api",
    "study": "api",
    "plan": "runs.planning",
    "run": "runs.loop",
    "judge": "runs.stored",
    "Audit": "audits",
    "AuditSpec": "plans.plan",
    "ChoiceTask": "core.choices",
    "Effort": "plans.plan",
    "Perturbation": "perturb",
    "Plan": "plans.plan",
    "Progress": "runs.loop",
    "Task": "core.task",
    "Report": "report.report",
    "Study": "studies.base",
    "Subject": "core.subject",
}
_MODULES = {
    "errors": "core.errors",
    "gauge": "gauge",
    "measure": "core.measure",
    "perturb": "perturb",
    "recipes": "recipes",
    "sources": "sources",
    "stats": "stats",
    "symmetry": "core.symmetry",
}

__all__ = [
    "Audit",
    "AuditSpec",
    "ChoiceTask",
    "Effort",
    "Perturbation",
    "Plan",
    "Progress",
    "Report",
    "Study",
    "Subject",
    "Task",
    "__version__",
    "audit",
    "circuits",
    "compare",
    "errors",
    "gauge",
    "judge",
    "measure",
    "perturb",
    "plan",
    "recipes",
    "run",
    "seal",
    "sources",
    "stats",
    "study",
    "symmetry",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"wheeltap.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"wheeltap.{_MODULES[name]}")
    for suite in () if name.startswith("_") else entry_points(group="wheeltap.suites", name=name):
        return suite.load()
    raise AttributeError(f"module 'wheeltap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
