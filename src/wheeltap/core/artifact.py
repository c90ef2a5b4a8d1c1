"""How something is made: a trained net, a copy, a circuit. Its key names what comes of it, before it is there."""

import msgspec

from wheeltap.core import canon
from wheeltap.core.canon import Scalar


class ArtifactSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a recipe is asked to make.

    Attributes:
        recipe: Registered name of the recipe.
        settings: Of the recipe, defaults included.
        seed: Root of every draw.
        version: Of the recipe's code: another version makes something else.
        of: Keys of the artifacts, or fingerprints of the subjects, that it is made from.
        data: Digest of the examples it is made with; empty where it needs none, or makes its own.
    """

    recipe: str
    settings: dict[str, Scalar] = {}
    seed: int = 0
    version: int = 1
    of: tuple[str, ...] = ()
    data: str = ""

    @property
    def key(self) -> str:
        """Content key, 32 hex characters: the fingerprint of what is made."""
        return canon.key("artifact", self)
