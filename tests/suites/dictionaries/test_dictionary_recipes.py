"""Dictionaries that are trained, held at random or computed: what each kind promises; nets with dictionaries beside."""

from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.task import BaseTask, Task
from wheeltap.plans.artifacts import digest
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.make import make, weights
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.dictionaries.activations import collect, of_array
from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionaryModel
from wheeltap.suites.dictionaries.nets import WordTransformer
from wheeltap.suites.dictionaries.recipes import DictionaryRecipe, WithDictionary
from wheeltap.suites.dictionaries.training import CONE
from wheeltap.testing.recipe_contract import RecipeContract

RANDOM = np.random.default_rng(0)
CONTEXTS = [[int(word) for word in RANDOM.integers(0, 11, int(RANDOM.integers(3, 7)))] for _ in range(40)]
WORDS = ChoiceTask(CONTEXTS, [[[1], [2]]] * 40, [0] * 40).with_factors(
    {"first": [context[0] % 3 for context in CONTEXTS], "length": [len(context) for context in CONTEXTS]}
)
TINY: dict[str, Any] = {"site": "blocks.0", "features": 16, "k": 2, "steps": 8, "batch": 8}
TRAINED = ("topk", "relu")


def net() -> WordTransformer:
    with reproducible(2):
        return WordTransformer(11, width=8, blocks=2).eval()


