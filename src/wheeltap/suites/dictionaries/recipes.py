"""Dictionaries of the sites of a net: trained, held at random as nulls, or computed; nets with dictionaries beside."""

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
from wheeltap.core.settings import comma_separated
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import to_tensor
from wheeltap.plans.artifacts import Artifacts
from wheeltap.recipes.base import Given, Needs, Recipe, State, require_fit, specified
from wheeltap.recipes.fit import Fit, TrainSettings
from wheeltap.recipes.make import make, place
from wheeltap.recipes.planted import RecodingState
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.dictionaries.activations import ROWS, Activations, collect, of_array, width_of
from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionaryModel, DictionarySettings, Entry, random_like
from wheeltap.suites.dictionaries.specs import Kind, kinds_of
from wheeltap.suites.dictionaries.supervised import least_squares_codes, mean_codes
from wheeltap.suites.dictionaries.training import DictionaryHook, DictionaryTrainingSettings, dictionaries, spread

COMPUTED: Final[tuple[Kind, ...]] = ("random", "identity", "pca", "mean codes", "least squares")
"""Kinds that take no steps."""


class DictionaryRecipeSettings(DictionaryTrainingSettings, frozen=True, kw_only=True):
    """Which dictionary, of which kind, and how it is trained.

    Attributes:
        kind: ``own`` and ``reseed`` are trained; ``frozen decoder``, ``frozen encoder`` and ``soft-frozen decoder``
            leave that at random, or near it; ``untrained net`` learns from the net with the weights of each tensor in
            another order, around the mean and in the scale of the net's own vectors. ``COMPUTED`` ones take no steps;
            ``random`` stands beside the entry that it is made of.
    """

    kind: Kind = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind in ("mean codes", "least squares") and self.positions == "all":
            raise UsageError("Labels are of examples, not of positions.", where=f"kind {self.kind!r}",
                             expected="positions 'last'", got="'all'")  # fmt: skip


