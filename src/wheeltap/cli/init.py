"""``wheeltap init ci``: a file by which a pipeline runs the gate on each change."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import App, Parameter

from wheeltap import __version__
from wheeltap.core.errors import UsageError
from wheeltap.core.plain import plain
from wheeltap.core.report import FailOn

init = App(
    name="init",
    help="Writes a file to begin with; nothing that is there is changed.\n\nTry it:\n\n"
    "  wheeltap init ci my_nets:small --data test.npz\n",
    help_format="plaintext",
)

_GITHUB: Final = """\
name: wheeltap  # what shipping costs the model, on each change (wheeltap init ci)
on: {pull_request: {}, push: {branches: [main, master]}}
permissions: {contents: read}
jobs:
  audit:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - {uses: actions/setup-python@v5, with: {python-version: "3.11"}}
      - run: INSTALL
      - {uses: actions/cache/restore@v4, with: {path: wheeltap-ci/gate.wheeltap, key: "CACHE", restore-keys: wheeltap-}}
      - env: {WHEELTAP_KEY: "${{ secrets.WHEELTAP_KEY }}"}
        run: |
          COMMAND
      - if: always()
        run: test ! -f wheeltap-ci/report.md || cat wheeltap-ci/report.md >> "$GITHUB_STEP_SUMMARY"
      - {if: always(), uses: actions/cache/save@v4, with: {path: wheeltap-ci/gate.wheeltap, key: "CACHE"}}
      - {if: always(), uses: actions/upload-artifact@v4, with: {name: wheeltap, path: wheeltap-ci/report.*}}
""".replace("CACHE", "wheeltap-${{ github.run_id }}-${{ github.run_attempt }}")

_GITLAB: Final = """\
wheeltap:  # what shipping costs the model, on each change (wheeltap init ci)
  image: python:3.11
  rules: [{if: $CI_PIPELINE_SOURCE == "merge_request_event"}, {if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH}]
  cache: {key: wheeltap, when: always, paths: [wheeltap-ci/gate.wheeltap]}
  script:
    - INSTALL
    - |
      COMMAND
  artifacts: {when: always, expose_as: wheeltap, paths: [wheeltap-ci/report.html, wheeltap-ci/report.md],
              reports: {junit: wheeltap-ci/junit.xml}}
"""

_HOOK: Final = """\
repos:
  - repo: local
    hooks:  # what shipping costs the model, before each push (wheeltap init ci)
      - {id: wheeltap, name: wheeltap, language: system, pass_filenames: false, always_run: true, stages: [pre-push],
         entry: COMMAND}
"""

_KEY: Final = ("Set the secret WHEELTAP_KEY, without which what the cache holds is not read. A new one: "
               "python -c 'import secrets; print(secrets.token_hex())'")  # fmt: skip

_KINDS: Final = {  # for each its file, what is in it, and what to do next
    "github": (".github/workflows/wheeltap.yml", _GITHUB, [_KEY]),
    "gitlab": (".gitlab/wheeltap.yml", _GITLAB, [_KEY, "In .gitlab-ci.yml: include: .gitlab/wheeltap.yml"]),
    "pre-commit": (".pre-commit-config.yaml", _HOOK, ["pre-commit install --hook-type pre-push"]),
}


@init.command
def ci(
    model: Annotated[str, Parameter(help="As audit takes it, such as my_nets:small.")],
    *,
    kind: Annotated[Literal["github", "gitlab", "pre-commit"], Parameter(help="Workflow, job or hook.")] = "github",
    data: Annotated[tuple[str, ...], Parameter(help="Examples, as audit takes them; again for each further set.")] = (),
    schemes: Annotated[str, Parameter(name="--for", help="How it will be shipped.")] = "nf4,int8",
    margin: Annotated[float | None, Parameter(help="Smallest loss that you care about, as audit takes it.")] = None,
    fail_on: Annotated[FailOn, Parameter(help="The mildest verdict that fails.")] = "undecided",
) -> int:
    """Writes a job that audits a model on each change, keeps what it measured, and shows the report.

    It is written for this folder: paths are from here. A file that is there is left as it is. Try it:

      wheeltap init ci my_nets:small --data test.npz --for nf4 --margin .01 --fail-on cannot-tell --kind gitlab
    """
    from wheeltap.audits.schemes import schemes as require_schemes
    from wheeltap.core.bounded import size_of
    from wheeltap.runs.request import margin_of
    from wheeltap.sources.callables import require_module

    require_schemes(schemes)
    given = [("wheeltap audit", model), *(("--data", one) for one in data), ("--for", schemes), ("--fail-on", fail_on)]
    given += [] if margin is None else [("--margin", f"{margin_of(margin):g}")]
    for _, text in given:
        if plain(text) != text or "${{" in text:
            raise UsageError("This cannot stand in a job.", where="wheeltap init ci", expected="one line, without ${{",
                             got=plain(text)[:120], do="Rename it, or call it by another path.")  # fmt: skip
    require_module(model)
    for one in data:
        size_of(Path(one), "file of examples", do="Give its path from this folder.")
    parts = [f"{flag} {shlex.quote(text)}" for flag, text in given]
    parts += ["--store wheeltap-ci/gate.wheeltap --out wheeltap-ci",
              "--markdown wheeltap-ci/report.md --junit wheeltap-ci/junit.xml"]  # fmt: skip
    name, text, then = _KINDS[kind]
    indent = text.partition("COMMAND")[0].rpartition("\n")[2]
    command = json.dumps(" ".join(parts)) if kind == "pre-commit" else f" \\\n{indent}  ".join(parts)
    text = text.replace(
        "INSTALL", f"pip install wheeltap=={__version__}  # or from where you have it; and what the model needs"
    )
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    try:
        with Path(name).open("x", encoding="utf-8") as file:
            file.write(text.replace("COMMAND", command))
    except FileExistsError as error:
        raise UsageError(
            "The file is there already, and was left as it is.", where=name, expected="no file at this path",
            got="a file", do=f"Rename or delete it, or put this into it by hand:\n{text.replace('COMMAND', command)}",
        ) from error  # fmt: skip
    print(f"Written: {name}. It fails on {fail_on} (exit code 1), and where there is no result (2, 3). Next:")
    if kind != "pre-commit":
        then = [f"If no package index that the job sees has wheeltap: change its line pip install in {name}.", *then]
    print(*then, "Add wheeltap-ci/ to .gitignore: the report is there.", f"Try it here: {' '.join(parts)}", sep="\n")
    return 0
