"""Every built-in perturbation keeps the contract that other packages' ones must keep."""

from typing import ClassVar

import pytest

from wheeltap import gauge
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.layer import Layer
from wheeltap.core.records import Scalar
from wheeltap.engine.apply import Knowledge
from wheeltap.engine.needs.gather import of_another
from wheeltap.engine.needs.tuning import TuningCopy
from wheeltap.perturb import BUILTIN, create
from wheeltap.perturb.base import EVERY_GAUGE, Draw, Perturbation, Weights
from wheeltap.perturb.flip import RandomFlips, WorstFlips
from wheeltap.perturb.merge import Clean, Erase, Merge
from wheeltap.perturb.noise import FunctionNoise, RelativeNoise, StdNoise
from wheeltap.perturb.prune import (
    HeadMask,
    MagnitudeMask,
    OutputMask,
    PatternMask,
    RandomMask,
    UnitMask,
)
from wheeltap.perturb.quantize import CacheRounding, Cast, InputRounding, RoundToNearest, ScaledRoundToNearest
from wheeltap.perturb.tune import FineTune
from wheeltap.testing import planted
from wheeltap.testing.contract import PerturbationContract
from wheeltap.testing.planted import CASES, PlantedCase, numbers


def held_to(
    perturbation: type[Perturbation], *doses: float, sensitive: str = "", draws: int = 96, **settings: Scalar
) -> type[PerturbationContract]:
    """The contract of a perturbation; ``sensitive`` names gauges."""
    gauges = frozenset(sensitive.split())
    given = {"perturbation": perturbation, "doses": doses, "sensitive_to": gauges, "draws": draws, "settings": settings}
    return type(f"{perturbation.__name__}Contract", (PerturbationContract,), given)


TestClean = held_to(Clean, 0.0)
TestRelativeNoise = held_to(RelativeNoise, 0.05, 0.5, sensitive="cancel entangle")
TestRelativeSigns = held_to(RelativeNoise, 0.05, 0.5, sensitive="cancel entangle", draw="sign")
# Its lack of invariance is real: why it is not the default.
TestStdNoise = held_to(StdNoise, 0.05, 0.5, sensitive="rescale cancel")
TestStdSigns = held_to(StdNoise, 0.05, 0.5, sensitive="rescale cancel", draw="sign")
TestFunctionNoise = held_to(FunctionNoise, 0.05, 0.4)
TestRoundToNearest = held_to(RoundToNearest, 8, 6, 4, 2, 3, sensitive="rescale cancel", draws=24)
TestPerTensor = held_to(RoundToNearest, 8, 6, 4, 2, 3, sensitive="rescale cancel", draws=24, scale="tensor")
# Groups of 8 inputs: three in each row of the trained net.
TestPerGroup = held_to(RoundToNearest, 8, 4, 3, 2, sensitive="rescale entangle", draws=24, scale="group", group=8)
# At four bits with a scale for every few weights nothing shows on a net this small.
TestNF4 = held_to(RoundToNearest, 4, draws=24, scale="group", group=8, grid="nf4")
TestFP4 = held_to(RoundToNearest, 4, draws=24, grid="fp4")
TestInputRounding = held_to(InputRounding, 8, 4, 3, sensitive="rescale", draws=24)
TestFP8 = held_to(InputRounding, 8, draws=24, grid="e4m3")
TestCacheRounding = held_to(CacheRounding, 8, 4, draws=12)  # no net of these has a cache: test_perturb_activations
TestScaledRoundToNearest = held_to(ScaledRoundToNearest, 8, 4, 2, 3, sensitive="cancel", draws=24)
TestMagnitudePruning = held_to(MagnitudeMask, 0.3, 1.0, 0.5, sensitive="rescale", draws=24)
TestRandomPruning = held_to(RandomMask, 0.3, 0.1, sensitive="cancel entangle")
TestPatternPruning = held_to(PatternMask, 0.25, 0.5, 1.0, 0.75, sensitive="rescale cancel", draws=24)
TestOutputPruning = held_to(OutputMask, 0.3, 1.0, 0.5, sensitive="cancel", draws=24)
TestUnitPruning = held_to(UnitMask, 0.4, 1.0, 0.5, sensitive="dead", draws=24)
# No net of these has attention whose heads are known: what changes, and every gauge, in test_perturb_heads.
TestHeadPruning = held_to(HeadMask, 0.25, 1.0, 0.5, draws=24)
TestFlippedBytes = held_to(RandomFlips, 0.1, 0.01, sensitive="rescale", format="int8")
TestWorstFlips = held_to(WorstFlips, 1, 10, 3, sensitive="rescale", draws=24, format="int8")
# Of rounding to sixteen bits nothing shows in a score: what is shown is that the copies' scores stay alike.
TestCast = held_to(Cast, 16.0, draws=24)
TestCastToFloat16 = held_to(Cast, 16.0, draws=24, dtype="float16")
# The last dose is the one at which twins are compared: at dose 1 nothing would be left to differ.
TestErase = held_to(Erase, 0.05, 1.0, 0.3, draws=24)


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


class TestFineTune(PerturbationContract):
    """Adam's steps turn on the scale of a unit too; a few of them show it by less than the margin."""

    perturbation = FineTune
    settings: ClassVar = {"batch": 4, "lr": 0.02}
    doses = (1, 20, 10)
    draws = 12

    def known(self, case: PlantedCase) -> Knowledge:
        """A copy of the net at hand is trained."""
        return TuningCopy(case.subject, case.task, self.made().settings)


class TestFineTuneByGradientDescent(TestFineTune):
    """A unit that is scaled down on its way in and up on its way out has other slopes."""

    sensitive_to = frozenset({"rescale"})
    settings: ClassVar = {"batch": 4, "lr": 0.2, "optimizer": "sgd"}


class TestLowRankFineTune(TestFineTune):
    settings: ClassVar = {"batch": 4, "lr": 0.02, "adapter": "lora", "rank": 2}


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
        ("cast", {"dtype": "float8"}, "dtype"),
        ("quantize", {"grid": "nf4"}, "4 bits"), ("quantize", {"grid": "fp4"}, "4 bits"),
    ],
)  # fmt: skip
def test_settings_and_doses_that_do_not_fit_are_refused(name: str, settings: dict[str, Scalar], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create(name, settings).require_dose(3)


def test_every_gauge_is_known_by_name() -> None:
    assert set(gauge.GAUGES) == EVERY_GAUGE


def test_every_builtin_is_held_to_it() -> None:
    tested = {kind.perturbation.name for name, kind in globals().items() if name.startswith("Test")}
    assert tested == set(BUILTIN)
