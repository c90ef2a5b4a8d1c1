"""Fingerprints: a few inputs near decision boundaries, of which only the top answers are compared.

Source: ESF (ACL 2025 Findings) and RESF (EMNLP 2025), after their published description: 5 inputs, chosen so that small
changes of the weights change the answer. Here they are moved down the gradient of the margin as near to the boundary as
16-bit casts allow without another answer; of tokens, those of the least margin among candidates are taken.
"""

from typing import Final

import torch
from torch import Tensor, nn

from wheeltap.core.inputs import Inputs, chosen
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.apply import differentiable
from wheeltap.suites.seal import conversions
from wheeltap.suites.seal.inputs import candidates
from wheeltap.suites.seal.sketch import scores

FIVE: Final = 5
"""Fingerprints of a model."""

CANDIDATES: Final = 64

_STEPS: Final = 24
"""Steps toward the boundary, each of which halves the margin to first order."""


def answers(model: nn.Module, inputs: Inputs) -> Tensor:
    """The top answer to each input, at its last place, ``[input]``."""
    with torch.no_grad():
        return _last(scores(model, inputs)).argmax(-1)


def _last(found: Tensor) -> Tensor:
    return found if found.ndim == 2 else found.flatten(1, -2)[:, -1]


def margins(model: nn.Module, inputs: Inputs) -> Tensor:
    """Score of the top answer less that of the second, ``[input]``."""
    top = _last(scores(model, inputs)).topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]


LEAST: Final = 1e-5
"""Smallest margin of a fingerprint, as a share of the scores' size: rounding alone must not change an answer."""


def fingerprints(subject: Subject, task: BaseTask, *, seed: int) -> Inputs:
    """The inputs, nearest to a boundary first."""
    model = subject.model
    pool = candidates(subject, task, most=CANDIDATES, seed=seed).inputs
    with torch.no_grad():
        stable, order = _stable(model, pool), margins(model, pool).argsort()
    near = chosen(pool, order[stable[order]][:FIVE])
    return _moved(model, near) if isinstance(near, Tensor) and near.is_floating_point() else near


def _stable(model: nn.Module, inputs: Inputs) -> Tensor:
    """Whether an input has the same top answer after every harmless cast, and not by rounding alone, ``[input]``."""
    expected = answers(model, inputs)
    with torch.no_grad():
        least = LEAST * _last(scores(model, inputs)).square().mean().sqrt()
        same = (margins(model, inputs) > least).cpu()
    for name in conversions.NAMES[1:]:
        with conversions.converted(model, name) as changes:
            same &= (answers(model, inputs) == expected).cpu() if changes else True
    return same


def _moved(model: nn.Module, start: Tensor) -> Tensor:
    """Inputs moved toward the boundary, down the gradient of the margin, as far as casts allow."""
    kept, moving = start.clone(), start.clone()
    expected, going = answers(model, start), torch.ones(len(start), dtype=torch.bool)
    for _ in range(_STEPS):
        with differentiable(model), torch.enable_grad():
            moving = moving.detach().requires_grad_(True)
            margin = margins(model, moving)
            slope = torch.autograd.grad(margin.sum(), moving)[0].flatten(1)
        length = slope.square().sum(1, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
        moving = (moving.detach() - (0.5 * margin.detach()[:, None] * slope / length).reshape(moving.shape)).detach()
        going &= _stable(model, moving) & (answers(model, moving) == expected).cpu()
        kept[going] = moving[going]
    return kept
