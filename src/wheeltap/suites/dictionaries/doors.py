"""Dictionaries from Python, ``wt.dictionaries``: trained and checked as ``wheeltap dictionary`` does.

A task is cut in two, always in the same way: dictionaries are fitted on one part, and judged on the other.
"""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast, final, get_args

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
from wheeltap.recipes import base
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.make import Watch, weights
from wheeltap.report.report import Report
from wheeltap.runs.given import Examples, Model, subjects_of, task_of
from wheeltap.runs.loop import run
from wheeltap.runs.planning import plan
from wheeltap.runs.studying import split
from wheeltap.suites.dictionaries.activations import Positions, collect, of_array, width_of
from wheeltap.suites.dictionaries.audits.claims import AUDITS
from wheeltap.suites.dictionaries.dictionary import Dictionary, Entry
from wheeltap.suites.dictionaries.files import read as load
from wheeltap.suites.dictionaries.files import write as save
from wheeltap.suites.dictionaries.recipes import WithDictionary, kept
from wheeltap.suites.dictionaries.specs import NULLS, SUPERVISED, Kind
from wheeltap.suites.dictionaries.supervised import least_squares_codes, mean_codes
from wheeltap.suites.dictionaries.training import Trained

__all__ = ["CheckedModel", "check", "halves", "load", "prepared", "save", "train"]

RANDOM: Final = 3
"""Random dictionaries for each null of another kind: they cost no training."""

RESEEDS: Final = 2
"""The same training by other seeds."""

SEEDS: Final = 5
"""Nulls of each kind that is trained."""

STEPS: Final = 1000
"""Of each training, where it is not said."""

WIDER: Final = 8
"""Features for each number of a vector, where their number is not given."""

_HELD: Final = 0.5
"""Share of a task that dictionaries are judged on; they are fitted on the others."""


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
    if net is not None and not site:
        paths = [path for path, _ in named_modules(net.model) if path]
        raise UsageError("The site is missing.", where=net.name, got="none", expected="the path of one of the model's "
                         f"modules: {', '.join(paths[:8])}{' ...' * (len(paths) > 8)}",
                         do="Give --site PATH; in Python site=PATH.")  # fmt: skip
    site, fitted = site or "vectors", of_array(examples) if net is None else halves(task_of(examples))[0]
    width = _width(net, fitted, site, how)
    how.setdefault("features", WIDER * width)
    of = () if net is None else (net.model,)
    spec = base.spec("dictionary", {"steps": STEPS, **how, "site": site, "kind": kind}, seed=seed, data=fitted.digest,
                     of=() if net is None else (net.record.fingerprint,))  # fmt: skip
    given = Given(spec, of, fitted, torch.device("cpu") if net is None else net.device)
    return cast("Dictionary", kept(base.recipe_of(spec), given, watch))


def _width(net: Subject | None, fitted: BaseTask, site: str, how: Mapping[str, Scalar]) -> int:
    """Numbers of a vector of a site."""
    model = None if net is None else net.model
    return width_of(model, fitted, site, cast("Any", how.get("positions", "last")))


def joined(net: Subject | None, task: BaseTask | Path, site: str, positions: Positions) -> str:
    """What of an example is joined to one vector, `` (3 positions x 16, joined)``; empty where nothing is."""
    if net is None or isinstance(task, Path | ChoiceTask) or positions == "all":
        return ""
    held = collect(net.model, task.part(torch.zeros(1, dtype=torch.long)), site, positions="all")
    return f" ({len(held)} positions x {held.shape[1]}, joined)" if len(held) > 1 else ""


@final
class CheckedModel(NamedTuple):
    """A net with a dictionary and what stands beside it, ready to be judged.

    Attributes:
        subject: The net with all dictionaries.
        task: What they are judged on.
        plan: Of the audits.
        notes: What is to be said beside the report.
    """

    subject: Subject
    task: BaseTask
    plan: Plan
    notes: tuple[str, ...]


