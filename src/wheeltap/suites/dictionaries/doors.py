"""Dictionaries from Python, ``wt.dictionaries``: trained and checked as ``wheeltap dictionary`` does.

A task is cut in two, always in the same way: dictionaries are fitted on one part, and judged on the other.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast, final

import torch

from wheeltap.core.canon import ArtifactSpec, Scalar
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.plans.artifacts import Artifacts, digest
from wheeltap.plans.plan import AuditSpec, Plan
from wheeltap.recipes import base
from wheeltap.recipes.base import Given
from wheeltap.recipes.make import Watch, make, place, weights
from wheeltap.report.report import Report
from wheeltap.runs.given import Examples, Model, subjects_of, task_of
from wheeltap.runs.loop import run
from wheeltap.runs.planning import plan
from wheeltap.runs.studying import split
from wheeltap.suites.dictionaries.activations import Positions, collect, of_array, sites_of
from wheeltap.suites.dictionaries.audits.claims import AUDITS
from wheeltap.suites.dictionaries.audits.common import SUPERVISED
from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionaryModel, Entry
from wheeltap.suites.dictionaries.files import read as load
from wheeltap.suites.dictionaries.files import write as save
from wheeltap.suites.dictionaries.specs import NULLS, Kind

__all__ = ["Training", "check", "fit_supervised", "halves", "load", "prepared", "save", "train"]

RANDOM: Final = 16
"""Random dictionaries beside one: they cost no training."""

RESEEDS: Final = 2
"""The same training by other seeds."""

SEEDS: Final = 5
"""Nulls of each kind that is trained."""

WIDER: Final = 8
"""Features for each number of a vector, where their number is not given."""

_HELD: Final = 0.5
"""Share of a task that dictionaries are judged on; they are fitted on the others."""

_TRAINED: Final = ("topk", "batchtopk", "jumprelu", "gated", "relu")
"""Architectures that the recipe ``dictionary`` trains."""


@final
@dataclass(frozen=True, kw_only=True)
class Training:
    """How dictionaries are trained; also flags of ``wheeltap dictionary``.

    Attributes:
        architecture: ``topk``, ``batchtopk``, ``jumprelu``, ``gated`` or ``relu``.
        features: How many; by default 8 for each number of a vector.
        k: Features that are active, on average.
        positions: Of a language model: the ``last`` one of each context, or ``all`` but the first.
        steps: Of training.
        batch: Vectors of a step.
        rate: First step size.
    """

    architecture: str = "topk"
    features: int | None = None
    k: int = 8
    positions: Positions = "last"
    steps: int = 2000
    batch: int = 256
    rate: float = 1e-3

    def settings(self, site: str, kind: Kind, width: int) -> dict[str, Scalar]:
        """Of the recipe ``dictionary``."""
        features = WIDER * width if self.features is None else self.features
        return {
            "site": site, "kind": kind, "architecture": self.architecture, "features": features, "k": self.k,
            "positions": self.positions, "steps": self.steps, "batch": self.batch, "rate": self.rate,
        }  # fmt: skip


@final
@dataclass(frozen=True, eq=False)
class _Maker:
    """Makes entries for one net; what is made is kept in the user's cache, so that the same call resumes."""

    net: Subject | None
    fitted: BaseTask
    site: str
    how: Training
    watch: Watch | None = None

    def width(self) -> int:
        """Numbers of a vector of the site."""
        if self.net is None:
            return int(cast("Any", self.fitted).inputs.shape[1])
        one = self.fitted.part(torch.zeros(1, dtype=torch.long))
        return collect(self.net.model, one, (self.site,), positions=self.how.positions).width(self.site)

    def entry(self, kind: Kind, seed: int, *, beside: Entry | None = None) -> Entry:
        """One entry.

        Args:
            kind: How it is made.
            seed: From which it is drawn.
            beside: The dictionary that a random one is like.

        Raises:
            WheeltapError: If it cannot be made.
        """
        of = [] if self.net is None else [(self.net.record.fingerprint, self.net.model)]
        if kind == "random" and beside is not None:
            of.append((digest(weights(beside)), beside))
        spec: ArtifactSpec = base.spec(
            "dictionary", self.how.settings(self.site, kind, self.width()), seed=seed,
            of=tuple(key for key, _ in of), data=self.fitted.digest,
        )  # fmt: skip
        shelf = place("dictionaries")
        device = torch.device("cpu") if self.net is None else self.net.device
        given = Given(spec, tuple(module for _, module in of), self.fitted, device)
        made = make(given, base.recipe_of(spec), None if shelf is None else Artifacts(shelf), watch=self.watch)
        return cast("Entry", made.done(f"dictionary ({kind})"))


def halves(task: BaseTask) -> tuple[BaseTask, BaseTask]:
    """The examples that dictionaries are fitted on, and those that they are judged on.

    Raises:
        DataError: If there are too few different ones.
    """
    judged, fitted = split(task.once(), _HELD)
    return fitted, judged


