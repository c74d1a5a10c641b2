import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from stilts_jax.checkpoint import Checkpoints, digest_leaves
from stilts_jax.errors import EXIT_RUN_AGAIN, ConfigError, RunAgain, TrainingError
from stilts_jax.progress import Progress
from stilts_jax.train.logs import read_curve
from stilts_jax.train.loop import Run


def _labels(tiny):
    """One task in one form, so that there is little to compile."""
    return lambda step: tiny.batch_at(2 * step, tasks=("labels",))


def _lines(folder, name="metrics"):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def _steps(folder):
    return Checkpoints(folder / "checkpoints", read_only=True).steps()


class _Asking:
    """Batches that send a signal when a step is asked for."""

    def __init__(self, batch_at, steps, number=signal.SIGTERM):
        self.batch_at, self.steps, self.number = batch_at, dict.fromkeys(steps, 1), number

    def __call__(self, step):
        for _ in range(self.steps.pop(step, 0)):
            signal.raise_signal(self.number)  # os.kill may reach another thread first, and us late
        return self.batch_at(step)


def test_stopped_and_started_again_is_the_run_in_peace(tiny, tmp_path):
    peaceful = tiny.run(tmp_path / "a", steps=12, batch=_labels(tiny))
    before = signal.getsignal(signal.SIGTERM)
    asking = _Asking(_labels(tiny), [2, 5, 11])  # step 6 and 12 are evaluated
    for step in (3, 6, 12):
        with pytest.raises(RunAgain, match=f"SIGTERM after step {step};") as caught:
            tiny.run(tmp_path / "b", steps=12, batch=asking)
        assert caught.value.exit_code == EXIT_RUN_AGAIN
        assert _steps(tmp_path / "b")[-1] == step
    stopped = tiny.run(tmp_path / "b", steps=12, batch=asking)
    assert signal.getsignal(signal.SIGTERM) is before
    assert digest_leaves(stopped.params) == digest_leaves(peaceful.params)
    assert stopped.history == peaceful.history and stopped.step == peaceful.step
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (tmp_path / "b/metrics.jsonl").read_bytes()
    assert stopped.work.steps == peaceful.work.steps == 12
    again = tiny.run(tmp_path / "b", steps=12, batch=asking)  # a finished run is only read
    assert digest_leaves(again.params) == digest_leaves(peaceful.params) and again.work.compilations == 3


def test_a_second_ctrl_c_stops_at_once(tiny, tmp_path):
    asking = _Asking(_labels(tiny), [1], signal.SIGINT)
    asking.steps[1] = 2
    with pytest.raises(KeyboardInterrupt):
        tiny.run(tmp_path, steps=12, batch=asking)
    assert _steps(tmp_path) == []


def test_the_logs(tiny, tmp_path):
    result = tiny.run(tmp_path, steps=7, batch=_labels(tiny), log_every=2)
    lines = _lines(tmp_path)
    assert [line["step"] for line in lines] == [0, 2, 4, 6, 6, 7]
    assert [list(line) for line in lines if "score" in line] == [["step", "score"]] * 2
    training = [line for line in lines if "loss" in line]
    assert all(
        line.keys() == {"step", "task", "loss", "grad_norm", "learning_rate", "weight"} for line in training
    )
    assert result.curve == read_curve(tmp_path) == [[line["step"], line["loss"]] for line in training]
    timings = _lines(tmp_path, "timings")
    assert [line["step"] for line in timings] == [0, 2, 4, 6] and timings[-1]["compilations"] == 1
    assert timings[-1]["padding_share"] == pytest.approx(1 / 6)
    assert result.work.examples == 56 and result.work.compilations == 1


def test_a_loss_that_is_not_finite_names_its_rows(tiny, tmp_path):
    def batch_at(step):
        batch = _labels(tiny)(step)
        if step == 5:
            batch.arrays["weight"][0] = np.inf
            batch.rows[-1] = -1
        return batch

    with pytest.raises(TrainingError, match="not finite") as caught:
        tiny.run(tmp_path, steps=12, batch=batch_at)
    assert caught.value.where == "step 5, task labels, rows 80, 81, 82, 83, 84, 85, 86"
    assert "after step 4" in caught.value.fix and _steps(tmp_path) == [4]

    spared = tiny.run(tmp_path, steps=12, batch=batch_at, max_skipped=1)
    assert spared.skipped == (5,)
    assert [line["loss"] for line in _lines(tmp_path) if line["step"] == 5] == [None]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(spared.params))


