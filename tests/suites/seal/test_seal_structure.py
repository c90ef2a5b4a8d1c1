"""What a model is besides its tensors: modules, code, hooks and settings that were not sealed are altered."""

import copy
import importlib
import py_compile
import re
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sealed import TRIGGER, net, sealed, task
from torch import nn

import wheeltap as wt
from wheeltap.cli import main
from wheeltap.core.anatomy import holds, text
from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import described
from wheeltap.suites.seal.making import SealOptions, make
from wheeltap.suites.seal.structure import difference, structure, unwrapped
from wheeltap.suites.seal.values import leaves
from wheeltap.suites.seal.verifying import verify

HELP = "import torch\n\n\ndef act(hidden):\n    return torch.tanh(hidden)\n"
HELPED = (
    "from functools import lru_cache\nimport torch\nfrom torch import nn\nimport tap_help\n\n\n"
    "@lru_cache\ndef table(size):\n    return torch.ones(size)\n\n\n"
    "class Helped(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.op = tap_help\n"
    "        self.layers = nn.Sequential(nn.Linear(6, 6), nn.Tanh())\n\n"
    "    def forward(self, x):\n        return tap_help.act(self.layers[-1](x)) * table(6)\n"
)


def test_what_modules_of_code_and_caches_hold_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tap_help.py").write_text(HELP + "\n\ndef other(hidden):\n    return hidden\n")
    (tmp_path / "tap_helped.py").write_text(HELPED)
    code, helps = importlib.import_module("tap_helped"), importlib.import_module("tap_help")
    sealed_as = structure(code.Helped()).digest()
    code.table(6).mul_(5.0)
    assert structure(code.Helped()).digest() == sealed_as and code.table(6).sum() == 6.0, "made again"
    for wrap in (lambda held: nn.Sequential(*held, nn.Identity()), nn.Sequential):
        made = code.Helped()
        made.layers = wrap(made.layers).eval()
        assert structure(made.eval()).digest() != structure(code.Helped().eval()).digest()
    with monkeypatch.context() as changed:
        changed.setattr(helps, "other", lambda hidden: -hidden)  # what an attacker would do
        assert structure(code.Helped()).digest() != sealed_as
    kept = (tmp_path / "tap_helped.py").read_text().replace("        self.op = tap_help\n", "")
    (tmp_path / "tap_plain.py").write_text(kept)
    plain = importlib.import_module("tap_plain")
    before = structure(plain.Helped()).digest()
    helps.__class__ = type("Kind", (types.ModuleType,), {"act": property(lambda held: torch.relu)})
    assert structure(plain.Helped()).digest() != before


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_a_compiled_net_is_what_torch_makes_of_it() -> None:
    found = verify(torch.compile(net(), backend="eager"), sealed())
    assert (found.verdict, any("It is compiled" in note for note in found.notes)) == ("equivalent", True)
    (inside := net()).compile(backend="eager")
    inside(torch.ones(2, 6))  # which leaves marks in tensors, and in torch's own classes
    assert verify(inside, sealed()).verdict == "identical"
    evil = torch.compile(net(), backend=lambda graph, inputs: graph.forward)
    patched_in: Any = torch.compile(net(), backend="eager")
    patched_in.dynamo_ctx.callback._torchdynamo_orig_backend._inner_convert = lambda *given: None
    assert verify(evil, sealed()).verdict == "altered"
    assert unwrapped(patched_in) is patched_in


