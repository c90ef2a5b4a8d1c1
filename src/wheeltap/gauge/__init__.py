"""Gauges: changes of weights that leave the function as it is, and the twins made with them.

A *reparametrized copy* (here: twin) computes exactly what the original computes, with other weights. An instrument
that distinguishes the two reads coordinates, not the function. A gauge is named by what it does:

- hidden units: ``permute`` and ``rescale`` them; ``split`` one into several; add some that ``cancel`` in pairs or are
  ``dead``; ``entangle`` some by splitting them with what another unit writes. ``cancel`` and ``entangle`` twins serve
  as planted defects: the same function, written so that it breaks sooner.
- attention: permute ``heads``; mix the bases of ``value`` and of ``query`` with key.
- norms and residual stream: ``fold`` gains and ``shift`` offsets into the layers beside them; ``rotate`` the stream.
- modules: ``regroup`` the same maps into other ones, as conversions do.

Which of them hold is found in a model by its structure, or by probing it; twins of several are made by one after
another.
"""

from collections.abc import Callable

from torch import nn

from wheeltap.core import seeds, typed
from wheeltap.core.errors import ModelError, UnknownName, UsageError
from wheeltap.core.records import MemberOrigin, Scalar
from wheeltap.core.stages import stage
from wheeltap.gauge import general, regroup, relu_chain, transformer
from wheeltap.gauge.base import GAUGES, Family, GaugeSettings, Refusal, read_settings, written_settings
from wheeltap.gauge.bench import Likeness, Run, check
from wheeltap.gauge.moves import WIDENING

VERSION = 2
Recognise = Callable[[nn.Module, Run | None], Family | Refusal]


FAMILIES: dict[str, Recognise] = {
    transformer.LLAMA: lambda model, run: transformer.llama(model),
    transformer.GPT2: lambda model, run: transformer.gpt2(model),
    relu_chain.NAME: lambda model, run: relu_chain.recognise(model),
    general.NAME: general.recognise,
}
"""What recognizes the models of each kind of architecture; asked in this order."""

LEFT = 0.1
"""Share of a model's hidden weights that a family may leave alone; beyond it the model is probed as well."""


@stage("control copies")
def find(model: nn.Module, run: Run | None = None) -> Family | Refusal:
    """The first family that recognises ``model``; else the reasons of all of them.

    Args:
        model: Any; it is not touched.
        run: Runs a model on a few of a task's examples and gives scores ``[example, option]``. With it, a model that no
            family knows by its structure, or only a part of, is probed. The same examples lead to the same family.
    """
    reasons: list[str] = []
    recognised: list[str] = []
    for name, recognise in FAMILIES.items():
        if name == general.NAME and run is None:
            continue
        found = recognise(model, run)
        if isinstance(found, Family):
            left = 0.0 if run is None or name == general.NAME else general.left(model, found)
            if left > LEFT:
                probed = general.recognise(model, run)
                found = probed if isinstance(probed, Family) and general.left(model, probed) < left else found
            return regroup.completed(model, found, run)
        reasons.append(f"{name}: {found.because}")
        recognised += found.recognised
    return Refusal("; ".join(reasons), tuple(recognised))


def describe(family: Family | str, *operations: str, seed: int, **settings: Scalar) -> MemberOrigin:
    """How a twin is made, with every default written out.

    Args:
        family: As found by ``find``, or its name.
        *operations: Gauges, applied in this order.
        seed: Root of the twin's draws; each gauge has a stream of its own.
        **settings: See ``GaugeSettings``.

    Raises:
        UnknownName: If there is no such family (or gauge, or setting).
        UsageError: If a setting is out of range or belongs to no gauge that is asked for.
        ModelError: If a gauge does not hold on the model that ``family`` was found in.
    """
    name = family if isinstance(family, str) else family.name
    if name not in FAMILIES:
        raise UnknownName("gauge family", name, FAMILIES)
    read = read_settings(operations, settings)
    if isinstance(family, Family):
        for gauge in operations:
            _require_offered(family, gauge)
    written = written_settings(operations, read)
    return MemberOrigin(family=name, operations=operations, settings=written, seed=seed, version=VERSION)


@stage("control copies")
def twin(
    model: nn.Module, made: MemberOrigin, run: Run | None = None, *, family: Family | None = None, emptied: bool = False
) -> nn.Module:
    """A copy of ``model`` rewritten as ``made`` says; ``model`` is not touched, unless it is to be emptied.

    The same settings give the same bits. Costs the copy's memory and, for a moment, one layer's; probing costs more.

    Args:
        model: What ``made`` was described for.
        made: How.
        run: As it was given to ``find``; needed where the family was found by probing.
        family: What ``find`` gave, if that is at hand: it is not found once more.
        emptied: Whether the copy takes over the memory of the parameters: see ``typed.copied``.

    Raises:
        UnknownName: If there is no such family (or gauge, or setting).
        UsageError: If it says so for another version, or a setting is out of range.
        ModelError: If a gauge does not hold on the model, or the model cannot be copied.
    """
    if made.version != VERSION:
        raise UsageError(
            "The copy was planned by another version of the gauges.",
            expected=f"version {VERSION}",
            got=f"version {made.version}",
            do="Make the plan again.",
        )
    read = read_settings(made.operations, made.settings)
    if family is None or family.name != made.family:
        family = _recognised(model, made.family, run)
    for gauge in made.operations:
        _require_offered(family, gauge)
    try:
        copied = typed.copied(model, emptied=emptied)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ModelError(
            "The model cannot be copied, so no reparametrized copy of it can be made.",
            where=type(model).__name__,
            expected="a module that copy.deepcopy can copy",
            got=f"{type(error).__name__}: {error}",
            do="Keep locks, files and tensors with a gradient history out of the module's attributes.",
        ) from error
    widened = False
    # Maps that are cut anew are no longer known: that comes last, whatever the order.
    for gauge in sorted(made.operations, key=lambda gauge: gauge == regroup.NAME):
        if widened:  # found again, for the units that were added
            family = _recognised(copied, made.family, run)
            _require_offered(family, gauge)
        family.moves[gauge](copied, seeds.generator(made.seed, "gauge", family.name, gauge), read)
        widened = gauge in WIDENING
    return copied


def _recognised(model: nn.Module, family: str, run: Run | None) -> Family:
    if family not in FAMILIES:
        raise UnknownName("gauge family", family, FAMILIES)
    found = FAMILIES[family](model, run)
    if isinstance(found, Family):
        return regroup.completed(model, found, run)
    raise ModelError(
        f"The model is not of the gauge family {family!r}.",
        where=type(model).__name__,
        expected="parts that can be rewritten without changing the function",
        got=found.because,
        do="Audit it without this control.",
    )


def _require_offered(family: Family, gauge: str) -> None:
    if gauge not in family.moves:
        raise ModelError(
            f"The gauge {gauge!r} is not known to hold on this model.",
            where=f"a model of the family {family.name}",
            expected=f"one of: {', '.join(family.offers)}",
            got=family.why_not(gauge),
            do="Leave it out, or ask for another one.",
        )


__all__ = [
    "FAMILIES",
    "GAUGES",
    "VERSION",
    "Family",
    "GaugeSettings",
    "Likeness",
    "Refusal",
    "Run",
    "check",
    "describe",
    "find",
    "twin",
]
