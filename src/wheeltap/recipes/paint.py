"""Training layered CPPNs by gradient descent until they draw a given picture.

Full batch, mean squared error in RGB, Adam on the gradient normalised to unit length at every step, LeCun normal start,
no biases. Each net is trained by itself: what it becomes depends on its own seed alone, not on the nets beside it.

Source: Kumar et al. 2025, arXiv:2505.11581, and its code (the text names neither Adam nor the normalisation). Rescue of
nets that no longer move is ours: where every pixel is clipped the gradient is 0, and the recipe has no way out.
"""

import contextlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core.canon import array_digest
from wheeltap.core.errors import DataError, FileFormatError, UnknownName, UsageError
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.models.cppn import Cppn, Layout, folded, grid
from wheeltap.recipes.checkpoints import Checkpoints
from wheeltap.recipes.picture_loss import PictureLoss
from wheeltap.recipes.train import reproducible
from wheeltap.recipes.trainee import Job, PaintSettings, Status, Trainee

Watch = Callable[[int, int, NDArray[np.float64]], None]
"""Called with the steps that all nets have behind them together, how many there are, and each net's last error."""

SLICE: Final = 50
"""Steps that a net takes before it is another's turn."""

WATCH_SECONDS: Final = 0.1
KEEP_STEPS: Final = 250
"""Steps of a net between two checkpoints: whole slices."""

MOST_PIXELS: Final = 1024**2
MOST_INPUT: Final = 1e3
MOST_THREADS: Final = 256

KINDS: Final[dict[str, dict[str, Any]]] = {
    "sgd": {},
    "relu": {"units": "relu"},
    "abs-x": {"fold": "abs-x"},
    "l1": {"l1": 1e-4},
    "decay": {"decay": 0.1},
    "sam": {"rho": 0.02},
    "sparse": {"share": 0.2},
    "untrained": {"steps": 0},
}
"""Kinds of nets, by what differs in their settings: as published, and controls."""


def of_kind(kind: str, settings: PaintSettings = PaintSettings()) -> PaintSettings:  # noqa: B008  (frozen)
    """The settings of a kind of nets, all else as given.

    Raises:
        UnknownName: If there is no such kind.
    """
    if kind not in KINDS:
        raise UnknownName("kind of painted net", kind, KINDS)
    return replace(settings, **KINDS[kind])


def usable_threads(*, processors: int | None = None) -> int:
    """Nets to train at a time: as many as there are processors, but not more threads than may be used.

    Args:
        processors: How many there are; those that this process may use where left out.
    """
    if processors is None:
        processors = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(max(processors, 1), MOST_THREADS)


@final
@dataclass(frozen=True, eq=False)
class Canvas:
    """What is to be drawn, and where.

    Attributes:
        inputs: What a net reads at each pixel.
        target: Red, green and blue from 0 to 1.

    Raises:
        DataError: If they do not fit, or hold anything but such numbers.
    """

    inputs: Float[Tensor, "pixel 4"]
    target: Float[Tensor, "pixel 3"]

    def __post_init__(self) -> None:
        pixels = len(self.inputs)
        shapes = [list(self.inputs.shape), list(self.target.shape)]
        if shapes != [[pixels, 4], [pixels, 3]] or not 1 <= pixels <= MOST_PIXELS:
            raise DataError(
                "There is no picture to train on.",
                where="wheeltap.recipes.paint",
                expected=f"inputs [pixel, 4] and a target [pixel, 3] of 1 to {MOST_PIXELS:,} pixels",
                got=f"{shapes[0]} and {shapes[1]}",
            )
        size = float(self.inputs.abs().max())
        lowest, highest = float(self.target.min()), float(self.target.max())
        # Written so that NaN fails.
        if not (size <= MOST_INPUT and lowest >= 0.0 and highest <= 1.0):
            raise DataError(
                "The picture to train on holds numbers that it cannot.",
                where="wheeltap.recipes.paint",
                expected=f"finite inputs of at most {MOST_INPUT:g} in size, colors from 0 to 1",
                got=f"inputs up to {size:g}, colors from {lowest:g} to {highest:g}",
            )

    @classmethod
    def of(cls, picture: Float[NDArray[np.floating], "row column 3"]) -> "Canvas":
        """A square picture, on the grid of its size.

        Raises:
            DataError: If it is not square, or holds anything but red, green and blue from 0 to 1.
            UsageError: If its size is not from 2 to 4096.
        """
        size = len(picture)
        if picture.shape != (size, size, 3):
            raise DataError(
                "The picture to train on is not square.", expected="[size, size, 3]", got=str(list(picture.shape))
            )
        return cls(grid(size), to_tensor(np.ascontiguousarray(picture, dtype=np.float32)).view(-1, 3))

    @property
    def digest(self) -> str:
        """Of its numbers."""
        return array_digest("canvas", np.concatenate([to_array(self.inputs), to_array(self.target)], 1))


