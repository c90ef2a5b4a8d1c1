"""The circuit that a finished run judged, as a file."""

from pathlib import Path
from typing import Final

from wheeltap.audits.base import Case, Unanswered, create
from wheeltap.audits.circuit import CircuitAudit
from wheeltap.core.errors import UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.unit_circuit import FORMAT, UnitCircuit, load, of_units, packed, unpacked
from wheeltap.engine.circuits.asking import pairs_of
from wheeltap.engine.circuits.units import UnitNet
from wheeltap.plans.outcomes import Outcomes
from wheeltap.plans.plan import AuditSpec, Plan
from wheeltap.plans.store import Store

AUDITS: Final = ("circuit-sufficient", "circuit-necessary", "circuit-nulls", "circuit-stable")


def found(plan: Plan, subject: Subject, task: BaseTask, store: Path) -> UnitCircuit | None:
    """The circuit of a run; none where no search reached the target."""
    spec = next(spec for spec in plan.audits if spec.name in AUDITS)
    audit = create(spec.name, dict(spec.settings))
    assert isinstance(audit, CircuitAudit)
    with Store(store, readonly=True) as kept:
        try:
            chosen = audit.chosen(Case(plan, Outcomes(kept)), plan.reference)
        except Unanswered:
            return None
    how = audit.settings
    net = UnitNet(subject.model, next(iter(pairs_of(task).batches())).clean)
    return UnitCircuit(
        format=FORMAT, model=subject.record.fingerprint, name=subject.name, task=task.name, examples=task.digest,
        sites=of_units(unpacked(chosen.circuit), tuple((site.name, site.units) for site in net.sites)),
        group=how.group,
        found={"penalty": chosen.penalty, "target": how.target, "steps": how.steps, "batch": how.batch,
               "rate": how.rate, "ablation": how.ablation, "seed": plan.seed},
    )  # fmt: skip


def given(path: Path, subject: Subject, task: BaseTask) -> tuple[AuditSpec, ...]:
    """The audits that judge the circuit in a file, searching for others as it was searched for.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If it is no circuit.
        ModelError: If it is a circuit of another model.
        UsageError: If it is one of another task.
    """
    circuit = load(path)
    circuit.require_model(subject.record.fingerprint, name=subject.name)
    if circuit.examples != task.digest:
        raise UsageError("The circuit is of another task.", where=str(path), expected=f"{circuit.task} as it was then",
                         got=task.name, do="Give the task that it was found on: --task.")  # fmt: skip
    known = {key: value for key, value in circuit.found.items() if key != "seed"}
    settings = {**known, "group": circuit.group, "circuit": packed(circuit.kept)}
    return tuple(AuditSpec(name, dict(settings)) for name in AUDITS)