def train(
    model: Model | None,
    examples: Examples | str | Path,
    *,
    site: str = "vectors",
    kind: Kind = "own",
    seed: int = 0,
    watch: Watch | None = None,
    **how: Any,
) -> Dictionary:
    """Trains a dictionary of one site, on half of a task; ``check`` judges it on the other half.

        made = wt.dictionaries.train(net, task, site="transformer.h.5", features=4096, k=16)
        wt.dictionaries.save(made, "h5.safetensors")

    Args:
        model: A net in eval mode, which comes back as it was; ``None`` where the examples are plain vectors.
        examples: A task; or, without a model, vectors ``[row, width]``: an array, a ``.npy`` or ``.npz`` file.
        site: Module path whose output is meant.
        kind: Another one than ``own`` for a null or a baseline: ``mean codes``, ``pca`` ...
        seed: Of all draws.
        watch: Called with the steps taken and the steps in all.
        how: See ``Training``.

    Raises:
        WheeltapError: If it cannot be trained: an unknown site, vectors that are not finite.
    """
    net = None if model is None else subjects_of(model)[0]
    fitted = of_array(examples) if net is None else halves(task_of(examples))[0]
    return cast("Dictionary", _Maker(net, fitted, site, Training(**how), watch).entry(kind, seed)[0])


def fit_supervised(model: Model, task: Examples, *, site: str, kind: Kind = "mean codes") -> Dictionary:
    """A dictionary whose features are the values of a task's attributes: ``mean codes`` or ``least squares``.

    Raises:
        UsageError: If it is of another kind.
        DataError: If the task has no attributes.
    """
    if kind not in SUPERVISED:
        raise UsageError("This kind of dictionary is not supervised.", where="kind", expected=" or ".join(SUPERVISED),
                         got=repr(kind))  # fmt: skip
    return train(model, task, site=site, kind=kind)


@final
@dataclass(frozen=True, eq=False)
class CheckedModel:
    """A net with a dictionary and what stands beside it, ready to be judged.

    Attributes:
        subject: The net with all dictionaries.
        task: What they are judged on.
        plan: Of the audits.
    """

    subject: Subject
    task: BaseTask
    plan: Plan


def prepared(  # noqa: PLR0913 - a door: each is a choice of its own
    model: Model,
    dictionary: Dictionary | str | Path,
    task: Examples,
    *,
    site: str,
    nulls: Sequence[Kind] = NULLS,
    seeds: int = SEEDS,
    seed: int = 0,
    watch: Watch | None = None,
    sources: tuple[str, ...] = (),
    data: str | None = None,
    **how: Any,
) -> CheckedModel:
    """Makes what a dictionary is judged beside, and the plan; see ``check``."""
    net, (site, *more) = subjects_of(model)[0], sites_of(site)
    if more:
        raise UsageError("A dictionary is of one site.", where="site", expected="one module path", got=", ".join(more))
    fitted, judged = halves(task_of(task))
    given = dictionary if isinstance(dictionary, Dictionary) else load(dictionary)
    own, maker = Entry([given]), _Maker(net, fitted, site, Training(**how), watch)
    _require_width(given, maker)
    maker = replace(maker, how=_like(given, maker))
    counts: dict[Kind, int] = {"own": 1, "reseed": RESEEDS, **{kind: RANDOM if kind == "random" else seeds
                               for kind in nulls}, "identity": 1, "pca": 1}  # fmt: skip
    counts |= dict.fromkeys(SUPERVISED, 1) if judged.annotations.factors else {}
    kinds: list[tuple[Kind, int]] = [(kind, seed + at + (kind == "reseed")) for kind, count in counts.items() for at in range(count)]
    entries = [own if kind == "own" else maker.entry(kind, at, beside=own) for kind, at in kinds]
    whole = Subject(DictionaryModel(net.model, (site,), entries).eval(), name=net.name)
    asked: dict[str, Scalar] = {"entries": ",".join(kind for kind, _ in kinds)}
    made = plan([whole], judged, audits=[AuditSpec(name, dict(asked)) for name in AUDITS], seed=seed,
                command="dictionary check", sources=sources, data=data)  # fmt: skip
    return CheckedModel(whole, judged, made)


def _require_width(given: Dictionary, maker: _Maker) -> None:
    """Raises ``ModelError`` if the dictionary cannot be of this site."""
    width = maker.width()
    if given.settings.width != width:
        raise ModelError(
            "The dictionary is of vectors of another width.", where=f"site {maker.site}",
            expected=f"width {width}, as the site has", got=f"width {given.settings.width}",
            do="Name the site that it was trained on (--site), or give the dictionary of this one.",
        )  # fmt: skip


def _like(given: Dictionary, maker: _Maker) -> Training:
    """How nulls are trained that are as large as a dictionary, of its architecture, with as many active features."""
    assert maker.net is not None, "a dictionary is judged in its net"
    how, settings = maker.how, given.settings
    k, known = settings.k, settings.architecture in _TRAINED
    if not k and settings.architecture != "supervised":
        vectors = collect(maker.net.model, maker.fitted, (maker.site,), positions=how.positions)
        with torch.no_grad():
            k = int(torch.count_nonzero(given.encode(vectors.all(maker.site))).item() / max(vectors.rows, 1) + 0.5)
    return replace(
        how, architecture=settings.architecture if known else "topk", features=settings.features,
        k=min(max(k, 1), settings.features),
    )  # fmt: skip


def check(
    model: Model,
    dictionary: Dictionary | str | Path,
    task: Examples,
    *,
    site: str,
    store: str | Path | None = None,
    workers: int = 1,
    **how: Any,
) -> Report:
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
        how: ``nulls`` (kinds), ``seeds`` (of each), ``seed``, ``watch``, and ``steps``, ``batch``, ``rate`` and
            ``positions`` of their training.

    Raises:
        WheeltapError: If the file is no dictionary, or one of another width; if there is no such site.
    """
    made = prepared(model, dictionary, task, site=site, **how)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "dictionary.wheeltap" if store is None else Path(store)
        return run(made.plan, [made.subject], made.task, store=kept, workers=workers)
