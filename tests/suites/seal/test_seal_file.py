"""The file of a seal: canonical, small, and broken by any change."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from sealed import digits
from torch import nn

from wheeltap.cli import main
from wheeltap.core.errors import FileFormatError, MissingFile
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.suites.seal.making import SealOptions, make, room_for
from wheeltap.suites.seal.record import LARGEST, VERSION, load, parse
from wheeltap.suites.seal.verifying import verify


def test_it_is_small_and_the_same_again(tmp_path: Path) -> None:
    seal, path = digits()[1].seal, tmp_path / "net.seal"
    seal.save(path)
    assert path.stat().st_size <= LARGEST
    assert load(path) == seal
    assert load(path).bytes() == path.read_bytes()


class Deep(nn.Module):
    """Very many tensors: blocks, and vectors that are all added to the output."""

    def __init__(self, blocks: int, vectors: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(blocks))
        self.vectors = nn.ParameterList(nn.Parameter(torch.randn(4)) for _ in range(vectors))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x[:, :4] + torch.stack(list(self.vectors)).mean(0)


@pytest.mark.parametrize(("blocks", "vectors"), [(60, 600), (2, 1996)])
def test_a_seal_of_up_to_two_thousand_tensors_has_room_for_a_signature(blocks: int, vectors: int) -> None:
    """What is kept is fixed beforehand, and said; a single changed vector is found all the same."""
    torch.manual_seed(3)
    net, inputs = Deep(blocks, vectors).eval(), torch.randn(12, 8)
    made = make(Subject(net), Task(inputs, torch.arange(12) % 4, name="rows"), SealOptions(inputs=8, seed=1))
    assert len(made.seal.bytes()) + 300 <= LARGEST
    assert made.thinned, "less is kept of what locates a change, and that is said"
    assert {len(one.digest) for one in made.seal.body.casts} == {64}, "what decides is whole"
    assert verify(net, made.seal).verdict == "identical"
    with torch.no_grad():
        [*net.parameters()][-1][0] += 1e-3
    assert not verify(net, made.seal).passed


def test_more_tensors_than_a_seal_has_room_for_are_refused_before_any_pass() -> None:
    with pytest.raises(FileFormatError, match="too many tensors"):
        room_for(Deep(2, 4000), ("blocks.0", "blocks.1"), 8, 32, ())


def test_two_thousand_mutations_and_none_is_taken_for_a_seal() -> None:
    """Bytes changed, dropped, doubled, moved, cut; also with the digest put right for a body of one more space."""
    data, rng = digits()[1].seal.bytes(), np.random.default_rng(0)
    for _ in range(2000):
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
        other = bytes(rng.integers(256, size=length, dtype=np.uint8))
        made = [
            data[:at] + other + data[at + length :],
            data[:at] + data[at + length :],
            data[: at + length] + data[at:],
            data[:at],
            data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :],
        ][int(rng.integers(5))]
        if made == data:
            continue
        with pytest.raises(FileFormatError):
            parse(made)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[" * 100_000, b"\x80\x04.", b'{"version":4}', b'{"version":5}', b"null"]
)
def test_what_is_no_seal_is_refused(data: bytes) -> None:
    with pytest.raises(FileFormatError):
        parse(data)


@pytest.mark.parametrize(
    ("version", "hint"), [(1, "Seal the model again"), (3, "Seal the model again"), (5, "Update wheeltap")]
)
def test_another_version_is_named(version: int, hint: str) -> None:
    data = digits()[1].seal.bytes().replace(b'"version":%d' % VERSION, b'"version":%d' % version)
    with pytest.raises(FileFormatError, match=rf"(?s)version {version}.*{hint}"):
        parse(data)


def test_no_file_is_an_error_and_not_a_pass(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        load(tmp_path / "none.seal")
    assert main(["verify", "digits", str(tmp_path / "none.seal")]) == 2


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, said = tmp_path / "digits.seal", tmp_path / "said.json"
    assert main(["seal", "digits", "-o", str(path), "--quiet", "--inputs", "6"]) == 0
    assert "wheeltap verify MODEL" in capsys.readouterr().out
    assert main(["verify", "digits", str(path), "--full", "--json", str(said)]) == 0
    assert capsys.readouterr().out.startswith("Identical")
    assert msgspec.json.decode(said.read_bytes())["passed"] is True
    other = tmp_path / "second.seal"
    assert main(["seal", "digits", "-o", str(other), "--quiet", "--inputs", "2", "--of", str(path)]) == 0
    assert load(other).body.of is not None
    assert load(other).body.of.digest == load(path).digest
