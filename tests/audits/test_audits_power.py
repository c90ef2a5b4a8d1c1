"""Detection power in a report: what it says of graded copies, and that it says what happens."""

import msgspec
import pytest

from wheeltap import api, gauge
from wheeltap.audits.power import smallest_found
from wheeltap.core.subject import Subject
from wheeltap.plans.plan import AuditSpec, Effort
from wheeltap.runs import loop, planning
from wheeltap.testing import planted


def test_the_smallest_strength_is_between_its_neighbours() -> None:
    assert smallest_found([(1, 0.0), (2, 0.4), (8, 0.9)]) == pytest.approx(2 * 4**0.8)
    assert smallest_found([(1, 0.85), (2, 0.4)]) == 1
    assert smallest_found([(1, 0.1), (2, 0.4)]) is None


@pytest.mark.parametrize(("margin", "told_found"), [(0.02, True), (0.5, False)])
def test_power_told_agrees_with_comparisons_made(margin: float, told_found: bool) -> None:
    case = planted.clusters()
    effort = Effort(draws=8, control_draws=8, block_draws=0)
    audits = (AuditSpec(name="relative-noise", settings={"margin": margin}),)
    report = api.audit(case.subject, case.task, audits=audits, effort=effort)
    power = next(control for control in report.controls if control.name == "WT101 detection power")
    told = {estimate.name: estimate.value or 0.0 for estimate in power.estimates}["found with 8 pairs"]
    assert power.status == ("passed" if told_found else "skipped"), "what finds none of them vouches for nothing"
    assert ("None of these is found" in power.because) != told_found
    family = gauge.find(case.subject.model)
    assert isinstance(family, gauge.Family)
    found = 0
    for seed in range(8):
        made = gauge.describe(family, "cancel", seed=100 + seed, pairs=8)
        rival = Subject(gauge.twin(case.subject.model, made), name="rival")
        plan = planning.plan([case.subject, rival], case.task, audits=audits, effort=effort, seed=seed)
        plan = msgspec.structs.replace(plan, twin=None, planted=None, graded=())
        verdict = loop.run(plan, [case.subject, rival], case.task)
        found += next(f for f in verdict.findings if " vs " in f.subject).status == "found"
    assert (told > 0.9) == told_found
    assert (found >= 7) == told_found


def test_a_large_model_is_told_how_to_measure_it() -> None:
    case = planted.planted("embedding")
    report = api.audit(case.subject, case.task, audits=("relative-noise",), effort=Effort(draws=4, control_draws=4))
    power = next(control for control in report.controls if control.name == "WT101 detection power")
    assert power.status == "skipped"
    assert "doctor --plant" in power.because
