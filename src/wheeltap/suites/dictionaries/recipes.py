"""Dictionaries of a site of a net: trained, held at random as nulls, or computed; nets with dictionaries beside."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final, cast, final

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.canon import Scalar
from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_tensor
from wheeltap.plans.artifacts import Artifacts
from wheeltap.recipes.base import Given, Recipe, State, require_fit, specified
from wheeltap.recipes.fit import Fit, TrainSettings
from wheeltap.recipes.make import Watch, make, place
from wheeltap.recipes.planted import RecodingState
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.dictionaries.activations import ROWS, center, collect, vectors_of, width_of
from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionaryModel, DictionarySettings, random_like
from wheeltap.suites.dictionaries.specs import RANDOM, Kind, kinds_of
from wheeltap.suites.dictionaries.supervised import least_squares_codes, mean_codes
from wheeltap.suites.dictionaries.training import (
    DictionaryHook,
    DictionaryRecipeSettings,
    DictionaryTrainingSettings,
    spread,
)

COMPUTED: Final[tuple[Kind, ...]] = (*RANDOM, "identity", "pca", "mean codes", "least squares")
"""Kinds that take no steps."""


@final
class DictionaryRecipe(Recipe):
    """A dictionary of one site of a net, or of plain vectors.

    It is made of the net (and, where it is random, of another dictionary) and examples; or of no net, where the inputs
    of its examples are the vectors: see ``of_array``.
    """

    name = "dictionary"
    title = "dictionary of the vectors at a site of a net"
    needs = "training"
    version = 2
    settings_type = DictionaryRecipeSettings
    settings: DictionaryRecipeSettings

    def blank(self, given: Given) -> Dictionary:
        """See ``Recipe.blank``."""
        how, of, random = self.settings, given.of, self.settings.kind in RANDOM
        counts = (2,) if random else (1,) if how.kind == "untrained net" else (0, 1)
        if len(of) not in counts or (random and not isinstance(of[1], Dictionary)):
            raise UsageError("A dictionary is made of a net and its examples, or of vectors.",
                             where=f"recipe dictionary, kind {how.kind!r}",
                             expected="a net and a dictionary" if random else "a net, or none where inputs are vectors",
                             got=", ".join(type(one).__name__ for one in of) or "nothing")  # fmt: skip
        if random:
            return Dictionary(cast("Dictionary", of[1]).settings).eval()
        width = width_of(of[0].to(given.device) if of else None, given.examples, how.site, how.positions)
        return Dictionary(_shape(how, width, given.examples)).eval()

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        require_fit(given, self)
        how, seed = self.settings, given.spec.seed
        made = self.blank(given).to(given.device)
        with reproducible(seeds.derive(seed, self.name, "vectors"), device=given.device), torch.no_grad():
            own = learned = self._vectors(given)
            if how.kind == "untrained net":
                net = copy.deepcopy(given.of[0])
                torch.default_generator.manual_seed(seeds.derive(seed, self.name, "untrained"))
                for parameter in net.parameters():
                    flat = parameter.reshape(-1)
                    parameter.copy_(flat[torch.randperm(len(flat)).to(flat.device)].view_as(parameter))
                learned = collect(net, given.examples, how.site, positions=how.positions)
        if how.kind in COMPUTED:
            made.load_state_dict(_computed(how, own, given))
            return Fit(made, lambda rows, step: torch.zeros(()), examples=len(own), settings=TrainSettings(steps=0))
        hook = DictionaryHook(made, learned, own, how, seed=seeds.derive(seed, self.name, "init"))
        settings = TrainSettings(
            seed=seeds.derive(seed, self.name, "order"), steps=how.steps, batch=how.batch,
            rate=how.rate / own.shape[1] ** 0.5,
        )  # fmt: skip
        return Fit(made, hook.loss, examples=len(learned), settings=settings, hooks=[hook])

    def _vectors(self, given: Given) -> Tensor:
        """Of the net as it is: those of the last nets and sites are held, for all dictionaries of them."""
        if not given.of:
            return vectors_of(given.examples).float()
        how, net = self.settings, given.of[0].to(given.device)
        key = (weights_digest(net), *given.spec.of[:1], given.spec.data, how.site, how.positions, str(given.device))
        if key not in _held:
            _held[key] = collect(net, given.examples, how.site, positions=how.positions)
            if len(_held) > _MOST_HELD:
                del _held[next(iter(_held))]
        return _held[key]


_MOST_HELD: Final = 4
_held = dict[tuple[str, ...], Tensor]()
"""Vectors in mapped files, by what they follow from."""


def _shape(how: DictionaryRecipeSettings, width: int, task: BaseTask) -> DictionarySettings:
    """Of one dictionary."""
    if how.kind in ("identity", "pca"):
        return DictionarySettings(architecture="linear", width=width, features=width)
    if how.kind in ("mean codes", "least squares"):
        if not (factors := task.annotations.factors):
            raise DataError("The examples have no attributes.", where=task.name, expected="factors of each example",
                            got="none", do="Give them: task.with_factors({'name': labels}).")  # fmt: skip
        values = sum(len(np.unique(labels.numpy())) for labels in factors.values())
        return DictionarySettings(architecture="supervised", width=width, features=values, attributes=tuple(factors))
    k = how.k if how.architecture == "topk" else 0
    return DictionarySettings(architecture=how.architecture, width=width, features=how.features, k=k)


def _computed(how: DictionaryRecipeSettings, vectors: Tensor, given: Given) -> Mapping[str, Tensor]:
    """The tensors of a dictionary that takes no steps."""
    kind = how.kind
    if kind in RANDOM:
        beside, seed = cast("Dictionary", given.of[1]), seeds.derive(given.spec.seed, "dictionary", kind)
        some, matched = vectors[spread(len(vectors))].to(beside.b_dec.device), kind == "matched random"
        return random_like(beside, some, seed, matched=matched).state_dict()
    (mean, _), width = center(vectors, where=how.site), vectors.shape[1]
    if kind in ("identity", "pca"):
        rows = torch.eye(width)
        if kind == "pca":
            covariance = torch.zeros(width, width, dtype=torch.float64)
            for start in range(0, len(vectors), ROWS):
                left = (vectors[start : start + ROWS] - mean).double()
                covariance += left.T @ left
            solved: Any = torch.linalg.eigh(covariance)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            rows = cast("Tensor", solved[1]).T.flip(0)  # by falling variance
            rows = (rows * rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()).float()
        return {"W_enc": rows.T, "b_enc": torch.zeros(width), "W_dec": rows, "b_dec": mean}
    labels = {name: values.numpy() for name, values in given.examples.annotations.factors.items()}
    fitted = (mean_codes if kind == "mean codes" else least_squares_codes)(vectors.numpy(), labels)
    tensors = {"W_dec": fitted.codes, "b_dec": fitted.mean, "attribute": fitted.attribute, "value": fitted.value}
    return {name: to_tensor(array) for name, array in tensors.items()}


def kept(recipe: Recipe, given: Given, watch: Watch | None = None) -> nn.Module:
    """What a recipe makes; it is kept in the user's cache, so that the same call resumes.

    Raises:
        ModelError: If its training diverged.
    """
    shelf = place("dictionaries")
    made = make(given, recipe, None if shelf is None else Artifacts(shelf), watch=watch)
    return made.done(f"recipe {recipe.name}, kind {given.spec.settings['kind']!r}")


# ---- nets with dictionaries beside -----------------------------------------------------------------------------------


class WithDictionarySettings(DictionaryTrainingSettings, frozen=True, kw_only=True):
    """Which dictionaries stand beside a net, and how they are trained.

    Attributes:
        entries: Kinds of those that are made, separated by commas; one may stand several times. They follow those that
            are given.
    """

    entries: str = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds_of(self.entries)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Of the entries that are made, in order."""
        return kinds_of(self.entries)


