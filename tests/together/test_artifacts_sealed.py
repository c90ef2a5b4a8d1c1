"""A seal says where two nets of one recipe differ in what their files say of their making."""

from pathlib import Path

from wheeltap.recipes import base
from wheeltap.recipes.make import make
from wheeltap.sources import artifact
from wheeltap.suites.seal.contents import SealedContents, differences


def test_what_a_file_says_of_its_making_is_sealed(tmp_path: Path) -> None:
    kept: list[SealedContents] = []
    model = None
    for seed in (5, 5, 6):
        spec = base.spec("sparse", {"steps": 2, "width": 16, "layers": 1}, seed=seed)
        model = model or make(base.Given(spec), base.recipe_of(spec)).model
        artifact.save(model, spec, tmp_path / "net.safetensors")
        contents = SealedContents.of(artifact.load_artifact(tmp_path / "net.safetensors").subject)
        assert contents is not None
        kept.append(contents)
    assert differences(kept[0], kept[1]) == ()
    assert differences(kept[0], kept[2]) == ("config: header wheeltap artifact differs.",)
