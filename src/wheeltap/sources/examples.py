"""Tasks made of tensors, arrays, a Dataset or a DataLoader, which is read once and in order."""

import copy
import itertools
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from wheeltap.core.errors import DataError, WheeltapError
from wheeltap.core.inputs import Inputs, as_inputs, as_tensor, by_name, count, tensors
from wheeltap.core.sets import JoinedTask
from wheeltap.core.task import BaseTask, Task

MOST_EXAMPLES = 100_000
MOST_BYTES = 4_000_000_000
"""Bounds on what is read: more is a mistake, or would fill the memory."""

TARGETS = ("labels", "label", "targets", "target")
"""What the targets are called in an example that is a mapping."""

_WHERE = "examples"
_BATCH = 64

Batch = tuple[Inputs, Tensor]

Examples = BaseTask | Sequence[Any] | Mapping[str, Any] | Dataset[Any] | DataLoader[Any]
"""A task, or what one is made of: see ``task_of``."""


def task_of(given: Any) -> BaseTask:
    """A task of what was given; a task stays the one that it is.

    Args:
        given: One of these.

            - A pair ``(inputs, targets)`` of tensors or arrays ``[example, ...]``; inputs may be a mapping of names to
              such, for a model that is called as ``model(**inputs)``.
            - A mapping of names to tensors, one of them called ``labels``, ``label``, ``targets`` or ``target``. If
              the only other one is called ``inputs``, the model is called with it, as with those of a pair.
            - A ``DataLoader``, ``Dataset`` or sequence of pairs ``(x, y)`` or of such mappings. It is read once, in
              order; see ``read``.
            - Several test sets: a list of tasks, or a mapping of names to any of the above; see ``JoinedTask``.

    Raises:
        DataError: If no task can be made of it.
    """
    if isinstance(given, BaseTask):
        return given
    named = by_name(given)
    kinds: tuple[type, ...] = (BaseTask, Dataset, DataLoader, Mapping)
    if named and all(isinstance(one, kinds) or _is_pair(one) for one in named.values()):
        return JoinedTask([_called(name, one) for name, one in named.items()])
    several = cast("Sequence[Any]", given) if type(given) in (list, tuple) else ()
    if several and all(isinstance(one, BaseTask) for one in several):
        return JoinedTask(several)
    if named is not None:
        return Task(*parted(named, where="examples"), name="examples")
    if _is_pair(given):
        return Task(given[0], given[1], name="examples")
    if isinstance(given, DataLoader | Dataset) or _is_sequence(given):
        inputs, targets = read(cast("Any", given))
        return Task(inputs, targets, name="examples")
    raise DataError(
        "These are no examples.",
        expected="a wt.Task, a pair (inputs, targets) of tensors or arrays, a Dataset or a DataLoader",
        got=type(given).__name__,
        do="Give the inputs and the targets: wt.audit(model, (inputs, targets)).",
    )


def _called(name: str, given: Any) -> BaseTask:
    try:
        task = copy.copy(task_of(given))
    except WheeltapError as error:
        raise error.at(name) from error
    task.name = name
    return task


def read(given: Any, *, most: int = MOST_BYTES) -> Batch:
    """Inputs and targets of every example.

    A ``DataLoader`` that shuffles a whole ``Dataset`` is read in the order of the ``Dataset``, for a task has a fixed
    order and the same examples; one whose sampler draws them, or draws others each time, is refused. ``drop_last`` is
    as it says. Random numbers of torch are put back as they were.

    Args:
        given: A ``DataLoader``, a ``Dataset`` or a sequence. An example is a pair ``(x, y)``, or a mapping with one of
            ``TARGETS``; ``x`` may be a mapping too: the model is then called by name.
        most: Bytes that examples may take.

    Raises:
        DataError: If there are none or too many, they change from one reading to the next, differ in shape, or are of
            another form.
    """
    length = _length(given)
    _require_few(length or 0, 0, most)
    try:
        with _same_random_numbers(given):
            loader = _in_order(given)
            _require_steady(loader)
            return _joined(loader, length, most)
    except WheeltapError:
        raise
    except Exception as error:
        raise DataError(
            "The data set fails while it is read.",
            where=_WHERE,
            expected=f"examples 0 to {length - 1}, one by one" if length else "one example after another",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            do="Read it yourself once: [dataset[i] for i in range(len(dataset))].",
        ) from error


@contextmanager
def _same_random_numbers(given: Any) -> Generator[None]:
    """A block after which torch draws what it would have drawn without it; so do a loader's own generators."""
    held = [getattr(given, name, None) for name in ("sampler", "batch_sampler")]
    generators = [getattr(one, "generator", None) for one in (given, *held, getattr(held[1], "sampler", None))]
    states = [(one, one.get_state()) for one in generators if isinstance(one, torch.Generator)]
    before = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(before)
        for one, state in states:
            one.set_state(state)


