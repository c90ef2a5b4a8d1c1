"""Symmetry of response: nets whose answers are symmetric, or never are, by construction; and no false alarms."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from mirrored import Kind, mirrored
from reports import control, finding, number
from torch import Tensor, nn
from twins import Wired

import wheeltap as wt
from published import cppn, published
from wheeltap.core import symmetry
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.records import Finding
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.task import Task
from wheeltap.engine.readings.symmetry import SymmetryResponse, dimension_share
from wheeltap.models.cppn import grid
from wheeltap.report.report import Report
from wheeltap.testing.planted import PlantedCase, planted

SHORT = {"weights": 24, "directions": 0, "copies": 2}


def read(case: PlantedCase, **settings: Any) -> dict[str, Any]:
    return SymmetryResponse(settings).read(case.subject, case.task, root=0, seed=0).values


def audit(case: PlantedCase, **settings: Any) -> Report:
    return wt.audit(case.subject, case.task, audits=[wt.AuditSpec(name="symmetry", settings=settings)])


def of(report: Report) -> Finding:
    return report["WT204"][0]


def swapped(case: PlantedCase) -> PlantedCase:
    """The case with its 60 examples in two halves that a symmetry exchanges."""
    swap = torch.cat([torch.arange(30, 60), torch.arange(30)])
    group = Symmetry("swapped halves", torch.stack([torch.arange(60), swap]))
    return PlantedCase(case.subject, case.task.with_symmetry(group))


def mirror() -> Symmetry:
    group = mirrored("plain").task.annotations.symmetry
    assert group is not None
    return group


# ---- the reading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "share", "shuffled"), [("folded", 1.0, 0), ("halves", 0.5, 1)])
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
    task, group = case.task, mirror()
    clean = task.scores(case.subject.model).double()
    spread = float((clean - clean.mean(0)).square().mean().sqrt())
    flip = group.examples[1]
    for at in range(9):
        for sign in range(2):
            model = copy.deepcopy(case.subject.model)
            layer = case.subject.layers[int(values["layer"][at])]
            row, column = int(values["unit"][at]), int(values["source"][at])
            with torch.no_grad():
                model.get_parameter(layer.weight)[row, column] += float(values["delta"][at, sign])
            change = task.scores(model).double() - clean
            even = (change + change[flip]) / 2
            assert float(change.square().mean().sqrt()) / spread == pytest.approx(values["rms"][at, sign], rel=1e-3)
            share = float(even.square().sum() / change.square().sum())
            assert share == pytest.approx(values["symmetry"][at, sign], abs=1e-4)
    reached = values["reached"] > 0.5
    assert values["rms"][reached] == pytest.approx(0.2, rel=0.011)
    assert (values["delta"][:, 0] > 0).all() and (values["delta"][:, 1] < 0).all()
    assert (values["unit"][9:] == -1).all()


@pytest.mark.parametrize("kind", ["attention", "transposed"])
def test_every_kind_of_layer_is_disturbed_and_comes_back(kind: str) -> None:
    case = swapped(planted("conv" if kind == "transposed" else kind))
    if kind == "transposed":  # in memory
        case.subject.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = weights_digest(case.subject.model)
    for shuffled in (0, 1):
        values = read(case, weights=8, directions=4, copy=shuffled)
        assert weights_digest(case.subject.model) == before
        assert set(values["layer"]) == set(range(len(case.subject.layers)))
        moved = values["rms"].max(1) > 0.09
        assert values["reached"].any() and (kind != "transposed" or shuffled or moved[values["unit"] >= 0].all())
        assert ((values["symmetry"] >= 0) & (values["symmetry"] <= 1 + 1e-9)).all()


def turned() -> nn.Module:
    """Output k of (x, y, z) is f of the inputs turned k times: the outputs turn with the inputs."""
    f = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 1))
    return Wired(lambda net, x: torch.cat([net.f(x.roll(-k, 1)) for k in range(3)], 1), f=f)


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
    subject = wt.Subject(turned().eval(), name="turned")
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


def test_what_cannot_be_read_is_refused_and_the_audit_says_why() -> None:
    case, group = mirrored("plain"), mirror()
    three = torch.stack([torch.arange(3), torch.tensor([1, 0, 2])])
    for wrong in ({"outputs": three}, {"signs": torch.tensor([[1.0] * 5, [-1.0] * 5])}):
        unfit = PlantedCase(case.subject, case.task.with_symmetry(Symmetry("wrong", group.examples, **wrong)))
        with pytest.raises(DataError, match="does not fit the outputs"):
            read(unfit)
    net = cppn("1;tanh:2", np.linspace(-1, 1, 14, dtype=np.float32))
    task = Task(grid(12), torch.zeros(144, 3), measure=wt.measure.squared_error).with_symmetry(group)
    small = PlantedCase(wt.Subject(net, name="small"), task)
    unfit = PlantedCase(case.subject, case.task.with_symmetry(Symmetry("wrong", group.examples, three)))
    for one, more in ((unfit, {}), (planted("mlp"), {}), (small, {"effect": 10.0})):
        assert of(audit(one, **SHORT, **more)).status == "not_applicable"
    for parameter in case.subject.model.parameters():
        parameter.data.zero_()
    with pytest.raises(ModelError, match="no weight"):
        read(case)


# ---- the audit -----------------------------------------------------------------------------------------------------


def test_symmetric_answers_are_found_and_one_mechanism_for_each_side_is_not() -> None:
    built_in, halves = (of(audit(mirrored(kind), **SHORT)) for kind in ("folded", "halves"))
    assert (built_in.status, built_in.alarm) == ("found", False)
    assert number(built_in, "single_weights") == pytest.approx(1.0, abs=1e-4)
    assert halves.status == "excluded" and (halves.smallest_detectable or 1.0) < 0.15
    assert number(halves, "single_weights") == pytest.approx(0.5, abs=1e-4)
    assert number(halves, "outputs_themselves") == pytest.approx(1.0, abs=1e-4)


def test_two_nets_that_compute_the_same_are_told_apart() -> None:
    one, two = mirrored("halves"), mirrored("folded")
    short = [wt.AuditSpec(name="symmetry", settings=SHORT)]
    found = finding(wt.compare(one.subject, two.subject, one.task, audits=short), "WT204", "halves vs folded")
    assert (found.status, found.alarm) == ("found", True)
    assert number(found, "difference") == pytest.approx(0.5, abs=1e-3)


@pytest.mark.slow
@pytest.mark.release
def test_untrained_nets_raise_no_alarm() -> None:
    """S of smooth untrained nets is far above 1/2, but not above that of their shuffled copies."""
    found = [of(audit(mirrored("plain", seed=seed, size=8), **SHORT)) for seed in range(16)]
    assert np.mean([number(one, "single_weights") for one in found]) > 0.55
    assert sum(one.status == "found" for one in found) <= 1


@pytest.mark.parametrize("kind", ["folded", "plain"])
def test_the_re_coded_twin_shows_nothing(kind: Kind) -> None:
    report = audit(mirrored(kind, smooth=False), **SHORT)
    copy = control(report, "WT204 reparametrized copy")
    # Weights of the copy are drawn anew: where their S varies, so few of them could not have failed it.
    assert copy.status == ("skipped" if kind == "plain" else "passed")


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
    found = finding(report, "WT204", "trained vs evolved")
    assert found.status == "found"
    assert 0.08 < number(found, "difference") < 0.26
