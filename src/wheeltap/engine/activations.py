"""Activations of a model replaced while it runs: what layers are given, or the keys and values that it caches."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self, cast, final

import torch
from torch import Tensor, nn

from wheeltap.core.errors import UsageError
from wheeltap.core.layer import Layer
from wheeltap.core.site import Site
from wheeltap.core.subject import Subject
from wheeltap.core.typed import named_modules
from wheeltap.perturb import Perturbation


class NoCache(UsageError):
    """A model that keeps nothing of earlier tokens which could be rounded."""


@final
class ActivationHooks:
    """What a perturbation makes of activations, put in their place while the block runs.

    The cache is the model's own: it is asked to use one, and whatever object it makes takes rounded keys and values.

    Args:
        subject: Whose activations.
        perturbation: Of the inputs of ``layers``, or of what the model caches.
        layers: That are disturbed.

    Attributes:
        dose: How much.
        reached: Names of the layers whose inputs were replaced since it was last emptied.
        cached: How often keys and values were put into a cache.
    """

    def __init__(self, subject: Subject, perturbation: Perturbation, layers: Sequence[Layer]) -> None:
        self.subject, self.perturbation, self.layers = subject, perturbation, layers
        self.dose, self.reached, self.cached = 0.0, set[str](), 0
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        model = self.subject.model
        with ExitStack() as undo:
            if self.perturbation.changes == "inputs":
                for layer in self.layers:
                    module = model.get_submodule(layer.module)
                    undo.callback(module.register_forward_pre_hook(partial(self._given, layer.name)).remove)
            else:
                modules = [one for one in named_modules(model) if not isinstance(one[1], torch.jit.ScriptModule)]
                for module in _asked(modules):
                    undo.callback(module.register_forward_pre_hook(_use_cache, with_kwargs=True).remove)
                for _, module in modules:
                    undo.callback(module.register_forward_pre_hook(self._passed, with_kwargs=True).remove)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def require_cached(self) -> None:
        """Raises ``NoCache`` if this is of a cache and a pass has put nothing into one."""
        if self.perturbation.changes == "cache" and not self.cached:
            raise NoCache(
                "The model keeps no keys and values of earlier tokens.",
                where=self.subject.name,
                expected="a model of transformers that attends to earlier tokens through a cache (use_cache)",
                got=type(self.subject.model).__name__,
                do="Leave this scheme out.",
            )

    def _given(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
            return None
        self.reached.add(name)
        return (self.perturbation.activation(args[0], self.dose), *args[1:])

    def _passed(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for value in (*args, *kwargs.values()):
            self._round(value)

    def _round(self, cache: Any) -> None:
        """Makes a cache, and those within it, take rounded keys and values; each once."""
        if not any(kind.__name__ == "Cache" and kind.__module__ == _CACHES for kind in type(cache).__mro__):
            return
        held = cast("dict[str, Any]", vars(cache))
        if "update" in held:
            return
        for inner in held.values():
            self._round(inner)
        update = cache.update

        def rounding(key_states: Tensor, value_states: Tensor, *args: Any, **named: Any) -> Any:
            self.cached += 1
            keys, values = (self.perturbation.activation(one, self.dose) for one in (key_states, value_states))
            return update(keys, values, *args, **named)

        cache.update = rounding


_CACHES = "transformers.cache_utils"


def _asked(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[nn.Module]:
    """The outermost modules, each before those within it, that can be asked to use a cache."""
    found: list[str] = []
    for path, module in modules:
        inside = any(not outer or path.startswith(f"{outer}.") for outer in found)
        if not inside and "use_cache" in inspect.signature(module.forward).parameters:
            found.append(path)
            yield module


def _use_cache(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {**kwargs, "use_cache": True}


def require_whole(perturbation: Perturbation, site: Site) -> None:
    """Raises ``UsageError`` if a part of a model is to be disturbed where only the whole cache can be."""
    if perturbation.changes == "cache" and not site.everywhere:
        raise UsageError(
            "The cache of a part of a model cannot be rounded.", where=str(site), expected="the whole model",
            do="Leave the site out.",
        )  # fmt: skip
