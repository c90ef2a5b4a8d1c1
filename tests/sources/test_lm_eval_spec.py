"""How a task of lm-eval is asked for: without lm-eval."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wheeltap.core.errors import MissingExtra, MissingFile, UnknownName, UsageError
from wheeltap.sources import load
from wheeltap.sources.lm_eval import LmEvalSpec

_NAMES = st.text("abcXYZ019_.-", min_size=1, max_size=12)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.builds(LmEvalSpec, name=_NAMES, metric=_NAMES | st.just(""), filter=_NAMES | st.just(""),
                 limit=st.integers(0, 10**6), fewshot=st.none() | st.integers(0, 100)))  # fmt: skip
def test_what_is_asked_for_survives_a_plan(asked: LmEvalSpec) -> None:
    assert LmEvalSpec.parse(str(asked)) == asked


def test_a_folder_is_kept_whole(tmp_path: Path) -> None:
    folder = tmp_path / "a, folder=odd"
    folder.mkdir()
    asked = LmEvalSpec.parse("lm_eval:mine,limit=5", include=folder)
    assert asked == LmEvalSpec(name="mine", limit=5, include=str(folder))
    assert LmEvalSpec.parse(str(asked)) == asked
    with pytest.raises(MissingFile, match="nowhere"):
        LmEvalSpec.parse("lm_eval:mine", include=tmp_path / "nowhere")


def test_what_cannot_be_read_is_said() -> None:
    usage = ("lm_eval:", "arc_easy", *(f"lm_eval:arc_easy,{one}" for one in
             ("limit=0", "limit=many", "fewshot=-1", "metric", "metric=")))  # fmt: skip
    for text in usage:
        with pytest.raises(UsageError):
            LmEvalSpec.parse(text)
    with pytest.raises(UnknownName):
        LmEvalSpec.parse("lm_eval:arc_easy,shots=5")


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_lm_eval_the_line_that_installs_it_is_printed(llama_folder: Path) -> None:
    with pytest.raises(MissingExtra, match=r"wheeltap\[eval\]"):
        load(f"hf:{llama_folder}", data="lm_eval:arc_easy")
