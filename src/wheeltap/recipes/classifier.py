"""Small nets trained on a task: fully connected or convolutional, plain or of some kind."""

import math
from typing import ClassVar, Final, Literal

from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.errors import UsageError
from wheeltap.core.inputs import answered
from wheeltap.core.task import Task, as_scores, mean_loss
from wheeltap.models.mlp import mlp
from wheeltap.models.rows import HEADS, RowReader
from wheeltap.recipes.base import Given, Recipe
from wheeltap.recipes.fit import Fit, Hook, TrainingSettings
from wheeltap.recipes.hooks import Average, Sharpness, TopK, WeightNoise
from wheeltap.recipes.randomness import own_random_numbers, reproducible

ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
MOST_UNITS: Final = 65_536


class ClassifierSettings(TrainingSettings, frozen=True):
    """Which net, and how it is trained.

    Attributes:
        net: ``mlp`` on rows of numbers, ``cnn`` on square images, flat or not, ``gpt`` on the rows of such images.
        hidden: Units of each hidden layer, or channels of each convolution, with commas between them; of ``gpt`` the
            width of each block, the same for all.
        activation: Of the hidden units; those of ``gpt`` are GELU.
        dropout: Probability with which training drops a hidden unit.
        outputs: Classes; as many as the task's right options show where 0.
        epochs: Passes over the examples; 0 leaves the net untrained.
        noise: Standard deviation of the noise on weights under which gradients are taken, as a share of each.
        rho: Length of the step uphill before the gradient is taken (sharpness-aware minimization).
        share: Of each matrix, weights that are not 0 in the end (top-k after each step).
        average: Share of a moving average of the weights that is left after each step; 0 keeps the last weights.
    """

    net: Literal["mlp", "cnn", "gpt"] = "mlp"
    hidden: str = "128,128"
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    dropout: float = 0.0
    outputs: int = 0
    noise: float = 0.0
    rho: float = 0.0
    share: float = 1.0
    average: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hooks()
        with own_random_numbers():
            mlp((1, *self.widths[:1], 1), dropout=self.dropout)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the hidden layers.

        Raises:
            UsageError: If they are not positive whole numbers.
        """
        parts = [part.strip() for part in self.hidden.split(",") if part.strip()]
        if not all(part.isdecimal() and 1 <= int(part[:9]) <= MOST_UNITS for part in parts):
            raise UsageError(
                "A setting of the recipe 'classifier' cannot be used.",
                where="hidden",
                expected=f"whole numbers from 1 to {MOST_UNITS:,}, such as 128,128",
                got=repr(self.hidden),
            )
        return tuple(int(part) for part in parts)

    def hooks(self) -> list[Hook]:
        """What else is done at each step, in the order in which it works together.

        Raises:
            UsageError: If a setting is out of range.
        """
        noise, rho, share, average = self.noise, self.rho, self.share, self.average
        if not (0.0 <= noise <= 1.0 and 0.0 <= rho <= 10.0 and 0.0 < share <= 1.0 and 0.0 <= average < 1.0):
            raise UsageError(
                "A net cannot be trained with these settings.",
                where="wheeltap.recipes.hooks",
                expected="noise from 0 to 1, rho from 0 to 10, a share above 0 and up to 1, an average from 0 to "
                "below 1",
                got=f"noise {noise}, rho {rho}, share {share}, average {average}",
            )
        found: list[Hook] = [WeightNoise(noise)] if noise else []
        found += [Sharpness(rho)] if rho else []
        found += [TopK(share)] if share < 1.0 else []
        return found + ([Average(average)] if average else [])


class ClassifierNet(Recipe):
    """A small net trained on the task of the spec by cross-entropy, or by squared error of wanted outputs."""

    name = "classifier"
    title = "small net trained on a task"
    needs = "training"
    settings_type = ClassifierSettings
    settings: ClassifierSettings

    stream: ClassVar[str] = "classifier"
    """What the random numbers of the start and of the order are derived by."""

    def lesson(self, given: Given) -> Task:
        """What it is trained on.

        Raises:
            UsageError: If it is no task with one tensor of inputs.
        """
        task = given.examples
        if not isinstance(task, Task) or not isinstance(task.inputs, Tensor):
            raise UsageError(
                "A small net cannot be trained on this task.",
                where=task.name,
                expected="a Task with one tensor of inputs",
                got=type(task).__name__,
            )
        return task

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``."""
        with reproducible(seeds.derive(given.spec.seed, self.stream, "init")):
            return self._net(self.lesson(given)).eval()

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        task, how = self.lesson(given), self.settings
        model = self.blank(given).to(given.device)
        inputs, targets = task.inputs, task.targets
        assert isinstance(inputs, Tensor)

        def loss(rows: Tensor, step: int) -> Tensor:
            return mean_loss(as_scores(answered(model, inputs[rows])), targets[rows])

        return Fit(
            model,
            loss,
            examples=len(targets),
            settings=how.training(seeds.derive(given.spec.seed, self.stream, "order")),
            hooks=how.hooks(),
            lesson=None if targets.is_floating_point() or targets.ndim > 1 else (inputs, targets),
        )

    def _net(self, task: Task) -> nn.Module:
        how = self.settings
        assert isinstance(task.inputs, Tensor)
        shape = tuple(task.inputs.shape[1:])
        if task.targets.is_floating_point():
            outputs = how.outputs or task.targets.shape[1]
        else:
            outputs = how.outputs or int(task.targets.max()) + 1
        if how.net == "gpt":
            return self._rows(shape, outputs)
        if how.net == "cnn":
            return self._convolutions(shape, outputs)
        net = mlp((math.prod(shape), *how.widths, outputs), dropout=how.dropout)
        for at, module in enumerate(net):
            if type(module) is nn.ReLU:
                net[at] = ACTIVATIONS[how.activation]()
        return net if len(shape) == 1 else nn.Sequential(nn.Flatten(), *net)

    def _rows(self, shape: tuple[int, ...], outputs: int) -> RowReader:
        """Blocks that read an image row by row."""
        how, side = self.settings, math.isqrt(math.prod(shape))
        if side * side != math.prod(shape) or len(set(how.widths)) != 1 or how.widths[0] % HEADS or how.dropout:
            raise UsageError(
                "A net that reads rows cannot read these inputs.",
                where="recipe classifier",
                expected=f"square images, blocks of one width, a multiple of {HEADS}, and no dropout",
                got=f"inputs {list(shape)}, hidden {how.hidden!r}, dropout {how.dropout:g}",
            )
        return RowReader(side, how.widths[0], blocks=len(how.widths), outputs=outputs)

    def _convolutions(self, shape: tuple[int, ...], outputs: int) -> nn.Sequential:
        """Convolutions of 3 x 3, all but the first of stride 2, and a linear layer that reads their flattened maps."""
        how, modules, size = self.settings, list[nn.Module](), math.isqrt(shape[0])
        if shape == (size * size,):
            modules, shape = [nn.Unflatten(1, (1, size, size))], (1, size, size)
        if len(shape) != 3 or shape[1] != shape[2] or not how.widths:
            raise UsageError(
                "A convolutional net cannot read these inputs.",
                where="recipe classifier",
                expected="square images, flat or [channel, row, column], and one hidden layer at least",
                got=f"inputs {list(shape)}, hidden {how.hidden!r}",
            )
        channels, side = shape[0], shape[1]
        for at, width in enumerate(how.widths):
            stride = 2 if at else 1
            modules += [nn.Conv2d(channels, width, 3, stride=stride, padding=1), ACTIVATIONS[how.activation]()]
            modules += [nn.Dropout(how.dropout)] if how.dropout else []
            channels, side = width, -(-side // stride)
        return nn.Sequential(*modules, nn.Flatten(), nn.Linear(channels * side * side, outputs))
