"""Specs of the readings of dictionaries: what is asked of one entry of a ``DictionaryModel``, and what comes back."""

from typing import Annotated, Final, Literal, cast, get_args

import msgspec

from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.settings import Settings, comma_separated
from wheeltap.plans.readings.base import Array, ReadingSpec

Kind = Literal[
    "own", "reseed", "frozen decoder", "soft-frozen decoder", "frozen encoder", "random", "untrained net", "identity",
    "pca", "mean codes", "least squares", "matched random",
]  # fmt: skip
"""What a dictionary is among those of one site: the one under test, its like of another seed, a null, a baseline."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

NULLS: Final[tuple[Kind, ...]] = (
    "frozen decoder", "soft-frozen decoder", "frozen encoder", "random", "matched random", "untrained net",
)  # fmt: skip
"""Those whose features were not learned from this net's activations, or only half of them were."""

RANDOM: Final[tuple[Kind, ...]] = ("random", "matched random")
"""Nulls that are drawn and not trained. The second one reconstructs vectors as long as the dictionary beside it does: a
gain of the encoder alone makes random features edit more. So it stands beside every dictionary."""

SUPERVISED: Final[tuple[Kind, ...]] = ("mean codes", "least squares")
"""Those that are made of the labels themselves: control must be found of them."""

STATUSES: Final = ("measured", "one value", "too few examples")
"""How measuring an attribute ended; its other arrays are there where it was measured alone. ``one value``: all examples
have the same; ``too few examples``: no two that differ in this attribute alone, or a value that is in one half alone.
"""

REPLACEMENTS: Final = ("clean", "mean", "reconstructed", "residual")
"""What stands in the site: its vectors; the mean vector of the task's examples; what the dictionary makes of the
vector; the mean vector with what the dictionary leaves out added.

Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366, section 4 (tests of sufficiency and necessity)."""

PARTS: Final = ("clean", "mean", "kept", "removed", "others kept", "others removed")
"""The same for the causal check of interpretable features. ``kept``: the reconstruction from these features alone;
``removed``: the reconstruction without them; ``others``: as many other live features, drawn at random."""

DISTURBANCES: Final = ("none", "weight noise", "nf4", "int4", "fine-tuning", "gauge twin", "gauge twin, rewritten")
"""What is done to the net before the dictionary reads it. ``gauge twin``: a copy that computes the same function with
its vectors in another basis; ``rewritten``: the dictionary is taken to the new basis too, which must change nothing."""

GAUGES: Final = ("none", "rotation", "permutation")
"""What the gauge twin does to the site: a rotation of the residual stream, another order of hidden units, or nothing,
where no gauge is known that moves this site's vectors (its numbers are then those of ``none``)."""

Count = Annotated[int, msgspec.Meta(ge=0)]

Pairs = Annotated[int, msgspec.Meta(ge=2)]
Budget = Annotated[int, msgspec.Meta(ge=1)]

_KINDS: Final = {"kinds": Array("entry", "what each entry of the model is", "count", of=KINDS)}
_STATUS: Final = {"status": Array("", "how measuring the attribute ended", "count", of=STATUSES, optional=True)}


class DictionaryEntrySettings(Settings, frozen=True, kw_only=True):
    """Which dictionary.

    Attributes:
        entry: Number of the entry among the model's; 0 is the one under test.
    """

    entry: Count = 0


DICTIONARY_RECONSTRUCTION: Final = ReadingSpec(
    name="dictionary-reconstruction",
    title="Answers with the vectors of a site replaced by what a dictionary makes of them",
    settings_type=DictionaryEntrySettings,
    arrays=_KINDS | {
        "margin": Array("replacement example", "score of the right option less the best other one, logits, with the "
                        "replacements of REPLACEMENTS in the site"),
        "error": Array("example", "squared distance of the vectors from their reconstructions"),
        "spread": Array("example", "squared distance of the vectors from the mean vectors"),
        "active": Array("example", "features that are not 0", "count"),
        "dead": Array("", "features that are 0 in all examples", "count"),
        "features": Array("", "features of the dictionary", "count"),
    },
)  # fmt: skip
"""WT401. A task must have options."""


