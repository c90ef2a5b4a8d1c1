"""The gradient derived by hand, against autograd through the net itself."""

import numpy as np
import pytest
import torch
from torch import Tensor

from wheeltap.models.cppn import ACTIVATIONS, Cppn, Layout, colour, folded, grid
from wheeltap.suites.pictures.recipes.picture import start
from wheeltap.suites.pictures.recipes.picture_loss import BENDS, LINEAR, PictureLoss

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
