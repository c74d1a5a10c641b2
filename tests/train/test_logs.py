import io
import math
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stilts_jax.errors import ConfigError
from stilts_jax.progress import Progress
from stilts_jax.train.logs import (
    JsonLines,
    Work,
    best_step,
    count_rows,
    is_out_of_patience,
    open_board,
    profile_steps,
)


@pytest.mark.parametrize("remote", [False, True])
def test_lines_are_cut_back_and_written_on(tmp_path, remote, monkeypatch):
    monkeypatch.setattr(
        "stilts_jax.train.logs.is_remote", lambda path: remote
    )  # there a file is written whole
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


def test_other_hosts_write_nothing(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl", enabled=False)
    log.write({"step": 0})
    log.cut(99)
    assert log.sync() == 0 and log.digest() == ""
    assert not (tmp_path / "metrics.jsonl").exists()


def test_padding_and_filler_rows_are_not_real_tokens():
    tokens = np.array([[0, 5, 2, 1], [0, 5, 6, 2], [0, 5, 6, 2]])
    arrays = {
        "tokens": tokens,
        "weight": np.array([1, 1, 0]),
        "pair_tokens": np.array([[0, 1], [0, 2], [0, 2]]),
    }
    rows = np.array([7, 3, -1])
    assert count_rows(arrays, rows, 1) == Work(examples=2, tokens=18, real_tokens=10)
    assert count_rows({"tokens": tokens[:, None, :]}, rows, 1) == Work(examples=2, tokens=12, real_tokens=11)


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


def test_tensorboard_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        open_board(tmp_path)
    assert "tensorboardX" in caught.value.fix


def test_the_first_of_equal_scores_is_the_best():
    assert best_step([[10, 0.5], [20, 0.7], [30, 0.7]]) == 20
    assert best_step([[10, math.nan], [20, -3.0]]) == 20
    assert best_step([]) is None and best_step([[10, math.nan]]) is None


@pytest.mark.parametrize(
    ("scores", "patience", "expected"),
    [
        ([1, 2, 2, 2], 2, True),
        ([1, 2, 2], 2, False),
        ([1, 2, 1, 3], 2, False),
        ([3, 2, 1], 0, False),
        ([math.nan, math.nan], 2, True),
        ([], 1, False),
    ],
)
def test_patience_counts_evaluations_without_a_gain(scores, patience, expected):
    history = [[10 * (number + 1), score] for number, score in enumerate(scores)]
    assert is_out_of_patience(history, patience) is expected


@pytest.mark.parametrize(("steps", "profiled"), [(4, 2), (30, 10)])
def test_a_profile_that_viewers_open(steps, profiled, tmp_path):
    said, folder = io.StringIO(), tmp_path / "trace"
    with profile_steps(folder, steps, Progress(said)) as mark_step:
        for step in range(steps):
            mark_step()
            assert float(jnp.ones(step + 1).sum()) == step + 1
    assert said.getvalue() == f"a profile of {profiled} steps is in {folder}\n"
    assert list(folder.rglob("*.xplane.pb"))  # what TensorBoard reads
    assert list(folder.rglob("*.trace.json.gz"))  # what Perfetto reads


def test_a_run_that_was_done_before_says_that_there_is_no_profile(tmp_path):
    said = io.StringIO()
    for folder in (None, tmp_path / "trace"):  # nothing is profiled unasked
        assert not said.getvalue()
        with profile_steps(folder, 30, Progress(said)):
            pass
    assert "no profile was written" in said.getvalue() and not (tmp_path / "trace").exists()
