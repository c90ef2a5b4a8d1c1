"""Symmetry of response: nets whose answers are symmetric, or never are, by construction; and no false alarms."""

import copy
from typing import Any, cast

import numpy as np
import pytest
import torch
from mirrored import KINDS, Kind, mirrored
from torch import Tensor, nn

import wheeltap as wt
from published import cppn, published
from wheeltap.audits.base import create
from wheeltap.core import symmetry
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.records import Finding
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.task import Task
from wheeltap.engine.readings.symmetry import SymmetryResponse, dimension_share
from wheeltap.models.cppn import grid
from wheeltap.report.report import Report
from wheeltap.testing.planted import CASES, PlantedCase, planted

SHORT = {"weights": 24, "directions": 0, "copies": 2}


def read(case: PlantedCase, **settings: Any) -> dict[str, Any]:
    return SymmetryResponse(settings).read(case.subject, case.task, root=0, seed=0).values


def audit(case: PlantedCase, **settings: Any) -> Report:
    return wt.audit(case.subject, case.task, audits=[wt.AuditSpec(name="symmetry", settings=settings)])


def finding(report: Report) -> Finding:
    return next(one for one in report.findings if one.code == "WT204")


def number(found: Finding, name: str) -> float:
    value = next(one.value for one in found.estimates if one.name == name)
    assert value is not None
    return value


# ---- the reading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffled", [0, 1])
@pytest.mark.parametrize(("kind", "share"), [("folded", 1.0), ("halves", 0.5)])
def test_the_share_is_exact_where_it_is_known(kind: Kind, share: float, shuffled: int) -> None:
    """Either by the inputs or by weights that each serve one side: also with the weights in another order."""
    values = read(mirrored(kind), copy=shuffled)
    told = values["reached"] > 0.5
    assert told.mean() > 0.9
    assert values["symmetry"][told] == pytest.approx(share, abs=1e-4)
    assert float(values["floor"]) == 0.5
    if not shuffled:
        assert float(values["own"]) == pytest.approx(1.0, abs=1e-5)  # the two compute the same symmetric function


def test_the_changes_are_those_that_a_slow_loop_makes() -> None:
    """Written into a copy of the net: the effect is the one asked for, and so is S."""
    case = mirrored("plain")
    values = read(case, weights=9, directions=6, effect=0.2)
    task, group = case.task, case.task.annotations.symmetry
    assert group is not None
    clean = task.scores(case.subject.model).double()
    spread = float((clean - clean.mean(0)).square().mean().sqrt())
    flip = group.examples[1]
    for at in range(9):
        for sign in range(2):
            model = copy.deepcopy(case.subject.model)
            layer = case.subject.layers[int(values["layer"][at])]
            with torch.no_grad():
                model.get_parameter(layer.weight)[int(values["unit"][at]), int(values["source"][at])] += float(
                    values["delta"][at, sign]
                )
            change = task.scores(model).double() - clean
            even = (change + change[flip]) / 2
            assert float(change.square().mean().sqrt()) / spread == pytest.approx(values["rms"][at, sign], rel=1e-3)
            share = float(even.square().sum() / change.square().sum())
            assert share == pytest.approx(values["symmetry"][at, sign], abs=1e-4)
    reached = values["reached"] > 0.5
    assert values["rms"][reached] == pytest.approx(0.2, rel=0.011)
    assert (values["delta"][:, 0] > 0).all() and (values["delta"][:, 1] < 0).all()
    assert (values["unit"][9:] == -1).all()


@pytest.mark.parametrize("kind", CASES)
def test_every_kind_of_layer_is_disturbed_and_comes_back(kind: str) -> None:
    case = planted(kind)
    swap = torch.cat([torch.arange(30, 60), torch.arange(30)])
    group = Symmetry("swapped halves", torch.stack([torch.arange(60), swap]))
    case = PlantedCase(case.subject, case.task.with_symmetry(group))
    before = weights_digest(case.subject.model)
    for shuffled in (0, 1):
        values = read(case, weights=8, directions=4, copy=shuffled)
        assert weights_digest(case.subject.model) == before
        assert set(values["layer"]) == set(range(len(case.subject.layers)))
        assert values["reached"].any()
        assert ((values["symmetry"] >= 0) & (values["symmetry"] <= 1 + 1e-9)).all()


def test_a_transposed_convolution_in_memory_is_written_and_put_back() -> None:
    case = planted("conv")
    case.subject.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    swap = torch.cat([torch.arange(30, 60), torch.arange(30)])
    task = case.task.with_symmetry(Symmetry("swapped", torch.stack([torch.arange(60), swap])))
    before = weights_digest(case.subject.model)
    values = read(PlantedCase(case.subject, task), weights=6, directions=0)
    assert weights_digest(case.subject.model) == before
    assert (values["rms"].max(1) > 0.09).all()