def _length(given: Any) -> int | None:
    """How many examples there are, where that is said."""
    held: Any = given
    if _is_loader(given):
        held = given.dataset if _batches_itself(given) or _streams(given) else given.sampler
    try:
        return len(held)
    except (TypeError, NotImplementedError):
        return None


def _is_loader(given: Any) -> bool:
    return isinstance(given, DataLoader)  # not in place: what it holds has no types


def _streams(loader: Any) -> bool:
    """Whether examples come in an order of the data set's own, and have no numbers."""
    return isinstance(loader.dataset, IterableDataset)


def _batches_itself(loader: Any) -> bool:
    """Whether a sampler of the user's own draws whole batches."""
    return loader.batch_size is None and loader.batch_sampler is not None


def _in_order(given: Any) -> Any:
    """What gives batches in the order of the data set."""
    if not _is_loader(given):
        return DataLoader(given, batch_size=_BATCH, collate_fn=_stacked)
    sampler, own = given.sampler, _batches_itself(given)
    if _streams(given) or (isinstance(sampler, SequentialSampler) and not own):
        return given
    whole = isinstance(sampler, RandomSampler) and not sampler.replacement and not own
    if whole and given.batch_size is not None and len(sampler) == len(given.dataset):
        # Read once, so in this process: starting others would cost more than it saves.
        return DataLoader(
            given.dataset, batch_size=given.batch_size, shuffle=False, collate_fn=given.collate_fn,
            drop_last=given.drop_last,
        )  # fmt: skip
    if _drawn(given) == _drawn(given):
        return given
    raise DataError(
        "The DataLoader draws other examples each time.",
        where=_WHERE,
        expected="the same examples in the same order",
        got=f"two drawings of its {type(given.batch_sampler if own else sampler).__name__} that differ",
        do="Give the examples you mean: torch.utils.data.Subset(dataset, indices).",
    )


def _drawn(loader: Any, most: int | None = None) -> list[Any]:
    """Numbers of examples (of each batch) as they are drawn."""
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    return list(itertools.islice(sampler, most))


def _require_steady(loader: Any) -> None:
    """Raises ``DataError`` if the first batch is another one when it is read again: random crops, say."""
    if _streams(loader):
        return  # it may be read only once
    first, dataset = _drawn(loader, 1), loader.dataset
    if not first:
        return
    numbers: Any = first[0]
    apart = loader.batch_sampler is None
    one, two = (
        _batch(loader.collate_fn(dataset[numbers] if apart else [dataset[number] for number in numbers]))
        for _ in range(2)
    )
    same = torch.equal(one[1], two[1]) and all(
        torch.equal(tensor, tensors(two[0])[name]) for name, tensor in tensors(one[0]).items()
    )
    if not same:
        raise DataError(
            "The examples differ from one reading to the next.",
            where=_WHERE,
            expected="the same inputs and targets whenever an example is read",
            got="a first batch that changed",
            do="Leave out random augmentation; use the transforms of the evaluation.",
        )


def _require_few(examples: int, size: int, most: int) -> None:
    """Raises ``DataError`` if so many examples, or so many bytes of them, are too many."""
    if examples <= MOST_EXAMPLES and size <= most:
        return
    count = examples > MOST_EXAMPLES
    raise DataError(
        "There are too many examples." if count else "The examples take too much memory.",
        where=_WHERE,
        expected=f"at most {MOST_EXAMPLES:,}" if count else f"at most {most / 1e9:.1f} GB",
        got=f"{examples:,}" if count else f"{size / 1e9:.1f} GB or more",
        do="A few thousand are enough for every audit: torch.utils.data.Subset(dataset, range(2000)).",
    )


def _joined(loader: Iterable[Any], length: int | None, most: int) -> Batch:
    """All batches as one; ``length`` is how many examples there will be, where that is known."""
    batches: list[Batch] = []
    examples = size = 0
    for given in loader:
        batch = _batch(given)
        _require_alike(batch, batches[0] if batches else batch, examples)
        batches.append(batch)
        examples += count(batch[0])
        size += sum(tensor.nbytes for tensor in (*tensors(batch[0]).values(), batch[1]))
        whole = size if length is None else size * max(length, examples) // examples
        _require_few(examples, whole, most)
    if not examples:
        raise DataError("The task is empty.", where=_WHERE, expected="at least one example", got="none",
                        do="Check what makes the examples: all of them may have been filtered out.")  # fmt: skip
    inputs = {name: torch.cat([tensors(batch[0])[name] for batch in batches]) for name in tensors(batches[0][0])}
    return inputs.get("", inputs), torch.cat([batch[1] for batch in batches])


