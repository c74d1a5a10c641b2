"""A user's own data in a few lines: each kind from each format, read back value by value."""

import json

import pytest

from stilts_jax.data.sources import DataSource, available_languages, read_examples, read_retrieval
from stilts_jax.errors import ConfigError, DataError
from stilts_jax.tasks import get_task
from stilts_jax.tasks.custom import choice_task, classify_task, pair_task, span_task, tag_task
from stilts_jax.tasks.spec import ChoiceExample, ClassifyExample, EmbedExample, SpanExample, TagExample

DECLARATION = """
from stilts_jax.tasks.custom import classify_task

REVIEWS = classify_task(
    "reviews",
    files={"train": "train.jsonl", "test": "test-{language}.csv"},
    labels=("bad", "good"),
    text="review",
    label="verdict",
    languages=("en", "de"),
)
"""


def test_a_declaration_in_one_file(tmp_path, monkeypatch):
    (tmp_path / "my_reviews.py").write_text(DECLARATION)
    (tmp_path / "train.jsonl").write_text('{"review": "Fine.", "verdict": "good"}\n')
    (tmp_path / "test-de.csv").write_text('review,verdict\n"Na, ""gut"".",bad\n')
    monkeypatch.syspath_prepend(tmp_path)
    task, source = get_task("my_reviews:REVIEWS"), DataSource(tmp_path)
    assert read_examples(task, "train", "en", source) == [ClassifyExample("0", "Fine.", None, 1)]
    assert read_examples(task, "test", "de", source) == [ClassifyExample("0", 'Na, "gut".', None, 0)]
    assert available_languages(task, "test", source) == ("de",)


def test_choice(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,choice1,choice2,label\nIt rained.,wet,dry,0\nSun.,wet,dry,1\n")
    task = choice_task("weather", files={"train": "a.csv"})
    assert read_examples(task, "train", "en", DataSource(tmp_path)) == [
        ChoiceExample("0", "It rained.", ("wet", "dry"), 0),
        ChoiceExample("1", "Sun.", ("wet", "dry"), 1),
    ]
    (tmp_path / "a.csv").write_text("prompt,choice1,choice2,label\nIt rained.,wet,dry,2\n")
    with pytest.raises(DataError, match="label is '2'"):
        read_examples(task, "train", "en", DataSource(tmp_path))


def test_tag_from_lists_and_from_text(tmp_path):
    rows = [{"words": ["A", "b c"], "tags": ["X", "Y"]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.csv").write_text("words,tags\nA b,X Y\n")
    task = tag_task("parts", files={"train": "a.jsonl", "dev": "b.csv"}, labels=("X", "Y"))
    source = DataSource(tmp_path)
    assert read_examples(task, "train", "en", source) == [TagExample("0", ("A", "b c"), (0, 1))]
    assert read_examples(task, "dev", "en", source) == [TagExample("0", ("A", "b"), (0, 1))]


def test_span_from_rows(tmp_path):
    (tmp_path / "a.csv").write_text("question,context,answer,answer_start\nWho?,Here is Ann.,Ann,8\n")
    task = span_task("who", files={"train": "a.csv"})
    (example,) = read_examples(task, "train", "en", DataSource(tmp_path))
    assert example == SpanExample("0", "Who?", "Here is Ann.", (("Ann", 8),))
    (tmp_path / "a.csv").write_text("question,context,answer,answer_start\nWho?,Here is Ann.,Ann,7\n")
    with pytest.raises(DataError, match="not at character 7") as caught:
        read_examples(task, "train", "en", DataSource(tmp_path))
    assert "a.csv:2" in caught.value.where


def test_pairs_train_and_are_found_again(tmp_path):
    rows = [{"text": f"question {index}", "positive": f"answer {index}"} for index in range(3)]
    for name in ("train", "test-de"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = pair_task(
        "faq", files={"train": "train.jsonl", "test": "test-{language}.jsonl"}, languages=("de",)
    )
    source = DataSource(tmp_path)
    assert read_examples(task, "train", "en", source)[1] == EmbedExample("1", "question 1", "answer 1")
    pool = read_retrieval(task, "test", "de", source)
    texts = {candidate.id: candidate.text for candidate in pool.candidates}
    for index, query in enumerate(pool.queries):
        assert query.text == f"question {index}"
        assert [texts[name] for name in pool.gold[query.id]] == [f"answer {index}"]


def test_a_file_of_unknown_format_is_refused():
    with pytest.raises(ConfigError, match="how it is read"):
        classify_task("x", files={"train": "train.xlsx"}, labels=("a",))
