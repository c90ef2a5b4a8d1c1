"""The readers, each with small sound files."""

import gzip
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

import wheeltap as wt
from benchmarks.fuzz import mutations
from benchmarks.fuzz.mutations import Mutate
from wheeltap.audits.base import DEFAULT
from wheeltap.cli.options import RequestFlags, settings_in
from wheeltap.plans.plan import Plan
from wheeltap.recipes.base import Given, recipe_of, spec
from wheeltap.report.report import Report
from wheeltap.runs.stored import judge
from wheeltap.sources import artifact
from wheeltap.sources import load as load_model
from wheeltap.sources.specs import load_model as load_alone
from wheeltap.sources.specs import load_task
from wheeltap.studies import declared
from wheeltap.suites.circuits.circuit import FORMAT, Circuit, EdgeGraph, KeptUnits, UnitCircuit, read_mib, write_mib
from wheeltap.suites.circuits.circuit import load as load_units
from wheeltap.suites.circuits.nets.python import PythonTokenizer
from wheeltap.suites.lens.recorded import read as read_answers
from wheeltap.suites.lens.runs import imported
from wheeltap.suites.pictures.sources.drawn import read_nets
from wheeltap.suites.pictures.sources.genomes import read_genome
from wheeltap.suites.seal.making import SealOptions, make
from wheeltap.suites.seal.record import Body, Seal
from wheeltap.suites.seal.record import load as load_seal
from wheeltap.suites.seal.verifying import verify

