"""The examples in launch/ are short, run, and do what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"


@pytest.mark.parametrize("script", sorted(path.name for path in LAUNCH.glob("*.py")))
def test_an_example_is_short(script):
    assert len((LAUNCH / script).read_text("utf-8").splitlines()) < 40


def run(script, environment, *arguments):
    command = [sys.executable, str(LAUNCH / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(text, name):
    return float(re.search(rf"{name} ([-+.\de]+)", text)[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "name", "low", "high"),
    [
        ("train_own_arrays.py", "held out: accuracy", 0.8, 1.0),
        ("train_own_mesh.py", "accuracy", 0.8, 1.0),
        ("train_in_flax.py", "mean squared error", 0.0, 0.02),
    ],
)
def test_an_example_learns(script, name, low, high, environment):
    assert low <= number(run(script, environment), name) <= high


@pytest.mark.slow
@pytest.mark.parity
def test_a_checkpoint_of_transformers_is_trained_and_read_back_in_pytorch(
    environment, tokenizer_folder, tmp_path
):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder)
    config = transformers.XLMRobertaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=130,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        **shape,
    )
    transformers.XLMRobertaModel(config).save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    said = run("train_from_transformers.py", environment, tmp_path / "theirs", tmp_path / "ours")
    assert number(said, "PyTorch's logits differ by") < 1e-5
    assert "epoch 1" in said


@pytest.mark.slow
def test_any_model_is_evaluated(environment, demo, tmp_path):
    workdir, _ = demo
    (model,) = workdir.glob("grid/phases/mnli.s0-*")
    said = run("evaluate_encoder.py", environment, model, workdir / "world" / "data", tmp_path)
    assert 0 < number(said, "tatoeba") <= 100 and 0 < number(said, "xnli") <= 100
