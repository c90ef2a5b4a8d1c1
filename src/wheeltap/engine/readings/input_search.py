"""What moving the inputs gains: the search that costs no access to the weights."""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.errors import DataError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import named_modules, to_array
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.plans.readings.input_search import ENTRANCES, INPUT_SEARCH, KINDS, InputSearchSettings


@dataclass
class _Entrance:
    """Where continuous numbers enter: the module, and on which side of it.

    Attributes:
        name: One of ``ENTRANCES``.
        module: The model itself (its first floating-point argument), or its token embedding (its output).
        total: Sum of the numbers, their squares, and how many there were.
    """

    name: str
    module: nn.Module
    total: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    shape: tuple[int, ...] = ()

    @property
    def spread(self) -> float:
        """Standard deviation of everything that enters, in its own unit."""
        plain, squares, count = (float(number) for number in self.total)
        return math.sqrt(max(squares / count - (plain / count) ** 2, 0.0))

    @contextmanager
    def change(self, edit: Callable[[Tensor], Tensor]) -> Generator[None]:
        """Passes on what ``edit`` makes of the numbers while the block runs."""
        if self.name == "embedding":

            def after(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
                return edit(output)

            handle = self.module.register_forward_hook(after)
        else:

            def before(
                module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
            ) -> tuple[tuple[Any, ...], dict[str, Any]]:
                # The first floating-point tensor is edited; all is as it is where there is none.
                for at, value in enumerate(args):
                    if isinstance(value, Tensor) and value.is_floating_point():
                        return (*args[:at], edit(value), *args[at + 1 :]), kwargs
                for name, value in kwargs.items():
                    if isinstance(value, Tensor) and value.is_floating_point():
                        return args, {**kwargs, name: edit(value)}
                return args, kwargs

            handle = self.module.register_forward_pre_hook(before, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def read(self, value: Tensor) -> Tensor:
        """Adds to ``total``; the shape is that of one example's numbers."""
        wide = value.detach().to(device="cpu", dtype=torch.float64)  # once, and not every device has doubles
        self.total += torch.stack([wide.sum(), wide.square().sum(), torch.tensor(float(wide.numel())).double()])
        # Sequences differ in length: an embedding's offset is the same at every position.
        self.shape = tuple(value.shape[-1:] if self.name == "embedding" else value.shape[1:])
        return value


@final
class InputSearch(Reading):
    """Tries random constant offsets of the inputs, and noise of its own for each example, at a ladder of doses.

    Of a model of tokens the output of its embedding is moved, by offsets alone: a stand-in, for no user can send such
    inputs.
    """

    spec = INPUT_SEARCH

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``."""
        if task.targets.is_floating_point():
            raise DataError(
                "An input search counts right answers.",
                where=task.name,
                expected="a task with options",
                got="wanted outputs",
            )
        values: dict[str, NDArray[Any]] = {"targets": to_array(task.targets)}
        entrance, clean = _entrance(subject, task)
        values["entrance"] = np.array(float(ENTRANCES.index("none" if entrance is None else entrance.name)))
        if entrance is None:
            return Readings(values, forwards=1.0)
        settings: InputSearchSettings = self.settings
        kinds = KINDS if entrance.name == "input" else KINDS[:1]
        draws = math.ceil(settings.passes / (len(kinds) * settings.doses))
        rows: list[Tensor] = []
        tried: list[tuple[float, float]] = []
        for number, kind in enumerate(kinds):
            for draw in range(draws):
                stream = torch.Generator().manual_seed(seeds.derive(root, self.name, kind, seed, draw))
                shape = entrance.shape if kind == "offset" else (len(task.targets), *entrance.shape)
                along = torch.randn(shape, generator=stream, dtype=torch.float32, device="cpu")
                for dose in settings.ladder():
                    with entrance.change(_added(along * (dose * entrance.spread), constant=kind == "offset")):
                        scores = task.scores(subject.model)
                    rows.append(task.measure(scores, task.targets.cpu(), clean))
                    tried.append((float(number), dose))
        values["right"] = to_array(torch.stack(rows))
        values["kind"], values["dose"] = np.array(tried).T
        values["spread"] = np.array(entrance.spread)
        return Readings(values, forwards=1.0 + len(rows))


def _added(along: Tensor, *, constant: bool) -> Callable[[Tensor], Tensor]:
    """Adds what was drawn to one batch after the other: the same to every example, or to each its own."""
    done = 0

    def edit(value: Tensor) -> Tensor:
        nonlocal done
        own = along if constant else along[done : done + len(value)]
        done += len(value)
        return value + own.to(device=value.device, dtype=value.dtype)

    return edit


def _entrance(subject: Subject, task: BaseTask) -> tuple[_Entrance | None, Tensor]:
    """Where numbers enter the model, if they do, and the scores of the clean pass that shows it."""
    embeddings = [module for _, module in named_modules(subject.model) if isinstance(module, nn.Embedding)]
    outer = _Entrance("input", subject.model)
    inner = _Entrance("embedding", embeddings[0]) if embeddings else None
    with outer.change(outer.read), nullcontext() if inner is None else inner.change(inner.read):
        clean = task.scores(subject.model)
    for entrance in (outer, inner):
        if entrance is not None and float(entrance.total[2]) and entrance.spread:
            return entrance, clean
    return None, clean
