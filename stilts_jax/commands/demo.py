"""Run a whole three-phase experiment on the embedded toy world: no data, no network, a few minutes.

Writes a small multilingual world of invented languages in the real release formats, pretrains a tiny XLM-R on it,
runs a grid of intermediate and target tasks, and writes the report page. Killed and typed again, it goes on where
it stopped. Results are toy results: they show that everything works, and nothing about real languages.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stilts_jax.files import local_path, make_folder
from stilts_jax.settings import SEEDS, Range

if TYPE_CHECKING:
    from stilts_jax.progress import Progress
    from stilts_jax.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "--workdir", type=local_path, default="stilts-demo", help="where everything is written"
    )
    parser.add_argument("--size", choices=("test", "small", "full"), default="small")
    parser.add_argument(
        "--seeds",
        type=Range(0, SEEDS.high),
        default=0,
        help="seeds of every phase; full has 2 by itself, else 1",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from stilts_jax.experiment.models import export_phase
    from stilts_jax.files import write_json
    from stilts_jax.progress import Progress
    from stilts_jax.report import summary_text, write_report
    from stilts_jax.toy.world import write_world

    make_folder(arguments.workdir, "--workdir", to_write=False)
    workdir, size, progress = arguments.workdir, arguments.size, Progress()
    world, encoder, grid = workdir / "world", workdir / "encoder", workdir / "grid"
    written = world / "written.json"  # the world is written first, whole, and never again
    if not written.is_file():
        write_world(world, size=size, progress=progress)
        write_json(written, {"size": size})
    _check_size(written, size)
    if not (encoder / "config.json").is_file():
        progress.say("phase 0: pretraining a tiny encoder on the toy languages")
        pretraining = _settings(arguments, "pretrain", f"random:{world / 'encoder'}")
        code, folders = _run(arguments, pretraining, workdir / "pretraining", progress)
        if code:
            return code
        export_phase(folders[-1], encoder, progress=progress)
    code, _ = _run(arguments, _settings(arguments, "grid", str(encoder)), grid, progress)
    paths = write_report(grid, distances=world / "languages.csv", progress=progress)
    print(summary_text(grid))
    print(f"\nToy results, on invented languages. The whole report: {paths.html}")
    return code


def _settings(arguments: argparse.Namespace, stage: str, encoder: str) -> "Settings":
    from stilts_jax.config import load_config, to_settings

    spec = f"toy:stage={stage},size={arguments.size},seeds={arguments.seeds}"
    return to_settings(load_config(spec, {"encoder": encoder}))


def _run(
    arguments: argparse.Namespace, settings: "Settings", workdir: Path, progress: "Progress"
) -> tuple[int, list[Path]]:
    """Runs all phases of ``settings``; returns the exit code and the phases' folders."""
    from stilts_jax.commands.options import open_context
    from stilts_jax.experiment.grid import run_grid
    from stilts_jax.experiment.needs import check_data
    from stilts_jax.experiment.phases import list_phases
    from stilts_jax.tasks import get_task

    phases = list_phases(settings, get_task)
    context = open_context(
        settings,
        data_root=arguments.workdir / "world" / "data",
        workdir=workdir,
        command=arguments.command_line,
        progress=progress,
    )
    check_data(phases, context)
    return run_grid(phases, context), [context.folder(phase) for phase in phases]


def _check_size(written: Path, size: str) -> None:
    import json

    from stilts_jax.errors import ConfigError

    there = json.loads(written.read_text("utf-8"))["size"]
    if there != size:
        raise ConfigError(
            f"There is a world of size {there!r} in this work directory.",
            where=str(written.parent),
            fix=f"take another --workdir, or --size={there}",
        )