@final
class WithDictionary(Recipe):
    """A net with entries beside it: those that it is made of, then others that are made of the net.

    The first entry of a kind is drawn from the seed, later ones and reseeds from others that follow from it; random
    ones stand beside the first entry. Dictionaries are kept, each with its states of training; the whole is not.

    Args:
        settings: See ``WithDictionarySettings``.
        watch: Called with the steps taken and the steps in all, of all dictionaries, in equal shares.
    """

    name = "with-dictionary"
    title = "net with dictionaries of one of its sites"
    version = 2
    settings_type = WithDictionarySettings
    settings: WithDictionarySettings

    def __init__(self, settings: dict[str, Any] | None = None, *, watch: Watch | None = None) -> None:
        super().__init__(settings)
        self.watch = watch
        self.needs = "training" if self.settings.kinds else ""

    def keeps(self, parameters: int) -> bool:
        """See ``Recipe.keeps``."""
        return False

    def blank(self, given: Given) -> DictionaryModel:
        """See ``Recipe.blank``."""
        return self._joined(given, given.of[:1], lambda recipe, asked, done: recipe.blank(asked))

    def start(self, given: Given) -> State:
        """See ``Recipe.start``."""
        require_fit(given, self)
        parts = len(self.settings.kinds)

        def made(recipe: DictionaryRecipe, asked: Given, done: int) -> nn.Module:
            def progress(step: int, steps: int) -> None:
                if self.watch is not None and steps:  # those that are computed take none
                    self.watch(done * steps + step, parts * steps)

            return kept(recipe, asked, progress)

        model = self._joined(given, copy.deepcopy(given.of[:1]), made).to(given.device)
        return RecodingState(model, model)

    def _joined(
        self, given: Given, net: tuple[nn.Module, ...], make: Callable[[DictionaryRecipe, Given, int], nn.Module]
    ) -> DictionaryModel:
        """The net with all entries; each dictionary is made by a recipe, after so many others."""
        how, entries, keys = self.settings, [*given.of[1:]], [*given.spec.of[1:]]
        if not net or not all(isinstance(entry, Dictionary) for entry in entries) or (
            not entries and (not how.kinds or how.kinds[0] in RANDOM)
        ):  # fmt: skip
            raise UsageError("Dictionaries stand beside a net, random ones beside another.",
                             where=f"recipe with-dictionary, entries {how.entries!r}",
                             expected="a net, then dictionaries; or a kind to begin with, such as own",
                             got=", ".join(type(one).__name__ for one in given.of) or "nothing")  # fmt: skip
        shared = cast("dict[str, Scalar]", msgspec.structs.asdict(how))
        del shared["entries"]
        for at, kind in enumerate(how.kinds):
            again, seed = how.kinds[:at].count(kind), given.spec.seed
            if again or kind == "reseed":
                seed = seeds.derive(seed, self.name, kind, again)
            of, names = given.of[:1], given.spec.of[:1]
            if kind in RANDOM:
                of, names = (*of, entries[0]), (*names, keys[0])
            spec = specified(DictionaryRecipe, shared | {"kind": kind}, seed=seed, of=names, data=given.spec.data)
            asked = Given(spec, of, given.task, given.device)
            made = cast("Dictionary", make(DictionaryRecipe(dict(spec.settings)), asked, at))
            made.kind = kind
            entries.append(made)
            keys.append(spec.key)
        return DictionaryModel(net[0], how.site, cast("list[Dictionary]", copy.deepcopy(entries))).eval()
