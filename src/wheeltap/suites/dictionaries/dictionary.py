"""Dictionaries: features of a site of a net, what they make of its vectors, and nets with such dictionaries beside.

Tensors have SAELens' names and layout, so that files of both mean the same. The architectures are the published ones;
``linear`` has signed codes (identity, PCA), and in ``supervised`` features are values of known attributes.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, cast, final

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.settings import Settings
from wheeltap.core.typed import named_modules
from wheeltap.suites.dictionaries.specs import Kind

Architecture = Literal["topk", "batchtopk", "jumprelu", "gated", "relu", "linear", "supervised"]

Normalization = Literal["none", "constant_norm_rescale", "layer_norm"]
"""What is done to a vector before features read it, and undone to what they make of it: nothing; it gets the norm
sqrt(width); it gets mean 0 and standard deviation 1. The bias of the decoder lies inside.
"""

_EPSILON: Final = 1e-5  # beside a standard deviation, as SAELens has it
_TINY: Final = 1e-12
_ROWS: Final = 1024  # vectors or features that are looked at at once

_Size = Annotated[int, msgspec.Meta(ge=1, le=2**24)]


class DictionarySettings(Settings, frozen=True, kw_only=True):
    """What a dictionary is, but for its numbers.

    Attributes:
        architecture: How codes are computed.
        width: Numbers of a vector of the site.
        features: How many there are.
        k: Features that are active: of each vector (``topk``), or of each on average (``batchtopk``); else 0.
        center: Whether the bias of the decoder is subtracted from vectors before features read them.
        normalize: What is done to vectors before.
        attributes: Names of the attributes of ``supervised``.
    """

    architecture: Architecture = "topk"
    width: _Size = 1
    features: _Size = 1
    k: Annotated[int, msgspec.Meta(ge=0)] = 0
    center: bool = True
    normalize: Normalization = "none"
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counted = self.architecture in ("topk", "batchtopk")
        if counted != (self.k > 0) or self.k > self.features:
            raise UsageError("The number of active features does not fit the dictionary.",
                             where=f"setting k of architecture {self.architecture!r}", got=f"{self.k:,}",
                             expected=f"1 to {self.features:,}" if counted else "0: another rule says which are active"
                             )  # fmt: skip
        if (self.architecture == "supervised") != bool(self.attributes):
            raise UsageError("Attributes do not fit the dictionary.", where="setting attributes",
                             expected="the names of attributes, of the architecture 'supervised' alone",
                             got=", ".join(self.attributes) or "none")  # fmt: skip

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor that such a dictionary has, by name."""
        width, features = self.width, self.features
        each = {"topk": ("b_enc",), "batchtopk": ("b_enc", "threshold"), "jumprelu": ("b_enc", "threshold"),
                "gated": ("b_gate", "r_mag", "b_mag"), "supervised": ("attribute", "value")}  # fmt: skip
        found = {"W_enc": (width, features)} if self.architecture != "supervised" else {}
        found |= dict.fromkeys(each.get(self.architecture, ("b_enc",)), (features,))
        return found | {"W_dec": (features, width), "b_dec": (width,)}


