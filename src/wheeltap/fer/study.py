"""A picture study: the net, the nets trained to draw its picture, their numbers, and the report."""

import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch

from wheeltap import __version__
from wheeltap.audits.settle import voided
from wheeltap.core import canon
from wheeltap.core.records import Cost, ReportRecord, Scalar, TaskRecord
from wheeltap.core.subject import Subject
from wheeltap.fer import controls, judge, showing
from wheeltap.fer.cast import TRAINING, Cast, Stage, StudySettings, called, train
from wheeltap.fer.drawings import PICTURE
from wheeltap.fer.measures import Sight, measured, weights_moved
from wheeltap.fer.metrics import ERROR, INSTRUMENTS
from wheeltap.models.cppn import Cppn
from wheeltap.models.pictures import Picture
from wheeltap.recipes.train import reproducible
from wheeltap.report.fer import FerRecord
from wheeltap.stats.cohorts import Single


def study(
    picture: Picture,
    settings: StudySettings,
    *,
    given: Mapping[str, Cppn] | None = None,
    stage: Stage = Stage(),  # noqa: B008  (frozen)
) -> FerRecord:
    """Trains nets to draw a picture and measures them beside the net that draws it.

    Args:
        picture: With the genome that draws it.
        settings: How large the study is.
        given: Further nets, by name: each is measured too.
        stage: Folder, threads and progress.

    Raises:
        UsageError: If no trained net came to the end of its training.
    """
    # One thread for one net: nets are so small that a second one only gets in the way.
    with reproducible(settings.seed), torch.no_grad():
        return _study(picture, settings, given or {}, stage)


def _study(picture: Picture, settings: StudySettings, given: Mapping[str, Cppn], stage: Stage) -> FerRecord:
    began = perf_counter()
    settings = replace(settings, sampling=replace(settings.sampling, root=settings.seed))
    cast = train(picture, settings, given=given, stage=stage)
    sight = _sight(picture, cast.own, settings.size)
    each, twin = _measured(cast, sight, settings, stage)
    numbers = _numbers(cast, picture, each=each)
    table = judge.rows(numbers)
    found = judge.findings(numbers, table, alpha=settings.alpha)
    checks = (
        controls.same_function(picture.genome, cast.own),
        controls.recoded(numbers.own, twin),
        controls.symmetric_inputs(numbers, sight),
        controls.leave_one_out(numbers, table, worst=settings.worst),
        controls.training(cast.kinds),
    )
    void = any(check.status == "failed" for check in checks)
    report = ReportRecord(
        command=stage.command,
        headline=judge.VOID if void else judge.headline(numbers, table, found),
        subjects=tuple(Subject(net, name=name).record for name, net in cast.named()),
        task=_task(picture, settings),
        findings=tuple(voided(finding) if void else finding for finding in found),
        controls=checks,
        instruments=INSTRUMENTS,
        cost=Cost(forwards=0.0, seconds=perf_counter() - began),
        provenance=_provenance(settings),
        void=void,
    )
    return FerRecord(
        report=report,
        about=picture.about,
        nets=showing.pictures(cast, picture),
        rows=table,
        sweeps=showing.sweeps(cast, picture, sight, sampling=settings.sampling),
        drawn=showing.explored(cast, picture),
        # What rests on the numbers of a void study is not said.
        fooled=() if void else judge.fooled(numbers, table),
        answers=() if void else judge.noise_answer(table, found),
        caveats=_caveats(picture, cast, settings),
    )


def _sight(picture: Picture, own: Cppn, size: int) -> Sight:
    points, symmetry = (None, None) if picture.symmetric is None else picture.symmetric(size)
    regions = picture.masks(size) if picture.parts else None
    return Sight(size, points, symmetry, regions, links=int(np.count_nonzero(own.flat_parameters())))


def _measured(
    cast: Cast, sight: Sight, settings: StudySettings, stage: Stage
) -> tuple[dict[str, dict[str, Single]], dict[str, Single]]:
    """The numbers of every sound net by its name; and those of a re-coded copy of the net under study."""
    named = [(cast.name, cast.own), *(pair for kind in cast.kinds for pair in cast.sound(kind))]
    nets = [*(net for _, net in named), controls.reordered(cast.own, seed=settings.seed)]
    done: list[int] = []

    def numbers(at: int) -> dict[str, Single]:
        torch.set_num_threads(1)  # a thread's own, like the next line
        with torch.no_grad():
            found = measured(nets[at], sight, settings.sampling)
        done.append(at)
        stage.tell("measuring", TRAINING + (1.0 - TRAINING) * len(done) / len(nets))
        return found

    with ThreadPoolExecutor(stage.threads, thread_name_prefix="wheeltap-fer") as pool:
        *each, twin = pool.map(numbers, range(len(nets)))
    return dict(zip((name for name, _ in named), each, strict=True)), twin


def _numbers(cast: Cast, picture: Picture, *, each: Mapping[str, Mapping[str, Single]]) -> judge.Measured:
    target = picture.genome.render(PICTURE)
    cohorts: dict[str, list[dict[str, float]]] = {}
    for kind, made in cast.kinds.items():
        for at, net in enumerate(made.nets):
            if (name := called(kind, at)) in each:
                error = float(np.square(net.render(PICTURE) - target).mean())
                found = {key: single.value for key, single in each[name].items()}
                cohorts.setdefault(kind, []).append({ERROR: error, **found})
    return judge.Measured(name=cast.name, own={ERROR: Single(0.0), **each[cast.name]}, cohorts=cohorts)


def _task(picture: Picture, settings: StudySettings) -> TaskRecord:
    size = settings.size
    digest = canon.array_digest("picture", picture.genome.render(size))
    return TaskRecord(
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


def _caveats(picture: Picture, cast: Cast, settings: StudySettings) -> tuple[str, ...]:
    nets = cast.trained
    sample = (
        f"One net is compared with {len(nets)} trained by one recipe to draw one picture: nothing here is about "
        "gradient descent at large, about language models, or about how the one net came to be."
    )
    own, theirs = (weights_moved(net, settings.sampling).name for net in (cast.own, nets[0][1]))
    known = [
        sample,
        "The two kinds differ in more than how they were found: the layered genome has few links and copies values "
        "through its layers, the trained nets use every weight. Control nets separate some of this, not all.",
        "Metrics ask for the symmetry or the parts that are known beforehand. A net can be unified in ways they do not "
        "ask about, and pass them without being so.",
        "Weights are compared at equal effect on the picture; what a sweep shows at another effect may differ.",
        f"Weights moved one by one: {own} of {cast.name}; {theirs} of each trained net, the same places in every net "
        "of one layout.",
    ]
    if picture.symmetric is None:
        known.append("The picture has no known symmetry: symmetry is not tested, and no |x| nets were trained.")
    if picture.genome.factors():
        known.append(
            "This net was written by hand to be unified: that it passes checks the instruments and discovers nothing. "
            "What is new here is how the trained nets do."
        )
    return tuple(known)
