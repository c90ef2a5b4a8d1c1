"""Every built-in perturbation keeps the contract that other packages' ones must keep."""

from importlib import import_module
from pathlib import Path
from typing import ClassVar

import pytest

from wheeltap import gauge
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.layer import Layer
from wheeltap.core.records import Scalar
from wheeltap.engine.needs.gather import of_another
from wheeltap.engine.needs.knowledge import Knowledge
from wheeltap.perturb import BUILTIN, create
from wheeltap.perturb.base import EVERY_GAUGE, Draw, Weights
from wheeltap.perturb.flip import RandomFlips, WorstFlips
from wheeltap.perturb.merge import Clean, Merge
from wheeltap.perturb.noise import FunctionNoise, RelativeNoise, StdNoise
from wheeltap.perturb.prune import (
    HeadMask,
    MagnitudeMask,
    OutputMask,
    PatternMask,
    RandomMask,
    UnitMask,
)
from wheeltap.perturb.quantize import Cast, RoundToNearest, ScaledRoundToNearest
from wheeltap.testing import planted
from wheeltap.testing.contract import PerturbationContract
from wheeltap.testing.planted import CASES, PlantedCase, numbers


class TestClean(PerturbationContract):
    perturbation = Clean
    doses = (0.0,)


class TestRelativeNoise(PerturbationContract):
    perturbation = RelativeNoise
    doses = (0.05, 0.5)
    sensitive_to = frozenset({"cancel", "entangle"})


class TestRelativeSigns(TestRelativeNoise):
    settings: ClassVar = {"draw": "sign"}


class TestStdNoise(PerturbationContract):
    """Its lack of invariance is real: why it is not the default."""

    perturbation = StdNoise
    doses = (0.05, 0.5)
    sensitive_to = frozenset({"rescale", "cancel"})


class TestStdSigns(TestStdNoise):
    settings: ClassVar = {"draw": "sign"}


class TestFunctionNoise(PerturbationContract):
    perturbation = FunctionNoise
    doses = (0.05, 0.4)


class TestRoundToNearest(PerturbationContract):
    perturbation = RoundToNearest
    doses = (8, 6, 4, 2, 3)
    sensitive_to = frozenset({"rescale", "cancel"})
    draws = 24


class TestRoundToNearestPerTensor(TestRoundToNearest):
    settings: ClassVar = {"scale": "tensor"}


class TestRoundToNearestPerGroup(TestRoundToNearest):
    """Groups of 8 inputs: three in each row of the trained net."""

    settings: ClassVar = {"scale": "group", "group": 8}
    doses = (8, 4, 3, 2)
    sensitive_to = frozenset({"rescale", "entangle"})


class TestNF4(TestRoundToNearest):
    """At four bits with a scale for every few weights nothing shows on a net this small."""

    settings: ClassVar = {"scale": "group", "group": 8, "grid": "nf4"}
    doses = (4,)
    sensitive_to = frozenset()


class TestFP4(TestNF4):
    settings: ClassVar = {"grid": "fp4"}


class TestScaledRoundToNearest(PerturbationContract):
    perturbation = ScaledRoundToNearest
    doses = (8, 4, 2, 3)
    sensitive_to = frozenset({"cancel"})
    draws = 24


class TestMagnitudePruning(PerturbationContract):
    perturbation = MagnitudeMask
    doses = (0.3, 1.0, 0.5)
    sensitive_to = frozenset({"rescale"})
    draws = 24


class TestRandomPruning(PerturbationContract):
    perturbation = RandomMask
    doses = (0.3, 0.1)
    sensitive_to = frozenset({"cancel", "entangle"})


class TestPatternPruning(PerturbationContract):
    perturbation = PatternMask
    doses = (0.25, 0.5, 1.0, 0.75)
    sensitive_to = frozenset({"rescale", "cancel"})
    draws = 24


class TestOutputPruning(PerturbationContract):
    perturbation = OutputMask
    doses = (0.3, 1.0, 0.5)
    sensitive_to = frozenset({"cancel"})
    draws = 24


