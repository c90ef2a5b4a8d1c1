"""The nets of a picture study: the one that draws the picture, those trained to draw it, controls, and given ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import numpy as np

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.fer.judge import TRAINED
from wheeltap.fer.measures import Sampling
from wheeltap.models.cppn import Cppn
from wheeltap.models.pictures import Picture
from wheeltap.recipes.paint import KINDS, Canvas, PaintSettings, Studio, of_kind, paint, steps_kept
from wheeltap.recipes.paint import Watch as StepWatch

UNTRAINED: Final = "untrained"

GIVEN: Final = "given: "
"""What the names of nets begin with that were there already."""

FOLDED: Final = "abs-x"
"""Nets that read |x|: all their answers are mirror images of themselves."""

BLANK: Final = 1.0 / 255.0
"""A picture whose colours differ by less is blank: no screen shows it."""

TRAINING: Final = 0.8
"""Share of a study's time that training takes, about."""

Watch = Callable[[str, float], None]
"""Told what is being done, and the share of the whole that is done."""


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """How large a study is.

    Attributes:
        seeds: Nets trained to draw the picture.
        control_seeds: Nets of each kind of trained control.
        size: Side of the square they are trained on, in pixels.
        steps: Of training.
        controls: Kinds of trained controls.
        seed: Root of every draw.
        alpha: Probability of any false alarm over all tested metrics.
        worst: A null control fails below this p-value.
        sampling: How much of each net is looked at.

    Raises:
        UsageError: If there is no net, or a kind is not a trained control.
    """

    seeds: int = 5
    control_seeds: int = 3
    size: int = 64
    steps: int = 4000
    controls: tuple[str, ...] = ("abs-x", "l1")
    seed: int = 0
    alpha: float = 0.05
    worst: float = 0.001
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        allowed = [kind for kind in KINDS if kind not in (TRAINED, UNTRAINED)]
        wrong = next((kind for kind in self.controls if kind not in allowed), None)
        if wrong is not None:
            raise UnknownName("kind of control net", wrong, allowed)
        if min(self.seeds, self.control_seeds, self.steps) < 1 or self.size < 8:
            raise UsageError(
                "A study of this size cannot be made.",
                expected="one seed and one step at least, 8 pixels a side",
                got=f"{self.seeds} seeds, {self.steps} steps, {self.size} pixels",
            )


@final
@dataclass(frozen=True, eq=False)
class Kind:
    """Nets made alike.

    Attributes:
        nets: All of them.
        status: Of the training of each: ``done``, ``stuck`` or ``diverged``.
        restarts: Starts that were lost, of all together.
    """

    nets: tuple[Cppn, ...]
    status: tuple[str, ...]
    restarts: int = 0


@final
@dataclass(frozen=True, eq=False)
class Cast:
    """All nets of a study.

    Attributes:
        name: Of the net under study.
        own: That net.
        kinds: The others.
    """

    name: str
    own: Cppn
    kinds: Mapping[str, Kind]

    @property
    def trained(self) -> list[tuple[str, Cppn]]:
        """The nets that the one under study is compared with, by name."""
        return self.sound(TRAINED)

    def sound(self, kind: str) -> list[tuple[str, Cppn]]:
        """The nets of a kind whose training came to its end, by name: the others are part of no number."""
        made = self.kinds[kind]
        pairs = enumerate(zip(made.nets, made.status, strict=True))
        return [(called(kind, at), net) for at, (net, status) in pairs if status == "done"]

    def named(self) -> list[tuple[str, Cppn]]:
        """Every net by the name it has in reports."""
        named = [(self.name, self.own)]
        for kind, made in self.kinds.items():
            named += [(called(kind, at), net) for at, net in enumerate(made.nets)]
        return named


def called(kind: str, at: int) -> str:
    """The name of a net of a kind; a given net has its kind to itself."""
    return kind if kind.startswith(GIVEN) else f"{kind} {at + 1}"


