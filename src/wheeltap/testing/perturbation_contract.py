"""The contract of perturbations."""

import copy
from functools import cache
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core.errors import UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.layer import Layer
from wheeltap.core.records import Scalar
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.engine.apply import Disturbance, Knowledge, LayerKnowledge
from wheeltap.engine.needs.gather import gather
from wheeltap.gauge.moves import MOVES
from wheeltap.perturb.base import Draw, Need, Perturbation, Weights
from wheeltap.testing import planted
from wheeltap.testing.planted import CASES, PlantedCase

_case = cache(planted.planted)
_clusters = cache(planted.clusters)


@cache
def _normed() -> PlantedCase:
    """The trained MLP with a batch norm behind each of its first two layers, which takes half of the layer's part."""
    case = _clusters()
    parts: list[nn.Module] = []
    for module in copy.deepcopy(case.subject.model).children():
        parts.append(module)
        if isinstance(module, nn.Linear) and len(parts) < len(case.subject.layers):
            norm = nn.BatchNorm1d(module.out_features)
            factor = planted.numbers(module.out_features, seed=len(parts)).float().exp()
            norm.weight.data.copy_(factor * (1 + norm.eps) ** 0.5)
            module.weight.data.div_(factor[:, None])
            module.bias.data.div_(factor)
            parts.append(norm)
    return PlantedCase(Subject(nn.Sequential(*parts).eval(), name="normed"), case.task)


def _subject_for(name: str) -> PlantedCase | None:
    """The net on whose twins a gauge is tried; ``None`` where there is none small enough to carry a contract."""
    if name == "fold":
        return _normed()
    return _clusters() if name in MOVES else None


@cache
def _twin(name: str, seed: int) -> PlantedCase:
    """A twin of the net on which a gauge is tried, by the gauge's defaults: the same one for every perturbation."""
    case = _subject_for(name)
    assert case is not None, f"no net to try {name} on"
    family = gauge.find(case.subject.model)
    assert isinstance(family, gauge.Family)
    twin = gauge.twin(case.subject.model, gauge.describe(family, name, seed=seed))
    return PlantedCase(Subject(twin, name="twin"), case.task)


@cache
def _scores(contract: type["PerturbationContract"], case: PlantedCase) -> NDArray[np.float64]:
    """Mean score of a net at the last dose, ``[draw]``: what the twins of each gauge are compared with."""
    held = contract()
    known = held.known(case)
    return np.array([held.score(case, known, seed) for seed in range(held.draws)])


@cache
def _gathered(need: Need, kind: str) -> Knowledge:
    case = _case(kind)
    return gather(need, case.subject, case.task)


def _same(one: Weights, two: Weights) -> bool:
    """Whether all of it is equal to the bit."""
    for a, b in ((one.weight, two.weight), (one.bias, two.bias)):
        if a is None or b is None:
            if a is not b:
                return False
        elif not torch.equal(*(x.detach().contiguous().view(torch.uint8) for x in (a, b))):
            return False
    return True


