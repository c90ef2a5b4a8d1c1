"""Families of modifications on real nets: each trial leaves what its report says; what is taught, and what is lost."""

import copy
import math

import pytest
import torch
from reports import estimate, finding, number, run

import wheeltap as wt
from wheeltap import gauge
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.layer import find_layers
from wheeltap.core.records import Curve
from wheeltap.core.subject import Subject
from wheeltap.perturb import create
from wheeltap.perturb.base import Draw, Weights
from wheeltap.report.report import Report
from wheeltap.runs.budget import most_passes
from wheeltap.sources import digits, load_model

FAMILIES = ("score", "quantization", "pruning", "bit-flips", "fine-tuning")


@pytest.fixture(scope="module")
def subject() -> Subject:
    return load_model("digits")


@pytest.fixture(scope="module")
def report(subject: Subject) -> Report:
    before = weights_digest(subject.model)
    found = wt.audit(subject, digits.task(), audits=list(FAMILIES))
    assert weights_digest(subject.model) == before
    return found


def twin(subject: Subject, name: str, **settings: float) -> torch.nn.Module:
    family = gauge.find(subject.model)
    assert isinstance(family, gauge.Family)
    return gauge.twin(subject.model, gauge.describe(family, name, **settings))


def curve(report: Report, code: str, variant: str = "") -> Curve:
    [found] = [c for c in report.record.curves if (c.code, c.variant) == (code, variant)]
    return found


def modified(subject: Subject, name: str, settings: dict[str, object], dose: float) -> torch.nn.Module:
    """A copy with the perturbation carried out by hand."""
    model, made = copy.deepcopy(subject.model), create(name, settings)
    for layer in find_layers(model):
        weight = model.get_parameter(layer.weight)
        weight.data = made.replace(layer, Weights(weight.data.clone()), dose, Draw(0, 0)).weight
    return model


@pytest.mark.parametrize(
    ("code", "variant", "name", "settings"),
    [
        ("WT103", "groups of 32", "quantize", {"scale": "group", "group": 32}),
        ("WT103", "NF4, groups of 64", "quantize", {"scale": "group", "group": 64, "grid": "nf4"}),
        ("WT104", "2 of every 4", "prune-nm", {}),
    ],
)
def test_scores_and_sizes_are_those_of_copies_changed_by_hand(
    subject: Subject, report: Report, code: str, variant: str, name: str, settings: dict[str, object]
) -> None:
    task, found = digits.task(), curve(report, code, variant)
    clean = torch.cat([p.detach().flatten() for p in subject.model.parameters()]).double()
    for dose, score, norm in zip(found.doses, found.score, found.norms, strict=True):
        model = modified(subject, name, settings, dose)
        right = (task.scores(model).argmax(1) == task.targets).double().mean()
        assert score == pytest.approx(float(right), abs=1e-9)
        moved = torch.cat([p.detach().flatten() for p in model.parameters()]).double() - clean
        assert norm == pytest.approx(float(moved.norm() / clean.norm()), rel=1e-5)


def test_half_doses_run_the_way_damage_does(report: Report) -> None:
    bits, pruned = curve(report, "WT103", "one grid per tensor").half, curve(report, "WT104").half
    assert bits is not None and bits.value is not None and 2 < bits.value < 3  # .957 at 3 bits, .407 at 2
    assert bits.low is not None and bits.high is not None and bits.low <= bits.value <= bits.high
    assert pruned is not None and pruned.value is not None and 0.7 < pruned.value < 0.9
    never = curve(report, "WT103", "NF4, groups of 64").half
    assert never is not None and never.value is None and never.low is None  # half would need fewer bits than tried


def test_a_flip_that_ruins_one_draw_gives_no_size_and_only_draws_may_hide_worse_ones(report: Report) -> None:
    """The worst flips are no draw: their band is that of the examples; four random ones may hide a ruinous one."""
    flips = curve(report, "WT106")
    assert len(flips.norms) == len(flips.doses)
    assert all(norm is None or math.isfinite(norm) for norm in flips.norms)
    worst, few = curve(report, "WT106", "int8, worst weights first"), curve(report, "WT106", "stored as bfloat16")
    assert worst.unit == "weights of each layer flipped" and worst.score[0] >= worst.score[-1]
    assert worst.high[0] - worst.low[0] < 0.1 and few.low[0] < few.score[0] - 0.5  # 4 harmless draws


def test_fine_tuning_scores_what_was_not_trained_on(subject: Subject, report: Report) -> None:
    [found] = report["WT110"]
    assert number(found, "new answers learned after 64 steps") == pytest.approx(1.0, abs=0.05)
    # Any net forgets if it is trained long enough.
    assert not found.alarm
    assert (found.estimates[0].value or 0.0) > 0.1  # what was learnt costs the other groups
    assert 0 < found.estimates[0].n < len(digits.task().targets)
    assert min(curve(report, "WT110", "on more of the same").score) > 0.9


