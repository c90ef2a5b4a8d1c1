"""Trained weights of the zoo, made once a process and once a machine."""

import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from wheeltap.core import canon
from wheeltap.core.files import write_whole
from wheeltap.testing.zoo.member import Member

FOLDER: Final = "WHEELTAP_ZOO"
"""Environment variable: the folder where trained weights are kept; else the user's cache."""


def folder() -> Path:
    """Where trained weights are kept."""
    import platformdirs

    given = os.environ.get(FOLDER)
    return Path(given) if given else Path(platformdirs.user_cache_dir("wheeltap")) / "zoo"


def key(member: Member, seed: int) -> str:
    """Digest of how the weights are made: code, settings, libraries and the machine's arithmetic."""
    library = version("transformers") if member.of_transformers else ""
    source = {
        path.name: path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")) if _makes(path, member)
    }
    where = [str(torch.__version__), library, platform.machine(), torch.backends.cpu.get_cpu_capability()]
    return canon.key("zoo", [member.name, repr(member.training), seed, source, where])


def _makes(path: Path, member: Member) -> bool:
    return path.stem in ("member", member.made.__module__.rpartition(".")[2])


@cache
def weights(member: Member, seed: int) -> Mapping[str, Tensor]:
    """The state of the trained member, from memory, from its file, or by training; not to be written into."""
    from filelock import FileLock  # torch brings it
    from safetensors.torch import load, save

    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    file = place / f"{member.name}-{seed}-{key(member, seed)}.safetensors"
    with FileLock(file.with_suffix(".lock")):  # one process trains, the others wait for it
        if not file.is_file():
            state = member.trained(seed).state_dict()
            # Tied weights share memory, which the format refuses: each name gets numbers of its own.
            write_whole(file, save({path: value.detach().clone().contiguous() for path, value in state.items()}))
    return load(file.read_bytes())
