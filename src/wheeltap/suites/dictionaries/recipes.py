"""Dictionaries of the sites of a net: trained, held at random as nulls, or computed; nets with dictionaries beside."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.canon import Scalar
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import to_tensor
from wheeltap.plans.artifacts import Arrays, Artifacts, Note
from wheeltap.recipes.base import Given, Needs, Recipe, State, Status, counted, require_fit, specified
from wheeltap.recipes.fit import Fit, TrainSettings
from wheeltap.recipes.make import make, place
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.dictionaries.activations import Activations, collect, sites_of, width_of
from wheeltap.suites.dictionaries.dictionary import (
    Dictionary,
    DictionaryModel,
    DictionarySettings,
    Entry,
    random_like,
)
from wheeltap.suites.dictionaries.specs import KINDS, Kind
from wheeltap.suites.dictionaries.supervised import least_squares_codes, mean_codes
from wheeltap.suites.dictionaries.training import (
    COMPUTED,
    ROWS,
    DictionaryRecipeSettings,
    DictionaryTraining,
    Lesson,
    UnitRows,
    Upkeep,
    dictionaries,
    spread,
)


@final
class DictionaryRecipe(Recipe):
    """An entry: a dictionary for each site of a net, or one of plain vectors.

    It is made of the net (and, ``random``, of an entry) and examples; or of no net, where the inputs of its examples
    are the vectors: see ``of_array``.

    Attributes:
        vectors: Those that were collected before, by what they are of: shared by recipes of one net and task.
    """

    name = "dictionary"
    title = "dictionary of the vectors at some sites of a net"
    settings_type = DictionaryRecipeSettings
    settings: DictionaryRecipeSettings

    def __init__(
        self, settings: dict[str, Any] | None = None, *, vectors: dict[str, Activations] | None = None
    ) -> None:
        super().__init__(settings)
        self.vectors = {} if vectors is None else vectors

    @property
    def needs(self) -> Needs:
        """See ``Recipe.needs``."""
        return "training"

    def blank(self, given: Given) -> Entry:
        """See ``Recipe.blank``."""
        how = self.settings
        _require_parts(given, how)
        if how.kind == "random":
            shapes = [one.settings for one in dictionaries(given.of[1])]
        else:
            widths = (
                width_of(given.of[0].to(given.device), given.examples, sites_of(how.site), how.positions)
                if given.of
                else (_plain(given.examples).shape[1],)
            )
            shapes = [_shape(how, width, given.examples) for width in widths]
        return Entry([Dictionary(one) for one in shapes], kind=how.kind, seed=given.spec.seed).eval()

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        require_fit(given, self)
        how, seed = self.settings, given.spec.seed
        entry = self.blank(given).to(given.device)
        with reproducible(seeds.derive(seed, self.name, "vectors"), device=given.device), torch.no_grad():
            own = self._vectors(given, untrained=False)
            learned = self._vectors(given, untrained=True) if how.kind == "untrained net" else own
        settings = TrainSettings(
            seed=seeds.derive(seed, self.name, "order"), batch=how.batch,
            rate=how.rate / own.width(own.sites[0]) ** 0.5,
            steps=0 if how.kind in COMPUTED else how.steps,
        )  # fmt: skip
        if how.kind in COMPUTED:
            with torch.no_grad():
                for at, (site, dictionary) in enumerate(zip(own.sites, dictionaries(entry), strict=True)):
                    beside = dictionaries(given.of[1])[at] if how.kind == "random" else None
                    dictionary.load_state_dict(_computed(how.kind, own, site, given, beside=beside))
            return Fit(entry, lambda rows, step: torch.zeros(()), examples=own.rows, settings=settings)
        lesson = Lesson(entry, learned, own, how)
        lesson.begin(seeds.derive(seed, self.name, "init"))
        hooks = [UnitRows(lesson), Upkeep(lesson)]
        return Fit(entry, lesson.loss, examples=learned.rows, settings=settings, hooks=hooks)

    def _vectors(self, given: Given, *, untrained: bool) -> Activations:
        how = self.settings
        if not given.of:
            vectors = _plain(given.examples)
            return Activations({how.site or "vectors": np.asarray(vectors.float().numpy())})
        drawn = given.spec.seed if untrained else ""
        key = "/".join([given.spec.of[0], given.spec.data, how.site, how.positions, str(given.device), str(drawn)])
        if key not in self.vectors:
            model = given.of[0].to(given.device)
            model = _untrained(model, seeds.derive(given.spec.seed, self.name, "untrained")) if untrained else model
            self.vectors[key] = collect(model, given.examples, sites_of(how.site), positions=how.positions)
        return self.vectors[key]


def _require_parts(given: Given, how: DictionaryRecipeSettings) -> None:
    wanted = (2,) if how.kind == "random" else (0, 1) if how.kind != "untrained net" else (1,)
    if len(given.of) not in wanted or (how.kind == "random" and not isinstance(given.of[1], Entry)):
        raise UsageError(
            "A dictionary is made of a net and its examples, or of vectors.",
            where=f"recipe dictionary, kind {how.kind!r}",
            expected="a net and an entry" if how.kind == "random" else "a net, or none where the inputs are vectors",
            got=", ".join(type(one).__name__ for one in given.of) or "nothing",
        )


def _plain(task: BaseTask) -> Tensor:
    """The inputs of a task as vectors.

    Raises:
        DataError: If they are no rows of floating-point numbers.
    """
    vectors = task.inputs if isinstance(task, Task) else None
    if not isinstance(vectors, Tensor) or vectors.ndim != 2 or not vectors.is_floating_point():
        raise DataError(
            "The inputs of these examples are no vectors.",
            where=task.name,
            expected="floating-point numbers [row, width], where there is no net",
            got=f"{str(vectors.dtype).removeprefix('torch.')} {list(vectors.shape)}"
            if isinstance(vectors, Tensor)
            else "inputs by name, or texts",
            do="Give the net whose site holds the vectors, or make the examples with activations.of_array.",
        )
    return vectors.cpu()


def _shape(how: DictionaryRecipeSettings, width: int, task: BaseTask) -> DictionarySettings:
    """Of one dictionary."""
    if how.kind in ("identity", "pca"):
        return DictionarySettings(architecture="linear", width=width, features=width)
    if how.kind in ("mean codes", "least squares"):
        factors = task.annotations.factors
        if not factors:
            raise DataError(
                "The examples have no attributes.",
                where=task.name,
                expected="factors that are known of each example",
                got="none",
                do="Give them: task.with_factors({'name': labels}).",
            )
        values = sum(len(np.unique(labels.numpy())) for labels in factors.values())
        return DictionarySettings(architecture="supervised", width=width, features=values, attributes=tuple(factors))
    k = how.k if how.architecture in ("topk", "batchtopk") else 0
    return DictionarySettings(architecture=how.architecture, width=width, features=how.features, k=k)


def _untrained(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose weights are, within each tensor, in another order: as large, but nothing was learned."""
    other = copy.deepcopy(model)
    with reproducible(seed), torch.no_grad():
        for parameter in other.parameters():
            flat = parameter.reshape(-1)
            parameter.copy_(flat[torch.randperm(len(flat)).to(flat.device)].view_as(parameter))
    return other


