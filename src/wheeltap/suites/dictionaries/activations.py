"""Vectors that a site of a model holds, streamed to a memory map: what dictionaries are trained on.

The file has no name: its space is free again when the process ends, however it ends. Random rows are read from it, so
that nothing is shuffled on disk and memory stays bounded.
"""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core.bounded import Npz, parsing, size_of
from wheeltap.core.choices import ChoiceTask, batches, last_logits
from wheeltap.core.errors import DataError, ModelError, UnknownName, WheeltapError
from wheeltap.core.inputs import shapes, tensors
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import named_modules, to_tensor
from wheeltap.engine.clean import in_line, out_of_memory

Positions = Literal["last", "all"]
"""Of a language model: the last position of each context, or all but the first, which many models use as a sink. Of an
ordinary net ``last`` is all that the site gives of an example, as one vector, and ``all`` the vectors along the last
axis, one a position."""

ROWS: Final = 4096  # rows, or tokens, that are computed with at once
_SPAN: Final = 4  # largest difference of length within a batch
_ROUNDING: Final = 1e-12  # variance, as a share of the squared mean, that single precision may give equal vectors


def center(vectors: Tensor, *, where: str) -> tuple[Tensor, float]:
    """Mean vector ``[width]``, and the factor that brings the mean square of a centered number to 1.

    Args:
        vectors: ``[row, width]``; as many as ``ROWS`` are looked at at once.
        where: The site, for messages.

    Raises:
        DataError: If all vectors are the same.
    """
    parts = cast("tuple[Tensor, ...]", vectors.split(ROWS))  # pyright: ignore[reportUnknownMemberType]
    mean = torch.zeros(vectors.shape[1], dtype=torch.float64)
    for part in parts:
        mean += part.double().sum(0) / len(vectors)
    variance = sum(float((part.double() - mean).square().sum()) for part in parts) / vectors.numel()
    if variance <= _ROUNDING * float(mean.square().mean()):
        raise DataError("A site holds the same vector for all examples.", where=f"site {where}",
                        expected="vectors that differ", got=f"{len(vectors)} equal ones",
                        do="Choose another site, or other examples.")  # fmt: skip
    return mean.float(), float(variance**-0.5)


def width_of(model: nn.Module | None, task: BaseTask, site: str, positions: Positions) -> int:
    """Numbers in a vector of a site, of the first example alone; of plain vectors, where there is no model."""
    if model is None:
        return vectors_of(task).shape[1]
    return collect(model, task.part(torch.zeros(1, dtype=torch.long)), site, positions=positions).shape[1]


def collect(model: nn.Module, task: BaseTask, site: str, *, positions: Positions = "last") -> Tensor:
    """The vectors ``[row, width]`` that a site holds of the examples of a task, float32, in a file that is mapped.

    Args:
        model: In eval mode; it computes where it is.
        task: Its examples, in this order where ``positions`` is ``last``.
        site: Module path; meant is the output, or the first of several.
        positions: See ``Positions``.

    Raises:
        UnknownName: If there is no such module.
        ModelError: If the site does not hold a finite vector for each example (or some for each, of all positions), or
            the model fails on the examples.
    """
    known = {path for path, _ in named_modules(model) if path}
    if site not in known:
        raise UnknownName("module", site, known)
    examples = dict[tuple[int, ...], list[int]]()  # of each distinct context
    for at, context in enumerate(task.contexts if isinstance(task, ChoiceTask) else ()):
        examples.setdefault(context, []).append(at)
    contexts = sorted(examples, key=lambda context: (len(context), context))
    tap, count = _Tap(site, positions), len(task.targets)
    if contexts and positions == "last":
        tap.order = [at for context in contexts for at in examples[context]]
    elif contexts:
        count = sum(len(context) - 1 for context in contexts)
    hook = model.get_submodule(site).register_forward_hook(tap.write)
    with torch.no_grad(), _readable(model, task), hook, tempfile.TemporaryFile() as tap.file:
        if not contexts:
            task.forward(model)
        for batch in batches(contexts, ROWS, span=_SPAN):
            length, device = len(batch[-1]), next(model.parameters()).device
            places = [
                (row, position)
                for row, context in enumerate(batch)
                for position in (
                    range(1, len(context)) if positions == "all" else [len(context) - 1] * len(examples[context])
                )
            ]
            tap.places = torch.tensor(places, dtype=torch.long, device=device).reshape(-1, 2)
            ids = torch.tensor([[*row, *row[-1:] * (length - len(row))] for row in batch], device=device)
            last_logits(model, ids, first=length - 1)  # no more scores than a model must give
        if not tap.seen or (tap.seen != count if contexts or positions == "last" else tap.seen % count):
            raise tap.none(f"{tap.seen} vectors for {count} examples or positions")
        tap.file.flush()
        # The map outlives its file.
        shape = tap.seen, tap.width
        return to_tensor(np.memmap(cast("Any", tap.file), dtype=np.float32, mode="c", shape=shape))


