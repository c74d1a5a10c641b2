"""Hub data: local repositories with exactly the documented columns, read offline; others are refused by name."""

import pytest

from stilts_jax.data import hub
from stilts_jax.data.prepare import prepare
from stilts_jax.data.sources import (
    DataSource,
    available_languages,
    fingerprint,
    read_counted,
    read_examples,
    read_retrieval,
)
from stilts_jax.errors import DataError
from stilts_jax.tasks import get_task

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
ClassLabel, Dataset, Features = datasets.ClassLabel, datasets.Dataset, datasets.Features
List, Value = datasets.List, datasets.Value

TEXT, INT = Value("string"), Value("int32")
HUB_NLI = ClassLabel(names=["entailment", "neutral", "contradiction"])
ANSWERS = {"text": List(TEXT), "answer_start": List(INT)}
QUESTIONS = {"id": TEXT, "title": TEXT, "context": TEXT, "question": TEXT, "answers": ANSWERS}
ASKED = {"id": "q", "title": "t", "context": "Ann came.", "question": "?"}
# Repository, configuration and file (as the repository lays them out), columns, rows; then what they are
# read as.
REPOSITORIES = {
    "mnli": (
        "nyu-mll/glue/mnli/validation_matched-00000-of-00001.parquet",
        {"premise": TEXT, "hypothesis": TEXT, "label": HUB_NLI, "idx": INT},
        [{"premise": "a", "hypothesis": "b", "label": 2, "idx": 0}],
        lambda example: (example.text, example.pair, example.label) == ("a", "b", 0),
    ),
    "qqp": (
        "nyu-mll/glue/qqp/validation-00000-of-00001.parquet",
        {
            "question1": TEXT,
            "question2": TEXT,
            "label": ClassLabel(names=["not_duplicate", "duplicate"]),
            "idx": INT,
        },
        [{"question1": "a", "question2": "b", "label": 1, "idx": 0}],
        lambda example: example.label == 1,
    ),
    "snli": (
        "stanfordnlp/snli/plain_text/validation-00000-of-00001.parquet",
        {"premise": TEXT, "hypothesis": TEXT, "label": HUB_NLI},
        [{"premise": "a", "hypothesis": "b", "label": -1}, {"premise": "c", "hypothesis": "d", "label": 0}],
        lambda example: (example.text, example.label) == ("c", 1),
    ),
    "squad_v1": (
        "rajpurkar/squad/plain_text/validation-00000-of-00001.parquet",
        QUESTIONS,
        [{**ASKED, "answers": {"text": ["Ann", "came"], "answer_start": [0, 4]}}],
        lambda example: example.answers == (("Ann", 0), ("came", 4)),
    ),
    "squad_v2": (
        "rajpurkar/squad_v2/squad_v2/validation-00000-of-00001.parquet",
        QUESTIONS,
        [{**ASKED, "answers": {"text": [], "answer_start": []}}],
        lambda example: example.impossible and not example.answers,
    ),
    "hellaswag": (
        "Rowan/hellaswag/data/validation-00000-of-00001.parquet",
        {
            "ind": INT,
            "activity_label": TEXT,
            "ctx_a": TEXT,
            "ctx_b": TEXT,
            "ctx": TEXT,
            "endings": List(TEXT),
            "source_id": TEXT,
            "split": TEXT,
            "split_type": TEXT,
            "label": TEXT,
        },
        [
            {
                "ind": 4,
                "activity_label": "x",
                "ctx_a": "A.",
                "ctx_b": "b",
                "ctx": "A. b",
                "endings": ["c", "d", "e", "f"],
                "source_id": "s",
                "split": "val",
                "split_type": "indomain",
                "label": "3",
            }
        ],
        lambda example: (example.prompt, example.choices[3], example.label) == ("A.", "b f", 3),
    ),
    "cosmosqa": (
        "allenai/cosmos_qa/data/validation-00000-of-00001.parquet",
        {"id": TEXT, "context": TEXT, "question": TEXT}
        | {f"answer{index}": TEXT for index in range(4)}
        | {"label": INT},
        [
            {"id": "1", "context": "A.", "question": "B?", "label": 2}
            | {f"answer{index}": str(index) for index in range(4)}
        ],
        lambda example: (
            (example.prompt, example.choices, example.label) == ("A. B?", ("0", "1", "2", "3"), 2)
        ),
    ),
    "commonsenseqa": (
        "tau/commonsense_qa/data/validation-00000-of-00001.parquet",
        {
            "id": TEXT,
            "question": TEXT,
            "question_concept": TEXT,
            "choices": {"label": List(TEXT), "text": List(TEXT)},
            "answerKey": TEXT,
        },
        [
            {
                "id": "1",
                "question": "A?",
                "question_concept": "a",
                "choices": {"label": list("ABCDE"), "text": list("vwxyz")},
                "answerKey": "D",
            }
        ],
        lambda example: (example.prompt, example.choices, example.label) == ("A?", tuple("vwxyz"), 3),
    ),
    "siqa": (
        "allenai/social_i_qa/data/validation-00000-of-00001.parquet",
        dict.fromkeys(("context", "question", "answerA", "answerB", "answerC", "label"), TEXT),
        [{"context": "A.", "question": "B?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "3"}],
        lambda example: (example.prompt, example.label) == ("A. B?", 2),
    ),
    "copa": (
        "aps/super_glue/copa/validation-00000-of-00001.parquet",
        dict.fromkeys(("premise", "choice1", "choice2", "question"), TEXT)
        | {"idx": INT, "label": ClassLabel(names=["choice1", "choice2"])},
        [{"premise": "A.", "choice1": "x", "choice2": "y", "question": "cause", "idx": 0, "label": 1}],
        lambda example: (example.prompt, example.label) == ("A. What was the cause?", 1),
    ),
    "xnli": (
        "facebook/xnli/en/validation-00000-of-00001.parquet",
        {"premise": TEXT, "hypothesis": TEXT, "label": HUB_NLI},
        [{"premise": "a", "hypothesis": "b", "label": 0}],
        lambda example: example.label == 1,
    ),
    "pawsx": (
        "google-research-datasets/paws-x/en/validation-00000-of-00001.parquet",
        {"id": INT, "sentence1": TEXT, "sentence2": TEXT, "label": ClassLabel(names=["0", "1"])},
        [
            {"id": 1, "sentence1": "NS", "sentence2": "b", "label": 0},
            {"id": 2, "sentence1": "a", "sentence2": "b", "label": 1},
        ],
        lambda example: (example.id, example.label) == ("2", 1),
    ),
    "panx": (
        "google/xtreme/PAN-X.en/validation-00000-of-00001.parquet",
        {
            "tokens": List(TEXT),
            "ner_tags": List(ClassLabel(names=["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"])),
            "langs": List(TEXT),
        },
        [{"tokens": ["in", "Ulm"], "ner_tags": [0, 5], "langs": ["en", "en"]}],
        lambda example: example.words == ("in", "Ulm") and example.tags == (6, 0),
    ),
    "udpos": (
        "google/xtreme/udpos.English/validation-00000-of-00001.parquet",
        {
            "tokens": List(TEXT),
            "pos_tags": List(ClassLabel(names=list(get_task("udpos").labels))),
        },
        [{"tokens": ["go", "!"], "pos_tags": [15, 12]}],
        lambda example: example.tags == (15, 12),
    ),
}


@pytest.fixture
def source(tmp_path):
    return DataSource(tmp_path, kind="hub")


def put(source, name, columns, rows):
    path = source.root / "hub" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=Features(columns)).to_parquet(str(path))
    return path


@pytest.mark.parametrize("name", REPOSITORIES)
def test_documented_repositories(source, name):
    file, columns, rows, is_right = REPOSITORIES[name]
    put(source, file, columns, rows)
    task = get_task(name)
    (example,) = read_examples(task, "dev", "en", source)
    assert is_right(example)
    if "en" in task.languages:
        assert "en" in available_languages(task, "dev", source)
    assert fingerprint(task, "dev", "en", source) == fingerprint(task, "dev", "en", source)


def test_anli_rounds_are_splits_of_one_repository(source):
    columns = {"uid": TEXT, "premise": TEXT, "hypothesis": TEXT, "label": HUB_NLI, "reason": TEXT}
    row = {"uid": "u", "premise": "a", "hypothesis": "b", "label": 0, "reason": ""}
    for number in (1, 2, 3):
        put(source, f"facebook/anli/plain_text/train_r{number}-00000-of-00001.parquet", columns, [row])
    nli = {name: feature for name, feature in columns.items() if name in ("premise", "hypothesis", "label")}
    pair = {"premise": "a", "hypothesis": "b", "label": 1}
    put(source, "stanfordnlp/snli/plain_text/train-00000-of-00001.parquet", nli, [pair])
    put(source, "nyu-mll/glue/mnli/train-00000-of-00001.parquet", {**nli, "idx": INT}, [{**pair, "idx": 0}])
    examples = read_examples(get_task("anli"), "train", "en", source)
    assert [example.label for example in examples] == [2, 2, 1, 1, 1] and len({e.id for e in examples}) == 5


def test_xtremes_one_configuration_of_all_languages(source):
    columns = dict.fromkeys(("language", "sentence1", "sentence2", "gold_label"), TEXT)
    rows = [
        {"language": language, "sentence1": language, "sentence2": "b", "gold_label": "neutral"}
        for language in ("de", "sw")
    ]
    put(source, "google/xtreme/XNLI/test-00000-of-00001.parquet", columns, rows)
    assert [example.text for example in read_examples(get_task("xnli"), "test", "sw", source)] == ["sw"]
    with pytest.raises(DataError):
        read_examples(get_task("xnli"), "test", "fr", source)


def test_offsets_that_a_conversion_left_behind_are_mended(source):
    # The conversion cuts the two spaces before the context; offsets still count them.
    columns = {name: column for name, column in QUESTIONS.items() if name != "title"}
    row = {
        "id": "q",
        "question": "?",
        "context": "Ann met Bo. Ann left.",
        "answers": {"text": ["Bo", "Ann"], "answer_start": [10, 14]},
    }
    put(source, "google/xtreme/XQuAD.de/validation-00000-of-00001.parquet", columns, [row])
    (example,) = read_examples(get_task("xquad"), "test", "de", source)
    assert example.answers == (("Bo", 8), ("Ann", 12))
    row["answers"] = {"text": ["Bo", "Cy"], "answer_start": [10, 14]}
    put(source, "google/xtreme/XQuAD.de/validation-00000-of-00001.parquet", columns, [row])
    with pytest.raises(DataError, match="not at character 10"):
        read_examples(get_task("xquad"), "test", "de", source)


def test_tatoeba_is_sorted_as_xtreme_sorts_it(source):
    columns = dict.fromkeys(("source_sentence", "target_sentence", "source_lang", "target_lang"), TEXT)
    rows = [
        {
            "source_sentence": f"{text}\n",
            "target_sentence": f"{english}\n",
            "source_lang": "swh",
            "target_lang": "eng",
        }
        for text, english in (("jua", "Sun"), ("mwezi", "Moon"))
    ]
    put(source, "google/xtreme/tatoeba.swh/validation-00000-of-00001.parquet", columns, rows)
    pool = read_retrieval(get_task("tatoeba"), "test", "sw", source)
    assert [query.text for query in pool.queries] == ["Moon", "Sun"]
    assert [candidate.text for candidate in pool.candidates] == ["jua", "mwezi"]
    assert pool.gold == {"en-0": ("sw-1",), "en-1": ("sw-0",)}
    assert available_languages(get_task("tatoeba"), "test", source) == ("sw",)


def test_tydiqa_of_the_hub_trains_on_english_alone(source):
    rows = [
        {
            "id": f"{language}-{number}-0",
            "title": "t",
            "context": f"Paragraph {number}",
            "question": "?",
            "answers": {"text": ["P"], "answer_start": [0]},
        }
        for number in range(20)
        for language in ("english", "telugu")
    ]
    file = "google-research-datasets/tydiqa/secondary_task/train-00000-of-00001.parquet"
    put(source, file, QUESTIONS, rows)
    both = [
        example
        for split in ("train", "dev")
        for example in read_counted(get_task("tydiqa"), split, "en", source).examples
    ]
    assert len(both) == 20 and all(example.id.startswith("english") for example in both)


def test_parquet_without_the_librarys_notes_takes_the_documented_names(source):
    path = source.root / "hub/facebook/xnli/de/test.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(
        pa.table({"premise": ["a"], "hypothesis": ["b"], "label": pa.array([1], pa.int64())}), path
    )
    (example,) = read_examples(get_task("xnli"), "test", "de", source)
    assert get_task("xnli").labels[example.label] == "neutral"