# ---- kinds that take no steps ----------------------------------------------------------------------------------------


def _computed(
    kind: Kind, vectors: Activations, site: str, given: Given, *, beside: Dictionary | None
) -> Mapping[str, Tensor]:
    """The tensors of a dictionary that is computed."""
    if beside is not None:
        rows = vectors.batch(site, spread(vectors.rows)).to(beside.b_dec.device)
        return random_like(beside, rows, seeds.derive(given.spec.seed, "dictionary", kind)).state_dict()
    mean, _ = vectors.center(site)
    width = vectors.width(site)
    if kind in ("identity", "pca"):
        rows = torch.eye(width)
        if kind == "pca":
            moments = torch.zeros(width, width, dtype=torch.float64)
            for start in range(0, vectors.rows, ROWS):
                part = (vectors.batch(site, slice(start, start + ROWS)) - mean).double()
                moments += part.T @ part
            # By falling variance; the largest number of each direction is positive.
            _, across = cast("tuple[Tensor, Tensor]", torch.linalg.eigh(moments))  # pyright: ignore[reportUnknownMemberType]
            rows = across.T.flip(0)
            rows = rows * rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
        return {"W_enc": rows.T.float(), "b_enc": torch.zeros(width), "W_dec": rows.float(), "b_dec": mean}
    labels = {name: values.numpy() for name, values in given.examples.annotations.factors.items()}
    fitted = (mean_codes if kind == "mean codes" else least_squares_codes)(vectors.all(site).numpy(), labels)
    return {
        "W_dec": to_tensor(fitted.codes).float(), "b_dec": to_tensor(fitted.mean).float(),
        "attribute": to_tensor(fitted.attribute), "value": to_tensor(fitted.value),
    }  # fmt: skip


# ---- nets with dictionaries beside -----------------------------------------------------------------------------------


