"""Quantisation and pruning against naive loops."""

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core.layer import Layer, LayerKind
from wheeltap.core.records import Scalar
from wheeltap.perturb import create, perturbations
from wheeltap.perturb.base import Draw, Weights
from wheeltap.testing.planted import numbers

DRAW = Draw(0, 0)
BITS = (2, 3, 4, 5, 6, 7, 8)

SHAPES: dict[LayerKind, tuple[int, ...]] = {
    "linear": (5, 12),
    "transposed": (12, 5),
    "conv": (5, 3, 2, 2),
    "embedding": (9, 6),
    "attention": (12, 4),
}


def layer(kind: LayerKind, shape: tuple[int, ...]) -> Layer:
    return Layer(name="x", kind=kind, weight="x.weight", bias="x.bias", shape=shape)


def quantized(weight: Tensor, bits: float, *, kind: LayerKind = "linear", scale: str = "channel") -> Tensor:
    made = create("quantize", {"scale": scale})
    made.require_dose(bits)
    return made.replace(layer(kind, tuple(weight.shape)), Weights(weight), bits, DRAW).weight


def channels(kind: LayerKind, array: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The weights that share a grid: those of one output unit, or of one token; as views."""
    match kind:
        case "transposed":
            return [array[:, unit] for unit in range(array.shape[1])]
        case _:
            return [array[unit] for unit in range(array.shape[0])]


def rounded_slowly(rows: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """One weight at a time: the nearest multiple of the step, halves to even."""
    top = 2 ** (bits - 1) - 1
    largest = max(abs(float(w)) for w in rows.flat)
    if largest == 0:
        return rows
    step = largest / top
    return np.array([round(float(w) / step) * step for w in rows.flat]).reshape(rows.shape)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", list(SHAPES))
def test_each_channel_is_rounded_as_by_hand(kind: LayerKind, bits: int) -> None:
    weight = numbers(*SHAPES[kind], seed=1)
    expected = weight.numpy().copy()
    for rows in channels(kind, expected):
        rows[...] = rounded_slowly(rows, bits)
    found = quantized(weight, bits, kind=kind).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    for old, new in zip(channels(kind, weight.numpy()), channels(kind, found), strict=True):
        step = np.abs(old).max() / (2 ** (bits - 1) - 1)
        assert np.abs(new - old).max() <= step / 2 * (1 + 1e-9)
        assert len(np.unique(np.round(new / step).astype(int))) <= 2**bits - 1
        assert np.abs(new).max() == pytest.approx(np.abs(old).max())


@pytest.mark.parametrize("bits", BITS)
def test_one_grid_per_tensor(bits: int) -> None:
    weight = numbers(40, 50, seed=2)
    found = quantized(weight, bits, scale="tensor")
    np.testing.assert_allclose(found.numpy(), rounded_slowly(weight.numpy(), bits), rtol=1e-12, atol=1e-12)
    assert len(torch.unique(found)) <= 2**bits - 1


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_all_levels_are_used(bits: int) -> None:
    found = quantized(torch.linspace(-1, 1, 4001, dtype=torch.float64)[None], bits)
    assert len(torch.unique(found)) == 2**bits - 1


@given(
    hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e3, 1e3)),
    st.sampled_from(BITS),
    st.permutations(range(3)),
    st.permutations(range(4)),
)
def test_rounding_follows_a_permutation_exactly(
    weight: NDArray[np.float64], bits: int, rows: list[int], columns: list[int]
) -> None:
    direct = quantized(torch.tensor(weight), bits)[rows][:, columns]
    assert torch.equal(quantized(torch.tensor(weight)[rows][:, columns], bits), direct)


@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e3, 1e3)), st.sampled_from(BITS), st.integers(-20, 20))
def test_rounding_follows_a_change_of_units(weight: NDArray[np.float64], bits: int, power: int) -> None:
    scaled = quantized(torch.tensor(weight) * 2.0**power, bits)
    torch.testing.assert_close(scaled, quantized(torch.tensor(weight), bits) * 2.0**power, rtol=1e-12, atol=1e-290)


def test_small_rows_in_half_precision_stay_finite() -> None:
    """Their step, 6e-8 / 127, is zero in half precision."""
    weight = torch.full((2, 3), 6e-8, dtype=torch.float16)
    assert torch.equal(quantized(weight, 8), weight)


def spread(*shape: int) -> Tensor:
    """Numbers in [-1, 1) that no random number generator had a part in."""
    count = math.prod(shape)
    return ((torch.arange(1, count + 1) * 2654435761 % 2**20).double() / 2**19 - 1).reshape(shape)


@pytest.mark.parametrize(
    ("name", "settings", "doses", "expected"),
    [
        ("quantize", {}, (2, 3, 4, 6, 8, 16), "c9ec69ba63be53601b4bc40d29b74808"),
        ("quantize", {"scale": "channel"}, (2, 3, 4, 6, 8, 16), "c9ec69ba63be53601b4bc40d29b74808"),
        ("quantize", {"scale": "tensor"}, (2, 3, 4, 6, 8, 16), "3d3281ef3291d6de5cc285458bb6016d"),
        ("prune", {}, (0.0, 0.1, 0.5, 0.9, 1.0), "6f890052f3774739a45f1830fd95e151"),
        ("quantize", {"scale": "group", "group": 4}, (2, 3, 4, 8), "23c15bdb85af84002227210090a345c7"),
        ("quantize", {"scale": "group", "group": 4, "grid": "nf4"}, (4,), "d4a92745a0b824c301010a14d7def57e"),
        ("quantize", {"grid": "fp4"}, (4,), "373f3a4505dfa72f2bcefee7aaf96774"),
        ("prune-random", {}, (0.1, 0.5), "ea58654e0325569d59b00b6891606842"),
        ("prune-nm", {}, (0.25, 0.5), "bfadd1bca35a6dbf041d0197a90c4ba5"),
        ("flip", {"format": "int8"}, (0.01, 0.2), "ab50e576428b0a683440ffade9fec930"),
        ("flip", {"bit": "mantissa"}, (0.01, 0.2), "08186957278a3057dd753bb99f769078"),
        ("flip", {"format": "bfloat16", "bit": "sign"}, (0.3,), "f1aed088135c2d1486f2ae93b691ac0c"),
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
                held = Weights(spread(*shape).to(dtype))
                found = create(name, settings).replace(layer(kind, shape), held, dose, DRAW).weight
                digest.update(found.contiguous().view(torch.uint8).numpy().tobytes())
    assert perturbations.get(name).version == (2 if name in ("prune", "prune-random", "prune-nm") else 1)
    assert digest.hexdigest() == expected


# Pruning.


def pruned(weight: Tensor, share: float) -> Tensor:
    return create("prune").replace(layer("linear", tuple(weight.shape)), Weights(weight), share, DRAW).weight


@given(hnp.arrays(np.float32, (4, 5), elements=st.floats(-4, 4, width=16).map(round)), st.floats(0, 1))
def test_exactly_the_share_is_removed_of_equal_weights(weight: NDArray[np.float32], share: float) -> None:
    """All below the threshold, none above it, and of those at it as many as are short; what is zero already counts."""
    found, count = pruned(torch.tensor(weight), share).numpy(), round(share * weight.size)
    size = np.abs(weight)
    threshold = sorted(size.flat)[count - 1] if count else -math.inf
    assert not found[size < threshold].any()
    np.testing.assert_array_equal(found[size > threshold], weight[size > threshold])
    assert np.count_nonzero(found == 0) == max(count, np.count_nonzero(weight == 0))
    assert ((found == weight) | (found == 0)).all()


def test_biases_are_kept() -> None:
    held = Weights(numbers(3, 4, seed=0), numbers(3, seed=1))
    for name, dose in (("prune", 0.5), ("quantize", 3)):
        assert create(name).replace(layer("linear", (3, 4)), held, dose, DRAW).bias is None