def test_ranks_and_half_doses_of_flipped_bits_allow_for_draws_that_were_not_made(subject: Subject) -> None:
    """Four draws that hardly touch a net say little of the fifth."""
    several = [subject, *(digits.subject(seed=seed, name=f"seed {seed}") for seed in (1, 2))]
    spec = wt.AuditSpec(name="bit-flips", settings={"doses": [1e-7, 1e-3], "tested": 1e-7, "draws": 4, "others": False})
    report = run(several, digits.task(), spec)
    for found in report["WT106"][:3]:
        rank = estimate(found, "rank by what is kept")
        assert (rank.low, rank.high) == (1.0, 3.0)
    for curve in report.record.curves:
        assert curve.half is not None
        assert curve.low[0] is not None and curve.low[0] < 0.5, "of four draws two in three may be unlike any of them"
        assert curve.half.low is None


def test_merging_two_nets_of_one_shape_and_of_two(subject: Subject) -> None:
    permuted = Subject(twin(subject, "permute", seed=1), name="permuted")
    near = Subject(copy.deepcopy(subject.model), name="near")
    with torch.no_grad():
        for parameter in near.model.parameters():
            parameter.mul_(1.001)
    task = digits.task()
    two = [wt.compare(subject, rival, task, audits=["score", "merging"]) for rival in (permuted, near)]
    [far], [close] = (report["WT111"] for report in two)
    assert far.status == "found" and close.status == "excluded"
    # A copy with its units in another order cannot be averaged, and is no different inside.
    assert "DIFFER" not in two[0].headline
    assert (far.verdict, close.verdict, far.margin) == ("costs", "safe", 0.02)
    half = copy.deepcopy(subject.model)
    with torch.no_grad():
        for mine, theirs in zip(half.parameters(), permuted.model.parameters(), strict=True):
            mine.lerp_(theirs, 0.5)
    right = [(task.scores(m).argmax(1) == task.targets).double().mean() for m in (subject.model, permuted.model, half)]
    assert far.estimates[0].value == pytest.approx(float((right[0] + right[1]) / 2 - right[2]), abs=1e-6)
    narrow = torch.nn.Sequential(torch.nn.Linear(64, 20), torch.nn.ReLU(), torch.nn.Linear(20, 10)).eval()
    [unlike] = wt.compare(subject, Subject(narrow, name="other"), task, audits=["score", "merging"])["WT111"]
    assert unlike.status == "not_applicable" and "0.weight" in unlike.because


def _silent(subject: Subject, classes: list[int], name: str) -> Subject:
    """A copy that never answers ``classes``."""
    model = copy.deepcopy(subject.model)
    with torch.no_grad():
        last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
        last.bias[classes] -= 1000.0
    return Subject(model, name=name)


def test_two_tasks_are_added_to_the_base(subject: Subject) -> None:
    """The base lacks two digits; each of the others has learnt one of them, and the sum knows both."""
    task, nets = digits.task(), [_silent(subject, *how) for how in (([3, 5], "base"), ([5], "three"), ([3], "five"))]
    plan = wt.plan(nets, task, audits=["score", "merging"])
    report = wt.run(plan, nets, task)
    both = finding(report, "WT111", "base + three + five")
    clean = [float((task.scores(net.model).argmax(1) == task.targets).double().mean()) for net in (subject, *nets[1:])]
    assert both.status == "excluded"
    whole, half = (number(both, f"loss with {share} of both changes") for share in ("1", "0.5"))
    assert whole == pytest.approx((clean[1] + clean[2]) / 2 - clean[0], abs=1e-6) and whole < -0.05
    assert half > 0.05  # the average of the two knows neither
    assert len(report["WT111"]) == 3 and report.cost.forwards <= most_passes(plan)


def test_several_are_ranked_with_what_the_data_allow(subject: Subject) -> None:
    worse = twin(subject, "cancel", seed=0, pairs=0.5, scale=16.0)
    same = twin(subject, "permute", seed=0)
    nets = [subject, Subject(same, name="same"), Subject(worse, name="worse")]
    task = digits.task()
    plan = wt.plan(nets, task, audits=["score", "quantization"])
    report = wt.run(plan, nets, task)
    ranks = {f.subject: f.estimates[-1] for f in report["WT103"] if " vs " not in f.subject}
    assert {name: (r.low, r.high) for name, r in ranks.items()} == {"digits": (1, 2), "same": (1, 2), "worse": (3, 3)}
