"""Run a whole three-phase experiment on the embedded toy world: no data, no network, a few minutes.

Writes a small multilingual world of invented languages in the real release formats, pretrains a tiny XLM-R on it,
runs a grid of intermediate and target tasks, and writes the report page. Killed and typed again, it goes on where
it stopped. Results are toy results: they show that everything works, and nothing about real languages.
"""

import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any

from stilts_jax.checked import Range
from stilts_jax.commands.options import Add, open_phases
from stilts_jax.errors import ConfigError
from stilts_jax.files import local_path, make_folder
from stilts_jax.progress import SILENT, Progress
from stilts_jax.settings import SEEDS


def add_arguments(add: Add) -> None:
    add("--workdir", "where everything is written", type=local_path, default="stilts-demo")
    add("--size", choices=("test", "small", "full"), default="small")
    add("--seeds", "seeds of every phase; full has 2 by itself, else 1", type=Range(0, SEEDS.high), default=0)


def run(arguments: Namespace) -> int:
    make_folder(arguments.workdir, "--workdir", to_write=False)
    workdir, progress = arguments.workdir, arguments.progress
    world, encoder = workdir / "world", workdir / "encoder"
    for written in world.glob("*.json"):
        try:
            there = json.loads(written.read_text("utf-8"))["size"]
        except (ValueError, KeyError, TypeError) as error:
            what = "This file is damaged: it does not say of which size the world is."
            fix = "remove it, and its part of the world is written again; or take another --workdir"
            raise ConfigError(what, where=str(written), fix=fix) from error
        if there != arguments.size:
            what = f"There is a world of size {there!r} in this work directory."
            raise ConfigError(what, where=str(world), fix=f"take another --workdir, or --size={there}")
    progress.say("writing the toy world")
    untrained = f"random:{world / 'encoder'}"
    spec = f"toy:size={arguments.size},seeds={arguments.seeds},stage="
    with _helper(arguments, untrained, f"{spec}grid") as start_helper:
        # What takes seconds to import is imported while the second process writes.
        importlib.import_module("transformers.models.auto.tokenization_auto")
        from stilts_jax.experiment.grid import run_grid
        from stilts_jax.experiment.models import export_phase
        from stilts_jax.report import write_report

        write_part(world, "texts", arguments.size, progress)
        if not (encoder / "config.json").is_file():
            progress.say("phase 0: pretraining a tiny encoder on the toy languages")
            phases, context = _open(arguments, f"{spec}pretrain", untrained, "pretraining")
            if code := run_grid(phases, context):
                return code
            if not (encoder / "config.json").is_file():  # another demo in this folder may have been faster
                export_phase(context.folder(phases[-1]), encoder, None, "float32", progress)
        write_part(world, "tasks", arguments.size, progress)
        phases, context = _open(arguments, f"{spec}grid", str(encoder), "grid")
        start_helper()
        code = run_grid(phases, context)
    paths = write_report(workdir / "grid", distances=world / "languages.csv", progress=progress)
    print(f"{paths.summary}\nToy results, on invented languages. The whole report: {paths.html}")
    return code


def write_part(world: Path, part: str, size: Any, progress: Progress) -> None:
    """Writes the ``texts`` or the ``tasks`` of the world, unless they are written, or another process is at it."""
    from filelock import FileLock

    from stilts_jax.files import write_json
    from stilts_jax.toy.world import write_tasks, write_texts

    written = world / f"{part}.json"  # the last file of a part that is whole
    world.mkdir(exist_ok=True)
    with FileLock(world / f"{part}.lock"):
        if not written.is_file():
            {"texts": write_texts, "tasks": write_tasks}[part](world, size=size, progress=progress)
            write_json(written, {"size": size})


def _open(arguments: Namespace, spec: str, encoder: str, folder: str) -> tuple[Any, Any]:
    from stilts_jax.config import load_config, to_settings

    settings = to_settings(load_config(spec, {"encoder": encoder}))
    data_root = arguments.workdir / "world/data"
    return open_phases(settings, arguments, data_root=data_root, workdir=arguments.workdir / folder)


