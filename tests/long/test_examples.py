"""The examples in launch/ are short, run, and do what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"


def test_examples_are_short():
    assert all(len(path.read_text("utf-8").splitlines()) < 40 for path in LAUNCH.glob("*.py"))


def run(script, name, environment, *arguments):
    """Runs a program; returns the number that it prints behind a name."""
    command = [sys.executable, str(LAUNCH / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(re.search(rf"{name} ([-+.\de]+)", done.stdout)[1])


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
    assert low <= run(script, name, environment) <= high


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", ["evaluate_encoder.py", pytest.param("train_from_transformers.py", marks=pytest.mark.parity)]
)
def test_an_example_that_misses_an_argument_says_how_it_is_typed(script, environment):
    command = [sys.executable, str(LAUNCH / script), "folder"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode and f"Usage: python launch/{script}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parity
def test_a_checkpoint_of_transformers_is_trained_and_read_back_in_pytorch(
    environment, tokenizer_folder, tmp_path
):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    shape |= {"max_position_embeddings": 130, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    config = transformers.XLMRobertaConfig(vocab_size=len(tokenizer), **shape)
    transformers.XLMRobertaModel(config).save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    places = (tmp_path / "theirs", tmp_path / "ours")
    assert run("train_from_transformers.py", "PyTorch's logits differ by", environment, *places) < 1e-5


@pytest.mark.slow
def test_any_model_is_evaluated(environment, demo, tmp_path):
    (model,) = demo[0].glob("grid/phases/mnli.s0-*")
    places = (model, demo[0] / "world" / "data", tmp_path)
    assert 0 < run("evaluate_encoder.py", "xnli", environment, *places) <= 100
