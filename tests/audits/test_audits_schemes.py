"""Names of deployment schemes: every form means one disturbance, and what is none is refused with what was meant."""

import pytest
from msgspec.structs import replace

from wheeltap.audits.deployment import USUAL, USUAL_LARGE
from wheeltap.audits.schemes import READY, scheme, schemes
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.records import Scalar, SubjectRecord
from wheeltap.perturb import create

GROUPS_OF_32: dict[str, Scalar] = {"scale": "group", "group": 32}
NF4: dict[str, Scalar] = {"scale": "group", "group": 64, "grid": "nf4"}

FORMS: list[tuple[str, str, float, dict[str, Scalar], str]] = [
    ("int8", "quantize", 8, {"scale": "channel"}, "8 bits, per channel"),
    ("int4-tensor", "quantize", 4, {"scale": "tensor"}, "4 bits, one grid per tensor"),
    ("int3-g32", "quantize", 3, GROUPS_OF_32, "3 bits, groups of 32"),
    ("int4-g32-aware", "quantize-aware", 4, GROUPS_OF_32, "4 bits, groups of 32, large inputs spared"),
    ("nf4", "quantize", 4, NF4, "4 bits, NF4, groups of 64"),
    ("nf4-g32", "quantize", 4, {**NF4, "group": 32}, "4 bits, NF4, groups of 32"),
    ("fp4", "quantize", 4, {**NF4, "grid": "fp4"}, "4 bits, FP4, groups of 64"),
    ("w8a8", "quantize-inputs", 8, {"scale": "channel"}, "8 bits, per channel, inputs too"),
    ("fp8", "quantize-inputs", 8, {"scale": "channel", "grid": "e4m3"}, "FP8 (E4M3), per channel, inputs too"),
    ("kv8", "quantize-cache", 8, {}, "keys and values in 8 bits"),
    ("bf16", "cast", 16, {"dtype": "bfloat16"}, "stored as bfloat16"),
    ("prune30", "prune", 0.3, {}, "30 % pruned"),
    ("wanda50", "prune-wanda", 0.5, {}, "50 % pruned, Wanda"),
    ("prune-2:4", "prune-nm", 0.5, {}, "2 of every 4 pruned"),
    ("noise2.5", "relative", 0.025, {}, "2.5 % noise on each weight"),
    ("flips1e-6-int8", "flip", 1e-6, {"format": "int8"}, "bit errors, rate 1e-06, int8"),
    ("flips2.5e-7-bfloat16", "flip", 2.5e-7, {"format": "bfloat16"}, "bit errors, rate 2.5e-07, bfloat16"),
]  # fmt: skip


def test_a_name_means_one_disturbance_that_fits_its_perturbation() -> None:
    for name, perturbation, dose, settings, label in FORMS:
        one = scheme(name)
        assert (one.name, one.perturbation, one.settings, one.label) == (name, perturbation, settings, label)
        assert one.dose == pytest.approx(dose, rel=1e-12)
    for name in {*READY, *(form[0] for form in FORMS), *USUAL.split(",")}:
        one = scheme(name)
        made = create(one.perturbation, dict(one.settings))
        made.require_dose(one.dose)
        assert (one.random, one.needs, one.rare) == (made.random, made.needs, one.perturbation == "flip")


ELSEWHERE = {
    "int8": "Int8WeightOnlyConfig int8wo LOAD_IN_8BIT", "int4-g64": "int4wo-64 INT4WO-64", "nf4": "bnb_4bit_nf4",
    "int8-g32": "q8_0", "fp8": "float8_e4m3fn FP8", "int3-g32": "Int3-G32",
}  # fmt: skip
"""What other tools call a scheme."""

MEANT = {
    "int8": "int1 int17 int", "int4-g128": "int4-g1 int4wo-1", "int4-g128-aware": "int4-aware", "nf4": "nf4-g0",
    "prune50": "prune0", "prune10": "prune100", "kv8": "kv17", "prune-2:4": "prune-4:8", "noise1000": "noise1000.5",
    "flips1e-6": "flips0 flips1", "flips1e-6-int8": "flips1e-6-int4", "int5": "int5x",
}  # fmt: skip
"""Names that are none, by what may have been meant; a name with something after it means the part before."""

NEAREST = {"int4-g128-aware": "awq AWQ", "int4-g128": "gptq", "int4-g32": "q4_k_m", "fp4-g32": "mxfp4"}
"""Formats that are not simulated, by the scheme that is nearest."""


def refusal(name: str) -> UnknownName:
    with pytest.raises(UnknownName, match="no deployment scheme") as caught:
        scheme(name)
    return caught.value


def test_what_other_tools_call_it_is_understood() -> None:
    for name, others in ELSEWHERE.items():
        assert all(scheme(other) == scheme(name) for other in (*others.split(), f" {name} "))


def test_what_is_no_scheme_is_refused_with_what_may_have_been_meant_or_is_nearest() -> None:
    for meant, names in MEANT.items():
        for name in names.split():
            assert refusal(name).do == f"Did you mean {meant!r}?"
    assert refusal("int 4").do == "Did you mean 'int4'?" and "intN, N from 2 to 16 bits" in str(refusal("int5x"))
    for nearest, formats in NEAREST.items():
        for name in formats.split():
            said = f"{name} itself is not simulated; the nearest scheme is {nearest!r} ({scheme(nearest).label})."
            with pytest.raises(UnknownName) as caught:
                scheme(name)
            assert caught.value.do == said
    for name in ("four", "", "?"):
        with pytest.raises(UnknownName) as caught:
            scheme(name)
        assert caught.value.do == f"Choose one of: {', '.join(sorted(READY))}."


def test_several_names_are_taken_in_order_and_each_once_and_none_is_refused() -> None:
    assert [one.name for one in schemes("nf4, int8,,int4 ,int8")] == ["nf4", "int8", "int4"]
    assert [one.name for one in schemes("Int4WeightOnlyConfig,int4wo,int4-g128")] == ["int4-g128"]
    for names in ("", "  ", ",", " , ,"):
        with pytest.raises(UsageError, match="No deployment scheme is named") as caught:
            schemes(names)
        assert not isinstance(caught.value, UnknownName)
        assert "int8" in str(caught.value.expected) and "wheeltap list schemes" in str(caught.value.do)


def test_the_usual_schemes_are_all_known_and_no_two_are_the_same() -> None:
    for usual in (USUAL, USUAL_LARGE):
        found = schemes(usual)
        assert [one.name for one in found] == usual.split(",")
        assert len({one.label for one in found}) == len(found)
    assert set(USUAL_LARGE.split(",")) < set(USUAL.split(","))


def test_only_what_deployment_does_to_inner_layers_spares_the_ends() -> None:
    record = SubjectRecord(name="s", fingerprint="f", parameters=1, ends=("embed", "head"))
    spared = {name: scheme(name).spared(record) for name in READY}
    both = {name for name, layers in spared.items() if layers == ("embed", "head")}
    assert both == {name for name in READY if not name.startswith(("noise", "flips", "kv"))} - {"bf16", "fp16"}
    assert all(spared[name] == () for name in set(READY) - both)  # memory errors hit all; all is stored in 16 bits
    assert scheme("int4").spared(replace(record, ends=())) == ()
