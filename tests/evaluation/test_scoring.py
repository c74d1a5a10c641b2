"""Scoring folders: the golden values of XTREME's own test data, small worlds by hand, errors with places."""

import json
import os
import shutil
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from stilts_jax.errors import DataError
from stilts_jax.evaluation import submission
from stilts_jax.evaluation.benchmarks import BENCHMARKS
from stilts_jax.evaluation.metrics import METRICS
from stilts_jax.evaluation.submission import score_predictions, score_tasks
from stilts_jax.main import main
from stilts_jax.tasks import get_task, list_tasks
from stilts_jax.tasks.sources.read import DataSource, with_labels

GOLDEN = {
    "pawsx": {"accuracy": 51.42857142857143},
    "xnli": {"accuracy": 30.666666666666668},
    "panx": {"f1": 57.50793650793652, "precision": 54.729166666666664, "recall": 62.750000000000014},
    "udpos": {"f1": 70.21746048354693, "precision": 71.02232625883823, "recall": 69.54982073976082},
    "bucc2018": {"f1": 55.0},
    "tatoeba": {"accuracy": 53.611111111111114},
    "xquad": {"em": 77.27272727272727, "f1": 79.9586776859504},
    "mlqa": {"em": 57.142857142857146, "f1": 81.76870748299321},
    "tydiqa": {"em": 88.88888888888889, "f1": 97.22222222222223},
    "mewslix": {"mrr": 14.39025156130419},
}


@pytest.fixture(scope="module")
def mock_data(tmp_path_factory):
    folder = os.environ.get("STILTS_XTREME_FIXTURES")
    if not folder:
        pytest.skip("STILTS_XTREME_FIXTURES does not name a folder with mock_test_data.zip")
    target = tmp_path_factory.mktemp("mock")
    with zipfile.ZipFile(Path(folder) / "mock_test_data.zip") as archive:
        archive.extractall(target)
    return target / "mock_test_data"


@pytest.mark.real
@pytest.mark.parametrize("benchmark", ["xtreme", "xtreme-r"])
def test_golden_values(mock_data, benchmark):
    scores, compared = score_predictions(benchmark, mock_data / "predictions", mock_data / "labels"), 0
    official, tasks = BENCHMARKS["xtreme"], BENCHMARKS[benchmark]
    for task, expected in GOLDEN.items():
        # XTREME-R adds languages to some tasks, and the golden averages are over XTREME's.
        same = task not in official or official[task].languages == tasks.get(task, official[task]).languages
        for metric, value in expected.items() if same and task in scores["tasks"] else ():
            average = scores["tasks"][task]["metrics"][metric]["avg"]
            if average is None:
                assert any(entry.startswith(f"{task}/") for entry in scores["missing"])
            else:
                assert average == pytest.approx(value, abs=1e-9)
                compared += 1
    assert compared >= (10 if benchmark == "xtreme" else 6)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def path_of(folder, name, language):
    return submission.prediction_path(folder, get_task(name.replace("bucc2018", "bucc")), language)


def squad_file(answer):
    question = {"id": "q1", "question": "?", "answers": [{"text": answer, "answer_start": 0}]}
    return json.dumps({"data": [{"paragraphs": [{"context": answer or "c", "qas": [question]}]}]})


GOLD_TEXT = {
    "xnli": "neutral\nentailment\n",
    "pawsx": "0\n1\n",
    "udpos": "NOUN\nVERB\n\nADP\n\n",
    "panx": "B-PER\nI-PER\n\nO\n\n",
    "xquad": squad_file("the cat"),
    "mlqa": squad_file("x"),
    "tydiqa": squad_file("y z"),
    "bucc2018": "xx-1\ten-1\nxx-2\ten-2\n",
    "tatoeba": "1\n0\n",
    "xcopa": '{"label": 1}\n{"label": 0}\n',
    "mewslix": '{"m1": ["Q1"]}',
    "lareqa": '{"q1": ["en_1_0", "de_1_0"]}',
}
PREDICTED_TEXT = {
    **GOLD_TEXT,
    "xquad": '{"q1": "cat"}',
    "mlqa": '{"q1": "x"}',
    "tydiqa": '{"q1": "y z"}',
    "mewslix": '{"m1": ["Q2", "Q1"]}',
    "lareqa": '{"q1": ["en_1_0", "fr_1_0", "de_1_0"]}',
    "pawsx": "0\n0\n",
}


@pytest.fixture
def world(tmp_path):
    """Both benchmarks, two items a language; all right but PAWS-X (half), Mewsli-X and LAReQA."""
    for tasks in (BENCHMARKS["xtreme"], BENCHMARKS["xtreme-r"]):
        for name, task in tasks.items():
            for language in task.languages:
                for side, text in (("gold", GOLD_TEXT), ("predictions", PREDICTED_TEXT)):
                    write(path_of(tmp_path / side, name, language), text[name])
    return tmp_path


