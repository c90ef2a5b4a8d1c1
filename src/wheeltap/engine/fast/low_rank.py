"""Low-rank noise beside the weights: added to what each layer gives, for one disturbed copy or several in one pass.

The noise of copy k adds (x V') U' to a layer's output, two thin products: the weights are never written, so there is
nothing to undo, and copies with few tokens each share one reading of them. The noise is a perturbation of its own (see
``perturb.noise``), not a way to draw another one.

Source: Wen, Tran & Ba (2020), "BatchEnsemble", arXiv 2002.06715, eq. 2.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, final

import torch
from torch import Tensor, nn

from wheeltap.core import coverage
from wheeltap.core.errors import ModelError
from wheeltap.core.layer import Layer
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import named_modules, squares
from wheeltap.engine.apply import Disturbance, asked
from wheeltap.engine.fast.folded import CACHE_BYTES, TOKENS, Calls, computing, require_same, require_single_precision
from wheeltap.perturb.base import Draw
from wheeltap.perturb.noise import LowRankNoise

_Change = tuple[Tensor, Tensor]
"""The changes of one stored weight in every copy, as two factors: ``[copy, first axis, rank]``, and ``[copy, rank,
second axis and what follows]``."""


def _added(change: _Change, module: nn.Module, inputs: Tensor) -> Tensor:
    """What is added to what a module gives, ``[copy, row, unit]``, of a convolution with places behind."""
    left, right = change
    copies = len(left)
    if isinstance(module, nn.Embedding):
        ids = inputs.expand(copies, *inputs.shape[1:]) if len(inputs) == 1 else inputs
        own = torch.arange(copies, device=inputs.device)[:, None]
        return left[own, ids.reshape(copies, -1)] @ right
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        given = inputs.expand(copies, *inputs.shape[1:]) if len(inputs) == 1 else inputs
        parts: list[Tensor] = []
        for first, second, own in zip(left, right, given.chunk(copies), strict=True):
            kernel = second.reshape(len(second), *module.weight.shape[1:])
            # torch's own inner call: it knows every way of padding and stride.
            thin: Tensor = module._conv_forward(own, kernel, None)  # pyright: ignore[reportPrivateUsage]
            parts.append(torch.einsum("ur,br...->bu...", first, thin))
        return torch.stack(parts)
    rows = inputs.reshape(1 if len(inputs) == 1 else copies, -1, inputs.shape[-1]).expand(copies, -1, -1)
    return rows @ right.mT @ left.mT if isinstance(module, nn.Linear) else rows @ left @ right


Copy = tuple[float, int]
"""One disturbed copy: the dose, and which draw."""


@final
class LowRankCopies:
    """Copies of one subject, each with low-rank noise of its own, as many in one pass as it pays.

    In the first pass the first copy must give the scores of the disturbance written into the weights; where copies
    share it, one more copy, undisturbed, must give the clean scores.

    Memory: ``at_once`` times the activations and answers of a pass, and the thin factors.

    Args:
        subject: Undisturbed; its weights are not written to, but for that first comparison.
        task: The examples.
        noise: What is added.
        site: To which layers.
        limit: Bytes that the answers of copies that share a pass may take.

    Attributes:
        at_once: Copies that share a pass; 1 where one has tokens enough, or where the task does not allow more.
        path: Name of the numerical path.
        spent: Passes over the task that recording and proof have cost so far.

    Raises:
        ModelError: If a layer's noise cannot be added to its output.
    """

    def __init__(
        self, subject: Subject, task: BaseTask, noise: LowRankNoise, site: Site = WHOLE, *, limit: int = CACHE_BYTES
    ) -> None:
        self.subject, self.task, self.noise, self.site = subject, task, noise, site
        self.path = f"low-rank beside the weights, rank {noise.settings.rank}"
        require_single_precision(subject, path=self.path)
        self._layers = [each for each in subject.layers if site.covers(each.name) and noise.accepts(each)]
        self._uses = _uses(subject, self._layers)
        with torch.no_grad():
            self._norms = {each.weight: squares(subject.parameter(each.weight)) ** 0.5 for each in self._layers}
        self._calls, self.at_once = self._recorded(limit)
        self.spent = 1.0
        if self._calls is not None:
            self.path = f"low-rank folded, rank {noise.settings.rank}"
        self._proven = False

    def _recorded(self, limit: int) -> tuple[Calls | None, int]:
        """The calls of a clean pass, and how many copies of them fit one pass; ``None`` where it is one."""
        tokens = 1

        def count(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
            nonlocal tokens
            inputs = _given(args, kwargs)
            wide = 1 if isinstance(module, nn.Embedding) else getattr(module, "in_channels", inputs.shape[-1])
            tokens = max(tokens, inputs.numel() // wide)

        with ExitStack() as undo:
            for _, module in self._uses:
                undo.callback(module.register_forward_pre_hook(count, with_kwargs=True).remove)
            try:
                calls = Calls(self.subject, self.task, limit=limit)
            except ModelError:  # the task calls parts of the model, or its answers are too large to be kept
                return None, 1
        fitting = min(TOKENS // tokens, limit // calls.bytes)
        return (calls, fitting) if fitting > 1 else (None, 1)

    @torch.no_grad()
    def scores(self, copies: Sequence[Copy], *, root: int) -> Tensor:
        """Scores of disturbed copies, ``[copy, example, option]``.

        Raises:
            UsageError: If a dose is out of range.
            ModelError: If they are not those of the written disturbance.
        """
        for dose, _ in copies:
            self.noise.require_dose(dose)
        parts = [copies[start : start + self.at_once] for start in range(0, len(copies), self.at_once)]
        return torch.cat([self._pass(part, root) if self._proven else self._first(part, root) for part in parts])

    def relative_norm(self, dose: float) -> float:
        """||change|| / ||weights||, of all the subject's weights."""
        moved = dose**2 * sum(norm**2 for norm in self._norms.values())
        return (moved / (self.subject.squared_norm or 1.0)) ** 0.5

    @property
    def shares(self) -> tuple[float | None, float | None]:
        """Coverage and reach: see ``Disturbance.apply``."""
        sizes = self.subject.sizes
        touched = coverage.held(self._layers, sizes, biases=self.noise.moves_biases)
        if not self.site.everywhere or not touched:
            return None, None
        every, weights = asked(self.subject, self.site)
        return touched / every, coverage.held(self._layers, sizes, biases=False) / weights

    def _first(self, copies: Sequence[Copy], root: int) -> Tensor:
        """The first pass, compared with the plain path."""
        with Disturbance(self.subject, self.noise, self.site) as disturbance:
            disturbance.apply(copies[0][0], root=root, seed=copies[0][1])
            expected = [self.task.scores(self.subject.model)]
        untouched = 0 if self._calls is None else 1  # rows that saw each other would show in this one
        scores = self._pass([*[(0.0, copies[0][1])] * untouched, *copies], root)
        if self._calls is not None:
            expected.insert(0, self._calls.clean)
        self.spent += len(expected)
        require_same(scores[: len(expected)], torch.stack(expected), path=self.path, where=self.subject.name)
        self._proven = True
        return scores[untouched:]

    def _pass(self, copies: Sequence[Copy], root: int) -> Tensor:
        changes: dict[str, _Change] = {}
        for layer in self._layers:  # factors of the stored weight's change, with the dose in the first
            weight, norm = self.subject.parameter(layer.weight), self._norms[layer.weight]
            drawn = [self.noise.factors(layer, weight, Draw(root, seed), norm=norm) for _, seed in copies]
            doses = torch.tensor([dose for dose, _ in copies], device=weight.device, dtype=weight.dtype)
            left = torch.stack([one for one, _ in drawn]) * doses[:, None, None]
            right = torch.stack([two for _, two in drawn])
            turned = layer.kind in ("transposed", "embedding")
            changes[layer.weight] = (right.mT, left.mT) if turned else (left, right)
        with ExitStack() as undo:
            for layer, module in self._uses:
                undo.enter_context(computing(module, self._forward(layer, module, changes[layer.weight])))
            if self._calls is None:
                return self.task.scores(self.subject.model)[None]
            return self._calls.folded(len(copies))

    def _forward(self, layer: Layer, module: nn.Module, change: _Change) -> Callable[..., Tensor]:
        plain: Callable[..., Tensor] = module.forward

        def forward(*args: Any, **kwargs: Any) -> Tensor:
            inputs = _given(args, kwargs)
            output, added = plain(*args, **kwargs), _added(change, module, inputs)
            if self._calls is not None:
                each, rows = self._calls.current.rows, self._calls.current.rows * len(change[0])
                if len(inputs) == 1:  # the same for all rows (positions, say): from here on they differ
                    output = output.expand(rows, *output.shape[1:]).clone()
                    added = added[:, None].expand(-1, each, *added.shape[1:])
                elif len(inputs) % rows:
                    raise _unfoldable(self.subject, layer, f"an input of {len(inputs)} rows for a batch of {rows}")
            return output.add_(added.reshape(output.shape))

        return forward


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The input of a module that has one, given by place or by name."""
    return args[0] if args else next(iter(kwargs.values()))


def _uses(subject: Subject, layers: Sequence[Layer]) -> list[tuple[Layer, nn.Module]]:
    """Every module that multiplies by the weight of one of ``layers``, with that; a tied weight has several."""
    by_weight = {id(subject.parameter(layer.weight)): layer for layer in layers}
    uses: list[tuple[Layer, nn.Module]] = []
    for path, module in named_modules(subject.model):
        known = isinstance(module, nn.Linear | nn.Embedding) or type(module).__name__ == "Conv1D"
        known |= isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.groups == 1
        for parameter in module.parameters(recurse=False):
            layer = by_weight.get(id(parameter))
            if layer is None:
                continue
            if layer.unread or not known:
                raise _unfoldable(subject, layer, f"{path} is a {type(module).__name__}")
            uses.append((layer, module))
    return uses


def _unfoldable(subject: Subject, layer: Layer, got: str) -> ModelError:
    return ModelError(
        "The noise of this layer cannot be added to its output.",
        where=f"{subject.name}: {layer.name}",
        expected="Linear, Embedding, Conv1D and convolutions without groups, that take the batch row by row",
        got=got,
        do="Write the noise into the weights: the plain path does.",
    )
