"""The real data root is read whole, with the counts that its README.txt has."""

import os
import re
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

ROOT = Path(os.environ.get("STILTS_REAL_DATA", "/nowhere"))
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (ROOT / "README.txt").is_file(), reason="STILTS_REAL_DATA names no data root"),
]
# Which task reads a file, and as what; a pattern's groups are split and language where the file's name has
# them.
EXAMPLES = {
    r"mnli/multinli_1\.0_(train|dev)\w*\.jsonl": "mnli",
    r"snli/snli_1\.0_(train|dev)\.jsonl": "snli",
    r"squad/(train|dev)-v1\.1\.json": "squad_v1",
    r"squad/(train|dev)-v2\.0\.json": "squad_v2",
    r"hellaswag/hellaswag_(train|val)\.jsonl": "hellaswag",
    r"cosmosqa/(train|valid)\.csv": "cosmosqa",
    r"commonsenseqa/(train|dev)_rand_split\.jsonl": "commonsenseqa",
    r"ccg/(train|dev|test)(?:-(\w+))?\.tsv": "ccg",
    r"xnli/(train|dev|test)-(\w+)\.tsv": "xnli",
    r"pawsx/(train|dev|test)-(\w+)\.tsv": "pawsx",
    r"udpos/(train|dev|test)-(\w+)\.tsv": "udpos",
    r"panx/(train|dev|test)-(\w+)\.tsv": "panx",
    r"xcopa/(train|val|test)-(\w+)\.jsonl": "xcopa",
    r"xquad/()xquad\.(\w+)\.json": "xquad",
    r"mlqa/MLQA_V1/(dev|test)/\w+-context-(\w+)-question-\2\.json": "mlqa",
}
SPLITS = {"val": "dev", "valid": "dev", "": "test"}
QUERIES = {
    r"tatoeba/(\w+)-en\.(en)()": "tatoeba",
    r"bucc2018/(\w+)-en\.(dev|test)\.(en)": "bucc",
    r"lareqa/xquad-r/(\w+)\.json()()": "lareqa",
}


def counts_of_readme():
    """The table behind "Files": path, count, unit."""
    table = (ROOT / "README.txt").read_text("utf-8").split("\nFiles\n-----\n")[1]
    rows = (re.fullmatch(r"(\S+) +(\d+) (\w+)", line) for line in table.splitlines())
    return {row[1]: int(row[2]) for row in rows if row}


def matching(patterns, path):
    for pattern, task in patterns.items():
        found = re.fullmatch(pattern, path)
        if found:
            return task, found.groups()
    return None


@pytest.mark.slow
def test_every_row_of_every_task_is_read():
    source = DataSource(ROOT)
    seen = set()
    for path, count in counts_of_readme().items():
        found = matching(EXAMPLES, path)
        if not found:
            continue
        name, (split, *rest) = found
        split, language = SPLITS.get(split, split), (rest[0] if rest and rest[0] else "en")
        task = get_task(name)
        reading = read_counted(task, split, language, source)
        assert (len(reading.examples), reading.skipped) == (count, ()), path
        assert len({example.id for example in reading.examples}) == count, path
        assert language in available_languages(task, split, source, beyond=True), path
        seen.add((name, split, language))
    assert {name for name, _, _ in seen} == set(EXAMPLES.values())
    # Nothing is found that the table does not have.
    for name in set(EXAMPLES.values()):
        for split in ("train", "dev", "test"):
            for language in available_languages(get_task(name), split, source, beyond=True):
                assert (name, split, language) in seen


def test_anli_plus_is_the_sum_of_its_parts():
    counts = counts_of_readme()
    for split, mnli in (("train", "train"), ("dev", "dev_matched")):
        parts = [f"anli/R{number}/{split}.jsonl" for number in (1, 2, 3)]
        parts += [f"snli/snli_1.0_{split}.jsonl", f"mnli/multinli_1.0_{mnli}.jsonl"]
        examples = read_counted(get_task("anli"), split, "en", DataSource(ROOT)).examples
        assert len(examples) == sum(counts[part] for part in parts)


def test_retrieval_sets_have_their_sizes_and_their_gold():
    counts, source, seen = counts_of_readme(), DataSource(ROOT), set()
    for path, count in counts.items():
        found = matching(QUERIES, path)
        if not found:
            continue
        name, (language, split, _) = found
        split = split if split in ("dev", "test") else "test"
        pool = read_retrieval(get_task(name), split, language, source)
        names = {candidate.id for candidate in pool.candidates}
        assert len(names) == len(pool.candidates)
        assert names.issuperset(right for gold in pool.gold.values() for right in gold)
        if name == "bucc":
            stem = f"bucc2018/{language}-en.{split}"
            sizes = [counts[f"{stem}.{end}"] for end in (language, "en", "gold")]
            assert [len(pool.queries), len(pool.candidates), sum(map(len, pool.gold.values()))] == sizes
        else:
            assert len(pool.queries) == len(pool.gold) == count, path
        seen.add((name, split, language))
    assert {name for name, _, _ in seen} == {"tatoeba", "bucc", "lareqa"}


def test_lareqas_pool_is_as_big_as_its_languages_together():
    # Sentences of XQuAD-R by language, as counted in its paper's repository.
    numbers = "ar 1222 de 1276 el 1234 en 1180 es 1215 hi 1244 ru 1219 th 852 tr 1167 vi 1209 zh 1196"
    codes_and_sizes = numbers.split()
    sizes = dict(zip(codes_and_sizes[::2], map(int, codes_and_sizes[1::2])))
    task, source = get_task("lareqa"), DataSource(ROOT)
    languages = available_languages(task, "test", source)
    pools = [read_retrieval(task, "test", language, source) for language in languages]
    assert len(pools[0].candidates) == sum(sizes[language] for language in languages)
    assert all(pool.candidates is pools[0].candidates for pool in pools)
    assert all(len(gold) >= len(languages) for gold in pools[0].gold.values())


def test_text_is_read_line_by_line():
    source, task = DataSource(ROOT), get_task("mlm")
    for path, count in counts_of_readme().items():
        if re.fullmatch(r"text/\w+\.txt", path):
            parts = [read_counted(task, split, Path(path).stem, source) for split in ("train", "dev")]
            assert sum(len(part.examples) for part in parts) == count, path


def test_gold_is_there_and_answers_are_slices():
    source = DataSource(ROOT)
    for language in available_languages(get_task("xquad"), "test", source):
        for example in read_counted(get_task("xquad"), "test", language, source).examples:
            assert example.answers
            for text, start in example.answers:
                assert example.context[start : start + len(text)] == text
    labels = read_labels(get_task("ccg"), source)
    unseen = [
        not 0 <= tag < len(labels)
        for example in read_counted(get_task("ccg"), "dev", "en", source).examples
        for tag in example.tags
    ]
    # README.txt: "ccg/dev.tsv: 13 of 7368 words have a tag that train.tsv has not."
    said = re.search(r"ccg/dev\.tsv: (\d+) of (\d+) words", (ROOT / "README.txt").read_text("utf-8"))
    assert (sum(unseen), len(unseen)) == (int(said[1]), int(said[2]))
