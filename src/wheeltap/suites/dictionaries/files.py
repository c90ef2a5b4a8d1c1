"""Files of dictionaries: those of four libraries and our own are read, SAELens' layout and our own are written.

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
import numpy as np
import torch
from safetensors.torch import load_file, save  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from wheeltap.core import bounded
from wheeltap.core.errors import FileFormatError, UsageError
from wheeltap.core.files import write_whole
from wheeltap.core.typed import to_tensor
from wheeltap.suites.dictionaries.dictionary import Architecture, Dictionary, DictionarySettings, Normalization

T = TypeVar("T", bound=msgspec.Struct)
_NOUN: Final = "file of a dictionary"
_OWN: Final = "wheeltap.dictionary"  # name of our settings in the metadata of a safetensors file
_TINY: Final = 1e-12
_VERSION: Final = "6.54.12"  # of SAELens, whose layout is written

_BESIDE: Final = (
    "act_store_device adam_beta1 adam_beta2 anneal_end anneal_start autocast autocast_lm aux_loss_coefficient "
    "auxk_alpha b_dec_init_method bandwidth cached_activations_path checkpoint_path compile_llm compile_sae "
    "context_size dataset_path dataset_trust_remote_code dead_feature_threshold dead_feature_window decay_start "
    "decoder_heuristic_init decoder_heuristic_init_norm decoder_init_norm decoder_orthogonal_init device dtype "
    "eval_batch_size_prompts eval_every_n_wandb_logs exclude_special_tokens expansion_factor feature_sampling_method "
    "feature_sampling_window finetuning_method finetuning_tokens from_pretrained_path group_fractions group_sizes "
    "group_weights hf_hook_name hook_eval hook_head_index hook_layer hook_name hook_name_out hook_point "
    "hook_point_head_index hook_point_layer hook_point_template init_encoder_as_decoder_transpose "
    "is_dataset_tokenized jumprelu_bandwidth jumprelu_init_threshold jumprelu_sparsity_loss_mode "
    "jumprelu_ste_to_input jumprelu_tanh_scale l0_coefficient l0_warm_up_steps l1_coefficient l1_penalty "
    "l1_warm_up_steps layer llm_compilation_mode lm_name log_activations_store_to_wandb log_optimizer_state_to_wandb "
    "log_to_wandb log_weights_to_wandb lp_norm lr lr_decay_steps lr_end lr_scheduler_name lr_warm_up_steps "
    "matryoshka_widths metadata model_class_name model_from_pretrained_kwargs model_kwargs model_name "
    "mse_loss_normalization multi_topk n_batches_in_buffer n_checkpoints n_eval_batches n_restart_cycles "
    "n_sparsity_updates neuronpedia_id new_cached_activations_path noise_scale norm_factor normalize_decoder "
    "normalize_sae_decoder p_end p_start pre_act_loss_coefficient prepend_bos resample_batches resample_steps resume "
    "run_name sae_compilation_mode sae_lens_training_version sae_lens_version scale_sparsity_penalty_by_decoder_norm "
    "seed seqpos_slice sparsity_function sparsity_penalty sparsity_queue_length sparsity_warmup_steps steps "
    "store_batch_size store_batch_size_prompts streaming submodule_name target_l0 threshold_beta threshold_start_step "
    "tokens_per_buffer top_k_aux topk_threshold_lr total_training_tokens train_batch_size train_batch_size_tokens "
    "trainer_class training_tokens use_cached_activations use_ghost_grads use_matryoshka_aux_loss "
    "use_sparse_activations verbose wandb_entity wandb_id wandb_log_frequency wandb_name wandb_project warmup_steps"
)
"""What libraries write beside: where the vectors came from, and how the dictionary was trained."""

_MOST_PICKLED: Final = 2**20  # bytes of the settings of a file, or of a pickle that lists tensors

_LISTS: Final = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
    | {f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Int", "Long")}
)
"""All that the pickle of a list of tensors names."""


class _SaeLens(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Of SAELens; before 6.0 much could be left out, and TopK was an activation."""

    d_in: int
    d_sae: int
    architecture: str = "standard"
    apply_b_dec_to_input: bool = True
    normalize_activations: Normalization | Literal["expected_average_only_in"] | bool | None = None
    reshape_activations: Literal["none", "hook_z"] = "none"
    activation_fn: Literal["relu", "topk"] = "relu"
    activation_fn_str: Literal["relu", "topk"] = "relu"
    activation_fn_kwargs: dict[Literal["k"], int] = {}
    finetuning_scaling_factor: bool = False
    k: float | None = None
    rescale_acts_by_decoder_norm: bool = False
    metadata: dict[str, Any] | None = None
    hook_name: Any = None
    hook_point: Any = None
    model_name: Any = None


