"""Disturbed copies that share one pass over the weights: low-rank noise, added to what each layer gives.

The noise of copy k adds (x V') U' to a layer's output, two thin products, so the weights are read once for all copies
and never written: there is nothing to undo. It pays where copies have few tokens each, so that reading the weights is
what a pass costs. The noise is a perturbation of its own (see ``perturb.low_rank``), not a way to draw another one.

Source: Wen, Tran & Ba (2020), "BatchEnsemble", arXiv 2002.06715, eq. 2.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from wheeltap.engine.apply import Disturbance
from wheeltap.engine.folded import Calls, computing, require_same, require_single_precision
from wheeltap.errors import ModelError
from wheeltap.layer import Layer
from wheeltap.perturb.base import Draw
from wheeltap.perturb.low_rank import LowRankNoise, frobenius
from wheeltap.probe import BaseProbe
from wheeltap.site import WHOLE, Site
from wheeltap.subject import Subject
from wheeltap.typed import named_modules


@final
@dataclass(frozen=True)
class _Change:
    """The changes of one stored weight in every copy, ``left @ right``.

    Attributes:
        left: ``[copy, first axis, rank]``.
        right: ``[copy, rank, second axis and what follows]``.
    """

    left: Tensor
    right: Tensor

    def by_linear(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """What is added to the output of a Linear, ``[copy, row, unit]``."""
        return self._rows(inputs) @ self.right.mT @ self.left.mT

    def by_transposed(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """What is added to the output of a Conv1D of transformers, ``[copy, row, unit]``."""
        return self._rows(inputs) @ self.left @ self.right

    def by_embedding(self, module: nn.Module, tokens: Tensor) -> Tensor:
        """What is added to an embedding, ``[copy, token, unit]``."""
        copies = len(self.left)
        ids = tokens.expand(copies, *tokens.shape[1:]) if len(tokens) == 1 else tokens
        own = torch.arange(copies, device=tokens.device)[:, None]
        return self.left[own, ids.reshape(copies, -1)] @ self.right

    def by_convolution(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """What is added to the output of a convolution, ``[copy, row, unit, place...]``."""
        assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        given = inputs.expand(len(self.left), *inputs.shape[1:]) if len(inputs) == 1 else inputs
        parts: list[Tensor] = []
        for left, right, own in zip(self.left, self.right, given.chunk(len(self.left)), strict=True):
            kernel = right.reshape(len(right), *module.weight.shape[1:])
            # torch's own inner call: it knows every way of padding and stride.
            thin: Tensor = module._conv_forward(own, kernel, None)  # pyright: ignore[reportPrivateUsage]
            parts.append(torch.einsum("ur,br...->bu...", left, thin))
        return torch.stack(parts)

    def _rows(self, inputs: Tensor) -> Tensor:
        if len(inputs) == 1:
            return inputs.reshape(1, -1, inputs.shape[-1]).expand(len(self.left), -1, -1)
        return inputs.reshape(len(self.left), -1, inputs.shape[-1])


Added = Callable[[_Change, nn.Module, Tensor], Tensor]
"""From a module and its input to what the change of its weight adds to its output, copy by copy."""


@final
@dataclass(frozen=True)
class _Use:
    """One module that multiplies by a weight."""

    layer: Layer
    module: nn.Module
    added: Added


@final
class LowRankCopies:
    """Copies of one subject, each with low-rank noise of its own, all in one pass.

    The first pass holds one more copy, undisturbed, which must give the clean scores, and its first copy must give
    those of the disturbance written into the weights.

    Memory: ``copies`` times the activations of a pass, and the thin factors.

    Args:
        subject: Undisturbed; its weights are not written to, but for that first comparison.
        probe: The examples.
        noise: What is added.
        site: To which layers.

    Attributes:
        path: Name of the numerical path.

    Raises:
        ModelError: If a layer's noise cannot be added to its output.
    """

    def __init__(self, subject: Subject, probe: BaseProbe, noise: LowRankNoise, site: Site = WHOLE) -> None:
        self.subject, self.probe, self.noise, self.site = subject, probe, noise, site
        self.path = f"low-rank folded, rank {noise.settings.rank}"
        require_single_precision(subject, path=self.path)
        self._layers = [each for each in subject.layers if site.covers(each.name) and noise.accepts(each)]
        self._uses = _uses(subject, self._layers)
        with torch.no_grad():
            self._norms = {each.weight: frobenius(subject.parameter(each.weight)) for each in self._layers}
        self.calls = Calls(subject, probe)
        self.clean = self.calls.clean
        self._proven = False

    @torch.no_grad()
    def scores(self, dose: float, *, root: int, seeds: Sequence[int]) -> Tensor:
        """Scores of the copies disturbed by each of ``seeds``, ``[copy, example, option]``.

        Raises:
            UsageError: If the dose is out of range.
            ModelError: If they are not those of the written disturbance.
        """
        self.noise.require_dose(dose)
        if self._proven:
            return self._pass([(dose, seed) for seed in seeds], root)
        scores = self._pass([(0.0, seeds[0]), *((dose, seed) for seed in seeds)], root)
        with Disturbance(self.subject, self.noise, self.site) as disturbance:
            disturbance.apply(dose, root=root, seed=seeds[0])
            written = self.probe.scores(self.subject.model)
        require_same(scores[:2], torch.stack([self.clean, written]), path=self.path, where=self.subject.name)
        self._proven = True
        return scores[1:]

    def _pass(self, copies: Sequence[tuple[float, int]], root: int) -> Tensor:
        changes = {layer.weight: self._change(layer, copies, root) for layer in self._layers}
        with ExitStack() as undo:
            for use in self._uses:
                forward = self._forward(use, changes[use.layer.weight])
                undo.enter_context(computing(use.module, forward))
            return self.calls.folded(len(copies))

    def _change(self, layer: Layer, copies: Sequence[tuple[float, int]], root: int) -> _Change:
        """Factors of the stored weight's change, with the dose in the first."""
        weight, norm = self.subject.parameter(layer.weight), self._norms[layer.weight]
        drawn = [self.noise.factors(layer, weight, Draw(root, seed), norm=norm) for _, seed in copies]
        doses = torch.tensor([dose for dose, _ in copies], device=weight.device, dtype=weight.dtype)[:, None, None]
        left, right = torch.stack([d.left for d in drawn]) * doses, torch.stack([d.right for d in drawn])
        return _Change(right.mT, left.mT) if layer.kind in ("transposed", "embedding") else _Change(left, right)

    def _forward(self, use: _Use, change: _Change) -> Callable[..., Tensor]:
        plain: Callable[..., Tensor] = use.module.forward

        def forward(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            output, rows = plain(inputs, *args, **kwargs), self.calls.current.rows * len(change.left)
            if len(inputs) % rows and len(inputs) != 1:
                raise _unfoldable(self.subject, use.layer, f"an input of {len(inputs)} rows for a batch of {rows}")
            added = use.added(change, use.module, inputs)
            if len(inputs) == 1:  # the same for all rows (positions, say): from here on they differ
                output = output.expand(rows, *output.shape[1:]).clone()
                added = added[:, None].expand(-1, self.calls.current.rows, *added.shape[1:])
            return output.add_(added.reshape(output.shape))

        return forward


def _uses(subject: Subject, layers: Sequence[Layer]) -> list[_Use]:
    """Every module that multiplies by the weight of one of ``layers``; a tied weight has several."""
    by_weight = {id(subject.parameter(layer.weight)): layer for layer in layers}
    uses: list[_Use] = []
    for path, module in named_modules(subject.model):
        for parameter in module.parameters(recurse=False):
            layer = by_weight.get(id(parameter))
            if layer is None:
                continue
            added = _added(module)
            if added is None:
                raise _unfoldable(subject, layer, f"{path} is a {type(module).__name__}")
            uses.append(_Use(layer, module, added))
    return uses


def _added(module: nn.Module) -> Added | None:
    if isinstance(module, nn.Linear):
        return _Change.by_linear
    if isinstance(module, nn.Embedding):
        return _Change.by_embedding
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return _Change.by_convolution if module.groups == 1 else None
    return _Change.by_transposed if type(module).__name__ == "Conv1D" else None


def _unfoldable(subject: Subject, layer: Layer, got: str) -> ModelError:
    return ModelError(
        "The noise of this layer cannot be added to its output.",
        where=f"{subject.name}: {layer.name}",
        expected="Linear, Embedding, Conv1D and convolutions without groups, that take the batch row by row",
        got=got,
        do="Write the noise into the weights: the plain path does.",
    )
