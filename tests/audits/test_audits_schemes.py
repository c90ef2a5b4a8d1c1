"""Names of deployment schemes: every form means one disturbance, and what is none is refused with what was meant."""

import pytest
from msgspec.structs import replace

import wheeltap as wt
from wheeltap.audits.deployment import USUAL, USUAL_LARGE, DeploymentSettings
from wheeltap.audits.schemes import FORMATS, READY, scheme, schemes
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.records import Scalar, SubjectRecord
from wheeltap.perturb import create

GROUPS_OF_32: dict[str, Scalar] = {"scale": "group", "group": 32}
NF4: dict[str, Scalar] = {"scale": "group", "group": 64, "grid": "nf4"}

FORMS: list[tuple[str, str, float, dict[str, Scalar], str]] = [
    ("int8", "quantize", 8, {"scale": "channel"}, "8 bits, per channel"),
    ("int2", "quantize", 2, {"scale": "channel"}, "2 bits, per channel"),
    ("int16", "quantize", 16, {"scale": "channel"}, "16 bits, per channel"),
    ("int4-tensor", "quantize", 4, {"scale": "tensor"}, "4 bits, one grid per tensor"),
    ("int3-g32", "quantize", 3, GROUPS_OF_32, "3 bits, groups of 32"),
    ("int4-g2", "quantize", 4, {"scale": "group", "group": 2}, "4 bits, groups of 2"),
    ("int4-g32-aware", "quantize-aware", 4, GROUPS_OF_32, "4 bits, groups of 32, large inputs spared"),
    ("nf4", "quantize", 4, NF4, "4 bits, NF4, groups of 64"),
    ("nf4-g32", "quantize", 4, {**NF4, "group": 32}, "4 bits, NF4, groups of 32"),
    ("fp4", "quantize", 4, {**NF4, "grid": "fp4"}, "4 bits, FP4, groups of 64"),
    ("bf16", "cast", 16, {"dtype": "bfloat16"}, "stored as bfloat16"),
    ("fp16", "cast", 16, {"dtype": "float16"}, "stored as float16"),
    ("prune1", "prune", 0.01, {}, "1 % pruned"),
    ("prune30", "prune", 0.3, {}, "30 % pruned"),
    ("prune99", "prune", 0.99, {}, "99 % pruned"),
    ("wanda50", "prune-wanda", 0.5, {}, "50 % pruned, Wanda"),
    ("prune-2:4", "prune-nm", 0.5, {}, "2 of every 4 pruned"),
    ("noise5", "relative", 0.05, {}, "5 % noise on each weight"),
    ("noise2.5", "relative", 0.025, {}, "2.5 % noise on each weight"),
    ("noise1000", "relative", 10.0, {}, "1000 % noise on each weight"),
    ("flips1e-6", "flip", 1e-6, {"format": "float32"}, "bit errors, rate 1e-06, float32"),
    ("flips1e-6-int8", "flip", 1e-6, {"format": "int8"}, "bit errors, rate 1e-06, int8"),
    ("flips2.5e-7-bfloat16", "flip", 2.5e-7, {"format": "bfloat16"}, "bit errors, rate 2.5e-07, bfloat16"),
    ("flips0.001", "flip", 1e-3, {"format": "float32"}, "bit errors, rate 0.001, float32"),
]


@pytest.mark.parametrize(("name", "perturbation", "dose", "settings", "label"), FORMS, ids=[form[0] for form in FORMS])
def test_a_name_means_one_disturbance(
    name: str, perturbation: str, dose: float, settings: dict[str, Scalar], label: str
) -> None:
    one = scheme(name)
    assert (one.name, one.perturbation, one.settings, one.label) == (name, perturbation, settings, label)
    assert one.dose == pytest.approx(dose, rel=1e-12)


