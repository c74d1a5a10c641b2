import json
import signal
import sys
import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from stilts_jax.checkpoint import Checkpoints, digest_leaves
from stilts_jax.errors import EXIT_RUN_AGAIN, CheckpointError, RunAgain, TrainingError, describe
from stilts_jax.train import loop
from stilts_jax.train.logs import JsonLines, Work, count_rows
from tests.train import tiny_world


def labels(step):
    """A batch of one task in one form, so that there is little to compile."""
    return tiny_world.batch_at(2 * step, tasks=("labels",))


def _lines(folder, name="metrics"):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def steps(folder):
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
    peaceful = tiny.run(tmp_path / "a", steps=12, batch=labels)
    before = signal.getsignal(signal.SIGTERM)
    asking = _Asking(labels, [2, 5, 11])  # step 6 and 12 are evaluated
    for step in (3, 6, 12):
        with pytest.raises(RunAgain, match=f"SIGTERM after step {step};") as caught:
            tiny.run(tmp_path / "b", steps=12, batch=asking)
        assert caught.value.exit_code == EXIT_RUN_AGAIN
        assert steps(tmp_path / "b")[-1] == step
    stopped = tiny.run(tmp_path / "b", steps=12, batch=asking)
    assert signal.getsignal(signal.SIGTERM) is before
    assert digest_leaves(stopped.params) == digest_leaves(peaceful.params)
    assert stopped.history == peaceful.history and stopped.step == peaceful.step
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (tmp_path / "b/metrics.jsonl").read_bytes()
    assert stopped.work.steps == peaceful.work.steps == 12
    again = tiny.run(tmp_path / "b", steps=12, batch=asking)  # a finished run is only read
    assert digest_leaves(again.params) == digest_leaves(peaceful.params) and again.work.compilations == 3


def test_a_second_ctrl_c_stops_at_once(tiny, tmp_path):
    asking = _Asking(labels, [1], signal.SIGINT)
    asking.steps[1] = 2
    with pytest.raises(KeyboardInterrupt):
        tiny.run(tmp_path, steps=12, batch=asking)
    assert steps(tmp_path) == []


def test_the_logs(tiny, tmp_path):
    result = tiny.run(tmp_path, steps=7, batch=labels, log_every=2)
    lines = _lines(tmp_path)
    assert [line["step"] for line in lines] == [0, 2, 4, 6, 6, 7]
    assert [list(line) for line in lines if "score" in line] == [["step", "score"]] * 2
    training = [line for line in lines if "loss" in line]
    assert all({*one} == {"step", "task", "loss", "grad_norm", "learning_rate", "weight"} for one in training)
    assert result.curve == [[line["step"], line["loss"]] for line in training]
    timings = _lines(tmp_path, "timings")
    assert [line["step"] for line in timings] == [0, 2, 4, 6] and timings[-1]["compilations"] == 1
    assert timings[-1]["padding_share"] == pytest.approx(1 / 6)
    assert result.work.examples == 56 and result.work.compilations == 1


def test_runs_of_other_lengths_or_heads_share_a_step_and_keep_their_rates(tiny, tmp_path, monkeypatch):
    alone = tiny.make_params()
    del alone["heads"]["mlm"]
    for count in (4, 5):  # of which the first step warms up
        made = loop._compile.cache_info().misses
        tiny.run(tmp_path / str(count), steps=count, batch=labels)
        rates = [line["learning_rate"] for line in _lines(tmp_path / str(count)) if "loss" in line]
        assert rates == pytest.approx([0.0, *np.linspace(1e-2, 0, count)[:-1]])
        monkeypatch.setattr(tiny, "make_params", lambda: alone)
        monkeypatch.setattr(tiny, "LOSSES", {"labels": tiny.label_loss})  # now without the other task
    assert loop._compile.cache_info().misses == made


def test_tensorboard_shows_every_step_once(tiny, tmp_path, monkeypatch):
    shown, launches, threads, alive = [], [], [], threading.Event()

    def writer(folder, purge_step, max_queue):
        assert max_queue == 0  # or a number would wait for a thread that has ended
        threads.append(threading.Thread(target=alive.wait, daemon=True))
        threads[-1].start()
        launches.append(folder)
        shown[:] = [point for point in shown if point[2] < purge_step]  # as TensorBoard hides them
        add = lambda *point: shown.append(point)  # noqa: E731
        inner = SimpleNamespace(event_writer=SimpleNamespace(_worker=threads[-1]))
        return SimpleNamespace(add_scalar=add, file_writer=inner, flush=lambda: None, close=lambda: None)

    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=writer))
    batch = _Asking(labels, [5, 8])  # step 6 is evaluated
    batch.steps[8] = "killed"
    for error in (RunAgain, TypeError):
        with pytest.raises(error):
            tiny.run(tmp_path, steps=9, batch=batch, tensorboard=True)
    tiny.run(tmp_path, steps=9, batch=batch, tensorboard=True)
    lines, names = _lines(tmp_path), ("step", "task")
    assert shown == [(name, line[name], line["step"]) for line in lines for name in line if name not in names]
    assert launches == [f"{tmp_path}/tensorboard"] * 3
    batch.batch_at = lambda step: (alive.set(), threads[-1].join(), labels(step))[-1]  # the disk is full
    with pytest.raises(CheckpointError, match="TensorBoard's files are no longer written"):
        tiny.run(tmp_path / "full", steps=9, batch=batch, tensorboard=True)


