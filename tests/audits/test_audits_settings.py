"""Settings that make no sense are refused when an audit is made, which is before anything runs."""

import math

import msgspec
import pytest

from wheeltap.audits.base import audits, create
from wheeltap.audits.noise import NoiseSettings
from wheeltap.core.errors import UsageError

LADDER = {
    "rungs": [[], [0, 0, 2], [2, 0, -2], [0, 1000], [0.5, 1]], "control_rungs": [[], [3], [0, -2]],
}  # fmt: skip

BAD = {
    "redundancy": {
        "pairs": [0, -3, 2.5], "to": ["median"], "duplicate": [0.0, 1.1, math.nan], "permutations": [0],
        "shuffles": [0, -9], "margin": [-0.1, math.nan, math.inf], "min_effect": [-1.0],
        "difference": [-0.25],
    },
    "entanglement": {
        "limit": [0, -1], "rewirings": [0, 1, -5, 98],
        "modular_at": [0.0, 1.0, 0.004], "margin": [-0.04], "min_effect": [math.inf],
    },
    "parts": {
        "share": [0.0, 1.0, 1.2], "units": ["0", "0:", "0:-1", "0:1;", ":3", 5, ["0:1"]], "behaviour": ["cats"],
        "nulls": [0, 1], "draws": [0], "tries": [-1], "most": [0, -4], "at_least": [0.0, 1.0], "margin": [-0.1],
    },
    "single-point": {
        "confirm": [0], "nulls": [-1], "within": [1.0, math.nan], "margin": [-0.05, math.inf], "states": [0, 4],
        "min_effect": [-0.1, math.inf],
    },
    "heads": {
        "top": [0, -1, 2.5], "sample": [0, -20], "margin": [-0.1, math.inf], "difference": [-0.1],
        "difference_min_effect": [-0.2],
    },
    "score": {"margin": [-0.05, math.nan]},
    "deployment": {
        "schemes": ["", "int99", "int4;int8"], "margin": [-0.02, math.inf], "draws": [0, 1.5], "flips": [0, -1],
        "spare_ends": ["yes", 2],
    },
    "symmetry": {
        "weights": [0, 1, -3], "directions": [-1], "copies": [-1], "effect": [0.0, -0.1, 11.0, math.inf],
        "reach": [0.0, -16.0], "margin": [-0.1, math.inf], "difference": [-0.05], "difference_min_effect": [-1.0],
    },
    "improvement": {
        "noise": ["quantize"], "rungs": [[], [0, 0], [2, 0], [0, 100]], "draws": [1, 0, -3], "margin": [-0.1],
    },
    "relative-noise": LADDER, "function-noise": LADDER,
}  # fmt: skip


@pytest.mark.parametrize(("audit", "name"), [(audit, name) for audit, settings in BAD.items() for name in settings])
def test_a_bad_setting_is_refused_by_name(audit: str, name: str) -> None:
    for value in BAD[audit][name]:
        with pytest.raises(UsageError, match=name):
            create(audit, {name: value})


@pytest.mark.parametrize("audit", list(BAD))
def test_every_setting_is_tried(audit: str) -> None:
    """Also one that is added later. Of the noise audits, only what their ladder of doses bounds."""
    kind = audits.get(audit).settings_type
    known = {field.name for field in msgspec.structs.fields(kind)}
    assert set(BAD[audit]) == (set(LADDER) if issubclass(kind, NoiseSettings) else known)


@pytest.mark.parametrize("audit", ["score", "single-point", "relative-noise", "quantization", "merging", "heads"])
def test_the_name_that_min_effect_had_is_not_a_setting_any_more(audit: str) -> None:
    with pytest.raises(UsageError, match="worth"):
        create(audit, {"worth": 0.1})


@pytest.mark.parametrize(
    ("audit", "settings"),
    [
        ("deployment", {"schemes": "int4", "margin": 0, "draws": 1, "flips": 1, "spare_ends": False}),
        ("score", {"margin": 0}),
        ("entanglement", {"rewirings": 99}),
        ("entanglement", {"rewirings": 19, "modular_at": 0.05}),
        ("relative-noise", {"rungs": [0], "control_rungs": [0]}),
        ("parts", {"units": "net.0:3,17;net.2:4", "behaviour": -1, "tries": 0}),
        ("single-point", {"nulls": 0}),
        ("redundancy", {"to": "zero", "margin": 0}),
    ],
)
def test_settings_at_the_edge_of_sense_are_taken(audit: str, settings: dict[str, object]) -> None:
    made = create(audit, settings).settings
    for name, value in settings.items():
        held = getattr(made, name)
        assert (list(held) if isinstance(held, tuple) else held) == value


@pytest.mark.parametrize("audit", list(audits))
def test_defaults_are_values_that_are_taken(audit: str) -> None:
    """msgspec checks what is given and not the defaults."""
    held = create(audit).settings
    assert create(audit, msgspec.to_builtins(held)).settings == held
