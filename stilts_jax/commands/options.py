"""Arguments that several commands share, and what they make."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stilts_jax.errors import ConfigError, show_tracebacks
from stilts_jax.files import local_path, make_folder, open_path
from stilts_jax.settings import Settings

if TYPE_CHECKING:
    from stilts_jax.experiment.context import Context
    from stilts_jax.progress import Progress
    from stilts_jax.tasks.sources.read import DataSource


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """``--config``, ``--data_root`` and ``--workdir``."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE[:key=value,...]",
        help="a file of configs/ (its name is enough) with its arguments; --config.x.y=z overrides an option",
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--workdir", type=open_path, required=True, help="where all is kept; a folder or gs://BUCKET/FOLDER"
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """``--data_root``."""
    parser.add_argument("--data_root", type=local_path, required=True, help="the folder that holds the data")


def read_settings(
    arguments: argparse.Namespace, own_options: Callable[[], Mapping[str, Any]] = dict
) -> Settings:
    """Returns the checked settings behind ``--config``; without it the defaults with a model's own options."""
    from stilts_jax.config import load_config, to_settings

    spec, own = ("target", own_options()) if arguments.config is None else (arguments.config, {})
    settings = to_settings(load_config(spec, arguments.overrides, own))
    if settings.debug:
        show_tracebacks(True)
    return settings


def check_data_root(folder: Path) -> None:
    """Raises unless ``--data_root`` names a folder."""
    if not folder.is_dir():
        raise ConfigError(
            f"The data root {'is no folder' if folder.exists() else 'does not exist'}.",
            where=str(folder),
            fix="name the folder that holds the data with --data_root; `stilts prepare` fills it",
        )


def make_source(data_root: Path, settings: Settings) -> "DataSource":
    """Returns where the experiment's examples come from."""
    from stilts_jax.tasks.sources.read import DataSource

    check_data_root(data_root)
    return DataSource(
        root=data_root,
        kind=settings.data.source,
        per_task=settings.data.kinds,
        skip_budget=settings.data.skip_budget,
        pictures=settings.data.pictures,
    )


def open_context(
    settings: Settings,
    *,
    data_root: Path,
    workdir: Path,
    command: str,
    workdir_option: str = "--workdir",
    progress: "Progress | None" = None,
    trace: Path | None = None,
) -> "Context":
    """Makes what all phases share, and starts JAX."""
    import jax

    from stilts_jax.experiment.context import Context
    from stilts_jax.experiment.runtime import start_runtime
    from stilts_jax.progress import Progress

    source = make_source(data_root, settings)
    if trace is not None:
        make_folder(trace, "--trace")
    # A finished grid can be read where nothing can be written.
    make_folder(workdir, workdir_option, to_write=workdir_option == "--out")
    start_runtime(settings.compute)
    is_main = jax.process_index() == 0
    return Context(
        settings=settings,
        source=source,
        workdir=open_path(workdir),
        command=command,
        progress=progress or Progress(sys.stderr if is_main else None),
        is_main=is_main,
        trace=trace,
    )


def context_of(arguments: argparse.Namespace, settings: Settings) -> "Context":
    """Makes the context of a command that has ``add_config_arguments``."""
    return open_context(
        settings,
        data_root=arguments.data_root,
        workdir=arguments.workdir,
        command=arguments.command_line,
        trace=getattr(arguments, "trace", None),
    )
