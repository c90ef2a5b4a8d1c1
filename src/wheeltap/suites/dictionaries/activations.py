"""Vectors that the sites of a model hold, streamed to memory maps: what dictionaries are trained on.

The files have no name: their space is free again when the process ends, however it ends. Random rows are read from
them, so that nothing is shuffled on disk and memory stays bounded.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Final, Literal, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.bounded import Npz, parsing, size_of
from wheeltap.core.choices import ChoiceTask, batches
from wheeltap.core.errors import DataError, ModelError, UnknownName
from wheeltap.core.inputs import answered, split
from wheeltap.core.settings import comma_separated
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import named_modules

Positions = Literal["last", "all"]
"""Of a language model: the last position of each context, or all but the first, which many models use as a sink. Of an
ordinary net ``last`` is all that the site gives of an example, as one vector, and ``all`` the vectors along the last
axis, one a position."""

SPAN: Final = 4
"""Largest difference of length within a batch."""

TOKENS: Final = 4096
"""Of a batch, at most."""

ROWS: Final = 4096
"""That are looked at together."""

_ROUNDING: Final = 1e-12
"""Variance, as a share of the squared mean, that single precision may give equal vectors."""

_WRITE: Final = "Write it with numpy.save(path, vectors)."


class _AllRead(Exception):
    """Every site was read: the rest of the pass is not needed."""


@final
class Activations:
    """Float32 vectors ``[row, width]`` of one or several sites.

    Attributes:
        rows: How many there are.
    """

    def __init__(self, vectors: dict[str, NDArray[np.float32]], index: NDArray[np.int64] | None = None) -> None:
        self._vectors, self._index = vectors, index
        self.rows = len(next(iter(vectors.values()))) if index is None else len(index)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites."""
        return tuple(self._vectors)

    def width(self, site: str) -> int:
        """Numbers in a vector of the site."""
        return self._vectors[site].shape[1]

    def batch(self, site: str, rows: Tensor | slice) -> Tensor:
        """The vectors of some rows, ``[row, width]``, float32 on the CPU."""
        at = rows.numpy() if isinstance(rows, Tensor) else rows
        held = self._vectors[site][at if self._index is None else self._index[at]]
        return torch.from_numpy(np.array(held, dtype=np.float32))  # pyright: ignore[reportUnknownMemberType]

    def all(self, site: str) -> Tensor:
        """All vectors of a site: only where they fit into memory."""
        return self.batch(site, slice(None))

    def center(self, site: str) -> tuple[Tensor, float]:
        """Mean vector ``[width]``, and the factor that brings the mean square of a centered number to 1.

        Raises:
            DataError: If all vectors are the same.
        """
        mean = torch.zeros(self.width(site), dtype=torch.float64)
        for part in self._parts(site):
            mean += part.double().sum(0) / self.rows
        squares = sum(float((part.double() - mean).square().sum()) for part in self._parts(site))
        variance = squares / (self.rows * len(mean))
        if variance <= _ROUNDING * float(mean.square().mean()):
            raise DataError(
                "A site holds the same vector for all examples.",
                where=f"site {site}",
                expected="vectors that differ",
                got=f"{self.rows} equal ones",
                do="Choose another site, or other examples.",
            )
        return mean.float(), float(variance**-0.5)

    def _parts(self, site: str) -> Iterator[Tensor]:
        return (self.batch(site, slice(start, start + ROWS)) for start in range(0, self.rows, ROWS))


def sites_of(text: str) -> tuple[str, ...]:
    """Names of sites, separated by commas.

    Raises:
        DataError: If there is none.
    """
    names = comma_separated(text)
    if not names:
        raise DataError("No site is named.", where="site", expected="a module path, such as transformer.h.5", got="")
    return names


