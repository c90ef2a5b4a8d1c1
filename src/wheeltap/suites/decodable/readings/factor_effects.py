"""What each hidden unit does to each factor of the answers: a unit that serves one of them moves no other."""

from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wheeltap.core.errors import DataError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.inside.units import Session, hidden_units, means, to_value
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.decodable.specs.factor_effects import FACTOR_EFFECTS


@final
class FactorEffects(Reading):
    """Sets one hidden unit after another to its mean, and compares the answers to each factor with the clean ones."""

    spec = FACTOR_EFFECTS

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            DataError: If the task knows no factors, or its options are no combinations of their values.
        """
        session, hiddens = Session(subject, task), hidden_units(subject, task)
        values = values_of(task, session.clean.shape[1])
        value = means(subject, task, hiddens)
        groups, member = np.unique(task.behaviors.cpu().numpy(), return_inverse=True)
        share = functional.one_hot(to_tensor(member)).double()
        share = share / share.sum(0)
        clean = [_marginal(session.clean, column) for column in values]
        rows: list[Tensor] = []
        for hidden in hiddens:
            for unit in range(hidden.units):
                index = torch.tensor([unit], device=subject.device)
                scores = session.without({hidden: to_value(index, value[hidden][index])})
                moved = [_kl(one, _marginal(scores, column)) for one, column in zip(clean, values, strict=True)]
                rows.append(share.T @ torch.stack(moved, 1))
        told: dict[str, NDArray[Any]] = {
            "effect": to_array(torch.stack(rows, 1)),
            "groups": groups.astype(float),
            "belongs": member.astype(float),
            "layer": np.repeat(np.arange(len(hiddens)), [hidden.units for hidden in hiddens]).astype(float),
            "unit": np.concatenate([np.arange(hidden.units) for hidden in hiddens]).astype(float),
        }
        return Readings(told, forwards=1.0 + session.passes)


def values_of(task: BaseTask, options: int) -> list[Tensor]:
    """The value of each factor that an option stands for, ``[option]`` each, from the examples it is right for.

    Raises:
        DataError: If there are no factors, an option is right for no example, or for examples of different values.
    """
    if task.targets.is_floating_point() or not task.annotations.factors:
        raise DataError(
            "The answers cannot be divided into factors.",
            where=task.name,
            expected="options, and factors of the examples (task.with_factors)",
            got="outputs that are no options" if task.targets.is_floating_point() else "no factors",
        )
    right, found = task.targets.cpu().numpy(), list[Tensor]()
    first = {int(option): at for at, option in reversed(list(enumerate(right)))}
    missing = sorted(set(range(options)) - first.keys())
    for name, factor in task.annotations.factors.items():
        own = factor.cpu().numpy()
        apart = next((at for at, option in enumerate(right) if own[at] != own[first[int(option)]]), None)
        if missing or apart is not None:
            raise DataError(
                "The options are no combinations of the factors' values.",
                where=f"{task.name}, factor {name}",
                expected="of every option an example that it is right for, and one value of the factor in all of them",
                got=f"none of option {missing[0]}" if apart is None else f"two values of option {int(right[apart])}",
            )
        found.append(to_tensor(np.unique(own, return_inverse=True)[1][[first[at] for at in range(options)]]))
    return found


def _marginal(scores: Tensor, values: Tensor) -> Tensor:
    """Log-probability of each value of a factor, ``[example, value]``."""
    likely = scores.double().log_softmax(1)
    return torch.stack([likely[:, values == one].logsumexp(1) for one in range(int(values.max()) + 1)], 1)


def _kl(clean: Tensor, moved: Tensor) -> Tensor:
    """From the clean answer to the other one, ``[example]``, nats."""
    return (clean.exp() * (clean - moved)).sum(1).clamp_min(0.0)
