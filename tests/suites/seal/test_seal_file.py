"""The file of a seal: canonical, small, broken by any change; who vouches for it, of which model, since when."""

import datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from sealed import digits
from torch import nn

from wheeltap.cli import main
from wheeltap.core.errors import FileFormatError, MissingFile, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.suites.seal.making import SealOptions, make, room_for
from wheeltap.suites.seal.record import (
    LARGEST,
    VERSION,
    Body,
    Seal,
    Signature,
    load,
    parse,
    require_valid,
    signed,
    today,
)
from wheeltap.suites.seal.testing import assert_sealed
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


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A pair of keys in files: private and public."""
    cryptography = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519", reason="needs cryptography")
    from cryptography.hazmat.primitives import serialization as form

    key = cryptography.Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def other_body(seal: Seal, **parts: object) -> Body:
    return msgspec.structs.replace(seal.body, **parts)


def test_a_signature_vouches_for_this_seal_by_this_key_alone(tmp_path: Path) -> None:
    private, public = keys(tmp_path, "one")
    _, other = keys(tmp_path, "two")
    seal = signed(digits()[1].seal, private)
    require_valid(parse(seal.bytes()), key=public)
    with pytest.raises(UsageError, match="not signed by this key"):
        require_valid(seal, key=other)
    with pytest.raises(UsageError, match="not signed"):
        require_valid(digits()[1].seal, key=public)
    with pytest.raises(FileFormatError, match="no public key"):
        require_valid(seal, key=private)


@pytest.mark.parametrize("part", ["name", "sealed", "expires", "junk", "short", "words"])
def test_an_embedded_signature_is_checked_without_any_key(part: str, tmp_path: Path) -> None:
    """Of a name, a date of sealing and a last day that were not signed; and of junk: an error, and no line on a key."""
    private, _ = keys(tmp_path, "one")
    seal = signed(digits()[1].seal, private)
    assert seal.signature is not None
    assert verify(digits()[0], seal).signer == seal.signature.key
    signature = {
        "junk": Signature(seal.signature.key, "ab" * 64),
        "short": Signature("ab", seal.signature.signature),
        "words": Signature("victim", "junk"),
    }.get(part, seal.signature)
    body = seal.body if signature is not seal.signature else other_body(seal, **{part: "2099-01-01"})
    body = other_body(seal, sealed="2020-01-01") if part == "sealed" else body
    forged = parse(msgspec.structs.replace(Seal.of(body), signature=signature).bytes())
    with pytest.raises(UsageError, match="signature of the seal is wrong"):
        verify(digits()[0], forged)
    forged.save(tmp_path / "forged.seal")
    assert main(["verify", "digits", str(tmp_path / "forged.seal")]) == 2
    assert main(["seal", "digits", "-o", str(tmp_path / "next.seal"), "--of", str(tmp_path / "forged.seal")]) == 2
    assert not (tmp_path / "next.seal").exists()


def test_the_signed_seal_of_another_model_is_refused_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the output names the model, the day and the key, and says what a signature alone does not."""
    private, public = keys(tmp_path, "one")
    path = tmp_path / "old.seal"
    last = str(today() + datetime.timedelta(days=9))
    command = ["seal", "digits", "-o", str(path), "--quiet", "--inputs", "2", "--name", "screen-2"]
    assert main([*command, "--expires", last, "--sign", str(private)]) == 0
    key = load(path).signature
    assert key is not None
    assert main(["verify", "digits", str(path), "--key", str(public), "--expect-name", "screen-3"]) == 2
    assert "another name" in capsys.readouterr().err
    assert main(["verify", "digits", str(path), "--key", str(public), "--expect-name", ""]) == 2
    assert "No name is expected" in capsys.readouterr().err
    with pytest.raises(UsageError, match="another name"):
        assert_sealed(digits()[0], path, key=public, name="screen-3")
    assert_sealed(digits()[0], path, key=public, name="screen-2")
    assert main(["verify", "digits", str(path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"Seal of the model screen-2, made on {today()} (UTC); it holds until {last}." in said
    assert f"Signed by key {key.key[:16]}, which you did not name: anyone can sign." in said
    assert main(["verify", "digits", str(path), "--key", str(public)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--expect-name" in said
    assert "did not name" not in said


def test_a_private_key_that_others_can_read_signs_nothing(tmp_path: Path) -> None:
    private, _ = keys(tmp_path, "one")
    for mode in (0o640, 0o604, 0o620):
        private.chmod(mode)
        with pytest.raises(UsageError, match=f"(?s)Others can read.*mode {mode:04o}.*chmod 600"):
            signed(digits()[1].seal, private)
    private.chmod(0o600)
    assert signed(digits()[1].seal, private).signature is not None