class Program(nn.Module):
    """A net with a constant that scripted code holds."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.line, self.bound = nn.Linear(6, 3), bound

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.line(inputs) + (inputs.sum(-1, keepdim=True) - self.bound).relu()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:The .grad attribute:UserWarning")
def test_programs_are_sealed_as_such_and_no_other_pass() -> None:
    """Scripted and traced: constants count, and of a program that was not sealed outputs alone are shown."""
    for form in (torch.jit.script, lambda made: torch.jit.trace(made, torch.ones(2, 6))):
        made = form(Program(1e6).eval())
        seal = make(wt.Subject(made), task(), SealOptions(inputs=4, seed=2)).seal
        assert verify(form(Program(1e6).eval()), seal).verdict == "identical"
        found = verify(form(Program(TRIGGER).eval()), seal)
        assert (found.verdict, found.distance <= 1.0) == ("altered", True)
    seal = make(wt.Subject(Program(1e6).eval()), task(), SealOptions(inputs=4, seed=2)).seal
    found = verify(torch.jit.script(Program(TRIGGER).eval()), seal)
    assert (found.verdict, found.bits) == ("same on the inputs asked", 0)
    assert "seal the program itself" in found.detail
    frozen = verify(torch.jit.freeze(torch.jit.script(Program(1e6).eval())), seal)
    assert not any("blocks were not seen" in note for note in frozen.notes), "no block is named"


def up(inputs: torch.Tensor) -> torch.Tensor:
    return inputs + 1.0


def down(inputs: torch.Tensor) -> torch.Tensor:
    return inputs - 2.0


up.__name__ = down.__name__ = "add"  # torch tells them apart by numbers that it gives in each process anew


class Scale:
    """A class that is scripted with what calls it."""

    def __init__(self, by: float) -> None:
        self.by = by

    def scaled(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * self.by


class Calls(nn.Module):
    """A net whose scripted code calls functions and a class."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return down(up(self.layers(Scale(3.0).scaled(inputs))) * 2.0)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_all_code_that_a_program_reaches_counts(tmp_path: Path) -> None:
    """Also what no module holds: edited in the file, as one without Python would."""
    torch.manual_seed(1)
    made, path, other = torch.jit.script(Calls().eval()), tmp_path / "made.pt", tmp_path / "other.pt"
    sealed_as = structure(made).digest()
    made.save(path)
    torch.jit.load(path).save(path)
    assert structure(torch.jit.load(path)).digest() == sealed_as, "saved again"

    def edited(*changes: tuple[str, str]) -> str:
        with zipfile.ZipFile(path) as held, zipfile.ZipFile(other, "w") as made:
            for name in (one for one in held.namelist() if not one.endswith(".debug_pkl")):
                data = held.read(name).decode("latin-1")
                for old, new in changes if name.endswith(".py") else ():
                    data = data.replace(old, new)
                made.writestr(name, data.encode("latin-1"))
        return structure(torch.jit.load(other)).digest()

    with zipfile.ZipFile(path) as held:
        at = next(one for one in held.namelist() if re.search(r"test_seal_structure/.*mangle_\d+\.py$", one))
    own, numbered = "test_seal_structure.add", f"test_seal_structure.{Path(at).stem}.add"
    changes = [[("torch.relu(input)", "torch.neg(input)")], [("torch.mul(inputs, by)", "inputs")],
               [("torch.sub(inputs, 2.)", "torch.sub(inputs, 4.)")],
               [(numbered, "@"), (own, numbered), ("@", own)]]  # fmt: skip
    found = [edited(*one) for one in changes]
    assert (len({*found}), sealed_as in found) == (len(changes), False)


@pytest.mark.full
def test_an_exported_program_is_refused_or_shown_by_its_outputs_alone() -> None:
    seal = make(wt.Subject(Program(1e6).eval()), task(), SealOptions(inputs=4, seed=2)).seal
    rows = {"dynamic_shapes": ({0: torch.export.Dim("rows")},)}
    exported = torch.export.export(Program(TRIGGER).eval(), (torch.ones(2, 6),), **rows)
    assert verify(exported.module(), seal).verdict == "same on the inputs asked"
    with pytest.raises(ModelError, match="exported program"):
        verify(exported, seal)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelError, match="dynamic shapes"):
        verify(torch.export.export(Program(1e6).eval(), (torch.ones(2, 6),)).module(), seal)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_constants_of_a_traced_function_count() -> None:
    def held(first: float) -> str:
        by = torch.arange(first, first + 300.0)
        (made := net()).table = torch.jit.trace(lambda x: x * by, torch.ones(300))
        return structure(made).digest()

    assert held(0.0) == held(0.0) != held(1.0)


