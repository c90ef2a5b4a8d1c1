"""WT100 on a real net: every scheme's loss, interval and verdict are those of copies that were changed by hand."""

import copy
from typing import Any

import by_hand
import numpy as np
import pytest
import reports
import torch
from by_hand import Array, Change, Slow
from torch import nn

import wheeltap as wt
from wheeltap.audits.schemes import scheme
from wheeltap.core.layer import find_layers
from wheeltap.core.records import Finding
from wheeltap.perturb import create
from wheeltap.perturb.base import Draw, Weights
from wheeltap.plans.plan import Plan
from wheeltap.report.gate import GateError
from wheeltap.report.report import Report
from wheeltap.stats.draws import RARE, WITHIN, draws_needed
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.rare import rare_effect
from wheeltap.testing.planted import PlantedCase, clusters

BY_HAND: dict[str, Change] = {
    "int8": by_hand.rounded(8), "int4": by_hand.rounded(4), "int3": by_hand.rounded(3), "int2": by_hand.rounded(2),
    "int4-tensor": by_hand.rounded(4, tensor=True), "int3-g8": by_hand.rounded(3, group=8),
    "int4-g5": by_hand.rounded(4, group=5), "prune30": by_hand.pruned(0.3), "prune75": by_hand.pruned(0.75),
}  # fmt: skip
NAMES = (*BY_HAND, "bf16")


@pytest.fixture(scope="module")
def case() -> PlantedCase:
    return clusters()


@pytest.fixture(scope="module")
def other() -> PlantedCase:
    return clusters(seed=1)


def right(model: nn.Module, case: PlantedCase) -> Array:
    """1 for each example that is answered right, ``[example]``."""
    assert isinstance(case.task, wt.Task)
    with torch.no_grad():
        return (model(case.task.inputs).argmax(1) == case.task.targets).double().numpy()


def copies(model: nn.Module) -> dict[str, nn.Module]:
    """The net shipped each way, by hand."""
    found = {name: by_hand.changed(model, change) for name, change in BY_HAND.items()}
    found["bf16"] = copy.deepcopy(model).bfloat16().float()
    return found


def audit(case: PlantedCase, *others: PlantedCase, schemes: str = ",".join(NAMES), **settings: Any) -> Report:
    """The report on the deployment audit alone, without the control copy."""
    subjects = [wt.Subject(one.subject.model, name=f"net {at}") for at, one in enumerate((case, *others))]
    spec = wt.AuditSpec("deployment", {"schemes": schemes, **settings})
    return wt.run(wt.plan(subjects, case.task, audits=["score", spec]), subjects, case.task)


def rows(report: Report, subject: str) -> dict[str, Finding]:
    return {f.scheme: f for f in report.findings if f.code == "WT100" and f.subject == subject}


@pytest.fixture(scope="module")
def report(case: PlantedCase) -> Report:
    return audit(case)


def losses(case: PlantedCase, model: nn.Module) -> dict[str, Array]:
    """By scheme, ``[example]``: 1 lost, -1 gained."""
    return {name: right(model, case) - right(made, case) for name, made in copies(model).items()}


# ---- one net -------------------------------------------------------------------------------------------------------


def test_scores_and_losses_are_those_of_copies_changed_by_hand(case: PlantedCase, report: Report) -> None:
    found, lost = rows(report, "net 0"), losses(case, case.subject.model)
    assert list(found) == list(NAMES) and not report.void
    sizes = {name: parameter.numel() for name, parameter in case.subject.model.named_parameters()}
    weights = sum(size for name, size in sizes.items() if name.endswith("weight")) / sum(sizes.values())
    for name, row in found.items():
        loss, score, *_ = row.estimates
        assert loss.name == row.title == scheme(name).label
        after = (right(case.subject.model, case) - lost[name]).mean()
        assert loss.value == pytest.approx(lost[name].mean(), abs=1e-9), name
        assert score.name == "score" and score.value == pytest.approx(after, abs=1e-9)
        # Of biases all but 16-bit storing leave alone.
        assert (row.margin, row.coverage) == (0.02, pytest.approx(1.0 if name == "bf16" else weights, rel=1e-6))
    assert {row.status for row in found.values()} == {"found", "excluded", "inconclusive"}, "all sides are seen here"


