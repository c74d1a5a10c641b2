"""XTREME-UP's files: numbers of its own script on the same lines, tags as names, errors with places."""

import gzip
import json

import pytest

from stilts_jax.errors import DataError
from stilts_jax.evaluation.xtreme_up import remove_names, score_files, write_names
from stilts_jax.main import main
from stilts_jax.tasks.sources.read import DataSource

NAMES = (  # (gold, predicted): twice the same name, a ":" within one, "$$" without spaces
    ("PER: Ada $$ LOC: Lagos", "PER: Ada $$ LOC: Jos"),
    ("", "PER: Bo"),
    ("ORG: A: B $$ DATE: 3 Mei", "ORG: A: B $$ DATE: 3 Mei"),
    ("LOC: Kano $$ LOC: Kano $$ PER: Musa", "LOC: Kano $$ PER:Musa $$ LOC: Kano $$ LOC: Kano"),
    ("PER: Ada$$LOC: Jos", "PER: Ada $$ LOC: Jos"),
    ("ORG: UN", ""),
)
ANSWERS = (
    ("The Nile.", "nile"),
    ("No Answer", "No answer"),
    ("elfu mbili", "elfu mbili na tatu"),
    ("1,000", "the"),
)
RANKED = (("a", ["a", "b"]), ("b", [*map(str, range(24)), "b", "b"]), ("c", ["a"]))  # 1, 25, not at all
# By metrics.py of google-research/xtreme-up (commit af29609) on these lines; its reciprocal rank is in 0..1.
OFFICIAL = {
    "ner": (NAMES, "target", {"f1": 58.82352941175918}),
    "qa_in_lang": (ANSWERS, "target", {"f1": 66.66666666666666, "em": 50.0}),
    "retrieval_in_lang": (RANKED, "id", {"mrr": 100 * 0.3466666666666667}),
}


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def write_official(folder, task, pairs, field):
    write(folder / "gold" / task / "test" / "sw.jsonl", [{field: gold} for gold, _ in pairs])
    write(folder / "given" / task / "test" / "sw.jsonl", [{"prediction": given} for _, given in pairs])


@pytest.mark.parametrize("task", OFFICIAL)
def test_scores_are_those_of_the_official_script(tmp_path, task):
    pairs, field, expected = OFFICIAL[task]
    write_official(tmp_path, task, pairs, field)
    found = score_files(tmp_path / "given", tmp_path / "gold")
    metrics = {name: by["sw"] for name, by in found["tasks"][task]["metrics"].items()}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert found["tasks"][task]["mean"] == metrics[next(iter(expected))]
    assert found["tasks"][task]["score"] is None  # the other languages are not there
    assert f"{task}/yo" in found["missing"] or task != "ner"
    assert found["overall"] is None
    write_official(tmp_path, task, [("", given) for _, given in pairs], field)
    with pytest.raises(DataError, match=r"blank|id is empty"):
        score_files(tmp_path / "given", tmp_path / "gold")


def test_tags_are_spelled_out_by_the_texts_of_gold(tmp_path, capsys):
    rows = [
        {"text": "Ada Obi, of Lagos", "target": "PER: Ada Obi $$ LOC: Lagos", "example_id": "1"},
        {"text": "Hapana", "target": "", "example_id": "2"},
    ]
    plain = tmp_path / "gold" / "masakhaner_x" / "ha" / "test.jsonl"
    write(plain, rows)
    path = tmp_path / "given" / "masakhaner_x@ha" / "test-ha.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("B-PER\nI-PER\nO\nO\nB-LOC\n\nI-ORG\n\n")
    sides = ["--predictions", str(tmp_path / "given"), "--gold", str(tmp_path / "gold")]
    assert main(["score", "--benchmark=xtreme-up", *sides]) == 0
    assert "80.00  1, missing: am" in capsys.readouterr().out  # 2 of 3 predicted, 2 of 2 found
    places = tmp_path / "given", DataSource(tmp_path / "gold", skip_budget=1)
    write_names(*places, {"masakhaner_x": ["ha"], "masakhaner_x@ha": ["yo"]})  # neither was predicted
    official = tmp_path / "given" / "ner" / "test" / "ha.jsonl"
    write(plain, [*rows, rows[0]])  # whose id occurred before: the row is skipped
    assert write_names(*places, {"masakhaner_x@ha": ["ha"]}) == ["ha"] and not official.exists()
    write(plain, rows)
    plain.with_name("test.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert write_names(*places, {"panx": ["ha"], "masakhaner_x@ha": ["ha"]}) == []
    remove_names(tmp_path / "given", "panx", "ha")
    lines = official.read_text("utf-8").splitlines()
    assert lines == ['{"prediction": "PER: Ada Obi $$ LOC: Lagos"}', '{"prediction": "ORG: Hapana"}']
    assert main(["score", "--benchmark=xtreme-up", *sides]) == 0
    assert "80.00  1, missing: am" in capsys.readouterr().out
    remove_names(tmp_path / "given", "masakhaner_x@ha", "ha")
    refused = {"B-PER\nI-PER\n": "2 tags for the 5 words", "I-\nO\nO\nO\nO\n": "'I-' is not a tag"}
    for tags, message in refused.items():
        path.write_text(f"{tags}\nO\n\n")
        with pytest.raises(DataError, match=rf"{message}.*[\s\S]*test-ha.tsv, sentence 1"):
            score_files(tmp_path / "given", tmp_path / "gold")


def test_what_cannot_be_scored_is_refused_with_its_place(tmp_path):
    write_official(tmp_path, "ner", NAMES, "target")
    lines = [{"prediction": given} for _, given in NAMES]
    for wrong, message in (
        ([*lines[:2], {"label": ""}], r"no 'prediction'.*[\s\S]*sw.jsonl:3"),
        (lines[1:], "5 items"),
    ):
        write(tmp_path / "given" / "ner" / "test" / "sw.jsonl", wrong)
        with pytest.raises(DataError, match=message):
            score_files(tmp_path / "given", tmp_path / "gold")
    with pytest.raises(DataError, match="qa_cross_lang"):
        score_files(tmp_path, tmp_path / "gold")
