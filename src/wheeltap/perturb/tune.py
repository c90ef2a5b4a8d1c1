"""Fine-tuning as a disturbance: the dose is the number of training steps."""

from typing import Annotated, ClassVar, Literal, final

import msgspec

from wheeltap.core.errors import UsageError
from wheeltap.core.layer import Layer
from wheeltap.core.settings import Settings
from wheeltap.perturb.base import Draw, Perturbation, Weights

Count = Annotated[int, msgspec.Meta(ge=1)]


class FineTuneSettings(Settings, frozen=True, kw_only=True):
    """What is trained on, and how.

    Attributes:
        data: Examples of the ``group`` (``targeted``), of every other group (``benign``), or of ``all`` groups.
        group: The forget group, by its number in the task; -1 for none.
        shots: Examples drawn from each of these groups; 0 for all that are not held out.
        labels: Whether the task's own right answers are taught (``true``) or ``wrong`` ones: in a draw, every
            answer is moved on by the same number of options, so that there is a rule to learn.
        holdout: Share of each group that no draw trains on.
        batch: Examples per step; each epoch has its own order.
        lr: Step size; constant.
        optimizer: ``adam`` (betas .9 and .999) or ``sgd`` (plain); no decay.
        adapter: ``full`` trains every weight and bias of the subject's layers; ``lora`` a change of low rank of every
            weight that is no embedding.
        rank: Of such a change, at most; smaller layers have a smaller one.
    """

    data: Literal["targeted", "benign", "all"] = "all"
    group: int = -1
    shots: Annotated[int, msgspec.Meta(ge=0)] = 0
    labels: Literal["true", "wrong"] = "true"
    holdout: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.5
    batch: Count = 32
    lr: Annotated[float, msgspec.Meta(gt=0.0, le=1e30)] = 1e-3
    optimizer: Literal["adam", "sgd"] = "adam"
    adapter: Literal["full", "lora"] = "full"
    rank: Count = 8

    def __post_init__(self) -> None:
        if self.data != "all" and self.group == -1:
            raise ValueError(f"`data` = {self.data} needs a `group`")


@final
class FineTune(Perturbation):
    """The weights after some steps of fine-tuning on examples of the task.

    Not a function of the weights alone: the engine trains a copy of the subject and tells the outcome layer by layer.
    Seed and root seed say which examples are drawn and in which order they come. At a site smaller than the whole
    model, the whole is trained and only the site is replaced.
    """

    name = "fine-tune"
    version = 2
    title = "fine-tuning"
    unit = "steps"
    lowest, highest = 0.0, 1e6
    needs = "tuned"
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads"})
    settings_type: ClassVar[type[Settings]] = FineTuneSettings

    def require_dose(self, dose: float) -> None:
        """Raises ``UsageError`` if ``dose`` is not a whole number of steps in the domain."""
        super().require_dose(dose)
        if dose != round(dose):
            raise UsageError(
                "Steps of training come in whole numbers.",
                expected=f"{self.lowest:g}, {self.lowest + 1:g}, ... {self.highest:g} (steps)",
                got=f"{dose:g}",
            )

    def accepts(self, layer: Layer) -> bool:
        """No change of low rank is made to an embedding."""
        return self.settings.adapter == "full" or layer.kind != "embedding"

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights that training left, in the dtype of those given."""
        tuned = draw.known
        if dose == 0.0 or not isinstance(tuned, Weights):
            return weights
        bias = None if tuned.bias is None or weights.bias is None else tuned.bias.to(weights.bias, copy=True)
        if self.settings.adapter == "lora":
            bias = None  # not trained
        return Weights(tuned.weight.to(weights.weight, copy=True), bias)
