"""Arguments that several commands share, and what they make."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stilts_jax.checked import split_names
from stilts_jax.errors import ConfigError, show_tracebacks
from stilts_jax.files import local_path, make_folder, open_path
from stilts_jax.progress import Progress
from stilts_jax.settings import LAYER, LENGTH, ROWS, TOKENS_PER_BATCH, Settings

if TYPE_CHECKING:
    from stilts_jax.experiment.context import Context
    from stilts_jax.experiment.phases import Phase


Add = Callable[..., None]  # adds an argument: its name, its help and whatever else argparse takes


def _load(spec: str) -> Any:
    """Reads a config where it is met: a wrong name in it is told before anything that is missing."""
    from stilts_jax.config import load_config

    return load_config(spec)


def joined_names(text: str) -> tuple[str, ...]:
    if not (names := split_names(text)):
        raise ArgumentTypeError("no task is named")
    return names


_CONFIG = "a file of configs/ (its name is enough) with its arguments; --config.x.y=z overrides an option"
# What an argument is, where more than one command has it; a command may say more, or other things.
_SHARED: dict[str, dict[str, Any]] = {
    "--batch_size": {"type": ROWS, "default": 32},
    "--config": {"type": _load, "metavar": "FILE[:key=value,...]", "help": _CONFIG},
    "--benchmark": {"choices": ("xtreme", "xtreme-r", "africa", "xtreme-up"), "default": "xtreme"},
    "--data_root": {"type": local_path, "help": "the folder that holds the data"},
    "--head": {"help": "the head to use, where a model has several"},
    "--json": {"action": "store_true", "help": "print a record instead of tables"},
    "--layer": {"type": LAYER},
    "--max_length": {"type": LENGTH, "help": "tokens of a row at most"},
    "--out": {"type": local_path, "help": "the folder to write"},
    "--tokens_per_batch": {"type": TOKENS_PER_BATCH, "default": 0, "help": "0: by the device"},
    "--workdir": {"type": open_path, "help": "where all is kept; a folder or gs://BUCKET/FOLDER"},
}


def adder(parser: ArgumentParser) -> Add:
    def add(name: str, told: str = "", **more: Any) -> None:
        parser.add_argument(name, **(_SHARED.get(name, {}) | ({"help": told} if told else {}) | more))

    return add


def add_experiment(add: Add) -> None:
    for name in ("--config", "--data_root", "--workdir"):
        add(name, required=True)


def read_settings(arguments: Namespace, own_options: Callable[[], Mapping[str, Any]] = dict) -> Settings:
    """Returns the checked settings behind ``--config``; without it the defaults with a model's own options."""
    from stilts_jax.config import load_config, to_settings

    config, own = ("target", own_options()) if arguments.config is None else (arguments.config, {})
    settings = to_settings(load_config(config, arguments.overrides, own))
    if settings.debug:
        show_tracebacks(True)
    return settings


def check_data_root(folder: Path) -> None:
    if not folder.is_dir():
        what = f"The data root {'is no folder' if folder.exists() else 'does not exist'}."
        fix = "name the folder that holds the data with --data_root; `stilts prepare --source=hub` fills it"
        raise ConfigError(what, where=str(folder), fix=fix)


def open_context(
    settings: Settings, data_root: Path, workdir: Path, *, workdir_option: str = "--workdir", **about: Any
) -> "Context":
    """Starts JAX and returns what all phases share; ``about`` are more of its fields."""
    import jax

    from stilts_jax.experiment.context import Context, open_source, start_runtime

    check_data_root(data_root)
    source = open_source(settings, data_root)
    if about.get("trace"):
        make_folder(about["trace"], "--trace")
    # A finished grid can be read where nothing can be written.
    make_folder(workdir, workdir_option, to_write=workdir_option == "--out")
    start_runtime(settings.compute)
    is_main = jax.process_index() == 0
    about = {"progress": Progress(sys.stderr if is_main else None), "is_main": is_main, **about}
    return Context(settings, source, open_path(workdir), **about)


def open_phases(settings: Settings, arguments: Namespace, **instead: Any) -> tuple[list["Phase"], "Context"]:
    """Returns the phases of an experiment and what they share, after a look at their data.

    ``instead`` has other folders than the command line names.
    """
    from stilts_jax.distributed import leave_together
    from stilts_jax.experiment.needs import check_data, keep_available
    from stilts_jax.experiment.phases import list_phases, unread_exceptions

    given = vars(arguments) | instead
    phases = list_phases(settings)  # before any folder is made: it knows all names
    told = {"command": arguments.command_line, "trace": given.get("trace")}
    context = open_context(settings, given["data_root"], given["workdir"], **told)
    with leave_together():  # a host that lacks data must not let the others wait
        if given.get("available"):
            context = keep_available(context)
            phases = list_phases(context.settings, is_part=True)
        for said in unread_exceptions(phases, context.settings):
            context.progress.say(f"warning: {said}")
        check_data(phases, context)
    return phases, context
