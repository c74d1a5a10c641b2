"""What `stilts score` says of files that are whole in part, or hold nothing."""

import io
import json

import pytest

from stilts_jax.errors import DataError, StiltsError
from stilts_jax.evaluation.evaluate import score_decoded
from stilts_jax.evaluation.metrics import NullableAnswer
from stilts_jax.evaluation.submission import score_tasks
from stilts_jax.files import write_whole
from stilts_jax.progress import Progress
from stilts_jax.tasks import get_task
from stilts_jax.tasks.spec import SpanExample

pytestmark = pytest.mark.slow


def test_questions_without_an_answer_count_as_wrong_and_are_counted(tmp_path):
    asked = [{"id": one, "answers": [{"text": "x"}]} for one in "ab"]
    gold = json.dumps({"data": [{"paragraphs": [{"qas": asked}]}]})
    write_whole(tmp_path / "gold/xquad/test-de.json", gold)
    write_whole(tmp_path / "own/xquad/test-de.json", '{"a": "x"}')
    said = io.StringIO()
    assert score_tasks(["xquad"], tmp_path / "own", tmp_path / "gold", Progress(said))["mean"] == 50.0
    assert "1 of 2 have no prediction" in said.getvalue()


@pytest.mark.parametrize(
    ("name", "gold", "own"),
    [("bucc2018/test-de.tsv", "", "de-1\ten-1\n"), ("mewslix/test-de.json", '{"m": []}', '{"m": ["Q1"]}')],
)
def test_gold_that_is_blank_is_no_score_of_zero(tmp_path, name, gold, own):
    write_whole(tmp_path / "gold" / name, gold)
    write_whole(tmp_path / "own" / name, own)
    task = {"bucc2018": "bucc"}.get(name.partition("/")[0], "mewslix")
    with pytest.raises(DataError, match="blank"):
        score_tasks([task], tmp_path / "own", tmp_path / "gold")


def test_words_without_a_tag_are_scored_in_a_translated_task_too(tmp_path):
    for folder in ("gold", "own"):
        write_whole(tmp_path / folder / "udpos@de/test-de.tsv", "NOUN\n_\n")
    (score,) = score_tasks(["udpos@de"], tmp_path / "own", tmp_path / "gold")["tasks"].values()
    assert score["mean"] == 100.0


def test_questions_of_one_id_are_refused():
    examples = [SpanExample("", question, "x y", (("x", 0),)) for question in ("?", "!")]
    answers = [NullableAnswer("x", 0.0), NullableAnswer("y", 0.0)]
    with pytest.raises(StiltsError, match="one id"):
        score_decoded(get_task("xquad"), {"en": answers}, {"en": examples})