@final
class DictionaryRecipe(Recipe):
    """An entry: a dictionary for each site of a net, or one of plain vectors.

    It is made of the net (and, ``random``, of an entry) and examples; or of no net, where the inputs of its examples
    are the vectors: see ``of_array``.

    Args:
        settings: See ``DictionaryRecipeSettings``.
        vectors: Shared by recipes of one net and task, which so collect vectors once.
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
        how, random = self.settings, self.settings.kind == "random"
        if len(given.of) not in {"random": (2,), "untrained net": (1,)}.get(how.kind, (0, 1)) or (
            random and not isinstance(given.of[1], Entry)
        ):
            raise UsageError("A dictionary is made of a net and its examples, or of vectors.",
                             where=f"recipe dictionary, kind {how.kind!r}",
                             expected="a net and an entry" if random else "a net, or none where inputs are vectors",
                             got=", ".join(type(one).__name__ for one in given.of) or "nothing")  # fmt: skip
        if random:
            shapes = [one.settings for one in dictionaries(given.of[1])]
        elif given.of:
            net = given.of[0].to(given.device)
            widths = width_of(net, given.examples, comma_separated(how.site), how.positions)
            shapes = [_shape(how, width, given.examples) for width in widths]
        else:
            shapes = [_shape(how, _plain(given.examples).shape[1], given.examples)]
        return Entry([Dictionary(one) for one in shapes], kind=how.kind, seed=given.spec.seed).eval()

    def start(self, given: Given) -> Fit:
        """See ``Recipe.start``."""
        require_fit(given, self)
        how, seed = self.settings, given.spec.seed
        entry = self.blank(given).to(given.device)
        with reproducible(seeds.derive(seed, self.name, "vectors"), device=given.device), torch.no_grad():
            own = self._vectors(given, untrained=False)
            learned = self._vectors(given, untrained=True) if how.kind == "untrained net" else own
        if how.kind in COMPUTED:
            for at, one in enumerate(dictionaries(entry)):
                one.load_state_dict(_computed(how.kind, own, at, given))
            return Fit(entry, lambda rows, step: torch.zeros(()), examples=own.rows, settings=TrainSettings(steps=0))
        lesson = DictionaryHook(entry, learned, own, how, kind=how.kind, seed=seeds.derive(seed, self.name, "init"))
        settings = TrainSettings(
            seed=seeds.derive(seed, self.name, "order"), steps=how.steps, batch=how.batch,
            rate=how.rate / own.width(own.sites[0]) ** 0.5,
        )  # fmt: skip
        return Fit(entry, lesson.loss, examples=learned.rows, settings=settings, hooks=[lesson])

    def _vectors(self, given: Given, *, untrained: bool) -> Activations:
        how, seed = self.settings, given.spec.seed if untrained else ""
        if not given.of:
            return Activations({how.site or "vectors": _plain(given.examples).float().numpy()})
        key = "/".join(map(str, (given.spec.of[0], given.spec.data, how.site, how.positions, given.device, seed)))
        if key not in self.vectors:
            model = given.of[0].to(given.device)
            if untrained:
                model = copy.deepcopy(model)
                torch.default_generator.manual_seed(seeds.derive(given.spec.seed, self.name, "untrained"))
                for parameter in model.parameters():
                    flat = parameter.reshape(-1)
                    parameter.copy_(flat[torch.randperm(len(flat)).to(flat.device)].view_as(parameter))
            self.vectors[key] = collect(model, given.examples, comma_separated(how.site), positions=how.positions)
        return self.vectors[key]


def _plain(task: BaseTask) -> Tensor:
    """The inputs of a task as vectors, ``[row, width]``; refused as ``of_array`` does where they are none."""
    inputs = task.inputs if isinstance(task, Task) else None
    held = of_array(inputs if isinstance(inputs, Tensor) else torch.zeros(0, dtype=torch.long), name=task.name).inputs
    return cast("Tensor", held).cpu()


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
    k = how.k if how.architecture in ("topk", "batchtopk") else 0
    return DictionarySettings(architecture=how.architecture, width=width, features=how.features, k=k)


def _computed(kind: Kind, vectors: Activations, at: int, given: Given) -> Mapping[str, Tensor]:
    """The tensors of the dictionary of one site."""
    site = vectors.sites[at]
    if kind == "random":
        beside = dictionaries(given.of[1])[at].to(given.device)
        rows = vectors.batch(site, spread(vectors.rows)).to(given.device)
        return random_like(beside, rows, seeds.derive(given.spec.seed, "dictionary", kind)).state_dict()
    mean, _ = vectors.center(site)
    width = len(mean)
    if kind in ("identity", "pca"):
        rows = torch.eye(width)
        if kind == "pca":
            covariance = torch.zeros(width, width, dtype=torch.float64)
            for start in range(0, vectors.rows, ROWS):
                left = (vectors.batch(site, slice(start, start + ROWS)) - mean).double()
                covariance += left.T @ left
            solved: Any = torch.linalg.eigh(covariance)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            rows = cast("Tensor", solved[1]).T.flip(0)  # by falling variance
            rows = (rows * rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()).float()
        return {"W_enc": rows.T, "b_enc": torch.zeros(width), "W_dec": rows, "b_dec": mean}
    labels = {name: values.numpy() for name, values in given.examples.annotations.factors.items()}
    fitted = (mean_codes if kind == "mean codes" else least_squares_codes)(vectors.all(site).numpy(), labels)
    tensors = {"W_dec": fitted.codes, "b_dec": fitted.mean, "attribute": fitted.attribute, "value": fitted.value}
    return {name: to_tensor(array) for name, array in tensors.items()}


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
    ones stand beside the first entry. Entries are kept, each with its states of training; the whole is not.
    """

    name = "with-dictionary"
    title = "net with dictionaries of some of its sites"
    settings_type = WithDictionarySettings
    settings: WithDictionarySettings

    def keeps(self, parameters: int) -> bool:
        """See ``Recipe.keeps``."""
        return False

    @property
    def needs(self) -> Needs:
        """See ``Recipe.needs``."""
        return "training" if self.settings.kinds else ""

    def blank(self, given: Given) -> DictionaryModel:
        """See ``Recipe.blank``."""
        return self.joined(given, given.of[:1], lambda recipe, asked: recipe.blank(asked))

    def start(self, given: Given) -> State:
        """See ``Recipe.start``."""
        require_fit(given, self)
        folder = place("dictionaries")

        def made(recipe: DictionaryRecipe, asked: Given) -> nn.Module:
            kept = make(asked, recipe, Artifacts(folder) if folder else None)
            return kept.done(f"recipe {recipe.name}, kind {recipe.settings.kind!r}")

        model = self.joined(given, copy.deepcopy(given.of[:1]), made).to(given.device)
        return RecodingState(model, model)

    def joined(
        self, given: Given, net: tuple[nn.Module, ...], make: Callable[[DictionaryRecipe, Given], nn.Module]
    ) -> DictionaryModel:
        """The net with all entries.

        Raises:
            UsageError: If there is no net, what follows it is no entry, or a random entry has none to stand beside.
        """
        how, keys, entries = self.settings, [*given.spec.of[1:]], [*given.of[1:]]
        vectors = dict[str, Activations]()
        if not net or not all(isinstance(entry, Entry) for entry in entries) or (
            not entries and how.kinds[:1] in ((), ("random",))
        ):  # fmt: skip
            raise UsageError("Dictionaries stand beside a net, random ones beside another.",
                             where=f"recipe with-dictionary, entries {how.entries!r}",
                             expected="a net, then entries; or a kind to begin with, such as own",
                             got=", ".join(type(one).__name__ for one in given.of) or "nothing")  # fmt: skip
        for at, kind in enumerate(how.kinds):
            again, seed = how.kinds[:at].count(kind), given.spec.seed
            if again or kind == "reseed":
                seed = seeds.derive(seed, self.name, kind, again)
            settings = cast("dict[str, Scalar]", msgspec.structs.asdict(how)) | {"kind": kind}
            del settings["entries"]
            beside = 1 if kind == "random" else 0
            of, names = (*given.of[:1], *entries[:beside]), (*given.spec.of[:1], *keys[:beside])
            spec = specified(DictionaryRecipe, settings, seed=seed, of=names, data=given.spec.data)
            recipe = DictionaryRecipe(dict(spec.settings), vectors=vectors)
            entries.append(make(recipe, Given(spec, of, given.task, given.device)))
            keys.append(spec.key)
        own = cast("list[Entry]", copy.deepcopy(entries))
        return DictionaryModel(net[0], comma_separated(how.site), own).eval()
