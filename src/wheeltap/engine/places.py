"""What a layer holds of each example, and how to put something else in its place.

Of an ordinary model a layer holds one vector per example: what it gives out, flattened. Of a language model it holds
one at every position; meant here is the last one of an item's context, from which its options are scored.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast, final

import torch
from torch import Tensor, nn

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import ModelError, UnknownName
from wheeltap.core.settings import comma_separated
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import named_modules
from wheeltap.engine.apply import differentiable
from wheeltap.engine.units import hidden_units

Change = Callable[[Tensor, Tensor], Tensor]
"""From the vectors ``[row, feature]`` of a layer and the example ``[row]`` that each is of, to what is put there."""

WIDEST: Final = 32_768
"""Features of a layer, at most: a wider one's geometry would take gigabytes."""


@final
@dataclass(frozen=True)
class Place:
    """A layer whose vectors are looked at.

    Attributes:
        name: Module path that reports call it by.
        module: Module path of the module that is hooked.
        incoming: Whether its input is meant instead of its output.
    """

    name: str
    module: str
    incoming: bool = False


@final
@dataclass(frozen=True)
class Places:
    """The places of a model that are looked at.

    Attributes:
        kind: ``layers``, ``blocks`` or ``named``.
        all: In order of computation.
        index: Of each, its number among the subject's layers, its blocks, or the names given.
    """

    kind: str
    all: tuple[Place, ...]
    index: tuple[int, ...]

    def some(self, most: int) -> "Places":
        """At most so many of them, evenly spaced; the last one is among them where all are."""
        count = len(self.all)
        spaced = [round((at + 1) * count / (most + 1)) - 1 for at in range(most)]
        return self if count <= most else self._kept(spaced)

    def without(self, missing: Sequence[Place]) -> "Places":
        """Those that are not ``missing``."""
        return self._kept([at for at, place in enumerate(self.all) if place not in missing])

    def _kept(self, kept: Sequence[int]) -> "Places":
        return Places(self.kind, tuple(self.all[at] for at in kept), tuple(self.index[at] for at in kept))


def named(subject: Subject, text: str) -> Places:
    """The outputs of the modules that a user named, separated by commas.

    Raises:
        UnknownName: If there is no module of such a name.
    """
    known = {path for path, _ in named_modules(subject.model) if path}
    names = comma_separated(text)
    for name in names:
        if name not in known:
            raise UnknownName("module", name, known)
    return Places("named", tuple(Place(name, name) for name in names), tuple(range(len(names))))


def places(subject: Subject, task: BaseTask, text: str = "") -> Places:
    """Where to look in a model.

    The modules named in ``text``; else the outputs of the blocks of a language model; else what each hidden layer
    hands to its reader; else, where that is not known, the outputs of all layers but the last.

    Raises:
        UnknownName: If a module that is named does not exist.
    """
    if text.strip():
        return named(subject, text)
    blocks, layers = subject.record.blocks, subject.record.layers
    if isinstance(task, ChoiceTask):
        known = {path for path, _ in named_modules(subject.model)}
        stack = [name for name in blocks if name.rpartition(".")[2].isdecimal() and name in known]
        if len(stack) > 1:
            return Places("blocks", tuple(Place(name, name) for name in stack), tuple(map(blocks.index, stack)))
        return _layers(subject)
    try:
        hiddens = hidden_units(subject, task)
    except ModelError:
        return _layers(subject)
    found = tuple(Place(hidden.layer, hidden.reader, incoming=True) for hidden in hiddens)
    return Places("layers", found, tuple(layers.index(hidden.layer) for hidden in hiddens))


def _layers(subject: Subject) -> Places:
    """The outputs of all modules with layers but the last, each under the name of its first layer.

    Not those of the model itself, where parameters of its own are layers: they are its answers.
    """
    first: dict[str, str] = {}
    for layer in subject.layers:
        first.setdefault(layer.module, layer.name)
    inner = list(first.items())[:-1]
    found = tuple(Place(name, module) for module, name in inner if module)
    return Places("layers", found, tuple(subject.record.layers.index(place.name) for place in found))


