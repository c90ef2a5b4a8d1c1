"""CPPNs as dense layered nets: layout, activations, colours, and the published nets."""

import colorsys
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from published import ARCH, DECODED, cppn, needs_data, parameters, png
from wheeltap.core.errors import FileFormatError, UsageError
from wheeltap.models.cppn import ACTIVATIONS, Layout, activation, colour, coordinates, grid

FUNCTIONS = {
    "cache": lambda x: x,
    "identity": lambda x: x,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "sigmoid": lambda x: math.tanh(x / 2.0),  # the same as 2 / (1 + exp(-x)) - 1
    "gaussian": lambda x: 2.0 * math.exp(-x * x) - 1.0,
    "relu": lambda x: max(x, 0.0),
    "abs": abs,
}

layouts = st.builds(
    lambda layers, blocks: Layout(layers, tuple(sorted(blocks.items()))),
    st.integers(1, 14),
    st.dictionaries(st.sampled_from(sorted(ACTIVATIONS)), st.integers(1, 4), min_size=1, max_size=4),
)


def slow(arch: str, flat: NDArray[np.float32], point: tuple[float, float]) -> list[float]:
    """Hue, saturation and brightness at one point: loops over the file's numbers, written from the description."""
    text, _, rest = arch.partition(";")
    layers = int(text)
    units = [block.split(":")[0] for block in rest.split(",") for _ in range(int(block.split(":")[1]))]
    kernels: dict[str, list[list[float]]] = {}
    numbers = iter(flat.tolist())
    for name in sorted(f"Dense_{layer}" for layer in range(layers + 1)):
        layer = int(name.removeprefix("Dense_"))
        fan_in, fan_out = (4 if layer == 0 else len(units)), (3 if layer == layers else len(units))
        kernels[name] = [[next(numbers) for _ in range(fan_out)] for _ in range(fan_in)]
    assert next(numbers, None) is None
    x, y = point
    values = [x, y, 1.4 * math.hypot(x, y), 1.0]
    for layer in range(layers + 1):
        kernel = kernels[f"Dense_{layer}"]
        sums = [
            math.fsum(v * row[unit] for v, row in zip(values, kernel, strict=True)) for unit in range(len(kernel[0]))
        ]
        values = sums if layer == layers else [FUNCTIONS[name](s) for name, s in zip(units, sums, strict=True)]
    return values


@given(layouts, st.integers(0, 2**32 - 1), st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
def test_a_net_computes_what_its_numbers_say(layout: Layout, seed: int, point: tuple[float, float]) -> None:
    flat = np.random.default_rng(seed).normal(0, 0.5, layout.parameters).astype(np.float32)
    net = cppn(str(layout), flat)
    assert np.array_equal(net.flat_parameters(), flat)
    given_inputs = coordinates(torch.tensor([point], dtype=torch.float64))
    with torch.no_grad():
        found = net.double().hsv(given_inputs)[0]
    expected = torch.tensor(slow(str(layout), flat, point), dtype=torch.float64)
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-6)


@given(layouts, st.data())
def test_the_id_of_a_weight_and_its_address_are_inverse(layout: Layout, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, layout.parameters - 1))
    layer, source, target = layout.address(number)
    assert layout.flat_id(layer, source, target) == number
    flat = np.zeros(layout.parameters, dtype=np.float32)
    flat[number] = 1.0
    kernels = layout.split(flat)
    assert kernels[layer][source, target] == 1.0
    assert sum(float(kernel.sum()) for kernel in kernels) == 1.0


@given(layouts)
def test_a_layout_is_read_as_it_was_written(layout: Layout) -> None:
    assert Layout.parse(str(layout)) == layout
    assert layout.width == sum(units for _, units in layout.blocks) == len(layout.carried)
    assert layout.parameters == 7 * layout.width + (layout.layers - 1) * layout.width**2


def test_layouts_that_cannot_be_read_or_cannot_be() -> None:
    for text in ("", "12", "12;", ";sin:1", "12;sin", "12;sin:", "12;sin:1,", "-1;sin:1", "1.5;sin:1", "1;sin:1;cos:1",
                 "1;sin:-1", "1;sin:1\n"):  # fmt: skip
        with pytest.raises(FileFormatError, match="layout"):
            Layout.parse(text)
    for text in ("0;sin:1", "513;sin:1", "1;sin:0", "1;sin:1,cos:1", "1;sin:1,sin:1", "512;sin:99999"):
        with pytest.raises(UsageError, match="laid out"):
            Layout.parse(text)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_activations_are_those_of_the_site(name: str) -> None:
    values = torch.linspace(-4, 4, 41, dtype=torch.float64)
    expected = torch.tensor([FUNCTIONS[name](float(value)) for value in values], dtype=torch.float64)
    assert torch.allclose(activation(name)(values), expected, atol=1e-12)
    assert set(FUNCTIONS) == set(ACTIVATIONS)


def test_x_goes_along_columns_and_y_along_rows() -> None:
    pixels = grid(5).reshape(5, 5, 4)
    assert torch.equal(pixels[0, :, 0], torch.linspace(-1, 1, 5))
    assert torch.equal(pixels[:, 0, 1], torch.linspace(-1, 1, 5))
    assert pixels[0, 4].tolist() == pytest.approx([1.0, -1.0, 1.4 * math.sqrt(2), 1.0])
    assert pixels[2, 2].tolist() == [0.0, 0.0, 0.0, 1.0]


@given(st.floats(-3, 3), st.floats(-0.5, 1.5), st.floats(-1.5, 1.5))
def test_colours_are_those_of_the_standard_library(hue: float, saturation: float, brightness: float) -> None:
    found = colour(torch.tensor([hue, saturation, brightness], dtype=torch.float64))
    expected = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(abs(brightness), 1.0))
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


def test_a_folded_net_is_the_same_left_and_right_and_another_is_not() -> None:
    layout = Layout.parse("3;cache:2,gaussian:3,sin:2")
    flat = np.random.default_rng(0).normal(0, 1, layout.parameters).astype(np.float32)
    folded, plain = cppn(str(layout), flat, fold="abs-x").render(33), cppn(str(layout), flat).render(33)
    assert np.array_equal(folded, folded[:, ::-1])
    assert np.abs(plain - plain[:, ::-1]).mean() > 0.05
    assert np.allclose(folded[:, 16:], plain[:, 16:], atol=1e-6)


@needs_data
@pytest.mark.parametrize(("which", "picture"), [("pb", "picbreeder"), ("sgd", "sgd")])
def test_published_nets_draw_the_published_pictures(which: str, picture: str) -> None:
    difference = np.abs(cppn(ARCH["skull"], parameters("skull", which)).render(256) - png(f"{picture}_skull"))
    assert difference.mean() < 0.004


@needs_data
@pytest.mark.parametrize(("name", "links", "copies"), [("skull", 57, 90), ("butterfly", 104, 177)])
def test_true_links_are_told_from_copies(name: str, links: int, copies: int) -> None:
    net = cppn(ARCH[name], parameters(name, "pb"))
    found = net.links()
    assert len(found) == links
    assert np.count_nonzero(net.flat_parameters()) - len(found) == copies
    assert set(DECODED[name]) <= set(found.tolist())
