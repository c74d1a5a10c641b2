"""The real data root is read whole, with the counts that its README.txt has."""

import functools
import json
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import (
    DataSource,
    available_languages,
    read_counted,
    read_examples,
    read_retrieval,
)

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


def test_spans_in_bytes_are_the_names_that_the_release_lists():
    """Tags, put back into text, against the release's own list of names."""
    labels = get_task("masakhaner_x").labels
    rows = (ROOT / "masakhaner_x/yo/test.jsonl").read_text("utf-8").split("\n")
    examples = read_counted(get_task("masakhaner_x"), "test", "yo", SOURCE).examples
    for example, row in zip(examples, filter(None, rows), strict=True):
        found = []
        for word, tag in zip(example.words, example.tags):
            place, _, label = labels[tag].partition("-")
            if place == "B":
                found.append(f"{label}:{word}")
            elif place == "I":
                found[-1] += word
        assert "$$".join(found) == re.sub(r"\s", "", json.loads(row)["target"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "split"), [("xquad", "test"), ("mlqa", "dev"), ("squad_v2", "dev")])
def test_every_real_answer_is_sliced_from_some_window(name, split, real_tokenizer):
    task, source = get_task(name), SOURCE
    languages = available_languages(task, split, source)
    # Each answer of each question by itself.
    read = {language: read_examples(task, split, language, source) for language in languages}
    examples = {
        language: [replace(each, answers=(answer,)) for each in found for answer in each.answers]
        for language, found in read.items()
    }
    sizes = FeatureSettings(384, 64, 128)
    columns = build_features("span", examples, real_tokenizer, sizes, training=False).columns
    everything = [(language, each) for language in languages for each in examples[language]]
    hit = set()
    for row in np.flatnonzero(columns["start"]).tolist():
        index = int(columns["example"][row])
        _, example = everything[index]
        a, b = int(columns["start"][row]), int(columns["end"][row])
        begin, end = columns["char_start"][row], columns["char_end"][row]
        text, start = example.answers[0]
        text = text.rstrip("\u200b")  # no subword covers a space of no width
        # Where a subword goes beyond the answer's border, one subword less would lose a part of the answer.
        assert text in example.context[begin[a] : end[b]]
        assert begin[a] <= start < end[a] and begin[b] < start + len(text) <= end[b]
        hit.add(index)
    assert sorted(hit) == list(range(len(everything)))


@pytest.mark.slow
def test_real_text_of_every_language_survives_a_round_trip(real_tokenizer):
    real = real_tokenizer
    assert (real.vocab_size, real.mask_id) == (250002, 250001)
    fast = AutoTokenizer.from_pretrained(real.source)
    normalize = fast.backend_tokenizer.normalizer.normalize_str
    decode = functools.partial(fast.decode, skip_special_tokens=True)
    with_unknown = set()
    files = sorted(os.scandir(ROOT / "text"), key=lambda entry: entry.name)
    for entry in files:
        with open(entry, encoding="utf-8") as file:
            texts = [line.strip() for line in file][:50]
        encoded = real.encode(texts)
        for index, text in enumerate(texts):
            ids = encoded.ids[encoded.offsets[index] : encoded.offsets[index + 1]]
            expected = " ".join(normalize(text).split())
            if 3 in ids:  # what the vocabulary lacks is lost, as the tokenizer defines it, and nothing else
                rest = iter(expected)
                assert all(character in rest for character in decode(ids).replace(" ", "")), entry.name
                with_unknown.add(entry.name)
            else:
                assert decode(ids) == expected, entry.name
    assert len(files) > 50 and len(with_unknown) < 0.2 * len(files)
