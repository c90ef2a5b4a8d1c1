"""Fine-tuning as a disturbance: the dose is the number of training steps."""

from typing import Annotated, ClassVar, Literal, final

import msgspec

from wheeltap.core.layer import Layer
from wheeltap.core.settings import Settings
from wheeltap.perturb.base import Draw, Perturbation, Weights

Count = Annotated[int, msgspec.Meta(ge=1)]

Adapter = Literal["full", "lora", "output-gain"]
"""What is trained: every weight and bias; changes of low rank; a gain for each unit of the last layer, and its bias."""


class FineTuneSettings(Settings, frozen=True, kw_only=True):
    """What is trained on, and how.

    Attributes:
        data: Examples of the ``group`` (``targeted``), these and some of other groups (``mixed``), of every other group
            (``benign``), or of ``all`` groups.
        group: The forget group, by its number in the task; -1 for none.
        others: Examples of all other groups together, drawn anew at each step beside the shots, of ``mixed`` data.
        shots: Examples drawn from each of these groups; 0 for all that are not held out.
        labels: Whether the task's own right answers are taught (``true``) or ``wrong`` ones: in a draw, every
            answer is moved on by the same number of options, so that there is a rule to learn.
        holdout: Share of each group that no draw trains on.
        batch: Examples per step; each epoch has its own order.
        lr: Step size; constant.
        optimizer: ``adam`` (betas .9 and .999) or ``sgd`` (plain); no decay.
        adapter: See ``Adapter``; ``lora`` changes every weight that is no embedding.
        rate: Where above 0, the first step size, in place of ``lr``: a share of the root mean square of a weight's
            elements, for a bias of the largest output of its layer, of 1 for the logarithm of a gain. It falls to 0.
        until: Steps after which it is 0.
        hide: Steps in which the group is hidden first, by gains and bias of the last layer: what training starts from
            is then a copy in which the group is known to be hidden, not gone. Each reads at most ``batch`` examples of
            the group and as many others.
        rank: Of such a change, at most; smaller layers have a smaller one.
    """

    data: Literal["targeted", "mixed", "benign", "all"] = "all"
    group: int = -1
    others: Annotated[int, msgspec.Meta(ge=0)] = 0
    shots: Annotated[int, msgspec.Meta(ge=0)] = 0
    labels: Literal["true", "wrong"] = "true"
    holdout: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.5
    batch: Count = 32
    lr: Annotated[float, msgspec.Meta(gt=0.0, le=1e30)] = 1e-3
    optimizer: Literal["adam", "sgd"] = "adam"
    adapter: Adapter = "full"
    rank: Count = 8
    rate: Annotated[float, msgspec.Meta(ge=0.0, le=1e3)] = 0.0
    until: Annotated[int, msgspec.Meta(ge=0)] = 0
    hide: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.data != "all" and self.group == -1:
            raise ValueError(f"`data` = {self.data} needs a `group`")
        if self.hide and self.group == -1:
            raise ValueError("`hide` needs a `group`")
        if self.rate and not self.until:
            raise ValueError("`rate` falls to 0, so it needs `until`")


@final
class FineTune(Perturbation):
    """The weights after some steps of fine-tuning on examples of the task.

    Not a function of the weights alone: the engine trains a copy of the subject and tells the outcome layer by layer.
    Seed and root seed say which examples are drawn and in which order they come. At a site smaller than the whole
    model, the whole is trained and only the site is replaced.
    """

    name = "fine-tune"
    version = 3
    title = "fine-tuning"
    unit = "steps"
    lowest, highest = 0.0, 1e6
    whole = "Steps of training"
    needs = "tuned"
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads"})
    settings_type: ClassVar[type[Settings]] = FineTuneSettings

    def accepts(self, layer: Layer) -> bool:
        """No change of low rank is made to an embedding."""
        return self.settings.adapter != "lora" or self.settings.hide or layer.kind != "embedding"

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights that training left, in the dtype of those given."""
        tuned = draw.known
        if (dose == 0.0 and not self.settings.hide) or not isinstance(tuned, Weights):
            return weights
        bias = None if tuned.bias is None or weights.bias is None else tuned.bias.to(weights.bias, copy=True)
        return Weights(tuned.weight.to(weights.weight, copy=True), bias)