class WithDictionarySettings(DictionaryTraining, frozen=True, kw_only=True):
    """Which dictionaries stand beside a net, and how they are trained.

    Attributes:
        entries: Kinds of those that are made, separated by commas; they follow those that are given.
    """

    entries: str = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind in self.kinds:
            if kind not in KINDS:
                raise UnknownName("kind of dictionary", kind, KINDS)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Of the entries that are made, in order; one may stand several times."""
        return cast("tuple[Kind, ...]", tuple(kind.strip() for kind in self.entries.split(",") if kind.strip()))


@final
class WithDictionary(Recipe):
    """A net with entries beside it: those that it is made of, then others that are made of the net.

    The first entry of a kind is drawn from the seed, later ones and reseeds from others that follow from it.
    """

    name = "with-dictionary"
    title = "net with dictionaries of some of its sites"
    settings_type = WithDictionarySettings
    settings: WithDictionarySettings

    def keeps(self, parameters: int) -> bool:
        """See ``Recipe.keeps``: its entries are kept, each by itself."""
        return False

    @property
    def needs(self) -> Needs:
        """See ``Recipe.needs``."""
        return "training" if self.settings.kinds else ""

    def blank(self, given: Given) -> DictionaryModel:
        """See ``Recipe.blank``."""
        entries = [*_entries(given)]
        for at in range(len(self.settings.kinds)):
            recipe, asked = self.entry(given, at, entries, {})
            entries.append(recipe.blank(asked))
        return self._joined(given, entries)

    def start(self, given: Given) -> State:
        """See ``Recipe.start``."""
        require_fit(given, self)
        return JoinState(self, given)

    def entry(
        self, given: Given, at: int, entries: Sequence[Entry], vectors: dict[str, Activations]
    ) -> tuple[DictionaryRecipe, Given]:
        """The recipe of an entry that is made, and what it is made from; ``random`` stands beside the first one."""
        how, seed = self.settings, given.spec.seed
        kind = how.kinds[at]
        again = how.kinds[:at].count(kind)
        if again or kind == "reseed":
            seed = seeds.derive(seed, self.name, kind, again)
        settings = cast("dict[str, Scalar]", msgspec.structs.asdict(how)) | {"kind": kind}
        del settings["entries"]
        of, names = given.of[:1], given.spec.of[:1]
        if kind == "random":
            if not entries:
                raise UsageError("A random dictionary stands beside another one.", where="setting entries",
                                 expected="another kind first, such as own", got=how.entries)  # fmt: skip
            beside = given.spec.of[1] if len(given.of) > 1 else self.entry(given, 0, (), {})[1].spec.key
            of, names = (*of, entries[0]), (*names, beside)
        spec = specified(DictionaryRecipe, settings, seed=seed, of=names, data=given.spec.data)
        return DictionaryRecipe(dict(spec.settings), vectors=vectors), Given(spec, of, given.task, given.device)

    def _joined(self, given: Given, entries: Sequence[Entry]) -> DictionaryModel:
        return DictionaryModel(given.of[0], sites_of(self.settings.site), copy.deepcopy([*entries])).eval()

    def joined(self, given: Given, entries: Sequence[Entry]) -> DictionaryModel:
        """A copy of the net, with copies of the entries."""
        net = copy.deepcopy(given.of[0]).to(given.device)
        return self._joined(Given(given.spec, (net, *given.of[1:])), entries).to(given.device)


def _entries(given: Given) -> tuple[Entry, ...]:
    """Those that it is made of.

    Raises:
        UsageError: If there is no net, or something that follows it is no entry.
    """
    net, *entries = given.of or (None,)
    if net is None or not all(isinstance(entry, Entry) for entry in entries):
        raise UsageError(
            "Dictionaries stand beside a net.",
            where="recipe with-dictionary",
            expected="a net, then entries",
            got=", ".join(type(one).__name__ for one in given.of) or "nothing",
        )
    return cast("tuple[Entry, ...]", tuple(entries))


@final
class JoinState(State):
    """Entries on their way, one a step; each is kept by itself, with its states of training.

    Args:
        recipe: Of the net with entries.
        given: What it is made from.
    """

    def __init__(self, recipe: WithDictionary, given: Given) -> None:
        self._recipe, self._given, self._entries = recipe, given, [*_entries(given)]
        self._vectors = dict[str, Activations]()
        self.step, self.steps = 0, max(len(recipe.settings.kinds), 1)
        self.status: Status = "training"

    def advance(self, until: int) -> None:
        """See ``State.advance``."""
        while self.step < min(until, self.steps):
            if self._recipe.settings.kinds:
                recipe, asked = self._recipe.entry(self._given, self.step, self._entries, self._vectors)
                folder = place("dictionaries")
                made = make(asked, recipe, Artifacts(folder) if folder else None)
                self._entries.append(cast("Entry", made.done(f"recipe {recipe.name}, kind {recipe.settings.kind!r}")))
            self.step += 1
        self.status = "done" if self.step == self.steps else "training"

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See ``State.arrays``."""
        return {"step": np.array(self.step, dtype=np.int32)}

    def resume(self, arrays: Arrays, note: Note) -> None:
        """See ``State.resume``."""
        self.advance(counted(note, {"step": self.steps})["step"])

    def made(self) -> nn.Module:
        """See ``State.made``."""
        return self._recipe.joined(self._given, self._entries)