class TestDictionary(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # slow; the recipe "sparse" is killed, which trains by the same loop
    recipe = DictionaryRecipe
    settings: ClassVar[dict[str, Any]] = TINY
    other: ClassVar[dict[str, Any]] = {
        "site": "blocks.1", "kind": "frozen decoder", "architecture": "relu", "features": 20, "k": 3,
        "positions": "all", "steps": 9, "batch": 9, "rate": 0.1,
    }  # fmt: skip

    def task(self) -> BaseTask:
        return WORDS

    def of(self) -> tuple[nn.Module, ...]:
        return (net(),)


class TestWithDictionary(RecipeContract):
    """The net is there, and joined with dictionaries in one step."""

    # Each dictionary is kept, the whole is not.
    test_what_is_made_is_found_again = test_another_digest_is_refused = None
    recipe = WithDictionary
    brief = True
    settings: ClassVar[dict[str, Any]] = {**TINY, "entries": "own, random"}
    other: ClassVar[dict[str, Any]] = {
        **{name: value for name, value in TestDictionary.other.items() if name != "kind"}, "entries": "own, pca",
    }  # fmt: skip
    task, of = TestDictionary.task, TestDictionary.of


def trained(
    *, of: tuple[nn.Module, ...] | None = None, task: BaseTask = WORDS, seed: int = 3, **how: Any
) -> Dictionary:
    """What the recipe makes of the small net."""
    parts = (net(),) if of is None else of
    names = tuple(digest(weights(part)) for part in parts)
    asked = specified(DictionaryRecipe, {**TINY, **how}, seed=seed, of=names, data=task.digest)
    made = make(Given(asked, parts, task), DictionaryRecipe(dict(asked.settings)))
    assert made.status == "done" and isinstance(made.model, Dictionary)
    made.model.freeze()
    return made.model


def vectors() -> Tensor:
    return collect(net(), WORDS, "blocks.0")


def planted(rows: int = 2000, *, width: int = 24, features: int = 32, active: float = 2.0) -> tuple[Tensor, Tensor]:
    """Sparse sums of directions, and the directions."""
    random = torch.Generator().manual_seed(5)
    directions = torch.randn(features, width, generator=random)
    directions /= directions.norm(dim=1, keepdim=True)
    codes = (torch.rand(rows, features, generator=random) < active / features) * (
        1 + torch.rand(rows, features, generator=random)
    )
    return codes @ directions, directions


@pytest.mark.parametrize("architecture", TRAINED)
def test_scale_and_center_do_not_matter(architecture: str) -> None:
    """Vectors that are stretched or moved give the same dictionary, stretched or moved; rows have norm 1."""
    held, _ = planted(400)
    how: dict[str, Any] = {"architecture": architecture, "features": 32, "of": ()}
    one, two = (trained(task=of_array(given), steps=20, **how) for given in (held, 8.0 * held))
    codes = one.encode(held).detach()
    torch.testing.assert_close(two.encode(8.0 * held), 8.0 * codes)
    torch.testing.assert_close(two(8.0 * held), 8.0 * one(held))
    torch.testing.assert_close(one.W_dec.norm(dim=1), torch.ones(32))
    assert bool((codes >= 0).all()) and 0.2 < float((codes > 0).sum(1).float().mean()) < 8
    added = torch.linspace(-3, 3, held.shape[1])
    one, two = (trained(task=of_array(given), steps=1, **how) for given in (held, held + added))
    assert float((two(held + added) - one(held) - added).detach().abs().mean()) < 1e-3 < float(held.abs().mean()) / 10


@pytest.mark.release
@pytest.mark.parametrize("architecture", TRAINED)
def test_a_planted_dictionary_is_found(architecture: str) -> None:
    """Each true direction has a feature close to it; about k features are active."""
    held, directions = planted(20_000)
    made = trained(task=of_array(held), of=(), architecture=architecture, features=32, steps=1000, batch=256)
    cosines = directions @ made.W_dec.T
    assert float(cosines.max(1).values.mean()) > 0.9
    assert 1.4 < float((made.encode(held) != 0).sum(1).float().mean()) < 2.8
    assert float((made(held) - held).square().mean() / held.var(0).mean()) < 0.45


def test_dead_features_are_revived() -> None:
    """Vectors of few kinds leave most features without use: fewer are dead in the end than without revival."""
    held, _ = planted(600, features=64, active=1.0)
    task = of_array(held)
    asked = specified(DictionaryRecipe, {"features": 128, "k": 1, "steps": 100, "batch": 64}, seed=1, data=task.digest)
    state = DictionaryRecipe(dict(asked.settings)).start(Given(asked, (), task))
    state.advance(4)
    before = {name: array.copy() for name, array in state.arrays().items()}
    dead = np.flatnonzero(before["hook.0.quiet"] == 4)
    assert len(dead) > 10, "nothing to revive: the example is no test"
    assert before["hook.0.revived"].sum() == 0
    state.advance(100)
    report = state.report()
    assert report["revived"][0] > 0
    codes = cast("Dictionary", state.made()).encode(held)
    assert (codes == 0).all(0).sum() < len(dead) and report["dead"][0] < len(dead)


def test_what_is_held_stays() -> None:
    """Of one seed all kinds begin alike: after training, what is frozen is what it was; a cone is not left."""
    began = trained(steps=1, rate=1e-9)
    own, frozen, soft, encoder = (
        trained(kind=kind, steps=60, rate=0.5)
        for kind in ("own", "frozen decoder", "soft-frozen decoder", "frozen encoder")
    )
    torch.testing.assert_close(frozen.W_dec, began.W_dec)
    torch.testing.assert_close(encoder.W_enc, began.W_enc)
    cosines = [(one.W_dec * began.W_dec).sum(1) for one in (own, soft)]
    assert float(cosines[0].min()) < CONE - 0.05, "nothing to hold back: the example is no test"
    assert float(cosines[1].min()) == pytest.approx(CONE, abs=1e-3)
    assert not torch.equal(frozen.W_enc, began.W_enc) and not torch.equal(encoder.W_dec, began.W_dec)
    for one in (own, frozen, soft, encoder):
        torch.testing.assert_close(one.W_dec.norm(dim=1), torch.ones(16))


def test_an_untrained_net() -> None:
    """Learned from the net with its weights in another order; around the mean of the net's own vectors."""
    held = vectors()
    own, null = trained(steps=1, rate=1e-9), trained(kind="untrained net", steps=1, rate=1e-9)
    torch.testing.assert_close(null.b_dec, held.mean(0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(null(held), own(held), rtol=1e-3, atol=1e-3)  # untrained, both are the same
    assert not torch.allclose(trained(kind="untrained net").W_dec, trained().W_dec, atol=1e-3)


def test_computed_kinds() -> None:
    """Identity and all principal components leave vectors as they are; codes are those of the labels."""
    held = vectors()
    torch.testing.assert_close(trained(kind="identity")(held), held)
    pca = trained(kind="pca")
    torch.testing.assert_close(pca(held), held)
    _, sizes, across = np.linalg.svd((held - held.mean(0)).double().numpy(), full_matrices=False)
    np.testing.assert_allclose(np.abs((pca.W_dec.detach().double().numpy() * across).sum(1)), 1.0, atol=1e-4)
    np.testing.assert_allclose(pca.encode(held).detach().square().sum(0).sqrt(), sizes, rtol=1e-3)
    labels = torch.stack([*WORDS.annotations.factors.values()], 1)
    for kind in ("mean codes", "least squares"):
        made = trained(kind=kind)
        assert made.settings.attributes == ("first", "length")
        decoded = made.decode(made.codes(labels))
        assert float((decoded - held).square().mean()) < float((held - held.mean(0)).square().mean())
    of_first = held[labels[:, 0] == 2].mean(0) - held.mean(0)
    torch.testing.assert_close(trained(kind="mean codes").W_dec[2], of_first, rtol=1e-4, atol=1e-5)


def test_a_random_dictionary_stands_beside_another() -> None:
    """As many are active, in other directions; it needs the other one."""
    own = trained()
    random = trained(of=(net(), own), kind="random")
    assert int((random.encode(vectors()) != 0).sum(1).max()) <= 2
    assert float((random.W_dec * own.W_dec).sum(1).abs().max()) < 0.999
    with pytest.raises(UsageError):
        trained(kind="random")


def test_what_cannot_be_made() -> None:
    """Settings and examples that do not fit: said before anything is trained."""
    plain = Task(torch.zeros(4, 3, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    for error, how in (
        (UsageError, {"k": 17}), (UsageError, {"architecture": "gated"}),
        (UsageError, {"kind": "mean codes", "positions": "all"}),
        (UsageError, {"kind": "untrained net", "of": (), "task": of_array(planted(9)[0])}),
        (DataError, {"of": (), "task": plain}), (UnknownName, {"site": ""}), (UnknownName, {"site": "blocks.7"}),
        (DataError, {"kind": "pca", "of": (), "task": of_array(torch.ones(5, 3))}),
        (DataError, {"kind": "mean codes", "task": ChoiceTask(CONTEXTS, [[[1], [2]]] * 40, [0] * 40)}),
    ):  # fmt: skip
        with pytest.raises(error):
            trained(**cast("dict[str, Any]", how))


def joined(*, of: tuple[nn.Module, ...] | None = None, seed: int = 3, **how: Any) -> DictionaryModel:
    parts = (net(),) if of is None else of
    names = tuple(digest(weights(part)) for part in parts)
    asked = specified(WithDictionary, {**TINY, **how}, seed=seed, of=names, data=WORDS.digest if how["entries"] else "")
    recipe = WithDictionary(dict(asked.settings))
    given = Given(asked, parts, WORDS if how["entries"] else None)
    state = recipe.start(given)
    state.advance(0)
    arrays, note = state.arrays(), state.note()
    state = recipe.start(given)
    state.resume(arrays, note)
    while state.status == "training":
        state.advance(state.step + 1)
    made, blank = cast("DictionaryModel", state.made()), recipe.blank(given)
    assert str(made) == str(blank)
    shapes = [{name: (array.shape, array.dtype) for name, array in weights(one).items()} for one in (made, blank)]
    assert shapes[0] == shapes[1] and not any(module.training for module in made.modules())
    return made


def test_a_net_with_dictionaries() -> None:
    """It answers as the net does; entries are what the recipe makes, however often it is broken off."""
    kinds = "own, reseed, frozen decoder, random, own"
    made = joined(entries=kinds)
    assert [one.kind for one in made.dictionaries] == [kind.strip() for kind in kinds.split(",")]
    assert torch.equal(WORDS.scores(made), WORDS.scores(net()))
    assert digest(weights(made.dictionaries[0])) == digest(weights(trained()))
    assert digest(weights(made.dictionaries[2])) == digest(weights(trained(kind="frozen decoder")))
    assert len({digest(weights(one)) for one in made.dictionaries}) == 5
    assert sum(parameter.numel() for parameter in made.parameters()) == sum(p.numel() for p in net().parameters())
    again = joined(entries=kinds)
    assert digest(weights(again)) == digest(weights(made))


def test_entries_that_are_given() -> None:
    """They come first; random ones stand beside the first; without any to make no examples are needed."""
    own = trained()
    made = joined(of=(net(), own), entries="random")
    assert [one.kind for one in made.dictionaries] == ["own", "random"]
    assert digest(weights(made.dictionaries[1])) == digest(weights(trained(of=(net(), own), kind="random")))
    assert not WithDictionary({**TINY, "entries": ""}).needs
    assert [one.kind for one in joined(of=(net(), own), entries="").dictionaries] == ["own"]
    for error, how in ((UnknownName, {"entries": "owned"}), (UsageError, {"entries": "random"}),
                       (UsageError, {"entries": "own", "of": (net(), net())})):  # fmt: skip
        with pytest.raises(error):
            joined(**cast("dict[str, Any]", how))