def test_a_whole_benchmark(world):
    scores = score_predictions("xtreme", world / "predictions", world / "gold")
    assert scores["missing"] == [] and scores["tasks"]["pawsx"]["score"] == 50.0
    assert scores["tasks"]["xquad"]["metrics"]["em"]["de"] == 100.0
    assert scores["overall"] == pytest.approx((8 * 100 + 50) / 9)  # over tasks, not over groups
    assert scores["groups"] == {"classification": 75.0, "tagging": 100.0, "qa": 100.0, "retrieval": 100.0}
    assert scores["averages"]["without_retrieval"] == pytest.approx((6 * 100 + 50) / 7)
    second = score_predictions("xtreme-r", world / "predictions", world / "gold")
    lareqa = 100 * (1 + 2 / 3) / 2
    assert second["tasks"]["lareqa"]["score"] == pytest.approx(lareqa)
    assert second["groups"]["retrieval"] == pytest.approx((100 + 50 + lareqa) / 3)
    assert second["overall"] == pytest.approx((8 * 100 + 50 + lareqa) / 10)


def test_what_is_absent_is_listed_and_blocks_its_averages(world):
    path_of(world / "predictions", "mlqa", "vi").unlink()
    shutil.rmtree(world / "gold" / "tatoeba")
    scores = score_predictions("xtreme", world / "predictions", world / "gold")
    assert scores["missing"] == ["mlqa/vi", "tatoeba"]
    assert scores["overall"] is scores["groups"]["qa"] is scores["averages"]["without_retrieval"] is None
    assert scores["groups"]["tagging"] == 100.0
    assert scores["tasks"]["mlqa"]["score"] is None and scores["tasks"]["mlqa"]["mean"] == 100.0
    assert scores["mean"] == pytest.approx((7 * 100 + 50) / 8)  # over the tasks that are there


@pytest.mark.parametrize(
    ("task", "side", "text", "what", "where"),
    [
        ("xnli", "predictions", "neutral\nmaybe\n", "'maybe' is not a label", "test-en.tsv:2"),
        ("xnli", "predictions", "neutral\n", "1 items are predicted, gold has 2", "test-en.tsv"),
        ("xnli", "gold", "p\th\np\th\n", "Gold is blank", "test-en.tsv"),
        ("udpos", "predictions", "NOUN\nVERB\n\nADP\nADP\n", "Sentence 2 has 2 tags", "test-en.tsv:4"),
        ("udpos", "predictions", "NOUN\nVERB\n\nP\n", "'P' is not a tag", "predictions/udpos/test-en.tsv:4"),
        ("udpos", "gold", "dog\nruns\n\nup\n", "'dog' is not a tag", "gold/udpos/test-en.tsv:1"),
        ("xquad", "predictions", '{"q1": "x",\n "q9": "y"}', "no item 'q9' in gold", "test-en.json"),
        ("xquad", "predictions", '{"q1": ', "not JSON", "test-en.json:1"),
        ("xquad", "gold", squad_file("x").replace('"text"', '"t"'), r"no 'answers\[0\]", "test-en.json"),
        ("bucc2018", "predictions", "de-1 en-1\n", "not a pair of ids", "test-de.tsv:1"),
        ("tatoeba", "predictions", "1\n-1\n", "'-1' is not an index", "test-de.tsv:2"),
    ],
)
def test_mistakes_are_named_with_their_place(world, task, side, text, what, where):
    language = "de" if task in ("bucc2018", "tatoeba") else "en"
    write(path_of(world / side, task, language), text)
    with pytest.raises(DataError, match=what) as caught:
        score_predictions("xtreme", world / "predictions", world / "gold")
    assert where in caught.value.where and "grid" not in caught.value.fix


