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
from wheeltap.core.records import Scalar, Trial
from wheeltap.core.site import WHOLE, Site
from wheeltap.plans.plan import Plan

GOLDEN = Path(__file__).parents[1] / "golden"
HELD: dict[str, Any] = json.loads((GOLDEN / "keys.json").read_text(encoding="utf-8"))

_HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
_NAMES = st.text("abcdefghijklmnopqrstuvwxyz_-", min_size=1, max_size=12)
_PATHS = st.lists(st.text("abcxyz0123456789_", min_size=1, max_size=6), min_size=1, max_size=4).map(".".join)


def sites() -> st.SearchStrategy[Site]:
    """The whole model, all of it but some layers, a block or a layer."""
    parts = st.builds(Site, st.sampled_from(["block", "layer"]), _PATHS)
    inner = st.lists(_PATHS, min_size=1, max_size=3).map(Site.without)
    return st.just(WHOLE) | inner | parts


def doses() -> st.SearchStrategy[float]:
    """Finite numbers from 0, as doses are; never the negative zero."""
    return st.floats(min_value=0.0, max_value=1e6, allow_nan=False, allow_infinity=False)


def perturbation_settings() -> st.SearchStrategy[dict[str, Scalar]]:
    """Named settings of a perturbation, in one order."""
    scalars = st.text(max_size=8) | st.integers(-(2**53), 2**53) | st.booleans() | doses()
    named: st.SearchStrategy[dict[str, Scalar]] = st.dictionaries(_NAMES, scalars, max_size=3)
    return named.map(lambda drawn: dict(sorted(drawn.items())))


def trials() -> st.SearchStrategy[Trial]:
    """Any trial."""
    return st.builds(
        Trial,
        subject=_HEX,
        task=_HEX,
        measures=st.lists(_NAMES, min_size=1, max_size=3, unique=True).map(tuple),
        perturbation=_NAMES,
        version=st.integers(0, 100),
        settings=perturbation_settings(),
        site=sites(),
        dose=doses(),
        seed=st.integers(0, 2**31),
        root=st.integers(0, 2**53),
        path=st.sampled_from(["plain", "plain/cpu/float32", "plain/cuda/bfloat16"]),
    )


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


@given(trials())
def test_a_trial_keeps_its_key_through_a_file(trial: Trial) -> None:
    again = msgspec.json.decode(msgspec.json.encode(trial), type=Trial)
    assert again == trial
    assert again.key == trial.key


@given(trials(), trials())
def test_every_field_changes_the_key(trial: Trial, other: Trial) -> None:
    for name in Trial.__struct_fields__:
        changed = msgspec.structs.replace(trial, **{name: getattr(other, name)})
        same = repr(getattr(trial, name)) == repr(getattr(other, name))
        assert (changed.key == trial.key) == same, name


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
