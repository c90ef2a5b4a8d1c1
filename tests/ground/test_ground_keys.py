"""Canonical bytes and keys: the same today, tomorrow and elsewhere; equal exactly for equal content."""

import json
import runpy
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wheeltap.core import canon, seeds
from wheeltap.core.records import Subset, Trial
from wheeltap.plans.plan import Plan
from wheeltap.testing import store_contract as own

GOLDEN = Path(__file__).parents[1] / "golden"
HELD: dict[str, Any] = json.loads((GOLDEN / "keys.json").read_text(encoding="utf-8"))


def test_keys_and_seeds_never_change() -> None:
    """A store made by one version must be found by the next."""
    assert HELD["key_version"] == canon.KEY_VERSION
    for kind, name in ((Trial, "trials"), (Plan, "plans")):
        assert [msgspec.convert(held["record"], kind).key for held in HELD[name]] == [
            held["key"] for held in HELD[name]
        ]
    assert [seeds.derive(*held["stream"]) for held in HELD["seeds"]] == [held["seed"] for held in HELD["seeds"]]
    assert json.loads(json.dumps(runpy.run_path(str(GOLDEN / "renew.py"))["golden"]())) == HELD


# Equal content, equal key.


@given(own.trials())
def test_a_trial_keeps_its_key_through_a_file(trial: Trial) -> None:
    again = msgspec.json.decode(msgspec.json.encode(trial), type=Trial)
    assert again == trial
    assert again.key == trial.key


@given(own.perturbation_settings(), st.randoms(use_true_random=False))
def test_the_order_of_settings_is_no_content(settings: dict[str, Any], random: Any) -> None:
    names = list(settings)
    random.shuffle(names)
    one, two = (
        Trial(subject="s", task="p", measures=("m",), perturbation="x", version=1, settings=of)
        for of in (settings, {name: settings[name] for name in names})
    )
    assert one.key == two.key


@given(own.trials(), own.trials())
def test_every_field_changes_the_key(trial: Trial, other: Trial) -> None:
    for name in Trial.__struct_fields__:
        changed = msgspec.structs.replace(trial, **{name: getattr(other, name)})
        same = repr(getattr(trial, name)) == repr(getattr(other, name))
        assert (changed.key == trial.key) == same, name


@given(own.trials(), st.integers(1, 9), st.integers(0, 99))
def test_a_trial_on_some_examples_differs_in_nothing_else(trial: Trial, of: int, at: int) -> None:
    some = trial.on(Subset(of, at))
    assert some.subset == Subset(of, at)
    assert msgspec.structs.replace(some, subset=trial.subset) == trial


def test_a_field_at_its_default_is_content_too() -> None:
    """Leaving defaults out would let a changed default give a wrong hit."""
    written = json.loads(canon.canonical(Trial(subject="s", task="p", measures=(), perturbation="x", version=1)))
    assert set(written) == set(Trial.__struct_fields__)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_canonical_bytes_are_sorted_and_tight_and_numbers_come_back_to_the_bit(number: float) -> None:
    again = json.loads(canon.canonical([number]))[0]
    assert np.float64(again).tobytes() == np.float64(number).tobytes()
    tight = '{"a":{"y":"é","z":[1.5,true,null]},"b":1}'.encode()
    assert canon.canonical({"b": 1, "a": {"z": [1.5, True, None], "y": "é"}}) == tight


# Digests.


@given(st.lists(st.binary(max_size=6), max_size=4), st.lists(st.binary(max_size=6), max_size=4))
def test_parts_are_framed_and_the_kind_is_a_namespace(one: list[bytes], two: list[bytes]) -> None:
    assert (canon.digest("kind", *one) == canon.digest("kind", *two)) == (one == two)
    assert canon.digest("a", b"bc") != canon.digest("ab", b"c")
    assert canon.key("trial", [1]) != canon.key("plan", [1])
    assert len(canon.key("trial", [1])) == 32


def test_array_digests_see_dtype_shape_and_every_number() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    same = canon.array_digest("x", array)
    assert canon.array_digest("x", np.asfortranarray(array)) == same
    assert canon.array_digest("x", array.astype(">f4")) == same
    assert canon.array_digest("x", np.arange(24, dtype=np.float32).reshape(3, 8)[:, ::2] / 2) == same
    touched = array.copy()
    touched[2, 3] = np.nextafter(touched[2, 3], 99)
    others = [array.reshape(4, 3), array.astype(np.float64), touched, array[:0], array[:0].reshape(4, 0)]
    digests = {canon.array_digest("x", other) for other in others} | {canon.array_digest("y", array)}
    assert same not in digests
    assert len(digests) == 6