def kinds_of(text: str) -> tuple[Kind, ...]:
    """Kinds of dictionaries, separated by commas; one may stand several times.

    Raises:
        UnknownName: If one is no kind.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if strange := [name for name in names if name not in KINDS]:
        raise UnknownName("kind of dictionary", strange[0], KINDS)
    return cast("tuple[Kind, ...]", tuple(names))


class DictionaryControlSettings(DictionaryEntrySettings, frozen=True, kw_only=True):
    """How far a vector may be edited, and on how many pairs.

    Attributes:
        budget: Features that an edit may change: those removed and those added together.
        pairs: Of each attribute, at most.
    """

    budget: Budget = 4
    pairs: Pairs = 200


DICTIONARY_CONTROL: Final = ReadingSpec(
    name="dictionary-control",
    title="Edits of a few features that are to change one attribute",
    version=2,
    settings_type=DictionaryControlSettings,
    each="attribute",
    arrays=_KINDS | _STATUS | {
        "rows": Array("pair", "number of the example that is edited", "count", optional=True),
        "unedited": Array("pair", "whether the clean answer is that with the vector of an example that differs in this "
                          "attribute alone", "flag", optional=True),
        "agree": Array("pair", "whether the answer with the edited vector is", "flag", optional=True),
        "magnitude": Array("pair", "of the edit: sum of the weights of the features that it changes, each one's "
                           "share in the reconstruction that it is in", optional=True),
    },
)  # fmt: skip
"""WT402. Pairs are the same whatever the entry. The edit is the one of at most so many features that brings the vector
nearest to the other example's; of a supervised dictionary, the attribute's old value is removed and its new one added,
whatever the budget.

Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366, section 4 (sparse controllability)."""


INTERPRETABLE, PRECISION, COVERED = 0.6, 0.8, 0.8
"""F1 from which a feature is called interpretable; precision from which it is one of a value; share of the examples of
a value that its features must be active on."""

UNION: Final = 10  # values of an attribute that a feature may stand for, at most; never more than half of them


DICTIONARY_FEATURES: Final = ReadingSpec(
    name="dictionary-features",
    title="Features of a dictionary beside the values of attributes",
    version=2,
    settings_type=DictionaryEntrySettings,
    each="attribute",
    arrays=_KINDS | _STATUS | {
        "features": Array("live", "numbers of the features that are active in some examples and not in all", "count"),
        "rows": Array("half", "numbers of the examples that are scored on; all is chosen on the others", "count"),
        "margin": Array("part example", "of entry 0: score of the right option less the best other one, with the parts "
                        "of PARTS in the site, logits", optional=True),
        "interpretable": Array("", "live features of any attribute with F1 from the threshold on, and above what a "
                               "feature that is always active gets for the same values", "count"),
        "labels": Array("half", "number of each scored example's value among the values, rising", "count",
                        optional=True),
        "best": Array("value", "feature with the highest F1 for this value alone, on the other half", "count",
                      optional=True),
        "fires": Array("value half", "whether that feature is active", "flag", optional=True),
        "fits": Array("3 live", "F1, precision and recall of each feature for the values that it fits best on the "
                      "other half", optional=True),
        "needed": Array("value", "how many features with the precision asked for cover the share asked for of the "
                        "value's examples, the most covering first; 0 where they do not", "count", optional=True),
        "size": Array("", "share of the vectors' variance that goes with the attribute", optional=True),
        "retained": Array("", "share of what the vector means of its values differ by that is left in "
                          "reconstructions: 1 less the squared error", optional=True),
    },
)  # fmt: skip
"""WT403 and WT405. A feature is active where its code is above 0; of a supervised dictionary, where the example has its
value. ``needed`` above 1 is splitting; low ``retained`` at small ``size`` is occlusion. Without live features, ``best``
is -1 and F1 0."""


class DictionaryDisturbedSettings(Settings, frozen=True, kw_only=True):
    """Which dictionaries, what is done to the net, and which edit is asked afterwards.

    Attributes:
        dictionaries: Numbers of the entries that read each disturbed net, separated by commas.
        noise: Relative standard deviation of the weight noise.
        steps: Of fine-tuning on the task itself.
        rate: First step size, as in the perturbation ``fine-tune``.
        budget: Features that an edit may change.
        pairs: Of each attribute, at most.
    """

    dictionaries: str = "0"
    noise: Annotated[float, msgspec.Meta(gt=0.0, le=10.0)] = 0.1
    steps: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 3e-3
    budget: Budget = 8
    pairs: Pairs = 100

    def __post_init__(self) -> None:
        if not self.numbers:
            raise UsageError("The dictionaries cannot be read.", where="setting dictionaries", expected="numbers of "
                             "entries, separated by commas: 0,3", got=repr(self.dictionaries))  # fmt: skip

    @property
    def numbers(self) -> list[int]:
        """Of the entries; none where the text cannot be read."""
        names = comma_separated(self.dictionaries)
        return [int(name) for name in names] if all(name.isdecimal() for name in names) else []


DICTIONARY_DISTURBED: Final = ReadingSpec(
    name="dictionary-disturbed",
    title="Dictionaries on the vectors of a disturbed net",
    version=2,
    settings_type=DictionaryDisturbedSettings,
    each="attribute",
    arrays=_KINDS | _STATUS | {
        "disturbances": Array("disturbance", "what each is", "count", of=DISTURBANCES),
        "gauge": Array("", "what the gauge twin does to the site", "count", of=GAUGES),
        "correlation": Array("dictionary disturbance", "of a feature's codes before and after (0 where they do not "
                             "vary any more), mean over those that are active in some examples and not in all; 0 "
                             "without any"),
        "rows": Array("pair", "number of the example that is edited", "count", optional=True),
        "unedited": Array("disturbance pair", "whether the clean answer is that with the vector of an example that "
                          "differs in this attribute alone, both in the disturbed net", "flag", optional=True),
        "agree": Array("dictionary disturbance pair", "whether the answer with the edited vector is", "flag",
                       optional=True),
    },
)  # fmt: skip
"""WT404. A rotated residual stream leaves the function as it is and moves every feature: what a dictionary says is of a
net as it is written. ``gauge twin, rewritten`` shows that nothing else was lost."""


SHOWN, TOP = 8, 3  # features that a page shows, at most, and examples of each

DICTIONARY_VIEW: Final = ReadingSpec(
    name="dictionary-view",
    title="Features of a dictionary with the examples that they are most active on",
    settings_type=DictionaryEntrySettings,
    arrays=_KINDS | {
        "features": Array("shown", "numbers of the features that add most to reconstructions", "count"),
        "frequency": Array("shown", "share of the examples that each is active in"),
        "examples": Array("shown top", "numbers of the examples that each is most active in", "count"),
        "codes": Array("shown top", "its codes there"),
        "lost": Array("shown", "fall of the margin of the right option without it, where it is active: mean, logits"),
        "changed": Array("shown", "share of the answers that change without it, where it is active"),
        "texts": Array("letter", "JSON list of what these examples say, feature by feature, as bytes", "count"),
    },
)  # fmt: skip
