"""The search for circuits: its recipe keeps the contract, finds what was planted, and nothing where nothing is."""

import json
from typing import Any, ClassVar

import numpy as np
import planted_nets
import pytest
import torch

from wheeltap.core.errors import DataError, ModelError, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.readings import create
from wheeltap.suites.circuits.circuit import FORMAT, KeptUnits, UnitCircuit, load, packed, unpacked
from wheeltap.suites.circuits.recipes.search import CircuitSearch
from wheeltap.testing.planted import PlantedCase
from wheeltap.testing.reading_contract import ReadingContract

PLANTED = planted_nets.true(count=32)
TASK = planted_nets.task(PLANTED)


class TestCircuitSearchContract(ReadingContract):
    reading = CircuitSearch
    settings: ClassVar[dict[str, Any]] = {"steps": 4, "batch": 4}

    def case(self) -> PlantedCase:
        return PlantedCase(Subject(PLANTED.net), TASK)


def search(**settings: Any) -> dict[str, np.ndarray]:
    how = {"steps": 150, "batch": 16, "penalty": 1e-4, "rate": 0.02, "target": 0.4, **settings}
    reading = create("circuit-search", how)
    found = reading.read(Subject(PLANTED.net), TASK, root=0, seed=0)
    return reading.spec.typed(found.values, examples=len(TASK.targets))


def test_a_planted_circuit_is_found_and_nothing_where_nothing_is() -> None:
    found = search()
    assert 0 < found["size"] < 200 and found["loss"] < 0.5 and found["own"] < 0.01
    assert found["size"] <= found["sizes"].max() and found["edges"] < found["weights"]
    kept = found["rank"] < found["size"]
    assert kept.sum() == found["size"]
    for null in ("weights", "labels"):
        nothing = search(null=null, steps=20)
        assert nothing["size"] == 0 and nothing["losses"].min() > 0.4 and nothing["edges"] == 0


def test_a_task_without_pairs_and_a_group_that_is_not_there_are_refused() -> None:
    reading = create("circuit-search", {"group": 7})
    with pytest.raises(DataError):
        reading.read(Subject(PLANTED.net), TASK, root=0, seed=0)
    plain = Task(torch.zeros(4, 6, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ModelError):
        create("circuit-search", {}).read(Subject(PLANTED.net), plain, root=0, seed=0)


class TestFile:
    def made(self) -> UnitCircuit:
        return UnitCircuit(
            format=FORMAT, model="a" * 32, name="net", task="quote", examples="b" * 32,
            sites=(KeptUnits(site="mlp0.read", units=3, kept=(0, 2)), KeptUnits(site="mlp0.units", units=2)),
            found={"penalty": 1e-3},
        )  # fmt: skip

    def test_it_comes_back_as_it_was(self, tmp_path: Any) -> None:
        self.made().save(tmp_path / "circuit.json")
        again = load(tmp_path / "circuit.json")
        assert again == self.made() and again.size == 2
        assert again.kept.tolist() == [True, False, True, False, False]

    @pytest.mark.parametrize(
        "change",
        [b"[]", b"{", b'{"format": "other"}', ('"units": 3', '"units": 2'), ("[0, 2]", "[2, 0]"), ("0.001", "1e999"),
         ("wheeltap circuit", "another circuit"), ('"group"', '"grupp"')],
    )  # fmt: skip
    def test_what_is_no_circuit_is_refused(self, tmp_path: Any, change: Any) -> None:
        path = tmp_path / "circuit.json"
        self.made().save(path)
        text = json.dumps(json.loads(path.read_text()))
        path.write_bytes(change if isinstance(change, bytes) else text.replace(*change).encode())
        if not isinstance(change, bytes):
            assert change[0] in text
        with pytest.raises((DataError, ValueError)):
            load(path)

    def test_it_is_of_one_model(self) -> None:
        with pytest.raises(ModelError):
            self.made().require_model("c" * 32, name="other")

    def test_flags_as_text(self) -> None:
        for count in (0, 1, 8, 13):
            kept = np.random.default_rng(count).random(count) < 0.5
            assert np.array_equal(unpacked(packed(kept)), kept)
        for text in ("", "3:", "3:////", "x:AA==", "8:A!==", "1:/w=="):
            with pytest.raises(UsageError):
                unpacked(text)