_ALWAYS: Final = frozenset({"architecture", "apply_b_dec_to_input", "normalize_activations"})
"""What SAELens always writes from 6.0 on."""


class _Sparsify(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    d_in: int
    k: int
    activation: Literal["topk"] = "topk"
    num_latents: int = 0
    expansion_factor: float = 32
    signed: bool = False
    skip_connection: bool = False
    transcode: bool = False


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

_SPARSIFY_NAMES: Final = {"encoder.weight": "W_enc.T", "encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec",
                          "W_skip": "W_skip"}  # fmt: skip


def read(path: str | Path) -> Dictionary:
    """The dictionary in a folder or file; its layout is known by the names of the files.

    Args:
        path: Of a folder of a library, of Gemma Scope's npz, or of a file of ``write``.

    Raises:
        MissingFile: If there is no such path.
        FileFormatError: If it is no dictionary, or one that cannot be computed exactly as its library does.
    """
    place = Path(path)
    if os.path.isdir(place):
        names = [name for name in _LAYOUTS if os.path.exists(place / name)]
    else:
        bounded.size_of(place, _NOUN, do="Give the folder of a dictionary, or a file of wheeltap.")
        if place.suffix == ".npz":
            return _gemma_scope(place, place)
        if place.suffix == ".safetensors" and _OWN in (held := bounded.tensors(place, _NOUN)[1]):
            return _made(place, _safetensors(place), **_table(held[_OWN].encode(), place))
        names = list[str]()
    if len(names) != 1:
        known = (*_LAYOUTS, *(beside for beside, _ in _LAYOUTS.values()))
        raise FileFormatError(
            "This folder holds several dictionaries." if names else "This is no dictionary of a known layout.",
            where=str(path), got=", ".join(names) or "none of these",
            expected="; ".join(f"{name} and {beside}" if beside else name for name, (beside, _) in _LAYOUTS.items()),
            do=f"Give the folder: {place.parent}" if place.name in known else
            "Give the folder of one site, or a file that wheeltap wrote (a .safetensors file with settings inside).",
        )  # fmt: skip
    beside, reader = _LAYOUTS[names[0]]
    return reader(place / beside, place / names[0])


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
    if kind is _SaeLens and "metadata" in held and (missing := sorted(_ALWAYS - held.keys())):
        raise _refused(path, missing[0], "none")
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
    normalize = held.normalize_activations
    if normalize is True or normalize == "expected_average_only_in":
        folded = "normalize_activations none: folded into the tensors"
        raise _refused(path, folded, "a factor that the file does not hold")
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in state and bool((state[name] == 1.0).all()):
            del state[name]  # written by some versions, of no effect
    if own == "batchtopk" and "topk_threshold" in state:  # of a run of training
        state["threshold"] = state.pop("topk_threshold")
    made = _made(weights, state, architecture=own, width=held.d_in, features=held.d_sae, k=k,
                 center=held.apply_b_dec_to_input, normalize=normalize or "none")  # fmt: skip
    with torch.no_grad():
        if held.rescale_acts_by_decoder_norm:  # codes are lengths: the same as with rows of length 1
            norms = made.W_dec.square().sum(1).sqrt()
            made.W_enc.mul_(norms)
            made.b_enc.mul_(norms)
            made.W_dec.div_(norms.clamp_min(_TINY)[:, None])
    said = {"hook_name": held.hook_name or held.hook_point, "model_name": held.model_name} | (held.metadata or {})
    made.origin = " of ".join(str(said[name])[:80] for name in ("hook_name", "model_name") if said[name])
    return made


def _activation(path: Path, held: _SaeLens) -> tuple[Architecture, int]:
    """What we call the architecture, and how many codes are active."""
    architecture, k = held.architecture, held.k
    if "topk" in (held.activation_fn, held.activation_fn_str):
        if architecture not in ("standard", "topk"):
            raise _refused(path, f"activation 'relu' of architecture {architecture!r}", "'topk'")
        architecture = "topk"
        k = held.activation_fn_kwargs.get("k") if k is None else k
    elif held.activation_fn_kwargs and held.activation_fn_kwargs != {"k": k}:
        raise _refused(path, "no settings of the activation 'relu'", str(held.activation_fn_kwargs))
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


def _sparsify(path: Path, weights: Path) -> Dictionary:
    held = _config(path, _Sparsify)
    if held.signed:
        raise _refused(path, "signed false: codes are not below 0", "true")
    features = held.num_latents or held.d_in * held.expansion_factor
    if not float(features).is_integer():
        raise _refused(path, "a whole number of features", str(features))
    return _made(weights, _named(weights, _safetensors(weights), _SPARSIFY_NAMES), architecture="topk",
                 width=held.d_in, features=int(features), k=held.k, center=not held.transcode,
                 skip=held.skip_connection)  # fmt: skip


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


def _gemma_scope(_: Path, path: Path) -> Dictionary:
    with bounded.Npz(path, _NOUN) as file:
        names = [f"W_{name[2:]}" if name.startswith("w_") else name for name in file.names]
        if sorted(names) != sorted(_PLAIN):
            raise _refused(path, f"arrays {', '.join(_PLAIN)}", ", ".join(map(ascii, file.names)))
        kinds = {name: np.dtype(np.float32) for name in file.names}
        if odd := [name for name in file.names if file.header(name)[1].kind != "f"]:
            raise _refused(f"{path}: {odd[0]}", "floating-point numbers", file.header(odd[0])[1])
        file.require_small(kinds)
        state = {own: to_tensor(file.array(name, kinds[name])) for own, name in zip(names, file.names, strict=True)}
    shape = state["W_enc"].shape
    width, features = shape if len(shape) == 2 else (0, 0)
    return _made(path, state, architecture="jumprelu", width=width, features=features, center=False)


_LAYOUTS: Final[Mapping[str, tuple[str, Callable[[Path, Path], Dictionary]]]] = {
    "sae_weights.safetensors": ("cfg.json", _saelens), "sae.safetensors": ("cfg.json", _sparsify),
    "ae.pt": ("config.json", _learning), "params.npz": ("", _gemma_scope),
}  # fmt: skip
"""By which file a layout is known: where its settings stand, and what reads both."""


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
    if how.architecture not in names or how.skip:
        raise UsageError("SAELens has no such dictionary.", where=str(place), expected=", ".join(sorted(names)),
                         got=f"{how.architecture}{' with a skip' if how.skip else ''}",
                         do="Give a path that ends in .safetensors.")  # fmt: skip
    config = {
        "architecture": names[how.architecture], "d_in": how.width, "d_sae": how.features, "dtype": "float32",
        "device": "cpu", "apply_b_dec_to_input": how.center, "reshape_activations": "none",
        "normalize_activations": how.normalize, "metadata": {"sae_lens_version": _VERSION},
    }  # fmt: skip
    if how.architecture == "topk":
        config |= {"k": how.k, "rescale_acts_by_decoder_norm": False}
    write_whole(place / "sae_weights.safetensors", save(state))
    write_whole(place / "cfg.json", msgspec.json.encode(config))
