"""The laboratory works: each contender and each part at toy size, run by hand like the benchmarks themselves."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from stilts_jax.bench import LAWS, Round, draw_workload
from stilts_jax.config import load_config, to_settings
from stilts_jax.experiment.phases import list_phases
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.model import SHAPES
from stilts_jax.tasks.sources.read import DataSource
from stilts_jax.tasks.spec import ClassifyExample, SpanExample

sys.path.insert(0, str(Path(__file__).parent))

import filling
import job
import speed
import steps
from measured import Contender, compare
from peer import PeerSettings, TorchPeer, plan_prediction, plan_training

pytestmark = pytest.mark.slow
ARGUMENTS = "--shape=tiny --max_length=12 --batch_size=4 --rounds=2 --rows=16 --json --config.train.buckets=1"


def run(capsys, *more):
    assert speed.main([*ARGUMENTS.split(), *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_attention_and_mining_are_measured(capsys):
    record = run(capsys, "--what=attention,mining", "--mining=300x16x2")
    assert [one["backend"] for one in record["attention"]] == ["xla"]
    assert max(record["attention"][0]["difference"].values()) < 1e-5
    assert record["mining"]["pairs"] >= 150  # every second vector has its noisy copy


@pytest.mark.parity
def test_the_peers_take_their_turns(capsys):
    pytest.importorskip("torch")
    record = run(capsys, "--lengths=nli", "--peer=torch")
    for part, peers in (("train", 3), ("predict", 2)):
        assert len(record[part]["ratios"]) == peers
        assert all(min(one["paired_ratios"]) > 0 for one in record[part]["ratios"])


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
    assert any(not torch.equal(old, new) for old, new in zip(before, peer._parameters))
    peer = TorchPeer(settings, workload, SHAPES["tiny"], "float32", training=False)
    assert len(peer.take_round(batches).lengths) == 8


def test_a_peers_memory_is_its_own():
    """A process that another one starts gets the other's peak from Linux."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    code += "from measured import host_memory_used; print(host_memory_used()['host_gib'])"
    held = np.ones(2**28)  # 2 GiB
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < held.nbytes / 2**30


def test_ratios_are_of_pairs():
    lengths = np.array([3, 5])
    ours = Contender("ours", "", [Round(s, lengths, [(2, 6)]) for s in (1.0, 2.0, 4.0)])
    peer = Contender("peer", "", [Round(s, lengths, [(2, 8)]) for s in (4.0, 4.0, 8.0)])
    ratios = compare(ours, peer)
    assert ratios["ratio_of_medians"] == 2.0
    assert ratios["paired_ratios"] == [4.0, 2.0, 2.0] and ratios["median_of_paired_ratios"] == 2.0


def test_the_peer_gets_our_rows():
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 60, 300)
    rows = np.split(generator.permutation(300)[:288], 3)
    shuffled = plan_training(rows, lengths, 8, sort=False)
    for ours, theirs in zip(rows, shuffled):
        assert sorted(ours) == sorted(np.concatenate(theirs))
        assert all(len(batch) == 8 for batch in theirs)
    grouped = plan_training(rows, lengths, 8, sort=True)
    everything = np.concatenate([np.concatenate(part) for part in grouped])
    assert sorted(everything) == sorted(np.concatenate(rows))
    means = [lengths[np.concatenate(part)].mean() for part in grouped]
    assert max(means) - min(means) < 4  # no round gets the long rows
    padded = lambda plan: sum(lengths[b].max() * len(b) for part in plan for b in part)  # noqa: E731
    assert padded(grouped) < 0.75 * padded(shuffled)
    streamed = plan_prediction(rows[0], lengths, 8, sort=True)
    assert lengths[streamed[0]].min() >= lengths[streamed[1]].max()


def test_the_plain_loop_does_the_same_work(tokenizer, lines):
    pairs = [ClassifyExample("", a, b, 1) for a, b in zip(lines, reversed(lines))]
    settings = FeatureSettings(20, 500, 10_000)
    features = build_features("classify", {"en": pairs}, tokenizer, settings, training=True)
    loop = filling._loop_over_pairs(AutoTokenizer.from_pretrained(tokenizer.source), pairs, settings)
    assert [features.columns["tokens"][row].tolist() for row in range(len(features))] == [
        ids for ids, _ in loop
    ]

    asked = [
        SpanExample("", line, context, ((context[5:12], 5),))
        for line, context in zip(lines, [*lines[1:], lines[0]])
        if len(context) > 12
    ]
    settings = FeatureSettings(1000, 500, 1)
    features = build_features("span", {"en": asked}, tokenizer, settings, training=True)
    loop = filling._loop_over_questions(AutoTokenizer.from_pretrained(tokenizer.source), asked, settings)
    assert len(loop) == len(features)
    for row, (ids, _, last) in enumerate(loop):
        assert features.columns["tokens"][row].tolist() == ids
        assert features.columns["end"][row] == last


@pytest.mark.real
@pytest.mark.parametrize(
    ("task", "least"), [("mnli", 0.70), ("squad_v1", 0.85), ("udpos", 0.60), ("panx", 0.60)]
)
def test_few_computed_tokens_are_padding(task, least, real_root, real_tokenizer):
    found = filling.measure_filling(task, real_tokenizer, DataSource(real_root))
    assert found.share >= least and found.shapes <= 8


@pytest.mark.slow
def test_a_step_is_timed_in_both_forms(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["steps.py", "--shape=tiny", "--sizes=4x16"])
    steps.main()
    _, loop, written_out = capsys.readouterr().out.splitlines()
    assert loop.split()[:2] == ["4x16", "loop"] and written_out.split()[:2] == ["4x16", "written-out"]


def test_the_job_is_one_phase_and_both_sides_read_the_same_rows(tmp_path):
    (tmp_path / "xnli").mkdir()
    for name in ("train-en", *(f"test-{language}" for language in job.LANGUAGES)):
        (tmp_path / f"xnli/{name}.tsv").write_text(
            '"a" b\tc\tneutral\nd\te\tentailment\nf\tg\tcontradiction\n'
        )
    assert job.read_rows(tmp_path / "xnli/train-en.tsv", 2) == ([['"a" b', "c"], ["d", "e"]], [2, 1])
    given = argparse.Namespace(data_root=tmp_path, encoder="E", rows=2, epochs=1, scored=2)
    options = dict(word.removeprefix("--").split("=", 1) for word in job.our_command(given, tmp_path)[4:])
    overrides = {
        name.removeprefix("config."): value for name, value in options.items() if name.startswith("config.")
    }
    assert len(list_phases(to_settings(load_config(options["config"], overrides)))) == 1