@pytest.mark.slow
def test_the_best_step_is_what_comes_back(tiny, tmp_path):
    asked = []

    def score(params):
        asked.append(jax.tree.map(np.array, params))
        return [1.0, 3.0, 2.0, 2.5, 2.9][len(asked) - 1]

    rest = {"steps": 20, "evaluate_every": 2, "patience": 2, "save_every": 3, "select": score}
    result = tiny.run(tmp_path, batch=_labels(tiny), **rest)
    assert result.history == [[2, 1.0], [4, 3.0], [6, 2.0], [8, 2.5]]  # and no fifth evaluation
    assert result.step == 4
    assert jax.tree.all(jax.tree.map(np.array_equal, result.params, asked[1]))
    assert _steps(tmp_path) == [4, 6, 8]
    again = tiny.run(tmp_path, batch=_labels(tiny), **rest)
    assert len(asked) == 4 and again.step == 4
    assert digest_leaves(again.params) == digest_leaves(result.params)


@pytest.mark.slow
def test_damage_is_passed_over_and_made_good(tiny, tmp_path):
    peaceful = tiny.run(tmp_path / "a", steps=12, batch=_labels(tiny))
    with pytest.raises(RunAgain):
        tiny.run(tmp_path / "b", steps=12, batch=_Asking(_labels(tiny), [9]))
    newest = tmp_path / "b/checkpoints/10"
    for path in newest.rglob("params/**/d/*"):
        data = bytearray(path.read_bytes())
        data[-3] ^= 8
        path.write_bytes(data)
    result = tiny.run(tmp_path / "b", steps=12, batch=_labels(tiny))
    assert (tmp_path / "b/damaged/10").is_dir()
    assert digest_leaves(result.params) == digest_leaves(peaceful.params)
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (tmp_path / "b/metrics.jsonl").read_bytes()


def test_running_out_of_memory_names_what_helps(tiny, tmp_path):
    def full(step):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")

    with pytest.raises(TrainingError, match="memory ran out") as caught:
        tiny.run(tmp_path, steps=2, batch=full)
    assert all(name in caught.value.fix for name in ("accumulation", "remat", "max_length", "bfloat16"))


def test_an_unknown_task_is_named(tiny, tmp_path):
    with pytest.raises(ConfigError, match="no loss for task 'label'") as caught:
        tiny.run(tmp_path, steps=2, batch=lambda step: tiny.batch_at(step, tasks=("label",)))
    assert "'labels'" in caught.value.fix


def test_what_the_loop_says(tiny, tmp_path, monkeypatch):
    heard = io.StringIO()
    with pytest.raises(RunAgain):
        tiny.run(tmp_path, steps=4, batch=_Asking(_labels(tiny), [1]))
    (tmp_path / "metrics.jsonl").write_text("")
    monkeypatch.setattr(Run, "_announced", False)
    monkeypatch.setattr("stilts_jax.progress._WORTH_A_LINE", 0.0)
    tiny.run(tmp_path, steps=4, batch=_labels(tiny), progress=Progress(heard))
    assert "going on after step 2" in heard.getvalue() and "not what it was" in heard.getvalue()
    if Path("/proc/self/stat").exists():
        assert (
            len(re.findall(r"first step .+ after the command; it compiled for [\d.]+ s", heard.getvalue()))
            == 1
        )
    assert re.search(r"training: 4/4 steps .+, loss=[\d.]+, examples/s=[\d.]+", heard.getvalue())


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"accumulation": 0}, {"log_every": 0}])
def test_settings_out_of_range_are_refused(tiny, tmp_path, wrong):
    with pytest.raises(ConfigError, match="out of range"):
        tiny.run(tmp_path, **wrong)


@pytest.mark.parametrize(
    ("name", "value", "what", "fix"),
    [
        ("tokens", 64, "token ids", "tokenizer"),
        ("tokens", -1, "token ids", "tokenizer"),
        ("label", 7, "labels", "numbered from 0"),
    ],
)
def test_ids_and_labels_out_of_range_are_named_before_the_step(tiny, tmp_path, name, value, what, fix):
    def batch_at(step):
        batch = _labels(tiny)(step)
        batch.arrays[name][(1,) * batch.arrays[name].ndim] = value
        return batch

    with pytest.raises(TrainingError) as caught:
        tiny.run(tmp_path, steps=4, batch=batch_at)
    assert what in caught.value.what and str(value) in caught.value.what
    assert name in caught.value.where and ", first at 1" in caught.value.where
    assert fix in caught.value.fix


@pytest.mark.slow
def test_killed_at_three_points_is_the_run_in_peace():
    script = Path(__file__).parents[1] / "long" / "kill_training.py"
    command = [sys.executable, str(script), "--points", "3", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills in" in done.stdout and "equal byte for byte" in done.stdout
