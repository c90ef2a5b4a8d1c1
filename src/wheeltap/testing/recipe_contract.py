"""The contract of recipes: the same bits however often it was broken off, and nothing else made of its files."""

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from wheeltap.core.canon import Scalar
from wheeltap.core.errors import StoreError, UsageError
from wheeltap.core.task import BaseTask
from wheeltap.plans.artifacts import Artifacts, digest
from wheeltap.recipes.base import Given, Recipe, specified
from wheeltap.recipes.make import Artifact, Pace, make, weights

EACH_STEP = Pace(watch=0.0, keep=0.0)
"""The watch is called, and a state kept, after every step."""

SLOWLY = 0.1
"""Seconds that the process that is killed rests after each step: so that it is killed before it is done."""

STARTED = 60.0
"""Seconds in which it must have taken a step."""

CHANGED = "0" * 32
"""A digest that no weights have."""


class RecipeContract:
    """Subclass it as ``Test...`` and set the attributes; what is made takes at least three steps, and little time.

    Attributes:
        recipe: The class under test.
        settings: With which something is made quickly.
        other: Of each setting, another value, which must make something else or record something else.
        beside: Of a setting that counts only beside others, what these must be.
        idle: Settings that change nothing in so small an example, each with the reason.
        brief: Whether it takes a single step, so that there is nothing to break off.
    """

    recipe: ClassVar[type[Recipe]]
    settings: ClassVar[Mapping[str, Scalar]] = {}
    other: ClassVar[Mapping[str, Scalar]] = {}
    beside: ClassVar[Mapping[str, Mapping[str, Scalar]]] = {}
    idle: ClassVar[Mapping[str, str]] = {}
    brief: ClassVar[bool] = False

    def task(self) -> BaseTask | None:
        """The task that it makes something with, if it needs one."""
        return None

    def of(self) -> tuple[nn.Module, ...]:
        """What it is made from."""
        return ()

    def given(self, *, seed: int = 3, settings: Mapping[str, Scalar] | None = None) -> Given:
        """What is asked for in the tests."""
        task, of = self.task(), self.of()
        names = tuple(digest(weights(model)) for model in of)
        filled = {**self.settings, **(settings or {})}
        data = task.digest if task is not None else ""
        return Given(specified(self.recipe, filled, seed=seed, of=names, data=data), of, task)

    def makes(
        self, given: Given, folder: Path | None = None, *, pace: Pace = EACH_STEP, expected: str = ""
    ) -> Artifact:
        """Makes what is asked for."""
        kept = None if folder is None else Artifacts(folder)
        return make(given, self._recipe(given), kept, pace=pace, expected=expected)

    @property
    def _least(self) -> int:
        return 1 if self.brief else 3

    def _recipe(self, given: Given) -> Recipe:
        return self.recipe(dict(given.spec.settings))

    def test_says_what_it_is(self) -> None:
        """A name, a title and a version; a spec holds every setting."""
        assert self.recipe.name and self.recipe.title and self.recipe.version >= 1
        assert set(self.given().spec.settings) == set(self.recipe.settings_type.__struct_fields__)

    def test_the_same_seed_gives_the_same_bits_and_another_others(self) -> None:
        """Whatever torch's global generator stands at, which is left as it was; as are threads and gradients."""
        torch.default_generator.manual_seed(1)
        first = self.makes(self.given())
        torch.default_generator.manual_seed(2)
        before, threads = torch.get_rng_state(), torch.get_num_threads()
        again = self.makes(self.given(), pace=Pace())
        assert _same(first, again), "the same spec gave other bits"
        assert torch.equal(torch.get_rng_state(), before), "torch's random numbers were disturbed"
        assert torch.get_num_threads() == threads and torch.is_grad_enabled()
        assert self.makes(self.given(seed=4)).digest != first.digest, "another seed gave the same bits"

    @pytest.mark.parametrize("draw", range(3))
    def test_interrupted_anywhere_it_comes_to_the_same_bits(self, draw: int) -> None:
        """Interrupted at random steps and resumed from its own state, which has the same form at every step."""
        given = self.given()
        whole = self.makes(given)
        recipe, rng = self._recipe(given), np.random.default_rng(draw)
        state = recipe.start(given)
        assert state.steps >= self._least, "nothing to break off: let the contract's example take some steps"
        shapes = _described(state.arrays())
        for until in sorted(rng.integers(0, state.steps + 1, size=3)):
            state.advance(int(until))
            assert _described(state.arrays()) == shapes, "a state of other names, shapes or types"
            arrays, note = state.arrays(), state.note()
            state.advance(state.steps)  # what was said must not change with what becomes of it
            state = recipe.start(given)
            state.resume(arrays, note)
            assert state.note() == note and _alike(state.arrays(), arrays), "it did not take up what was said"
        while state.status == "training":
            state.advance(state.steps)
        assert digest(weights(state.made())) == whole.digest, "other bits"
        assert state.status == whole.status
        assert _alike(state.report(), dict(whole.report)), "another report"

    def test_killed_it_comes_to_the_same_bits(self, tmp_path: Path) -> None:
        """A process that is killed in the middle, really; another takes up its files."""
        if self.brief:
            pytest.skip("there is no middle of a single step")
        given = self.given()
        kept = Artifacts(tmp_path)
        processes = multiprocessing.get_context("forkserver")  # which imports torch once for all recipes
        processes.set_forkserver_preload([__name__])
        child = processes.Process(target=_make_slowly, args=(self, tmp_path), daemon=True)
        child.start()
        until = time.monotonic() + STARTED
        while not kept.state_path(given.spec).exists() and child.is_alive() and time.monotonic() < until:
            time.sleep(0.005)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL, "it was done before it was killed"
        start = self._recipe(given).start(given)
        left = kept.load_state(given.spec, like=start.arrays())
        assert left is not None, "it had kept no state"
        start.resume(left.arrays, left.note)
        assert start.status == "training"
        resumed = self.makes(given, tmp_path)
        assert _same(resumed, self.makes(given)), "other bits"
        assert resumed.steps < start.steps, "it began anew"
        assert not kept.state_path(given.spec).exists(), "a state was left behind"

    def test_what_is_made_is_found_again(self, tmp_path: Path) -> None:
        """No step is taken, and the model, its status and its report are the same."""
        first, again = (self.makes(self.given(), tmp_path) for _ in range(2))
        assert first.steps >= self._least and again.steps == 0
        assert _same(first, again)
        assert digest(weights(again.model)) == first.digest

    def test_another_digest_is_refused(self, tmp_path: Path) -> None:
        """Of a file that is there, and of what is made again; both digests are in the message."""
        made = self.makes(self.given(), tmp_path)
        assert self.makes(self.given(), tmp_path, expected=made.digest).steps == 0
        for folder in (tmp_path, tmp_path / "new"):
            with pytest.raises(StoreError) as raised:
                self.makes(self.given(), folder, expected=CHANGED)
            assert CHANGED in str(raised.value) and made.digest in str(raised.value)
        assert not Artifacts(tmp_path / "new").path(self.given().spec).exists(), "what was refused was kept"

    def test_another_version_is_refused(self, tmp_path: Path) -> None:
        """A spec of another version; and states and files of another version are not taken up."""
        given = self.given()
        later = type("Later", (self.recipe,), {"version": self.recipe.version + 1})
        with pytest.raises(UsageError, match="version"):
            make(given, later(dict(given.spec.settings)))
        self.makes(given, tmp_path)
        spec = specified(later, dict(given.spec.settings), seed=3, of=given.spec.of, data=given.spec.data)
        anew = make(Given(spec, given.of, given.task), later(dict(spec.settings)), Artifacts(tmp_path))
        assert anew.steps >= self._least, "a file of another version was taken up"

    def test_every_setting_is_used(self) -> None:
        """Each changes what is made or recorded, or there is a reason."""
        names = set(self.recipe.settings_type.__struct_fields__)
        assert {*self.other, *self.idle} == names, "name another value, or a reason, for each setting"
        for name, value in self.other.items():
            beside = self.beside.get(name, {})
            one, two = (self.makes(self.given(settings=changed)) for changed in (beside, {**beside, name: value}))
            assert not _same(one, two), f"the setting {name} changed nothing"

    def test_unknown_settings_are_refused(self) -> None:
        """A setting that it does not have: ``UsageError``."""
        with pytest.raises(UsageError):
            self.recipe({**self.settings, "no such setting": 1})

    def test_a_blank_is_what_weights_fit_into(self) -> None:
        """The same modules, and weights of the same names, shapes and types; both in eval mode, without gradients."""
        given = self.given()
        blank, made = self._recipe(given).blank(given), self.makes(given).model
        assert str(blank) == str(made)
        assert _described(weights(blank)) == _described(weights(made))
        for model in (blank, made):
            assert not any(module.training for module in model.modules()), "not in eval mode"
            assert all(parameter.grad is None for parameter in model.parameters()), "a gradient was left behind"

    def test_its_report_is_of_finite_numbers(self) -> None:
        """Of the same names, shapes and types from the start on."""
        given = self.given()
        start, made = self._recipe(given).start(given).report(), self.makes(given).report
        assert _described(start) == _described(made)
        assert all(np.isfinite(array).all() and array.dtype.kind in "fi" for array in made.values())


def _make_slowly(contract: RecipeContract, folder: Path) -> None:
    given = contract.given()
    recipe = contract.recipe(dict(given.spec.settings))
    make(given, recipe, Artifacts(folder), watch=lambda taken, steps: time.sleep(SLOWLY), pace=EACH_STEP)


def _described(arrays: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (str(array.dtype), array.shape) for name, array in arrays.items()}


def _alike(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def _same(one: Artifact, two: Artifact) -> bool:
    return (one.digest, one.status) == (two.digest, two.status) and _alike(one.report, two.report)
