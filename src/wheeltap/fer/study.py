"""A picture study: the net, the nets trained to draw its picture, their numbers, and the report."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final, final

import numpy as np
import torch

from wheeltap import __version__, canon, seeds
from wheeltap.errors import UsageError
from wheeltap.fer import controls, drawings, judge
from wheeltap.fer.measures import Sampling, Sight, measured, swept
from wheeltap.models.cppn import Cppn
from wheeltap.models.pictures import Picture
from wheeltap.recipes.paint import KINDS, Canvas, Painted, PaintSettings, Studio, of_kind, paint
from wheeltap.recipes.paint import Watch as StepWatch
from wheeltap.records import Cost, ProbeRecord, ReportRecord, Scalar
from wheeltap.report.explorer import DrawnNet
from wheeltap.report.fer import FerRecord, NetPicture, Sweep
from wheeltap.stats.cohorts import Single
from wheeltap.subject import Subject

UNTRAINED: Final = "untrained"

TRAINING: Final = 0.8
"""Share of a study's time that training takes, about."""

SWEPT: Final = 5
"""Weights of each net shown as strips, beside the named ones."""

NAMED: Final = 6
"""Named weights shown as strips, at most."""

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
    control_seeds: int = 5
    size: int = 64
    steps: int = 4000
    controls: tuple[str, ...] = ("abs-x", "l1")
    seed: int = 0
    alpha: float = 0.05
    worst: float = 0.001
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        allowed = [kind for kind in KINDS if kind not in (judge.TRAINED, UNTRAINED)]
        wrong = next((kind for kind in self.controls if kind not in allowed), None)
        if wrong is not None:
            from wheeltap.errors import UnknownName

            raise UnknownName("kind of control net", wrong, allowed)
        if min(self.seeds, self.control_seeds, self.steps) < 1 or self.size < 8:
            raise UsageError(
                "A study of this size cannot be made.",
                expected="one seed and one step at least, 8 pixels a side",
                got=f"{self.seeds} seeds, {self.steps} steps, {self.size} pixels",
            )


@final
@dataclass(frozen=True, eq=False)
class Cast:
    """All nets of a study.

    Attributes:
        name: Of the net under study.
        own: That net.
        painted: The others, by kind.
    """

    name: str
    own: Cppn
    painted: Mapping[str, Painted]

    def sound(self, kind: str) -> list[Cppn]:
        """Nets of a kind whose training came to its end."""
        made = self.painted[kind]
        return [net for net, status in zip(made.nets, made.status, strict=True) if status == "done"]


def study(
    picture: Picture,
    settings: StudySettings,
    *,
    folder: Path | None = None,
    threads: int = 1,
    watch: Watch | None = None,
    command: str = "fer",
) -> FerRecord:
    """Trains nets to draw a picture and measures them beside the net that draws it.

    Args:
        picture: With the genome that draws it.
        settings: How large the study is.
        folder: For the trained nets; a study that was broken off goes on from there.
        threads: Nets trained at a time.
        watch: Told how far it is.
        command: For the report.

    Raises:
        UsageError: If too few nets came to the end of their training.
    """
    began = perf_counter()
    tell = watch or _silent
    cast = _cast(picture, settings, folder=folder, threads=threads, tell=tell)
    sight = _sight(picture, settings.size)
    numbers = _numbers(cast, picture, sight, settings, tell)
    table = judge.rows(numbers)
    found = judge.findings(numbers, table, alpha=settings.alpha)
    checks = (
        controls.same_function(picture.genome, cast.own),
        controls.recoded(cast.own, sight, settings.sampling, numbers.own),
        controls.symmetric_inputs(numbers, sight),
        judge.leave_one_out(numbers, table, worst=settings.worst),
        controls.training(cast.painted),
    )
    void = any(check.status == "failed" for check in checks)
    report = ReportRecord(
        command=command,
        headline=judge.headline(numbers, table, found) if not void else judge.VOID,
        subjects=tuple(Subject(net, name=name).record for name, net in _named(cast)),
        probe=_probe(picture, settings),
        findings=tuple(found),
        controls=checks,
        cost=Cost(forwards=0.0, seconds=perf_counter() - began, trials=0),
        provenance=_provenance(settings),
        void=void,
    )
    return FerRecord(
        report=report,
        about=picture.about,
        nets=tuple(_pictures(cast, picture)),
        rows=table,
        sweeps=tuple(_sweeps(cast, picture, sight, settings)),
        drawn=tuple(_drawn(cast, picture)),
        fooled=judge.fooled(numbers, table),
        answers=judge.noise_answer(table, found),
        caveats=_caveats(picture, settings),
    )


