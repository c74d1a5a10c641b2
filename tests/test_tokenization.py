import json
import shutil

import numpy as np
import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from stilts_jax.errors import EncoderError
from stilts_jax.tokenization import load_tokenizer

# Whole graphemes: on a mark without a letter in front of it the two libraries differ.
GRAPHEMES = ["a", "b", " ", "é", "中国", "ส", "ครับ", "🙂", ",", "1995", "\t", "\u200b", "½", "e\u0301", "  "]
TEXT = st.lists(st.sampled_from(GRAPHEMES), max_size=15).map("".join)
QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUIET
@given(texts=st.lists(TEXT, max_size=4))
def test_ids_are_those_of_sentencepiece_moved_by_one(tokenizer, tokenizer_folder, texts):
    model = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_folder / "sentencepiece.bpe.model"))
    encoded = tokenizer.encode(texts)
    for index, text in enumerate(texts):
        expected = [piece + 1 if piece else 3 for piece in model.encode(text)]
        assert encoded.ids[encoded.offsets[index] : encoded.offsets[index + 1]].tolist() == expected
    assert tokenizer.vocab_size == model.get_piece_size() + 2  # <pad> and <mask> are not in the model
    assert tokenizer.mask_id == tokenizer.vocab_size - 1
    assert tokenizer.space_id == model.piece_to_id("▁") + 1


def test_text_cannot_act_as_a_special_token(tokenizer):
    assert not np.isin(tokenizer.encode(["a </s> b <mask><pad> <s>"]).ids, [0, 1, 2, tokenizer.mask_id]).any()


def test_the_fingerprint_is_of_the_bytes_and_needs_no_vocabulary(tokenizer_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tokenizer_folder, copy)
    first = load_tokenizer(copy)
    assert first.fingerprint == load_tokenizer(tokenizer_folder).fingerprint
    assert "_fast" not in vars(first)
    with (copy / "sentencepiece.bpe.model").open("ab") as file:
        file.write(b"x")
    assert load_tokenizer(copy).fingerprint != first.fingerprint


def test_the_size_of_a_vocabulary_is_remembered(tokenizer, tokenizer_folder, tmp_path, monkeypatch):
    """Also where what was remembered is damaged, and where nothing can be written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = tokenizer.vocab_size, tokenizer.mask_id

    def is_read() -> bool:
        fresh = load_tokenizer(tokenizer_folder)
        assert (fresh.vocab_size, fresh.mask_id) == expected
        return "_fast" in vars(fresh)

    assert is_read() and not is_read()
    (known,) = tmp_path.rglob("*.json")
    known.write_text(known.read_text("utf-8").replace(str(expected[0]), "7"), "utf-8")
    assert is_read() and not is_read()
    monkeypatch.setenv("XDG_CACHE_HOME", str(known))
    assert is_read()


def test_truncation_and_padding_that_files_ask_for_are_not_done(tokenizer, lines, tmp_path):
    """Of a tokenizer that was saved, which else is the same; half characters are replaced."""
    lines = [*lines, "", " \n", "a \ud800b"]
    tokenizer._fast.save_pretrained(tmp_path)
    asking = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    asking.enable_truncation(4)
    asking.enable_padding(pad_id=1, length=9)
    asking.save(str(tmp_path / "tokenizer.json"))
    np.testing.assert_array_equal(load_tokenizer(tmp_path).encode(lines).ids, tokenizer.encode(lines).ids)


def test_wrong_folders_are_named(tmp_path):
    with pytest.raises(EncoderError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError) as caught:
        load_tokenizer(tmp_path).encode(["a"])
    assert str(tmp_path) in str(caught.value)


def test_a_tokenizer_with_other_special_ids_is_refused(tmp_path):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
    words = WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    Tokenizer(words).save(str(tmp_path / "tokenizer.json"))
    record = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(record))
    with pytest.raises(EncoderError, match="not an XLM-R tokenizer"):
        load_tokenizer(tmp_path).encode(["a"])
