"""Every built-in perturbation keeps the contract that other packages' ones must keep, on every model of the table."""

from typing import ClassVar

import pytest
import torch
from engine_trials import DOSES

from tests.cases import MODEL_CASES
from wheeltap import gauge
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.layer import Layer
from wheeltap.core.records import Scalar
from wheeltap.core.site import WHOLE
from wheeltap.engine.apply import Disturbance, Knowledge, LayerKnowledge
from wheeltap.engine.clean import settle
from wheeltap.engine.needs.gather import gather, of_another
from wheeltap.engine.needs.tuning import TuningCopy
from wheeltap.perturb import BUILTIN, create, perturbations
from wheeltap.perturb.base import EVERY_GAUGE, Draw, Weights
from wheeltap.perturb.merge import Merge
from wheeltap.perturb.quantize import RoundToNearest
from wheeltap.perturb.tune import FineTune
from wheeltap.testing import planted
from wheeltap.testing.contract import PerturbationContract
from wheeltap.testing.planted import CASES, PlantedCase, numbers


class TestRoundToNearest(PerturbationContract):
    perturbation = RoundToNearest
    doses = (8, 6, 4, 2, 3)
    sensitive_to = frozenset({"rescale", "cancel"})
    draws = 24


class TestMerge(PerturbationContract):
    """A copy with permuted units is far from the original in weights, and so is the mean of both in function."""

    perturbation = Merge
    doses = (-1.0, 1.0, 2.0, 0.5)
    sensitive_to = frozenset({"permute"})
    draws = 24

    def known(self, case: PlantedCase) -> Knowledge:
        """Weights of a net of the same kind: other ones of the small nets, the original's for a copy."""
        name = case.subject.name
        other = planted.planted(name, seed=1) if name in CASES else planted.clusters()
        return of_another(case.subject, other.subject)


class TestFineTune(PerturbationContract):
    """Adam's steps turn on the scale of a unit too; a few of them show it by less than the margin."""

    perturbation = FineTune
    settings: ClassVar = {"batch": 4, "lr": 0.02}
    doses = (1, 20, 10)
    draws = 12

    def known(self, case: PlantedCase) -> Knowledge:
        """A copy of the net at hand is trained."""
        return TuningCopy(case.subject, case.task, self.made().settings)


# ---- gauges ---------------------------------------------------------------------------------------------------------


def laws(
    name: str, dose: float, sensitive: str = "", *, draws: int = 24, **settings: Scalar
) -> type[PerturbationContract]:
    """The contract of a perturbation at one dose; ``sensitive`` names gauges."""
    given = {"perturbation": perturbations.get(name), "doses": (dose,), "draws": draws, "settings": settings}
    return type(name, (PerturbationContract,), {**given, "sensitive_to": frozenset(sensitive.split())})


# At sixteen bits, or at four with a scale for each few weights, nothing shows on a net this small. Noise of a fixed
# size is not invariant, which is why it is not the default.
LAWS = {
    contract.__name__: contract
    for contract in (
        laws("relative", 0.5, "cancel entangle", draws=96), laws("std", 0.5, "rescale cancel", draws=96),
        laws("function", 0.4, draws=96), laws("quantize-inputs", 3, "rescale"), laws("quantize-aware", 3, "cancel"),
        laws("prune", 0.5, "rescale"), laws("prune-random", 0.1, "cancel entangle", draws=96),
        laws("prune-nm", 0.75, "rescale cancel"), laws("prune-wanda", 0.5, "cancel"), laws("prune-units", 0.5, "dead"),
        laws("flip", 0.01, "rescale", draws=96, format="int8"), laws("flip-worst", 3, "rescale", format="int8"),
        laws("cast", 16), laws("erase", 0.3),
    )
}  # fmt: skip
"""Of heads and caches in test_perturb_heads and test_perturb_activations."""

PAIRS = [
    (name, operation)
    for name, contract in LAWS.items()
    for operation in gauge.GAUGES
    if operation in contract.perturbation.invariant_to | contract.sensitive_to
]
DAILY = {("relative", "cancel"), ("function", "rescale")}
"""Of noise, which needs many draws; all other pairs are fast."""


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        pytest.param(*pair, marks=[] if pair in DAILY or LAWS[pair[0]].draws == 24 else pytest.mark.release)
        for pair in PAIRS
    ],
)
def test_declared_invariances_hold(name: str, operation: str) -> None:
    LAWS[name]().test_declared_invariances_hold(operation)


def test_every_builtin_has_its_gauges_tested() -> None:
    elsewhere = {"none", "quantize", "merge", "fine-tune", "prune-heads", "quantize-cache"}
    assert LAWS.keys() | elsewhere == set(BUILTIN)
    assert set(gauge.GAUGES) == EVERY_GAUGE


# ---- every model of the table ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODEL_CASES)
def test_every_builtin_keeps_the_contract_on_every_model(name: str) -> None:
    """Same draw, same bits; other draws, others where it is random; only accepted layers change, and come back."""
    case = MODEL_CASES[name].planted()
    subject, model = case.subject, case.subject.model
    settle(subject, case.task)
    clean, digest = {path: held.detach().clone() for path, held in model.named_parameters()}, weights_digest(model)
    gathered: dict[str, Knowledge] = {"": LayerKnowledge({})}
    for perturbation, dose in DOSES.items():
        made = create(perturbation)
        if made.needs in ("tuned", "other"):
            continue  # above
        if made.needs not in gathered:
            gathered[made.needs] = gather(made.needs, subject, case.task)
        with Disturbance(subject, made, WHOLE, gathered[made.needs]) as disturbance:
            digests: list[str] = []
            for seed in (3, 3, 4):
                disturbance.apply(dose, root=5, seed=seed)
                digests.append(weights_digest(model))
            assert digests[0] == digests[1], perturbation
            assert (digests[0] != digests[2]) == (made.random and bool(disturbance.layers)), perturbation
            parts = {path for layer in disturbance.layers for path in (layer.weight, layer.bias, layer.length)}
            moved = {path for path, held in model.named_parameters() if not torch.equal(held, clean[path])}
            assert moved <= parts, perturbation
            if MODEL_CASES[name].dtype is torch.float32 and made.changes != "cache":  # to 16 bits they are cast already
                assert moved or not disturbance.layers, perturbation
            assert all(bool(held.isfinite().all()) for held in model.parameters()) or "flip" in perturbation
            if made.identity is not None:
                disturbance.apply(made.identity, root=5, seed=3)
                assert weights_digest(model) == digest, perturbation
        assert weights_digest(model) == digest, perturbation


# ---- what cannot be done --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["function", "quantize-aware", "prune-wanda", "prune-units", "prune-heads", "flip-worst", "merge"]
)
def test_without_what_it_needs_it_is_refused(name: str) -> None:
    layer = Layer(name="x", kind="linear", weight="x.weight", bias=None, shape=(6, 8))
    with pytest.raises(ModelError):
        create(name).replace(layer, Weights(numbers(6, 8, seed=0)), 1.0, Draw(0, 0))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cast", {"dtype": "float8"}), ("quantize", {"grid": "nf4"}), ("quantize", {"scale": "row"}),
        ("quantize", {"scale": "group", "group": 1}), ("quantize", {"group": 32}), ("flip", {"format": "int4"}),
    ],
)  # fmt: skip
def test_settings_and_doses_that_do_not_fit_are_refused(name: str, settings: dict[str, Scalar]) -> None:
    with pytest.raises(UsageError):
        create(name, settings).require_dose(3)
