"""Files of dictionaries: those of SAELens, dictionary-learning and our own are read, the first and last are written.

Strict: what a file holds beside what is known could change what the dictionary computes, so it is refused; so is what
is missing, of another shape, or no number. A dictionary with a silently dropped threshold computes something else.
Nothing of a file is run: a pickled module is refused.
"""

import io
import json
import os
import pickletools
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
import torch
from safetensors.torch import load_file, save  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from wheeltap.core import bounded
from wheeltap.core.errors import FileFormatError, UsageError
from wheeltap.core.files import write_whole
from wheeltap.suites.dictionaries.dictionary import Architecture, Dictionary, DictionarySettings, Normalization

T = TypeVar("T", bound=msgspec.Struct)
_NOUN: Final = "file of a dictionary"
_OWN: Final = "wheeltap.dictionary"  # name of our settings in the metadata of a safetensors file
_TINY: Final = 1e-12
_VERSION: Final = "6.54.12"  # of SAELens, whose layout is written

_BESIDE: Final = (
    "anneal_end anneal_start aux_loss_coefficient auxk_alpha bandwidth dead_feature_threshold decay_start "
    "decoder_init_norm device dtype group_fractions group_sizes group_weights jumprelu_bandwidth "
    "jumprelu_init_threshold jumprelu_sparsity_loss_mode jumprelu_ste_to_input jumprelu_tanh_scale l0_coefficient "
    "l0_warm_up_steps l1_coefficient l1_penalty l1_warm_up_steps layer lm_name lp_norm lr matryoshka_widths "
    "mse_loss_normalization n_sparsity_updates noise_scale norm_factor p_end p_start pre_act_loss_coefficient "
    "resample_batches resample_steps seed sparsity_function sparsity_penalty sparsity_queue_length "
    "sparsity_warmup_steps steps submodule_name target_l0 threshold_beta threshold_start_step top_k_aux "
    "topk_threshold_lr trainer_class use_matryoshka_aux_loss use_sparse_activations wandb_name warmup_steps"
)
"""Settings that libraries write about the vectors and the training: none changes what the dictionary computes."""

_MOST_PICKLED: Final = 2**20  # bytes of the settings of a file, or of a pickle that lists tensors

_LISTS: Final = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
    | {f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Int", "Long")}
)
"""All that the pickle of a list of tensors names."""