@dataclass
class _Told:
    """How far training is, over all kinds of nets.

    Attributes:
        whole: Steps of all nets.
        before: Steps of the kinds that are done.
    """

    tell: Watch
    whole: int
    before: int = 0

    def of(self, kind: str, nets: int) -> StepWatch:
        """What the training of one kind reports to."""

        def watch(reached: int, steps: int, errors: object) -> None:
            self.tell(f"training {kind}", TRAINING * (self.before + reached * nets) / self.whole)

        return watch


def _silent(label: str, share: float) -> None:
    """Tells nobody."""


def _cast(picture: Picture, settings: StudySettings, *, folder: Path | None, threads: int, tell: Watch) -> Cast:
    own = picture.genome.layerize()
    canvas = Canvas.of(picture.genome.render(settings.size))
    kinds = {judge.TRAINED: settings.seeds, UNTRAINED: settings.seeds}
    kinds |= dict.fromkeys(settings.controls, settings.control_seeds)
    painted: dict[str, Painted] = {}
    told = _Told(tell, whole=settings.steps * (sum(kinds.values()) - settings.seeds))
    for kind, count in kinds.items():
        wanted = of_kind(kind, PaintSettings(steps=settings.steps))
        starts = [seeds.derive(settings.seed, "fer", at) for at in range(count)]
        studio = Studio(folder=folder, threads=threads, watch=told.of(kind, count))
        painted[kind] = paint(own.layout, canvas, seeds=starts, settings=wanted, studio=studio)
        told.before += 0 if kind == UNTRAINED else settings.steps * count
    return Cast(picture.name, own, painted)


def _named(cast: Cast) -> list[tuple[str, Cppn]]:
    named = [(cast.name, cast.own)]
    for kind, made in cast.painted.items():
        named += [(f"{kind} {at}", net) for at, net in enumerate(made.nets, start=1)]
    return named


def _sight(picture: Picture, size: int) -> Sight:
    points, symmetry = (None, None) if picture.symmetric is None else picture.symmetric(size)
    return Sight(size, points, symmetry, picture.masks(size) if picture.parts else None)


def _numbers(cast: Cast, picture: Picture, sight: Sight, settings: StudySettings, tell: Watch) -> judge.Measured:
    trained = cast.sound(judge.TRAINED)
    if not trained:
        raise UsageError(
            "No net came to the end of its training.",
            where=picture.name,
            expected="at least one",
            got=", ".join(cast.painted[judge.TRAINED].status),
            do="Take more seeds, or another size.",
        )
    todo = 1 + sum(len(cast.sound(kind)) for kind in cast.painted)
    done = 0

    def numbers(net: Cppn) -> dict[str, Single]:
        nonlocal done
        tell("measuring", TRAINING + (1.0 - TRAINING) * done / todo)
        done += 1
        return measured(net, sight, settings.sampling)

    own = numbers(cast.own)
    cohorts = {
        kind: [{key: single.value for key, single in numbers(net).items()} for net in cast.sound(kind)]
        for kind in cast.painted
    }
    target = picture.genome.render(settings.size)
    errors = [float(np.square(net.render(settings.size) - target).mean()) for net in trained]
    return judge.Measured(
        name=cast.name,
        own=own,
        cohorts={kind: nets for kind, nets in cohorts.items() if nets},
        psnr=[drawings.decibels(error) for error in errors],
        errors=errors,
    )


def _pictures(cast: Cast, picture: Picture) -> list[NetPicture]:
    target = picture.genome.render(drawings.PICTURE)
    found = [
        NetPicture(name=cast.name, cohort=cast.name, picture=drawings.picture(cast.own), maps=drawings.maps(cast.own))
    ]
    for kind, made in cast.painted.items():
        for at, (net, status) in enumerate(zip(made.nets, made.status, strict=True), start=1):
            error = float(np.square(net.render(drawings.PICTURE) - target).mean())
            found.append(
                NetPicture(
                    name=f"{kind} {at}",
                    cohort=kind,
                    picture=drawings.picture(net),
                    maps=drawings.maps(net) if at == 1 and kind in (judge.TRAINED, UNTRAINED) else b"",
                    error=error,
                    psnr=drawings.decibels(error) if error > 0.0 else None,
                    status=status,
                )
            )
    return found


