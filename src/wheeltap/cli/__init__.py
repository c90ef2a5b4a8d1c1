"""The command line: verbs are loaded when they are called. Verbs of suites and plug-ins are entry points."""

import contextlib
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, TextIO, cast, get_args

from cyclopts import App, ArgumentCollection, CoercionError, CycloptsError, Group

from wheeltap import __version__
from wheeltap.core.errors import FileError, UsageError, WheeltapError
from wheeltap.core.plain import Screen, terminal

_HELP = """What do 4 bits, pruning, noise and flipped bits cost this checkpoint, and which of
two checkpoints with equal scores survives them? wheeltap changes weights in
controlled ways and measures, example by example, what is lost.

Try it:

  wheeltap demo                          equal outputs; one fails at 4 bits
  wheeltap audit digits                  audit one model
  wheeltap audit smollm2 --for nf4,int8  a language model, as you will ship it
  wheeltap compare digits my:net         which of two survives?
  wheeltap study --help                  kinds of nets, rules fixed beforehand

A MODEL is digits, hf:FOLDER, gguf:FILE or another of: wheeltap list models.
Exit codes: 0 passed; 1 a verdict at or above --fail-on; 2 usage or input error,
too few weights disturbed, or no answer to what was asked; 3 void.
"""

COMMAND: ContextVar[str] = ContextVar("command", default="")
"""The command line as it was typed, by which a run is resumed; empty where there is none."""

_VERBS = {
    "Ask": {
        "demo": "Small nets with equal scores, of which one does not survive 4 bits.",
        "audit": "What shipping one model costs.",
        "compare": "Which of several models survives shipping, on the same examples and draws.",
        "study": "What holds of kinds of nets, by rules that were fixed beforehand.",
    },
    "Deploy": {},
    "Large runs": {
        "plan": "Write down what an audit or a study would run, and what it costs at most.",
        "run": "Run a plan, or a share of it.",
        "merge": "Put the stores of several machines together.",
        "status": "How far a run is.",
    },
    "Read and check": {
        "report": "Print or draw a finished run, or one code's findings in full.",
        "list": "Audits, studies, recipes, deployment schemes, perturbations, models.",
        "history": "What shipping cost the checkpoints of a training, step by step.",
        "docs": "Open the manual in a browser, offline.",
        "doctor": "Check a model before it is audited, or this installation.",
        "init": "Write a job of CI that runs the gate: init ci.",
    },
}
"""Verbs of the kernel, in the groups of the help; a verb of a suite or plug-in names a group itself."""

_HOMES = {"compare": "audit", "plan": "audit", "status": "run", "list": "listing"}
"""Modules of verbs that have another name: one called list would hide the builtin in this package."""

_FORMER = {
    "judge": "wheeltap report STORE",
    "show": "wheeltap report FILE, or wheeltap report FILE CODE",
    "fer": "wheeltap study pictures",
    "pictures": "wheeltap study pictures --genome FILE; docs/results/pictures.md has the addresses",
    "claims export": "wheeltap claims retest --json FILE",
    "claims diff": "the JSON files of two runs: wheeltap claims retest --json FILE",
    "claims retest --data": "--files FOLDER",
    "circuits train --model": "wheeltap circuits train without it",
    "dictionary check --data": "--task FILE, a file with factors",
    "dictionary train --data": "--vectors FILE",
    "verify --full": "wheeltap verify without it",
}
"""Removed and renamed verbs and flags, and what does the same."""


def application(*, overview: bool) -> App:
    """The application, with the verbs of suites and plug-ins; each with one line for the overview."""
    # Ctrl-C is left to ``main``, which says that the store keeps what was measured.
    app = App(
        name="wheeltap",
        help=_HELP,
        version=__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
        config=(_take_settings, _refuse_none),
    )
    groups = {title: Group(title, sort_key=at) for at, title in enumerate(_VERBS)}
    for title, verbs in _VERBS.items():
        for at, (verb, line) in enumerate(verbs.items()):
            shown: dict[str, Any] = {"help": line, "group": groups[title], "sort_key": at} if overview else {}
            home = f"wheeltap.cli.{_HOMES.get(verb, verb)}"
            app.command(f"{home}:{'list_' if verb == 'list' else verb}", name=verb, **shown)
    for point in entry_points(group="wheeltap.verbs"):
        app.command(point.value, name=point.name, **(_shown(point, groups) if overview else {}))
    if overview:
        app["--help"].group = app["--version"].group = Group("Options", sort_key=len(groups))
    return app


def _shown(point: EntryPoint, groups: dict[str, Group]) -> dict[str, Any]:
    """First line of a suite's or plug-in's verb, and the group that it names: ``App(name="tap", group="Deploy")``."""
    try:
        verb: App | Callable[..., Any] = point.load()
        said, asked, show = (verb.help, verb.group, verb.show) if isinstance(verb, App) else (verb.__doc__, (), True)
    except Exception as error:  # whatever a plug-in raises: the help shows all others
        said, asked, show = f"Cannot be loaded: {type(error).__name__}: {error}", (), True
    titles = [getattr(one, "name", str(one)) for one in cast("tuple[Any, ...]", asked or ())]
    title = titles[0] if titles else "Of other packages"
    group = groups.setdefault(title, Group(title, sort_key=len(groups)))
    return {"help": (said or "").strip().partition("\n")[0], "group": group, "show": show}


def _require_loaded(point: EntryPoint) -> None:
    """Raises ``UsageError`` if the verb of another package cannot be loaded."""
    try:
        point.load()
    except Exception as error:  # whatever it raises
        raise UsageError(
            f"The verb {point.name!r} cannot be loaded.",
            where=point.value,
            expected="a function, or a cyclopts App",
            got=f"{type(error).__name__}: {error}",
            do="Fix or uninstall the package that declares it in the group 'wheeltap.verbs'.",
        ) from error


