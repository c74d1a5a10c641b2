"""The real data root is read whole, with the counts that its README.txt has."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import (
    DataSource,
    available_languages,
    read_counted,
    read_labels,
    read_retrieval,
)
from stilts_jax.tasks.spec import counts

ROOT = Path(os.environ.get("STILTS_REAL_DATA", "/nowhere"))
SOURCE = DataSource(ROOT)
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (ROOT / "README.txt").is_file(), reason="STILTS_REAL_DATA names no data root"),
]
S, L = r"(?P<split>train|dev|val|valid|validation|test)", r"(?P<language>\w+)"
# Which task reads a file, and as what. Files of one split and language are counted together.
EXAMPLES = {
    "mnli": rf"mnli/multinli_1\.0_{S}(_matched|_mismatched)?\.jsonl",
    "snli": rf"snli/snli_1\.0_{S}\.jsonl",
    "squad_v1": rf"squad/{S}-v1\.1\.json",
    "squad_v2": rf"squad/{S}-v2\.0\.json",
    "hellaswag": rf"hellaswag/hellaswag_{S}\.jsonl",
    "cosmosqa": rf"cosmosqa/{S}\.csv",
    "commonsenseqa": rf"commonsenseqa/{S}_rand_split\.jsonl",
    "ccg": rf"ccg/{S}(-{L})?\.tsv",
    **{name: rf"{name}/{S}-{L}\.tsv" for name in ("xnli", "pawsx", "udpos", "panx")},
    "xcopa": rf"xcopa/{S}-{L}\.jsonl",
    "xquad": rf"xquad/xquad\.{L}\.json",
    "mlqa": rf"mlqa/MLQA_V1/{S}/\w+-context-{L}-question-(?P=language)\.json",
    "sib200": rf"sib200/{L}/{S}\.tsv",
    "belebele": rf"belebele/{L}\.jsonl",
    "masakhaner2": rf"masakhaner2/{L}/{S}\.txt",
    "masakhaner_x": rf"masakhaner_x/{L}/{S}\.jsonl",
    "nusax": rf"nusax/{L}/{S}\.csv",
    "uner": rf"uner/\w+-\w+/{L}_\w+-ud-{S}\.iob2",
    "afriqa": rf"afriqa/gold_passages/\w+/gold_span_passages\.afriqa\.{L}\.\w+\.(?P<split>dev|test)\.json",
}
SPLITS = {"val": "dev", "valid": "dev", "validation": "dev"}
QUERIES = {
    "tatoeba": r"tatoeba/(?P<language>\w+)-en\.en",
    "bucc": r"bucc2018/(?P<language>\w+)-en\.(?P<split>dev|test)\.en",
    "lareqa": r"lareqa/xquad-r/(?P<language>\w+)\.json",
}


def counts_of_readme():
    """The table behind "Files": path, count, unit."""
    table = (ROOT / "README.txt").read_text("utf-8").split("\nFiles\n-----\n")[1]
    rows = (re.fullmatch(r"(\S+) +(\d+) (\w+)", line) for line in table.splitlines())
    return {row[1]: int(row[2]) for row in rows if row}


def counted(patterns):
    """Counts by task, split and language of the files that patterns name."""
    found = Counter()
    for path, count in counts_of_readme().items():
        for name, pattern in patterns.items():
            match = re.fullmatch(pattern, path)
            if match and "_mismatched" not in path:
                parts = {"language": None, "split": "test", **match.groupdict()}
                codes = [pair for source in get_task(name).sources for pair in source.codes.items()]
                ours = {theirs: one for one, theirs in codes}
                language, split = parts["language"] or "en", parts["split"]
                found[name, SPLITS.get(split, split), ours.get(language, language)] += count
    return found


def examples_of(name, split, language):
    return read_counted(get_task(name), split, language, SOURCE).examples


@pytest.mark.slow
def test_every_row_of_every_task_is_read():
    counts = counted(EXAMPLES)
    for (name, split, language), count in counts.items():
        reading = read_counted(get_task(name), split, language, SOURCE)
        dropped = reading.dropped if name == "afriqa" else 0  # rows without a passage or an answer
        assert (len(reading.examples) + dropped, reading.skipped) == (count, ()), (name, split, language)
        assert len({example.id for example in reading.examples}) == len(reading.examples)
    assert {name for name, _, _ in counts} == set(EXAMPLES)
    # Nothing is found that the table does not have.
    for name in EXAMPLES:
        for split in ("train", "dev", "test"):
            if (name, split) != ("afriqa", "train"):  # not all its rows can be trained on
                there = available_languages(get_task(name), split, SOURCE, beyond=True)
                assert set(there) == {key[2] for key in counts if key[:2] == (name, split)}, (name, split)


def test_anli_plus_is_the_sum_of_its_parts():
    counts = counts_of_readme()
    for split, mnli in (("train", "train"), ("dev", "dev_matched")):
        parts = [f"anli/R{number}/{split}.jsonl" for number in (1, 2, 3)]
        parts += [f"snli/snli_1.0_{split}.jsonl", f"mnli/multinli_1.0_{mnli}.jsonl"]
        assert len(examples_of("anli", split, "en")) == sum(counts[part] for part in parts)


@pytest.mark.slow
def test_retrieval_sets_have_their_sizes_and_their_gold():
    files, counts = counts_of_readme(), counted(QUERIES)
    for (name, split, language), count in counts.items():
        pool = read_retrieval(get_task(name), split, language, SOURCE)
        names = {candidate.id for candidate in pool.candidates}
        assert len(names) == len(pool.candidates)
        assert names.issuperset(right for gold in pool.gold.values() for right in gold)
        if name == "bucc":
            stem = f"bucc2018/{language}-en.{split}"
            sizes = [files[f"{stem}.{end}"] for end in (language, "en", "gold")]
            assert [len(pool.queries), len(pool.candidates), sum(map(len, pool.gold.values()))] == sizes
        else:
            assert len(pool.queries) == len(pool.gold) == count, (name, language)
    assert {name for name, _, _ in counts} == set(QUERIES)


def test_lareqas_pool_is_as_big_as_its_languages_together():
    # Sentences of XQuAD-R by language, as counted in its paper's repository.
    sizes = counts("ar:1222 de:1276 el:1234 en:1180 es:1215 hi:1244 ru:1219 th:852 tr:1167 vi:1209 zh:1196")
    languages = available_languages(get_task("lareqa"), "test", SOURCE)
    pools = [read_retrieval(get_task("lareqa"), "test", language, SOURCE) for language in languages]
    assert len(pools[0].candidates) == sum(sizes[language] for language in languages)
    assert all(pool.candidates is pools[0].candidates for pool in pools)
    assert all(len(gold) >= len(languages) for gold in pools[0].gold.values())


@pytest.mark.slow
def test_carved_splits_have_the_counts_that_are_expected():
    expected = get_task("tydiqa").counts
    carved = {split: len(examples_of("tydiqa", split, "en")) for split in ("train", "dev")}
    assert carved == {split: expected[split]["en"] for split in carved} and sum(carved.values()) == 3_696
    for path, count in counts_of_readme().items():
        if re.fullmatch(r"text/\w+\.txt", path):
            assert sum(len(examples_of("mlm", split, Path(path).stem)) for split in ("train", "dev")) == count


def test_gold_is_there_and_answers_are_slices():
    for language in available_languages(get_task("xquad"), "test", SOURCE):
        for example in examples_of("xquad", "test", language):
            assert example.answers
            for text, start in example.answers:
                assert example.context[start : start + len(text)] == text
    labels = read_labels(get_task("ccg"), SOURCE)
    unseen = [not 0 <= tag < len(labels) for one in examples_of("ccg", "dev", "en") for tag in one.tags]
    # README.txt: "ccg/dev.tsv: 13 of 7368 words have a tag that train.tsv has not."
    said = re.search(r"ccg/dev\.tsv: (\d+) of (\d+) words", (ROOT / "README.txt").read_text("utf-8"))
    assert (sum(unseen), len(unseen)) == (int(said[1]), int(said[2]))


def test_spans_in_bytes_are_the_names_that_the_release_lists():
    """Tags, put back into text, against the release's own list of names."""
    labels = get_task("masakhaner_x").labels
    rows = (ROOT / "masakhaner_x/yo/test.jsonl").read_text("utf-8").split("\n")
    for example, row in zip(examples_of("masakhaner_x", "test", "yo"), filter(None, rows), strict=True):
        found = []
        for word, tag in zip(example.words, example.tags):
            place, _, label = labels[tag].partition("-")
            if place == "B":
                found.append(f"{label}:{word}")
            elif place == "I":
                found[-1] += word
        assert "$$".join(found) == re.sub(r"\s", "", json.loads(row)["target"])
