"""The written world read back with strict readers of this file's own, never with the package's."""

import csv
import hashlib
import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from stilts_jax.toy.languages import build_languages
from stilts_jax.toy.world import write_world

CODES = ("en", "de", "es", "sw", "tr", "ru", "ar", "zh")
UPOS = set("ADJ ADP ADV AUX CCONJ DET NOUN NUM PART PRON PROPN PUNCT SCONJ VERB".split())  # noqa: SIM905


def lines(path: Path) -> list[str]:
    text = path.read_bytes().decode("utf-8")
    assert text.endswith("\n") and "\r" not in text
    return text[:-1].split("\n")


def table(path: Path, columns: int) -> list[list[str]]:
    rows = [line.split("\t") for line in lines(path)]
    assert all(len(row) == columns and all(cell.strip() for cell in row) for row in rows)
    return rows


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in lines(path)]


def figures(text: str) -> list[str]:
    """The figures of a sentence, which are the same in every language."""
    return sorted(letter for letter in text if letter in "234567")


def tagged(path: Path) -> list[list[tuple[str, str]]]:
    sentences = path.read_text("utf-8").strip("\n").split("\n\n")
    return [[tuple(line.split("\t")) for line in sentence.split("\n")] for sentence in sentences]


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_world(world, tmp_path):
    for seed in (0, 1):
        write_world(tmp_path / str(seed), size="test", seed=seed)
    first, second, other = digests(world), digests(tmp_path / "0"), digests(tmp_path / "1")
    assert first == second and len(first) > 100 and not [name for name in first if "/." in name]
    assert first.keys() == other.keys()
    assert first["data/xnli/test-en.tsv"] != other["data/xnli/test-en.tsv"]


def test_xnli_is_aligned_and_its_splits_are_disjoint(world):
    folder = world / "data" / "xnli"
    labels = {"entailment", "neutral", "contradiction"}
    splits = {split: table(folder / f"{split}-en.tsv", 3) for split in ("train", "dev", "test")}
    for rows in splits.values():
        assert {row[2] for row in rows} == labels
    for split in ("dev", "test"):
        for code in CODES:
            rows = table(folder / f"{split}-{code}.tsv", 3)
            assert [row[2] for row in rows] == [row[2] for row in splits[split]]
    seen = [(premise, hypothesis) for rows in splits.values() for premise, hypothesis, _ in rows]
    assert len(set(seen)) == len(seen)
    mnli = json_lines(world / "data/mnli/multinli_1.0_train.jsonl")
    assert [[r["sentence1"], r["sentence2"], r["gold_label"]] for r in mnli] == splits["train"]


def test_pawsx_pairs_share_their_words(world):
    for code in ("en", "de", "es", "zh"):
        rows = table(world / "data" / "pawsx" / f"test-{code}.tsv", 3)
        assert {row[2] for row in rows} == {"0", "1"}
    for first, second, _ in table(world / "data" / "pawsx" / "train-en.tsv", 3):
        assert Counter(first.strip(".").split()) == Counter(second.strip(".").split())


def test_tags(world):
    for code in CODES:
        entities = tagged(world / "data" / "panx" / f"test-{code}.tsv")
        assert len(entities) == 40
        for sentence in entities:
            before = "O"
            for _, tag in sentence:
                assert tag == "O" or (tag[:2] in ("B-", "I-") and tag[2:] in ("PER", "LOC", "ORG"))
                if tag.startswith("I-"):
                    assert before[2:] == tag[2:]  # a chunk goes on only where it began
                before = tag
        if code != "sw":
            parts = tagged(world / "data" / "udpos" / f"test-{code}.tsv")
            assert {tag for sentence in parts for _, tag in sentence} <= UPOS
            assert all(" " not in word for sentence in parts for word, _ in sentence)
    assert {tag for s in tagged(world / "data" / "udpos" / "train-en.tsv") for _, tag in s} == UPOS
    train = {tuple(s) for s in tagged(world / "data" / "panx" / "train-en.tsv")}
    assert not train & {tuple(s) for s in tagged(world / "data" / "panx" / "test-en.tsv")}


def questions(path: Path) -> list[tuple[dict, dict]]:
    """Each question with its paragraph."""
    articles = json.loads(path.read_text("utf-8"))["data"]
    return [(paragraph, qa) for a in articles for paragraph in a["paragraphs"] for qa in paragraph["qas"]]


def test_answers_stand_where_they_are_said_to(world):
    english = questions(world / "data/xquad/xquad.en.json")
    ids = [qa["id"] for _, qa in english]
    assert len(set(ids)) == len(ids)
    for code in set(CODES) - {"sw"}:
        ours = questions(world / f"data/lareqa/xquad-r/{code}.json")
        xquad = questions(world / f"data/xquad/xquad.{code}.json")
        assert [qa for _, qa in ours] == [qa for _, qa in xquad] and [qa["id"] for _, qa in ours] == ids
        for paragraph, qa in ours:
            (answer,) = qa["answers"]
            start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
            assert answer["text"] and paragraph["context"][start:end] == answer["text"]
            assert answer["text"] == answer["text"].strip(" .。")
            breaks = paragraph[
                "sentence_breaks"
            ]  # three sentences that are the paragraph, one of them answers
            text = "".join(paragraph["context"][first:last] for first, last in breaks)
            assert len(breaks) == 3 and text == paragraph["context"].replace(". ", ".")
            assert sum(first <= start and end <= last for first, last in breaks) == 1
    train = {paragraph["context"] for paragraph, _ in questions(world / "data/squad/train-v1.1.json")}
    assert not train & {paragraph["context"] for paragraph, _ in english}


