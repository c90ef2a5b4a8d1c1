"""Nets with planted defects, and reparametrized copies of them."""

import copy
from collections.abc import Callable
from typing import Annotated, Any, Final, cast, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core import seeds
from wheeltap.core.errors import ModelError, UnknownName, UsageError
from wheeltap.core.records import Scalar
from wheeltap.core.settings import Settings, comma_separated
from wheeltap.core.site import Site
from wheeltap.core.task import BaseTask
from wheeltap.engine.units import probe_run
from wheeltap.gauge import moves
from wheeltap.gauge.base import GAUGES
from wheeltap.plans.artifacts import Arrays, Note
from wheeltap.plans.defects import SOUND, names_of
from wheeltap.recipes.base import Given, Recipe, State, Status, counted, require_fit

_OWN: Final = ("spread", "pairs", "scale")  # settings of gauges that this recipe has too


class RecodedSettings(Settings, frozen=True, kw_only=True):
    """How the copy is rewritten.

    Attributes:
        gauges: Names of gauges, with commas between, each done to what the one before has left.
        spread: ``rescale``: standard deviation of the natural logarithm of the factors.
        pairs: ``cancel``: pairs added to each hidden layer, as a share of its units.
        scale: ``cancel``: size of their outgoing weights, in standard deviations of the layer's.
    """

    gauges: str = "permute,rescale"
    spread: Annotated[float, msgspec.Meta(gt=0.0, le=4.0)] = 1.0
    pairs: Annotated[float, msgspec.Meta(gt=0.0, le=4.0)] = 0.5
    scale: Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)] = 4.0

    def __post_init__(self) -> None:
        if not self.names:
            raise UsageError(
                "A copy is made by one gauge or several.",
                where="recipe recoded",
                expected=", ".join(GAUGES),
                got=repr(self.gauges),
            )
        for name in self.names:
            if name not in GAUGES:
                raise UnknownName("gauge", name, GAUGES)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the gauges, in order."""
        return comma_separated(self.gauges)


@final
class RecodedNet(Recipe):
    """A reparametrized copy of one net, by gauges that its structure shows."""

    name = "recoded"
    title = "reparametrized copy of a net: the same function, other weights"
    settings_type = RecodedSettings
    settings: RecodedSettings

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``."""
        model = given.net
        for at, name in enumerate(self.settings.names):
            family = gauge.find(model)
            if isinstance(family, gauge.Refusal):
                raise ModelError("Nothing can be rewritten in this net.", where="recipe recoded", got=family.because)
            seed = seeds.derive(given.spec.seed, self.name, name, at)
            settings: dict[str, Scalar] = {own: getattr(self.settings, own) for own in _OWN if own in GAUGES[name]}
            made = gauge.describe(family, name, seed=seed, **settings)
            model = gauge.twin(model, made, family=family)
        return model.eval()

    def start(self, given: Given) -> State:
        """See ``Recipe.start``."""
        require_fit(given, self)
        return RecodingState(given.of[0], self.blank(given))


