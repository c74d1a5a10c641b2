import json

import numpy as np
import pytest

from stilts_jax.bench.run import Round, summarise
from stilts_jax.bench.workload import LAWS, draw_workload, find_workload
from stilts_jax.errors import ConfigError
from stilts_jax.main import main
from stilts_jax.model import EncoderConfig

ENCODER = EncoderConfig(vocab_size=100, hidden_size=8, num_layers=3, num_heads=2, intermediate_size=16)


@pytest.mark.slow
def test_training_and_prediction_are_measured(capsys):
    arguments = "--shape=tiny --lengths=tagging --max_length=12 --batch_size=4 --rounds=2 --rows=16 --json"
    assert main(["bench", *arguments.split(), "--config.train.buckets=1"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["dtype"] == "float32" and record["train"]["shapes"] == 1
    for part in ("train", "predict"):
        assert record[part]["examples_per_second"] > 0 and 0 <= record[part]["padding_share"] < 1
        assert 0 < record[part]["utilisation"] <= record[part]["utilisation_padded"]
    assert "phase vocabulary of" in record["train"]["settings"]


def test_flops_are_those_of_the_matrix_products():
    # Row by row: 4 projections, 2 dense layers, scores and weighted sum; forward, and twice that backward.
    def row(length):
        products = 4 * 2 * length * 8 * 8 + 2 * 2 * length * 8 * 16 + 2 * 2 * length * length * 8
        return 3 * 3 * products

    one = Round(2.0, np.array([3, 5]), [(2, 6)])
    assert one.flops(ENCODER, padded=False) == row(3) + row(5)
    assert one.flops(ENCODER, padded=True) == 2 * row(6)


def test_summary():
    lengths = np.array([3, 5])
    rounds = [Round(seconds, lengths, [(2, 6)]) for seconds in (1.0, 2.0, 4.0)]
    found = summarise(rounds, ENCODER, 1e6, training=True)
    assert found["examples_per_second"] == 1.0 and found["spread"] == [0.5, 2.0]
    assert found["real_tokens_per_second"] == 4.0
    assert found["padding_share"] == pytest.approx(1 - 8 / 12)
    work = rounds[0].flops(ENCODER, padded=False) * 3 / 7
    assert found["utilisation"] == pytest.approx(work / 1e6)
    assert summarise(rounds, ENCODER, 1e6, training=False)["utilisation"] == pytest.approx(work / 3e6)


@pytest.mark.parametrize("name", LAWS)
def test_drawn_rows_follow_their_law(name):
    law = LAWS[name]
    workload = draw_workload(name, 250_002)
    inner = workload.lengths[(workload.lengths > 8) & (workload.lengths < law.longest)]
    assert np.median(workload.lengths) == pytest.approx(np.exp(law.log_mean), rel=0.05)
    assert np.log(inner).std() == pytest.approx(law.log_sd, rel=0.25)
    used = np.unique(workload.features.columns["tokens"].values)
    assert law.pieces * 0.95 <= len(used) <= law.pieces + 2
    tokens = workload.features.columns["tokens"]
    assert all(tokens[row][0] == 0 and tokens[row][-1] == 2 for row in range(50))


def test_an_unknown_law_is_named():
    with pytest.raises(ConfigError, match="did you mean 'nli'"):
        find_workload("nlli", "tiny", None, None)
