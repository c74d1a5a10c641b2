"""Scoring folders: the golden values of XTREME's own test data, small worlds by hand, errors with places."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.evaluation import submission
from stilts_jax.evaluation.benchmarks import BENCHMARKS, summarise
from stilts_jax.evaluation.scoring import score_predictions

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
    scores = score_predictions(benchmark, mock_data / "predictions", mock_data / "labels")
    compared = 0
    for task, expected in GOLDEN.items():
        # XTREME-R adds languages to some tasks, and the golden averages are over XTREME's.
        same = task in scores["tasks"] and (
            task not in BENCHMARKS["xtreme"]
            or BENCHMARKS["xtreme"][task].languages == BENCHMARKS[benchmark][task].languages
        )
        for metric, value in expected.items() if same else ():
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


def squad_file(answer):
    question = {"id": "q1", "question": "?", "answers": [{"text": answer, "answer_start": 0}]}
    return json.dumps({"data": [{"paragraphs": [{"context": "c", "qas": [question]}]}]})


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
    for tasks in BENCHMARKS.values():
        for name, task in tasks.items():
            for language in task.languages:
                for side, text in (("gold", GOLD_TEXT), ("predictions", PREDICTED_TEXT)):
                    write(submission.prediction_path(tmp_path / side, name, language), text[name])
    return tmp_path


def test_a_whole_benchmark(world):
    scores = score_predictions("xtreme", world / "predictions", world / "gold")
    assert scores["benchmark"] == "xtreme"
    assert scores["missing"] == []
    assert scores["tasks"]["pawsx"]["score"] == 50.0
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
    submission.prediction_path(world / "predictions", "mlqa", "vi").unlink()
    shutil.rmtree(world / "gold" / "tatoeba")
    scores = score_predictions("xtreme", world / "predictions", world / "gold")
    assert scores["missing"] == ["mlqa/vi", "tatoeba"]
    assert scores["overall"] is None
    assert scores["groups"]["qa"] is None
    assert scores["groups"]["tagging"] == 100.0
    assert scores["tasks"]["mlqa"]["score"] is None
    assert scores["tasks"]["mlqa"]["metrics"]["f1"]["de"] == 100.0
    assert scores["averages"]["without_retrieval"] is None


def test_averages_leave_english_out():
    by_language = dict.fromkeys(BENCHMARKS["xtreme"]["pawsx"].languages, 40.0) | {"en": 100.0}
    scores = summarise("xtreme", {"pawsx": {"accuracy": by_language}})
    assert scores["tasks"]["pawsx"]["score"] == pytest.approx((6 * 40 + 100) / 7)
    assert scores["tasks"]["pawsx"]["score_without_english"] == pytest.approx(40.0)


def test_gold_of_the_releases(world):
    gold = world / "gold"
    answer = [{"text": "cat", "answer_start": 4}]
    paragraph = {"context": "Dog. cat.", "sentence_breaks": [[0, 4], [4, 9]]}
    paragraph["qas"] = [{"id": "q1", "question": "Who?", "answers": answer}]
    xquad_r = json.dumps({"data": [{"paragraphs": [paragraph]}]})
    for folder, pattern, text, task in (
        ("xquad", "xquad.{}.json", GOLD_TEXT["xquad"], "xquad"),
        ("mlqa/MLQA_V1/test", "test-context-{0}-question-{0}.json", GOLD_TEXT["mlqa"], "mlqa"),
        ("tydiqa/tydiqa-goldp-v1.1-dev", "tydiqa.goldp.{}.dev.json", GOLD_TEXT["tydiqa"], "tydiqa"),
        ("bucc2018", "{}-en.test.gold", GOLD_TEXT["bucc2018"], "bucc2018"),
        ("tatoeba", "{}-en.gold", GOLD_TEXT["tatoeba"], "tatoeba"),
        ("xnli", "test-{}.tsv", "a 'b\tc\tneutral\nd\te\tentailment\n", "xnli"),
        ("udpos", "test-{}.tsv", "w\tNOUN\nw\tVERB\n\nw\tADP\n", "udpos"),
        ("lareqa/xquad-r", "{}.json", xquad_r, "lareqa"),
    ):
        languages = {lang for b in BENCHMARKS.values() if task in b for lang in b[task].languages}
        shutil.rmtree(gold / task, ignore_errors=True)
        for language in languages:
            write(gold / folder / pattern.format(language), text)
    scores = score_predictions("xtreme", world / "predictions", gold)
    assert scores["overall"] == pytest.approx((8 * 100 + 50) / 9)
    for language in BENCHMARKS["xtreme-r"]["lareqa"].languages:
        (world / "predictions" / "lareqa" / f"test-{language}.json").unlink()
    everyone = {"q1_en": [f"{language}_1_1" for language in ("de", "en", "xx")]}
    write(world / "predictions" / "lareqa" / "test-en.json", json.dumps(everyone))
    second = score_predictions("xtreme-r", world / "predictions", gold)
    assert second["tasks"]["lareqa"]["metrics"]["map"]["en"] == pytest.approx(100 * 2 / 11)


@pytest.mark.parametrize(
    ("task", "side", "text", "what", "where"),
    [
        ("xnli", "predictions", "neutral\nmaybe\n", "'maybe' is not a label", "test-en.tsv:2"),
        ("xnli", "predictions", "neutral\n", "1 items are predicted, gold has 2", "test-en.tsv"),
        ("xnli", "gold", "p\th\np\th\n", "is not a label", "test-en.tsv:1"),
        ("udpos", "predictions", "NOUN\nVERB\n\n", "1 sentences are predicted, gold has 2", "test-en.tsv"),
        ("udpos", "predictions", "NOUN\nVERB\n\nADP\nADP\n", "Sentence 2 has 2 tags", "test-en.tsv:4"),
        ("udpos", "gold", "dog\nruns\n\nup\n", "'dog' is not a tag", "test-en.tsv:1"),
        ("xquad", "predictions", '{"q1": "x",\n "q9": "y"}', "no item 'q9' in gold", "test-en.json:2"),
        ("xquad", "predictions", '{"q1": ', "not JSON", "test-en.json:1"),
        ("xquad", "predictions", '{"q1": 3}', "not answers", "test-en.json"),
        ("xquad", "gold", squad_file(""), "Every answer is blank", "test-en.json"),
        ("bucc2018", "predictions", "de-1 en-1\n", "not a pair of ids", "test-de.tsv:1"),
        ("tatoeba", "predictions", "1\n-1\n", "'-1' is not an index", "test-de.tsv:2"),
    ],
)
def test_mistakes_are_named_with_their_place(world, task, side, text, what, where):
    language = "de" if task in ("bucc2018", "tatoeba") else "en"
    write(submission.prediction_path(world / side, task, language), text)
    with pytest.raises(DataError, match=what) as caught:
        score_predictions("xtreme", world / "predictions", world / "gold")
    assert where in caught.value.where


def test_unknown_names_and_folders(tmp_path):
    with pytest.raises(ConfigError, match="no benchmark 'glue'"):
        score_predictions("glue", tmp_path, tmp_path)
    with pytest.raises(DataError, match="no folder of gold"):
        score_predictions("xtreme", tmp_path, tmp_path / "absent")
    with pytest.raises(DataError, match="No task of xtreme"):
        score_predictions("xtreme", tmp_path, tmp_path)


def test_written_predictions_are_read_again(tmp_path):
    labels = ("contradiction", "entailment", "neutral")
    path = submission.write_predictions(tmp_path, "xnli", "accuracy", labels, "sw", [2, 0])
    assert path == tmp_path / "xnli" / "test-sw.tsv"
    assert submission.read_labels(path, labels) == ["neutral", "contradiction"]
    path = submission.write_predictions(tmp_path, "panx", "chunk_f1", ("B-LOC", "O"), "sw", [(0, 1), (1,)])
    assert path.read_text() == "B-LOC\nO\n\nO\n\n"
    assert submission.read_tags(path) == ([["B-LOC", "O"], ["O"]], [1, 4])
    path = submission.write_predictions(tmp_path, "xcopa", "accuracy", (), "sw", [1, 0])
    assert submission.read_choices(path) == ["1", "0"]
    answers = {"q": "ein\u2028Haus"}
    path = submission.write_predictions(tmp_path, "xquad", "squad", (), "de", answers)
    assert submission.read_answers(path) == answers
    path = submission.write_predictions(tmp_path, "bucc2018", "bucc_f1", (), "de", [("de-1", "en-2")])
    assert submission.read_pairs(path) == [("de-1", "en-2")]
    submission.write_thresholds(tmp_path, "bucc2018", {"de": 1.0625})
    assert json.loads((tmp_path / "bucc2018" / "thresholds.json").read_text()) == {"de": 1.0625}
    assert not list(tmp_path.rglob(".*"))
