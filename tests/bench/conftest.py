"""A small Unigram tokenizer, and real data where there are some."""

import os
import random
from pathlib import Path

import pytest
import sentencepiece

from stilts_jax.tokenization import load_tokenizer

TEXT = "the house river teacher walked quickly because seventeen birds 1995 paper, end. 中国 今天 Привет"
WORDS = TEXT.split()


@pytest.fixture(scope="session")
def lines():
    draw = random.Random(1)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 30))) for _ in range(120)]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("encoder")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=100,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "config.json").write_text('{"model_type": "xlm-roberta"}')
    return load_tokenizer(folder)


@pytest.fixture(scope="session")
def real_root():
    if not os.environ.get("STILTS_REAL_DATA"):
        pytest.skip("no real data")
    return Path(os.environ["STILTS_REAL_DATA"])


@pytest.fixture(scope="session")
def real_tokenizer():
    if not os.environ.get("STILTS_REAL_ENCODER"):
        pytest.skip("no real encoder")
    return load_tokenizer(os.environ["STILTS_REAL_ENCODER"])
