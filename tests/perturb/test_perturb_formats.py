"""Rounding in every scale and format, and with large inputs spared, against slow loops, tables and torchao."""

import bisect
import hashlib
import itertools
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from one_layer import SHAPES, disturbed, rows_of
from scipy import stats
from torch import Tensor, nn

from wheeltap.core.layer import LayerKind
from wheeltap.core.records import Scalar
from wheeltap.engine.needs.gather import gather
from wheeltap.perturb import perturbations
from wheeltap.perturb.base import InputScale
from wheeltap.perturb.quantize import NF4, snap
from wheeltap.recipes.randomness import reproducible
from wheeltap.testing.planted import numbers, with_own_answers

QLORA = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""NF4 as printed in appendix E of arXiv 2305.14314."""

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""FP4's magnitudes, by code: an even code is a mantissa bit of 0."""

rounded = partial(disturbed, "quantize")
spared = partial(disturbed, "quantize-aware")


def sharing(kind: LayerKind, array: NDArray[np.float64], scale: str | int) -> list[NDArray[np.float64]]:
    """The weights that share a scale, as views: so many consecutive inputs of one unit, all of them, or the tensor."""
    if scale == "tensor":
        return [array]
    rows = rows_of(kind, array)
    size = rows.shape[1] if isinstance(scale, str) else scale
    return [row[start : start + size] for row in rows for start in range(0, len(row), size)]


def integer(value: float, largest: float, bits: int) -> float:
    step = largest / (2 ** (bits - 1) - 1)
    return round(value / step) * step


def nf4(value: float, largest: float, _: int) -> float:
    return min(QLORA, key=lambda level: abs(value / largest - level)) * largest


def fp4(value: float, largest: float, _: int) -> float:
    scaled = abs(value) / (largest / 6)
    code = min(range(8), key=lambda code: (abs(scaled - E2M1[code]), code % 2))
    return float(np.copysign(E2M1[code] * (largest / 6), value))


@pytest.mark.parametrize("kind", ["conv", "transposed", "embedding"])
@pytest.mark.parametrize("scale", ["channel", "tensor", 7])
@pytest.mark.parametrize(
    ("grid", "bits", "slow"), [("int", 2, integer), ("int", 8, integer), ("nf4", 4, nf4), ("fp4", 4, fp4)]
)
def test_what_shares_a_scale_is_rounded_as_by_hand(
    kind: LayerKind, grid: str, bits: int, slow: Callable[[float, float, int], float], scale: str | int
) -> None:
    """One weight at a time. Ragged last groups too: 7 divides none of the rows, 32 is longer than all of them."""
    weight = numbers(*SHAPES[kind], seed=1)
    expected = weight.numpy().copy()
    for group in sharing(kind, expected, scale):
        largest = float(np.abs(group).max())
        group[...] = np.reshape([slow(float(value), largest, bits) for value in group.flat], group.shape)
    settings: dict[str, Scalar] = {"scale": scale} if isinstance(scale, str) else {"scale": "group", "group": scale}
    found = rounded(weight, bits, kind=kind, grid=grid, **settings)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


def spread(*shape: int) -> Tensor:
    """Numbers in [-1, 1) that no random number generator had a part in."""
    count = math.prod(shape)
    return ((torch.arange(1, count + 1) * 2654435761 % 2**20).double() / 2**19 - 1).reshape(shape)


@pytest.mark.parametrize(
    ("name", "settings", "doses", "expected"),
    [
        ("quantize", {}, (2, 3, 4, 6, 8, 16), "c9ec69ba63be53601b4bc40d29b74808"),
        ("quantize", {"scale": "tensor"}, (2, 3, 4, 6, 8, 16), "3d3281ef3291d6de5cc285458bb6016d"),
        ("prune", {}, (0.0, 0.1, 0.5, 0.9, 1.0), "6f890052f3774739a45f1830fd95e151"),
        ("quantize", {"scale": "group", "group": 4}, (2, 3, 4, 8), "23c15bdb85af84002227210090a345c7"),
        ("quantize", {"scale": "group", "group": 4, "grid": "nf4"}, (4,), "d4a92745a0b824c301010a14d7def57e"),
        ("quantize", {"grid": "fp4"}, (4,), "373f3a4505dfa72f2bcefee7aaf96774"),
        ("prune-random", {}, (0.1, 0.5), "ea58654e0325569d59b00b6891606842"),
        ("prune-nm", {}, (0.25, 0.5), "bfadd1bca35a6dbf041d0197a90c4ba5"),
        ("flip", {"format": "int8"}, (0.01, 0.2), "ab50e576428b0a683440ffade9fec930"),
    ],
)
def test_a_version_gives_the_bits_it_always_gave(
    name: str, settings: dict[str, Scalar], doses: tuple[float, ...], expected: str
) -> None:
    """If this fails, raise the perturbation's ``version``: stores hold outcomes of these weights."""
    digest = hashlib.blake2b(digest_size=16)
    for kind, shape in SHAPES.items():
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            for dose in doses:
                found = disturbed(name, spread(*shape).to(dtype), dose, kind=kind, **settings)
                digest.update(found.contiguous().view(torch.uint8).numpy().tobytes())
    assert perturbations.get(name).version == (2 if name in ("prune", "prune-random", "prune-nm") else 1)
    assert digest.hexdigest() == expected


