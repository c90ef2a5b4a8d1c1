"""Passes cut short: blocks before a disturbance are not run again.

For a disturbance inside one block, the outputs of the blocks before it are those of the clean model.
A clean pass records the output of every block of the model's main stack; while a block is disturbed, the blocks before
it are replaced by what was recorded. Exact, and proven so on the subject at hand before it is used: with nothing
disturbed, the shortened pass must give the clean scores to the bit. A model whose later parts read more of the prefix
than the last block's output (skip connections across blocks, state kept between calls) fails that proof and takes the
plain path.
"""

import math
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from wheeltap.core.subject import Subject
from wheeltap.core.typed import named_modules
from wheeltap.engine.fast.folded import CACHE_BYTES, computing, repeated_rows

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
