"""Fine-tuning keeps the contract of perturbations; what it is invariant to and what not."""

from typing import ClassVar

from wheeltap.engine.needs.knowledge import Knowledge
from wheeltap.engine.needs.tuning import TuningCopy
from wheeltap.perturb.tune import FineTune
from wheeltap.testing.contract import PerturbationContract
from wheeltap.testing.planted import PlantedCase


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