def prepared(  # noqa: PLR0913 - what check and the command line are asked for
    model: Model, dictionary: Dictionary | str | Path, task: Examples, *, site: str, nulls: Sequence[str] = NULLS,
    seeds: int = SEEDS, seed: int = 0, watch: Watch | None = None, sources: tuple[str, ...] = (),
    data: str | None = None, **how: Scalar,
) -> CheckedModel:  # fmt: skip
    """Makes what a dictionary is judged beside, and the plan; see ``check``."""
    nulls = comma_separated(nulls) if isinstance(nulls, str) else nulls
    for name in nulls:
        if name not in NULLS:
            raise UnknownName("null", name, NULLS)
    if not nulls or seeds < 1:
        raise UsageError("A dictionary is judged beside nulls: a score alone says nothing.", where="nulls, seeds",
                         expected=f"at least one of {', '.join(NULLS)}, and at least 1 seed",
                         got=f"{', '.join(nulls) or 'no nulls'}, {seeds} seeds")  # fmt: skip
    net, (fitted, judged) = subjects_of(model)[0], halves(task_of(task))
    given = dictionary if isinstance(dictionary, Dictionary) else load(dictionary)
    _require_of(given, _width(net, fitted, site, how), site)
    counts: dict[str, int] = {"reseed": RESEEDS}
    counts |= {kind: RANDOM * seeds if kind == "random" else seeds for kind in nulls}
    counts |= {"identity": 1, "pca": 1}
    missing = _missing(fitted) if how.get("positions", "last") == "last" else dict.fromkeys(SUPERVISED, "")
    counts |= {kind: 1 for kind in SUPERVISED if kind not in missing}
    notes = [f"Left out: {kind}. {why}" for kind, why in missing.items() if why]
    if given.origin and given.origin.partition(" of ")[0] not in (site, f"{site}.hook_resid_post"):
        notes.append(f"The file says that the dictionary is of {given.origin}. It is checked at {site}.")
    own, kinds = Entry([given]), [kind for kind, count in counts.items() for _ in range(count)]
    settings = {"steps": STEPS, **how, **_like(given, net, fitted, site, how), "entries": ",".join(kinds)}
    spec = specified(WithDictionary, settings, seed=seed, data=fitted.digest,
                     of=(net.record.fingerprint, digest(weights(own))))  # fmt: skip
    recipe = WithDictionary(settings, watch=watch)
    whole = recipe.start(Given(spec, (net.model, own), fitted, net.device)).made()
    subject = Subject(whole, name=net.name)
    audits = [AuditSpec(name, {"entries": ",".join(["own", *kinds])}) for name in AUDITS]
    made = plan([subject], judged, audits=audits, seed=seed, command="dictionary check", sources=sources, data=data)
    return CheckedModel(subject, judged, made, tuple(notes))


def _require_of(dictionary: Dictionary, width: int, site: str) -> None:
    """Raises ``ModelError`` if a dictionary is of other vectors, or holds NaN or infinity."""
    if dictionary.settings.width != width:
        raise ModelError(
            "The dictionary is of vectors of another width.", where=f"site {site}", expected=f"width {width}",
            got=f"width {dictionary.settings.width}",
            do="Name the site that it is of, or give the dictionary of this one.",
        )  # fmt: skip
    if bad := [name for name, one in dictionary.state_dict().items() if not bool(torch.isfinite(one).all())]:
        raise ModelError("The dictionary holds NaN or infinity.", where=f"the dictionary of {site}: {bad[0]}",
                         expected="finite numbers", got="NaN or infinity", do="Train it again, at a lower rate."
                         )  # fmt: skip


def _missing(fitted: BaseTask) -> dict[Kind, str]:
    """Supervised kinds that there are none of, and why: a matter of the labels alone; empty without attributes."""
    found, labels = dict[Kind, str](), {name: one.cpu().numpy() for name, one in fitted.annotations.factors.items()}
    for kind, fit in zip(SUPERVISED, (mean_codes, least_squares_codes), strict=True):
        try:
            fit(np.zeros((len(fitted.targets), 1)), labels)
        except DataError as error:
            found[kind] = error.in_line() if labels else ""
    return found


def _like(given: Dictionary, net: Subject, fitted: BaseTask, site: str, how: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Settings of nulls as large as a dictionary, of its architecture, with as many active features."""
    settings = given.settings
    k, known = settings.k, settings.architecture in get_args(Trained)
    if not k and settings.architecture != "supervised":
        vectors = collect(net.model, fitted, site, positions=cast("Any", how.get("positions", "last")))
        with torch.no_grad():
            k = round(int(torch.count_nonzero(given.encode(vectors.to(net.device)))) / len(vectors))
    return {
        "site": site, "architecture": settings.architecture if known else "topk", "features": settings.features,
        "k": min(max(k, 1), settings.features),
    }  # fmt: skip


def check(
    model: Model, dictionary: Dictionary | str | Path, task: Examples, *, site: str, store: str | Path | None = None,
    workers: int = 1, **how: Any,
) -> Report:  # fmt: skip
    """Judges a dictionary of one site: sufficient, controlling, interpretable, stable? Beside nulls and reseeds.

        wt.dictionaries.check(net, "h5.safetensors", task, site="transformer.h.5")

    Half of the task is what nulls, reseeds and supervised baselines are fitted on; all is judged on the other half.

    Args:
        model: A net in eval mode, which comes back as it was.
        dictionary: Of ``train``; or a file or folder of SAELens, eai-sparsify, dictionary-learning or Gemma Scope.
        task: With attributes (``task.with_factors``) for control and interpretability.
        site: Module path whose output the dictionary is of.
        store: File that keeps every outcome; the same call resumes. In a temporary file if not given.
        workers: Processes; 1 runs in this one.
        how: ``nulls`` (kinds; or one text, separated by commas), ``seeds`` (of each), ``seed``, ``watch``, and
            ``steps``, ``batch``, ``rate`` and ``positions`` of their training.

    Raises:
        WheeltapError: If the file is no dictionary, or one of another width; if there is no such site, no null, or the
            model fails on the examples.
    """
    made = prepared(model, dictionary, task, site=site, **how)
    for note in made.notes:
        warnings.warn(note, stacklevel=2)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "dictionary.wheeltap" if store is None else Path(store)
        return run(made.plan, [made.subject], made.task, store=kept, workers=workers)
