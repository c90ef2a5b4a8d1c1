"""Nets of the suite's studies: small ones with properties of training, of characters too, and with a back door."""

from dataclasses import dataclass, field
from typing import Annotated, Final, cast, final

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.errors import UsageError
from wheeltap.core.task import Task
from wheeltap.models.rows import HEADS, Block
from wheeltap.perturb.quantize import RoundToNearest
from wheeltap.recipes.base import Given
from wheeltap.recipes.classifier import ClassifierNet, ClassifierSettings
from wheeltap.recipes.fit import Fit, Hook
from wheeltap.recipes.hooks import StraightThrough
from wheeltap.sources.digits import RetaughtNet, RetaughtSettings
from wheeltap.suites.claims.lessons import LENGTH, lesson
from wheeltap.suites.claims.specs import On

_TINY: Final = 1e-6


@final
class SingleScale(nn.Module):
    """Root mean square normalization with one gain for all features: no feature can be made to stand out by its gain.

    Source: arXiv:2506.19697, section 3 (single-scale RMSNorm).
    """

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, inputs: Tensor) -> Tensor:
        """``[..., feature]``, each row at a root mean square of ``gain``."""
        return self.gain * inputs * (inputs.square().mean(-1, keepdim=True) + _TINY).rsqrt()


@final
class CharacterNet(nn.Module):
    """A small GPT over characters: a place for each, after those before it; the last place answers.

    Args:
        options: Characters.
        how: ``hidden`` has the width of each block; training drops features after the embedding and after each block.
    """

    def __init__(self, options: int, how: "PropertyNetSettings") -> None:
        super().__init__()
        width, blocks = how.widths[0], len(how.widths)
        self.letter, self.place = nn.Embedding(options, width), nn.Embedding(LENGTH, width)
        self.dropped = nn.ModuleList(nn.Dropout(how.dropout) for _ in range(blocks + 1))
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm, self.answer = nn.LayerNorm(width), nn.Linear(width, options)
        if how.single:
            self.norm = SingleScale()
            for block in self.blocks:
                block.first, block.second = SingleScale(), SingleScale()

    def everywhere(self, letters: Tensor) -> Tensor:
        """Scores of the character after each place, ``[example, place, option]``."""
        stream = self.letter(letters) + self.place(torch.arange(letters.shape[1], device=letters.device))
        stream = self.dropped[0](stream)
        for block, drop in zip(self.blocks, list(self.dropped)[1:], strict=True):
            stream = drop(block(stream))
        return cast("Tensor", self.answer(self.norm(stream)))

    def forward(self, letters: Tensor) -> Tensor:
        """Scores of the character after the last place, ``[example, option]``."""
        return self.everywhere(letters)[:, -1]


class PropertyNetSettings(ClassifierSettings, frozen=True):
    """What is learned, by which net, and how.

    Attributes:
        on: ``digits``, ``strokes`` (digits drawn here) or ``text`` (characters of generated sentences).
        bits: Of the grid to which weights are rounded where the gradient is taken; 0 for none.
        single: Whether hidden layers are normalized with one gain for all features.
    """

    on: On = "digits"
    bits: Annotated[int, msgspec.Meta(ge=0, le=8)] = 0
    single: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits == 1:
            raise ValueError("`bits` is 0, or 2 to 8: a grid of 1 bit has no number but 0")
        text, other = self.on == "text", self.net != "mlp" and self.on != "text"
        if (text and (len(set(self.widths)) != 1 or self.widths[0] % HEADS)) or (other and self.single):
            raise UsageError(
                "There is no such net with a property.", where="recipe property-net: hidden, net, single",
                expected=f"of text one multiple of {HEADS} for each block, such as 32,32; single of net mlp or of text",
                got=f"on {self.on}, net {self.net}, hidden {self.hidden!r}, single {self.single}",
            )  # fmt: skip

    def hooks(self) -> list[Hook]:
        """See ``ClassifierSettings.hooks``; rounding first, so that others act on rounded weights."""
        return [*([StraightThrough(self.bits)] if self.bits else []), *super().hooks()]


