import numpy as np

from stilts_jax import bench
from stilts_jax.main import main
from stilts_jax.model import EncoderConfig
from stilts_jax.settings import Settings

ENCODER = EncoderConfig(vocab_size=100, hidden_size=8, num_layers=3, num_heads=2, intermediate_size=16)


def test_a_target_has_the_rows_that_it_is_trained_on(world):
    places = world / "data", str(world / "encoder"), 16, Settings()
    mnli, xnli = (bench.find_workload(name, "tiny", *places) for name in ("mnli", "xnli"))
    assert mnli.tokens.values.tolist() == xnli.tokens.values.tolist() and len(xnli.lengths)


def test_an_encoder_is_looked_for_as_by_other_commands(tmp_path, capsys):
    assert main(["bench", "--lengths=mnli", f"--data_root={tmp_path}", "--encoder=example/none"]) == 1
    assert "`stilts prepare` fetches" in capsys.readouterr().err


def test_flops_are_those_of_the_matrix_products():
    # Row by row: 4 projections, 2 dense layers, scores and weighted sum; forward, and twice that backward.
    def row(length):
        return 3 * 3 * (4 * 2 * length * 8 * 8 + 2 * 2 * length * 8 * 16 + 2 * 2 * length * length * 8)

    one = bench.Round(2.0, np.array([3, 5]), [(2, 6)])
    assert one.flops(ENCODER, padded=False) == row(3) + row(5)
    assert one.flops(ENCODER, padded=True) == 2 * row(6)
