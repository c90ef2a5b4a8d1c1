"""Every built-in perturbation keeps the contract that other packages' ones must keep."""

from typing import ClassVar

import test_perturb_erase

from wheeltap import gauge
from wheeltap.perturb import BUILTIN
from wheeltap.perturb.base import EVERY_GAUGE
from wheeltap.perturb.clean import Clean
from wheeltap.perturb.function_noise import FunctionNoise
from wheeltap.perturb.noise import RelativeNoise, StdNoise
from wheeltap.perturb.prune import MagnitudePruning
from wheeltap.perturb.quantize import RoundToNearest
from wheeltap.testing.contract import PerturbationContract


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


class TestMagnitudePruning(PerturbationContract):
    perturbation = MagnitudePruning
    doses = (0.3, 1.0, 0.5)
    sensitive_to = frozenset({"rescale"})
    draws = 24


def test_every_gauge_is_known_by_name() -> None:
    assert set(gauge.GAUGES) == EVERY_GAUGE


def test_every_builtin_is_held_to_it() -> None:
    held = [*globals().values(), *vars(test_perturb_erase).values()]
    tested = {kind.perturbation.name for kind in held if _is_contract(kind)}
    assert tested == set(BUILTIN)


def _is_contract(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, PerturbationContract) and kind is not PerturbationContract