@final
@dataclass(frozen=True)
class Studio:
    """How training is run; none of it changes what becomes of a net.

    Attributes:
        folder: For checkpoints, by which a run that was ended goes on; none are kept where empty.
        threads: Nets trained at a time.
        watch: Told how far it is, at most ten times a second.

    Raises:
        UsageError: If there is no thread.
    """

    folder: Path | None = None
    threads: int = 1
    watch: Watch | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(
                "Nets cannot be trained on this many threads.", expected=f"1 to {MOST_THREADS}", got=str(self.threads)
            )


@final
@dataclass(frozen=True, eq=False)
class Painted:
    """Nets trained to draw a picture, in the order of their seeds.

    Attributes:
        nets: In eval mode.
        seeds: Of their starts.
        status: ``done``; or ``stuck`` or ``diverged``, if every start was lost.
        restarts: Starts that were lost before the one that counts.
        steps: Updates before which errors were recorded; the last is after all.
        errors: Mean squared error in RGB, ``[checkpoint, net]``; of a net that was lost, of what was left of it.
        seconds: Wall time.
    """

    nets: tuple[Cppn, ...]
    seeds: tuple[int, ...]
    status: tuple[Status, ...]
    restarts: tuple[int, ...]
    steps: NDArray[np.int64]
    errors: Float[NDArray[np.float64], "checkpoint net"]
    seconds: float


def paint(
    layout: Layout,
    canvas: Canvas,
    *,
    seeds: Sequence[int],
    settings: PaintSettings = PaintSettings(),  # noqa: B008  (frozen)
    studio: Studio = Studio(),
) -> Painted:
    """Nets of a layout trained to draw what is on a canvas, one for each seed.

    A net is the same to the bit whichever others are trained beside it, on however many threads, and whether or not
    its training was broken off and taken up again; on another machine or with another torch, up to rounding. A
    checkpoint that cannot be used is set aside with a warning, and its net trained from the start.

    Args:
        layout: Of the nets.
        canvas: Inputs and target.
        seeds: Different ones.
        settings: How to train, and which kind of nets.
        studio: Folder, threads and progress.

    Raises:
        UsageError: If seeds are missing, negative or given twice.
        UnknownName: If the settings name an activation that is not known.
        StoreError: If a checkpoint cannot be written, or one that is damaged not be moved out of the way.
    """
    began = time.perf_counter()
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UsageError(
            "Nets cannot start from these seeds.",
            where="wheeltap.recipes.paint",
            expected="one or more different whole numbers, not negative",
            got=str(list(seeds)),
        )
    job = Job(settings.layout(layout), settings, canvas.digest)
    with reproducible(0), torch.no_grad():
        crew = _Crew(job, canvas, seeds, studio)
        crew.run()
        nets = tuple(trainee.net(crew.losses[0]) for trainee in crew.trainees)
    return Painted(
        nets=nets,
        seeds=tuple(seeds),
        status=tuple(trainee.status for trainee in crew.trainees),
        restarts=tuple(trainee.restarts for trainee in crew.trainees),
        steps=settings.recorded,
        errors=np.stack([trainee.errors for trainee in crew.trainees], 1),
        seconds=time.perf_counter() - began,
    )


