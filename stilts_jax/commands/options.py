"""Arguments that several commands share, and what they make."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stilts_jax.config import load_config, to_settings
from stilts_jax.data.sources import DataSource
from stilts_jax.errors import ConfigError
from stilts_jax.experiment.settings import Settings, split_pairs

if TYPE_CHECKING:
    from stilts_jax.experiment.context import Context


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
        "--workdir", type=Path, required=True, help="where runs, results and reports are kept"
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """``--data_root``."""
    parser.add_argument("--data_root", type=Path, required=True, help="the folder that holds the data")


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Returns the checked settings behind ``--config``."""
    return to_settings(load_config(arguments.config, arguments.overrides))


def make_source(data_root: Path, settings: Settings) -> DataSource:
    """Returns where the experiment's examples come from."""
    if not data_root.is_dir():
        raise ConfigError(
            "The data root does not exist.",
            where=str(data_root),
            fix="name the folder with --data_root; `stilts prepare` fills it",
        )
    return DataSource(
        root=data_root,
        kind=settings.data.source,
        per_task=split_pairs(settings.data.sources, "config.data.sources"),
        skip_budget=settings.data.skip_budget,
    )


def open_context(arguments: argparse.Namespace, settings: Settings) -> "Context":
    """Makes what all phases share, and starts JAX."""
    import jax

    from stilts_jax.experiment.context import Context
    from stilts_jax.experiment.runtime import start_runtime
    from stilts_jax.progress import Progress

    source = make_source(arguments.data_root, settings)
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    start_runtime(settings.compute)
    return Context(
        settings=settings,
        source=source,
        workdir=arguments.workdir,
        command=arguments.command_line,
        progress=Progress(),
        is_main=jax.process_index() == 0,
        trace=getattr(arguments, "trace", None),
    )
