"""Dictionaries from Python, ``wt.dictionaries``: trained and checked as ``wheeltap dictionary`` does.

A task is cut in two, always in the same way: dictionaries are fitted on one part, and judged on the other.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast, get_args

import msgspec
import numpy as np
import torch

from wheeltap.core.canon import Scalar
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, ModelError, UnknownName, UsageError
from wheeltap.core.settings import comma_separated
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import named_modules
from wheeltap.plans.artifacts import digest
from wheeltap.plans.plan import AuditSpec, Plan
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.make import Watch, weights
from wheeltap.report.report import Report
from wheeltap.runs.given import Model, subjects_of
from wheeltap.runs.loop import run
from wheeltap.runs.planning import plan
from wheeltap.runs.ray_cluster import RayCluster
from wheeltap.runs.studying import split
from wheeltap.sources.examples import Examples, task_of
from wheeltap.suites.dictionaries.activations import ROWS, Positions, collect, of_array, width_of
from wheeltap.suites.dictionaries.audits.claims import AUDITS
from wheeltap.suites.dictionaries.dictionary import Dictionary
from wheeltap.suites.dictionaries.files import read as load
from wheeltap.suites.dictionaries.files import write as save
from wheeltap.suites.dictionaries.recipes import DictionaryRecipe, WithDictionary, kept
from wheeltap.suites.dictionaries.specs import NULLS, RANDOM, SUPERVISED, Kind
from wheeltap.suites.dictionaries.supervised import least_squares_codes, mean_codes
from wheeltap.suites.dictionaries.training import DictionaryTrainingSettings, Trained

__all__ = ["check", "halves", "load", "prepared", "save", "train"]

DRAWN, RESEEDS, SEEDS = 3, 2, 5
"""Random dictionaries for each null of another kind, for they cost no training; the same training by other seeds; nulls
of each kind that is trained."""

STEPS, WIDER = 1000, 8  # of each training, and features for each number of a vector, where they are not given
_HELD: Final = 0.5  # share of a task that dictionaries are judged on; they are fitted on the others


def halves(task: BaseTask) -> tuple[BaseTask, BaseTask]:
    """The examples that dictionaries are fitted on, and those that they are judged on.

    Raises:
        DataError: If there are too few different ones.
    """
    judged, fitted = split(task.once(), _HELD)
    return fitted, judged


def train(
    model: Model | None, examples: Examples | str | Path, *, site: str = "", kind: Kind = "own", seed: int = 0,
    watch: Watch | None = None, **how: Scalar,
) -> Dictionary:  # fmt: skip
    """Trains a dictionary of one site, on half of a task; ``check`` judges it on the other half.

        made = wt.dictionaries.train(net, task, site="transformer.h.5", features=4096, k=16)
        wt.dictionaries.save(made, "h5.safetensors")

    Args:
        model: A net in eval mode, which comes back as it was; ``None`` where the examples are plain vectors.
        examples: A task; or, without a model, vectors ``[row, width]``: an array, a ``.npy`` or ``.npz`` file.
        site: Module path whose output is meant; not of plain vectors.
        kind: Another one than ``own`` for a null or a baseline: ``frozen decoder``, ``pca``, ``mean codes`` ...
        seed: Of all draws.
        watch: Called with the steps taken and the steps in all.
        how: Settings of the recipe ``dictionary``: ``architecture``, ``features`` (by default 8 for each number of a
            vector), ``k``, ``positions``, ``steps``, ``batch``, ``rate``.

    Raises:
        WheeltapError: If it cannot be trained: an unknown site, vectors that are not finite, examples that the model
            does not read.
    """
    net = None if model is None else subjects_of(model)[0]
    if net is not None:
        _require_site(net, site)
    fitted = of_array(examples) if net is None else halves(task_of(examples))[0]
    asked = {"steps": STEPS, **how, "site": site or "vectors", "kind": kind}
    # The width is known once the rest of the settings is.
    known: DictionaryTrainingSettings = DictionaryRecipe({**asked, "features": how.get("features", 2**24)}).settings
    asked.setdefault("features", WIDER * width_of(net and net.model, fitted, known.site, known.positions))
    of, names = ((), ()) if net is None else ((net.model,), (net.record.fingerprint,))
    spec = specified(DictionaryRecipe, asked, seed=seed, data=fitted.digest, of=names)
    given = Given(spec, of, fitted, torch.device("cpu") if net is None else net.device)
    return cast("Dictionary", kept(DictionaryRecipe(dict(spec.settings)), given, watch))


def _require_site(net: Subject, site: str) -> None:
    """Raises ``UsageError``, which names modules, where no site is named."""
    if not site:
        paths = [path for path, _ in named_modules(net.model) if path]
        raise UsageError("The site is missing.", where=net.name, got="none", expected="the path of one of the model's "
                         f"modules: {', '.join(paths[:8])}{' ...' * (len(paths) > 8)}",
                         do="Give --site PATH; in Python site=PATH.")  # fmt: skip


def joined(net: Subject | None, task: BaseTask | Path, site: str, positions: Positions) -> str:
    """What of an example is joined to one vector, `` (3 positions x 16, joined)``; empty where nothing is."""
    if net is None or isinstance(task, Path | ChoiceTask) or positions == "all":
        return ""
    held = collect(net.model, task.part(torch.zeros(1, dtype=torch.long)), site, positions="all")
    return f" ({len(held)} positions x {held.shape[1]}, joined)" if len(held) > 1 else ""


def prepared(  # noqa: PLR0913 - a door: each is a choice of its own
    model: Model, dictionary: Dictionary | str | Path, task: Examples, *, nulls: Sequence[str] = NULLS,
    seeds: int = SEEDS, seed: int = 0, watch: Watch | None = None, **how: Scalar,
) -> tuple[Subject, BaseTask, Plan]:  # fmt: skip
    """A net with a dictionary and what it is judged beside; the examples for that; the plan. See ``check``."""
    nulls = comma_separated(nulls) if isinstance(nulls, str) else nulls
    for name in nulls:
        if name not in NULLS:
            raise UnknownName("null", name, NULLS)
    if not nulls or seeds < 1:
        raise UsageError("A dictionary is judged beside nulls: a score alone says nothing.", where="nulls, seeds",
                         expected=f"at least one of {', '.join(NULLS)}, and at least 1 seed",
                         got=f"{', '.join(nulls) or 'no nulls'}, {seeds} seeds")  # fmt: skip
    net, (fitted, judged) = subjects_of(model)[0], halves(task_of(task))
    training: DictionaryTrainingSettings = WithDictionary({"steps": STEPS, **how}).settings
    _require_site(net, training.site)
    given = dictionary if isinstance(dictionary, Dictionary) else load(dictionary)
    if given.settings.width != (width := width_of(net.model, fitted, training.site, training.positions)):
        raise ModelError("The dictionary is of vectors of another width.", where=f"site {training.site}",
                         expected=f"width {width}", got=f"width {given.settings.width}",
                         do="Name the site that it is of, or give the dictionary of this one.")  # fmt: skip
    if bad := [name for name, one in given.state_dict().items() if not bool(torch.isfinite(one).all())]:
        raise ModelError("The dictionary holds NaN or infinity.", where=f"the dictionary of {training.site}: {bad[0]}",
                         expected="finite numbers", got="NaN or infinity", do="Train it again, at a lower rate."
                         )  # fmt: skip
    missing: dict[Kind, str] = {} if training.positions == "last" else dict.fromkeys(SUPERVISED, "")
    labels = {name: one.cpu().numpy() for name, one in fitted.annotations.factors.items()}
    for kind, fit in zip(SUPERVISED, (mean_codes, least_squares_codes), strict=True):
        try:  # whether there can be such codes is a matter of the labels alone
            fit(np.zeros((len(fitted.targets), 1)), labels)
        except DataError as error:
            missing.setdefault(kind, error.in_line() if labels else "")
    nulls = [kind for kind in NULLS if kind in (*nulls, "matched random")]
    counts = {"reseed": RESEEDS, **{kind: DRAWN * seeds if kind in RANDOM else seeds for kind in nulls},
              "identity": 1, "pca": 1, **{kind: 1 for kind in SUPERVISED if kind not in missing}}  # fmt: skip
    notes = [f"Left out: {kind}. {why}" for kind, why in missing.items() if why]
    if given.origin and given.origin.partition(" of ")[0] not in (training.site, f"{training.site}.hook_resid_post"):
        notes.append(f"The file says that the dictionary is of {given.origin}. It is checked at {training.site}.")
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    settings = {**msgspec.structs.asdict(_like(given, net, fitted, training)), "entries": ",".join(kinds)}
    spec = specified(WithDictionary, settings, seed=seed, data=fitted.digest,
                     of=(net.record.fingerprint, digest(weights(given))))  # fmt: skip
    whole = WithDictionary(settings, watch=watch).start(Given(spec, (net.model, given), fitted, net.device)).made()
    subject, entries = Subject(whole, name=net.name), ",".join(["own", *kinds])
    first, *others = (AuditSpec(name, {"entries": entries}) for name in AUDITS)
    if notes:
        first = AuditSpec(first.name, {**first.settings, "notes": "\n\n".join(f"Warning: {note}" for note in notes)})
    return subject, judged, plan([subject], judged, audits=[first, *others], seed=seed, command="dictionary check")


def _like(
    given: Dictionary, net: Subject, fitted: BaseTask, how: DictionaryTrainingSettings
) -> DictionaryTrainingSettings:
    """Return the training of nulls as large as a dictionary, with equally many active features.

    They have its architecture where that can be trained; others are TopK.
    """
    own = given.settings
    k, known = own.k, own.architecture in get_args(Trained)
    if not k and own.architecture != "supervised":
        vectors, device = collect(net.model, fitted, how.site, positions=how.positions), given.b_dec.device
        parts = (vectors[start : start + ROWS].to(device) for start in range(0, len(vectors), ROWS))
        with torch.no_grad():
            k = round(sum(int(torch.count_nonzero(given.encode(part))) for part in parts) / len(vectors))
    return msgspec.structs.replace(
        how, architecture=cast("Trained", own.architecture) if known else "topk", features=own.features,
        k=min(max(k, 1), own.features),
    )  # fmt: skip


def check(
    model: Model, dictionary: Dictionary | str | Path, task: Examples, *, site: str, store: str | Path | None = None,
    workers: int | RayCluster = 1, **how: Any,
) -> Report:  # fmt: skip
    """Judges a dictionary of one site: sufficient, controlling, interpretable, stable? Beside nulls and reseeds.

        wt.dictionaries.check(net, "h5.safetensors", task, site="transformer.h.5")

    Half of the task is what nulls, reseeds and supervised baselines are fitted on; all is judged on the other half.

    Args:
        model: A net in eval mode, which comes back as it was.
        dictionary: Of ``train``; or a file of ``save``, or a folder of SAELens or dictionary-learning.
        task: With attributes (``task.with_factors``) for control and interpretability.
        site: Module path whose output the dictionary is of.
        store: File that keeps every outcome; the same call resumes. In a temporary file if not given.
        workers: Processes; 1 runs in this one. Or a Ray cluster.
        how: ``nulls`` (kinds beside ``matched random``; or one text, separated by commas), ``seeds`` (of each),
            ``seed``, ``watch``, and ``steps``, ``batch``, ``rate`` and ``positions`` of their training.

    Raises:
        WheeltapError: If the file is no dictionary, or one of another width; if there is no such site, no null, or the
            model fails on the examples.
    """
    subject, judged, asked = prepared(model, dictionary, task, site=site, **how)
    return run(asked, [subject], judged, store=store, workers=workers)
