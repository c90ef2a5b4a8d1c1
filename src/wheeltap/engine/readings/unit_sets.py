"""Sets of hidden units as a user names them, and what is wrong with such a set."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from wheeltap.core.errors import ModelError, UnknownName, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.inside.units import HiddenUnits, hidden_units


def named(hiddens: Sequence[HiddenUnits], text: str, *, where: str) -> Tensor:
    """The units that a user named, ``[unit]`` through all hidden layers.

    Args:
        hiddens: The hidden layers.
        text: ``layer:unit,unit;layer:unit``.
        where: Name of the subject, for errors.

    Raises:
        UnknownName: If there is no such layer.
        UsageError: If there is no such unit.
    """
    ends = list(accumulate((hidden.units for hidden in hiddens), initial=0))
    chosen = torch.zeros(ends[-1], dtype=torch.bool)
    places = {hidden.layer: place for place, hidden in enumerate(hiddens)}
    if not any(layer.isdigit() for layer in places):
        places |= {str(place): place for place in range(len(hiddens))}
    for part in text.split(";"):
        layer, _, numbers = part.partition(":")
        layer = layer.strip()
        if layer not in places:
            raise UnknownName("hidden layer", layer, [hidden.layer for hidden in hiddens])
        place = places[layer]
        units = [int(number) for number in numbers.split(",")]
        if max(units) >= hiddens[place].units:
            raise UsageError(
                f"There is no unit {max(units)} in the hidden layer {layer!r}.",
                where=where,
                expected=f"0 to {hiddens[place].units - 1}",
                got=str(max(units)),
                do="Correct the setting units.",
            )
        chosen[[ends[place] + unit for unit in units]] = True
    return chosen


def require_part(chosen: Tensor, *, where: str) -> None:
    """Raises ``UsageError`` if a set of units is empty or everything.

    Args:
        chosen: ``[unit]``, which are in the set.
        where: Name of the subject, for errors.
    """
    if bool(chosen.all()) or not bool(chosen.any()):
        raise UsageError(
            "The set of units is no part of the model.",
            where=where,
            expected=f"some, not all, of its {len(chosen)} hidden units",
            got=f"{int(chosen.sum())} units",
            do="Name fewer units, or another share.",
        )


def require_asked(subject: Subject, task: BaseTask, *, units: str, behaviour: int | None) -> None:
    """Refuses, before anything runs, a set of units or a behaviour that there is not.

    A model without hidden units passes: that it has none is a finding, not a mistake of the user's.

    Args:
        subject: The model.
        task: The examples.
        units: ``layer:unit,unit;layer:unit``; empty where the set is yet to be found.
        behaviour: A group of the task; ``None`` for all examples.

    Raises:
        UnknownName: If a layer that is named is none of its hidden layers.
        UsageError: If it has no such unit, the set is all of them, or no example belongs to the behaviour.
    """
    groups = {int(group) for group in np.unique(task.behaviors.cpu().numpy())}
    if behaviour is not None and behaviour not in groups:
        raise UsageError(
            f"No example belongs to the behaviour {behaviour}.",
            where=task.name,
            expected=", ".join(map(str, sorted(groups)[:20])) + (", ..." if len(groups) > 20 else ""),
            got=str(behaviour),
            do="Correct the setting behaviour, or leave it out to count all examples.",
        )
    if not units:
        return
    try:
        hiddens = hidden_units(subject, task)
    except ModelError:
        return
    require_part(named(hiddens, units, where=subject.name), where=subject.name)