@contextmanager
def _readable(model: nn.Module, task: BaseTask) -> Generator[None]:
    """A block that calls a model on a task: raises ``ModelError`` where the model is of other inputs."""
    try:
        yield
    except (WheeltapError, OSError):
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        given = "tokens of text [row, position], int64"
        if isinstance(task, Task):
            kinds = {str(one.dtype).removeprefix("torch.") for one in tensors(task.inputs).values()}
            given = f"{shapes(task.inputs)}, {', '.join(sorted(kinds))}"
        raise ModelError("The model fails on the task's examples.", where=f"{type(model).__name__} on {task.name}",
                         expected=f"a model whose inputs are {given}", got=in_line(error),
                         do="Give the model's own examples, with factors: task.with_factors({...})."
                         ) from error  # fmt: skip


class _Tap:
    """Writes what a site holds to a file."""

    file: IO[bytes]

    def __init__(self, site: str, positions: Positions) -> None:
        self.site, self.positions, self.seen, self.width = site, positions, 0, 0
        self.places: Tensor | None = None  # of a language model: row and position of each vector of a call, [vector, 2]
        self.order: list[int] = []  # where each vector belongs, if not one after another

    def write(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Appends the vectors of a call, or puts them where they belong."""
        value = cast("Any", output[0] if isinstance(output, tuple) and output else output)
        least = 2 if self.places is None else 3
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < least:
            raise self.none(f"{type(value).__name__} {list(getattr(value, 'shape', ()))}")
        if self.places is not None:
            rows = value[self.places[:, 0], self.places[:, 1]]
        else:
            rows = value.flatten(1) if self.positions == "last" else value.flatten(0, -2)
        rows = rows.float().cpu().contiguous()
        if not bool(torch.isfinite(rows).all()) or self.width not in (0, rows.shape[1]):
            raise self.none("NaN or infinity" if self.width in (0, rows.shape[1]) else "vectors of several widths")
        self.width = rows.shape[1]
        if self.order:
            for at, row in zip(self.order[self.seen :], rows.numpy(), strict=False):
                self.file.seek(at * row.nbytes)
                self.file.write(row.tobytes())
        else:
            self.file.write(rows.numpy().tobytes())
        self.seen += len(rows)

    def none(self, got: str) -> ModelError:
        """What is said where it holds no vectors."""
        return ModelError("A site holds no vectors of the examples.", where=f"site {self.site}",
                          expected="a finite vector for each example or position", got=got,
                          do="Name a module that is called once in a pass, such as a block.")  # fmt: skip


def of_array(given: Any, *, name: str = "vectors") -> Task:
    """Plain vectors ``[row, width]`` as a task: what recipe ``dictionary`` is given where there is no net.

    Args:
        given: A tensor, an array, or the path of a file: ``.npy``, which is mapped into memory, or ``.npz`` of one
            array.
        name: For reports.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If it holds no array of numbers.
        DataError: If the vectors are no table of finite floating-point numbers, or a file has several arrays.
    """
    if isinstance(given, str | Path):
        path, do = Path(given), "Write it with numpy.save(path, vectors)."
        size_of(path, "file of vectors", do=do)
        if path.suffix == ".npz":
            with Npz(path, "file of vectors", do=do) as archive:
                kinds = {name: archive.header(name)[1] for name in archive.names[:8]}
                if len(archive.names) != 1 or any(kind.kind != "f" for kind in kinds.values()):
                    got = ", ".join(f"{name!a} ({kind})" for name, kind in kinds.items())
                    raise DataError("An archive holds no vectors.", where=str(path), expected="one array of "
                                    "floating-point numbers [row, width]", got=got[:200] or "no array",
                                    do=do)  # fmt: skip
                single = np.dtype(np.float32)
                archive.require_small(dict.fromkeys(archive.names, single), do=do)
                given = archive.array(archive.names[0], single)
        else:
            with parsing(path, "A file holds no vectors.", expected="a .npy file of numbers", do=do):
                given = torch.as_tensor(np.lib.format.open_memmap(path, mode="c"))
        name = path.stem
    held = torch.as_tensor(given)
    if held.ndim != 2 or not held.is_floating_point() or min(held.shape) < 1:
        raise DataError("These are no vectors.", where=name, expected="floating-point numbers [row, width]",
                        got=f"{str(held.dtype).removeprefix('torch.')} {list(held.shape)}")  # fmt: skip
    return Task(held, torch.zeros(len(held), dtype=torch.long), name=name)


def vectors_of(task: BaseTask) -> Tensor:
    """The inputs of a task as plain vectors, ``[row, width]``; refused as ``of_array`` does where they are none."""
    inputs = task.inputs if isinstance(task, Task) else None
    held = of_array(inputs if isinstance(inputs, Tensor) else torch.zeros(0, dtype=torch.long), name=task.name).inputs
    return cast("Tensor", held).cpu()
