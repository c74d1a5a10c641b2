"""The folder of the toy encoder before training: a Unigram tokenizer with XLM-R's ids, and a small shape."""

import io
import itertools
import json
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from stilts_jax.files import write_whole

_LONGEST = 12  # characters of a piece
_LONGEST_TEXT = 128  # tokens


def write_encoder_folder(
    folder: Path, texts: Sequence[str], vocabulary: int, hidden: int, layers: int
) -> None:
    """Trains a tokenizer on ``texts`` and writes it, with ``config.json``, as ``transformers`` reads it.

    ``vocabulary`` pieces are trained for; the true number, with the special tokens, is in ``config.json``.
    """
    from transformers import AutoTokenizer

    model = _train_unigram(texts, vocabulary)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
    # <s> <pad> </s> <unk>, the pieces (the trainer's own three stand for <unk>, <s>, </s>), <mask>
    config = {
        "architectures": ["XLMRobertaForMaskedLM"],
        "model_type": "xlm-roberta",
        "vocab_size": pieces + 2,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 16,
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": _LONGEST_TEXT + 2,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,  # so small an encoder is far from learning its text by heart
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
    settings = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": _LONGEST_TEXT}
    with tempfile.TemporaryDirectory() as source:
        Path(source, "sentencepiece.bpe.model").write_bytes(model)
        Path(source, "tokenizer_config.json").write_text(json.dumps(settings))
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    write_whole(folder / "config.json", json.dumps(config, indent=2) + "\n")


def _train_unigram(texts: Sequence[str], vocabulary: int) -> bytes:
    # The trainer takes its first candidates from substrings that occur in two different words. In a language of a
    # few hundred words most whole words are no part of another, so it is given the candidates.
    words = Counter(word for text in texts for word in unicodedata.normalize("NFKC", text).split())
    candidates: Counter[str] = Counter()
    for word, count in words.items():
        marked = "\u2581" + word
        longest = 2 if any("\u4e00" <= letter <= "\u9fff" for letter in word) else _LONGEST
        for start, end in itertools.combinations(range(len(marked) + 1), 2):
            if end - start <= longest:
                candidates[marked[start:end]] += count
    common = sorted(candidates.items(), key=lambda item: (-item[1] * len(item[0]), item[0]))
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder, "candidates.tsv")
        seeds.write_text("".join(f"{piece}\t{count}\n" for piece, count in common), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary,
            hard_vocab_limit=False,
            character_coverage=1.0,
            seed_sentencepieces_file=str(seeds),
            num_threads=1,  # with several, sums of probabilities depend on who comes first
            minloglevel=2,
        )
    return model.getvalue()