def test_folders_that_the_library_saved_are_read(source):
    columns = Features({"premise": TEXT, "hypothesis": TEXT, "label": HUB_NLI})
    data = Dataset.from_list([{"premise": "a", "hypothesis": "b", "label": 2}], features=columns)
    datasets.DatasetDict({"test": data}).save_to_disk(str(source.root / "hub/facebook/xnli/de"))
    (example,) = read_examples(get_task("xnli"), "test", "de", source)
    assert get_task("xnli").labels[example.label] == "contradiction"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "no column 'label'"),
        ({"label": ClassLabel(names=["0", "1", "2"])}, "column 'label' is"),
        ({"premise": List(TEXT)}, "column 'premise' is"),
    ],
)
def test_other_columns_than_documented_are_refused(source, change, message):
    columns = {"premise": TEXT, "hypothesis": TEXT, "label": HUB_NLI, **change}
    columns = {name: feature for name, feature in columns.items() if feature is not None}
    values = {"premise": ["a"] if "premise" in change else "a", "hypothesis": "b", "label": 0}
    put(source, "facebook/xnli/de/test.parquet", columns, [{name: values[name] for name in columns}])
    with pytest.raises(DataError, match=message) as caught:
        read_examples(get_task("xnli"), "test", "de", source)
    assert (
        "huggingface.co/datasets/facebook/xnli" in caught.value.fix and "test.parquet" in caught.value.where
    )