def _drawn(cast: Cast, picture: Picture) -> list[DrawnNet]:
    """The net under study and the first trained one, for the explorer."""
    first = cast.sound(judge.TRAINED)[0]
    layout = cast.own.layout
    labels = {",".join(map(str, layout.address(at))): name for at, name in picture.genome.factors().items()}
    links = tuple(layout.address(int(at)) for at in cast.own.links())
    return [
        DrawnNet(name=cast.name, arch=cast.own.arch, weights=tuple(cast.own.kernels()), labels=labels, links=links),
        DrawnNet(name=f"{judge.TRAINED} 1", arch=first.arch, weights=tuple(first.kernels()), fold=first.fold),
    ]


def _sweeps(cast: Cast, picture: Picture, sight: Sight, settings: StudySettings) -> list[Sweep]:
    """Strips of both nets of the explorer: named weights, and weights at even steps of the symmetry of response."""
    nets = {cast.name: cast.own, f"{judge.TRAINED} 1": cast.sound(judge.TRAINED)[0]}
    factors = picture.genome.factors()
    found: list[Sweep] = []
    for name, net in nets.items():
        result = swept(net, sight, settings.sampling)
        upwards = np.flatnonzero(result.reached[:, 0])
        share = result.responses.symmetry[:, 0]
        ranked = upwards[np.argsort(share[upwards], kind="stable")]
        rows = [int(ranked[at]) for at in np.linspace(0, len(ranked) - 1, min(SWEPT, len(ranked))).round().astype(int)]
        if net is cast.own:
            known = [int(row) for row in upwards if int(result.moves.ids[row]) in factors]
            rows = list(dict.fromkeys([*known[:NAMED], *rows]))
        for row in rows:
            flat_id = int(result.moves.ids[row])
            place = net.layout.address(flat_id)
            steps = tuple(float(at * result.responses.delta[row, 0]) for at in (-1.0, -0.5, 0.0, 0.5, 1.0))
            label = f"weight {flat_id} ({place[0]}: {place[1]} to {place[2]})"
            named = factors.get(flat_id) if net is cast.own else None
            found.append(
                Sweep(
                    net=name,
                    weight=label if named is None else f"{named}, {label}",
                    steps=steps,
                    strip=drawings.strip(net, weight=place, steps=steps),
                    effect=float(result.responses.rmse[row, 0]),
                    symmetry=float(share[row]) if sight.symmetry is not None else None,
                )
            )
    return found


def _probe(picture: Picture, settings: StudySettings) -> ProbeRecord:
    size = settings.size
    digest = canon.array_digest("picture", picture.genome.render(size))
    return ProbeRecord(
        name=f"{picture.name}, {size} x {size} pixels", digest=digest, examples=size * size,
        measure="squared_error", measures=("squared_error",), higher_is_better=False, bounded=False,
    )  # fmt: skip


def _provenance(settings: StudySettings) -> dict[str, Scalar]:
    return {
        "wheeltap": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "seed": settings.seed,
        "seeds": settings.seeds,
        "control_seeds": settings.control_seeds,
        "size": settings.size,
        "steps": settings.steps,
        "controls": ", ".join(settings.controls),
        "effect": settings.sampling.effect,
        "weights": settings.sampling.weights,
        "alpha": settings.alpha,
    }


def _caveats(picture: Picture, settings: StudySettings) -> tuple[str, ...]:
    sample = (
        f"One net is compared with {settings.seeds} trained by one recipe to draw one picture: nothing here is about "
        "gradient descent at large, about language models, or about how the one net came to be."
    )
    known = [
        sample,
        "The two kinds differ in more than how they were found: the layered genome has few links and copies values "
        "through its layers, the trained nets use every weight. Sparse and folded controls part some of this, not all.",
        "Metrics ask for the symmetry or the parts that are known beforehand. A net can be unified in ways they do not "
        "ask about, and pass them without being so.",
        "Weights are compared at equal effect on the picture; what a sweep shows at another effect may differ.",
    ]
    if picture.symmetric is None:
        known.append("The picture has no known symmetry, so nothing is said about symmetry.")
    return tuple(known)
