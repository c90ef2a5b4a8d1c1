"""Nets trained to draw a picture: the gradient derived by hand, what they become, what becomes of those lost."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from painted import asked, paint
from torch import Tensor

from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.task import Task
from wheeltap.models.cppn import ACTIVATIONS, Cppn, Layout, colour, folded, grid
from wheeltap.plans.artifacts import ArtifactFile, Artifacts
from wheeltap.recipes.base import Given
from wheeltap.suites.pictures.recipes.picture import PictureNet, PictureSettings, Trainee, start
from wheeltap.suites.pictures.recipes.picture_loss import BENDS, LINEAR, PictureLoss
from wheeltap.suites.pictures.studies.pictures import KINDS
from wheeltap.testing.recipe_contract import RecipeContract

LAYOUT = Layout.parse("3;cache:3,gaussian:3,sin:1")
SHORT = PictureSettings(steps=60, records=6)


def _picture(size: int = 16) -> torch.Tensor:
    """A disc to the left of a ramp: smooth enough for a tiny net, and not its own mirror image."""
    inputs = grid(size)
    x, y = inputs[:, 0], inputs[:, 1]
    disc = torch.exp(-6 * ((x + 0.4).square() + y.square()))
    return torch.stack([disc, 0.5 + 0.4 * x, 0.2 + 0.6 * disc], 1)


CANVAS = Task(grid(16), _picture(), name="canvas")


def _start(given: Given) -> Trainee:
    return PictureNet(dict(given.spec.settings)).start(given)


def of_kind(kind: str, settings: PictureSettings = PictureSettings()) -> PictureSettings:  # noqa: B008  (frozen)
    return replace(settings, **KINDS[kind])


def _error(net: Cppn, canvas: Task) -> float:
    with torch.no_grad():
        return float((net(canvas.inputs) - canvas.targets).square().mean())


def _gradient(flat: np.ndarray) -> np.ndarray:
    """Of the error by all weights in the published order, by autograd in double precision."""
    net = Cppn(LAYOUT).double()
    ends = np.cumsum([inner * outer for inner, outer in LAYOUT.shapes])[:-1]  # under ten layers, as they are computed
    for layer, kernel, shape in zip(net.dense, np.split(flat.astype(np.float64), ends), LAYOUT.shapes, strict=True):
        layer.weight.data = torch.from_numpy(kernel.reshape(shape).T.copy())
    error = (net(CANVAS.inputs.double()) - CANVAS.targets.double()).square().mean()
    found = torch.autograd.grad(error, [layer.weight for layer in net.dense])
    return np.concatenate([found[layer].T.numpy().ravel() for layer in LAYOUT.published])


def test_a_small_picture_is_learnt() -> None:
    painted = paint(LAYOUT, CANVAS, seeds=range(4), settings=PictureSettings(steps=600, records=10))
    assert painted.status == ("done",) * 4
    assert painted.restarts == (0,) * 4
    assert list(painted.steps) == list(range(0, 601, 60))
    assert painted.errors.shape == (11, 4)
    assert np.median(painted.errors[-1] / painted.errors[0]) < 0.1
    # The errors that are recorded are those of the nets that come back, and of the starts that they come from.
    for at, net in enumerate(painted.nets):
        assert _error(net, CANVAS) == pytest.approx(painted.errors[-1, at], rel=1e-4)
        assert _error(Cppn.of(LAYOUT, start(LAYOUT, at)), CANVAS) == pytest.approx(painted.errors[0, at], rel=1e-4)


def test_the_updates_are_adams_on_a_gradient_of_length_one() -> None:
    steps = 3  # training is chaotic: later, two roundings are two nets
    [net] = paint(LAYOUT, CANVAS, seeds=[5], settings=replace(SHORT, steps=steps)).nets
    weights = Cppn.of(LAYOUT, start(LAYOUT, 5)).flat_parameters().astype(np.float64)
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, steps + 1):
        gradient = _gradient(weights)
        gradient /= np.linalg.norm(gradient)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weights -= 3e-3 * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    assert np.abs(net.flat_parameters() - weights).max() < 2e-6


def test_starts_are_lecun_normal_and_cut_off() -> None:
    kernels = start(Layout.parse("3;cache:200"), 0)
    for kernel, fan_in in zip(kernels, (4, 200, 200, 200), strict=True):
        assert kernel.std() * fan_in**0.5 == pytest.approx(1.0, abs=0.12)
        assert np.abs(kernel).max() <= 2.0 / 0.87962566 / fan_in**0.5 + 1e-6


def test_a_net_depends_on_its_own_seed_alone_and_nothing_else_is_changed() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    together = paint(LAYOUT, CANVAS, seeds=[3, 1, 2], settings=SHORT)
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(lambda seed: paint(LAYOUT, CANVAS, seeds=[seed], settings=SHORT).bits[0], [3, 1, 2]))
    assert together.bits == at_once
    for at, seed in enumerate((3, 1, 2)):
        alone = paint(LAYOUT, CANVAS, seeds=[seed], settings=SHORT)
        assert alone.bits == together.bits[at : at + 1]
        assert np.array_equal(alone.errors[:, 0], together.errors[:, at])
    assert len(set(together.bits)) == 3


class TestKinds:
    def test_untrained_nets_are_their_starts(self) -> None:
        painted = paint(LAYOUT, CANVAS, seeds=[4], settings=of_kind("untrained"))
        assert (painted.status, list(painted.steps), painted.errors.shape) == (("done",), [0], (1, 1))
        assert painted.bits == [Cppn.of(LAYOUT, start(LAYOUT, 4)).flat_parameters().tobytes()]

    def test_relu_nets_are_as_deep_and_wide(self) -> None:
        [net] = paint(LAYOUT, CANVAS, seeds=[0], settings=of_kind("relu", SHORT)).nets
        assert net.layout == Layout.parse("3;relu:7")
        assert all((maps >= 0).all() for maps in net.maps(CANVAS.inputs))

    def test_folded_nets_draw_mirror_images_of_themselves(self) -> None:
        painted = paint(LAYOUT, CANVAS, seeds=[0], settings=of_kind("abs-x", SHORT))
        image = painted.nets[0].render(16)
        assert np.array_equal(image, image[:, ::-1])
        assert painted.errors[-1, 0] < painted.errors[0, 0]
        plain = paint(LAYOUT, CANVAS, seeds=[0], settings=SHORT).nets[0].render(16)
        assert np.abs(plain - plain[:, ::-1]).max() > 0.05

    def test_an_l1_penalty_makes_weights_smaller(self) -> None:
        settings = replace(SHORT, steps=300)
        plain, light, heavy = (
            float(np.mean([np.abs(net.flat_parameters()).sum() for net in painted.nets]))
            for painted in (
                paint(LAYOUT, CANVAS, seeds=range(3), settings=replace(settings, l1=l1)) for l1 in (0.0, 1e-3, 1e-2)
            )
        )
        assert heavy < light < plain

    def test_weight_decay_makes_weights_smaller(self) -> None:
        plain = paint(LAYOUT, CANVAS, seeds=[0], settings=replace(SHORT, steps=1))
        decayed = paint(LAYOUT, CANVAS, seeds=[0], settings=replace(SHORT, steps=1, decay=10.0))
        first = start(LAYOUT, 0)
        # Decoupled: in one step every weight loses the rate times the decay, whatever else is done to it.
        lost = plain.nets[0].flat_parameters() - decayed.nets[0].flat_parameters()
        assert np.allclose(lost, 0.03 * Cppn.of(LAYOUT, first).flat_parameters(), atol=1e-6)

    def test_sharpness_aware_nets_take_the_gradient_uphill(self) -> None:
        rho = 0.2
        [net] = paint(LAYOUT, CANVAS, seeds=[1], settings=replace(SHORT, steps=1, rho=rho)).nets
        first = Cppn.of(LAYOUT, start(LAYOUT, 1)).flat_parameters()
        here = _gradient(first)
        above = _gradient(first + rho * here / np.linalg.norm(here))
        moved = net.flat_parameters() - first
        clear = np.abs(above) > 1e-4 * np.linalg.norm(above)
        # Adam's first step is the rate times the sign.
        assert np.allclose(moved[clear], -3e-3 * np.sign(above[clear]), rtol=1e-3)
        assert (np.sign(above[clear]) != np.sign(here[clear])).any()

    def test_sparse_nets_have_the_wanted_number_of_weights(self) -> None:
        for nonzero in (20, 69):
            share = nonzero / LAYOUT.parameters
            painted = paint(LAYOUT, CANVAS, seeds=range(2), settings=replace(SHORT, share=share, tries=1))
            assert [np.count_nonzero(net.flat_parameters()) for net in painted.nets] == [nonzero] * 2

    def test_pruning_goes_from_all_weights_to_the_share(self) -> None:
        settings = PictureSettings(steps=100, share=0.1)
        kept = [settings.kept(step, 1000) for step in range(101)]
        assert kept[:11] == [1000] * 11
        assert kept[70:] == [100] * 31
        assert all(later <= earlier for earlier, later in pairwise(kept))
        assert kept[40] == pytest.approx(100 + 900 * 0.5**3, abs=1)


WHITE = "1;cache:4"
"""Linear: whatever its weights are, it draws."""


def _white(folder: Path, settings: PictureSettings, seed: int, canvas: Task) -> None:
    """Plants a net, as if in training, whose every pixel is clipped to white: it has no gradient."""
    given = asked(Layout.parse(WHITE), canvas, settings, seed)
    trainee = _start(given)
    last = np.zeros((4, 3), dtype=np.float32)
    last[3] = [0.0, -1.0, 2.0]  # from the input that is always 1: saturation below 0, brightness above 1
    arrays = {**trainee.arrays(), "weights": trainee.loss.pack([np.eye(4, dtype=np.float32), last]).numpy()}
    Artifacts(folder).keep_state(given.spec, ArtifactFile(arrays, trainee.note()))


class TestLostNets:
    def test_a_net_that_is_all_white_starts_again(self, tmp_path: Path) -> None:
        _white(tmp_path, SHORT, 7, CANVAS)
        painted = paint(Layout.parse(WHITE), CANVAS, seeds=[6, 7], settings=SHORT, folder=tmp_path)
        assert painted.status == ("done", "done")
        assert painted.restarts == (0, 1)
        assert painted.errors[-1, 1] < painted.errors[0, 1]
        # The start that it was given follows from its seed.
        elsewhere = tmp_path / "again"
        _white(elsewhere, SHORT, 7, CANVAS)
        again = paint(Layout.parse(WHITE), CANVAS, seeds=[7], settings=SHORT, folder=elsewhere)
        assert again.bits == painted.bits[1:]

    def test_a_white_net_is_not_lost_where_white_is_wanted(self, tmp_path: Path) -> None:
        canvas = Task(CANVAS.inputs, torch.ones_like(CANVAS.targets), name="canvas")
        _white(tmp_path, SHORT, 7, canvas)
        painted = paint(Layout.parse(WHITE), canvas, seeds=[7], settings=SHORT, folder=tmp_path)
        assert (painted.status, painted.restarts, painted.errors[-1, 0]) == (("done",), (0,), 0.0)

    def test_where_every_start_is_lost_a_net_is_stuck(self) -> None:
        nowhere = Task(torch.zeros(16, 4), torch.full((16, 3), 0.5), name="canvas")
        settings = replace(SHORT, tries=3)
        painted = paint(Layout.parse("2;cache:3,sin:2"), nowhere, seeds=[0, 1], settings=settings)
        assert painted.status == ("stuck", "stuck")
        assert painted.restarts == (2, 2)
        # Black, for half grey.
        assert np.allclose(painted.errors, 0.25)

    def test_numbers_that_are_not_finite_are_a_status(self, tmp_path: Path) -> None:
        settings = replace(SHORT, rate=1e12, tries=2)
        painted = paint(LAYOUT, CANVAS, seeds=[0], settings=settings, folder=tmp_path)
        assert painted.status == ("diverged",)
        assert painted.restarts == (1,)
        assert np.isfinite(painted.errors).all()
        assert np.isfinite(painted.nets[0].flat_parameters()).all()
        assert _error(painted.nets[0], CANVAS) == pytest.approx(painted.errors[-1, 0], rel=1e-4)
        kept = paint(LAYOUT, CANVAS, seeds=[0], settings=settings, folder=tmp_path)
        assert (kept.status, kept.bits) == (painted.status, painted.bits)
        last = paint(LAYOUT, CANVAS, seeds=[0], settings=replace(settings, steps=1))
        assert last.status == ("diverged",), "lost at its last step"


def test_settings_and_pictures_that_make_no_sense_are_errors() -> None:
    inputs, target = CANVAS.inputs, CANVAS.targets
    for changes in (
        {"steps": -1}, {"rate": 0.0}, {"rate": float("nan")}, {"decay": float("inf")}, {"share": 1.1}, {"tries": 0},
        {"prune_to": 1.5}, {"prune_to": 0.05},
    ):  # fmt: skip
        with pytest.raises(UsageError, match=r"cannot be used|before it begins") as raised:
            PictureNet(changes)
        assert next(iter(changes)) in str(raised.value)
    with pytest.raises(UnknownName, match="activation"):
        paint(LAYOUT, CANVAS, seeds=[0], settings=replace(SHORT, units="rellu"))
    for wrong in ((inputs[:, :3], target), (inputs, target[:, :2])):
        with pytest.raises(DataError, match="The task is no picture"):
            paint(LAYOUT, Task(*wrong), seeds=[0], settings=SHORT)
    for pair in ((inputs, target + 1), (inputs, target - 1), (inputs * 1e9, target)):
        with pytest.raises(DataError, match="numbers that it cannot"):
            paint(LAYOUT, Task(*pair), seeds=[0], settings=SHORT)


_CANVAS = Task(grid(12), _picture(12), name="canvas")


class TestPicture(RecipeContract):
    recipe = PictureNet
    settings: ClassVar[dict[str, Any]] = {
        "layout": "2;cache:3,gaussian:3", "steps": 30, "share": 0.5, "prune_every": 3, "rho": 0.01,
    }  # fmt: skip
    other: ClassVar[dict[str, Any]] = {
        "steps": 31, "rate": 1e-2, "records": 7, "fold": "abs-x", "units": "tanh", "l1": 1e-2, "decay": 1.0, "rho": 0.1,
        "share": 0.4, "prune_from": 0.5, "prune_to": 0.9, "prune_every": 7, "size": 9, "layout": "1;gaussian:3",
        "picture": "face", "tries": 2,
    }  # fmt: skip
    beside: ClassVar[dict[str, Any]] = {"size": {"picture": "face", "size": 8}, "tries": {"rate": 1e12}}
    idle: ClassVar[dict[str, Any]] = {
        "patience": "what a net is that never had a gradient does not depend on when it was given up",
        "solved": "an error of 0 is not reached in a few steps",
    }

    def task(self) -> Task:
        return _CANVAS


LAYOUTS = (
    "12;cache:15,gaussian:4,identity:2,sin:1",  # one piece: linear units are never drawn
    "16;cache:17,gaussian:4,sigmoid:1,sin:1",  # three pieces
    "9;cache:4,sigmoid:5,sin:2",
    "5;relu:7",  # every layer whole
    "4;abs:3,cos:2,identity:1,tanh:3",
    "1;gaussian:3",
    "3;cache:4",  # nothing bent
)


def _by_autograd(net: Cppn, inputs: Tensor, target: Tensor) -> tuple[float, Tensor]:
    error = (net(inputs) - target).square().mean()
    gradients = torch.autograd.grad(error, [layer.weight for layer in net.dense])
    return error.item(), torch.cat([gradient.T.reshape(-1) for gradient in gradients])


def _by_hand(net: Cppn, inputs: Tensor, target: Tensor) -> tuple[float, Tensor]:
    loss = PictureLoss(net.layout, inputs, target)
    with torch.no_grad():
        flat = loss.pack([layer.weight.T.numpy() for layer in net.dense])
        error = loss.value_and_gradient(flat)
        assert loss.value(flat) == error
    return error, _unpacked(loss)


def _unpacked(loss: PictureLoss) -> Tensor:
    """The gradient, each kernel [in, out], in whatever precision it has."""
    place = loss.pack(_numbered(loss.layout)).long()
    return torch.zeros_like(loss.gradient).index_copy_(0, place, loss.gradient)


def _numbered(layout: Layout) -> list[np.ndarray]:
    numbers, found = np.arange(layout.parameters, dtype=np.float64), []
    for fan_in, units in layout.shapes:
        found.append(numbers[: fan_in * units].reshape(fan_in, units))
        numbers = numbers[fan_in * units :]
    return found


def _case(arch: str, seed: int, scale: float = 1.0) -> tuple[Cppn, Tensor, Tensor]:
    layout = Layout.parse(arch)
    net = Cppn.of(layout, [scale * kernel for kernel in start(layout, seed)])
    inputs = grid(13)
    return net, inputs, torch.rand(len(inputs), 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("arch", LAYOUTS)
@pytest.mark.parametrize("scale", [1.0, 1.4])
def test_the_gradient_is_autograds(arch: str, scale: float) -> None:
    for seed in range(3):
        net, inputs, target = _case(arch, seed, scale)
        net, inputs, target = net.double(), inputs.double(), target.double()
        error, gradient = _by_autograd(net, inputs, target)
        ours, found = _by_hand(net, inputs, target)
        assert ours == pytest.approx(error, rel=1e-12)
        assert (found - gradient).norm() <= 1e-10 * gradient.norm()


@pytest.mark.parametrize("arch", LAYOUTS)
def test_single_precision_is_as_good_as_autograds(arch: str) -> None:
    ours, theirs = [], []
    for seed in range(4):
        net, inputs, target = _case(arch, seed)
        single = (_by_hand(net, inputs, target)[1], _by_autograd(net, inputs, target)[1])
        _, exact = _by_autograd(net.double(), inputs.double(), target.double())
        for errors, gradient in zip((ours, theirs), single, strict=True):
            errors.append(float((gradient.double() - exact).norm() / exact.norm()))
    # Sums of products are taken in another order: other roundings, and a few more of them.
    assert np.median(ours) <= max(5 * np.median(theirs), 5e-6)


def test_units_go_into_the_order_of_computation_and_come_back() -> None:
    layout = Layout.parse("3;cache:2,gaussian:2,identity:1,sin:1")
    kernels = start(layout, 0)
    loss = PictureLoss(layout, grid(4), torch.zeros(16, 3))
    assert list(loss.order) == [2, 3, 5, 0, 1, 4]
    assert all(np.array_equal(a, b) for a, b in zip(loss.unpack(loss.pack(kernels)), kernels, strict=True))


def test_a_folded_net_is_trained_on_folded_inputs() -> None:
    net, inputs, target = _case("3;cache:2,gaussian:2", 1)
    mirrored = Cppn.of(net.layout, net.kernels(), fold="abs-x")
    error, gradient = _by_autograd(mirrored, inputs, target)
    ours, found = _by_hand(net, folded(inputs, "abs-x"), target)
    assert ours == pytest.approx(error, rel=1e-5)
    assert (found - gradient).norm() <= 1e-5 * gradient.norm()


ENDS = [-2.0, -1.0, -0.5, -1 / 6, -0.0, 0.0, 1 / 6, 1 / 3, 0.5, 2 / 3, 5 / 6, 1.0, 7 / 6, 1.7, 2.0]


def test_at_the_ends_of_every_clip_the_slope_is_autograds() -> None:
    # One linear layer and no other: hue, saturation and brightness are whatever the inputs say.
    hsv = torch.tensor([[h, s, v, 1.0] for h in ENDS for s in ENDS for v in ENDS], dtype=torch.float64)
    layout = Layout.parse("1;cache:4")
    net = Cppn.of(layout, [np.eye(4, dtype=np.float32), np.eye(4, 3, dtype=np.float32)]).double()
    one_by_one = [0, 1, 17, *range(40, len(hsv), 7)]
    for at in one_by_one:
        pixel, target = hsv[at : at + 1], torch.full((1, 3), 0.3, dtype=torch.float64)
        leaf = pixel[:, :3].clone().requires_grad_()
        [wanted] = torch.autograd.grad((colour(leaf) - target).square().mean(), [leaf])
        _, found = _by_hand(net, pixel, target)
        # By the last kernel: the slope by hue, saturation and brightness times an input of 1.
        assert torch.allclose(found[16:].view(4, 3)[3].double(), wanted[0], rtol=1e-6, atol=1e-7), pixel


def test_every_activation_has_its_slope() -> None:
    assert set(BENDS) | LINEAR == set(ACTIVATIONS)
    assert not set(BENDS) & LINEAR
    values = torch.cat([torch.linspace(-3, 3, 41, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    for name, bend in BENDS.items():
        leaf = values.clone().requires_grad_()
        leaving = ACTIVATIONS[name](leaf)
        [slope] = torch.autograd.grad(leaving.sum(), [leaf])
        arriving, found = values.clone(), torch.empty_like(values)
        bend(arriving, found)
        assert torch.allclose(found, leaving.detach(), rtol=1e-12, atol=1e-12), name
        assert torch.allclose(arriving, slope, rtol=1e-12, atol=1e-12), name