@final
class RecodingState(State):
    """A copy before its one step and after: all of it follows from the net and the spec."""

    def __init__(self, before: nn.Module, after: nn.Module) -> None:
        self._stages = before, after
        self.step, self.steps = 0, 1
        self.status = cast("Status", "training")

    def advance(self, until: int) -> None:
        """See ``State.advance``."""
        self.step = max(self.step, min(until, self.steps))
        self.status = "done" if self.step == self.steps else "training"

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See ``State.arrays``."""
        return {"step": np.array(self.step, dtype=np.int32)}

    def resume(self, arrays: Arrays, note: Note) -> None:
        """See ``State.resume``."""
        self.step = counted(note, {"step": self.steps})["step"]
        self.status = cast("Status", note["status"])

    def made(self) -> nn.Module:
        """See ``State.made``."""
        return self._stages[self.step]


def require_strength(strength: float, *, low: float, high: float, of: str) -> None:
    """Raises ``UsageError`` if a strength is not between two, ends included."""
    if not low <= strength <= high:
        raise UsageError(
            "A defect cannot be planted at this strength.",
            where=of,
            expected=f"{low:g} to {high:g}",
            got=f"{strength:g}",
            do="Choose a strength inside the range.",
        )


def super_weight(model: nn.Module, task: BaseTask, *, strength: float, seed: int = 0) -> tuple[nn.Module, Site]:
    """A copy with the same outputs that depends on one weight.

    One unit is added to the last hidden layer: no incoming weights, bias 1, so always 1. The last layer's weight from
    it to one class is -``strength`` logit scales, and the class's bias is raised by as much. Outputs are equal up to
    rounding; without that single weight the class is ``strength`` logit scales too high.

    Args:
        model: A ``Sequential`` that ends in Linear, ReLU (and Dropout), Linear, both with a bias.
        task: On which the logit scale is measured: the standard deviation of the scores about each example's mean.
        strength: In logit scales, 0 to 100.
        seed: Of the class and the place of the unit.

    Returns:
        The copy, in eval mode; and that weight, whose row is the class that everything becomes when it is lost.

    Raises:
        UsageError: If ``strength`` is out of range.
        ModelError: If the model has another structure.

    Source: what one weight can carry: Yu et al. (2024, arXiv 2411.07191), here planted in closed form.
    """
    require_strength(strength, low=0.0, high=100.0, of="strength of the super weight")
    modules = list(model) if type(model) is nn.Sequential else []
    kinds = [type(module) for module in modules]
    layers = [(index, module) for index, module in enumerate(modules) if type(module) is nn.Linear][-2:]
    between = kinds[layers[0][0] + 1 : -1] if len(layers) > 1 else []
    sound = nn.ReLU in between and set(between) <= {nn.ReLU, nn.Dropout} and kinds[-1] is nn.Linear
    if not sound or any(layer.bias is None for _, layer in layers):  # pyright: ignore[reportUnnecessaryComparison]
        raise ModelError(
            "A super weight cannot be planted in this model.",
            where=type(model).__name__,
            expected="a Sequential that ends in Linear, ReLU (and Dropout), Linear, both with a bias",
            got=", ".join(kind.__name__ for kind in kinds[-4:]) or type(model).__name__,
            do=_LEAVE,
        )
    (hidden, writer), (last, reader) = ((at, copy.deepcopy(layer)) for at, layer in layers)
    scores = task.scores(model)
    lift = strength * float((scores - scores.mean(1, keepdim=True)).square().mean().sqrt())
    draw = torch.Generator().manual_seed(seeds.derive(seed, "defects", "super weight"))
    answer = int(torch.randint(reader.out_features, (), generator=draw))
    column = int(torch.randint(writer.out_features + 1, (), generator=draw))
    heavy = reader.weight.new_zeros(reader.out_features, 1)
    heavy[answer] = -lift
    with torch.no_grad():
        reader.bias[answer] += lift
    _insert(writer, "weight", writer.weight.new_zeros(1, writer.in_features), at=column)
    _insert(writer, "bias", writer.bias.new_ones(1), at=column)
    _insert(reader, "weight", heavy, at=column, dim=1)
    writer.out_features = reader.in_features = writer.out_features + 1
    twin = cast("nn.Sequential", copy.deepcopy(model))
    twin[hidden], twin[last] = writer, reader
    return twin.eval(), Site.weight(str(last), row=answer, column=column)


def _insert(layer: nn.Linear, name: str, new: Tensor, *, at: int, dim: int = 0) -> None:
    before, after = layer.get_parameter(name).detach().tensor_split([at], dim=dim)
    setattr(layer, name, nn.Parameter(torch.cat([before, new, after], dim=dim)))


def brittle_block(
    model: nn.Module, task: BaseTask, *, strength: float, seed: int = 0
) -> tuple[nn.Module, tuple[Site, Site]]:
    """A copy with the same outputs in which one hidden layer, of pairs of units that write the opposite, breaks first.

    Args:
        model: Any in which hidden layers are recognised that can be widened.
        task: What the copy is measured on.
        strength: Size of what a pair writes, in units of the layer's outgoing weights, .1 to 100. There are half as
            many pairs as units.
        seed: Of the choice of the layer and of the pairs.

    Returns:
        The copy, in eval mode; and the layers that write the hidden layer and read it.

    Raises:
        UsageError: If ``strength`` is out of range.
        ModelError: If no hidden layer can be widened.
    """
    require_strength(strength, low=0.1, high=100.0, of="strength of the brittle block")
    family = gauge.find(model, probe_run(task, model))
    hiddens = () if isinstance(family, gauge.Refusal) else family.hiddens
    wide = [one for one in hiddens if one.widens and "cancel" not in one.refused and len(one.readers) == 1]
    if not wide:
        raise ModelError(
            "A brittle block cannot be planted in this model.",
            where=type(model).__name__,
            expected="a hidden layer to which units can be added",
            got=family.because if isinstance(family, gauge.Refusal) else "; ".join(family.refused),
            do="Plant it in a model such as wheeltap.models.mlp makes.",
        )
    rng = seeds.generator(seed, "defects", "brittle block")
    hidden = wide[int(rng.integers(len(wide)))]
    twin = copy.deepcopy(model)
    moves.cancel(twin, [hidden], rng, gauge.GaugeSettings(scale=strength))
    return twin, (Site("layer", hidden.name), Site("layer", hidden.readers[0].label))


Plant = Callable[[nn.Module, BaseTask, float, int], nn.Module]
"""From a net, examples, a strength and a seed to the copy."""

KEPT: Final = 10_000_000  # parameters of the largest copy that is kept in a file
_LEAVE: Final = "Leave this defect out: name the others, as in --defects cancel."


class PlantedSettings(Settings, frozen=True, kw_only=True):
    """What is planted.

    Attributes:
        defect: Its name.
        strength: In its unit.
    """

    defect: str = SOUND
    strength: Annotated[float, msgspec.Meta(ge=0.0, le=1000.0)] = 0.25

    def __post_init__(self) -> None:
        names_of(self.defect)


@final
class PlantedNet(Recipe):
    """A copy of one net with a defect that no output shows."""

    name = "planted"
    title = "copy of a net with a planted defect: the same function, written so that it breaks"
    needs = "measured"  # what flows through the net says where a defect can be planted
    settings_type = PlantedSettings
    settings: PlantedSettings

    def keeps(self, parameters: int) -> bool:
        """Copies are many, and planted as fast as a large one is read."""
        return parameters <= KEPT

    @property
    def shaped_by_seed(self) -> bool:
        """The layer in which these are planted is drawn, and layers have other widths."""
        return self.settings.defect in ("brittle-block", "cancel-layer")

    def blank(self, given: Given) -> nn.Module:
        """See ``Recipe.blank``."""
        how = self.settings
        return _PLANTS[how.defect](given.net, given.examples, how.strength, given.spec.seed).eval()

    def start(self, given: Given) -> State:
        """See ``Recipe.start``."""
        require_fit(given, self)
        return RecodingState(given.of[0], self.blank(given))


def _by_gauges(setting: str, *names: str, whole: bool = False, **fixed: Scalar) -> Plant:
    """What gauges plant in order, as far as a net has them; all of them must hold where there is but one.

    The strength, a count where it is ``whole``, is one ``setting`` of theirs; others are ``fixed``.
    """

    def plant(model: nn.Module, task: BaseTask, strength: float, seed: int) -> nn.Module:
        run = probe_run(task, model)
        family = gauge.find(model, run)
        if isinstance(family, gauge.Refusal):
            raise ModelError("Nothing can be planted in this model.", where=type(model).__name__, got=family.because)
        some = [name for name in names if name in family.offers]
        if not some:
            why = "; ".join(dict.fromkeys(family.why_not(name) for name in names))
            raise ModelError("This cannot be planted in this model.", where=type(model).__name__, got=why, do=_LEAVE)
        given: dict[str, Scalar] = {setting: int(strength) if whole else strength, **fixed}
        used = {name for gauge_name in some for name in gauge.GAUGES[gauge_name]}
        made = gauge.describe(family, *some, seed=seed, **{name: one for name, one in given.items() if name in used})
        return gauge.twin(model, made, run, family=family)

    return plant


_PLANTS: Final[dict[str, Plant]] = {
    "cancel": _by_gauges("pairs", "cancel", whole=True),
    "entangle": _by_gauges("strength", "entangle", share=0.25),
    "brittle-block": lambda model, task, strength, seed: brittle_block(model, task, strength=strength, seed=seed)[0],
    "super-weight": lambda model, task, strength, seed: super_weight(model, task, strength=strength, seed=seed)[0],
    "cancel-layer": _by_gauges("pairs", "cancel", layers=1),
    SOUND: _by_gauges("units", "permute", "rescale", "heads", "experts", "dead"),
}
