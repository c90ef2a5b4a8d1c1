"""Gauges: changes of weights that leave the function as it is, and the twins made with them.

A *gauge twin* computes exactly what the original computes, with other weights. An instrument that tells the two
apart reads coordinates, not the function. ``recode`` twins (permuted, rescaled) are null controls; ``cancel`` twins
(pairs of units that cancel) are planted defects: the same function, written so that it breaks sooner.
"""

import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wheeltap import seeds
from wheeltap.errors import DataError, ModelError, UnknownName, UsageError
from wheeltap.gauge import settings as _settings
from wheeltap.gauge.base import Family, Refusal
from wheeltap.gauge.relu_chain import ReLUChain
from wheeltap.gauge.settings import OPERATIONS, Cancel, Recode
from wheeltap.gauge.swiglu import SwiGLU
from wheeltap.records import Derivation, Scalar

VERSION = 1
FAMILIES: dict[str, type[Family]] = {family.name: family for family in (SwiGLU, ReLUChain)}


def find(model: nn.Module) -> Family | Refusal:
    """The first family that recognises ``model``, by structure alone; else the reasons of all of them."""
    reasons: list[str] = []
    for name, family in FAMILIES.items():
        found = family.recognise(model)
        if isinstance(found, Family):
            return found
        reasons.append(f"{name}: {found.because}")
    return Refusal("; ".join(reasons))


def describe(family: Family | str, operation: str, *, seed: int, **settings: Scalar) -> Derivation:
    """The derivation of a twin, with every default written out.

    Args:
        family: As found by ``find``, or its name.
        operation: ``recode`` or ``cancel``.
        seed: Root of the twin's draws.
        settings: See ``Recode`` and ``Cancel``.

    Raises:
        UnknownName: If there is no such family (or operation, or setting).
    """
    name = family if isinstance(family, str) else family.name
    if name not in FAMILIES:
        raise UnknownName("gauge family", name, FAMILIES)
    read = _settings.read(operation, settings)
    kind = "recode" if isinstance(read, Recode) else "cancel"
    return Derivation(family=name, operation=kind, settings=_settings.written(read), seed=seed, version=VERSION)


def twin(model: nn.Module, derivation: Derivation) -> nn.Module:
    """A copy of ``model`` rewritten as ``derivation`` says; ``model`` is not touched.

    The same derivation gives the same bits. Costs the copy's memory and, for a moment, one layer's.

    Raises:
        UnknownName: If there is no such family (or operation, or setting).
        UsageError: If the derivation is of another version, or a setting is out of range.
        ModelError: If the family does not recognise the model, or the model cannot be copied.
    """
    if derivation.version != VERSION:
        raise UsageError(
            "The derivation was made by another version of the gauges.",
            expected=f"version {VERSION}",
            got=f"version {derivation.version}",
            do="Make the plan again.",
        )
    if derivation.family not in FAMILIES:
        raise UnknownName("gauge family", derivation.family, FAMILIES)
    read = _settings.read(derivation.operation, derivation.settings)
    found = FAMILIES[derivation.family].recognise(model)
    if isinstance(found, Refusal):
        raise ModelError(
            f"The model is not of the gauge family {derivation.family!r}.",
            where=type(model).__name__,
            expected="hidden layers that can be rewritten without changing the function",
            got=found.because,
            do="Audit it without this control.",
        )
    copied = _copied(model)
    rng = seeds.generator(derivation.seed, "gauge", derivation.family, derivation.operation)
    if isinstance(read, Recode):
        found.recode(copied, rng, settings=read)
    else:
        found.cancel(copied, rng, settings=read)
    return copied


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise ModelError(
            "The model cannot be copied, so no twin of it can be made.",
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
            "The scores of a model and its twin cannot be compared.",
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
    "OPERATIONS",
    "Cancel",
    "Family",
    "Likeness",
    "Recode",
    "Refusal",
    "check",
    "describe",
    "find",
    "twin",
]
