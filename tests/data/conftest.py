import pytest
from transformers import AutoTokenizer


@pytest.fixture(scope="session")
def plain(tokenizer_folder):
    """The tokenizer as ``transformers`` has it; an own copy, because calling it changes its state."""
    return AutoTokenizer.from_pretrained(tokenizer_folder)


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
