"""SIGTERM and Ctrl-C at named moments of a grid: none is lost, and what comes out in the end is the same."""

import pkgutil
import signal
from pathlib import Path

import jax
import pytest

from stilts_jax import bench, interruption, main
from stilts_jax.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_RUN_AGAIN
from stilts_jax.train import loop
from tests.typed import results

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("usual_handlers")]

ROOM = "stilts_jax.experiment"
# Functions in the order in which a grid of two phases calls them; at the first call of each the signal is sent.
MOMENTS = (
    "stilts_jax.config.load_config",
    f"{ROOM}.context.read_counted",
    f"{ROOM}.context.build_features",
    f"{ROOM}.models.init_encoder",
    f"{ROOM}.train.init_state",
    "stilts_jax.train.loop.train_step",  # called by JAX while it traces
    "stilts_jax.train.loop.shard_batch",
    f"{ROOM}.evaluate.evaluate_task",
    "stilts_jax.checkpoint.Checkpoints.save",
    f"{ROOM}.models.save_final",
    f"{ROOM}.evaluate.evaluate_task",
    "stilts_jax.evaluation.predict._take_in",
    f"{ROOM}.grid._free_disk",
    f"{ROOM}.evaluate.evaluate_retrieval",
    "stilts_jax.evaluation.retrieval.predict",
    "stilts_jax.report.summary_text",
)


@pytest.fixture(autouse=True)
def unchanged_jax():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def send_at(patch: pytest.MonkeyPatch, moment: str, number: int, swallowed: bool) -> list[int]:
    """Sends a signal at the first call of a function; returns where to see afterwards that it was sent."""
    place, _, name = moment.rpartition(".")
    owner = pkgutil.resolve_name(place)
    function, sent = getattr(owner, name), []

    def called(*arguments, **options):
        if not sent:
            sent.append(number)
            try:
                signal.raise_signal(number)
            except BaseException:
                if not swallowed:
                    raise
        return function(*arguments, **options)

    patch.setattr(owner, name, called)
    return sent


def outcome(workdir: Path) -> dict[str, tuple]:
    found = {}
    for name, result in results(workdir).items():
        metrics = result["folder"] / "metrics.jsonl"
        lines = metrics.read_bytes() if metrics.exists() else b""
        found[name] = (result["scores"], result["items"], result["error"], lines)
    return found


@pytest.fixture(scope="module")
def grid(world: Path):
    return [
        *("grid", "--config=toy:size=test", f"--data_root={world}/data"),
        *(f"--config.encoder=random:{world}/encoder", "--config.experiment.targets=udpos+tatoeba"),
        *("--config.experiment.intermediates=none", "--config.train.max_steps=6", "--config.train.buckets=1"),
        *("--config.train.eval_every=3", "--config.train.eval_examples=16", "--config.evaluation.limit=16"),
        *("--config.train.log_every=1", "--config.train.checkpoint_every=1"),
    ]


@pytest.fixture(scope="module")
def peaceful(grid, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("peaceful")
    assert main.main([*grid, f"--workdir={workdir}"]) == EXIT_OK
    return outcome(workdir)


@pytest.mark.parametrize(
    ("number", "code", "swallowed"),
    [(signal.SIGTERM, EXIT_RUN_AGAIN, True), (signal.SIGINT, EXIT_INTERRUPTED, False)],
    ids=["SIGTERM, swallowed", "Ctrl-C, raised"],
)
def test_a_grid_that_is_stopped_at_every_moment_ends_as_one_in_peace(
    grid, peaceful, tmp_path, capsys, number, code, swallowed
):
    for moment in MOMENTS:
        with pytest.MonkeyPatch.context() as patch:
            sent = send_at(patch, moment, number, swallowed)
            loop._compile.cache_clear()  # a step that this process has compiled is not traced again
            found = main.main([*grid, f"--workdir={tmp_path}"])
        assert sent, f"{moment} was not called"
        assert found == code, f"lost at {moment}"
        assert "run the same command again" in capsys.readouterr().err, moment
    assert main.main([*grid, f"--workdir={tmp_path}"]) == EXIT_OK
    assert outcome(tmp_path) == peaceful


def test_a_benchmark_stops_before_the_next_step_where_a_signal_came_below_jax(monkeypatch):
    asked, taken = interruption._asked, []  # SIGTERM is 15
    monkeypatch.setattr(bench.Run, "take_step", lambda _, batch: (asked.append(15), taken.append(batch)))
    options = "--shape=tiny --rows=8 --config.train.batch_size=8 --config.train.max_length=16"
    assert main.main(["bench", *options.split()]) == 75
    assert [batch.arrays["tokens"].shape for batch in taken] == [(8, 16)]