def apart(task: BaseTask) -> Tensor:
    """Examples ``[example]`` whose vectors are theirs alone: all, but for contexts that other contexts begin with.

    Such a context is scored inside the longer one, so that to change the one would change the other.
    """
    if not isinstance(task, ChoiceTask):
        return torch.arange(len(task.targets))
    begun = {context[:end] for context in task.contexts for end in range(1, len(context))}
    return torch.tensor([at for at, context in enumerate(task.contexts) if context not in begun], dtype=torch.long)


def distinct(task: BaseTask) -> Tensor:
    """Number ``[example]`` of each example's input among the distinct ones; each its own where that is not known."""
    if isinstance(task, ChoiceTask):
        known = {context: at for at, context in enumerate(dict.fromkeys(task.contexts))}
        return torch.tensor([known[context] for context in task.contexts])
    inputs: Any = getattr(task, "inputs", None)
    if not isinstance(inputs, Tensor):
        return torch.arange(len(task.targets))
    rows = inputs.detach().cpu().reshape(len(inputs), -1)
    return torch.unique(rows, dim=0, return_inverse=True)[1]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


@dataclass
class _Rows:
    """Which rows of a tensor belong to which examples, in the call of the model that is under way.

    Attributes:
        contexts: Of a language model: the examples of each context.
        ids: Of a language model: the tokens of this call.
        done: Else: examples that went by in this pass, of each hooked module.
    """

    examples: int
    contexts: dict[tuple[int, ...], int]
    ids: list[list[int]] = field(default_factory=list[list[int]])
    done: dict[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def of(cls, task: BaseTask) -> "_Rows":
        """The rows of one task."""
        contexts = task.contexts if isinstance(task, ChoiceTask) else ()
        return cls(len(task.targets), {context: at for at, context in reversed(list(enumerate(contexts)))})

    def listen(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keeps the tokens of a call of the model."""
        ids: Any = args[0] if args else kwargs.get("input_ids")
        self.ids = cast("list[list[int]]", ids.tolist()) if isinstance(ids, Tensor) else []  # pyright: ignore[reportUnknownMemberType]

    def ends(self) -> tuple[list[int], list[int], list[int]]:
        """Row, position and example of every end of a context in this call."""
        found = [
            (row, end, self.contexts[tuple(ids[: end + 1])])
            for row, ids in enumerate(self.ids)
            for end in range(len(ids))
            if tuple(ids[: end + 1]) in self.contexts
        ]
        return tuple(list(part) for part in zip(*found, strict=True)) if found else ([], [], [])  # type: ignore[return-value]

    def edited(self, name: str, value: Tensor, change: Change) -> Tensor:
        """The tensor with each example's vector changed."""
        if self.contexts:
            rows, ends, examples = self.ends()
            if value.ndim != 3 or not rows or value.shape[:2] != (len(self.ids), len(self.ids[0])):
                return value
            at = torch.tensor([rows, ends], device=value.device)
            taken = value[at[0], at[1]]
            put = change(taken, torch.tensor(examples))
            return value if put is taken else value.index_put((at[0], at[1]), put)
        if not value.ndim:
            return value
        start = self.done.get(name, 0)
        self.done[name] = start + len(value)
        examples = (start + torch.arange(len(value))) % self.examples
        flat = value.reshape(len(value), -1)
        put = change(flat, examples)
        return value if put is flat else put.reshape(value.shape)


@contextmanager
def changed(subject: Subject, task: BaseTask, changes: Sequence[tuple[Place, Change]]) -> Generator[None]:
    """While the block runs, every pass of the model over the task holds changed vectors in these places.

    A change that gives back the very tensor it was given leaves the place as it is.
    """
    rows = _Rows.of(task)
    undo: list[Any] = [subject.model.register_forward_pre_hook(rows.listen, with_kwargs=True)] if rows.contexts else []
    try:
        undo.extend(_hooked(subject, place, rows, change) for place, change in changes)
        yield
    finally:
        for handle in undo:
            handle.remove()


def _hooked(subject: Subject, place: Place, rows: _Rows, change: Change) -> Any:
    module = subject.model.get_submodule(place.module)

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (rows.edited(place.name, args[0], change), *args[1:])

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, Tensor):
            return rows.edited(place.name, output, change)
        whole = cast("tuple[Any, ...]", output) if isinstance(output, tuple) else ()
        # What else a module may give out (packed sequences, a dictionary) holds no vector for each example.
        if not whole or not isinstance(whole[0], Tensor):
            return cast("Any", output)
        return (rows.edited(place.name, whole[0], change), *whole[1:])

    return module.register_forward_pre_hook(before) if place.incoming else module.register_forward_hook(after)


def read(subject: Subject, task: BaseTask, where: Places) -> tuple[dict[Place, Tensor], Tensor]:
    """The vectors ``[example, feature]`` of each place, and the scores, in one pass.

    Places that do not hold exactly one finite vector per example (a module that is never called, or one whose first
    axis is not the examples) are left out.
    """
    kept, seen = dict[Place, Tensor](), dict.fromkeys(where.all, 0)

    def keep(place: Place, values: Tensor, examples: Tensor) -> Tensor:
        seen[place] += len(values)
        sound = values.is_floating_point() and values.shape[1] <= WIDEST
        if sound and (place not in kept or kept[place].shape[1] == values.shape[1]):
            if place not in kept:
                kept[place] = torch.full((len(task.targets), values.shape[1]), torch.nan, dtype=torch.float64)
            kept[place][examples] = values.detach().cpu().double()
        return values

    with changed(subject, task, [(place, partial(keep, place)) for place in where.all]):
        scores = task.scores(subject.model)
    first = torch.arange(len(task.targets))
    if isinstance(task, ChoiceTask):  # items of one context hold the same vectors: they were kept for the first of them
        inputs = distinct(task)
        first = torch.tensor([int((inputs == one).nonzero()[0]) for one in inputs])
    else:
        kept = {place: vectors for place, vectors in kept.items() if seen[place] == len(task.targets)}
    held = {place: kept[place][first] for place in where.all if place in kept}
    return {place: vectors for place, vectors in held.items() if bool(torch.isfinite(vectors).all())}, scores


def slopes(subject: Subject, task: BaseTask, where: Sequence[Place], targets: Tensor) -> dict[Place, Tensor]:
    """Gradient ``[example, feature]`` of each example's own loss towards ``targets`` in its vector, for each place.

    Places that the loss does not follow from with gradients are left out.

    Args:
        subject: The model.
        task: The examples.
        where: Which places.
        targets: Right options, or wanted outputs, in place of the task's own.
    """
    taken: list[tuple[Place, Tensor, Tensor]] = []

    def listen(place: Place) -> Change:
        def change(values: Tensor, examples: Tensor) -> Tensor:
            held = values.clone() if values.requires_grad else values.detach().clone().requires_grad_()
            taken.append((place, held, examples))
            return held

        return change

    listening = changed(subject, task, [(place, listen(place)) for place in where])
    with torch.enable_grad(), differentiable(subject.model), listening:
        loss = task.loss(subject.model, targets=targets)
        if not taken or not loss.requires_grad:
            return {}
        slopes_found = torch.autograd.grad(loss, [held for _, held, _ in taken], allow_unused=True)
        found = cast("tuple[Tensor | None, ...]", slopes_found)
    total: dict[Place, Tensor] = {}
    for (place, held, examples), slope in zip(taken, found, strict=True):
        if slope is not None:
            start = torch.zeros((len(task.targets), held.shape[1]), dtype=torch.float64)
            # The loss is a mean over examples.
            total.setdefault(place, start).index_add_(0, examples, len(task.targets) * slope.detach().cpu().double())
    return total