def test_tatoeba_gold_leads_to_the_translation(world):
    folder = world / "data" / "tatoeba"
    # All languages have the same sentences in the same order, so the gold must agree over languages.
    golds = {code: [int(n) for n in lines(folder / f"{code}-en.gold")] for code in CODES[1:]}
    for code, gold in golds.items():
        english = lines(folder / f"{code}-en.en")
        assert english == sorted(english) and sorted(gold) == list(range(40))
        assert gold == golds["de"]
        others = lines(folder / f"{code}-en.{code}")
        assert all(figures(line) == figures(others[n]) for line, n in zip(english, gold, strict=True))


def test_bucc_pairs_are_in_both_pools_and_in_no_other_text(world):
    texts = set()
    for path in (world / "data" / "text").glob("*-en.tsv"):
        texts |= {row[1] for row in table(path, 2)}
    for code in ("de", "ru", "zh"):
        for split in ("dev", "test"):
            stem = f"bucc2018/{code}-en.{split}"
            pools = [dict(table(world / "data" / f"{stem}.{side}", 2)) for side in (code, "en")]
            gold = table(world / "data" / f"{stem}.gold", 2)
            assert all(first in pools[0] and second in pools[1] for first, second in gold)
            assert 0 < len(gold) < min(map(len, pools))
            assert all(figures(pools[0][one]) == figures(pools[1][other]) for one, other in gold)
            assert not texts & set(pools[1].values())


def test_choices(world):
    for code in ("en", "sw", "tr", "zh"):
        for split in ("val", "test"):
            rows = json_lines(world / "data" / f"xcopa/{split}-{code}.jsonl")
            assert {row["label"] for row in rows} == {0, 1}
            assert {row["question"] for row in rows} == {"cause", "effect"}
    siqa = json_lines(world / "data/siqa/socialIQa_v1.4_trn.jsonl")
    assert all(row["correct"] in "ABC" and len({row[f"answer{x}"] for x in "ABC"}) == 3 for row in siqa)
    endings = json_lines(world / "data/hellaswag/hellaswag_train.jsonl")
    assert all(len(set(row["endings"])) == 4 and 0 <= row["label"] < 4 for row in endings)
    kinds = json_lines(world / "data/commonsenseqa/train_rand_split.jsonl")
    assert all([c["label"] for c in row["question"]["choices"]] == list("ABCDE") for row in kinds)


def best_pieces(text: str, scores: dict[str, float]) -> list[str]:
    """The most likely way to cut a text into pieces of a Unigram model, by dynamic programming."""
    best: list[tuple[float, int]] = [(0.0, 0)] + [(-1e9, 0)] * len(text)
    for end in range(1, len(text) + 1):
        for start in range(max(0, end - 16), end):
            score = best[start][0] + scores.get(text[start:end], -1e8)
            if score > best[end][0]:
                best[end] = (score, start)
    pieces, end = [], len(text)
    while end:
        pieces.append(text[best[end][1] : end])
        end = best[end][1]
    return pieces[::-1]


def test_tokenizer_has_the_layout_of_xlm_r(world):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(world / "encoder")
    config = json.loads((world / "encoder/config.json").read_text())
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<s>", "<pad>", "</s>", "<unk>"]
    assert tokenizer.mask_token_id == len(tokenizer) - 1 == config["vocab_size"] - 1
    assert tokenizer("a", "b")["input_ids"].count(2) == 3  # <s> a </s></s> b </s>
    pieces = json.loads((world / "encoder" / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    scores, number = dict(pieces[4:-1]), {piece: index for index, (piece, _) in enumerate(pieces)}
    for code in CODES:
        for line in lines(world / "data" / "text" / f"{code}.txt")[:40]:
            marked = "\u2581" + unicodedata.normalize("NFKC", line).replace(" ", "\u2581")
            ids = tokenizer(line, add_special_tokens=False)["input_ids"]
            assert 3 not in ids
            assert ids == [number[piece] for piece in best_pieces(marked, scores)]
    english = lines(world / "data" / "text" / "en.txt")
    count = sum(len(tokenizer.tokenize(line)) for line in english)
    assert count < 1.4 * sum(len(line.split()) for line in english)  # common words are whole pieces
    assert all(len(tokenizer.tokenize(word)) == 1 for word in ("the", "in", "buys", "Torva"))


def test_table_of_distances(world):
    rows = list(csv.DictReader(lines(world / "languages.csv")))
    assert [row["code"] for row in rows] == list(CODES)
    distances = [float(row["distance"]) for row in rows]
    assert distances[0] == 0 and distances == sorted(set(distances)) and distances[-1] < 1
    for row, language in zip(rows, build_languages(0), strict=True):
        spellings = {**language.words, **language.names}.items()
        measured = sum(meaning != spelling for meaning, spelling in spellings) / len(spellings)
        assert float(row["spelling_difference"]) == pytest.approx(measured, abs=0.01)
