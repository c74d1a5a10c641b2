"""TFDS data: the library's own builders with their download replaced, prepared and read without tensorflow."""

import dataclasses
import importlib.util
import json
import sys

import pytest

from stilts_jax.errors import DataError
from stilts_jax.main import main
from stilts_jax.tasks import get_task, list_tasks
from stilts_jax.tasks.sources import tfds
from stilts_jax.tasks.sources.inventory import prepare
from stilts_jax.tasks.sources.read import DataSource, find_paths, read_examples, read_retrieval

tensorflow_datasets = pytest.importorskip("tensorflow_datasets")
ANSWERS = {"text": ["Ann", "Bo"], "answer_start": [0, 11]}
TEXT = "Ann kam, и Bo."
QUESTION = {"id": "english-1-0", "title": "t", "context": TEXT, "question": "Wer?", "answers": ANSWERS}
ASKED = ("Wer?", TEXT, (("Ann", 0), ("Bo", 11)), False)
XNLI = get_task("xnli").languages
PAIR = {"premise": "a", "hypothesis": "b", "label": "contradiction"}
# Task, its split and language; builder, configuration and the builder's split; a row, and the fields of an example
# behind its id. Features, configurations and class names are those of the builder itself.
BUILDERS = [
    ("mnli", "dev", "en", "multi_nli", "", "validation_matched", PAIR, ("a", "b", 0)),
    ("snli", "dev", "en", "snli", "", "validation", PAIR, ("a", "b", 0)),
    ("qqp", "dev", "en", "glue", "qqp", "validation",
        {"question1": "a?", "question2": "b?", "label": "duplicate", "idx": 0}, ("a?", "b?", 1)),
    ("squad_v1", "dev", "en", "squad", "v1.1", "validation", QUESTION, ASKED),
    ("squad_v2", "dev", "en", "squad", "v2.0", "validation",
        QUESTION | {"answers": {"text": [], "answer_start": []}, "plausible_answers": ANSWERS, "is_impossible": True},
        ("Wer?", TEXT, (), True)),
    ("cosmosqa", "dev", "en", "cosmos_qa", "", "validation",
        {"id": "1", "context": "A.", "question": "B?", "label": 2} | {f"answer{n}": str(n) for n in range(4)},
        ("A. B?", ("0", "1", "2", "3"), 2)),
    ("xnli", "test", "sw", "xnli", "", "test",
        {"premise": {code: f"premise {code}" for code in XNLI},
            "hypothesis": {code: f"Hypothese {code} ü" for code in XNLI}, "label": "contradiction"},
        ("premise sw", "Hypothese sw ü", 0)),
    ("panx", "test", "ru", "wikiann", "ru", "test",
        {"tokens": ["в", "Уфе"], "tags": ["O", "B-LOC"], "langs": ["ru", "ru"], "spans": ["LOC: Уфе"]},
        (("в", "Уфе"), (6, 0))),
    ("mlqa", "test", "de", "mlqa", "de", "test", QUESTION, ASKED),
    ("tydiqa", "test", "en", "tydi_qa", "goldp", "validation-en", QUESTION, ASKED),
    ("tatoeba", "test", "sw", "tatoeba", "tatoeba_sw", "train",
        {"source_sentence": "jua", "target_sentence": "Sun", "source_language": "swh", "target_language": "eng"},
        ("Sun", None)),
    *(
        ("anli", "dev", "en", "anli", config, "validation",
            {"uid": config, "context": config, "hypothesis": "b", "label": "c"}, (config, "b", 0))
        for config in ("r1", "r2", "r3")
    ),
]  # fmt: skip
NEEDS_TENSORFLOW = {"super_glue"}


def _tfds(name):
    return next(source for source in get_task(name).sources if source.kind == "tfds")