@pytest.mark.parametrize("name", sorted({*READY, *(form[0] for form in FORMS), *USUAL.split(",")}))
def test_every_scheme_fits_its_perturbation(name: str) -> None:
    one = scheme(name)
    made = create(one.perturbation, dict(one.settings))
    made.require_dose(one.dose)
    assert one.random == made.random
    assert one.needs == made.needs
    assert one.rare == (one.perturbation == "flip")


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ("Int8WeightOnlyConfig", "int8"),
        ("int8_weight_only", "int8"),
        ("int8wo", "int8"),
        ("load_in_8bit", "int8"),
        ("Int4WeightOnlyConfig", "int4-g128"),
        ("int4_weight_only", "int4-g128"),
        ("int4wo", "int4-g128"),
        ("int4wo-64", "int4-g64"),
        ("bnb_4bit_nf4", "nf4"),
        ("q8_0", "int8-g32"),
        ("bfloat16", "bf16"),
        ("float16", "fp16"),
        (" int4 ", "int4"),
        ("INT4", "int4"),
        ("Int3-G32", "int3-g32"),
        ("FLIPS1E-6-INT8", "flips1e-6-int8"),
        ("LOAD_IN_8BIT", "int8"),
        ("INT4WO-64", "int4-g64"),
    ],
)
def test_what_other_tools_call_it_is_understood(other: str, name: str) -> None:
    assert scheme(other) == scheme(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("int1", "int8"),  # below the fewest bits
        ("int17", "int8"),  # above the most
        ("int", "int8"),
        ("int4-g0", "int4-g32"),
        ("int4-g1", "int4-g128"),
        ("int4-g0-aware", "int4-g128-aware"),
        ("int4-g1-aware", "int4-g128-aware"),
        ("int4-aware", "int4-g128-aware"),
        ("int4-tensor-aware", "int4-tensor"),
        ("nf4-g0", "nf4"),
        ("nf4-g1", "nf4"),
        ("nf8", "nf4"),
        ("prune0", "prune50"),
        ("prune100", "prune10"),
        ("prune12.5", "prune12"),
        ("wanda0", "wanda50"),
        ("wanda100", "wanda10"),
        ("prune-4:8", "prune-2:4"),
        ("noise0", "noise5"),
        ("noise-5", "noise5"),
        ("noise1000.5", "noise1000"),
        ("flips0", "flips1e-6"),
        ("flips1", "flips1e-6"),
        ("flips1e3", "flips1e-6"),
        ("flips1e-6-int4", "flips1e-6-int8"),
        ("int 4", "int4"),
        ("int4wo-1", "int4-g128"),
    ],
)
def test_what_is_no_scheme_is_refused_with_what_may_have_been_meant(name: str, meant: str) -> None:
    with pytest.raises(UnknownName, match="no deployment scheme") as caught:
        scheme(name)
    assert caught.value.do == f"Did you mean {meant!r}?"


def test_a_name_with_something_after_it_means_the_part_before() -> None:
    for name, meant in {
        "int5x": "int5",
        "int12-g48y": "int12-g48",
        "prune12.5": "prune12",
        "noise7%": "noise7",
    }.items():
        with pytest.raises(UnknownName, match="intN, N from 2 to 16 bits") as caught:
            scheme(name)
        assert caught.value.do == f"Did you mean {meant!r}?"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("awq", "int4-g128-aware"),
        ("AWQ", "int4-g128-aware"),
        ("gptq", "int4-g128"),
        ("gptq-3bit", "int3-g128"),
        ("q4_k_m", "int4-g32"),
        ("Q5_K_S", "int5-g32"),
        ("q6_k", "int6-g16"),
        ("q2_k", "int2-g16"),
        ("q4_0", "int4-g32"),
        ("iq4_nl", "nf4-g32"),
        ("bnb", "nf4"),
        ("bitsandbytes-8bit", "int8"),
        ("fp8", "int8"),
        ("float8_e4m3fn", "int8"),
        ("mxfp4", "fp4-g32"),
        ("w4a16", "int4-g128"),
        ("hqq", "int4-g64"),
    ],
)
def test_a_format_that_is_not_simulated_says_so_and_which_scheme_is_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownName) as caught:
        scheme(name)
    assert caught.value.do == (
        f"{name} itself is not simulated; the nearest scheme is {nearest!r} ({scheme(nearest).label})."
    )


def test_every_scheme_that_is_named_as_nearest_exists() -> None:
    for form, like in FORMATS:
        assert scheme(like.format(4)), form


@pytest.mark.parametrize("name", ["four", "", "?"])
def test_a_name_like_no_other_is_answered_with_all_of_them(name: str) -> None:
    with pytest.raises(UnknownName) as caught:
        scheme(name)
    assert caught.value.do == f"Choose one of: {', '.join(sorted(READY))}."


def test_several_names_are_taken_in_order_and_each_once() -> None:
    assert [one.name for one in schemes("nf4, int8,,int4 ,int8")] == ["nf4", "int8", "int4"]
    assert [one.name for one in schemes("Int4WeightOnlyConfig,int4wo,int4-g128")] == ["int4-g128"]


@pytest.mark.parametrize("names", ["", "  ", ",", " , ,"])
def test_no_name_at_all_is_refused(names: str) -> None:
    with pytest.raises(UsageError, match="No deployment scheme is named") as caught:
        schemes(names)
    assert not isinstance(caught.value, UnknownName)
    assert "int8" in str(caught.value.expected) and "wheeltap list schemes" in str(caught.value.do)


def test_a_setting_with_a_bad_name_is_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="int99"):
        wt.plan(*_net(), audits=[wt.AuditSpec("deployment", {"schemes": "int8,int99"})])
    with pytest.raises(UsageError, match="No deployment scheme is named"):
        DeploymentSettings(schemes=" ")


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
    assert both == {name for name in READY if not name.startswith(("noise", "flips"))} - {"bf16", "fp16"}
    assert all(spared[name] == () for name in set(READY) - both)  # memory errors hit all; all is stored in 16 bits
    assert scheme("int4").spared(replace(record, ends=())) == ()


def _net() -> tuple[wt.Subject, wt.Task]:
    from wheeltap.testing.planted import planted

    case = planted("mlp")
    assert isinstance(case.task, wt.Task)
    return case.subject, case.task
