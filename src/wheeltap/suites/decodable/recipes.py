"""Nets that answer the same factors, wired by factor or not: by construction, by a penalty, by chance, or mixed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, cast, final

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.errors import UsageError
from wheeltap.core.settings import Settings
from wheeltap.recipes.base import Given, Recipe, require_fit
from wheeltap.recipes.fit import Fit, Hook, TrainSettings
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.decodable.nets import POINTS, SHAPES, World
from wheeltap.suites.decodable.specs import On

Wiring = Literal["modules", "guided", "plain", "scattered", "mixed"]
"""Of the units, an equal number in each hidden layer belongs to each factor.

``modules``: no weight leads from a unit of one factor to another factor. ``guided``: every weight is there, and
training presses on those that lead to another factor. ``plain``: every weight is there. ``scattered``: as many weights
are there as in ``modules``, at places drawn at random. ``mixed``: every weight is there, and training presses every
unit of the last hidden layer to serve all factors alike.
"""

WORLDS: Final[Mapping[On, World]] = {"images": SHAPES, "pictures": POINTS}

_TINY: Final = 1e-12

_Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class OrganizedSettings(Settings, frozen=True, kw_only=True):
    """Which net, and how it is trained.

    Attributes:
        on: What it reads.
        wiring: See ``Wiring``.
        pressure: Weight of the penalty of ``guided`` and ``mixed``, beside a mean loss in nats.
        units: Of each hidden layer, for each factor.
        examples: Of the lesson, drawn from the seed.
        epochs: Passes over them.
        batch: Examples per step.
        rate: First step size, of Adam; it falls linearly.
    """

    on: On = "images"
    wiring: Wiring = "plain"
    pressure: Annotated[float, msgspec.Meta(ge=0.0, le=1000.0)] = 1.0
    units: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16
    examples: _Count = 8192
    epochs: _Count = 15
    batch: _Count = 128
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 3e-3


@final
class OrganizedNet(Recipe):
    """A net that reads known factors: trained on the right answers, or to imitate the net it is made of.

    Lesson, order and start follow from the seed, whatever the wiring: members of one seed differ in nothing else.
    """

    name = "organized"
    title = "net that reads known factors, wired by factor or not"
    settings_type = OrganizedSettings
    settings: OrganizedSettings

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``."""
        if len(given.of) > 1:
            expected, got = "none or one", str(len(given.of))
            raise UsageError("A net imitates one other net.", where="recipe organized", expected=expected, got=got)
        with reproducible(seeds.derive(given.spec.seed, self.name, "init")):
            model = self.world.net(self.settings.units)
        with torch.no_grad():
            for layer, gone in self._missing(model, given):
                # As large outputs at the start as with every weight.
                layer.weight.mul_((gone.shape[1] / (~gone).sum(1).clamp_min(1)).sqrt()[:, None])
                layer.weight.masked_fill_(gone, 0.0)
        return model.eval()

    @property
    def world(self) -> World:
        """The world that lessons come from."""
        return WORLDS[self.settings.on]

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        require_fit(given, self)
        how = self.settings
        model = self.blank(given).to(given.device)
        inputs, targets = (part.to(given.device) for part in self.world.lesson(how.examples, seed=given.spec.seed))
        taught = _answers(given.of[0].to(given.device), inputs) if given.of else targets
        penalty = {"guided": _crossing, "mixed": _narrow}.get(how.wiring)

        def loss(rows: Tensor, step: int) -> Tensor:
            found = functional.cross_entropy(model(inputs[rows]), taught[rows])
            return found if penalty is None else found + how.pressure * penalty(model, self.world.factors)

        settings = TrainSettings(
            seed=seeds.derive(given.spec.seed, self.name, "order"), epochs=how.epochs, batch=how.batch, rate=how.rate
        )
        absent = [(layer.weight, gone.to(given.device)) for layer, gone in self._missing(model, given)]
        hooks = [TrainingMask(absent)] if absent else []
        return Fit(model, loss, examples=how.examples, settings=settings, hooks=hooks)

    def _missing(self, model: nn.Module, given: Given) -> list[tuple[nn.Linear, Tensor]]:
        """Layers some of whose weights are not there, and which, ``[unit, input]``."""
        between = crossings(model, self.world.factors)
        if self.settings.wiring == "modules":
            return between
        if self.settings.wiring == "scattered":
            random = torch.Generator().manual_seed(seeds.derive(given.spec.seed, self.name, "wiring"))
            # As many weights of each unit are gone, others.
            orders = [[torch.randperm(gone.shape[1], generator=random) for _ in gone] for _, gone in between]
            return [
                (layer, gone.gather(1, torch.stack(order)))
                for (layer, gone), order in zip(between, orders, strict=True)
            ]
        return []


