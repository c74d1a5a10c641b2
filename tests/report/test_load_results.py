import doctest
import math
import subprocess
import sys

import made_up_grid
import pandas as pd
import pytest

import stilts_jax
from stilts_jax.errors import DataError
from stilts_jax.report import write_report


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    trainings = ["mnli", "squad_v1", None]
    options = {"trainings": trainings, "seeds": 2, "languages": 3, "items": 30}
    made_up_grid.write_grid(folder, intermediates=["none", "mnli", "qqp"], **options)
    record = made_up_grid.make_record(
        "ccg", None, {"bucc": {"f1": {"de": None, "en": 3.0}}}, stage="retrieval"
    )
    record["thresholds"], record["tasks"] = (
        {"bucc": {"de": 0.5}},
        {"bucc": {"title": "", "group": "retrieval"}},
    )
    record["config"]["train"]["epochs"] = 7
    made_up_grid.write_record(folder, record)
    return folder


def test_the_docstring_makes_the_papers_table(workdir, tmp_path):
    """Its lines, against means by hand."""
    (tmp_path / "grid").symlink_to(workdir)
    found: dict = {"workdir": tmp_path}
    for example in doctest.DocTestParser().get_examples(stilts_jax.load_results.__doc__):
        exec(example.source, found)
    frame = stilts_jax.load_results(workdir)
    for task, metrics in (("xquad", ("f1", "em")), ("xnli", ("accuracy",)), ("tatoeba", ("accuracy",))):
        here = frame[(frame.task == task) & frame.metric.isin(metrics)]
        none, mnli = (here[here.intermediate == name].value.mean() for name in ("none", "mnli"))
        assert found["table"][task]["none"] == pytest.approx(none)
        assert found["table"][task]["mnli"] == pytest.approx(mnli - none)


def test_a_row_is_a_score(workdir):
    frame = stilts_jax.load_results(str(workdir))
    assert not frame.duplicated(["phase", "task", "split", "metric", "language"]).any()
    (row,) = frame[(frame.phase == "mnli.s1+mnli.s0") & (frame.language == "ar")].itertuples()
    assert (row.intermediate, row.target, row.task, row.metric) == ("mnli", "mnli", "xnli", "accuracy")
    assert (row.intermediate_seed, row.target_seed) == (1, 0)
    assert row.reported and row.main and row.zero_shot
    assert not frame[frame.language == "en"].zero_shot.any()
    tuned = frame[frame.intermediate == "ccg"].set_index("language")
    assert not tuned.zero_shot.any()
    assert math.isnan(tuned.value["de"])
    assert tuned.group["de"] == "retrieval"
    assert '"epochs": 7' in tuned.settings["de"]
    assert frame.attrs["settings"]["encoder"] == "made-up"


def test_scores_csv_is_the_frame(workdir):
    paths = write_report(workdir)
    read = pd.read_csv(paths.scores, keep_default_na=False, na_values=[""])
    frame = stilts_jax.load_results(workdir)
    assert list(read.columns) == list(frame.columns)
    assert read.value.to_numpy() == pytest.approx(frame.value.to_numpy(), nan_ok=True)
    assert (read.phase == frame.phase).all()


def test_a_folder_without_results_is_said(tmp_path):
    with pytest.raises(DataError, match="no results"):
        stilts_jax.load_results(tmp_path)


def test_the_command_line_starts_without_pandas_and_matplotlib():
    code = "import sys, stilts_jax.main as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'pandas', 'matplotlib', 'jinja2'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
