"""Places that nothing reads: where scores are of a few positions, the last block's later parts need run only there.

A part is narrowed if two things hold on the clean pass: no gradient of the scores comes back to its output at the
places left out, and it gives at the others what it gives on them alone. Both are tried, not known from its class; so
whoever narrows a pass compares one disturbed result with that of a whole pass.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from wheeltap.core.subject import Subject
from wheeltap.core.task import as_scores
from wheeltap.engine.apply import as_before
from wheeltap.engine.fast.folded import Calls, computing
from wheeltap.engine.fast.prefix import PrefixCache

_WORTH = 0.5
"""Share of the places, at most, that must be needed for narrowing to pay."""


@final
@dataclass
class _Part:
    """A module with what it was given and gave in each call of the task."""

    module: nn.Module
    given: list[Tensor] = field(default_factory=list[Tensor])
    gave: list[Tensor] = field(default_factory=list[Tensor])

    def hook(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        whole = len(args) == 1 and isinstance(args[0], Tensor) and isinstance(output, Tensor)
        if whole and args[0].ndim == 3 and output.ndim == 3 and output.requires_grad:
            self.given.append(args[0])
            self.gave.append(output)


@final
class Narrowing:
    """The parts of a subject's last block that need not run at every place, with the places where they must.

    Args:
        subject: Undisturbed.
        calls: Of the task.
        cache: Of the same subject and task.
        inner: Module paths to try besides the last block's own children.
    """

    def __init__(self, subject: Subject, calls: Calls, cache: PrefixCache, *, inner: Sequence[str] = ()) -> None:
        self.subject = subject
        self._places: list[tuple[nn.Module, list[Tensor]]] = []
        if not cache.exact:
            return
        block = subject.model.get_submodule(cache.stack[-1])
        tried = [*block.children(), *(subject.model.get_submodule(path) for path in inner)]
        parts = [_Part(module) for module in tried]
        for part, places in zip(parts, self._needed(parts, calls, cache), strict=True):
            if places is not None and _placewise(part, places):
                self._places.append((part.module, places))

    @contextmanager
    def applied(self) -> Generator[None]:
        """While the block runs, those parts give zeros at places that nothing reads."""
        with ExitStack() as undo:
            for module, places in self._places:
                undo.enter_context(computing(module, _narrowed(module.forward, places)))
            yield

    def _needed(self, parts: Sequence[_Part], calls: Calls, cache: PrefixCache) -> list[list[Tensor] | None]:
        """Places with a gradient, for each call; ``None`` for a part that does not run once in each, or at most."""
        found: list[list[Tensor]] = [[] for _ in parts]
        with ExitStack() as undo:
            undo.enter_context(as_before(self.subject))
            undo.enter_context(torch.inference_mode(False))
            undo.enter_context(torch.enable_grad())
            self.subject.model.requires_grad_(False)
            block = self.subject.model.get_submodule(cache.stack[-1])
            undo.callback(block.register_forward_pre_hook(_anchored).remove)
            for part in parts:
                undo.callback(part.module.register_forward_hook(part.hook).remove)
            undo.enter_context(cache.starting_at(cache.stack[-1]))
            for at, call in enumerate(calls.calls):
                scores = as_scores(self.subject.model(*call.args, **call.kwargs))
                there = [part for part in parts if len(part.gave) == at + 1]
                weights = torch.linspace(0.5, 1.5, scores.numel(), device=scores.device).reshape(scores.shape)
                outputs = [part.gave[at] for part in there]
                slopes = torch.autograd.grad(scores, outputs, weights, allow_unused=True, materialize_grads=True)
                for part, slope in zip(there, slopes, strict=True):
                    found[parts.index(part)].append(slope.abs().amax((0, 2)).nonzero()[:, 0])
        return [
            places if _worth(part, places, len(calls.calls)) else None
            for part, places in zip(parts, found, strict=True)
        ]


def _anchored(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Starts a graph at the block's input."""
    return (args[0].detach().clone().requires_grad_(), *args[1:])


def _worth(part: _Part, places: Sequence[Tensor], calls: int) -> bool:
    if len(places) != calls or len(part.gave) != calls:
        return False
    return all(0 < len(some) <= _WORTH * gave.shape[1] for some, gave in zip(places, part.gave, strict=True))


@torch.no_grad()
def _placewise(part: _Part, places: Sequence[Tensor]) -> bool:
    """Whether the part gives at these places what it gives on them alone."""
    alone = [part.module(given[:, some].detach()) for given, some in zip(part.given, places, strict=True)]
    whole = [gave[:, some] for gave, some in zip(part.gave, places, strict=True)]
    return all(
        torch.allclose(a, w, rtol=1e-4, atol=1e-5 * float(w.abs().max())) for a, w in zip(alone, whole, strict=True)
    )


def _narrowed(forward: Callable[..., Tensor], places: Sequence[Tensor]) -> Callable[..., Tensor]:
    """The forward at the places of one call after another, pass after pass; zeros elsewhere."""
    calls = 0

    def narrow(given: Tensor) -> Tensor:
        nonlocal calls
        at, calls = calls % len(places), calls + 1
        some = forward(given[:, places[at]])
        return some.new_zeros(*given.shape[:2], some.shape[2]).index_copy_(1, places[at], some)

    return narrow