def test_a_step_that_an_evaluation_waits_for_counts_as_training(tiny, tmp_path, monkeypatch):
    def wait(tree, get=jax.device_get):
        time.sleep(0.02 * isinstance(tree, dict))  # as long as the device is at work on the step
        return get(tree)

    monkeypatch.setattr(jax, "device_get", wait)
    result = tiny.run(tmp_path, steps=12, batch=labels, eval_every=1, select=lambda params: 0.0)
    assert result.work.seconds > 12 * 0.02


def test_a_loss_that_is_not_finite_names_its_rows(tiny, tmp_path):
    def batch_at(step):
        batch = labels(step)
        if step == 5:
            batch.arrays["weight"][0] = np.inf
            batch.rows[-1] = -1
        return batch

    with pytest.raises(TrainingError, match="not finite") as caught:
        tiny.run(tmp_path, steps=12, batch=batch_at)
    assert caught.value.where == "step 5, task labels, rows 80, 81, 82, 83, 84, 85, 86"
    assert "after step 4" in caught.value.fix and steps(tmp_path) == [4]

    spared = tiny.run(tmp_path, steps=12, batch=batch_at, skip_non_finite=1)
    assert spared.skipped == (5,)
    assert [line["loss"] for line in _lines(tmp_path) if line["step"] == 5] == [None]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(spared.params))


def test_running_out_of_memory_names_what_helps():
    on_device = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")
    for said in map(describe, (on_device, MemoryError("Unable to allocate 9 GiB"), MemoryError())):
        assert all(name in said for name in ("memory ran out", "accumulation", "remat", "bfloat16"))


@pytest.mark.parametrize(
    ("name", "value", "what", "fix"),
    [("tokens", 64, "token ids", "tokenizer"), ("label", 7, "labels", "numbered from 0")],
)
def test_ids_and_labels_out_of_range_are_named_before_the_step(tiny, tmp_path, name, value, what, fix):
    def batch_at(step):
        batch = labels(step)
        batch.arrays[name][(1,) * batch.arrays[name].ndim] = value
        return batch

    with pytest.raises(TrainingError) as caught:
        tiny.run(tmp_path, steps=4, batch=batch_at)
    assert what in caught.value.what and str(value) in caught.value.what
    assert name in caught.value.where and ", first at 1" in caught.value.where
    assert fix in caught.value.fix


@pytest.mark.parametrize("remote", [False, True])
def test_lines_are_cut_back_and_written_on(tmp_path, remote, monkeypatch):
    # In an object store a file is written whole.
    monkeypatch.setattr("stilts_jax.train.logs.is_remote", lambda path: remote)
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path)
    log.write({"step": 0})
    size, digest = log.sync(), log.digest()
    log.write({"step": 1, "text": "ü"})
    log.sync()
    with open(path, "ab") as file:
        file.write(b'{"step": 2, "lo')  # torn by a kill
    log = JsonLines(path)
    log.cut(size)
    assert log.digest() == digest
    log.write({"step": 1})
    log.sync()
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n'
    path.write_text('{"step": 7}\n{"step": 1}\n')
    log = JsonLines(path)
    log.cut(size)
    assert log.digest() != digest


def test_padding_and_filler_rows_are_not_real_tokens():
    tokens = np.array([[0, 5, 2, 1], [0, 5, 6, 2], [0, 5, 6, 2]])
    arrays = {"tokens": tokens, "pair_tokens": np.array([[0, 1], [0, 2], [0, 2]])}
    rows = np.array([7, 3, -1])
    assert count_rows(arrays, rows) == Work(examples=2, tokens=18, real_tokens=10)
    assert count_rows({"tokens": tokens[:, None, :]}, rows) == Work(examples=2, tokens=12, real_tokens=7)


def test_utilisation_is_counted_on_real_tokens(monkeypatch):
    work = Work(steps=2, examples=6, tokens=100, real_tokens=80, seconds=0.5) + Work(compilations=1)
    assert work.compilations == 1
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(device_kind="NVIDIA H200")])
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    rates = work.rates(flops_per_token=1e9)
    assert rates["examples_per_second"] == 12 and rates["real_tokens_per_second"] == 160
    assert rates["padding_share"] == pytest.approx(0.2)
    assert rates["mfu"] == pytest.approx(160 * 1e9 / 989e12)
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(device_kind="cpu")])
    assert "mfu" not in work.rates(flops_per_token=1e9)
