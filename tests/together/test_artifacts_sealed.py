"""A seal says where two nets of one recipe differ in what their files say of their making."""

from pathlib import Path

from wheeltap.core.subject import Subject
from wheeltap.recipes import base
from wheeltap.recipes.make import make
from wheeltap.sources import artifact
from wheeltap.suites.seal.contents import SealedContents, differences


def test_what_a_file_says_of_its_making_is_sealed(tmp_path: Path) -> None:
    settings = {"steps": 2, "width": 16, "layers": 1}
    first, other = (base.spec("sparse", settings, seed=seed) for seed in (5, 6))
    model = make(base.Given(first), base.recipe_of(first)).model

    def loaded(spec: base.ArtifactSpec) -> Subject:
        artifact.save(model, spec, tmp_path / "net.safetensors")
        return artifact.load_artifact(tmp_path / "net.safetensors").subject

    sealed, same, changed = SealedContents.of(loaded(first)), loaded(first).contents, loaded(other).contents
    assert sealed is not None and same is not None and changed is not None
    assert differences(sealed, same) == ()
    assert differences(sealed, changed) == ("config: header wheeltap artifact differs.",)
