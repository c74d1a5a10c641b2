"""The real encoder folder that STILTS_REAL_ENCODER names, against torch on real sentences."""

import os
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer

from stilts_jax.model import Compute, encode, load_encoder

pytestmark = [
    pytest.mark.real,
    pytest.mark.parity,
    pytest.mark.skipif(not os.environ.get("STILTS_REAL_ENCODER"), reason="STILTS_REAL_ENCODER is not set"),
]
FOLDER = Path(os.environ.get("STILTS_REAL_ENCODER", ""))
SENTENCES = [
    "The cat sat on the mat.",
    "Die Katze saß darüber.",
    "猫がマットの上に座った。",
    "جلست القطة",
    "?",
]


def test_every_hidden_state_equals_torch():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    encoded = [Tokenizer.from_file(str(FOLDER / "tokenizer.json")).encode(text).ids for text in SENTENCES]
    tokens = np.ones((len(encoded), max(map(len, encoded))), np.int32)
    for row, ids in zip(tokens, encoded):
        row[: len(ids)] = ids
    loaded = load_encoder(FOLDER)
    run = partial(encode, config=loaded.config, compute=Compute(matmul_precision="highest"), all_hidden=True)
    theirs = transformers.AutoModel.from_pretrained(FOLDER, add_pooling_layer=False).eval()
    ids = torch.tensor(tokens, dtype=torch.long)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=(ids != 1).long(), output_hidden_states=True)
    for ours, state in zip(
        np.asarray(jax.jit(run)(loaded.params, tokens)), expected.hidden_states, strict=True
    ):
        np.testing.assert_allclose(ours, state.numpy(), rtol=0, atol=1e-5)
