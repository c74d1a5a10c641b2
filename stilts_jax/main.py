"""The ``stilts`` command: reads the command line, runs one command, turns failures into messages and exit codes."""

import argparse
import importlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any, NoReturn

from stilts_jax import errors, interruption
from stilts_jax.commands.options import adder
from stilts_jax.errors import ConfigError, RunAgain, describe, explain, nearest, show_tracebacks
from stilts_jax.host_memory import prepare_process
from stilts_jax.progress import Progress

# In the order in which a newcomer meets them.
COMMANDS = (
    *("demo", "tasks", "prepare", "train", "eval", "predict", "grid", "report"),
    *("score", "export", "mine", "features", "plan", "bench"),
)
_WRITES_AT_THE_END = ("predict", "features", "bench")  # all or nothing


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        what = f"{message[:1].upper()}{message[1:]}."
        raise ConfigError(what, where=self.prog, fix=f"see {self.prog} --help")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except ConfigError as error:  # of a path that is empty, which says nothing of its place
            error.where = error.where or "/".join(action.option_strings)
            raise


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``stilts`` and returns its exit code, one of those in ``errors``."""
    if argv is None:  # a process of our own, not a caller's
        prepare_process()
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: no letter may end a command
    # Tokenizers come from transformers, which would tell at each start that it finds no PyTorch.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # What orbax says through absl's logger is either nothing to act on or raised as well.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        with interruption.catch_signals(signal.default_int_handler if argv is not None else signal.SIG_DFL):
            try:
                code = _run(list(sys.argv[1:] if argv is None else argv))
                print(end="", flush=True)  # what goes wrong with it is said here, not by Python as it ends
                return code
            finally:
                if not isinstance(sys.exception(), RunAgain):  # which says what was saved
                    interruption.check()  # a library may have ignored a signal, or made an error of its own of it
    except RunAgain as stopped:
        print(f"stilts: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print("stilts: aborted; run the same command again to go on", file=sys.stderr)
        return errors.EXIT_INTERRUPTED
    except BrokenPipeError:  # `stilts tasks | head`
        return errors.EXIT_ERROR
    except Exception as error:
        print(f"stilts: {describe(error)}", file=sys.stderr)
        explained = explain(error)
        return explained.exit_code if explained else errors.EXIT_ERROR
    finally:
        show_tracebacks(False)  # of this command only, whoever called it
        try:
            print(end="", flush=True)
        except OSError:  # nobody reads it, or its disk is full: Python would try once more, and end with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: list[str]) -> int:
    for item in argv:
        if "\0" in item or item.encode(errors="ignore").decode() != item:
            what = "The command line has bytes that are no text (UTF-8)."
            fix = "write it anew; folders and files need names in UTF-8"
            raise ConfigError(what, where=ascii(item), fix=fix)
    show_tracebacks("--traceback" in argv)
    argv = [item for item in argv if item != "--traceback"]
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise ConfigError(f"There is no command {argv[0]!r}.", where="stilts", fix=nearest(argv[0], COMMANDS))
    told = "Intermediate-task training for zero-shot cross-lingual transfer."
    more = "stilts COMMAND --help explains a command. --traceback shows where an error comes from."
    parser = _Parser(prog="stilts", description=told, epilog=more, allow_abbrev=False)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    for name in COMMANDS:
        module = importlib.import_module(f"stilts_jax.commands.{name}")
        summary, form = (module.__doc__ or "").splitlines()[0], argparse.RawDescriptionHelpFormatter
        brief = summary[:1].lower() + summary[1:].rstrip(".")
        about: dict[str, Any] = {"help": brief, "description": module.__doc__, "formatter_class": form}
        command = subparsers.add_parser(name, allow_abbrev=False, **about)
        module.add_arguments(adder(command))
        command.set_defaults(command=name, run=module.run)
    plain, overrides = _split_overrides(argv)
    known = {name: list(one._option_string_actions) for name, one in subparsers.choices.items()}
    # Before argparse, which would speak of a missing option where one is only misspelt.
    for item in plain[1:] if plain and plain[0] in COMMANDS else ():
        option, _, value = item.partition("=")
        if value == "--":  # argparse would take it for no value at all
            raise ConfigError("'--' is no value.", where=option, fix=f"write {option}=VALUE")
        if option.startswith("--") and option not in known[plain[0]]:
            from stilts_jax.config import options_named  # it loads much

            others = [f"stilts {name}" for name in known if option in known[name]]
            fix = f"it is an option of {' and '.join(others)}" if others else nearest(option, known[plain[0]])
            if "--config" in known[plain[0]] and (meant := options_named(option[2:])):
                fix = f"did you mean {' or '.join(f'--config.{name}' for name in meant)}?"
            raise ConfigError(f"There is no option {option!r}.", where=f"stilts {plain[0]}", fix=fix)
    arguments = parser.parse_args(plain)
    if "command" not in arguments:
        parser.print_help()
        return errors.EXIT_OK
    if overrides and "config" not in arguments:
        what, where = f"stilts {arguments.command} takes no config.", f"--config.{next(iter(overrides))}"
        raise ConfigError(what, where=where)
    arguments.overrides, arguments.command_line = overrides, shlex.join(["stilts", *argv])
    arguments.progress = Progress()
    try:
        return arguments.run(arguments) or errors.EXIT_OK
    except RunAgain as stopped:
        if arguments.command in _WRITES_AT_THE_END:
            stopped.what = f"{stopped.what.partition(';')[0]}; nothing was written."
            stopped.fix = "run the same command again; it begins anew"
        raise


def _split_overrides(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Takes ``--config.x.y=z`` out of the command line: argparse can't know these names."""
    plain, overrides = [], {}
    items = iter(argv)
    for item in items:
        if not item.startswith("--config."):
            plain.append(item)
            continue
        name, equals, value = item.removeprefix("--config.").partition("=")
        if not equals:
            value = next(items, "--")
            if value.startswith("--"):
                raise ConfigError("The option has no value.", where=item, fix=f"write {item}=VALUE")
        overrides[name] = value
    return plain, overrides


if __name__ == "__main__":
    sys.exit(main())
