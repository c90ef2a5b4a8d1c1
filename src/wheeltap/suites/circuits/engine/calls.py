"""Calls of a model's modules: all of them in one pass, and tensors that are changed on their way in or out."""

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from wheeltap.core.inputs import as_scores
from wheeltap.core.typed import named_modules

Change = Callable[[Tensor], Tensor]
"""What becomes of the first tensor that a module is given, or returns."""


@final
@dataclass(frozen=True, eq=False)
class ModuleCall:
    """A call of a module: the tensors themselves, and what was in them (some are added to in place afterward)."""

    path: str
    given: Tensor
    gave: Tensor
    took: Tensor
    returned: Tensor


@torch.no_grad()
def watched(model: nn.Module, tokens: Tensor) -> tuple[list[ModuleCall], Counter[str], Tensor]:
    """Every call of a module from a tensor to a tensor, in order of return; how often each is called; the scores."""
    calls: list[ModuleCall] = []
    took: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()

    def before(path: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        counts[path] += 1
        taken = _given(args, kwargs)
        if taken is not None:
            took[path] = taken.clone()

    def after(path: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        taken, returned = _given(args, kwargs), _gave(output)
        if taken is not None and returned is not None:
            calls.append(ModuleCall(path, taken, returned, took[path], returned.clone()))

    with ExitStack() as undo:
        for path, module in named_modules(model):
            hook = module.register_forward_pre_hook(partial(before, path), with_kwargs=True)
            undo.callback(hook.remove)
            undo.callback(module.register_forward_hook(partial(after, path), with_kwargs=True).remove)
        return calls, counts, as_scores(model(tokens))


@contextmanager
def hooked(
    model: nn.Module, before: Mapping[str, Change] | None = None, after: Mapping[str, Change] | None = None
) -> Generator[None]:
    """While the block runs, tensors are changed on their way into modules, or out of them, by module path."""
    with ExitStack() as undo:
        for path, change in (before or {}).items():
            hook = model.get_submodule(path).register_forward_pre_hook(partial(_before, change), with_kwargs=True)
            undo.callback(hook.remove)
        for path, change in (after or {}).items():
            undo.callback(model.get_submodule(path).register_forward_hook(partial(_after, change)).remove)
        yield


def _before(change: Change, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    taken = _given(args, kwargs)
    assert taken is not None, "found as a module that is given a tensor"
    place = next((at for at, value in enumerate(args) if isinstance(value, Tensor)), None)
    if place is not None:
        return (*args[:place], change(taken), *args[place + 1 :]), kwargs
    return args, {**kwargs, next(key for key, value in kwargs.items() if value is taken): change(taken)}


def _after(change: Change, _: nn.Module, __: Any, output: Any) -> Any:
    first = _gave(output)
    assert first is not None, "found as a module that returns a tensor"
    changed = change(first)
    return changed if isinstance(output, Tensor) else (changed, *output[1:])


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def _gave(output: Any) -> Tensor | None:
    several = cast("Sequence[Any]", output) if isinstance(output, tuple | list) else (output,)
    first = several[0] if several else None
    return first if isinstance(first, Tensor) else None