def test_what_is_not_there_says_how_to_get_it(source):
    with pytest.raises(DataError) as caught:
        read_examples(get_task("xnli"), "test", "de", source)
    assert "stilts prepare" in caught.value.fix and "hub/facebook/xnli" in caught.value.where


def test_a_file_that_broke_off_is_named(source):
    file, columns, rows, _ = REPOSITORIES["mnli"]
    path = put(source, file, columns, rows)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="can't be read") as caught:
        read_examples(get_task("mnli"), "dev", "en", source)
    assert str(path) in caught.value.where


def test_preparing_fetches_once_and_whole(source, monkeypatch):
    columns = Features({"premise": TEXT, "hypothesis": TEXT, "label": HUB_NLI, "idx": INT})
    calls = []

    def load_dataset(name, config, split):
        calls.append((name, config, split))
        if split == "validation_mismatched":
            raise ConnectionError("the line went dead")
        row = {"premise": f"a long premise of {split}", "hypothesis": "b", "label": 0, "idx": 0}
        return Dataset.from_list([row], features=columns)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = get_task("mnli")
    done = prepare([task], source, download=True)
    assert calls == [("nyu-mll/glue", "mnli", split) for split in ("train", "validation_matched")]
    assert [(split.split, split.found, split.expected, split.note) for split in done.splits] == [
        ("train", 1, 392_702, "another count"),
        ("dev", 1, 9_815, "another count"),
    ]
    prepare([task], source, download=True)
    assert len(calls) == 2  # nothing is fetched twice
    (data_set, _) = task.sources.hub
    with pytest.raises(DataError, match="the line went dead"):
        hub.fetch(data_set, "dev_mismatched", "en", source.root)
    assert not list((source.root / "hub").rglob("*mismatched*"))


def test_a_repository_that_is_a_script_is_fetched_as_the_hubs_parquet(source, monkeypatch):
    columns = Features(dict.fromkeys(("context", "question", "answerA", "answerB", "answerC", "label"), TEXT))
    row = {"context": "A.", "question": "B?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "1"}
    calls = []

    def load_dataset(name, config=None, data_files=None, split=None):
        calls.append(name)
        if name != "parquet":
            raise RuntimeError("Dataset scripts are no longer supported")
        (pattern,) = data_files.values()
        assert (
            pattern == f"hf://datasets/allenai/social_i_qa@refs%2Fconvert%2Fparquet/default/{split}/*.parquet"
        )
        return Dataset.from_list([row], features=columns)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    prepare([get_task("siqa")], source, download=True)
    assert calls == ["allenai/social_i_qa", "parquet"] * 2
    assert [example.label for example in read_examples(get_task("siqa"), "dev", "en", source)] == [0]