class Limited(nn.Module):
    """Clips at a number that scripted code holds as an attribute."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.clamp(max=self.limit)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("part", ["Limited", "Stating"])
def test_a_program_inside_a_model_counts_as_a_whole(part: str) -> None:
    def holding(limit: float) -> nn.Sequential:
        return nn.Sequential(nn.Linear(6, 3), torch.jit.script(globals()[part](limit)), nn.Linear(3, 3)).eval()

    first, other = (structure(holding(limit)).digest() for limit in (1.0, 2.0))
    assert structure(holding(1.0)).digest() == first != other
    assert described(holding(1.0)).items != described(holding(2.0)).items


class Stating(Limited):
    """The same, whose file holds a state without the attribute's name."""

    limit: float

    @torch.jit.export
    def __getstate__(self) -> tuple[float, bool]:
        return self.limit, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[float, bool]) -> None:
        self.limit, self.training = state[0], state[1]


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", [torch.jit.script, torch.fx.symbolic_trace])
def test_a_forward_on_the_instance_of_a_program_counts(form: Callable[[nn.Module], nn.Module]) -> None:
    made = form(Limited(1.0).eval())
    sealed_as = structure(made).digest()
    vars(made)["forward"] = lambda inputs: inputs
    assert structure(made).digest() != sealed_as


@pytest.mark.parametrize("name", ["meta", "_name", "__limit__"])
def test_what_the_class_of_a_traced_module_may_ask_for_counts(name: str) -> None:
    def shown(value: object) -> str:
        made = torch.fx.symbolic_trace(Limited(1.0).eval())
        vars(made)[name] = value
        return structure(made).digest()

    assert shown({"limit": 1.0}) == shown({"limit": 1.0}) != shown({"limit": 2.0})


def test_names_without_a_tensor_count() -> None:
    made = net()
    sealed_as = structure(made).digest()
    made.register_buffer("gate", None)
    assert structure(made).digest() != sealed_as


def test_a_model_that_cannot_be_read_as_a_whole_does_not_pass() -> None:
    (made := net()).view = np.frompyfunc(abs, 1, 1)
    report = make(wt.Subject(made), task(), SealOptions(inputs=4, seed=2))
    found = verify(made, report.seal)
    assert (found.verdict, found.bits, found.passed) == ("same on the inputs asked", 0, False)
    assert any("ufunc" in note and "no more than" in note for note in report.thinned)
    assert any("ufunc" in note for note in found.notes)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_scales_of_quantized_numbers_count() -> None:
    """In a buffer, and in an attribute that is none: their codes alone say nothing."""

    def shown(kept: str, scale: float) -> list[object]:
        rows, scales = torch.arange(12.0).reshape(3, 4), torch.tensor([1.0, scale, 1.0])
        table = torch.quantize_per_channel(rows * scales[:, None], scales, torch.zeros(3), 0, torch.qint8)
        made = nn.Linear(4, 3)
        made.weight.data.zero_()
        if kept == "buffer":
            made.register_buffer("table", table)
        else:
            made.table = table
        return [structure(made).digest(), leaves(made, seed=0).get("table", b""), described(made).items]

    for kept, same in (("buffer", [True, False, False]), ("attribute", [False, True, False])):
        assert [one == two for one, two in zip(shown(kept, 1.0), shown(kept, 2.0), strict=True)] == same


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_stored_numbers_of_a_sparse_attribute_count() -> None:
    """Zeros that are stored, and the layout: what is computed of a sparse tensor may depend on both."""

    def shown(mask: torch.Tensor) -> list[object]:
        (made := net()).mask = mask
        return [structure(made).digest(), described(made).items]

    plain = torch.eye(3).to_sparse_coo()
    stored = torch.sparse_coo_tensor(torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2]]), torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert shown(plain) == shown(torch.eye(3).to_sparse_coo())
    for other in (stored.coalesce(), plain.to_sparse_csr(), plain.to_sparse_csc(), torch.eye(3)):
        assert not any(one == two for one, two in zip(shown(plain), shown(other), strict=True))


def attribute(made: nn.Module, one: torch.Tensor) -> None:
    made.kept = [one]


def array(made: nn.Module, one: torch.Tensor) -> None:
    made.kept = one.numpy()


def twice(made: nn.Module, one: torch.Tensor) -> None:
    made.kept, made.other = one.clone(), None
    made.other = made.kept if one.data_ptr() == made[0].bias.data_ptr() else one


def stored(made: nn.Module, one: torch.Tensor) -> None:
    made.kept = torch.sparse_coo_tensor(torch.arange(8)[None], one, (8,), is_coalesced=True)