def test_nf4_has_the_published_values_which_are_normal_quantiles() -> None:
    """As its authors make it: halves of 8 and 9 quantiles that share 0, from probability .9677083 inwards."""
    assert NF4 == QLORA
    normal = cast(Any, stats.norm)
    upper = normal.ppf(np.linspace(0.9677083, 0.5, 9)[:-1])
    lower = -normal.ppf(np.linspace(0.9677083, 0.5, 8)[:-1])
    made = np.sort(np.concatenate([upper, [0.0], lower])) / upper.max()
    np.testing.assert_allclose(NF4, made, atol=2e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_nearest_value_of_nf4_everywhere(dtype: torch.dtype) -> None:
    """By bisection of the midpoints, on a fine grid and next to each midpoint; the lower one at the midpoint."""
    table = torch.tensor(QLORA, dtype=dtype)
    middles = (table[1:] + table[:-1]) / 2
    beside = [middles, *(torch.nextafter(middles, torch.tensor(end, dtype=dtype)) for end in (-2.0, 2.0))]
    edges = torch.linspace(-1, 1, 65, dtype=dtype)
    values = torch.cat([torch.linspace(-1, 1, 20_001, dtype=dtype), *beside, edges, -table, table])
    expected = [table[bisect.bisect_left(middles.tolist(), value)] for value in values.tolist()]
    assert torch.equal(snap(values.clone(), "nf4"), torch.stack(expected))


def test_fp4_ties_go_to_the_even_mantissa() -> None:
    ties = torch.tensor([(low + high) / 2 for low, high in itertools.pairwise(E2M1)])
    expected = torch.tensor([0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0])
    assert torch.equal(snap(ties.clone(), "fp4"), expected) and torch.equal(snap(-ties, "fp4"), -expected)


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(-1e3, 1e3)),
    st.sampled_from(["nf4", "fp4"]),
    st.integers(2, 9),
)
def test_formats_give_only_their_values_and_rounding_twice_is_rounding_once(
    weight: NDArray[np.float64], grid: str, size: int
) -> None:
    once = rounded(torch.tensor(weight), 4, scale="group", group=size, grid=grid)
    levels = np.array(QLORA if grid == "nf4" else [*E2M1, *(-level for level in E2M1)]) / (6 if grid == "fp4" else 1)
    for before, after in zip(sharing("linear", weight, size), sharing("linear", once.numpy(), size), strict=True):
        largest = np.abs(before).max()
        if largest > 1e-300:
            gaps = np.abs(after[:, None] - largest * levels[None]).min(1)
            assert (gaps <= 1e-12 * largest).all()
    torch.testing.assert_close(rounded(once, 4, scale="group", group=size, grid=grid), once, rtol=1e-12, atol=1e-290)
    even = rounded(torch.tensor(weight), size)
    torch.testing.assert_close(rounded(even, size), even, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("grid", "bits"), [("int", 3), ("nf4", 4), ("fp4", 4)])
def test_half_precision_is_rounded_as_in_single(dtype: torch.dtype, grid: str, bits: int) -> None:
    weight = numbers(20, 30, seed=3).to(dtype)
    for settings in ({"scale": "group", "group": 8, "grid": grid}, {"grid": grid}):
        assert torch.equal(rounded(weight, bits, **settings), rounded(weight.float(), bits, **settings).to(dtype))


