"""TFDS data: local builders with exactly the documented features, prepared and read without tensorflow."""

import importlib
import json
import sys
import textwrap

import numpy as np
import pytest

from stilts_jax.data import tfds
from stilts_jax.data.prepare import prepare
from stilts_jax.data.sources import (
    DataSource,
    available_languages,
    fingerprint,
    read_examples,
    read_retrieval,
)
from stilts_jax.errors import DataError
from stilts_jax.tasks import get_task

tensorflow_datasets = pytest.importorskip("tensorflow_datasets")
features = tensorflow_datasets.features
TEXT = features.Text()
NLI = features.ClassLabel(names=["entailment", "neutral", "contradiction"])
LANGUAGES = ["ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"]
SQUAD = {
    "id": TEXT,
    "title": TEXT,
    "context": TEXT,
    "question": TEXT,
    "answers": features.Sequence({"text": TEXT, "answer_start": np.int32}),
}
QUESTION = {
    "id": "english-1-0",
    "title": "t",
    "context": "Ann kam, и Bo.",
    "question": "Wer?",
    "answers": {"text": ["Ann", "Bo"], "answer_start": [0, 11]},
}

# A builder has to live in a package; TFDS looks for files beside it.
BUILDER = """
import tensorflow_datasets as tfds

class {name}(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("{version}")
    {configs}
    FEATURES, SPLITS = None, None

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.FEATURES))

    def _split_generators(self, dl_manager):
        return {{split: self._generate_examples(split) for split in self.SPLITS}}

    def _generate_examples(self, split):
        yield from enumerate(self.SPLITS[split])
"""


@pytest.fixture
def source(tmp_path):
    return DataSource(tmp_path / "root", kind="tfds")