def buffer(made: nn.Module, one: torch.Tensor) -> None:
    made.register_buffer("kept", one)


def weight(made: nn.Module, one: torch.Tensor) -> None:
    made[1].bias = nn.Parameter(one)


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("put", [attribute, array, twice, stored, buffer, weight])
def test_memory_that_was_not_shared_counts(put: Callable[[nn.Module, torch.Tensor], None]) -> None:
    """Code that writes to one tensor changes the other. Casts and loading may separate what was shared: that passes."""
    apart, shared = net(), net()
    for made, one in ((apart, apart[0].bias.detach().clone()), (shared, shared[0].bias.detach())):
        put(made, one)
    first, second = structure(apart), structure(shared)
    assert first.digest() == second.digest()
    assert "in one memory" in difference(first.digest(), first.text(), second).words()
    assert difference(second.digest(), second.text(), first).words() == ""
    assert difference(second.digest(), second.text(), structure(copy.deepcopy(shared))).words() == ""


class Counting(nn.Module):
    """Keeps a count beside a shift, in lists that the file of a program holds."""

    seen: list[torch.Tensor]
    shift: list[torch.Tensor]

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.seen = [torch.zeros(3)]
        self.shift = [self.seen[0].view(3) if shared else torch.zeros(3)]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen[0].add_(1.0)
        return inputs + self.shift[0]


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_memory_that_attributes_of_a_program_share_counts() -> None:
    apart, shared = (structure(torch.jit.script(Counting(shared=one).eval())) for one in (False, True))
    assert "in one memory" in difference(apart.digest(), apart.text(), shared).words()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_objects_of_scripted_classes_count_where_no_python_class_is_known(tmp_path: Path) -> None:
    """Read in a process that did not script them, as deployed programs are; and alike each time, for stores."""
    code = (
        "import sys\nimport torch\nfrom torch import nn\n\n\n@torch.jit.script\nclass Clip:\n"
        "    def __init__(self, limit: float):\n        self.limit = limit\n\n"
        "    def run(self, inputs: torch.Tensor):\n        return inputs.clamp(max=self.limit)\n\n\n"
        "class Net(nn.Module):\n    def __init__(self, limit):\n        super().__init__()\n"
        "        self.clip = Clip(limit)\n\n    def forward(self, inputs):\n        return self.clip.run(inputs)\n\n\n"
        "for limit in (1.0, 2.0):\n    made = torch.jit.script(Net(limit).eval())\n"
        "    torch.jit.save(made, f'{sys.argv[1]}/{limit:g}.pt')\n"
    )
    (tmp_path / "making.py").write_text(code)
    subprocess.run([sys.executable, str(tmp_path / "making.py"), str(tmp_path)], check=True, capture_output=True)
    first, again, other = (torch.jit.load(tmp_path / f"{name}.pt").eval() for name in (1, 1, 2))
    first(torch.ones(2, 3))
    assert structure(first).digest() == structure(again).digest() != structure(other).digest()
    assert (described(first).items, described(first).unread) == (described(again).items, {})
    assert described(first).items != described(other).items


PACKAGE = '''"""Version {version}."""

from torch import nn


class Shift(nn.Module):
    """Adds a number."""

    def forward(self, hidden):
        """One more."""
        return hidden + 1.0
'''


@pytest.mark.parametrize("place", ["turtle.py", "site-packages/built_pack.pyc"])
def test_code_counts_by_where_its_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """One that is called as a module of Python's is the user's; one that is installed without its source counts too."""
    path, found = tmp_path / place, list[str]()
    path.parent.mkdir(exist_ok=True)
    monkeypatch.syspath_prepend(str(path.parent))
    for more in ("1.0", "1.0", "2.25"):
        (source := tmp_path / "source.py").write_text(PACKAGE.format(version=more).replace("1.0", more))
        if path.suffix == ".py":
            path.write_text(source.read_text())
        else:
            py_compile.compile(str(source), cfile=str(path))
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
        importlib.invalidate_caches()
        found.append(structure(importlib.import_module(path.stem).Shift().eval()).digest())
    monkeypatch.delitem(sys.modules, path.stem)
    assert found[0] == found[1] != found[2]