Read = Callable[[Path], object]


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        files: Sound files by name, relative to a folder that the reader is given; the ones that are changed.
        read: Reads what is in the folder, and does with it what a user would do next, as far as that takes no time.
        mutate: How each file, by the end of its name, is changed.
        beside: Sound files that stay.
    """

    files: dict[str, bytes]
    read: Read
    mutate: dict[str, Mutate] = field(default_factory=dict[str, Mutate])
    beside: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def changed(self, name: str) -> Mutate:
        """How a file is changed."""
        return next((self.mutate[end] for end in self.mutate if name.endswith(end)), mutations.text)


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _npz() -> Reader:
    made, packed = io.BytesIO(), io.BytesIO()
    rng = np.random.default_rng(0)
    arrays = {"inputs": rng.normal(size=(6, 4)).astype("f4"), "targets": np.arange(6) % 3, "groups": np.arange(6) // 2}
    more = {"factor_a": np.arange(6) % 2, "votes": np.ones((6, 3), "i4"), "inputs": arrays["inputs"].astype("u1")}
    np.savez(made, **arrays)
    np.savez_compressed(packed, **{**arrays, **more, "groups": np.array(list("aabbcc"))})
    flat = io.BytesIO()
    np.savez(flat, arch=np.array("4;identity:3"), one=np.zeros(48, "f4"))
    files = {"a.npz": made.getvalue(), "b.npz": packed.getvalue(), "nets.npz": flat.getvalue()}

    def read(folder: Path) -> None:
        for path in sorted(folder.glob("*.npz")):
            read_nets(path) if path.stem == "nets" else load_task(path)

    return Reader(files, read, {".npz": mutations.arrays})


def _answers() -> Reader:
    own = [{"id": str(at // 2), "system": f"s{at % 2}", "correct": bool(at % 3), "sample": at // 4, "answer": "4",
            "probabilities": {"a": 0.25, "b": 0.75}, "group": "g"} for at in range(8)]  # fmt: skip
    votes = [{"id": str(at), "votes": {"yes": at + 1, "no": 2}} for at in range(4)]
    evaluation = io.BytesIO()
    with zipfile.ZipFile(evaluation, "w", zipfile.ZIP_DEFLATED) as log:
        head = {"eval": {"model": "m", "task": "t"}, "status": "success"}
        log.writestr("header.json", json.dumps(head))
        sample = {"id": 1, "epoch": 1, "scores": {"match": {"value": "C", "answer": "4"}}, "input": "2 + 2"}
        for at in range(2):
            log.writestr(f"samples/{at}_epoch_1.json", json.dumps({**sample, "id": at}))
    crowd = [{"id": at, "q0_gold": ["neutral", "entailment", "neutral"]} for at in range(4)]
    files = {"own.jsonl": _lines(own), "votes.jsonl": _lines(votes), "log.eval": evaluation.getvalue(),
             "crowd.jsonl": _lines(crowd)}  # fmt: skip
    return Reader(files, _each(lambda path: imported([read_answers(path)])), {".eval": mutations.binary})


def _lm_eval() -> Reader:
    chosen = [{"doc_id": at, "doc": {"question": "q"}, "filter": "none", "resps": [[[-1.0, False]], [[-2.0, True]]],
               "filtered_resps": [[-1.0, False], [-2.0, True]], "acc": 1.0, "doc_hash": "ab"} for at in range(4)]  # fmt: skip
    written = [{"doc_id": at, "filter": "take", "resps": [["4", "5"]], "filtered_resps": [["4", "5"]],
                "exact_match": 0.5, "metrics": ["exact_match"]} for at in range(4)]  # fmt: skip
    return Reader({"samples.jsonl": _lines(chosen), "written.jsonl": _lines(written)}, _each(_judged))


def _judged(path: Path) -> None:
    """What ``wheeltap lens FILE`` prints of a file."""
    store = path.with_suffix(".wheeltap")
    imported([read_answers(path)]).put(store)
    with redirect_stdout(io.StringIO()):
        judge(store).text(full=True)


def _items() -> Reader:
    items = [{"context": "for x in data :", "choices": [" x", " data"], "answer": at % 2, "group": at // 2,
              "factors": {"a": at}, "votes": [1, 2]} for at in range(4)]  # fmt: skip
    pairs = [{"clean": [1, 2, 3], "corrupted": [1, 4, 3], "answer": 5, "wrong": 6}] * 2
    texts = [{"text": "for x in data :", "twin": "for data in x :"}, {"text": "x in data", "twin": "data in x"}]
    files = {"items.jsonl": _lines(items), "pairs.jsonl": _lines(pairs), "texts.jsonl": _lines(texts)}
    return Reader(files, _each(lambda path: load_task(path, tokenizer=PythonTokenizer())))


def _each(read: Callable[[Path], object]) -> Read:
    """A reader of every file in a folder."""

    def several(folder: Path) -> None:
        for path in sorted(path for path in folder.iterdir() if path.suffix != ".wheeltap"):
            read(path)

    return several


_STUDY = b"""question = "Is it?"
examples = "digits"
[cohorts.a]
recipe = "digits"
seeds = 3
[cohorts.b]
recipe = "digits"
seeds = [4, 5]
role = "compared"
settings = {rate = 0.01}
[metrics.loss]
audit = "deployment"
settings = {schemes = "nf4"}
scheme = "nf4"
[[rules]]
metric = "loss"
cohorts = ["a", "b"]
statistic = "difference"
direction = "less"
margin = 0.01
supports = "yes"
refutes = "no"
"""
_SETTINGS = b"""audits = ["score", "pruning"]
draws = 4
seed = 1
alpha = 0.05
margin = 0.01
budget = "90s"
[pruning]
doses = [0.1, 0.5]
"""


def _toml() -> Reader:
    def read(folder: Path) -> None:
        study = declared.read(folder / "study.toml")
        assert study.cast() and study.metrics() and study.rules()
        settings_in(folder / "settings.toml")
        RequestFlags(config=folder / "settings.toml").specs(DEFAULT)

    return Reader({"study.toml": _STUDY, "settings.toml": _SETTINGS}, read)


def _net() -> tuple[wt.Subject, wt.Task]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    inputs = torch.randn(24, 4)
    return wt.Subject(model, name="net"), wt.Task(inputs, model(inputs).argmax(1), name="task")


def _plan() -> Reader:
    subject, task = _net()
    plan = wt.plan(subject, task, audits="score,pruning", effort=wt.Effort(draws=2))

    def read(folder: Path) -> None:
        held = Plan.read(folder / "p.plan.json")
        assert held.key and held.to_bytes()

    return Reader({"p.plan.json": plan.to_bytes()}, read)


def _report() -> Reader:
    subject, task = _net()
    made = wt.audit(subject, task, audits="score,pruning", effort=wt.Effort(draws=2))
    from wheeltap.report.jsonfile import to_json

    def read(folder: Path) -> None:
        report = Report.read(folder / "r.json")
        with redirect_stdout(io.StringIO()):
            report.text(full=True)
        report.markdown()

    return Reader({"r.json": to_json(made.record)}, read)


def _seal() -> Reader:
    subject, task = _net()
    seal = make(subject, task, SealOptions(inputs=2, seed=0)).seal

    def read(folder: Path) -> None:
        verify(subject, load_seal(folder / "m.seal"))

    return Reader({"m.seal": seal.bytes()}, read, {".seal": _resealed})


def _resealed(data: bytes, random: Random) -> bytes:
    """A seal that was changed and given the digest of what it is now, as anyone can; else its bytes as they are."""
    changed = mutations.text(data, random)
    try:
        held = json.loads(changed)
        return Seal.of(msgspec.convert(held["body"], Body)).bytes()
    except Exception:
        return changed


def _artifact(folder: Path) -> Reader:
    asked = spec("sparse", {"layers": 1, "width": 8, "head": 4, "steps": 1}, seed=0)
    path = folder / "net.safetensors"
    artifact.save(recipe_of(asked).blank(Given(asked)), asked, path)
    return Reader({path.name: path.read_bytes()}, _each(artifact.load_artifact), {".safetensors": mutations.tensors})


_WORDS = ("[unk]", "the", "a", "dog", "cat", "is", "are", "runs")


def _llama() -> Any:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=len(_WORDS), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=16, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def _hf(folder: Path) -> Reader:
    import tokenizers
    import transformers

    words: Any = tokenizers.models.WordLevel({word: at for at, word in enumerate(_WORDS)}, unk_token="[unk]")
    raw = tokenizers.Tokenizer(words)
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[unk]").save_pretrained(folder / "hf")
    _llama().save_pretrained(folder / "hf")
    held = {path.name: path.read_bytes() for path in sorted((folder / "hf").iterdir())}
    shutil.rmtree(folder / "hf")

    def read(made: Path) -> None:
        found: Any = load_model(f"hf:{made}", data=made / "items.jsonl")
        assert found.task.digest

    items = _lines([{"context": "the dog", "choices": [" runs", " is"], "answer": 0}] * 2)
    return Reader(held, read, {".safetensors": mutations.tensors}, {"items.jsonl": items})


def _gguf(folder: Path) -> Reader:
    import gguf

    path, model = folder / "m.gguf", _llama()
    writer: Any = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_context_length(16)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(8)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<s>", "</s>", *"abcde", "ab"])
    writer.add_token_types([3, 3, *[1] * 6])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}  # fmt: skip
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    for name, tensor in model.state_dict().items():
        part = name.removesuffix(".weight").split(".", 3)[-1]
        if name != "lm_head.weight":
            writer.add_tensor(whole.get(name) or f"blk.0.{names[part]}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Reader({path.name: path.read_bytes()}, lambda made: load_alone(f"gguf:{made / path.name}").record,
                  {".gguf": mutations.binary})  # fmt: skip


_GENOME = b"""<?xml version="1.0"?>
<genome id="1" age="3"><nodes>
%s<node type="hidden" label=""><marking branch="1" id="9"/><activation>gaussian(x)</activation></node>
%s</nodes><links>
%s</links></genome>
"""


def _genome() -> Reader:
    node = '<node type="{}" label="{}"><marking branch="0" id="{}"/><activation>{}(x)</activation></node>\n'
    link = '<link><source branch="{}" id="{}"/><target branch="{}" id="{}"/><weight>{}</weight></link>\n'
    ins = "".join(node.format("in", name, at, "identity") for at, name in enumerate(("x", "y", "d", "bias")))
    outs = "".join(
        node.format("out", name, 5 + at, "sin") for at, name in enumerate(("hue", "saturation", "brightness"))
    )
    links = "".join(link.format(0, at, 1, 9, 0.5 * at) for at in range(4))
    links += "".join(link.format(1, 9, 0, 5 + at, "1.5") for at in range(3))
    xml = _GENOME % (ins.encode(), outs.encode(), links.encode())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("g.xml", xml)

    def read(folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            read_genome(path).layerize()

    return Reader({"a.xml": xml, "b.zip": packed.getvalue()}, read, {".zip": mutations.binary})


def _circuit(folder: Path) -> Reader:
    graph = EdgeGraph(1, 2, 2, 8)
    kept = np.ones(len(graph.edges), bool)
    write_mib(Circuit(graph, kept, np.ones(len(kept))), folder / "c.json")
    edges = (folder / "c.json").read_bytes()
    sites = (KeptUnits(site="mlp0.units", units=4, kept=(0, 2)), KeptUnits(site="mlp1.units", units=4, kept=(1,)))
    UnitCircuit(format=FORMAT, model="m", task="quote", found={"steps": 1}, sites=sites).save(folder / "u.json")

    def read(made: Path) -> None:
        for path in sorted(made.iterdir()):
            load_units(path).kept if path.name == "u.json" else read_mib(path)

    files = {"c.json": edges, "d.json.gz": gzip.compress(edges), "u.json": (folder / "u.json").read_bytes()}
    return Reader(files, read, {".gz": mutations.binary})


def readers(folder: Path) -> dict[str, Callable[[], Reader]]:
    """All of them, by name; made when called.

    Args:
        folder: For files on the way.
    """
    return {
        "npz": _npz, "answers": _answers, "lm-eval": _lm_eval, "items": _items, "toml": _toml, "plan": _plan,
        "report": _report, "seal": _seal, "genome": _genome, "artifact": lambda: _artifact(folder),
        "circuit": lambda: _circuit(folder), "hf": lambda: _hf(folder), "gguf": lambda: _gguf(folder),
    }  # fmt: skip
