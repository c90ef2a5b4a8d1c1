"""Readings give the numbers that a net with a planted dictionary must have; false dictionaries score like nulls."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.errors import DataError, ModelError, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.readings.base import Reading
from wheeltap.suites.dictionaries import stats
from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionaryModel, DictionarySettings, random_like
from wheeltap.suites.dictionaries.readings import (
    DictionaryControl,
    DictionaryDisturbance,
    DictionaryFeatures,
    DictionaryReconstruction,
    counterfactuals,
)
from wheeltap.suites.dictionaries.specs import DISTURBANCES, GAUGES, KINDS, PARTS, REPLACEMENTS, STATUSES

VALUES, WIDTH = {"a": 4, "b": 3, "c": 2}, 20
FEATURES = sum(VALUES.values())
Values = dict[str, NDArray[Any]]


def grid(copies: int = 2) -> Tensor:
    """Values ``[example, attribute]``: all combinations, several times."""
    each = torch.cartesian_prod(*(torch.arange(count) for count in VALUES.values()))
    return each.repeat(copies, 1)


def inputs(labels: Tensor) -> Tensor:
    """One input for each value, and one that tells copies apart and that the net does not read."""
    hot = [nn.functional.one_hot(column, count) for column, count in zip(labels.T, VALUES.values(), strict=True)]
    return torch.cat([*hot, torch.arange(len(labels))[:, None]], 1).float()


def atoms() -> Tensor:
    """Directions of the values ``[feature, width]``, not orthogonal; none below 0, so that ReLUs let them through."""
    return (
        torch.rand(FEATURES, WIDTH, generator=torch.Generator().manual_seed(3)) * torch.eye(2).repeat(5, 10)[:FEATURES]
    )


def task(labels: Tensor | None = None) -> Task:
    labels = grid() if labels is None else labels
    made = Task(inputs(labels), labels[:, 0], name="planted")
    return made.with_factors({name: labels[:, at] for at, name in enumerate(VALUES)})


def net() -> nn.Sequential:
    """Its hidden vector is the sum of the directions of the values; its answer is the value of the first attribute."""
    first, last = nn.Linear(FEATURES + 1, WIDTH), nn.Linear(WIDTH, VALUES["a"])
    model = nn.Sequential(first, nn.ReLU(), last).eval()
    with torch.no_grad():
        first.weight.zero_()[:, :FEATURES] = atoms().T
        first.bias.zero_()
        last.weight.copy_(3.0 * torch.linalg.pinv(atoms())[:, : VALUES["a"]].T)
        last.bias.zero_()
    return model


def planted(**changes: Tensor) -> Dictionary:
    """The dictionary that the net has: a feature for each value."""
    how = DictionarySettings(architecture="jumprelu", width=WIDTH, features=FEATURES)
    state = {"W_enc": torch.linalg.pinv(atoms()), "b_enc": torch.zeros(FEATURES), "W_dec": atoms(),
             "b_dec": torch.zeros(WIDTH), "threshold": torch.full((FEATURES,), 0.5)}  # fmt: skip
    return Dictionary(how, state | changes)


def supervised() -> Dictionary:
    how = DictionarySettings(architecture="supervised", width=WIDTH, features=FEATURES, attributes=tuple(VALUES))
    owner = torch.repeat_interleave(torch.arange(3), torch.tensor(list(VALUES.values())))
    value = torch.cat([torch.arange(count) for count in VALUES.values()])
    return Dictionary(how, {"W_dec": atoms(), "b_dec": torch.zeros(WIDTH), "attribute": owner, "value": value})


def vectors() -> Tensor:
    return net()[1](net()[0](inputs(grid()))).detach()


def permuted() -> Dictionary:
    """Trained-looking: each feature fires for one value and writes the direction of another."""
    return planted(W_dec=atoms()[torch.tensor([1, 2, 3, 0, 5, 6, 4, 8, 7])])


def subject(*entries: Dictionary) -> Subject:
    kinds = ("own", *("random",) * (len(entries) - 1))
    for one, kind in zip(entries, kinds, strict=True):
        one.kind = kind
    model = DictionaryModel(net(), "1", entries)
    return Subject(model.eval(), name="planted")


def read(reading: Reading, given: Subject, on: Task | None = None) -> Values:
    on = task() if on is None else on
    reading.require(given, on)
    found = reading.read(given, on, root=0, seed=0)
    assert found.forwards >= 0.0  # the vectors of the last reading are at hand
    return reading.spec.typed(found.values, examples=len(on.targets))


def test_a_planted_dictionary_reconstructs_all_and_leaves_nothing() -> None:
    given = subject(planted(), supervised(), planted(W_dec=torch.zeros(FEATURES, WIDTH)))
    for entry in (0, 1):
        found = read(DictionaryReconstruction({"entry": entry}), given)
        assert len(found["margin"]) == len(REPLACEMENTS)
        clean, mean, made, residual = found["margin"]
        assert clean == pytest.approx(3.0, abs=1e-4) and made == pytest.approx(clean, abs=1e-4)
        # Of the mean vector all options are alike.
        assert mean == pytest.approx(0.0, abs=1e-4) and residual == pytest.approx(mean, abs=1e-4)
        assert found["error"] == pytest.approx(0.0, abs=1e-8) and (found["active"] == 3).all()
        assert (int(found["dead"]), int(found["features"])) == (0, FEATURES)
        spread = vectors() - vectors().mean(0)
        assert found["spread"] == pytest.approx(spread.square().sum(1).numpy(), rel=1e-4)
        assert [KINDS[int(one)] for one in found["kinds"]] == ["own", "random", "random"]
    empty = read(DictionaryReconstruction({"entry": 2}), given)
    assert empty["margin"][3] == pytest.approx(empty["margin"][0], abs=1e-4)
    assert empty["error"] == pytest.approx(vectors().square().sum(1).numpy(), rel=1e-4)


def test_edits_of_two_planted_features_are_the_patch() -> None:
    given = subject(planted(), supervised(), permuted(), random_like(planted(), vectors(), 1))
    own, known, false, random = (read(DictionaryControl({"entry": at, "budget": 2}), given) for at in range(4))
    for found in (own, known):
        assert not found["a|unedited"].any() and found["b|unedited"].all()
        for name in VALUES:
            assert STATUSES[int(found[f"{name}|status"])] == "measured" and len(found[f"{name}|rows"]) == 48
            assert found[f"{name}|agree"].all()
            assert (found[f"{name}|magnitude"] < 1.0).all()
    # All features that are active add up to the whole reconstruction, so the share of a third of them is known.
    labels = grid()[own["a|rows"]]
    rows = torch.stack([atoms()[at + start] for at, start in zip(labels.T, (0, 4, 7), strict=True)])  # [3, pair, width]
    share = (rows[0] * rows.sum(0)).sum(1) / rows.sum(0).square().sum(1)
    other = grid()[counterfactuals(task(), "a", root=0, most=200)[1]]
    assert torch.equal(other[:, 1:], labels[:, 1:])  # they differ in this attribute alone
    swapped = torch.stack([atoms()[other[:, 0]], rows[1], rows[2]])
    share = share + (swapped[0] * swapped.sum(0)).sum(1) / swapped.sum(0).square().sum(1)
    assert own["a|magnitude"] == pytest.approx(share.numpy(), rel=1e-4)
    for found in (false, random):
        assert np.array_equal(found["a|rows"], own["a|rows"])
        assert found["a|agree"].mean() < 0.5


def f1(found: dict[str, Any], name: str) -> list[float]:
    """Of the best feature of each value, on the half that is scored on."""
    fires, labels = found[f"{name}|fires"], found[f"{name}|labels"]
    return [float(one) for one in stats.f1(fires, labels == np.arange(len(fires))[:, None])]


def test_features_of_values_are_found_and_do_the_work() -> None:
    given = subject(planted(), random_like(planted(), vectors(), 1))
    found, random = (read(DictionaryFeatures({"entry": entry}), given) for entry in range(2))
    assert found["features"].tolist() == list(range(FEATURES)) and int(found["interpretable"]) == FEATURES
    for at, (name, count) in enumerate(VALUES.items()):
        assert f1(found, name) == [1.0] * count
        first = [0, 4, 7][at]
        assert found[f"{name}|best"].tolist() == list(range(first, first + count))
        own = slice(first, first + count)
        assert (found[f"{name}|fits"][:, own] == 1.0).all()
        assert (found[f"{name}|needed"] == 1).all()
        assert float(found[f"{name}|retained"]) == pytest.approx(1.0, abs=1e-4)
        assert np.array_equal(grid()[found["rows"], at].numpy(), found[f"{name}|labels"])
        assert np.mean(f1(random, name)) < 0.9
    # Attributes of a full design share out all variance.
    assert sum(float(found[f"{name}|size"]) for name in VALUES) == pytest.approx(1.0, abs=1e-4)
    margin = dict(zip(PARTS, found["margin"], strict=True))
    assert margin["kept"] == pytest.approx(margin["clean"], abs=1e-4)
    assert margin["removed"] == pytest.approx(0.0, abs=1e-4)
    assert margin["others removed"] == pytest.approx(margin["clean"], abs=1e-4)  # there are no others


def test_a_value_that_two_features_share_is_split() -> None:
    # Where the value of the last attribute is 0, one feature fires for each value of the second one alone.
    how = DictionarySettings(architecture="jumprelu", width=WIDTH, features=FEATURES + 2)
    back = torch.linalg.pinv(atoms())
    split = [back[:, 7] + back[:, 4 + value] for value in range(3)]
    encoder = torch.cat([back[:, :7], torch.stack(split, 1), back[:, 8:]], 1)
    threshold = torch.tensor([0.5] * 7 + [1.5] * 3 + [0.5])
    decoder = torch.cat([atoms()[:7], atoms()[7].expand(3, -1), atoms()[8:]])
    one = Dictionary(how, {"W_enc": encoder, "b_enc": torch.zeros(FEATURES + 2), "W_dec": decoder,
                           "b_dec": torch.zeros(WIDTH), "threshold": threshold})  # fmt: skip
    found = read(DictionaryFeatures(), subject(one))
    assert found["c|needed"].tolist() == [3, 1] and f1(found, "c")[0] < 0.7 and f1(found, "c")[1] == 1.0


def test_what_is_left_out_of_reconstructions_is_occluded() -> None:
    blind = planted(threshold=torch.tensor([0.5] * 4 + [9.0] * 3 + [0.5] * 2))
    found = read(DictionaryFeatures(), subject(blind))
    assert [round(float(found[f"{name}|retained"]), 3) for name in VALUES] == [1.0, 0.0, 1.0]
    assert found["features"].tolist() == [0, 1, 2, 3, 7, 8] and found["b|needed"].tolist() == [0, 0, 0]
    dead = planted(threshold=torch.full((FEATURES,), 9.0))
    found = read(DictionaryFeatures(), subject(dead))
    assert len(found["features"]) == 0 and f1(found, "a") == [0.0] * 4 and found["a|best"].tolist() == [-1] * 4


def test_a_twin_moves_every_feature_and_a_rewritten_dictionary_follows() -> None:
    given = subject(planted(), permuted())
    found = read(DictionaryDisturbance({"budget": 2, "noise": 0.01, "steps": 2, "dictionaries": "1,0"}), given)
    assert not np.array_equal(found["a|agree"][0], found["a|agree"][1])
    assert [DISTURBANCES[int(one)] for one in found["disturbances"]] == list(DISTURBANCES)
    assert GAUGES[int(found["gauge"])] == "permutation"
    by = dict(zip(DISTURBANCES, range(len(DISTURBANCES)), strict=True))
    none, twin, back = (by[name] for name in ("none", "gauge twin", "gauge twin, rewritten"))
    correlation = found["correlation"][1]
    assert correlation[[none, back]] == pytest.approx(1.0, abs=1e-5) and correlation[twin] < 0.5
    assert correlation[by["weight noise"]] > 0.9
    for name in VALUES:
        assert found[f"{name}|agree"][1, [none, back]].all()
    assert found["a|agree"][1, twin].mean() < 0.7 and not found["a|unedited"].any()
    control = read(DictionaryControl({"budget": 2, "pairs": 100}), given)
    assert np.array_equal(found["a|rows"], control["a|rows"])
    for before, after in zip(net().parameters(), given.model.net.parameters(), strict=True):
        assert torch.equal(before, after)


def test_what_cannot_be_read_is_refused_or_has_a_status() -> None:
    given = subject(planted())
    with pytest.raises(UsageError):
        DictionaryControl({"entry": 1}).require(given, task())
    with pytest.raises(UsageError):
        DictionaryDisturbance({"dictionaries": "0,1"}).require(given, task())
    with pytest.raises(UsageError, match="dictionaries"):
        DictionaryDisturbance({"dictionaries": "0,own"})
    with pytest.raises(UsageError, match="budget"):
        DictionaryControl({"budget": 0})
    with pytest.raises(ModelError):
        read(DictionaryControl(), Subject(net(), name="bare"))
    with pytest.raises(ModelError):
        other = Dictionary(DictionarySettings(width=WIDTH + 1, features=4, k=2))
        read(DictionaryReconstruction(), subject(other))
    bare = Task(inputs(grid()), grid()[:, 0])
    with pytest.raises(DataError):
        read(DictionaryFeatures(), given, bare)
    with pytest.raises(DataError):
        read(DictionaryReconstruction(), subject(supervised()), bare)
    with pytest.raises(DataError):
        read(DictionaryReconstruction(), given, Task(inputs(grid()), torch.zeros(48, 4)))
    labels = grid()
    labels[:, 1] = 0
    few = task(labels).with_factors({"own": torch.arange(48)})  # each example alone has its value
    for reading in (DictionaryControl(), DictionaryFeatures(), DictionaryDisturbance({"steps": 1})):
        found = read(reading, given, few)
        status = {name: STATUSES[int(found[f"{name}|status"])] for name in (*VALUES, "own")}
        assert status["b"] == "one value"
        assert "b|fires" not in found
        if isinstance(reading, DictionaryFeatures):
            assert status["own"] == "too few examples" and status["a"] == "measured"
        else:
            assert status["a"] == "too few examples"  # no two examples have all else in common