class _SaeLens(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Settings of SAELens from 6.0 on."""

    d_in: int
    d_sae: int
    architecture: str
    apply_b_dec_to_input: bool
    normalize_activations: Normalization
    metadata: dict[str, Any]
    reshape_activations: Literal["none", "hook_z"] = "none"
    k: float | None = None
    rescale_acts_by_decoder_norm: bool = False


class _LearningConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    dict_class: str
    activation_dim: int
    dict_size: int
    k: int | None = None


_ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "standard": "relu", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated", "batchtopk": "batchtopk",
    "matryoshka_batchtopk": "batchtopk",
}  # fmt: skip
"""What SAELens calls them."""

_LINEAR: Final = {"encoder.weight": "W_enc.T", "encoder.bias": "b_enc", "decoder.weight": "W_dec.T"}
_PLAIN: Final = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}
_COUNTED: Final = _LINEAR | {"b_dec": "b_dec", "k": "", "threshold": ""}

_LEARNING_NAMES: Final[Mapping[str, tuple[Architecture, Mapping[str, str]]]] = {
    "AutoEncoder": ("relu", _LINEAR | {"bias": "b_dec"}),
    "AutoEncoderNew": ("relu", _LINEAR | {"decoder.bias": "b_dec"}),
    "GatedAutoEncoder": ("gated", {"encoder.weight": "W_enc.T", "decoder.weight": "W_dec.T", "r_mag": "r_mag",
                                   "decoder_bias": "b_dec", "gate_bias": "b_gate", "mag_bias": "b_mag"}),
    "JumpReluAutoEncoder": ("jumprelu", _PLAIN),
    "AutoEncoderTopK": ("topk", _COUNTED),
    "BatchTopKSAE": ("batchtopk", _COUNTED | {"threshold": "threshold"}),
    "MatryoshkaBatchTopKSAE": ("batchtopk", _PLAIN | {"k": "", "group_sizes": ""}),
}  # fmt: skip
"""Classes of dictionary-learning: what they compute, and our names of their tensors; ``.T`` transposed, empty none.

The threshold of its TopK is not used unless asked for.
"""


def read(path: str | Path) -> Dictionary:
    """The dictionary in a folder or file; its layout is known by the names of the files.

    Args:
        path: Of a folder of a library, or of a file of ``write``.

    Raises:
        MissingFile: If there is no such path.
        FileFormatError: If it is no dictionary, or one that cannot be computed exactly as its library does.
    """
    place = Path(path)
    if os.path.isdir(place):
        names = [name for name in _LAYOUTS if os.path.exists(place / name)]
    else:
        bounded.size_of(place, _NOUN, do="Give the folder of a dictionary, or a file of wheeltap.")
        if place.suffix == ".safetensors" and _OWN in (held := bounded.tensors(place, _NOUN)[1]):
            settings = _table(held[_OWN].encode(), place)
            if settings.pop("skip", False):  # files of before have this key, which is false but for transcoders
                raise _refused(place, "a dictionary without a skip, which is no longer supported", "skip true")
            return _made(place, _safetensors(place), **settings)
        names = list[str]()
    if not names and (library := next((one for name, one in _REMOVED.items() if _holds(place, name)), "")):
        raise FileFormatError(
            f"The layout of {library} is no longer read.", where=str(path), got=f"a dictionary of {library}",
            expected=" or ".join(_LAYOUTS), do="Load it with SAELens and save it again: sae.save_model(FOLDER).",
        )  # fmt: skip
    if len(names) != 1:
        known = (*_LAYOUTS, *(beside for beside, _ in _LAYOUTS.values()))
        raise FileFormatError(
            "This folder holds several dictionaries." if names else "This is no dictionary of a known layout.",
            where=str(path), got=", ".join(names) or "none of these",
            expected="; ".join(f"{name} and {beside}" for name, (beside, _) in _LAYOUTS.items()),
            do=f"Give the folder: {place.parent}" if place.name in known else
            "Give the folder of one site, or a file that wheeltap wrote (a .safetensors file with settings inside).",
        )  # fmt: skip
    beside, reader = _LAYOUTS[names[0]]
    return reader(place / beside, place / names[0])


def _holds(place: Path, name: str) -> bool:
    """Return whether a path is a file of this name, or a folder with one."""
    return place.name == name or (place.is_dir() and os.path.exists(place / name))


_UNKNOWN: Final = "This file is no dictionary that can be computed exactly."


def _refused(where: object, expected: str, got: object) -> FileFormatError:
    return FileFormatError(_UNKNOWN, where=str(where), expected=expected, got=str(got)[:200],
                           do="Save it again with the library that made it. What is not known, or is missing, could "
                              "change what it computes.")  # fmt: skip


def _made(where: Path, state: dict[str, Tensor], /, **given: Any) -> Dictionary:
    """A dictionary, if the settings fit, and the tensors are all of its own, of the right shapes, and finite."""
    try:
        settings = msgspec.convert(given, DictionarySettings)
    except msgspec.ValidationError as error:
        got = " ".join(str(error.__cause__ or error).split())
        raise _refused(where, "settings that fit each other", got) from error
    if settings.architecture == "batchtopk" and "threshold" in state and not state["threshold"].ndim:
        state["threshold"] = state["threshold"].expand(settings.features)  # one of all features
    shapes = settings.shapes
    if wrong := sorted(shapes.keys() ^ state.keys()):
        got = f"{'no' if wrong[0] in shapes else 'beside them'} {wrong[0]!a}"
        raise _refused(where, f"tensors {', '.join(shapes)}", got)
    for name, shape in shapes.items():
        tensor, place = state[name], f"{where}: {name}"
        if tuple(tensor.shape) != shape:
            raise _refused(place, f"shape {list(shape)}, as the settings say", list(tensor.shape))
        if tensor.is_floating_point() == (name in ("attribute", "value")):
            raise _refused(place, "a type of number as the library writes it", tensor.dtype)
        if not bool(torch.isfinite(tensor).all()):
            raise _refused(place, "finite numbers", "NaN or infinity")
        if name == "attribute" and not bool(((tensor >= 0) & (tensor < len(settings.attributes))).all()):
            raise _refused(place, f"numbers of {len(settings.attributes)} attributes", "others")
    return Dictionary(settings, state).eval()


def _named(where: Path, held: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors by our names."""
    found = dict[str, Tensor]()
    for name, tensor in held.items():
        own, transposed, _ = names.get(name, f"beside {name}").partition(".T")
        if transposed and tensor.ndim != 2:
            raise _refused(f"{where}: {name}", "a matrix", list(tensor.shape))
        if own:
            found[own] = tensor.T if transposed else tensor
    return found


def _config(path: Path, kind: type[T], *, within: str = "") -> T:
    """Settings in a JSON file, without those that are known to change nothing."""
    held = _table(bounded.document(path, _NOUN, limit=_MOST_PICKLED, parts=bounded.SETTINGS), path)
    if within:
        if unknown := sorted(held.keys() - {within, "buffer"}):
            raise _refused(path, f"{within} and buffer", f"{unknown[0]!a}")
        held = _table(msgspec.json.encode(held.get(within)), f"{path}: {within}")
    if kind is _SaeLens and "metadata" not in held:
        raise _refused(path, "settings of SAELens 6.0 or later: a table metadata", "none: of an older SAELens")
    known = kind.__struct_fields__
    own = {name: value for name, value in held.items() if name in known or name not in _BESIDE.split()}
    if unknown := sorted(own.keys() - set(known)):
        raise _refused(f"{path}: {unknown[0]!a}", f"settings that are known: {', '.join(known)}", own[unknown[0]])
    try:
        return msgspec.convert(own, kind)
    except msgspec.ValidationError as error:
        raise _refused(path, "settings as the library writes them", str(error)) from error


def _table(data: bytes, where: object) -> dict[str, Any]:
    """A JSON object, in which no name stands twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(held := dict(pairs)) < len(pairs):
            raise ValueError(f"{Counter(name for name, _ in pairs).most_common(1)[0][0]!a} twice")
        return held

    with bounded.parsing(where, _UNKNOWN, expected="a JSON object of settings, each once"):
        json.loads(data, object_pairs_hook=once)
        return msgspec.json.decode(data, type=dict[str, Any])


def _saelens(path: Path, weights: Path) -> Dictionary:
    state, held = _safetensors(weights), _config(path, _SaeLens)
    own, k = _activation(path, held)
    if own == "batchtopk" and "topk_threshold" in state:  # of a run of training
        state["threshold"] = state.pop("topk_threshold")
    made = _made(weights, state, architecture=own, width=held.d_in, features=held.d_sae, k=k,
                 center=held.apply_b_dec_to_input, normalize=held.normalize_activations)  # fmt: skip
    with torch.no_grad():
        if held.rescale_acts_by_decoder_norm:  # codes are lengths: the same as with rows of length 1
            norms = made.W_dec.square().sum(1).sqrt()
            made.W_enc.mul_(norms)
            made.b_enc.mul_(norms)
            made.W_dec.div_(norms.clamp_min(_TINY)[:, None])
    named = (held.metadata.get(name) for name in ("hook_name", "model_name"))
    made.origin = " of ".join(str(name)[:80] for name in named if name)
    return made


def _activation(path: Path, held: _SaeLens) -> tuple[Architecture, int]:
    """What we call the architecture, and how many codes are active."""
    architecture, k = held.architecture, held.k
    if architecture not in _ARCHITECTURES:
        raise _refused(path, f"architecture {', '.join(_ARCHITECTURES)}", repr(architecture))
    own = _ARCHITECTURES[architecture]
    if own not in ("topk", "batchtopk"):
        if held.rescale_acts_by_decoder_norm:
            raise _refused(path, f"rescale_acts_by_decoder_norm false of architecture {architecture!r}", "true")
        return own, 0
    if k is None or not float(k).is_integer():
        raise _refused(path, "a whole number k", str(k))
    return own, int(k)


def _learning(path: Path, weights: Path) -> Dictionary:
    state = _pickled(weights)
    held = _config(path, _LearningConfig, within="trainer")
    if held.dict_class not in _LEARNING_NAMES:
        raise _refused(path, f"dict_class {', '.join(_LEARNING_NAMES)}", repr(held.dict_class))
    architecture, names = _LEARNING_NAMES[held.dict_class]
    k = (held.k or 0) if "k" in names else 0
    for name, wanted in {"k": k, "group_sizes": held.dict_size}.items():
        own = state.get(name)
        if own is not None and (own.is_floating_point() or int(own.sum()) != wanted or (name == "k" and own.ndim)):
            raise _refused(path, f"{name} of {wanted:,}, as in the settings", own)
    return _made(weights, _named(weights, state, names), architecture=architecture, width=held.activation_dim,
                 features=held.dict_size, k=k,
                 center=held.dict_class not in ("AutoEncoderNew", "JumpReluAutoEncoder"))  # fmt: skip


_LAYOUTS: Final[Mapping[str, tuple[str, Callable[[Path, Path], Dictionary]]]] = {
    "sae_weights.safetensors": ("cfg.json", _saelens), "ae.pt": ("config.json", _learning),
}  # fmt: skip
"""File by which each layout is recognized: the file of its settings, and the function that reads both."""

_REMOVED: Final = {"sae.safetensors": "eai-sparsify", "params.npz": "Gemma Scope"}
"""File by which a layout that is no longer read is recognized: its library."""


def _safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors as float32, integers as they are."""
    bounded.tensors(path, _NOUN)
    with bounded.parsing(path, f"The {_NOUN} cannot be read.", expected="a whole safetensors file"):
        return {name: one.float() if one.is_floating_point() else one for name, one in load_file(path).items()}


def _pickled(path: Path) -> dict[str, Tensor]:
    """Tensors of a file of ``torch.save``, whose pickle names nothing but tensors.

    Raises:
        FileFormatError: If it names anything else, a module say; or a tensor that is larger than its bytes.
    """
    what = "This file is no list of tensors."
    do = "Do not load it: a pickle runs code. Where you trust it, save its state_dict() as safetensors."
    seen = io.BytesIO()
    with (
        bounded.Archive(path, _NOUN, do=do) as archive,
        bounded.parsing(path, what, expected="a file of torch.save that names tensors alone", do=do),
        zipfile.ZipFile(seen, "w") as copy,
    ):
        lists = [name for name in archive.members if name.endswith("/data.pkl")]
        if len(lists) != 1 or any(info.compress_type != zipfile.ZIP_STORED for info in archive.members.values()):
            raise ValueError(", ".join(list(archive.members)[:4]))
        data = archive.member(lists[0], limit=_MOST_PICKLED)
        named = [value for code, value, _ in pickletools.genops(data) if "GLOBAL" in code.name]
        if odd := [value for value in named if value not in _LISTS]:
            raise ValueError(f"a pickle of {odd[0]!a}")
        # torch would take another of two members of one name: it is given what was looked at.
        for name in archive.members:
            copy.writestr(name, archive.member(name, limit=archive.size))
    with bounded.parsing(path, what, expected="tensors by name", do=do):
        seen.seek(0)
        held: Any = torch.load(seen, map_location="cpu", weights_only=True)  # pyright: ignore[reportUnknownMemberType]
        found = dict[str, Tensor]()
        for name, tensor in dict(held).items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise TypeError(f"{name!a}: {type(tensor).__name__}"[:120])
            if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
                raise ValueError(f"{name!a}: {list(tensor.shape)} numbers of fewer bytes")
            found[name] = tensor.detach().float() if tensor.is_floating_point() else tensor
    return found


def require_place(path: Path) -> None:
    """Raises ``UsageError`` if a path is neither that of a file of ours nor of a folder."""
    if path.suffix not in ("", ".safetensors"):
        raise UsageError("A dictionary is not written in this format.", where=str(path), got=path.suffix,
                         expected="a file .safetensors, or a folder (no suffix) in SAELens' layout")  # fmt: skip


@torch.no_grad()
def write(dictionary: Dictionary, path: str | Path) -> None:
    """Writes a dictionary: to one file where the path ends in ``.safetensors``, else to a folder as SAELens does.

    In SAELens' layout BatchTopK is a JumpReLU, as it writes it.

    Raises:
        UsageError: If SAELens has no such architecture, or the path ends in another suffix.
        FileError: If it cannot be written.
    """
    place, how = Path(path), dictionary.settings
    require_place(place)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in dictionary.state_dict().items()}
    if place.suffix == ".safetensors":
        write_whole(place, save(state, {_OWN: msgspec.json.encode(how).decode()}))
        return
    names = {"relu": "standard", "topk": "topk", "batchtopk": "jumprelu", "jumprelu": "jumprelu", "gated": "gated"}
    if how.architecture not in names:
        raise UsageError("SAELens has no such dictionary.", where=str(place), expected=", ".join(sorted(names)),
                         got=how.architecture, do="Give a path that ends in .safetensors.")  # fmt: skip
    config = {
        "architecture": names[how.architecture], "d_in": how.width, "d_sae": how.features, "dtype": "float32",
        "device": "cpu", "apply_b_dec_to_input": how.center, "reshape_activations": "none",
        "normalize_activations": how.normalize, "metadata": {"sae_lens_version": _VERSION},
    }  # fmt: skip
    if how.architecture == "topk":
        config |= {"k": how.k, "rescale_acts_by_decoder_norm": False}
    write_whole(place / "sae_weights.safetensors", save(state))
    write_whole(place / "cfg.json", msgspec.json.encode(config))