def help_out(
    stilts: Callable[[list[str]], int], world: str, size: str, untrained: str, targets: str, *command: str
) -> int:
    """What the second process does: all that needs no encoder, and the grid once a line says that there is one."""
    from stilts_jax import interruption

    told = interruption.end_with(sys.stdin)
    for part in ("texts", "tasks"):
        write_part(Path(world), part, size, SILENT)
    # Imports, and makes the features.
    before = [*command, f"--config.encoder={untrained}"]
    if code := stilts([*before, "--dry_run"]):
        return code
    # Then compiles for both processes, as far as there is time: a step of each training, thrown away.
    with redirect_stderr(io.StringIO()), tempfile.TemporaryDirectory() as scratch:
        before += [
            f"--workdir={scratch}",
            "--config.train.max_steps=1",
            "--config.evaluation.limit=100",
        ]
        for target in targets.split("+"):
            row = ["--config.experiment.intermediates=none", f"--config.experiment.targets={target}"]
            if not told.is_set() and (code := stilts([*before, *row])):
                return code
    told.wait()
    return stilts([*command])


_HELPER = """
import sys
from stilts_jax.host_memory import prepare_process
prepare_process()
from stilts_jax.commands.demo import help_out
from stilts_jax.main import main
sys.exit(help_out(main, *sys.argv[1:]))
"""


@contextmanager
def _helper(arguments: Namespace, untrained: str, spec: str) -> Iterator[Callable[[], None]]:
    """Runs the grid in a second process too, on a CPU of two cores: so small a model waits more for Python.

    Each process takes the phases that the other is not at work on, the second one the last rows first; what it says,
    the first one writes. Before, until what is yielded is called, it writes the world, prepares and compiles. Each
    has half of the cores: where both spread over all of them, a quarter of the time goes into waiting for each other.
    """
    import jax

    from stilts_jax.config import load_config
    from stilts_jax.distributed import initialize

    initialize()  # before JAX is asked for devices
    # macOS does not say on which cores a process may run.
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    half = len(cores) // 2
    _stay_on(cores[:half])  # before JAX starts a thread for each core that it may use
    if jax.default_backend() != "cpu" or (len(cores) or os.cpu_count() or 1) < 2:
        _stay_on(cores)
        yield lambda: None
        return
    workdir = arguments.workdir
    grid = load_config(spec).experiment
    work = [str(workdir / "world"), arguments.size, untrained, grid.targets, "grid", f"--config={spec}"]
    work += [f"--data_root={workdir / 'world/data'}", f"--workdir={workdir / 'grid'}"]
    work += [f"--config.encoder={workdir / 'encoder'}"]
    work += [f"--config.experiment.intermediates={'+'.join(reversed(grid.intermediates.split('+')))}"]
    streams: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    _stay_on(cores[half:])  # which the second process inherits
    with subprocess.Popen([sys.executable, "-c", _HELPER, *work], encoding="utf-8", **streams) as helper:
        _stay_on(cores[:half])

        def start() -> None:
            with suppress(BrokenPipeError):  # it has ended: this process does all of the work
                print(file=helper.stdin, flush=True)

        def relay() -> None:
            progress = Progress()  # without what stands before the lines of this process
            for line in helper.stderr or ():
                if line.startswith("[") and not ended.is_set():  # what is of no phase this process says
                    progress.say(line.rstrip())

        ended, speaker = threading.Event(), threading.Thread(target=relay, daemon=True)
        speaker.start()
        try:
            yield start
        finally:
            ended.set()
            helper.terminate()  # all is done, or this process was stopped: then the other one saves, too
            if helper.stdin:
                with suppress(BrokenPipeError):  # what was told to one that had ended
                    helper.stdin.close()
            speaker.join()
            _stay_on(cores)


def _stay_on(cores: list[int]) -> None:
    """Keeps this thread, and what it starts from now on, on ``cores``, if there are any."""
    if cores:
        with suppress(OSError):  # not everywhere a process may say so
            os.sched_setaffinity(0, cores)
