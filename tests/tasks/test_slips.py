"""Ordinary slips in every kind of file: refused with the file's line and the name of the field, never a traceback."""

import json

import pytest

from stilts_jax.errors import DataError
from stilts_jax.tasks.sources.read import DataSource, read_counted, read_retrieval
from stilts_jax.tasks.spec import names
from tests.tasks.seed_files import SEEDS

# Fields that no task reads, or that may be absent; and gold, whose absence is said as such.
UNREAD = names(
    "ind changed question_concept title version pairID uid dialect question_translated answer_lang"
)
GOLD = names("""
    label gold_label correct answerKey answers entity_id answer tags is_impossible correct_answer_num spans
""")
DEEP = json.loads("[" * 60 + "]" * 60)


def read(seed, root):
    source = DataSource(root)
    if seed.task.retrieval and seed.split == seed.task.reported:
        return read_retrieval(seed.task, seed.split, seed.language, source)
    return read_counted(seed.task, seed.split, seed.language, source)


def spots(value, *way):
    """Yields the way to each key of nested objects."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*way, key)
            yield from spots(inner, *way, key)
    elif isinstance(value, list) and value:
        yield from spots(value[0], *way, 0)


def replaced(document, way, *value):
    """Returns a copy in which what ``way`` leads to is another value, or is missing."""
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in way[:-1]:
        inner = inner[key]
    del inner[way[-1]]
    if value:
        inner[way[-1]] = value[0]
    return copy


CASES = [
    (name, path)
    for name, seed in SEEDS.items()
    for path in seed.files
    if path.endswith((".jsonl", ".json")) and not path.endswith("labels/test-de.json")
]


def test_the_seeds_are_sound(tmp_path, write):
    for name, seed in SEEDS.items():
        for path, text in seed.files.items():
            write(f"{name}/{path}", text)
        found = read(seed, tmp_path / name)
        assert not found.skipped and (getattr(found, "examples", None) or found.queries), name


@pytest.mark.parametrize(("name", "path"), CASES)
def test_a_missing_null_or_misplaced_value_is_a_bad_row(tmp_path, write, name, path):
    seed = SEEDS[name]
    for other, text in seed.files.items():
        write(other, text)
    text, by_line = seed.files[path], path.endswith(".jsonl") or name == "afriqa"
    documents = [json.loads(line) for line in text.splitlines()] if by_line else [json.loads(text)]
    for way in spots(documents[-1]):
        if way[-1] in UNREAD or path.endswith("tags_to_id.json"):
            continue
        for slip in ((), (None,), (7.5,), (DEEP,), ({},)):
            changed = [*documents[:-1], replaced(documents[-1], way, *slip)]
            write(path, "".join([json.dumps(one, indent=None if by_line else 1) + "\n" for one in changed]))
            elsewhere = name in ("mewslix labels", "mewslix pairs") and way[0] != "entity_id"
            if (
                (way[-1] == "is_impossible" and not slip)  # may be absent
                or (name, way[-1], slip) == ("afriqa", "context", (None,))  # such rows are dropped
                or (way[-1] == "entity_id" and elsewhere)
            ):
                continue
            with pytest.raises(DataError) as caught:
                pytest.fail(f"{way} {slip}: {read(seed, tmp_path)}")
            what, where = caught.value.what, caught.value.where
            assert str(way[-1]) in what or (way[-1] in GOLD and "blank" in what), (way, slip, what)
            line = f":{len(documents)}" if by_line else ""
            assert f"{path}{line}" in where, (way, slip, where)