def test_groups_of_zeros_and_small_rows_in_half_precision_stay() -> None:
    rows, weight = torch.tensor([[0.0, 0.0], [1.0, -0.3]]), torch.tensor([[0.0, 0.0, 1.0, -0.3]])
    assert torch.equal(rounded(rows, 2), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert torch.equal(rounded(weight, 2, scale="group", group=2), torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
    for grid in ("nf4", "fp4"):
        assert not rounded(weight, 4, scale="group", group=2, grid=grid)[:, :2].any()
    small = torch.full((2, 3), 6e-8, dtype=torch.float16)  # a step of 6e-8 / 127 is zero in half precision
    assert torch.equal(rounded(small, 8), small)


@pytest.fixture(scope="module")
def torchao() -> Any:
    """Its primitives; it warns about torch's own interfaces when imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            "torchao.quantization.quant_primitives", reason="torchao is not installed (pip install torchao)"
        )


@pytest.mark.parametrize(("bits", "size"), [(2, 32), (4, 128), (8, 64)])
def test_torchao_rounds_groups_alike(torchao: Any, bits: int, size: int) -> None:
    """It multiplies by the scale's inverse, so weights within rounding of a tie may fall to the other side."""
    weight, top = numbers(16, 256, seed=5).float(), 2 ** (bits - 1) - 1
    block, range_ = (1, size), (torch.int8, -top, top)
    scale, zero = torchao.choose_qparams_affine(weight, torchao.MappingType.SYMMETRIC, block, *range_)
    codes = torchao.quantize_affine(weight, block, scale, zero, *range_)
    theirs = torchao.dequantize_affine(codes, block, scale, zero, torch.int8, -top, top)
    found = rounded(weight, bits, scale="group", group=size)
    ratio = weight / scale.repeat_interleave(size, 1)
    tie = ((ratio - ratio.floor()) - 0.5).abs() < 1e-4
    assert float(tie.float().mean()) < 0.01
    torch.testing.assert_close(found[~tie], theirs[~tie], rtol=1e-6, atol=1e-7)


# Large inputs spared.


def error_of_outputs(weight: Tensor, new: Tensor, rms: Tensor) -> float:
    return float(((weight - new) * rms).square().sum())


def spared_slowly(weight: NDArray[np.float64], rms: NDArray[np.float64], bits: int) -> Any:
    """Every exponent by a loop; the first of the least errors."""
    best = (np.inf, weight)
    for exponent in np.linspace(0, 1, 6):
        scale = np.maximum(rms, 1e-4 * rms.max()) ** exponent
        new = weight * scale
        for row in new:
            row[...] = [integer(float(value), float(np.abs(row).max()), bits) for value in row]
        new /= scale
        error = float((((weight - new) * rms) ** 2).sum())
        best = min(best, (error, new), key=lambda found: found[0])
    return best[1]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_best_exponent_is_found_as_by_hand(bits: int) -> None:
    weight, rms = numbers(6, 30, seed=6), numbers(30, seed=7).exp()
    expected = spared_slowly(weight.numpy(), rms.numpy(), bits)
    found = spared(weight, bits, known=InputScale(rms))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 30), st.sampled_from([2, 3, 4, 8]), st.sampled_from(["channel", "group", "tensor"]))
def test_outputs_change_no_more_than_by_plain_rounding(seed: int, bits: int, scale: str) -> None:
    weight, rms = numbers(5, 24, seed=seed), (1.5 * numbers(24, seed=seed + 1)).exp()
    settings: dict[str, Any] = {"scale": scale, **({"group": 8} if scale == "group" else {})}
    plain = error_of_outputs(weight, rounded(weight, bits, **settings), rms)
    found = spared(weight, bits, known=InputScale(rms), **settings)
    assert error_of_outputs(weight, found, rms) <= plain * (1 + 1e-12)


def test_a_few_large_inputs_are_spared() -> None:
    """What AWQ is for: 1 % of inputs a hundred times as large. Most of the error of outputs goes."""
    weight, rms = numbers(64, 200, seed=8), torch.ones(200, dtype=torch.float64)
    rms[:2] = 100.0
    plain = error_of_outputs(weight, rounded(weight, 4), rms)
    assert error_of_outputs(weight, spared(weight, 4, known=InputScale(rms)), rms) < 0.5 * plain


def test_inputs_of_a_convolution_are_its_patches() -> None:
    """The error of outputs that is looked at is that of the layer itself, on white inputs of three sizes."""
    with reproducible(0):
        model = nn.Sequential(nn.Conv2d(3, 16, 2, bias=False), nn.Flatten(), nn.Linear(64, 3)).eval()
    size = torch.tensor([0.1, 1.0, 10.0])[:, None, None]
    case = with_own_answers(model, numbers(400, 3, 3, 3, seed=12).float() * size, name="conv")
    first = case.subject.layers[0]
    known = gather("inputs", case.subject, case.task).at(3, root=0, seed=0)[first.name]
    assert isinstance(known, InputScale)
    torch.testing.assert_close(known.rms, size.double().flatten().repeat_interleave(4), rtol=0.15, atol=0)
    held = case.subject.parameter(first.weight).detach()
    plain, best = (disturbed(name, held, 3, kind="conv", known=known) for name in ("quantize", "quantize-aware"))
    changes = [nn.functional.conv2d(case.task.inputs, new - held).square().mean() for new in (plain, best)]
    assert float(changes[1]) < 0.8 * float(changes[0])  # .41 to .76 on six nets
