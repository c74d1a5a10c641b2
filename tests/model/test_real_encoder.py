"""The real encoder folder that STILTS_REAL_ENCODER names, against torch on real sentences."""

import json
import os
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from stilts_jax.model import Compute, encode, export_encoder, load_encoder

pytestmark = pytest.mark.real
SENTENCES = [
    "The cat sat on the mat.",
    "Die Katze saß auf der Matte, und niemand wunderte sich darüber.",
    "猫がマットの上に座った。",
    "القطة جلست على الحصيرة",
    "?",
]


@pytest.fixture(scope="module")
def folder():
    if not os.environ.get("STILTS_REAL_ENCODER"):
        pytest.skip("STILTS_REAL_ENCODER is not set")
    return Path(os.environ["STILTS_REAL_ENCODER"])


@pytest.fixture(scope="module")
def tokens(folder):
    from tokenizers import Tokenizer

    encoded = [Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids for text in SENTENCES]
    rows = np.ones((len(encoded), max(map(len, encoded))), np.int32)
    for row, ids in zip(rows, encoded):
        row[: len(ids)] = ids
    return rows


def test_every_hidden_state_equals_torch(folder, tokens):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    loaded = load_encoder(folder)
    assert loaded.config.layer_norm_eps == json.loads((folder / "config.json").read_text())["layer_norm_eps"]
    compute = Compute(matmul_precision="highest")
    run = jax.jit(partial(encode, config=loaded.config, compute=compute, all_hidden=True))
    found = np.asarray(run(loaded.params, tokens))
    theirs = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    ids = torch.tensor(tokens, dtype=torch.long)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=(ids != 1).long(), output_hidden_states=True)
    for ours, state in zip(found, expected.hidden_states, strict=True):
        np.testing.assert_allclose(ours, state.numpy(), rtol=0, atol=1e-5)


def test_out_and_back_is_the_same_file_again(folder, tmp_path):
    loaded = load_encoder(folder)
    assert loaded.unused == ()
    export_encoder(tmp_path / "out", loaded.config, loaded.params, tokenizer_folder=folder)
    back = load_encoder(tmp_path / "out")
    assert back.config == loaded.config
    jax.tree.map(np.testing.assert_array_equal, back.params, loaded.params)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