def test_intervals_and_verdicts_are_those_of_a_slow_test(case: PlantedCase, report: Report) -> None:
    found, lost = rows(report, "net 0"), losses(case, case.subject.model)
    tests = {name: Slow.of(lost[name], margin=0.02) for name in NAMES}
    told = by_hand.statuses(list(tests.values()), one_sided=[True] * len(NAMES))
    words = {"found": "costs", "excluded": "safe"}
    for (name, test), status in zip(tests.items(), told, strict=True):
        row, leans = found[name], test.ends[0] > 0.0
        loss = row.estimates[0]
        assert (loss.low, loss.high) == pytest.approx(test.ends, abs=1e-9), name
        assert loss.p == pytest.approx(test.above, rel=1e-4, abs=1e-12), name
        assert row.status == status, (name, test)
        assert row.verdict == words.get(status, "may cost" if leans else "cannot tell")
        assert row.leaning == (leans and status == "inconclusive")
        assert (row.power is not None) and (row.power.draws is None)


def test_every_row_has_the_share_kept_and_the_answers_changed(case: PlantedCase, report: Report) -> None:
    clean, made = right(case.subject.model, case).mean(), copies(case.subject.model)
    chance = float(report.record.task.chance or 0.0)
    for name, row in rows(report, "net 0").items():
        kept, moved = reports.number(row, "share kept"), reports.number(row, "answers changed")
        assert kept == pytest.approx((right(made[name], case).mean() - chance) / (clean - chance), abs=1e-9)
        assert moved == pytest.approx(_moved(case, made[name]), abs=1e-9)


def _moved(case: PlantedCase, made: nn.Module) -> float:
    assert isinstance(case.task, wt.Task)
    with torch.no_grad():
        answers = [model(case.task.inputs).argmax(1) for model in (case.subject.model, made)]
    return float((answers[0] != answers[1]).double().mean())


# ---- what is drawn -------------------------------------------------------------------------------------------------


def drawn(plan: Plan, model: nn.Module, name: str, draws: int) -> list[nn.Module]:
    """Copies under the draws of a scheme, each with the perturbation carried out by itself."""
    one, found = scheme(name), list[nn.Module]()
    made = create(one.perturbation, dict(one.settings))
    for seed in range(draws):
        copied = copy.deepcopy(model)
        for layer in find_layers(copied):
            weight, bias = (copied.get_parameter(path or "") for path in (layer.weight, layer.bias))
            new = made.replace(layer, Weights(weight.data.clone(), bias.data.clone()), one.dose, Draw(plan.seed, seed))
            weight.data = new.weight
            bias.data = bias.data if new.bias is None else new.bias
        found.append(copied)
    return found