@final
class Dictionary(nn.Module):
    """Features of one site; all numbers are 0 until a state is loaded.

    Attributes:
        settings: What it is. Its ``shapes`` name the tensors that it has.
        kind: What it is among the dictionaries of its site.
        origin: What a file says that it is of, such as a hook of a model.
    """

    W_enc: Tensor  # [width, feature]; not of supervised
    b_enc: Tensor  # [feature]; not of gated and supervised
    W_dec: Tensor  # [feature, width]
    b_dec: Tensor  # [width]
    threshold: Tensor  # [feature], of jumprelu and batchtopk: what is not larger is no activity
    b_gate: Tensor  # [feature], of gated: added to what opens a gate
    r_mag: Tensor  # [feature], of gated: logarithm of the factor between that and what goes through
    b_mag: Tensor  # [feature], of gated: added to what goes through
    attribute: Tensor  # [feature], of supervised: which attribute each feature is of
    value: Tensor  # [feature], of supervised: which value of it

    def __init__(
        self, settings: DictionarySettings, state: Mapping[str, Tensor] | None = None, *, kind: Kind = "own"
    ) -> None:
        super().__init__()
        self.settings, self.origin = settings, ""
        self.kind: Kind = kind
        for name, shape in settings.shapes.items():
            if name in ("attribute", "value"):
                self.register_buffer(name, torch.zeros(shape, dtype=torch.int64))
            else:
                self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        if state is not None:
            self.load_state_dict(dict(state))

    def freeze(self) -> None:
        """Makes buffers of its parameters: inside a net under audit they are no weights of the net."""
        for name, parameter in list(self.named_parameters()):
            delattr(self, name)
            self.register_buffer(name, parameter.detach())

    def normalized(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors ``[row, width]`` as features read them, before ``b_dec`` is subtracted.

        Returns:
            They, and by what ``[row or 1, 1]`` decoded vectors are multiplied, and what ``[row or 1, 1]`` is added.

        Raises:
            ModelError: If they have another width.
        """
        if x.ndim != 2 or x.shape[1] != self.settings.width:
            raise ModelError("The dictionary is of vectors of another width.", where="dictionary",
                             expected=f"vectors [row, {self.settings.width}]", got=str(list(x.shape)),
                             do="Give the dictionary of this site of this net.")  # fmt: skip
        x = x.to(self.b_dec.dtype)
        one, zero = x.new_ones(1, 1), x.new_zeros(1, 1)
        match self.settings.normalize:
            case "none":
                return x, one, zero
            case "constant_norm_rescale":
                length = x.square().sum(1, keepdim=True).sqrt().clamp_min(_TINY) / self.settings.width**0.5
                return x / length, length, zero
            case "layer_norm":
                mean, deviation = x.mean(1, keepdim=True), x.std(1, keepdim=True)
                return (x - mean) / (deviation + _EPSILON), deviation, mean

    def preactivations(self, x: Tensor) -> Tensor:
        """What the encoder says of vectors ``[row, width]`` before any rule of activity, ``[row, feature]``.

        Of ``gated`` without its two biases.

        Raises:
            ModelError: If features are values of attributes: no encoder reads them.
        """
        if self.settings.architecture == "supervised":
            raise ModelError("A supervised dictionary has no encoder.", where="dictionary", got="vectors",
                             expected="the labels of the examples: codes(labels)")  # fmt: skip
        inner = self.normalized(x)[0]
        inner = inner - self.b_dec if self.settings.center else inner
        return inner @ self.W_enc + (self.b_enc if "b_enc" in self.settings.shapes else 0.0)

    def encode(self, x: Tensor) -> Tensor:
        """Codes ``[row, feature]`` of vectors ``[row, width]``, 0 where a feature is not active.

        Codes of ``batchtopk`` are computed by its threshold, as at inference.

        Raises:
            ModelError: If it is supervised, or the vectors have another width.
        """
        before = self.preactivations(x)
        match self.settings.architecture:
            case "topk":
                values, index = before.topk(self.settings.k, dim=1)
                return torch.zeros_like(before).scatter(1, index, values.relu())
            case "jumprelu" | "batchtopk":
                return before.relu() * (before > self.threshold)
            case "gated":
                return (before * self.r_mag.exp() + self.b_mag).relu() * (before + self.b_gate > 0)
            case "linear":
                return before
            case _:
                return before.relu()

    def codes(self, labels: Tensor) -> Tensor:
        """Codes ``[row, feature]`` of examples: 1 for each value that they have, 0 for all others.

        A value that no feature is of has none.

        Args:
            labels: Values ``[row, attribute]``, attributes as in the settings.

        Raises:
            ModelError: If features are no values of attributes, or there are other attributes.
        """
        names = self.settings.attributes
        if not names or labels.ndim != 2 or labels.shape[1] != len(names):
            expected = f"labels [row, {len(names)}] of {', '.join(names)}" if names else "vectors: encode(x)"
            raise ModelError("Labels do not fit the dictionary.", where="dictionary", expected=expected,
                             got=str(list(labels.shape)))  # fmt: skip
        held = labels.to(self.value.device)[:, self.attribute]
        return (held == self.value).to(self.b_dec.dtype)

    def decode(self, codes: Tensor, x: Tensor | None = None) -> Tensor:
        """Vectors ``[row, width]`` of codes ``[row, feature]``.

        Args:
            codes: Of each row.
            x: The vectors ``[row, width]`` that they are of: needed where vectors are normalized one by one.

        Raises:
            ModelError: If that is needed and not given.
        """
        return self._outer(codes @ self.W_dec + self.b_dec, x)

    def _outer(self, decoded: Tensor, x: Tensor | None) -> Tensor:
        plain = self.settings.normalize == "none"
        if x is None:
            if not plain:
                raise ModelError("These codes cannot be decoded without the vectors that they are of.",
                                 where="dictionary", expected="decode(codes, x), x [row, width]", got="codes alone"
                                 )  # fmt: skip
            return decoded
        _, stretch, shift = self.normalized(x)
        return decoded if plain else decoded * stretch + shift

    def reconstructed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of ``topk``: what is made of vectors ``[row, width]``, their codes ``[row, k]`` and features ``[row, k]``.

        No code that is not active is ever written, decoded or given a gradient. Only first derivatives.

        Raises:
            ModelError: If not each vector has ``k`` codes.
        """
        if self.settings.architecture != "topk":
            raise ModelError("Vectors have no fixed number of codes.", where="dictionary",
                             expected="architecture 'topk'", got=repr(self.settings.architecture), do="Call encode."
                             )  # fmt: skip
        inner = self.normalized(x)[0]
        decoded, values, index = cast(
            "tuple[Tensor, Tensor, Tensor]",
            SparseTopK.apply(inner, self.settings, self.W_enc, self.b_enc, self.W_dec, self.b_dec),  # pyright: ignore[reportUnknownMemberType]
        )
        return self._outer(decoded, x), values, index

    def forward(self, x: Tensor) -> Tensor:
        """What is made of vectors, ``[row, width]``: ``decode(encode(x), x)``."""
        return self.reconstructed(x)[0] if self.settings.architecture == "topk" else self.decode(self.encode(x), x)


@final
class SparseTopK(torch.autograd.Function):
    """A TopK dictionary on vectors: only the encoder's product is dense, all else touches ``k`` features of a row.

    Sums of each row, and in the gradients of each feature, run in order: same bits each time.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, how: DictionarySettings, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is decoded ``[row, width]``, codes ``[row, k]`` and features ``[row, k]``."""
        encoder, bias, decoder, offset = tensors
        inner = x - offset if how.center else x
        values, index = torch.addmm(bias, inner, encoder).topk(how.k, dim=1, sorted=False)
        values = values.relu_()
        decoded = functional.embedding_bag(index, decoder, mode="sum", per_sample_weights=values).add_(offset)
        ctx.center = how.center
        ctx.save_for_backward(inner, encoder, decoder, values, index)
        ctx.mark_non_differentiable(index)
        return decoded, values, index

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of the tensors of ``forward``."""
        inner, encoder, decoder, values, index = cast("tuple[Tensor, ...]", ctx.saved_tensors)
        outer = grads[0].contiguous()
        with torch.enable_grad():
            asked = values.detach().requires_grad_()
            made = functional.embedding_bag(index, decoder.detach(), mode="sum", per_sample_weights=asked)
        slopes = (torch.autograd.grad(made, asked, outer)[0] + grads[1]) * (values > 0)
        # Which rows each feature is active in: the same codes, by feature.
        order = index.flatten().argsort(stable=True)
        starts = torch.bincount(index.flatten(), minlength=len(decoder)).cumsum(0).roll(1)
        starts[0] = 0

        def by_feature(source: Tensor, weights: Tensor) -> Tensor:
            own = weights.flatten()[order]
            return functional.embedding_bag(order // index.shape[1], source, starts, mode="sum", per_sample_weights=own)

        of_bias = by_feature(slopes.new_ones(len(index), 1), slopes)[:, 0]
        of_offset = outer.sum(0) - encoder @ of_bias if ctx.center else outer.sum(0)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = functional.embedding_bag(index, encoder.T.contiguous(), mode="sum", per_sample_weights=slopes)
        return of_x, None, by_feature(inner, slopes).T, of_bias, by_feature(outer, values), of_offset


@final
class DictionaryModel(nn.Module):
    """A net with dictionaries of one of its sites beside it; it answers as the net does.

    Their numbers become buffers: no disturbance of weights touches them.

    Attributes:
        net: The net.
        site: Module path in it, whose output the dictionaries are of.
        entries: The dictionaries: the first one is under test, all others stand beside it.

    Raises:
        ModelError: If there is no such site.
    """

    def __init__(self, net: nn.Module, site: str, dictionaries: Iterable[Dictionary]) -> None:
        super().__init__()
        self.net, self.site = net, site
        self.entries = nn.ModuleList(dictionaries)
        if not site or site not in {name for name, _ in named_modules(net)}:
            raise ModelError("The net has no such site.", where=site, got=repr(site),
                             expected="the path of a module of the net")  # fmt: skip
        for dictionary in self.dictionaries:
            dictionary.freeze()

    @property
    def dictionaries(self) -> tuple[Dictionary, ...]:
        """Its entries."""
        return cast("tuple[Dictionary, ...]", tuple(self.entries))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the net answers."""
        return self.net(*args, **kwargs)


@torch.no_grad()
def random_like(dictionary: Dictionary, x: Tensor, seed: int, *, matched: bool = False) -> Dictionary:
    """A dictionary of random directions that looks trained.

    Rows of its decoder have the norms, and its biases of the decoder and its settings are those, of the dictionary
    beside it. Its encoder is the decoder's transpose; each feature is active as often as the one beside it, by biases
    or thresholds, or ``k`` are. One factor of all codes makes what is decoded as near to the vectors as it can be, or
    as long as what that one decodes.

    Args:
        dictionary: Beside which it stands.
        x: Vectors ``[row, width]`` of the site.
        seed: Of the directions.
        matched: Whether what is decoded has the root mean square length of what the dictionary beside it decodes.
    """
    how = dictionary.settings
    random = torch.Generator().manual_seed(seeds.derive(seed, "random dictionary"))
    units = functional.normalize(torch.randn(how.features, how.width, generator=random), dim=1)
    units = units.to(dictionary.b_dec.device)
    norms = dictionary.W_dec.square().sum(1, keepdim=True).sqrt()
    made = Dictionary(how, dictionary.state_dict() | {"W_dec": units * norms}).to(dictionary.b_dec.device)
    if how.architecture == "supervised":
        return made
    x = x[:: max(len(x) // (4 * _ROWS), 1)]
    parts = [x[start : start + _ROWS] for start in range(0, len(x), _ROWS)]
    inner = dictionary.normalized(x)[0] - dictionary.b_dec
    offset = torch.zeros_like(units[:, 0]) if how.center else -units @ dictionary.b_dec
    least = torch.zeros_like(offset)
    if how.architecture not in ("topk", "linear"):
        counts = torch.stack([(dictionary.encode(part) != 0).sum(0) for part in parts]).sum(0)
        for start in range(0, how.features, _ROWS):
            ordered = (units[start : start + _ROWS] @ inner.T).sort(dim=1, descending=True).values
            span = (ordered[:, :1] - ordered[:, -1:]).clamp_min(1.0)
            ordered = torch.cat((ordered[:, :1] + span, ordered, ordered[:, -1:] - span), dim=1)
            wanted = counts[start : start + _ROWS, None]
            least[start : start + _ROWS] = ordered.gather(1, torch.cat((wanted, wanted + 1), dim=1)).mean(1)
    # No code is below 0: where too few would be above, more is added to all.
    added = offset - (least if how.architecture == "relu" else least.clamp_max(0.0))
    found = {"W_enc": units.T, "b_enc": added, "b_gate": offset - least, "b_mag": added, "threshold": least.relu(),
             "r_mag": torch.zeros_like(added)}  # fmt: skip
    scaled = [name for name in found if name in how.shapes]
    for name in scaled:
        getattr(made, name).copy_(found[name])
    decoded = torch.cat([made.encode(part) @ made.W_dec for part in parts])
    squares = decoded.square().sum().clamp_min(_TINY)
    if matched:
        beside = torch.stack([(dictionary.encode(part) @ dictionary.W_dec).square().sum() for part in parts]).sum()
        gain = float((beside / squares).sqrt())
    else:
        gain = float((decoded * inner).sum() / squares)
    for name in scaled:
        getattr(made, name).mul_(gain if gain > 0.0 else 1.0)
    return made
