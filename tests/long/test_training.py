"""Training that takes many steps or compilations: the best step, kills, the phase's vocabulary, axes of any
name, and a profile.
"""

import io
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import stilts_jax as sj
from stilts_jax.batches.plan import TrainingBatches
from stilts_jax.checkpoint import digest_leaves
from stilts_jax.progress import Progress
from stilts_jax.train.logs import profile_steps
from stilts_jax.train.optimizer import OptimizerConfig, make_optimizer
from stilts_jax.train.vocabulary import PhaseVocabulary
from tests.batches.test_plan import make_features
from tests.train import tiny_world as tiny
from tests.train.test_any_batch_any_mesh import BATCH, KEY, MODEL, TX, step
from tests.train.test_loop import labels, steps
from tests.train.test_vocabulary import make_batches, train

pytestmark = pytest.mark.slow
STEPS = 200


def test_the_best_step_is_what_comes_back(tmp_path):
    asked = []

    def score(params):
        asked.append(jax.tree.map(np.array, params))
        return [1.0, 3.0, 2.0, 2.5, 2.9][len(asked) - 1]

    rest = {"steps": 20, "eval_every": 2, "patience": 2, "checkpoint_every": 3, "select": score}
    result = tiny.run(tmp_path, batch=labels, **rest)
    assert result.history == [[2, 1.0], [4, 3.0], [6, 2.0], [8, 2.5]]  # and no fifth evaluation
    assert result.step == 4
    assert jax.tree.all(jax.tree.map(np.array_equal, result.params, asked[1]))
    assert steps(tmp_path) == [4, 6, 8]
    again = tiny.run(tmp_path, batch=labels, **rest)
    assert len(asked) == 4 and again.step == 4
    assert digest_leaves(again.params) == digest_leaves(result.params)


def test_arrays_lie_on_disk_as_they_are(tmp_path):
    """To unpack them would take most of the time that reading takes."""
    with sj.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"params": {"kernel": np.zeros(10**6, np.float32)}}, {})
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) > 4 * 10**6


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_rows_of_a_rare_label_do_not_fill_a_batch(alpha):
    """Sorted by length over many batches, what is drawn again and again would lie side by side."""
    features = make_features(np.random.default_rng(0).integers(4, 60, 2000))
    features.columns["label"][:] = np.arange(2000) < 40
    batches = TrainingBatches(
        "t", features, batch_size=8, seed=7, max_length=64, window=32, label_alpha=alpha
    )
    copies = [np.unique(batches.batch_at(step).rows, return_counts=True)[1].max() for step in range(200)]
    assert max(copies) <= 2  # where an epoch of the label ends, and the next one begins


def test_within_another_transformation_the_recipe_clips_what_it_gets():
    config = OptimizerConfig(learning_rate=1e-3, total_steps=10, warmup=0.0)
    tx = optax.chain(optax.clip_by_global_norm(0.01), make_optimizer(config))
    loss = tiny.without_dropout(tiny.label_loss)
    state = sj.TrainState.create(tiny.make_params(), tx)
    state, metrics = sj.train_step(state, tiny.batch_at(0).arrays, loss_fn=loss, tx=tx, key=jax.random.key(0))
    moments = optax.global_norm(
        [part["mu"] for part in (state.moments[1]["encoder"], *state.moments[1]["heads"].values())]
    )
    assert metrics["grad_norm"] > 0.01
    np.testing.assert_allclose(moments, 0.01 * (1 - config.beta1), rtol=1e-4)


def test_where_files_cannot_be_locked_a_killed_run_is_not_locked_for_ever(tmp_path):
    """Lustre, unless it is told otherwise: filelock keeps in its file by what it knows a dead process."""
    hold = """
import errno, fcntl, sys
def refuse(*_):
    raise OSError(errno.ENOSYS, "no locks here")
fcntl.flock = refuse
from stilts_jax.checkpoint import lock_run
with lock_run(sys.argv[1]):
    print("held", flush=True)
    if len(sys.argv) > 2:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-W", "ignore", "-c", hold, str(tmp_path)]
    assert subprocess.run([*command, "die"], capture_output=True, text=True, check=False).returncode == -9
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.stdout == "held\n", again.stderr


def test_killed_at_three_points_is_the_run_in_peace():
    script = Path(__file__).with_name("kill_training.py")
    command = [sys.executable, str(script), "--points", "3", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills in" in done.stdout and "equal byte for byte" in done.stdout


def test_two_hundred_steps_in_float64():
    optimizer = OptimizerConfig(learning_rate=2e-3, total_steps=STEPS, weight_decay=0.1, layer_decay=0.9)
    batches = make_batches(tiny, STEPS)
    vocabulary = PhaseVocabulary.from_tokens((b["tokens"] for b in batches), tiny.VOCABULARY, multiple=8)
    assert len(vocabulary) < tiny.VOCABULARY - 8
    with jax.enable_x64(True):
        params = tiny.make_params(dtype=np.float64)
        plain, *expected = train(tiny, params, batches, optimizer, tiny.label_loss)
        fewer = [batch | {"tokens": vocabulary.lookup[batch["tokens"]]} for batch in batches]
        small, *found = train(tiny, vocabulary.shrink(params), fewer, optimizer, tiny.label_loss)
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        original = params["encoder"]["embeddings"]["word"]
        restored = vocabulary.restore(small.params, original, optimizer=optimizer, steps=STEPS)
        for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(plain.params), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)
    untouched = np.setdiff1d(np.arange(tiny.VOCABULARY), vocabulary.ids)
    tables = (plain.params["encoder"]["embeddings"]["word"], original)
    rows, before = (np.asarray(table)[untouched] for table in tables)
    # The product written out once more, over the schedule as the docs describe it: 20 steps up, 180 down.
    rates = [2e-3 * (s / 20 if s < 20 else (200 - s) / 180) * 0.9**3 for s in range(STEPS)]
    np.testing.assert_allclose(rows, before * np.prod([1 - rate * 0.1 for rate in rates]), rtol=1e-12)
    assert np.abs(rows / before - 1).min() > 1e-3  # the decay is not nothing


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_axes_of_any_name_and_type(kind):
    mesh = jax.make_mesh((1,), ("mine",), axis_types=(kind,))
    rules = [(r"ffn/up/kernel", P(None, None, "mine")), *sj.RULES]
    state = sj.init_state(MODEL, TX, KEY, mesh=mesh, rules=rules)
    batch = jax.device_put(BATCH, NamedSharding(mesh, P("mine")))
    moved, metrics = jax.jit(step)(state, batch)
    assert moved.params["encoder"]["layers"]["ffn"]["up"]["kernel"].sharding.mesh.axis_names == ("mine",)
    plain, expected = jax.jit(step)(sj.init_state(MODEL, TX, KEY), BATCH)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(moved.params), jax.tree.leaves(plain.params)):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("taken", "profiled"), [(4, 2), (30, 10)])
def test_a_profile_that_viewers_open(taken, profiled, tmp_path):
    said, folder = io.StringIO(), tmp_path / "trace"
    with profile_steps(folder, taken, Progress(said)) as mark_step:
        for step in range(taken):
            mark_step()
            assert float(jax.numpy.ones(step + 1).sum()) == step + 1
    assert said.getvalue() == f"a profile of {profiled} steps is in {folder}\n"
    assert list(folder.rglob("*.xplane.pb"))  # what TensorBoard reads
    assert list(folder.rglob("*.trace.json.gz"))  # what Perfetto reads