class PerturbationContract:
    """Subclass it as ``Test...`` and set the attributes.

    Attributes:
        perturbation: The class under test.
        settings: With which it is made.
        doses: Doses inside the domain, at each of which something must change.
        sensitive_to: Gauges whose twins must show, at the last dose: what its lack of invariance is worth.
        draws: Replicates of the gauge checks, each a twin and a draw of its own.
        margin: Share of the score within which a declared invariance must hold (equivalence at 99.9 %).
    """

    perturbation: ClassVar[type[Perturbation]]
    settings: ClassVar[dict[str, Scalar]] = {}
    doses: ClassVar[tuple[float, ...]]
    sensitive_to: ClassVar[frozenset[str]] = frozenset()
    draws: ClassVar[int] = 96
    margin: ClassVar[float] = 0.06

    def made(self) -> Perturbation:
        """The perturbation under test."""
        return self.perturbation(self.settings)

    def known(self, case: PlantedCase) -> Knowledge:
        """What the perturbation needs to know of a subject; override it for what no clean pass tells."""
        need = self.perturbation.needs
        return gather(need, case.subject, case.task) if need else LayerKnowledge({})

    def changed(self, kind: str, *, dose: float, seed: int = 0, root: int = 0) -> dict[str, tuple[Weights, Weights]]:
        """Clean and disturbed weights of every layer of a planted net that the perturbation accepts."""
        made = self.made()
        known = self._known(kind).at(dose, root=root, seed=seed)
        return {
            layer.name: (held, made.replace(layer, held, dose, Draw(root, seed, known.get(layer.name))))
            for layer, held in self._accepted(kind, made)
        }

    def _known(self, kind: str) -> Knowledge:
        """``known`` of a planted net, read once where a clean pass tells it."""
        need = self.perturbation.needs
        return _gathered(need, kind) if need in ("moments", "inputs", "heads", "slopes") else self.known(_case(kind))

    def _accepted(self, kind: str, made: Perturbation) -> list[tuple[Layer, Weights]]:
        case, known = _case(kind), self._known(kind)
        return [
            (layer, _held(case.subject, layer))
            for layer in case.subject.layers
            if made.accepts(layer) and (not made.needs or known.covers(layer))
        ]

    @property
    def inert(self) -> bool:
        """Whether it changes nothing by design (its only dose is its identity)."""
        return self.perturbation.identity == self.perturbation.lowest == self.perturbation.highest

    def test_says_what_it_is(self) -> None:
        """Name, title, unit, version and domain are there and make sense."""
        kind = self.perturbation
        assert kind.name and kind.title and kind.unit, "name, title and unit must be given"
        assert kind.version >= 1, "the version starts at 1"
        assert kind.lowest <= kind.highest, "the domain is empty"
        assert kind.invariant_to <= set(gauge.GAUGES), f"unknown gauges: {set(kind.invariant_to) - set(gauge.GAUGES)}"
        assert not kind.invariant_to & self.sensitive_to, "declared invariant and sensitive"
        for dose in self.doses:
            self.made().require_dose(dose)

    @pytest.mark.parametrize("kind", CASES)
    def test_the_identity_changes_nothing(self, kind: str) -> None:
        """At its identity dose every weight keeps its bits; at every other dose something changes."""
        identity = self.perturbation.identity
        if identity is not None:
            for name, (before, after) in self.changed(kind, dose=identity).items():
                kept = Weights(after.weight, before.bias if after.bias is None else after.bias)
                assert _same(before, kept), f"{name} of {kind} changed at the identity dose"
        for dose in () if self.inert else self.doses:
            found = self.changed(kind, dose=dose)
            moved = [not torch.equal(before.weight, after.weight) for before, after in found.values()]
            assert any(moved) or not moved, f"nothing of {kind} changed at dose {dose:g}"

    @pytest.mark.parametrize("kind", CASES)
    def test_the_same_draw_gives_the_same_bits(self, kind: str) -> None:
        """Equal seeds, equal bits; other seeds and roots, other bits where it is random and only there."""
        dose = self.doses[-1]
        first, again = (self.changed(kind, dose=dose, seed=3, root=5) for _ in range(2))
        others = [self.changed(kind, dose=dose, seed=4, root=5), self.changed(kind, dose=dose, seed=3, root=6)]
        for name, (_, drawn) in first.items():
            assert _same(drawn, again[name][1]), f"{name} of {kind}: the same draw gave other bits"
            for other in others:
                same = _same(drawn, other[name][1])
                assert same != self.perturbation.random, f"{name} of {kind}: random is declared wrongly"

    @pytest.mark.parametrize("kind", CASES)
    def test_it_is_pure(self, kind: str) -> None:
        """What it is given stays as it was, bit for bit, and the result has its shape and dtype and is finite."""
        made = self.made()
        known = self._known(kind).at(self.doses[-1], root=0, seed=0)
        for layer, held in self._accepted(kind, made):
            before = Weights(held.weight.clone(), None if held.bias is None else held.bias.clone())
            after = made.replace(layer, held, self.doses[-1], Draw(0, 0, known.get(layer.name)))
            assert _same(before, held), f"{layer.name} of {kind}: the weights given were changed"
            for old, new in ((held.weight, after.weight), (held.bias, after.bias)):
                _require_alike(old, new, where=f"{layer.name} of {kind}")

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    def test_it_keeps_the_dtype(self, dtype: torch.dtype) -> None:
        """In other precisions too the result has the dtype of the weights and is finite."""
        made = self.made()
        known = self._known("mlp").at(self.doses[-1], root=0, seed=0)
        for layer, held in self._accepted("mlp", made):
            cast = Weights(held.weight.to(dtype), None if held.bias is None else held.bias.to(dtype))
            after = made.replace(layer, cast, self.doses[-1], Draw(0, 0, known.get(layer.name)))
            _require_alike(cast.weight, after.weight, where=f"{layer.name} in {dtype}")
            _require_alike(cast.bias, after.bias, where=f"{layer.name} in {dtype}")

    @pytest.mark.parametrize("kind", CASES)
    def test_only_the_site_changes(self, kind: str) -> None:
        """Disturbing one layer leaves every other parameter as it was, and the whole comes back bit-identical."""
        case, made = _case(kind), self.made()
        accepted = {layer.name: layer for layer, _ in self._accepted(kind, made)}
        clean = {name: p.detach().clone() for name, p in case.subject.model.named_parameters()}
        digest = weights_digest(case.subject.model)
        known = self._known(kind)
        for layer in case.subject.layers:
            own = {layer.weight, layer.bias} if layer.name in accepted else set[str | None]()
            with Disturbance(case.subject, made, Site("layer", layer.name), known) as disturbance:
                disturbance.apply(self.doses[-1], root=0, seed=0)
                moved = {n for n, p in case.subject.model.named_parameters() if not torch.equal(p, clean[n])}
            assert moved <= own, f"disturbing {layer.name} of {kind} changed {sorted(moved)}"
            assert weights_digest(case.subject.model) == digest, f"{kind} did not come back bit-identical"

    @pytest.mark.parametrize("kind", CASES)
    def test_the_subject_comes_back_after_an_exception(self, kind: str) -> None:
        """An exception inside the disturbed block leaves the subject bit-identical."""
        case, made = _case(kind), self.made()
        digest = weights_digest(case.subject.model)
        known = self._known(kind)
        with pytest.raises(InterruptedError), Disturbance(case.subject, made, WHOLE, known) as disturbance:
            disturbance.apply(self.doses[-1], root=0, seed=0)
            raise InterruptedError
        assert weights_digest(case.subject.model) == digest, f"{kind} did not come back bit-identical"

    def test_doses_outside_the_domain_are_refused(self) -> None:
        """Below, above and not a number: ``UsageError``, and the subject is left alone."""
        low, high = self.perturbation.lowest, self.perturbation.highest
        wrong = (low - 1.0, float(np.nextafter(low, -np.inf)), high + 1.0, float(np.nextafter(high, np.inf)))
        for dose in (*wrong, float("nan"), float("inf"), -float("inf")):
            with pytest.raises(UsageError):
                self.made().require_dose(dose)
        if self.perturbation.whole:
            with pytest.raises(UsageError, match=f"{self.perturbation.whole} come in whole numbers"):
                self.made().require_dose(self.doses[0] + 0.5)

    def test_unknown_settings_are_refused(self) -> None:
        """A setting that it does not have: ``UsageError``."""
        with pytest.raises(UsageError):
            self.perturbation({**self.settings, "no such setting": 1})

    @pytest.mark.parametrize("name", list(gauge.GAUGES))
    def test_declared_invariances_hold(self, name: str) -> None:
        """Twins of a declared gauge score alike, within the margin; those it is sensitive to do not."""
        case = _subject_for(name)
        if self.inert or case is None or name not in self.perturbation.invariant_to | self.sensitive_to:
            return
        # Replicates of a twin and a draw each, at the last dose.
        twins = [_twin(name, seed) for seed in range(self.draws)]
        theirs = np.array([self.score(twin, self.known(twin), seed) for seed, twin in enumerate(twins)])
        apart = theirs - _scores(type(self), case)
        value, error = float(apart.mean()), float(apart.std(ddof=1)) / len(apart) ** 0.5
        half = float(cast(Any, stats.t).ppf(0.9995, len(apart) - 1)) * error
        low, high = value - half, value + half
        found = f"{name} twins score {value:+.3f} [{low:+.3f}, {high:+.3f}] against the original"
        if name in self.perturbation.invariant_to:
            assert -self.margin < low and high < self.margin, f"not shown to be invariant: {found}"
        else:
            assert high < -self.margin or low > self.margin, f"not shown to be sensitive: {found}"

    def score(self, case: PlantedCase, known: Knowledge, seed: int) -> float:
        """Mean score of a net, disturbed at the last dose."""
        with Disturbance(case.subject, self.made(), WHOLE, known) as disturbance:
            disturbance.apply(self.doses[-1], root=0, seed=seed)
            scores = case.task.scores(case.subject.model)
        return float(case.task.measure(scores, case.task.targets, scores).mean())


def _held(subject: Subject, layer: Layer) -> Weights:
    bias = None if layer.bias is None else subject.parameter(layer.bias).detach().clone()
    return Weights(subject.parameter(layer.weight).detach().clone(), bias)


def _require_alike(old: Tensor | None, new: Tensor | None, *, where: str) -> None:
    if new is None:
        return
    assert old is not None, f"{where}: a bias where there was none"
    assert new.shape == old.shape, f"{where}: shape {list(new.shape)} for {list(old.shape)}"
    assert new.dtype == old.dtype, f"{where}: {new.dtype} for {old.dtype}"
    assert bool(torch.isfinite(new).all()), f"{where}: not finite"