@final
@dataclass(eq=False)
class TrainingMask(Hook):
    """Weights that are not there stay 0.

    Attributes:
        absent: Weights of some layers, and which of each are not there.
    """

    absent: Sequence[tuple[Tensor, Tensor]]

    def after_step(self, fit: Fit) -> None:
        """See ``Hook.after_step``."""
        with torch.no_grad():
            for weight, gone in self.absent:
                weight.masked_fill_(gone, 0.0)


def layers(model: nn.Module) -> list[nn.Linear]:
    """The linear layers of a net, in order of computation."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def crossings(model: nn.Module, factors: Mapping[str, int]) -> list[tuple[nn.Linear, Tensor]]:
    """Layers after the first, and which of their weights lead from one factor to another, ``[unit, input]``.

    Of inputs and units, an equal number in a row belongs to each factor; of the last layer's units, its values.
    """
    _, *after = layers(model)
    shares = [torch.tensor([layer.out_features // len(factors)] * len(factors)) for layer in after[:-1]]
    shares.append(torch.tensor([*factors.values()]))
    numbers = torch.arange(len(factors))
    rows = [numbers.repeat_interleave(share) for share in shares]
    columns = [numbers.repeat_interleave(layer.in_features // len(factors)) for layer in after]
    masks = [row[:, None] != column[None, :] for row, column in zip(rows, columns, strict=True)]
    return list(zip(after, masks, strict=True))


def _answers(teacher: nn.Module, inputs: Tensor) -> Tensor:
    """What a net answers, ``[example, option]``: probabilities.

    Raises:
        UsageError: If it does not read such inputs.
    """
    try:
        with torch.no_grad():
            return cast("Tensor", teacher(inputs)).softmax(1)
    except RuntimeError as error:
        raise UsageError(
            "A net imitates one that reads the same.",
            where="recipe organized, setting on",
            expected=f"inputs {list(inputs.shape)}",
            got=str(error),
        ) from error


def _crossing(model: nn.Module, factors: Mapping[str, int]) -> Tensor:
    """Share of squared weights that leads from one factor to another, mean over the layers after the first."""
    shares = [
        layer.weight.square()[mask.to(layer.weight.device)].sum() / layer.weight.square().sum().clamp_min(_TINY)
        for layer, mask in crossings(model, factors)
    ]
    return torch.stack(shares).mean()


def _narrow(model: nn.Module, factors: Mapping[str, int]) -> Tensor:
    """How unequally units of the last hidden layer serve the factors: 0 all alike, 1 where each serves one alone.

    Of the squared weights to a factor's values less their mean: what is added to all values of a factor says nothing.
    """
    last = layers(model)[-1].weight
    split = cast("tuple[Tensor, ...]", last.split(list(factors.values())))  # pyright: ignore[reportUnknownMemberType]
    parts = [part - part.mean(0) for part in split]
    served = torch.stack([part.square().sum(0) for part in parts])
    shares = served / served.sum(0).clamp_min(_TINY)
    count = len(parts)
    return ((shares - 1.0 / count).square().sum(0) * count / (count - 1)).mean()