def steps_kept(
    layout: Layout, canvas: Canvas, *, seeds: Sequence[int], settings: PaintSettings, folder: Path | None
) -> int:
    """Steps that checkpoints in a folder spare ``paint``, of all nets together.

    Nothing is changed: a checkpoint that cannot be used spares none, and is told of when its net is trained.

    Args:
        layout: As for ``paint``, like the next ones.
        canvas: Inputs and target.
        seeds: Of the nets.
        settings: How they are trained.
        folder: That checkpoints are kept in, if they are.
    """
    if folder is None:
        return 0
    job, kept = Job(settings.layout(layout), settings, canvas.digest), Checkpoints(folder)
    loss = PictureLoss(job.layout, canvas.inputs[:1], canvas.target[:1])  # only says how weights are laid out
    steps = 0
    for seed in seeds:
        with contextlib.suppress(FileFormatError):
            steps += _resumed(job, seed, loss=loss, kept=kept).reached
    return steps


def _resumed(job: Job, seed: int, *, loss: PictureLoss, kept: Checkpoints | None) -> Trainee:
    """A net as its checkpoint left it, or at its start where there is none.

    Raises:
        FileFormatError: If the checkpoint cannot be used.
    """
    trainee = Trainee(job, seed, loss=loss)
    if kept is not None:
        held = kept.load(job.key(seed), like=trainee.arrays())
        if held is not None:
            trainee.resume(held, where=str(kept.path(job.key(seed))))
    return trainee


@final
class _Crew:
    """Nets in training and the threads that take turns at them: next is always the net that is furthest behind."""

    def __init__(self, job: Job, canvas: Canvas, seeds: Sequence[int], studio: Studio) -> None:
        self.job, self.studio = job, studio
        inputs = folded(canvas.inputs.cpu().float(), job.settings.fold)
        threads = min(studio.threads, len(seeds))
        self.losses = [PictureLoss(job.layout, inputs, canvas.target.cpu()) for _ in range(threads)]
        self.kept = None if studio.folder is None else Checkpoints(studio.folder)
        self.trainees = [self._trainee(seed) for seed in seeds]
        self._free = [trainee for trainee in self.trainees if trainee.status == "training"]
        self._lock, self._stop = threading.Lock(), threading.Event()

    def _trainee(self, seed: int) -> Trainee:
        try:
            return _resumed(self.job, seed, loss=self.losses[0], kept=self.kept)
        except FileFormatError as error:
            assert self.kept is not None, "what is not kept is not damaged"
            aside = self.kept.set_aside(self.job.key(seed))
            warnings.warn(
                f"A net is trained from the start: its checkpoint could not be used ({error.expected} expected, "
                f"{error.got} found) and was set aside as {aside}.",
                stacklevel=2,
            )
            return Trainee(self.job, seed, loss=self.losses[0])

    def run(self) -> None:
        """Trains every net to its end."""
        with ThreadPoolExecutor(len(self.losses), thread_name_prefix="wheeltap-paint") as pool:
            left = {pool.submit(self._work, loss) for loss in self.losses}
            try:
                while left:
                    done, left = wait(left, timeout=WATCH_SECONDS, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    self._tell()
            finally:
                self._stop.set()

    def _tell(self) -> None:
        if self.studio.watch is not None:
            reached = sum(trainee.reached for trainee in self.trainees)
            errors = np.array([trainee.error for trainee in self.trainees])
            self.studio.watch(reached, self.job.settings.steps * len(self.trainees), errors)

    def _work(self, loss: PictureLoss) -> None:
        # These are a thread's own. Tails of gaussians are full of denormal numbers, which take ten times as long.
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        with torch.no_grad():
            while not self._stop.is_set():
                with self._lock:
                    if not self._free:
                        return
                    trainee = min(self._free, key=lambda one: one.step)
                    self._free.remove(trainee)
                trainee.advance(loss, until=trainee.step // SLICE * SLICE + SLICE)
                self._keep(trainee)
                if trainee.status == "training":
                    with self._lock:
                        self._free.append(trainee)

    def _keep(self, trainee: Trainee) -> None:
        due = trainee.status != "training" or trainee.step % KEEP_STEPS == 0
        if self.kept is not None and due and trainee.finite:
            self.kept.save(self.job.key(trainee.seed), trainee.checkpoint())
