"""Gauges: changes of weights that leave the function as it is, and the twins made with them.

A *reparametrized copy* (here: twin) computes exactly what the original computes, with other weights. An instrument
that distinguishes the two reads coordinates, not the function. A gauge is named by what it does:

- hidden units: ``permute`` and ``rescale`` them; ``split`` one into several; add some that ``cancel`` in pairs or are
  ``dead``; ``entangle`` some by splitting them with what another unit writes. ``cancel`` and ``entangle`` twins serve
  as planted defects: the same function, written so that it breaks sooner.
- attention: permute ``heads``; mix the bases of ``value`` and of ``query`` with key.
- norms and residual stream: ``fold`` gains and ``shift`` offsets into the layers beside them; ``rotate`` the stream.

Which of them hold is found in a model by its structure; twins of several are made by one after another.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wheeltap.core import copies, seeds
from wheeltap.core.errors import DataError, ModelError, UnknownName, UsageError
from wheeltap.core.records import Made, Scalar
from wheeltap.gauge import gpt2, llama, relu_chain
from wheeltap.gauge import settings as _settings
from wheeltap.gauge.base import Family, Refusal
from wheeltap.gauge.moves import WIDENING
from wheeltap.gauge.settings import GAUGES, Settings

VERSION = 2
FAMILIES: dict[str, Callable[[nn.Module], Family | Refusal]] = {
    llama.NAME: llama.recognise,
    gpt2.NAME: gpt2.recognise,
    relu_chain.NAME: relu_chain.recognise,
}
"""What recognizes the models of each kind of architecture; asked in this order."""


def find(model: nn.Module) -> Family | Refusal:
    """The first family that recognises ``model``, by structure alone; else the reasons of all of them."""
    reasons: list[str] = []
    recognised: list[str] = []
    for name, recognise in FAMILIES.items():
        found = recognise(model)
        if isinstance(found, Family):
            return found
        reasons.append(f"{name}: {found.because}")
        recognised += found.recognised
    return Refusal("; ".join(reasons), tuple(recognised))


def describe(family: Family | str, *operations: str, seed: int, **settings: Scalar) -> Made:
    """How a twin is made, with every default written out.

    Args:
        family: As found by ``find``, or its name.
        *operations: Gauges, applied in this order.
        seed: Root of the twin's draws; each gauge has a stream of its own.
        **settings: See ``Settings``.

    Raises:
        UnknownName: If there is no such family (or gauge, or setting).
        UsageError: If a setting is out of range or belongs to no gauge that is asked for.
        ModelError: If a gauge does not hold on the model that ``family`` was found in.
    """
    name = family if isinstance(family, str) else family.name
    if name not in FAMILIES:
        raise UnknownName("gauge family", name, FAMILIES)
    read = _settings.read(operations, settings)
    if isinstance(family, Family):
        for gauge in operations:
            _require_offered(family, gauge)
    written = _settings.written(operations, read)
    return Made(family=name, operations=operations, settings=written, seed=seed, version=VERSION)


def twin(model: nn.Module, made: Made) -> nn.Module:
    """A copy of ``model`` rewritten as ``made`` says; ``model`` is not touched.

    The same settings give the same bits. Costs the copy's memory and, for a moment, one layer's.

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
    read = _settings.read(made.operations, made.settings)
    family = _recognised(model, made.family)
    for gauge in made.operations:
        _require_offered(family, gauge)
    copied = _copied(model)
    widened = False
    for gauge in made.operations:
        if widened:  # found again, for the units that were added
            family = _recognised(copied, made.family)
            _require_offered(family, gauge)
        family.moves[gauge](copied, seeds.generator(made.seed, "gauge", family.name, gauge), read)
        widened = gauge in WIDENING
    return copied


def _recognised(model: nn.Module, family: str) -> Family:
    if family not in FAMILIES:
        raise UnknownName("gauge family", family, FAMILIES)
    found = FAMILIES[family](model)
    if isinstance(found, Refusal):
        raise ModelError(
            f"The model is not of the gauge family {family!r}.",
            where=type(model).__name__,
            expected="parts that can be rewritten without changing the function",
            got=found.because,
            do="Audit it without this control.",
        )
    return found


def _require_offered(family: Family, gauge: str) -> None:
    if gauge not in family.moves:
        raise ModelError(
            f"The gauge {gauge!r} is not known to hold on this model.",
            where=f"a model of the family {family.name}",
            expected=f"one of: {', '.join(family.offers)}",
            got=family.why_not(gauge),
            do="Leave it out, or ask for another one.",
        )


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copies.copied(model)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ModelError(
            "The model cannot be copied, so no reparametrized copy of it can be made.",
            where=type(model).__name__,
            expected="a module that copy.deepcopy can copy",
            got=f"{type(error).__name__}: {error}",
            do="Keep locks, files and tensors with a gradient history out of the module's attributes.",
        ) from error


class Likeness(NamedTuple):
    """How alike the outputs of a model and its twin are.

    Attributes:
        difference: Largest absolute difference of a score, in units of the logit scale: the standard deviation of
            the original's scores about each example's mean (about the overall mean where an example has one score).
        agreement: Share of examples whose highest score is at the same place.
    """

    difference: float
    agreement: float


def check(original: NDArray[Any], twin: NDArray[Any]) -> Likeness:
    """How alike two arrays of scores are; a wrong gauge shows here. A score that is not finite differs by infinity.

    Args:
        original: ``[example, option]``.
        twin: The same shape.

    Raises:
        DataError: If the arrays are empty or differ in shape.
    """
    if original.shape != twin.shape or original.ndim != 2 or original.size == 0:
        raise DataError(
            "The scores of a model and its copy cannot be compared.",
            expected="two arrays [example, option] of one shape",
            got=f"{list(original.shape)} and {list(twin.shape)}",
        )
    ours, theirs = original.astype(np.float64), twin.astype(np.float64)
    agreement = float((ours.argmax(1) == theirs.argmax(1)).mean())
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return Likeness(float("inf"), agreement)
    centre = ours.mean(axis=1 if ours.shape[1] > 1 else 0, keepdims=True)
    scale = float(((ours - centre) ** 2).mean()) ** 0.5 or 1.0
    return Likeness(float(np.abs(ours - theirs).max()) / scale, agreement)


__all__ = [
    "FAMILIES",
    "GAUGES",
    "VERSION",
    "Family",
    "Likeness",
    "Refusal",
    "Settings",
    "check",
    "describe",
    "find",
    "twin",
]
