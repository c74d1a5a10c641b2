"""Every task of the package says what it has to say; and tasks from outside the package are as good."""

import subprocess
import sys

import pytest

from stilts_jax.errors import ConfigError
from stilts_jax.evaluation.metrics import METRICS
from stilts_jax.tasks import get_task, list_tasks
from stilts_jax.tasks.sources.read import DataSource, read_examples
from stilts_jax.tasks.spec import GROUPS, KINDS

INTERMEDIATE = [
    "anli",
    "mnli",
    "qqp",
    "squad_v1",
    "squad_v2",
    "hellaswag",
    "ccg",
    "cosmosqa",
    "commonsenseqa",
    "snli",
    "siqa",
    "copa",
    "mlm",
]
TARGETS = [
    "xnli",
    "pawsx",
    "udpos",
    "panx",
    "xquad",
    "mlqa",
    "tydiqa",
    "bucc",
    "tatoeba",
    "xcopa",
    "lareqa",
    "mewslix",
]


def test_every_task_is_listed():
    assert set(INTERMEDIATE + TARGETS) <= set(list_tasks())


@pytest.mark.parametrize("name", list_tasks())
def test_a_task_says_what_it_has_to(name):
    task = get_task(name)
    assert task.name == name
    assert task.kind in KINDS and task.group in GROUPS and task.metric in METRICS
    assert (task.group == "intermediate") == (name in INTERMEDIATE)
    assert "paper" in task.hyperparameters and set(task.hyperparameters) <= {"paper", "xtreme"}
    assert task.description and task.version >= 1
    assert bool(task.retrieval) == (task.kind == "embed")
    assert bool(task.labels) == (task.kind in ("classify", "tag") and name != "ccg")
    assert len(set(task.languages)) == len(task.languages)
    for earlier in task.train_on:
        trained = get_task(earlier)
        assert trained.kind == task.kind and (task.kind == "choice" or trained.labels == task.labels)


# Counted by hand from the lists of XTREME and XTREME-R.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("xnli", 15),
        ("pawsx", 7),
        ("udpos", 33),
        ("panx", 40),
        ("xquad", 11),
        ("mlqa", 7),
        ("tydiqa", 9),
        ("bucc", 4),
        ("tatoeba", 36),
        ("xcopa", 11),
        ("lareqa", 11),
        ("mewslix", 11),
    ],
)
def test_targets_have_the_benchmarks_languages(name, count):
    assert len(get_task(name).languages) == count


def test_label_orders():
    assert get_task("xnli").labels == ("contradiction", "entailment", "neutral")  # jiant's, not the hub's
    assert get_task("panx").labels == ("B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O")
    assert len(get_task("udpos").labels) == 17 and list(get_task("udpos").labels) == sorted(
        get_task("udpos").labels
    )


def test_xcopa_is_trained_in_two_steps():
    assert get_task("xcopa").train_on == ("siqa", "copa")
    assert get_task("xquad").train_on == get_task("mlqa").train_on == ("squad_v1",)


def test_an_unknown_task_offers_the_nearest():
    with pytest.raises(ConfigError) as caught:
        get_task("pawxs")
    assert "pawxs" in caught.value.what and "pawsx" in caught.value.fix


@pytest.mark.parametrize(
    "name", ["no_such_module:TASK", "stilts_jax.tasks.mnli:NO_TASK", "stilts_jax.tasks.mnli:LABELS"]
)
def test_what_is_no_task_is_refused(name):
    with pytest.raises(ConfigError):
        get_task(name)


def test_a_task_in_another_language_keeps_its_code_and_has_its_own_name():
    task = get_task("mnli@de")
    assert (task.name, task.source_language, task.languages) == ("mnli@de", "de", ("de",))
    assert task.labels == get_task("mnli").labels


OUTSIDE = """
from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.sources.readers import read_jsonl
from stilts_jax.tasks.spec import Files, Sources, Task

LABELS = ("no", "yes")
TASK = Task(
    name="boolq",
    version=1,
    kind="classify",
    group="intermediate",
    description="yes or no",
    labels=LABELS,
    sources=Sources(
        files=(
            Files(
                paths={"train": ("boolq/train.jsonl",)},
                read=read_jsonl,
                convert=classify("question", "passage", label="answer", labels=LABELS),
            ),
        )
    ),
)
"""


def test_one_file_outside_the_package_adds_a_task(tmp_path, monkeypatch):
    (tmp_path / "outside_task.py").write_text(OUTSIDE)
    (tmp_path / "boolq").mkdir()
    row = '{"question": "is it?", "passage": "It is.", "answer": "yes"}\n'
    (tmp_path / "boolq" / "train.jsonl").write_text(row)
    monkeypatch.syspath_prepend(tmp_path)
    task = get_task("outside_task:TASK")
    (example,) = read_examples(task, "train", "en", DataSource(tmp_path))
    assert (example.text, example.pair, example.label) == ("is it?", "It is.", 1)


def test_reading_imports_neither_jax_nor_datasets(tmp_path):
    (tmp_path / "xnli").mkdir()
    (tmp_path / "xnli" / "dev-de.tsv").write_text("a\tb\tneutral\n")
    program = (
        "import sys; from pathlib import Path\n"
        "from stilts_jax.tasks.sources.read import DataSource, read_examples\n"
        "from stilts_jax.tasks.sources import inventory, prepare\n"
        "from stilts_jax.tasks import get_task, list_tasks\n"
        "tasks = [get_task(name) for name in list_tasks()]\n"
        "source = DataSource(Path(sys.argv[1]))\n"
        "assert len(read_examples(get_task('xnli'), 'dev', 'de', source)) == 1\n"
        "inventory.take_inventory(tasks, source)\n"
        "loaded = {'jax', 'datasets', 'tensorflow_datasets', 'torch'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