def test_noise_and_flips_are_means_over_draws(case: PlantedCase) -> None:
    report = audit(case, schemes="noise30,flips1e-4-int8", draws=6, most_draws=6)
    plan = wt.plan(case.subject, case.task, audits=["deployment"])
    clean = right(case.subject.model, case)
    for name in ("noise30", "flips1e-4-int8"):
        row = rows(report, "net 0")[name]
        values = np.stack([clean - right(made, case) for made in drawn(plan, case.subject.model, name, 6)])
        loss = row.estimates[0]
        ends = (float(clean.mean()) - 1.0, float(clean.mean()))
        expected = (
            mean_effect(values, margin=0.02, bounded=True, unit="accuracy")
            if name == "noise30"
            else rare_effect(values, ends, margin=0.02, bounded=True, unit="accuracy")
        )
        assert loss.value == pytest.approx(values.mean(), abs=1e-9) and len(row.trials) == 6
        assert (loss.low, loss.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        within = next(one for one in row.estimates if one.name == WITHIN)
        assert (within.value, within.n) == ((values.mean(1) <= 0.02).sum(), 6)


def test_as_many_draws_are_made_as_decide_a_row(case: PlantedCase) -> None:
    """Noise that costs nothing takes as many draws as show that one in ten at most loses much; ruin is seen at once."""
    report = audit(case, schemes="noise0.1,noise300", margin=0.1)
    safe, costs = (rows(report, "net 0")[name] for name in ("noise0.1", "noise300"))
    assert (safe.verdict, len(safe.trials)) == ("safe", draws_needed(0, RARE, 0.05 / 2 / 2))
    assert (costs.verdict, len(costs.trials)) == ("costs", 16)
    assert "SAFE" not in report.record.headline and "Safe at 0.1 % noise" in report.record.headline
    alone = audit(case, schemes="noise0.1", margin=0.1)
    assert "loses no more than 10.0 points in 9 of 10 draws" in alone.record.headline
    alone.check(max_loss={"noise0.1": 0.1})
    few = audit(case, schemes="noise0.1", margin=0.1, draws=8, most_draws=8)
    [row] = few["WT100"]
    assert row.verdict == "cannot tell" and row.power is not None and row.power.draws == 40
    assert f"(8 of 8 draws within; needs {row.power.draws} draws)" in few.markdown()
    with pytest.raises(GateError, match="its interval is open"):
        few.check(max_loss={"noise0.1": 0.1})


def test_pairs_are_compared_under_equal_draws(case: PlantedCase) -> None:
    ruined = copy.deepcopy(case.subject.model)
    assert isinstance(ruined, nn.Sequential)
    with torch.no_grad():  # units that cancel each other only as long as they are exact
        first, last = ruined[0], ruined[-1]
        first.weight.data[-1] = 30.0 * first.weight[-2]
        first.bias.data[-1] = 30.0 * first.bias[-2]
        last.weight.data[:, -1] = 1.0 - last.weight.data[:, -2] * 0.0
        last.weight.data[:, -2] = last.weight[:, -2] - 30.0 * last.weight[:, -1]
    report = audit(case, PlantedCase(wt.Subject(ruined, name="ruined"), case.task), schemes="noise2", margin=0.1)
    each = [rows(report, name)["noise2"] for name in ("net 0", "net 1", "net 0 vs net 1")]
    draws = [len(row.trials) for row in each]
    assert draws[2] == 2 * min(draws[:2])
    counts = [next(one for one in row.estimates if one.name == WITHIN) for row in each]
    assert counts[2].n == min(draws[:2])


# ---- pairs ---------------------------------------------------------------------------------------------------------


def test_pairs_are_compared_example_by_example(case: PlantedCase, other: PlantedCase) -> None:
    report = audit(case, other)
    one, two = (losses(case, net.subject.model) for net in (case, other))
    found = [rows(report, name) for name in ("net 0", "net 1", "net 0 vs net 1")]
    # Every test of the report, in any order: both nets by themselves, the pair, and the scores.
    score = right(case.subject.model, case) - right(other.subject.model, case)
    pairs = [two[name] - one[name] for name in NAMES]
    assert max(np.abs(gap).max() for gap in pairs) == 2.0, "of some example one net gains what the other loses"
    tests = [Slow.of(lost[name], margin=0.02) for lost in (one, two) for name in NAMES]
    tests += [Slow.of(gap, margin=0.02, one_sided=False, most=2.0) for gap in pairs]
    tests += [Slow.of(score, margin=0.02, one_sided=False)]
    sides = [True] * (2 * len(NAMES)) + [False] * (len(NAMES) + 1)
    told = by_hand.statuses(tests, one_sided=sides)
    got = [rows_of[name].status for rows_of in found for name in NAMES]
    got.append(next(f.status for f in report.findings if f.code == "WT001" and " vs " in f.subject))
    assert got == told
    for name, test in zip(NAMES, tests[2 * len(NAMES) :], strict=False):
        gap = found[2][name].estimates[0]
        assert gap.value == pytest.approx(test.value, abs=1e-9)
        assert (gap.low, gap.high) == pytest.approx(test.ends, abs=1e-9)
        scores = [estimate.value for estimate in found[2][name].estimates[1:]]
        assert scores == [found[at][name].estimates[1].value for at in (0, 1)]
    words = {"found": "differ", "excluded": "equivalent"}
    assert all(row.verdict == words.get(row.status, row.verdict) for row in found[2].values())


def test_a_net_is_equivalent_to_itself(case: PlantedCase) -> None:
    twin = PlantedCase(wt.Subject(copy.deepcopy(case.subject.model), name="copy"), case.task)
    report = audit(case, twin, schemes="int8,int4,int2,prune30")
    for row in rows(report, "net 0 vs net 1").values():
        assert (row.status, row.verdict, row.estimates[0].value) == ("excluded", "equivalent", 0.0)