@pytest.fixture
def without_download(monkeypatch):
    """Replaces what the builders would download by one row a split."""
    import tensorflow_datasets.question_answering
    import tensorflow_datasets.text

    splits: dict = {}
    for *_, builder, config, split, row, _ in BUILDERS:
        splits.setdefault(builder, {}).setdefault(config, {})[split] = row

    def patch(builder):
        def split_generators(self, *arguments):
            config = self.builder_config.name if self.builder_config else ""
            rows = splits[builder].get(config, {})
            return {split: iter([(0, row)]) for split, row in rows.items()}

        monkeypatch.setattr(tensorflow_datasets.builder_cls(builder), "_split_generators", split_generators)

    for builder in splits:
        patch(builder)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="shows that it is not needed")
def test_every_builder_is_prepared_and_read_without_tensorflow(without_download, tmp_path, capsys):
    names = sorted({name for name, *_ in BUILDERS} | {"copa"})
    arguments = ["prepare", *names, "--source=tfds", f"--data_root={tmp_path}", "--languages=de+sw+ru"]
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    source = DataSource(tmp_path, kind="tfds")
    for name, split, language, builder, config, _, _, read_as in BUILDERS:
        task = get_task(name)
        if task.retrieval:
            examples = read_retrieval(task, split, language, source).queries
        else:
            examples = read_examples(task, split, language, source)
        assert read_as in [dataclasses.astuple(example)[1 : 1 + len(read_as)] for example in examples], name
        paths = " ".join(map(str, find_paths(task, split, language, source)))
        assert f"/tfds/{builder}/{config}" in paths
    assert "tensorflow" not in sys.modules
    # The one builder that can't be prepared without it says so, and what to install.
    said = [line for line in printed.splitlines() if "super_glue/copa can't be prepared" in line]
    assert len(said) == 2 and all("copa" in line and "No module named 'tensorflow'" in line for line in said)
    with pytest.raises(DataError) as caught:
        tfds.fetch(_tfds("copa"), "dev", "en", tmp_path)
    assert "stilts-jax[tfds-prepare]" in caught.value.fix


def test_every_builder_that_a_task_names_is_tried_here():
    tried = {builder for _, _, _, builder, *_ in BUILDERS} | NEEDS_TENSORFLOW
    for name in list_tasks():
        assert {source.name for source in get_task(name).sources if source.kind == "tfds"} <= tried


@pytest.fixture
def snli(without_download, tmp_path):
    """A prepared data set: its source, its files' folder and what TFDS wrote about it."""
    source = DataSource(tmp_path, kind="tfds")
    tfds.fetch(_tfds("snli"), "dev", "en", tmp_path)
    (info,) = (tmp_path / "tfds").rglob("dataset_info.json")
    return source, info


def test_other_features_and_tensorflows_own_format_are_refused(snli):
    source, info = snli
    features = info.with_name("features.json")
    features.write_text(features.read_text().replace('"label"', '"gold"'))
    with pytest.raises(DataError, match="label"):
        read_examples(get_task("snli"), "dev", "en", source)
    for changed in ({"fileFormat": "tfrecord"}, {"splits": [7]}):
        info.write_text(json.dumps({**json.loads(info.read_text()), **changed}))
        with pytest.raises(DataError) as caught:
            read_examples(get_task("snli"), "dev", "en", source)
        assert "stilts prepare" in caught.value.fix


def test_a_builder_that_failed_is_not_tried_again_and_its_error_is_short(tmp_path, monkeypatch):
    calls = []

    def refuse(*arguments, **keywords):
        calls.append(arguments)
        raise RuntimeError("no such builder: " + "x" * 5000)

    monkeypatch.setattr(tensorflow_datasets, "builder", refuse)
    source = DataSource(tmp_path, kind="tfds")
    splits, _ = prepare([get_task("panx")], source, languages=["de", "sw"], download=True)
    assert len(calls) == 1 and len(splits) > 3
    for split in splits:
        assert split.found is None and len(split.note) < 500 and "wikiann" in split.note