class TestUnitPruning(PerturbationContract):
    perturbation = UnitMask
    doses = (0.4, 1.0, 0.5)
    sensitive_to = frozenset({"dead"})
    draws = 24


class TestHeadPruning(PerturbationContract):
    """No net of these has attention whose heads are known: what changes, and every gauge, in test_perturb_heads."""

    perturbation = HeadMask
    doses = (0.25, 1.0, 0.5)
    draws = 24


class TestFlippedBytes(PerturbationContract):
    perturbation = RandomFlips
    settings: ClassVar = {"format": "int8"}
    doses = (0.1, 0.01)
    sensitive_to = frozenset({"rescale"})


class TestFlippedSigns(PerturbationContract):
    perturbation = RandomFlips
    settings: ClassVar = {"bit": "sign"}
    doses = (0.3, 0.05)
    sensitive_to = frozenset({"cancel", "entangle"})


class TestFlippedMantissas(PerturbationContract):
    perturbation = RandomFlips
    settings: ClassVar = {"format": "bfloat16", "bit": "mantissa"}
    doses = (0.05, 0.2)
    sensitive_to = frozenset({"cancel"})


class TestWorstFlips(PerturbationContract):
    perturbation = WorstFlips
    settings: ClassVar = {"format": "int8"}
    doses = (1, 10, 3)
    sensitive_to = frozenset({"rescale"})
    draws = 24


class TestCast(PerturbationContract):
    """Of rounding to sixteen bits nothing shows in a score: what is shown is that the copies' scores stay alike."""

    perturbation = Cast
    doses = (16.0,)
    draws = 24


class TestCastToFloat16(TestCast):
    settings: ClassVar = {"dtype": "float16"}


class TestMerge(PerturbationContract):
    """A copy with permuted units is far from the original in weights, and so is the mean of both in function."""

    perturbation = Merge
    doses = (-1.0, 1.0, 2.0, 0.5)
    sensitive_to = frozenset({"permute"})
    draws = 24

    def known(self, case: PlantedCase) -> Knowledge:
        """Weights of a net of the same kind: other ones of the small nets, the original's for a copy."""
        name = case.subject.name
        other = planted.planted(name, seed=1) if name in CASES else planted.clusters()
        return of_another(case.subject, other.subject)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("function", "needs the layer's moments"), ("quantize-aware", "size of the layer's inputs"),
        ("prune-wanda", "size of the layer's inputs"), ("prune-units", "size of the layer's inputs"),
        ("prune-heads", "moments of what each head hands on"), ("flip-worst", "slopes of the loss"),
        ("merge", "other checkpoint's weights"),
    ],
)  # fmt: skip
def test_without_what_it_needs_it_says_so(name: str, words: str) -> None:
    layer = Layer(name="x", kind="linear", weight="x.weight", bias=None, shape=(6, 8))
    with pytest.raises(ModelError, match=words):
        create(name).replace(layer, Weights(numbers(6, 8, seed=0)), 1.0, Draw(0, 0))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("cast", {"dtype": "float8"}, "dtype"), ("low-rank", {"rank": 0}, "rank"),
        ("quantize", {"grid": "nf4"}, "4 bits"), ("quantize", {"grid": "fp4"}, "4 bits"),
    ],
)  # fmt: skip
def test_settings_and_doses_that_do_not_fit_are_refused(name: str, settings: dict[str, Scalar], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create(name, settings).require_dose(3)


def test_every_gauge_is_known_by_name() -> None:
    assert set(gauge.GAUGES) == EVERY_GAUGE


def test_every_builtin_is_held_to_it() -> None:
    files = [import_module(path.stem) for path in Path(__file__).parent.glob("test_*.py")]
    held = [kind for file in files for kind in vars(file).values()]
    tested = {kind.perturbation.name for kind in held if _is_contract(kind)}
    assert tested == set(BUILTIN)


def _is_contract(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, PerturbationContract) and kind is not PerturbationContract
