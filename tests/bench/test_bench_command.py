import json
import os
import subprocess
import sys

import numpy as np
import pytest

from stilts_jax.bench.peer import PeerSettings, TorchPeer
from stilts_jax.bench.workload import LAWS, draw_workload
from stilts_jax.main import main
from stilts_jax.model import SHAPES

ARGUMENTS = [
    "bench",
    "--shape=tiny",
    "--max_length=12",
    "--batch_size=4",
    "--rounds=2",
    "--rows=16",
    "--json",
]


def _run(capsys, *more):
    assert main([*ARGUMENTS, "--config.train.buckets=1", *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_training_and_prediction_are_measured(capsys):
    record = _run(capsys, "--lengths=tagging")
    assert record["dtype"] == "float32" and record["train"]["times"]["shapes"] == 1
    for part in ("train", "predict"):
        (ours,) = record[part]["contenders"]
        assert ours["examples_per_second"] > 0 and 0 <= ours["padding_share"] < 1
        assert 0 < ours["utilisation"] <= ours["utilisation_padded"]
        assert record[part]["ratios"] == []
    assert "phase vocabulary of" in record["train"]["contenders"][0]["settings"]


@pytest.mark.slow
def test_what_was_compiled_before_comes_from_the_cache(tmp_path):
    command = [
        sys.executable,
        "-m",
        "stilts_jax.main",
        *ARGUMENTS,
        "--what=train",
        "--config.train.buckets=2",
    ]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    times = [
        json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)["train"][
            "times"
        ]
        for _ in range(2)
    ]
    assert [(one["shapes"], one["cached"]) for one in times] == [(1, 0), (1, 1)]
    assert all(one["to_first_step"] > 0 for one in times)


def test_attention_and_mining_are_measured(capsys):
    record = _run(capsys, "--what=attention,mining", "--mining=300x16x2")
    assert [one["backend"] for one in record["attention"]] == ["xla"]
    assert max(record["attention"][0]["difference"].values()) < 1e-5
    assert record["mining"]["pairs"] >= 150  # every second vector has its noisy copy
    assert record["mining"]["floor_seconds"] > 0


@pytest.mark.parity
def test_the_peers_take_their_turns(capsys):
    pytest.importorskip("torch")
    record = _run(capsys, "--lengths=nli", "--peer=torch", "--what=train,predict")
    for part, peers in (("train", 3), ("predict", 2)):
        assert len(record[part]["ratios"]) == peers
        assert all(
            len(one["paired_ratios"]) == 2 and min(one["paired_ratios"]) > 0 for one in record[part]["ratios"]
        )


@pytest.mark.parity
@pytest.mark.parametrize("lengths", LAWS)
def test_the_peer_trains_and_predicts_every_kind(lengths):
    torch = pytest.importorskip("torch")
    workload = draw_workload(lengths, 320, rows=8, longest=16)
    batches = [np.arange(4), np.arange(4, 8)]
    settings = PeerSettings("peer", sorted=True, fused=True)
    peer = TorchPeer(settings, workload, SHAPES["tiny"], "float32", training=True)
    before = [parameter.detach().clone() for parameter in peer._parameters]
    done = peer.take_round(batches)
    assert [rows for rows, _ in done.shapes] == [4, 4] and sorted(done.lengths) == sorted(workload.lengths)
    assert done.positions == sum(4 * workload.lengths[rows].max() for rows in batches)
    assert any(not torch.equal(old, new) for old, new in zip(before, peer._parameters))
    peer = TorchPeer(settings, workload, SHAPES["tiny"], "float32", training=False)
    assert len(peer.take_round(batches).lengths) == 8


def test_a_misspelt_part_is_named(capsys):
    assert main(["bench", "--what=trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