@final
@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a study is made; none of it changes its numbers.

    Attributes:
        folder: For the trained nets; a study that was broken off goes on from there.
        threads: Nets trained at a time.
        watch: Told how far it is.
        command: What the report says it was asked for by.
    """

    folder: Path | None = None
    threads: int = 1
    watch: Watch | None = None
    command: str = "fer"

    def tell(self, what: str, share: float) -> None:
        """Tells the watch, if there is one."""
        if self.watch is not None:
            self.watch(what, min(share, 1.0))


@dataclass(frozen=True)
class _Order:
    """Nets of one kind that are to be trained."""

    kind: str
    seeds: tuple[int, ...]
    settings: PaintSettings


def _orders(picture: Picture, settings: StudySettings) -> list[_Order]:
    """Which nets are trained to draw a picture, and how: |x| nets only where it is its own mirror image."""
    counts = {TRAINED: settings.seeds, UNTRAINED: settings.seeds}
    meant = (kind for kind in settings.controls if kind != FOLDED or picture.symmetric is not None)
    counts |= dict.fromkeys(meant, settings.control_seeds)
    return [
        _Order(
            kind,
            tuple(seeds.derive(settings.seed, "fer", at) for at in range(count)),
            of_kind(kind, PaintSettings(steps=settings.steps)),
        )
        for kind, count in counts.items()
    ]


@dataclass
class _Told:
    """How far training is, over all kinds of nets.

    Attributes:
        whole: Steps of all nets.
        taken: Steps that the nets of each kind have behind them.
    """

    stage: Stage
    whole: int
    taken: dict[str, int]

    def tell(self, what: str) -> None:
        """Tells the stage."""
        self.stage.tell(what, TRAINING * sum(self.taken.values()) / self.whole)

    def of(self, kind: str) -> StepWatch:
        """What the training of one kind reports to."""

        def watch(reached: int, steps: int, errors: object) -> None:
            self.taken[kind] = reached
            self.tell(f"training {kind}")

        return watch


def train(picture: Picture, settings: StudySettings, *, given: Mapping[str, Cppn], stage: Stage) -> Cast:
    """The net of a picture, and nets trained to draw it too.

    Args:
        picture: With the genome that draws it.
        settings: How many nets of which kinds.
        given: Nets that are there already, by name; each is a kind of its own.
        stage: Where.

    Raises:
        UsageError: If no trained net came to the end of its training.
        DataError: If the picture is of one colour.
    """
    picture.require_parts(settings.size)
    own, drawn = picture.genome.layerize(), picture.genome.render(settings.size)
    if float(np.ptp(drawn.reshape(-1, drawn.shape[-1]), axis=0).max()) < BLANK:
        raise DataError(
            "The picture is blank.",
            where=picture.name,
            expected="something that a net can draw",
            got="one color everywhere",
            do="Look at the genome: a net with no links, or with weights of 0, draws nothing.",
        )
    canvas = Canvas.of(drawn)
    orders, kinds = _orders(picture, settings), dict[str, Kind]()
    kept = {
        order.kind: steps_kept(own.layout, canvas, seeds=order.seeds, settings=order.settings, folder=stage.folder)
        for order in orders
    }
    told = _Told(stage, sum(order.settings.steps * len(order.seeds) for order in orders), kept)
    told.tell("training")  # before any step is taken, so that what was there already is not taken for this run's work
    for order in orders:
        studio = Studio(folder=stage.folder, threads=stage.threads, watch=told.of(order.kind))
        made = paint(own.layout, canvas, seeds=order.seeds, settings=order.settings, studio=studio)
        kinds[order.kind] = Kind(made.nets, made.status, sum(made.restarts))
    if "done" not in kinds[TRAINED].status:
        raise UsageError(
            "No net came to the end of its training.",
            where=picture.name,
            expected="at least one",
            got=", ".join(kinds[TRAINED].status),
            do="Take more seeds, or another size.",
        )
    kinds |= {f"{GIVEN}{name}": Kind((net,), ("done",)) for name, net in given.items()}
    names = {*kinds, *(called(kind, at) for kind, made in kinds.items() for at in range(len(made.nets)))}
    return Cast(f"{picture.name} (under study)" if picture.name in names else picture.name, own, kinds)
