"""A real, very small Unigram tokenizer in the layout of an XLM-R encoder folder."""

import os
import random
from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer

from stilts_jax.tokenization import Tokenizer, load_tokenizer

TEXT = """
the house river teacher walked quickly because seventeen birds 1995 unbelievable paper, end. été naïve
中国 是一个 国家 北京 上海 今天 天气 很好 กรุงเทพ สวัสดี ครับ ประเทศไทย
السلام عليكم مدينة كتاب Привет город книга
"""
WORDS = TEXT.split()


def write_lines(count: int, seed: int = 0) -> list[str]:
    """Lines of words in several scripts."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 30))) for _ in range(count)]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(write_lines(300)),
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
def plain(tokenizer_folder: Path):
    """The same tokenizer as ``transformers`` has it; an own copy, because calling it changes its state."""
    return AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.fixture(scope="session")
def lines() -> list[str]:
    return write_lines(120, seed=1)


@pytest.fixture
def encoded_texts(tokenizer, monkeypatch):
    """What is given to the tokenizer."""
    seen: list[str] = []
    encode = type(tokenizer).encode

    def record(self, texts, **options):
        seen.extend(texts)
        return encode(self, texts, **options)

    monkeypatch.setattr(type(tokenizer), "encode", record)
    return seen


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
