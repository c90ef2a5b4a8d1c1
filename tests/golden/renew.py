"""Writes the golden files anew: ``python -m tests.golden.renew [SCREEN ...]``, or ``... renew keys``.

The keys only together with a new ``canon.KEY_VERSION``: every store in the world turns stale.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import msgspec

from wheeltap.core import canon, seeds
from wheeltap.core.records import MemberOrigin, SubjectRecord, TaskRecord, Trial
from wheeltap.core.site import Site
from wheeltap.plans.plan import AuditSpec, Effort, Plan

FILE = Path(__file__).parent / "keys.json"
COMMON = {"subject": "0123456789abcdef" * 2, "task": "fedcba9876543210" * 2, "measures": ("accuracy", "nll")}

TRIALS = (
    Trial(**COMMON, kind="clean", perturbation="none", version=1),
    Trial(**COMMON, perturbation="relative", version=1, settings={"draw": "sign"}, dose=0.1, seed=3, root=7),
    Trial(**COMMON, perturbation="function", version=2, site=Site("block", "layers.0"), dose=1e-17, path="plain/cpu"),
    Trial(**COMMON, perturbation="quantize", version=1, settings={"scale": "channel", "clip": 0.5}, dose=4.0),
    Trial(**COMMON, perturbation="prüfen-é", version=1, settings={"on": True, "count": 2**40}, dose=1e300),
    Trial(**COMMON, kind="read", perturbation="cancellation", version=3, settings={"pairs": 8}, root=1),
)
SUBJECT = SubjectRecord(
    name="net", fingerprint="a" * 32, parameters=1234, blocks=("0", "2"), layers=("0", "2"), widest=65
)
DERIVATION = MemberOrigin(
    family="relu-chain", operations=("permute", "rescale"), settings={"spread": 1.0}, seed=5, version=1
)
PLANS = (
    Plan(
        command="audit",
        subjects=(SUBJECT,),
        task=TaskRecord(name="p", digest="b" * 32, examples=10, measure="accuracy", measures=("accuracy",), tokens=9),
        audits=(AuditSpec(name="score"), AuditSpec(name="pruning", settings={"doses": [0.1, 0.5], "margin": 0.02})),
        effort=Effort(draws=4),
        versions={"relative": 1, "none": 1},
        twin=msgspec.structs.replace(SUBJECT, role="twin", base="a" * 32, made=DERIVATION),
        seed=9,
    ),
)
STREAMS = ((0, "normal", 3, "0.weight"), (7, "signs", 0, "layers.1.mlp.up.weight"), (-1,), (2**62, "", 0))


def golden() -> dict[str, object]:
    """What the file holds: records in full, and their keys."""
    return {
        "key_version": canon.KEY_VERSION,
        "trials": [{"key": trial.key, "record": msgspec.to_builtins(trial)} for trial in TRIALS],
        "plans": [{"key": plan.key, "record": msgspec.to_builtins(plan)} for plan in PLANS],
        "seeds": [{"stream": list(stream), "seed": seeds.derive(*stream)} for stream in STREAMS],
        "digests": [
            {"kind": "derived", "of": ["a" * 32], "key": canon.key("derived", ["a" * 32, DERIVATION])},
            {"kind": "blocks", "of": ["6162", "63"], "key": canon.digest("blocks", b"ab", b"c")},
        ],
    }


def renew_screens(names: list[str]) -> None:
    """Runs the commands of these screens, of all by default, and writes what they show."""
    from tests.golden import screens

    with tempfile.TemporaryDirectory() as nets:
        os.environ.setdefault("WHEELTAP_NETS", nets)
        for name in names or screens.SCREENS:
            with tempfile.TemporaryDirectory() as folder:
                text = screens.drawn(name, Path(folder))
            (FILE.parent / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["keys"]:
        FILE.write_text(json.dumps(golden(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        renew_screens(sys.argv[1:])
