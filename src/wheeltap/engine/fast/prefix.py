"""Passes cut short: blocks before a disturbance are not run again, nor later ones at places that nothing reads.

The prefix cache: for a disturbance inside one block, the outputs of the blocks before it are those of the clean model.
A clean pass records the output of every block of the model's main stack; while a block is disturbed, the blocks before
it are replaced by what was recorded. Exact, and proven so on the subject at hand before it is used: with nothing
disturbed, the shortened pass must give the clean scores to the bit. A model whose later parts read more of the prefix
than the last block's output (skip connections across blocks, state kept between calls) fails that proof and takes the
plain path.

Narrowing: where scores are of a few positions, the last block's later parts need run only there. A part is narrowed if
two things hold on the clean pass: no gradient of the scores comes back to its output at the places left out, and it
gives at the others what it gives on them alone. Both are tried, not known from its class; so whoever narrows a pass
compares one disturbed result with that of a whole pass.
"""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from wheeltap.core.subject import Subject
from wheeltap.core.task import as_scores
from wheeltap.core.typed import named_modules
from wheeltap.engine.apply import preserved_state
from wheeltap.engine.fast.folded import CACHE_BYTES, Calls, computing, repeated_rows

Score = Callable[[nn.Module], Tensor]


@final
class PrefixCache:
    """Recorded block outputs of one subject on one task.

    Args:
        subject: The clean subject.
        score: One pass over the task.
        limit: Bytes that recorded outputs may take; a model that needs more takes the plain path.
    """

    def __init__(self, subject: Subject, score: Score, *, limit: int = CACHE_BYTES) -> None:
        self.subject, self.score, self._limit = subject, score, limit
        self.stack = _stack(subject)
        self._outputs: dict[str, list[Any]] = {path: [] for path in self.stack}
        self.spent = 0.0
        self.exact = False
        if len(self.stack) > 1 and self._record():
            last = self.stack[-1]
            self.spent += self.share(last)
            with self.starting_at(last):
                self.exact = torch.equal(self.score(self.subject.model), self._clean)

    def covers(self, block: str) -> bool:
        """Whether a disturbance of ``block`` may use the cache."""
        return self.exact and block in self.stack

    def share(self, block: str) -> float:
        """Cost of a pass that starts at ``block``, as a share of the stack."""
        return 1.0 - self.stack.index(block) / len(self.stack)

    @contextmanager
    def starting_at(self, block: str, *, copies: int = 1) -> Generator[None]:
        """While the block runs, passes over the task skip the blocks before ``block``.

        Args:
            block: One that the cache covers.
            copies: How often each call's batch is repeated (see ``folded``).
        """
        skipped = self.stack[: self.stack.index(block)]
        with ExitStack() as undo:
            for path in skipped:
                forward = _replay(self._outputs[skipped[-1]], copies)
                undo.enter_context(computing(self.subject.model.get_submodule(path), forward))
            yield

    @contextmanager
    def stopping(self) -> Generator[None]:
        """While the block runs, a call of the model ends with the last block: it raises ``StackEnd``."""

        def stop(module: nn.Module, args: Any, output: Any) -> None:
            raise StackEnd(output)

        hook = self.subject.model.get_submodule(self.stack[-1]).register_forward_hook(stop)
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def after(self, outputs: list[Any]) -> Generator[None]:
        """While the block runs, calls of the model begin behind the last block, which gives ``outputs`` in turn."""

        def passed(first: Any, *_: Any, **__: Any) -> Any:
            return first

        with ExitStack() as undo:
            for path in self.stack:
                forward = _replay(outputs, 1) if path == self.stack[-1] else passed
                undo.enter_context(computing(self.subject.model.get_submodule(path), forward))
            yield

    def _record(self) -> bool:
        held, order = 0.0, list[str]()

        def keep(path: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                nonlocal held
                order.append(path)
                held += _bytes(output) if path else 0
                if held <= self._limit and path:
                    self._outputs[path].append(output)

            return hook

        with ExitStack() as undo:
            for path in (*self.stack, ""):
                module = self.subject.model.get_submodule(path)
                undo.callback(module.register_forward_hook(keep(path)).remove)
            self._clean = self.score(self.subject.model)
        self.spent += 1.0
        # A block that runs twice in one call, or out of turn, reads what a later block gave: nothing of it is a prefix.
        in_turn = order == [*self.stack, ""] * (len(order) // (len(self.stack) + 1))
        fits = held <= self._limit
        if not (fits and in_turn):
            self._outputs.clear()
        return fits and in_turn


@final
class StackEnd(Exception):
    """A call of the model came to the end of its last block.

    Attributes:
        output: What that block gave.
    """

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


def _replay(outputs: list[Any], copies: int) -> Callable[..., Any]:
    """A forward that gives the recorded outputs in turn, pass after pass."""
    calls = 0

    def forward(*_: Any, **__: Any) -> Any:
        nonlocal calls
        calls += 1
        recorded = outputs[(calls - 1) % len(outputs)]
        return recorded if copies == 1 else repeated_rows(recorded, copies)

    return forward


def _bytes(output: Any) -> float:
    """Size of what a block gave; a container of anything but tensors counts as too large to keep."""
    if isinstance(output, Tensor):
        return output.numel() * output.element_size()
    if isinstance(output, tuple):
        return sum(_bytes(part) for part in output)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return math.inf


def _stack(subject: Subject) -> tuple[str, ...]:
    """The model's main stack: its blocks that are modules of one list, in order; none overridden or run twice."""
    # Parameters of a list have numbers too, and are no modules.
    known = {path for path, _ in named_modules(subject.model)}
    paths = [path for path in subject.record.blocks if path.rpartition(".")[2].isdecimal() and path in known]
    parents = {path.rpartition(".")[0] for path in paths}
    if len(parents) != 1:
        return ()
    if not isinstance(subject.model.get_submodule(parents.pop()), nn.ModuleList):
        return ()
    modules = [subject.model.get_submodule(path) for path in paths]
    own = all("forward" not in vars(module) for module in modules)
    return tuple(sorted(paths, key=lambda path: int(path.rpartition(".")[2]))) if own else ()


_WORTH = 0.5
"""Share of the places, at most, that must be needed for narrowing to pay."""


@final
@dataclass
class _BlockPart:
    """A module with what it was given and gave in each call of the task."""

    module: nn.Module
    given: list[Tensor] = field(default_factory=list[Tensor])
    gave: list[Tensor] = field(default_factory=list[Tensor])

    def hook(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        whole = len(args) == 1 and isinstance(args[0], Tensor) and isinstance(output, Tensor)
        if whole and args[0].ndim == 3 and output.ndim == 3 and output.requires_grad:
            self.given.append(args[0])
            self.gave.append(output)

    @torch.no_grad()
    def placewise(self, places: Sequence[Tensor]) -> bool:
        """Whether the part gives at these places, by call, what it gives on them alone."""
        for given, gave, some in zip(self.given, self.gave, places, strict=True):
            alone, whole = self.module(given[:, some].detach()), gave[:, some]
            if not torch.allclose(alone, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max())):
                return False
        return True


Narrowed = list[tuple[nn.Module, list[Tensor]]]
"""Modules that need not run at every place, with the places of each call where they must."""


def narrowed(subject: Subject, calls: Calls, cache: PrefixCache, *, inner: Sequence[str] = ()) -> Narrowed:
    """The parts of a subject's last block that need not run at every place.

    Args:
        subject: Undisturbed.
        calls: Of the task.
        cache: Of the same subject and task.
        inner: Module paths to try besides the last block's own children.
    """
    if not cache.exact:
        return []
    block = subject.model.get_submodule(cache.stack[-1])
    parts = [_BlockPart(module) for module in (*block.children(), *map(subject.model.get_submodule, inner))]
    found: list[list[Tensor]] = [[] for _ in parts]  # places with a gradient, by call

    def anchored(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].detach().clone().requires_grad_(), *args[1:])  # a graph starts at the block's input

    with ExitStack() as undo:
        undo.enter_context(preserved_state(subject))
        undo.enter_context(torch.inference_mode(False))
        undo.enter_context(torch.enable_grad())
        subject.model.requires_grad_(False)
        undo.callback(block.register_forward_pre_hook(anchored).remove)
        for part in parts:
            undo.callback(part.module.register_forward_hook(part.hook).remove)
        undo.enter_context(cache.starting_at(cache.stack[-1]))
        for at, call in enumerate(calls.calls):
            scores = as_scores(subject.model(*call.args, **call.kwargs))
            there = [part for part in parts if len(part.gave) == at + 1]
            weights = torch.linspace(0.5, 1.5, scores.numel(), device=scores.device).reshape(scores.shape)
            outputs = [part.gave[at] for part in there]
            slopes = torch.autograd.grad(scores, outputs, weights, allow_unused=True, materialize_grads=True)
            for part, slope in zip(there, slopes, strict=True):
                found[parts.index(part)].append(slope.abs().amax((0, 2)).nonzero()[:, 0])
    return [
        (part.module, places)
        for part, places in zip(parts, found, strict=True)
        if len(places) == len(part.gave) == len(calls.calls)
        and all(0 < len(some) <= _WORTH * gave.shape[1] for some, gave in zip(places, part.gave, strict=True))
        and part.placewise(places)
    ]


@contextmanager
def narrowing(parts: Narrowed) -> Generator[None]:
    """While the block runs, those parts give zeros at places that nothing reads."""
    with ExitStack() as undo:
        for module, places in parts:
            undo.enter_context(computing(module, _narrow(module.forward, places)))
        yield


def _narrow(forward: Callable[..., Tensor], places: Sequence[Tensor]) -> Callable[..., Tensor]:
    """The forward at the places of one call after another, pass after pass; zeros elsewhere."""
    calls = 0

    def narrow(given: Tensor) -> Tensor:
        nonlocal calls
        at, calls = calls % len(places), calls + 1
        some = forward(given[:, places[at]])
        return some.new_zeros(*given.shape[:2], some.shape[2]).index_copy_(1, places[at], some)

    return narrow
