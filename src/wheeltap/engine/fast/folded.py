"""Several variants of one subject in one call of its model: inputs repeated, answers taken apart again.

Each variant has rows of its own in the batch, copy after copy, and every weight is read once for all of them. Holds
for models whose rows do not see each other; whoever folds proves that on the subject at hand (see ``require_same``).
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple, cast, final

import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, as_scores
from wheeltap.core.typed import first_of

CACHE_BYTES = 2**29
"""Memory that what is recorded of a clean pass may take where no other bound is given."""

ROUNDING = 512
"""Machine epsilons, as a share of the largest score, by which two orders of the same sums may differ."""


TOKENS = 512
"""Rows times places that copies may fill together: more would not stay in the processor's cache (GPT-2 on a Xeon: .95
of single passes at 400 tokens, 1.1 at 1,500)."""


class Call(NamedTuple):
    """One call of a model: what it was given, and the scores ``[row, ...]`` that it gave."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    scores: Tensor

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return len(self.scores)


@final
class Calls:
    """The calls that a task makes of one subject in a pass.

    Args:
        subject: Undisturbed.
        task: The examples. It must ask the same of any model, whatever that answers.

    Attributes:
        clean: The undisturbed scores ``[example, option]``.
        bytes: What the answers to all calls take.

    Raises:
        ModelError: If the task calls only parts of the model, or the answers take more memory than they may.
    """

    def __init__(self, subject: Subject, task: BaseTask) -> None:
        self.subject, self.task = subject, task
        self.calls: list[Call] = []
        self.bytes = 0

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            scores = as_scores(output).detach()
            self.bytes += scores.nbytes
            if self.bytes <= CACHE_BYTES:
                self.calls.append(Call(args, kwargs, scores))

        hook = subject.model.register_forward_hook(keep, with_kwargs=True)
        try:
            self.clean = task.scores(subject.model)
        finally:
            hook.remove()
        if not self.bytes:
            raise ModelError(
                "The task never calls the model itself.",
                where=f"{subject.name} on {task.name}",
                expected="calls of model(...)",
                do="Take the plain path: one disturbed pass after another.",
            )
        if self.bytes > CACHE_BYTES:
            raise ModelError(
                "What the model answers takes more memory than may be used.",
                where=f"{subject.name} on {task.name}",
                expected=f"{CACHE_BYTES / 2**20:.0f} MB or less in one pass over the task",
                got=f"{self.bytes / 2**20:.0f} MB",
                do="Use fewer examples, or a model that gives the scores of the last place alone.",
            )
        self._replayed = False

    def scores(self, answers: Sequence[Tensor]) -> Tensor:
        """What the task makes of these answers to its calls, ``[example, option]``.

        Raises:
            ModelError: If the task asks for something else than it did before.
        """
        at = iter(zip(self.calls, answers, strict=True))

        @wraps(self.subject.model.forward)
        def answer(*args: Any, **kwargs: Any) -> Tensor:
            call, given = next(at)
            if not (_same(call.args, args) and _same(call.kwargs, kwargs)):
                raise ModelError(
                    "The task's calls depend on what the model answers.",
                    where=f"{self.subject.name} on {self.task.name}",
                    expected="the same calls in every pass",
                    do="Take the plain path: one disturbed pass after another.",
                )
            return given

        with computing(self.subject.model, answer):
            return self.task.scores(self.subject.model)

    @torch.no_grad()
    def folded(self, copies: int) -> Tensor:
        """One pass that holds ``copies`` variants: scores ``[copy, example, option]``.

        What makes the copies differ is the caller's to put in place.

        Raises:
            ModelError: If the model does not give the scores of every row of every copy, or the task reads more of
                its output than its scores.
        """
        if not self._replayed:
            self._replayed = True
            if not torch.equal(self.scores([call.scores for call in self.calls]), self.clean):
                raise ModelError(
                    "The task reads more of this model than the scores of its calls.",
                    where=f"{self.subject.name} on {self.task.name}",
                    expected="a task whose scores follow from what model(...) returns",
                    do="Take the plain path: one disturbed pass after another.",
                )
        answers: list[Tensor] = []
        for call in self.calls:
            args, kwargs = repeated_rows((call.args, call.kwargs), copies, rows=call.rows)
            scores = as_scores(self.subject.model(*args, **kwargs))
            wanted = (copies * call.rows, *call.scores.shape[1:])
            if scores.shape != wanted:
                raise ModelError(
                    "The model does not take its batch row by row.",
                    where=self.subject.name,
                    expected=f"scores {list(wanted)} for a batch repeated {copies} times",
                    got=str(list(scores.shape)),
                    do="Take the plain path: one disturbed pass after another.",
                )
            answers.append(scores.reshape(copies, call.rows, *scores.shape[1:]))
        return torch.stack([self.scores([answer[copy] for answer in answers]) for copy in range(copies)])


@contextmanager
def computing(module: nn.Module, forward: Callable[..., Any]) -> Generator[None]:
    """While the block runs, ``module`` computes ``forward`` instead of its own."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.forward = before


def require_same(fast: Tensor, slow: Tensor, *, path: str, where: str) -> None:
    """Raises ``ModelError`` if a fast path's scores differ by more than rounding from those of the plain path."""
    scale = max(float(slow.abs().max()), torch.finfo(slow.dtype).tiny)
    gap = float((fast - slow).abs().max())
    if not gap <= ROUNDING * torch.finfo(torch.float32).eps * scale:
        raise ModelError(
            f"The path {path!r} does not give this model's scores.",
            where=where,
            expected="the scores of the plain path, but for rounding",
            got=f"scores that differ by {gap / scale:.2g} of the largest",
            do="Take the plain path: one disturbed pass after another.",
        )


def require_single_precision(subject: Subject, *, path: str) -> None:
    """Raises ``ModelError`` for 16-bit weights: rounding would hide whether a fast path is right."""
    dtype = first_of(subject.model).dtype
    if dtype.itemsize < 4:
        raise ModelError(
            f"The path {path!r} cannot be proven on this model.",
            where=subject.name,
            expected="weights of 32 bits or more",
            got=str(dtype).removeprefix("torch."),
            do="Convert the model with .float(), or take the plain path.",
        )


def repeated_rows(value: Any, copies: int, *, rows: int | None = None) -> Any:
    """Every tensor in a (nested) container with its rows repeated, copy after copy; of ``rows`` alone, where given."""
    if isinstance(value, Tensor):
        whole = rows is None or (value.ndim and len(value) == rows)
        return value.expand(copies, *value.shape).reshape(-1, *value.shape[1:]) if whole else value
    if isinstance(value, dict):
        held = cast("dict[Any, Any]", value)
        return {key: repeated_rows(part, copies, rows=rows) for key, part in held.items()}
    if isinstance(value, tuple | list):
        parts = [repeated_rows(part, copies, rows=rows) for part in cast("list[Any]", value)]
        return parts if isinstance(value, list) else tuple(parts)
    return value


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(two, Tensor):
        return isinstance(one, Tensor) and isinstance(two, Tensor) and torch.equal(one, two)
    if isinstance(one, dict) and isinstance(two, dict):
        here, there = cast("dict[Any, Any]", one), cast("dict[Any, Any]", two)
        return here.keys() == there.keys() and all(_same(here[key], there[key]) for key in here)
    if isinstance(one, tuple | list) and isinstance(two, tuple | list):
        left, right = cast("list[Any]", one), cast("list[Any]", two)
        return len(left) == len(right) and all(_same(a, b) for a, b in zip(left, right, strict=True))
    return bool(one == two)