def _require_alike(batch: Batch, first: Batch, at: int) -> None:
    here, there = _shapes(batch), _shapes(first)
    if here != there:
        raise _uneven(f"from example {at} on", there, here)


def _shapes(batch: Batch) -> str:
    rows = {**tensors(batch[0]), "targets": batch[1]}
    return ", ".join(f"{name or 'inputs'} {list(tensor.shape[1:])}" for name, tensor in rows.items())


def _uneven(where: str, expected: str, got: str) -> DataError:
    return DataError(
        "The examples differ in shape.",
        where=f"{_WHERE}: {where}",
        expected=f"{expected}, as in the first one",
        got=got,
        do="Pad or crop them to one shape; pad texts with tokenizer(texts, padding='max_length', truncation=True).",
    )


def _batch(given: Any) -> Batch:
    """Inputs and targets of a batch, on the CPU."""
    inputs, targets = parted(given, where=_WHERE)
    held, wanted = as_inputs(inputs, where=_WHERE), as_tensor(targets, what="targets", where=_WHERE)
    if count(held) != (len(wanted) if wanted.ndim else 0):
        raise DataError(
            "The task's inputs and targets differ in number.",
            where=f"{_WHERE}: a batch",
            expected=f"{count(held)} targets, one per input",
            got=f"{len(wanted) if wanted.ndim else 'a single number'}",
            do="Give batches of several examples: DataLoader(dataset, batch_size=64).",
        )
    moved = held.cpu() if isinstance(held, Tensor) else {name: tensor.cpu() for name, tensor in held.items()}
    return moved, wanted.cpu()


def parted(given: Any, *, where: str) -> tuple[Any, Any]:
    """Inputs and targets of an example or a batch.

    Raises:
        DataError: If it is no pair, and no mapping with targets.
    """
    named = by_name(given)
    if named is not None:
        known = [name for name in TARGETS if name in named]
        if len(known) == 1 and len(named) > 1:
            rest = {name: value for name, value in named.items() if name not in known}
            return rest["inputs"] if list(rest) == ["inputs"] else rest, named[known[0]]
        got = f"a mapping with {', '.join(named) or 'nothing'}"
    elif isinstance(given, tuple | list):
        parts = cast("Sequence[Any]", given)
        if len(parts) == 2 and not isinstance(parts[0], tuple | list):
            return parts[0], parts[1]
        got = f"{len(parts)} parts: {', '.join(type(part).__name__ for part in parts[:8])}"
    else:
        got = type(given).__name__
    raise DataError(
        "An example has no inputs and targets that can be distinguished.",
        where=where,
        expected=f"a pair (x, y), or a mapping with one of {', '.join(TARGETS)}",
        got=got,
        do="Give a Dataset of pairs (x, y); for several inputs make x a dict of the model's argument names.",
    )


def _stacked(items: list[Any]) -> Batch:
    """A batch of single examples."""
    pairs = [parted(item, where=_WHERE) for item in items]
    first = by_name(pairs[0][0])
    if first is None:
        return _stack([x for x, _ in pairs], "inputs"), _stack([y for _, y in pairs], "targets")
    rows: list[dict[str, Any]] = [by_name(x) or {} for x, _ in pairs]
    if any(row.keys() != first.keys() for row in rows):
        other = next(row for row in rows if row.keys() != first.keys())
        raise _uneven("names of inputs", ", ".join(first), ", ".join(other))
    inputs: Inputs = {name: _stack([row[name] for row in rows], f"inputs {name!r}") for name in first}
    return inputs, _stack([y for _, y in pairs], "targets")


def _stack(parts: list[Any], what: str) -> Tensor:
    made = [as_tensor(part, what=what, where=_WHERE) for part in parts]
    odd = next((tensor for tensor in made if tensor.shape != made[0].shape), None)
    if odd is not None:
        raise _uneven(what, str(list(made[0].shape)), str(list(odd.shape)))
    return torch.stack(made)


def _is_pair(given: Any) -> bool:
    """Whether these are inputs and targets of many examples, and not two examples."""
    parts = cast("Sequence[Any]", given) if isinstance(given, tuple | list) else ()
    if len(parts) != 2:
        return False
    inputs = by_name(parts[0])
    many = isinstance(parts[0], Tensor | np.ndarray) or (
        inputs is not None and any(isinstance(one, Tensor | np.ndarray) for one in inputs.values())
    )
    nested = isinstance(given, tuple) and isinstance(parts[0], list)
    return (many or nested) and isinstance(parts[1], Tensor | np.ndarray | list)


def _is_sequence(given: Any) -> bool:
    if isinstance(given, str | bytes | nn.Module):
        return False
    kind = cast("type[Any]", type(given))
    return callable(getattr(kind, "__getitem__", None)) and callable(getattr(kind, "__len__", None))
