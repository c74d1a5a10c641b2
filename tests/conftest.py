"""What tests of several folders share: a small real tokenizer, texts for it, and real data where there are some."""

import os
import random
from pathlib import Path

import pytest
import sentencepiece

from stilts_jax.tokenization import Tokenizer, load_tokenizer

TEXT = """
the house river teacher walked quickly because seventeen birds 1995 unbelievable paper, end. été naïve Berlin
中国 是一个 国家 北京 上海 今天 天气 很好 กรุงเทพ สวัสดี ครับ ประเทศไทย
السلام عليكم مدينة كتاب Привет город книга
"""
WORDS = TEXT.split()


@pytest.fixture(scope="session")
def make_text():
    """Makes lines of words in several scripts."""

    def make(seed: int, low: int = 1, high: int = 30) -> str:
        draw = random.Random(seed)
        return " ".join(draw.choices(WORDS, k=draw.randint(low, high)))

    return make


@pytest.fixture(scope="session")
def lines(make_text) -> list[str]:
    return [make_text(seed) for seed in range(1000, 1120)]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory, make_text) -> Path:
    """A Unigram tokenizer in the layout of an XLM-R encoder folder."""
    folder = tmp_path_factory.mktemp("encoder")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([make_text(seed) for seed in range(300)]),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=200,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "config.json").write_text('{"model_type": "xlm-roberta"}')
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_folder)


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The data root of real release files."""
    if not os.environ.get("STILTS_REAL_DATA"):
        pytest.skip("no real data")
    return Path(os.environ["STILTS_REAL_DATA"])


@pytest.fixture(scope="session")
def real_tokenizer() -> Tokenizer:
    """XLM-R's own vocabulary of 250,002."""
    if not os.environ.get("STILTS_REAL_ENCODER"):
        pytest.skip("no real encoder")
    return load_tokenizer(os.environ["STILTS_REAL_ENCODER"])
