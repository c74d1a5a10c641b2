"""The written world read back with strict readers of this file's own, never with the package's."""

import hashlib
import json
from pathlib import Path

import pytest

from stilts_jax.toy.world import write_world

CODES = ("en", "de", "es", "sw", "tr", "ru", "ar", "zh")


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


def test_tokenizer_has_the_layout_of_xlm_r(world):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(world / "encoder")
    config = json.loads((world / "encoder/config.json").read_text())
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<s>", "<pad>", "</s>", "<unk>"]
    assert tokenizer.mask_token_id == len(tokenizer) - 1 == config["vocab_size"] - 1
    assert tokenizer("a", "b")["input_ids"].count(2) == 3  # <s> a </s></s> b </s>
    for code in CODES:
        for line in lines(world / "data" / "text" / f"{code}.txt")[:40]:
            assert 3 not in tokenizer(line)["input_ids"]
    english = lines(world / "data" / "text" / "en.txt")
    count = sum(len(tokenizer.tokenize(line)) for line in english)
    assert count < 1.4 * sum(len(line.split()) for line in english)  # common words are whole pieces
    assert all(len(tokenizer.tokenize(word)) == 1 for word in ("the", "in", "buys", "Torva"))