def collect(model: nn.Module, task: BaseTask, sites: Sequence[str], *, positions: Positions = "last") -> Activations:
    """The vectors that sites hold of the examples of a task.

    Args:
        model: In eval mode; it computes where it is.
        task: Its examples, in this order where ``positions`` is ``last``.
        sites: Module paths; meant are the outputs, or the first of several.
        positions: See ``Positions``.

    Raises:
        UnknownName: If there is no such module.
        ModelError: If a site holds no vectors of the examples, is used twice in a pass, or holds NaN or infinity.
    """
    known = {path for path, _ in named_modules(model) if path}
    for site in sites:
        if site not in known:
            raise UnknownName("module", site, known)
    with torch.no_grad(), ExitStack() as held:
        writers = {site: _Writer(site, model.get_submodule(site), held) for site in sites}
        if isinstance(task, ChoiceTask):
            index = _of_contexts(model, task, list(writers.values()), positions)
        else:
            _of_examples(model, task, list(writers.values()), positions)
            index = None
        return Activations({site: writer.mapped() for site, writer in writers.items()}, index)


def width_of(model: nn.Module, task: BaseTask, sites: Sequence[str], positions: Positions) -> tuple[int, ...]:
    """Numbers in a vector of each site: of the first example alone."""
    one = task.part(torch.zeros(1, dtype=torch.long))
    held = collect(model, one, sites, positions=positions)
    return tuple(held.width(site) for site in sites)


