"""The file of a seal: canonical, small, broken by any change; who vouches for it, of which model, since when."""

import datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sealed import digits

from wheeltap.cli import main
from wheeltap.core.errors import FileFormatError, UsageError
from wheeltap.suites.seal.record import (
    LARGEST,
    VERSION,
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
    seal, path = digits()[1], tmp_path / "net.seal"
    seal.save(path)
    assert path.stat().st_size <= 64 * 1024
    assert {len(one.digest) for one in seal.body.casts} == {64}, "what decides is whole"
    assert load(path) == seal
    assert load(path).bytes() == path.read_bytes()


def test_a_seal_that_is_too_large_is_not_written(tmp_path: Path) -> None:
    body = msgspec.structs.replace(digits()[1].body, audit=("x" * LARGEST,))
    with pytest.raises(FileFormatError):
        Seal.of(body).save(tmp_path / "large.seal")
    assert not (tmp_path / "large.seal").exists()


def test_of_many_mutations_none_is_taken_for_a_seal() -> None:
    """Bytes changed, dropped, doubled, moved, cut; also with the digest put right for a body of one more space."""
    data, rng = digits()[1].bytes(), np.random.default_rng(0)
    for _ in range(200):
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


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\x80\x04.", b'{"version":5}', b"null"])
def test_what_is_no_seal_is_refused(data: bytes) -> None:
    with pytest.raises(FileFormatError):
        parse(data)


@pytest.mark.parametrize("version", [1, VERSION - 1, VERSION + 1])
def test_another_version_is_refused_by_its_number(version: int, tmp_path: Path) -> None:
    data = digits()[1].bytes().replace(b'"version":%d' % VERSION, b'"version":%d' % version)
    with pytest.raises(FileFormatError) as raised:
        parse(data)
    assert raised.value.got == f"version {version}"
    (tmp_path / "old.seal").write_bytes(data)
    assert main(["verify", "digits", str(tmp_path / "old.seal")]) == 2


def test_from_the_command_line(tmp_path: Path) -> None:
    path, result = tmp_path / "digits.seal", tmp_path / "result.json"
    assert main(["seal", "digits", "-o", str(path), "--quiet", "--inputs", "6"]) == 0
    assert main(["verify", "digits", str(path), "--json", str(result)]) == 0
    found = msgspec.json.decode(result.read_bytes())
    assert (found["verdict"], found["passed"]) == ("identical", True)
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


def test_a_signature_vouches_for_this_seal_by_this_key_alone(tmp_path: Path) -> None:
    private, public = keys(tmp_path, "one")
    _, other = keys(tmp_path, "two")
    seal = signed(digits()[1], private)
    require_valid(parse(seal.bytes()), key=public)
    with pytest.raises(UsageError):
        require_valid(seal, key=other)
    with pytest.raises(UsageError):
        require_valid(digits()[1], key=public)
    with pytest.raises(FileFormatError):
        require_valid(seal, key=private)


@pytest.mark.parametrize("part", ["name", "sealed", "junk"])
def test_an_embedded_signature_is_checked_without_any_key(part: str, tmp_path: Path) -> None:
    """Of a name and a date of sealing that were not signed, and of junk."""
    private, _ = keys(tmp_path, "one")
    seal = signed(digits()[1], private)
    assert seal.signature is not None
    assert verify(digits()[0], seal).signer == seal.signature.key
    signature = Signature(seal.signature.key, "ab" * 64) if part == "junk" else seal.signature
    changed = {"name": {"name": "other"}, "sealed": {"sealed": "2020-01-01"}}.get(part, {})
    body = msgspec.structs.replace(seal.body, **changed)
    forged = parse(msgspec.structs.replace(Seal.of(body), signature=signature).bytes())
    with pytest.raises(UsageError):
        verify(digits()[0], forged)
    forged.save(tmp_path / "forged.seal")
    assert main(["verify", "digits", str(tmp_path / "forged.seal")]) == 2
    assert main(["seal", "digits", "-o", str(tmp_path / "next.seal"), "--of", str(tmp_path / "forged.seal")]) == 2
    assert not (tmp_path / "next.seal").exists()


def test_the_signed_seal_of_another_model_is_refused_by_its_name(tmp_path: Path) -> None:
    private, public = keys(tmp_path, "one")
    path, last = tmp_path / "old.seal", str(today() + datetime.timedelta(days=9))
    command = ["seal", "digits", "-o", str(path), "--quiet", "--inputs", "2", "--name", "screen-2"]
    assert main([*command, "--expires", last, "--sign", str(private)]) == 0
    for name, code in (("screen-2", 0), ("screen-3", 2), ("", 2)):
        assert main(["verify", "digits", str(path), "--key", str(public), "--expect-name", name]) == code
    with pytest.raises(UsageError):
        assert_sealed(digits()[0], path, key=public, name="screen-3")
    assert_sealed(digits()[0], path, key=public, name="screen-2")
    found = verify(digits()[0], path)
    assert (found.name, found.sealed, found.expires) == ("screen-2", str(today()), last)
    assert found.signer == getattr(load(path).signature, "key", None)


def test_a_private_key_that_others_can_read_signs_nothing(tmp_path: Path) -> None:
    private, _ = keys(tmp_path, "one")
    for mode in (0o640, 0o604):
        private.chmod(mode)
        with pytest.raises(UsageError) as raised:
            signed(digits()[1], private)
        assert raised.value.got == f"mode {mode:04o}"
    private.chmod(0o600)
    assert signed(digits()[1], private).signature is not None


def test_every_byte_of_a_seal_counts(tmp_path: Path) -> None:
    private, _ = keys(tmp_path, "one")
    seal, path = signed(digits()[1], private), tmp_path / "net.seal"
    seal.save(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    with pytest.raises(FileFormatError):
        load(path)
    assert seal.signature is not None
    upper = Signature(seal.signature.key, seal.signature.signature.upper())
    with pytest.raises(FileFormatError):
        parse(msgspec.structs.replace(seal, signature=upper).bytes())
    body = msgspec.structs.replace(digits()[1].body, sealed="\uff12\uff10\uff12\uff16-01-01")
    with pytest.raises(FileFormatError):
        require_valid(parse(Seal.of(body).bytes()))