def test_part_of_the_languages_prints_a_short_table(world, capsys):
    """What `stilts score` prints when only some files are there: no JSON, and means over what is there."""
    for task in BENCHMARKS["xtreme"]:
        for language in BENCHMARKS["xtreme"][task].languages:
            if (task, language) not in (("pawsx", "de"), ("pawsx", "fr"), ("xquad", "en")):
                path_of(world / "predictions", task, language).unlink()
    out = world / "scores.json"
    assert main(["score", f"--predictions={world}/predictions", f"--gold={world}/gold", f"--out={out}"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1] == ["pawsx", "50.00", "2,", "missing:", "en", "es", "ja", "ko", "zh"]
    assert rows[2][:3] == ["xquad", "100.00", "1,"]
    assert rows[3][:2] == ["mean", "75.00"] and rows[4] == ["xtreme", "-"]
    assert len(rows) == 6  # and the tasks that are not there at all
    assert json.loads(out.read_text())["tasks"]["pawsx"]["languages"] == ["de", "fr"]
    assert main(["score", f"--predictions={world}/predictions", f"--gold={world}/predictions/pawsx"]) == 1
    assert "no gold for any" in capsys.readouterr().err
    assert main(["score", f"--predictions={world}", f"--gold={world}/gold"]) == 1  # where eval wrote
    assert f"--predictions={world / 'predictions'}" in capsys.readouterr().err
    assert main(["score", f"--predictions={world}/gold", f"--gold={world}/gold/../gold"]) == 1
    assert "compared with themselves" in capsys.readouterr().err


def test_a_right_answer_that_no_model_can_give_counts_as_missed(tmp_path):
    write(tmp_path / "gold/gqa/trainval_ans2label.json", '{"no": 0, "red": 1}')
    asked = {n: {"question": "?", "imageId": "1", "answer": one} for n, one in zip("01", ("red", "mauve"))}
    write(tmp_path / "gold/xgqa/testdev_balanced_questions_de.json", json.dumps(asked))
    write(tmp_path / "predictions/xgqa/test-de.tsv", "red\nred\n")
    found = score_tasks(["xgqa"], tmp_path / "predictions", tmp_path / "gold")["tasks"]["xgqa"]
    assert found["metrics"]["accuracy"]["de"] == 50.0


@pytest.mark.parametrize(("task", "second", "known"), [("xquad", [""], False), ("squad_v2", [], True)])
def test_gold_that_is_blank_in_part_is_refused(tmp_path, task, second, known):
    asked = [{"id": str(n), "answers": [{"text": one} for one in of]} for n, of in enumerate((["x"], second))]
    write(tmp_path / task / "test-en.json", json.dumps({"data": [{"paragraphs": [{"qas": asked}]}]}))
    with nullcontext() if known else pytest.raises(DataError, match="blank"):
        submission.read_gold(tmp_path, get_task(task), "en")


def test_words_without_a_tag_are_scored_as_in_an_experiment(tmp_path):
    write(tmp_path / "gold" / "udpos" / "test-en.tsv", "a\tNOUN\nb\t_\n")
    write(tmp_path / "bare" / "udpos" / "test-en.tsv", "NOUN\n_\n")
    for tag, accuracy in (("X", 100.0), ("_", 100.0), ("NOUN", 50.0)):
        write(tmp_path / "predictions" / "udpos" / "test-en.tsv", f"NOUN\n{tag}\n")
        for gold in ("gold", "bare"):
            found = score_tasks(["udpos"], tmp_path / "predictions", tmp_path / gold)["tasks"]["udpos"]
            assert found["metrics"]["accuracy"]["en"] == accuracy


def items_of(task):
    """Predictions and gold as the task's metric takes them, in part right, and gold as a file of labels alone."""
    form, names, tags = submission.format_of(task), (task.labels * 3)[:3], (*task.labels, "N", "N/N")[:2]
    if form == "span":
        predictions, gold = {"q1": "x\u2028y", "q2": "", "q3": "Ö"}, {"q1": ["x"], "q2": ["z"], "q3": ["Ö"]}
        if task.metric == "squad_v2":
            gold["q2"] = []
        questions = [{"id": q, "answers": [{"text": a} for a in found]} for q, found in gold.items()]
        return predictions, gold, json.dumps({"data": [{"paragraphs": [{"qas": questions}]}]})
    found = {
        "classify": ([0, 0, 1], [*names[:2], *names[:1]]),
        "choice": ([1, 0, 1], [1, 1, 0]),
        "tag": ([[tags[0], tags[1]], [tags[1]]], [[tags[0], tags[0]], [tags[1]]]),
        "mining": ([("de-1", "en-1"), ("de-2", "en-2")], [("de-1", "en-1"), ("de-3", "en-2")]),
        "nearest": ([1, 0, 2], [1, 2, 2]),
        "ranking": ({"m1": ["Q2", "Q1"], "m2": ["Q3"]}, {"m1": ["Q1"], "m2": ["Q3"]}),
    }
    return *found[form], None


@pytest.mark.parametrize(
    "name", ["mnli@de", *(name for name in list_tasks() if get_task(name).kind != "mlm" and name != "vqa_v2")]
)
def test_what_is_written_is_scored_as_it_was_in_memory(tmp_path, name):
    task = get_task(name)
    if task.labels_file:
        write(tmp_path / "gold" / task.labels_file, '{"N": 0, "N/N": 1}')
        task = with_labels(task, DataSource(tmp_path / "gold"))
    predictions, gold, text = items_of(task)
    path = submission.write_predictions(tmp_path / "predictions", task, "en", predictions)
    read = submission.read_predictions(path, task)
    assert read == ([task.labels[label] for label in predictions] if task.kind == "classify" else predictions)
    if text is None:
        submission.write_predictions(tmp_path / "gold", task, "en", gold)
    else:
        write(submission.prediction_path(tmp_path / "gold", task, "en"), text)
    expected = METRICS[task.metric](task, read, gold, "en").values
    assert 0 < max(expected.values()) <= 100
    found = score_tasks([name], tmp_path / "predictions", tmp_path / "gold")
    assert list(found["tasks"]) == [task.name]
    assert {metric: by["en"] for metric, by in found["tasks"][task.name]["metrics"].items()} == expected
    assert not list(tmp_path.rglob(".*"))