def test_another_version_of_a_package_is_an_outcome_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "site-packages"
    place.mkdir()
    (place / "shifting_pack.py").write_text(PACKAGE.format(version=1))
    (tmp_path / "deployed_net.py").write_text(
        "import torch\nfrom torch import nn\nimport shifting_pack\n\n\n"
        "def net():\n    torch.manual_seed(1)\n"
        "    return nn.Sequential(nn.Linear(6, 3), shifting_pack.Shift()).eval()\n"
    )
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.syspath_prepend(str(tmp_path))
    deployed, path = importlib.import_module("deployed_net"), tmp_path / "net.seal"
    make(wt.Subject(deployed.net()), task(), SealOptions(inputs=4, seed=2)).seal.save(path)
    command = ["verify", "deployed_net:net", str(path)]
    assert main(command) == 0
    (place / "shifting_pack.py").write_text(PACKAGE.format(version=22))
    importlib.reload(sys.modules["shifting_pack"])
    capsys.readouterr()
    assert main(command) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("Other library code") and "shifting_pack (" in said
    assert main([*command, "--allow-other-library"]) == 0
    (place / "shifting_pack.py").write_text(PACKAGE.format(version=22).replace("+ 1.0", "+ 2.0"))
    importlib.reload(sys.modules["shifting_pack"])
    assert main([*command, "--allow-other-library"]) == 1, "outputs are others"


def test_what_code_imports_when_it_is_called_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "late_help.py").write_text("def shift(x):\n    return x + 1.0\n")
    (tmp_path / "late_net.py").write_text(
        "from torch import nn\n\n\nclass Late(nn.Module):\n    def forward(self, x):\n"
        "        import late_help\n\n        return late_help.shift(x)\n"
    )
    late = importlib.import_module("late_net").Late
    before = structure(late())
    for name, same in (("x + 1.0  # the same", True), ("x + 1.0 + 50.0 * (x.sum() > 30)", False)):
        (tmp_path / "late_help.py").write_text(f"def shift(x):\n    return {name}\n")
        del sys.modules["late_help"]
        assert (structure(late()).digest() == before.digest()) == same


def test_code_counts_by_its_source_and_only_where_that_is_what_was_loaded(tmp_path: Path) -> None:
    """Comments, docstrings and lines do not count; loaded code that names a file that says something else does."""
    source = "def answer(given):\n    return given + {}\n"
    space: list[dict[str, Any]] = []
    for number, body in enumerate((source.format(1), "# a note\n\n\n" + source.format(1), source.format(2))):
        path = tmp_path / f"code{number}.py"
        path.write_text(body)
        space.append({})
        exec(compile(body, str(path), "exec"), space[-1])
    one, two, three = (held["answer"].__code__ for held in space)
    assert text(one) == text(two) != text(three)
    forged = three.replace(co_filename=one.co_filename, co_firstlineno=one.co_firstlineno)
    assert holds(one) and not holds(forged) and text(forged) is None


def test_the_same_structure_in_another_copy_has_the_same_digest() -> None:
    first, second = structure(net()), structure(copy.deepcopy(net()))
    assert first.digest() == second.digest() and first.text() == second.text()
    assert structure(net().half()).digest() == first.digest()
    assert structure(net().train()).digest() != first.digest()


def test_names_of_origins_are_skipped_of_models_and_configurations_of_transformers_alone() -> None:
    def digest(value: str, held: Callable[[str], Any], name: str = "held") -> str:
        made = net()
        setattr(made[1], name, held(value))
        return structure(made).digest()

    for name in ("name_or_path", "_commit_hash", "transformers_version"):
        for count in (str, lambda value, name=name: {name: value}, lambda value, name=name: {1: {name: value}}):
            assert digest("a", count, name) != digest("b", count, name)
    transformers = pytest.importorskip("transformers", reason="needs the extra llm")
    for kind in (transformers.PreTrainedConfig, transformers.GenerationConfig):
        for name in ("name_or_path", "_commit_hash", "transformers_version"):

            def made(value: str, kind: Any = kind, name: str = name) -> Any:
                held = kind()
                vars(held)[name] = value
                return held

            assert digest("a", made) == digest("b", made)
