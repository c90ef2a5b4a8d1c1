"""wheeltap: audits what a benchmark score cannot see.

    import wheeltap as wt

    subject = wt.Subject(model, name="resnet20")
    task = wt.Task(inputs, targets)
    report = wt.audit(subject, task, store="resnet20.wheeltap")
    report.html("report.html")

Everything is loaded when first used: importing wheeltap imports neither torch nor anything else heavy.
"""

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from wheeltap.core.lazy import lazy

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wheeltap import callbacks
    from wheeltap.api import audit, compare, study
    from wheeltap.core import errors, measure, symmetry
    from wheeltap.core.choices import ChoiceTask
    from wheeltap.core.generated import GenerationTask
    from wheeltap.core.subject import Subject
    from wheeltap.core.task import Task
    from wheeltap.plans.plan import AuditSpec, Effort, Plan
    from wheeltap.report.report import Report
    from wheeltap.runs.loop import run
    from wheeltap.runs.planning import plan
    from wheeltap.runs.stored import judge
    from wheeltap.sources import load
    from wheeltap.suites import circuits, lens, seal

__all__ = [
    "AuditSpec",
    "ChoiceTask",
    "Effort",
    "GenerationTask",
    "Plan",
    "Report",
    "Subject",
    "Task",
    "__version__",
    "audit",
    "callbacks",
    "circuits",
    "compare",
    "errors",
    "judge",
    "lens",
    "load",
    "measure",
    "plan",
    "run",
    "seal",
    "study",
    "symmetry",
]

_HOMES = {
    "audit": "api", "compare": "api", "study": "api", "plan": "runs.planning", "run": "runs.loop",
    "judge": "runs.stored", "load": "sources", "AuditSpec": "plans.plan", "ChoiceTask": "core.choices",
    "Effort": "plans.plan", "GenerationTask": "core.generated", "Plan": "plans.plan", "Report": "report.report",
    "Subject": "core.subject", "Task": "core.task", "errors": ":core.errors", "measure": ":core.measure",
    "symmetry": ":core.symmetry", "callbacks": ":callbacks",
}  # fmt: skip
_own = lazy(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    # Entry points last: looking them up reads the metadata of every installed package.
    if name not in _HOMES and not name.startswith("_"):
        for suite in entry_points(group="wheeltap.suites", name=name):
            return suite.load()
    return _own(name)


def __dir__() -> list[str]:
    return __all__