def _take_settings(_app: App, _verbs: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Reads ``--config FILE``, where that is given."""
    if any(argument.name == "--config" and argument.tokens for argument in arguments):
        from wheeltap.cli.options import take_settings

        take_settings(arguments)


def _refuse_none(_app: App, _verbs: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuses ``none`` and ``null`` where no text is wanted: cyclopts takes them for an option that was not given."""
    for argument in arguments:
        kinds: list[Any] = [*get_args(argument.hint)]
        if NoneType in kinds and str not in kinds and Path not in kinds:
            for token in argument.tokens:
                if token.value.lower() in ("none", "null"):
                    raise CoercionError(argument=argument, token=token, target_type=kinds[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code; every error that we raise on purpose is printed, not traced."""
    # Threads that wait by spinning make a large model ten times slower as soon as anything else runs; must be set
    # before torch starts its threads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    COMMAND.set(shlex.join(("wheeltap", *words)))
    with contextlib.ExitStack() as stack:
        # Python sets a stream to None if its descriptor is closed.
        streams = [stream or stack.enter_context(Path(os.devnull).open("w")) for stream in (sys.stdout, sys.stderr)]
        out, errors = (cast("TextIO", Screen(stream)) for stream in streams)
        return _run(words, out, errors)


def _run(words: list[str], out: TextIO, errors: TextIO) -> int:
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), warnings.catch_warnings():
        # Torch says so of every copy of a scripted program, at length.
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf", UserWarning)
        return _called(words)


def _run_verb(words: list[str]) -> int:
    _require_text(words)
    _refuse_former(words)
    app = application(overview=not words or words[0] in ("--help", "-h"))
    for point in entry_points(group="wheeltap.verbs", name=words[0] if words else ""):
        _require_loaded(point)
    if len(words) < 2 or {"--help", "-h"} & {*words}:  # cyclopts prints it, in bold
        app.console = terminal()
    code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    sys.stdout.flush()
    if isinstance(code, int):
        return code
    # Help and the version are cyclopts' own. A verb without a result has not said that it succeeded.
    called = app.parse_commands(words)[1][-1]
    if called.default_command is not None and {"--help", "-h", "--version"}.isdisjoint(words):
        raise UsageError(
            f"The verb {words[0]!r} returned no exit code.", expected="a whole number", got=repr(code)[:80],
            do="Return 0 for success in the function of the verb.",
        )  # fmt: skip
    return 0


def _refuse_former(words: Sequence[str]) -> None:
    """Raise ``UsageError`` for a verb or flag that was removed or renamed."""
    flags = {word.partition("=")[0] for word in words}
    for name, replacement in _FORMER.items():
        verb, _, flag = name.partition(" --")
        if list(words[: len(verb.split())]) == verb.split() and (not flag or f"--{flag}" in flags):
            raise UsageError(
                f"There is no {'flag' if flag else 'verb'} {name} any more.", expected=replacement, got=name,
                do="See: wheeltap --help, or wheeltap VERB --help",
            )  # fmt: skip


def _called(words: list[str]) -> int:
    try:
        return _run_verb(words)
    except CycloptsError as error:
        said = str(error).replace("\n", "\n    ")
        return _complain(f"{said}\n  what to do: wheeltap --help, or wheeltap VERB --help", 2)
    except WheeltapError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt as error:
        code = 128 + (signal.SIGTERM if isinstance(error, _Termination) else signal.SIGINT)
        return _complain(
            "Interrupted. What was measured or trained is kept; the same command resumes from there.", code
        )
    except BrokenPipeError:
        return _unread()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # help ends so, with 1: here, a verdict
            return _unread()
        return _complain(f"Code of the model, the data, or another package raised {error!r}.{_EXIT}", 2)
    except OSError as error:
        _drop_output()
        return _complain(str(FileError.of(error)), FileError.exit_code)
    except MemoryError:
        return _complain("There is not enough memory.\n  what to do: Use fewer examples, or a smaller model.", 2)
    except Exception:
        traceback.print_exc()
        return _complain("This is a bug in wheeltap (not a finding): please report it with the lines above.", 2)
    except BaseException as error:  # of other code: an exit code of 0 or 1 would pass for a verdict
        return _complain(f"Code of the model, the data, or another package raised {error!r}.{_EXIT}", 2)


_EXIT = "\n  what to do: Raise an ordinary exception there, which says what is wrong."


def _require_text(words: Sequence[str]) -> None:
    """Raises ``UsageError`` where an argument cannot be read as text."""
    for word in words:
        if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
            raise UsageError(
                "An argument is not text in the character set of this system.",
                where=os.fsencode(word).decode("utf-8", "replace"),
                expected=f"text in {sys.getfilesystemencoding()}",
                got=ascii(word),
                do="Set PYTHONUTF8=1 where names are in UTF-8; else rename the file.",
            )


def _unread() -> int:
    """The reader of our output went away (a pager, head): no error, and no verdict either."""
    _drop_output()
    return 128 + 13


class _Termination(KeyboardInterrupt):
    """The process was asked to end (SIGTERM): as by Ctrl-C, so that temporary files are removed."""


def _end(*_: object) -> NoReturn:
    raise _Termination


def _drop_output() -> None:
    """What is still buffered goes nowhere, if it cannot be written: Python would complain about it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str, code: int) -> int:
    print(f"wheeltap: {text}", file=sys.stderr)
    return code


def entry() -> None:
    """What the installed command calls."""
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