def test_absent_weights_are_not_moved_and_copies_are_moved_at_the_same_places() -> None:
    case = mirrored("plain")
    first = case.subject.parameter(case.subject.layers[0].weight).data
    first.zero_()
    first[3, 1] = 1.0
    values = read(PlantedCase(wt.Subject(case.subject.model), case.task), weights=12, directions=0)
    in_first = values["layer"] == 0
    assert set(values["unit"][in_first]) == {3} and set(values["source"][in_first]) == {1}
    other = read(PlantedCase(wt.Subject(case.subject.model), case.task), weights=12, directions=0, copy=2)
    assert (other["unit"] == values["unit"]).all() and (other["source"] == values["source"]).all()


class Turned(nn.Module):
    """Output k of (x, y, z) is f of the inputs turned k times: the outputs turn with the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.f(inputs.roll(-k, 1)) for k in range(3)], 1)


def turned_task(points: Tensor, outputs: Tensor) -> Task:
    """Points, then the same turned once, then twice."""
    count = len(points)
    inputs = torch.cat([points.roll(-k, 1) for k in range(3)])
    return Task(inputs, torch.zeros(3 * count, outputs.shape[1]), measure=wt.measure.squared_error).with_symmetry(
        Symmetry("turns", torch.stack([torch.arange(3 * count).roll(-k * count) for k in range(3)]), outputs)
    )


def test_outputs_that_move_with_the_inputs_are_projected_so() -> None:
    """A group of three; taken for one under which outputs stay, the same net is far from symmetric."""
    torch.manual_seed(0)
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    subject = wt.Subject(Turned().eval(), name="turned")
    moved = torch.stack([torch.arange(3).roll(k) for k in range(3)])
    still = torch.arange(3).expand(3, 3)
    values = read(PlantedCase(subject, turned_task(points, moved)), weights=12)
    assert values["symmetry"][values["reached"] > 0.5] == pytest.approx(1.0, abs=1e-5)
    assert float(values["floor"]) == pytest.approx(1 / 3)
    other = read(PlantedCase(subject, turned_task(points, still.clone())), weights=12)
    assert other["symmetry"][other["reached"] > 0.5].mean() < 0.9


def test_the_floor_is_what_changes_at_random_have() -> None:
    points = torch.stack(torch.meshgrid(torch.arange(-2.0, 3), torch.arange(-2.0, 3), indexing="ij"), -1).reshape(-1, 2)
    group = symmetry.mirror(points)  # of 5 x 5 points: those on the axis stay
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    for given in (group, Symmetry("signed", group.examples, None, signs)):
        noise = torch.randn(4000, 25, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        share = given.project(noise).square().sum((1, 2)) / noise.square().sum((1, 2))
        assert dimension_share(given, 2) == pytest.approx(float(share.mean()), abs=0.005)


def test_what_cannot_be_read_is_refused() -> None:
    case = mirrored("plain")
    group = case.task.annotations.symmetry
    assert group is not None
    three = torch.stack([torch.arange(3), torch.tensor([1, 0, 2])])
    for wrong in ({"outputs": three}, {"signs": torch.tensor([[1.0] * 5, [-1.0] * 5])}):
        task = case.task.with_symmetry(Symmetry("wrong", group.examples, **wrong))
        with pytest.raises(DataError, match="does not fit the outputs"):
            read(PlantedCase(case.subject, task))
    for parameter in case.subject.model.parameters():
        parameter.data.zero_()
    with pytest.raises(ModelError, match="no weight"):
        read(case)
    cast("nn.Sequential", case.subject.model.one)[0].weight.data.fill_(1.0)  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="the same for all examples"):
        read(case)


# ---- the audit -----------------------------------------------------------------------------------------------------


def test_symmetric_answers_are_found_and_said_to_be_built_in() -> None:
    found = finding(audit(mirrored("folded"), **SHORT))
    assert (found.status, found.alarm) == ("found", False)
    assert "built in" in found.because
    assert number(found, "single_weights") == pytest.approx(1.0, abs=1e-4)


def test_a_symmetric_function_with_one_mechanism_for_each_side_is_not() -> None:
    found = finding(audit(mirrored("halves"), **SHORT))
    assert found.status == "excluded"
    assert number(found, "single_weights") == pytest.approx(0.5, abs=1e-4)
    assert number(found, "outputs_themselves") == pytest.approx(1.0, abs=1e-4)
    assert found.smallest_detectable is not None and found.smallest_detectable < 0.15


def test_two_nets_that_compute_the_same_are_told_apart() -> None:
    one, two = mirrored("halves"), mirrored("folded")
    report = wt.compare(one.subject, two.subject, one.task, audits=[wt.AuditSpec(name="symmetry", settings=SHORT)])
    found = next(f for f in report.findings if f.subject == "halves vs folded")
    assert (found.status, found.alarm) == ("found", True)
    assert number(found, "difference") == pytest.approx(0.5, abs=1e-3)


def test_nets_of_other_shapes_can_be_compared() -> None:
    small = wt.Subject(cppn("1;tanh:2", np.linspace(-1, 1, 14, dtype=np.float32)), name="small")
    inputs, group = grid(12), mirrored("plain").task.annotations.symmetry
    assert group is not None
    task = Task(inputs, torch.zeros(144, 3), measure=wt.measure.squared_error).with_symmetry(group)
    other = wt.Subject(cppn("2;tanh:2", np.linspace(-1, 1, 18, dtype=np.float32)), name="other")
    report = wt.compare(small, other, task, audits=[wt.AuditSpec(name="symmetry", settings=SHORT)])
    assert any(f.subject == "small vs other" and f.estimates for f in report.findings)


@pytest.mark.slow
@pytest.mark.full
def test_untrained_nets_raise_no_alarm() -> None:
    """S of smooth untrained nets is far above 1/2, but not above that of their shuffled copies."""
    found = [finding(audit(mirrored("plain", seed=seed, size=8), **SHORT)) for seed in range(16)]
    assert np.mean([number(one, "single_weights") for one in found]) > 0.55
    assert sum(one.status == "found" for one in found) <= 1


def test_a_task_without_a_symmetry_is_told_what_to_do() -> None:
    found = finding(audit(planted("mlp")))
    assert found.status == "not_applicable"
    assert "with_symmetry" in found.because


def test_a_symmetry_that_does_not_fit_the_outputs_is_told() -> None:
    case = mirrored("plain")
    group = case.task.annotations.symmetry
    assert group is not None
    wrong = Symmetry("wrong", group.examples, torch.stack([torch.arange(3), torch.tensor([1, 0, 2])]))
    found = finding(audit(PlantedCase(case.subject, case.task.with_symmetry(wrong)), **SHORT))
    assert found.status == "not_applicable"
    assert "moves 3, the model gives 2" in found.because


def test_an_effect_out_of_reach_is_told() -> None:
    """Colours cannot move by ten times their spread."""
    group = mirrored("plain").task.annotations.symmetry
    assert group is not None
    net = cppn("1;tanh:2", np.linspace(-1, 1, 14, dtype=np.float32))
    task = Task(grid(12), torch.zeros(144, 3), measure=wt.measure.squared_error).with_symmetry(group)
    report = audit(PlantedCase(wt.Subject(net, name="small"), task), **SHORT, effect=10.0)
    assert finding(report).status == "not_applicable"
    assert "smaller effect" in finding(report).because


@pytest.mark.parametrize("kind", KINDS)
def test_the_re_coded_twin_shows_nothing(kind: Kind) -> None:
    report = audit(mirrored(kind, smooth=False), **SHORT)
    (control,) = [one for one in report.controls if one.name == "WT204 reparametrized copy"]
    # Weights of the copy are drawn anew: where their S varies, so few of them could not have failed it.
    assert control.status == ("skipped" if kind == "plain" else "passed")
    assert ("could hardly have failed" in control.because) == (kind == "plain")


@pytest.mark.slow
def test_an_evolved_and_a_trained_net_of_one_picture_differ() -> None:
    """The published skulls at 24 x 24: a gap of about .17 at equal effect."""
    with np.load(published("picbreeder/skull_layerized_and_sgd_params.npz")) as held:
        trained, evolved = (cppn(str(held["arch"]), held[kind]) for kind in ("sgd", "pb"))
    inputs, size = grid(24), 24
    task = Task(inputs, torch.from_numpy(evolved.render(size).reshape(-1, 3)), measure=wt.measure.squared_error)
    report = wt.compare(
        wt.Subject(trained, name="trained"), wt.Subject(evolved, name="evolved"),
        task.with_symmetry(symmetry.mirror(inputs[:, :2])),
        audits=[wt.AuditSpec(name="symmetry", settings={"weights": 36, "directions": 0, "copies": 0})],
    )  # fmt: skip
    found = next(f for f in report.findings if f.subject == "trained vs evolved")
    assert found.status == "found"
    assert 0.08 < number(found, "difference") < 0.26


def test_the_plan_tells_what_it_costs_at_most() -> None:
    """Bound on passes against what the readings took."""
    case = mirrored("plain")
    plan = wt.plan(case.subject, case.task, audits=[wt.AuditSpec(name="symmetry", settings=SHORT)])
    spent = sum(
        SymmetryResponse({"weights": 24, "directions": 0, "copy": at})
        .read(case.subject, case.task, root=0, seed=0)
        .forwards
        for at in range(3)
    )
    bound = create("symmetry", SHORT).most_passes(plan)
    assert spent <= bound