@pytest.fixture
def build(tmp_path, source, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def build_data(name, config, columns, splits, file_format="array_record", version="1.0.0"):
        package = tmp_path / f"builder_{name}_{config or 'one'}_{version}".replace(".", "_")
        package.mkdir()
        (package / "__init__.py").write_text("")
        configs = f'BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="{config}")]' if config else ""
        class_name = "".join(part.title() for part in name.split("_"))
        code = textwrap.dedent(BUILDER).format(name=class_name, configs=configs, version=version)
        (package / "builder.py").write_text(code)
        cls = getattr(importlib.import_module(f"{package.name}.builder"), class_name)
        cls.FEATURES, cls.SPLITS, cls.name = columns, splits, name
        data_dir = str(source.root / "tfds")
        cls(
            data_dir=data_dir, file_format=file_format, **({"config": config} if config else {})
        ).download_and_prepare()

    return build_data


def test_xnli_holds_all_languages_in_a_row(source, build):
    columns = {
        "premise": features.Translation(languages=LANGUAGES),
        "hypothesis": features.TranslationVariableLanguages(languages=LANGUAGES),
        "label": NLI,
    }
    premise = {language: f"premise {language}" for language in LANGUAGES}
    row = {
        "premise": premise,
        "hypothesis": {language: f"Hypothese {language} ü" for language in LANGUAGES},
        "label": 2,
    }
    build("xnli", "", columns, {"validation": [row], "test": [row]})
    task = get_task("xnli")
    (example,) = read_examples(task, "dev", "sw", source)
    assert (example.text, example.pair) == ("premise sw", "Hypothese sw ü")
    assert task.labels[example.label] == "contradiction"
    assert set(available_languages(task, "test", source)) == set(LANGUAGES)
    build("xtreme_xnli", "", columns, {"train": [row]}, version="1.1.0")
    (example,) = read_examples(get_task("mnli@de"), "train", "de", source)
    assert example.text == "premise de"
    assert "tensorflow" not in sys.modules


def test_wikiann(source, build):
    names = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
    columns = {
        "tokens": features.Sequence(TEXT),
        "tags": features.Sequence(features.ClassLabel(names=names)),
        "langs": features.Sequence(TEXT),
        "spans": features.Sequence(TEXT),
    }
    row = {"tokens": ["в", "Уфе"], "tags": [0, 5], "langs": ["ru", "ru"], "spans": ["LOC: Уфе"]}
    build("wikiann", "ru", columns, {"validation": [row]})
    (example,) = read_examples(get_task("panx"), "dev", "ru", source)
    assert example.words == ("в", "Уфе") and example.tags == (6, 0)
    assert available_languages(get_task("panx"), "dev", source) == ("ru",)


def test_tamil_and_tagalog_stand_the_wrong_way_round_in_the_builder(source, build):
    upos = [*get_task("udpos").labels, "_"]
    columns = {"tokens": features.Sequence(TEXT), "upos": features.Sequence(features.ClassLabel(names=upos))}
    build("xtreme_pos", "xtreme_pos_ta", columns, {"test": [{"tokens": ["Kumain", "na"], "upos": [15, 17]}]})
    (example,) = read_examples(get_task("udpos"), "test", "tl", source)
    assert example.words == ("Kumain", "na") and example.tags == (15, 16)
    with pytest.raises(DataError):
        read_examples(get_task("udpos"), "test", "ta", source)


@pytest.mark.parametrize("file_format", ["array_record", "parquet"])
@pytest.mark.parametrize(
    ("name", "builder", "config", "theirs", "split"),
    [
        ("xquad", "xquad", "de", "test", "test"),
        ("mlqa", "mlqa", "de", "validation", "dev"),
        ("squad_v1", "squad", "v1.1", "validation", "dev"),
        ("tydiqa", "tydi_qa", "goldp", "validation-en", "test"),
    ],
)
def test_questions_have_character_offsets(source, build, name, builder, config, theirs, split, file_format):
    build(builder, config, SQUAD, {theirs: [QUESTION]}, file_format)
    language = "de" if config == "de" else "en"
    (example,) = read_examples(get_task(name), split, language, source)
    assert example.answers == (("Ann", 0), ("Bo", 11))
    assert example.context == "Ann kam, и Bo."
    assert fingerprint(get_task(name), split, language, source)


def test_paws_and_tatoeba(source, build):
    columns = {
        "sentence1": TEXT,
        "sentence2": TEXT,
        "label": features.ClassLabel(names=["different_meaning", "paraphrase"]),
    }
    rows = [
        {"sentence1": "NS", "sentence2": "b", "label": 0},
        {"sentence1": "a", "sentence2": "b", "label": 1},
    ]
    build("paws_x_wiki", "de", columns, {"test": rows})
    (example,) = read_examples(get_task("pawsx"), "test", "de", source)
    assert (example.text, example.label) == ("a", 1)
    columns = dict.fromkeys(
        ("source_sentence", "target_sentence", "source_language", "target_language"), TEXT
    )
    row = {
        "source_sentence": "jua",
        "target_sentence": "Sun",
        "source_language": "swh",
        "target_language": "eng",
    }
    build("tatoeba", "tatoeba_sw", columns, {"train": [row]})
    pool = read_retrieval(get_task("tatoeba"), "test", "sw", source)
    assert (
        pool.queries[0].text == "Sun"
        and pool.candidates[0].text == "jua"
        and pool.gold == {"en-0": ("sw-0",)}
    )


def test_other_features_than_documented_are_refused(source, build):
    build(
        "snli",
        "",
        {"premise": TEXT, "hypothesis": TEXT, "gold": NLI},
        {"validation": [{"premise": "a", "hypothesis": "b", "gold": 0}]},
    )
    with pytest.raises(DataError, match="no column 'label'") as caught:
        read_examples(get_task("snli"), "dev", "en", source)
    assert "tensorflow.org/datasets/catalog/snli" in caught.value.fix


def test_the_newest_version_is_read(source, build):
    columns = {"premise": TEXT, "hypothesis": TEXT, "label": NLI}
    for version in ("1.9.0", "1.10.0"):
        build(
            "snli",
            "",
            columns,
            {"validation": [{"premise": version, "hypothesis": "b", "label": 0}]},
            version=version,
        )
    (example,) = read_examples(get_task("snli"), "dev", "en", source)
    assert example.text == "1.10.0"


def test_data_in_tensorflows_own_format_says_what_to_do(source, build):
    columns = {"premise": TEXT, "hypothesis": TEXT, "label": NLI}
    build("snli", "", columns, {"validation": [{"premise": "a", "hypothesis": "b", "label": 0}]})
    (path,) = (source.root / "tfds").rglob("dataset_info.json")
    info = json.loads(path.read_text())
    info["fileFormat"] = "tfrecord"
    path.write_text(json.dumps(info))
    with pytest.raises(DataError) as caught:
        read_examples(get_task("snli"), "dev", "en", source)
    assert "stilts prepare" in caught.value.fix


def test_preparing_says_which_extra_is_needed(source, monkeypatch):
    def refuse(*arguments, **keywords):
        raise ImportError("No module named 'tensorflow'")

    monkeypatch.setattr(tensorflow_datasets, "builder", refuse)
    (data_set,) = get_task("snli").sources.tfds
    with pytest.raises(DataError, match="tensorflow") as caught:
        tfds.fetch(data_set, "train", "en", source.root)
    assert "stilts-jax[tfds-prepare]" in caught.value.fix
    done = prepare([get_task("snli")], source, download=True)
    assert all(split.found is None and "tensorflow" in split.note for split in done.splits)