class _Writer:
    """Writes what one site holds to a file without a name.

    Args:
        site: Name of the site.
        module: Whose output is read.
        held: Removes the hook when it is closed.
    """

    def __init__(self, site: str, module: nn.Module, held: ExitStack) -> None:
        self.site, self.value = site, cast("Tensor | None", None)
        self._file = cast("IO[bytes]", held.enter_context(tempfile.TemporaryFile()))  # noqa: SIM115
        self._width = 0
        self.after: Callable[[], None] = lambda: None
        handle = module.register_forward_hook(self._listen)
        held.callback(handle.remove)

    def _listen(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        first = cast("Any", output[0] if isinstance(output, tuple) and output else output)
        if self.value is not None or not isinstance(first, Tensor) or not first.is_floating_point():
            got = "a second use" if self.value is not None else type(first).__name__
            raise self._no_vectors("one tensor of floating-point numbers in a pass", got)
        self.value = first
        self.after()

    def _no_vectors(self, expected: str, got: str) -> ModelError:
        return ModelError(
            "A site holds no vectors of the examples.",
            where=f"site {self.site}",
            expected=expected,
            got=got,
            do="Name a module that is used once in a pass and gives a vector for each example or position: a block.",
        )

    def shaped(self, *shape: int) -> Tensor:
        """What the last call held, whose first axes have these lengths."""
        value, self.value = self.value, None
        if value is None:
            raise self._no_vectors("a module that the model calls", "none that was called")
        if value.shape[: len(shape)] != shape or value.ndim <= len(shape):
            raise self._no_vectors(f"{[*shape, 'width']}", f"{list(value.shape)}")
        return value

    def write(self, vectors: Tensor) -> None:
        """Appends vectors ``[row, width]``."""
        rows = vectors.float().cpu().contiguous()
        if not bool(torch.isfinite(rows).all()):
            raise ModelError(
                "A site holds numbers that are not finite.",
                where=f"site {self.site}",
                expected="finite activations",
                got="NaN or infinity",
                do="Check the model's weights and inputs; use float32 where half precision overflows.",
            )
        if self._width not in (0, rows.shape[1]):
            raise self._no_vectors(f"vectors of one width, {self._width}", str(rows.shape[1]))
        self._width = rows.shape[1]
        self._file.write(rows.numpy().tobytes())

    def mapped(self) -> NDArray[np.float32]:
        """All that was written, ``[row, width]``. The map outlives its file."""
        self._file.flush()
        rows = self._file.tell() // (4 * max(self._width, 1))
        if not rows:
            raise self._no_vectors("one position at least", "none")
        return np.memmap(self._file, dtype=np.float32, mode="r", shape=(rows, self._width))


def _of_examples(model: nn.Module, task: BaseTask, writers: list[_Writer], positions: Positions) -> None:
    """Of an ordinary net, in the order of the examples."""

    def write(rows: int) -> None:
        for writer in writers:
            value = writer.shaped(rows)
            writer.write(value.flatten(1) if positions == "last" or value.ndim < 3 else value.flatten(0, -2))

    if isinstance(task, Task):
        for inputs in split(task.inputs, task.batch):
            answered(model, inputs)
            rows = len(inputs if isinstance(inputs, Tensor) else next(iter(inputs.values())))
            write(rows)
        return
    task.forward(model)  # of a task of another kind what its calls are is not known: it makes one
    write(len(task.targets))


def _of_contexts(
    model: nn.Module, task: ChoiceTask, writers: list[_Writer], positions: Positions
) -> NDArray[np.int64] | None:
    """Of a language model, each distinct context once; where each example's vector is, ``[example]``."""
    waiting = set[str]()

    def heard(site: str) -> None:
        waiting.discard(site)
        if not waiting:
            raise _AllRead

    for writer in writers:
        writer.after = lambda site=writer.site: heard(site)
    contexts = sorted(set(task.contexts), key=lambda context: (len(context), context))
    device = next(model.parameters()).device
    for batch in batches(contexts, TOKENS, span=SPAN):
        length = len(batch[-1])
        ids = torch.tensor([[*row, *row[-1:] * (length - len(row))] for row in batch], device=device)
        waiting.update(writer.site for writer in writers)
        with suppress(_AllRead):
            model(ids)
        at = _places(batch, positions)
        for writer in writers:
            writer.write(writer.shaped(len(batch), length)[at[0].to(device), at[1].to(device)])
    if positions == "all":
        return None
    place = {context: at for at, context in enumerate(contexts)}
    return np.array([place[context] for context in task.contexts])


def _places(batch: Iterable[Sequence[int]], positions: Positions) -> tuple[Tensor, Tensor]:
    """Row and position of each vector that is wanted."""
    pairs = [
        (row, position)
        for row, context in enumerate(batch)
        for position in (range(1, len(context)) if positions == "all" else (len(context) - 1,))
    ]
    rows, at = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return rows, at


def of_array(given: Any, *, name: str = "vectors") -> Task:
    """Plain vectors ``[row, width]`` as a task: what recipe ``dictionary`` is given where there is no net.

    Args:
        given: A tensor, an array, or the path of a ``.npy`` file, or of an ``.npz`` file with one array.
        name: For reports.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If it holds no array of numbers.
        DataError: If the vectors are no table of finite floating-point numbers.
    """
    if isinstance(given, str | Path):
        given, name = _read(Path(given)), Path(given).stem
    held = torch.as_tensor(given)
    if held.ndim != 2 or not held.is_floating_point() or min(held.shape) < 1:
        raise DataError(
            "These are no vectors.",
            where=name,
            expected="floating-point numbers [row, width]",
            got=f"{str(held.dtype).removeprefix('torch.')} {list(held.shape)}",
        )
    return Task(held, torch.zeros(len(held), dtype=torch.long), name=name)


def _read(path: Path) -> NDArray[Any]:
    """The array in a file; of a ``.npy`` file as a memory map."""
    if path.suffix == ".npz":
        with Npz(path, "file of vectors", do=_WRITE) as archive:
            if len(archive.names) != 1:
                raise DataError("A file has several arrays.", where=str(path), expected="one: vectors [row, width]",
                                got=", ".join(sorted(archive.names))[:120], do=_WRITE)  # fmt: skip
            archive.require_small({archive.names[0]: np.dtype(np.float32)}, do=_WRITE)
            return archive.array(archive.names[0], np.dtype(np.float32))
    size_of(path, "file of vectors", do=_WRITE)
    with parsing(path, "A file holds no vectors.", expected="a .npy file of numbers", do=_WRITE):
        return np.load(path, mmap_mode="c", allow_pickle=False)
