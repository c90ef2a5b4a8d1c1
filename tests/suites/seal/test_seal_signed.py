"""Who vouches for a seal, of which model, and since when: signatures by the right key, a wrong one, or none."""

import datetime
from pathlib import Path

import msgspec
import pytest
from sealed import digits

from wheeltap.cli import main
from wheeltap.core.errors import FileFormatError, UsageError
from wheeltap.suites.seal.record import Body, Seal, Signature, load, parse, require_valid, signed, today
from wheeltap.suites.seal.testing import assert_sealed
from wheeltap.suites.seal.verifying import verify


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
    """The body with other parts."""
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