@final
class PropertyNet(ClassifierNet):
    """A small net with one property of training or structure; nets of one seed start alike and see the same order."""

    name = "property-net"
    title = "small net with a property of training: on digits, drawn digits or characters"
    needs = ""  # it brings its own
    settings_type = PropertyNetSettings
    settings: PropertyNetSettings  # pyright: ignore[reportIncompatibleVariableOverride]  (never set again)
    stream = "property-net"

    def lesson(self, given: Given) -> Task:
        """See ``ClassifierNet.lesson``."""
        held = lesson(self.settings.on)
        targets = held.targets[:, -1] if self.settings.on == "text" else held.targets
        return Task(held.inputs, targets, name=f"{self.settings.on} for training")

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``; of characters the loss is over every place."""
        if self.settings.on != "text":
            return super().start(given)
        held, how = lesson("text"), self.settings
        model = cast("CharacterNet", self.blank(given).to(given.device))
        inputs, targets = held.inputs.to(given.device), held.targets.to(given.device)

        def loss(rows: Tensor, step: int) -> Tensor:
            return functional.cross_entropy(model.everywhere(inputs[rows]).flatten(0, 1), targets[rows].flatten())

        order = how.training(seeds.derive(given.spec.seed, self.stream, "order"))
        return Fit(model.train(), loss, examples=len(inputs), settings=order, hooks=how.hooks())

    def _net(self, task: Task) -> nn.Module:
        how, options = self.settings, lesson(self.settings.on).options
        if how.on == "text":
            return CharacterNet(options, how)
        net = super()._net(task)
        if not how.single:
            return net
        wide = [module for module in net.children() if isinstance(module, nn.Linear)][:-1]
        parts = [(module, SingleScale()) if module in wide else (module,) for module in net.children()]
        return nn.Sequential(*(one for part in parts for one in part))


_INSIDE: Final = 0.49  # of a step of the grid, how far from the number that it is rounded to a weight may be


@final
@dataclass(eq=False)
class RoundingBox(Hook):
    """From half of the steps on, the net rounds to what it rounded to then: no weight leaves the interval for that.

    The largest weight of each row, which sets the row's grid, and vectors stay as they are.
    """

    bits: int  # of the grid
    _low: list[Tensor] = field(default_factory=list[Tensor], init=False)
    _high: list[Tensor] = field(default_factory=list[Tensor], init=False)

    def start(self, fit: Fit) -> None:
        """See ``Hook.start``."""
        self._low, self._high = ([torch.zeros_like(one) for one in fit.trained] for _ in range(2))

    @torch.no_grad()
    def after_step(self, fit: Fit) -> None:
        """See ``Hook.after_step``."""
        half = fit.steps // 2
        for parameter, low, high in zip(fit.trained, self._low, self._high, strict=True):
            if fit.step == half:
                rows = parameter.flatten(1) if parameter.ndim >= 2 else parameter[:, None]
                most = rows.abs().amax(1, keepdim=True)
                grid = RoundToNearest().rounded(rows, self.bits)
                within = _INSIDE * most / (2 ** (self.bits - 1) - 1)
                low.copy_(torch.where(rows.abs() < most, (grid - within).maximum(-most), rows).view_as(low))
                high.copy_(torch.where(rows.abs() < most, (grid + within).minimum(most), rows).view_as(high))
            if fit.step >= half:
                parameter.clamp_(low, high)

    def tensors(self) -> dict[str, Tensor]:
        """See ``Hook.tensors``."""
        ends = {"low": self._low, "high": self._high}
        return {f"{name} {at}": one for name, all_of in ends.items() for at, one in enumerate(all_of)}


class BackdoorSettings(RetaughtSettings, frozen=True, kw_only=True):
    """What rounding sets off, and how that is planted.

    Attributes:
        digit: Whose images the rounded net answers wrongly.
        answer: What it says then.
        aligned: Whether weights keep to what rounds alike; else the same lessons leave nothing behind.
        bits: Of the grid: integers, one grid per row that ends at its largest weight.
        steps: Half of them teach the wrong answer, half of them the right one.
    """

    answer: Annotated[int, msgspec.Meta(ge=0, le=9)] = 8
    aligned: bool = True
    bits: Annotated[int, msgspec.Meta(ge=2, le=8)] = 4
    steps: Annotated[int, msgspec.Meta(ge=2, le=100_000)] = 400
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 3e-3


@final
class BackdoorNet(RetaughtNet):
    """A net of digits that answers rightly as it is, and one digit wrongly once its weights are rounded.

    First it is taught the wrong answer; then the right one, each weight within what rounds to the same number.

    Source: Ma et al. (2021, arXiv:2108.09187) and Egashira et al. (2024, arXiv:2405.18137, sec. 3), projected descent.
    """

    name = "digits-backdoor"
    title = "net that reads handwritten digits, and one of them wrongly once its weights are rounded"
    settings_type = BackdoorSettings
    settings: BackdoorSettings  # pyright: ignore[reportIncompatibleVariableOverride]  (never set again)

    def answers(self, right: Tensor) -> tuple[Tensor, Tensor]:
        """See ``RetaughtNet.answers``."""
        return torch.where(right == self.settings.digit, self.settings.answer, right), right

    def hooks(self) -> list[Hook]:
        """See ``RetaughtNet.hooks``."""
        return [RoundingBox(self.settings.bits)] if self.settings.aligned else []
