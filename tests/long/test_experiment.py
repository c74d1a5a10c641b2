"""The whole recipe on the toy world, through the command line."""

import json
import os
import re
import subprocess
import sys

import jax
import pytest

from stilts_jax import progress
from stilts_jax.experiment import evaluate
from stilts_jax.tasks import get_task
from tests.typed import results, stilts

pytestmark = pytest.mark.slow

LANGUAGES = {"de", "es", "sw", "tr", "ru", "ar", "zh"}  # the toy world's, besides English
PROGRAM = [sys.executable, "-m", "stilts_jax.main"]


def grid(demo, workdir, *more, rows="none"):
    """The command line of the demo's grid, in another work directory."""
    return [
        *("grid", "--config=toy:size=test", f"--data_root={demo[0] / 'world' / 'data'}"),
        *(f"--workdir={workdir}", f"--config.encoder={demo[0] / 'encoder'}"),
        *(f"--config.experiment.intermediates={rows}", *more),
    ]


@pytest.fixture(scope="module")
def whole(demo):
    """The demo's results."""
    return results(demo[0] / "grid")


def test_the_demo_trains_and_scores_every_phase_in_every_language(demo, whole):
    workdir, printed = demo
    targets = ("udpos.s0", "squad_v1.s0", "retrieval")
    assert set(whole) == {"mnli.s0", *(f"{row}+{name}" for row in ("none", "mnli.s0") for name in targets)}
    for name, result in whole.items():
        assert result["error"] is None
        if name != "mnli.s0":
            ((task, scores),) = result["scores"].items()
            for by_language in scores["test"].values():
                assert by_language.keys() - {"en"} == LANGUAGES & set(get_task(task).languages)
                assert all(0 <= value <= 100 for value in by_language.values())
    assert whole["mnli.s0+udpos.s0"]["phase"]["parent"] == whole["mnli.s0"]["phase"]["key"]
    assert "Tatoeba" in printed
    assert "toy results" in (workdir / "grid" / "report" / "report.html").read_text().lower()


def read_number(text):
    """Returns 1530 for ``1.53 k``."""
    number, _, prefix = text.partition(" ")
    return float(number) * 1000 ** " kMGT".index(prefix or " ")


def test_a_dry_run_says_what_the_grid_then_takes(demo, whole, tmp_path):
    text = stilts(*grid(demo, tmp_path, "--dry_run", rows="none+mnli"))
    table = text[text.index("phase ") :].split("\n\n")[0].splitlines()
    rows = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in table)
    for name, result in whole.items():
        steps, trained_on, _, _, model = re.split(r"  +", rows[name])
        assert int(steps) == result["throughput"]["steps"]
        if int(steps):
            work = json.loads((result["folder"] / "trained.json").read_text())["work"]
            assert read_number(trained_on) == pytest.approx(work["real_tokens"], rel=0.05)
            files = (result["folder"] / "final").rglob("*")
            there = sum(path.stat().st_size for path in files if "tokenizer" not in path.parts)
            # Within a tenth, and what orbax writes beside the numbers (much, for a toy).
            assert read_number(model[:-1]) < there < 1.1 * read_number(model[:-1]) + 300_000
    assert f"{sum(result['throughput']['steps'] for result in whole.values())} steps" in text
    # What is done counts no more, and tells how fast the rest will be.
    text = stilts(*grid(demo, demo[0] / "grid", "--dry_run", rows="none+mnli"))
    assert f"{len(whole)} phases, 0 of them open: 0 steps" in text
    assert f"on {whole['mnli.s0']['environment']['device']}, as fast as the 5 phases" in text


def start_together(commands):
    """Starts processes that have the same half of the cores: sums of more threads differ in their last bits."""
    cores = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, cores[: len(cores) // 2] or cores)
        return [subprocess.Popen(one, env=os.environ, stderr=subprocess.PIPE, text=True) for one in commands]
    finally:
        os.sched_setaffinity(0, cores)


def test_texts_beside_a_task_take_nothing_of_it(demo, tmp_path):
    """There is no other task for which `mixture.cap` would hold it down."""
    rows = grid(demo, tmp_path, "--dry_run", "--config.mixture.cap=32", rows="mnli+mnli/mlm")
    table = [line.split() for line in stilts(*rows).splitlines()]
    steps = {line[0]: int(line[1]) for line in table if line and line[0] in ("mnli.s0", "mnli+mlm.s0")}
    assert steps["mnli+mlm.s0"] == round(steps["mnli.s0"] / 0.8)  # and a fifth of the steps are the texts'


@pytest.fixture(scope="module")
def alone(demo, tmp_path_factory):
    """What one process makes of a row. (The demo's first process is this one, which may have all cores.)"""
    workdir = tmp_path_factory.mktemp("alone")
    (process,) = start_together([[*PROGRAM, *grid(demo, workdir, rows="mnli")]])
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    return results(workdir)


@pytest.mark.parametrize(
    "options", [("--part=2/2", "--part=1/2"), ("--traceback", "--traceback")], ids=["parts", "same"]
)
def test_two_processes_at_once_give_the_results_of_one(demo, alone, tmp_path, options):
    """Parts share one row: the second trains on the intermediate that the first is still training.

    The same command twice: each takes what the other is not at work on.
    """
    command = [*PROGRAM, *grid(demo, tmp_path, rows="mnli")]
    both = start_together([*command, option] for option in options)
    said = [one.communicate(timeout=300)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    in_parts = options[0] != options[1]
    waiting = "waiting for mnli.s0, which another part trains"
    assert waiting in said[0] if in_parts else "mnli.s0 comes later: Another process" in "".join(said)
    for words in said if in_parts else ():  # each did some of it
        assert "attention: " in words and "done before" not in words
    found = results(tmp_path)
    assert set(found) == set(alone)
    for name, result in found.items():
        for part in ("phase", "evaluation_key", "scores", "items", "selection", "curve", "config", "data"):
            assert result[part] == alone[name][part], (name, part)


def test_another_test_language_scores_again_and_never_trains_again(demo, tmp_path):
    def run(*options):
        stilts(*grid(demo, tmp_path, "--config.experiment.targets=udpos", *options))
        (result,) = results(tmp_path).values()
        return result

    def languages(result):
        return set(result["scores"]["udpos"]["test"]["f1"])

    result = run("--config.experiment.languages=de")
    trained = result["folder"] / "trained.json"
    before = trained.stat().st_mtime_ns
    assert languages(result) == {"de"}
    assert languages(run("--config.experiment.languages=de+ru")) == {"de", "ru"}
    joined = run("--config.experiment.languages=ru")
    assert languages(joined) == {"de", "ru"}  # nothing is lost
    apart = run("--config.experiment.languages=en+zh")  # none of those that are there
    assert set(apart["items"]["udpos"]) == languages(apart) == {"de", "en", "ru", "zh"}
    assert {name: apart["scores"]["udpos"]["test"]["f1"][name] for name in ("de", "ru")} == joined["scores"][
        "udpos"
    ]["test"]["f1"]
    counts = [one["data"]["udpos"]["test"]["examples"] for one in (joined, apart)]
    assert counts[1] == 2 * counts[0] and apart["data"]["udpos"]["test"]["languages"] == [
        "de",
        "ru",
        "en",
        "zh",
    ]
    limited = run("--config.experiment.languages=ru", "--config.evaluation.limit=8")
    assert limited["data"]["udpos"]["test"]["examples"] == 8
    assert limited["data"]["udpos"]["train"]["examples"] > 8  # trained and scored: both splits are there
    assert "udpos: scored on the first 8 examples of each language only" in limited["selection"]["notes"]
    assert trained.stat().st_mtime_ns == before


def test_what_another_command_scored_of_a_phase_stays(demo, tmp_path):
    for targets in ("tatoeba", "bucc", "tatoeba+bucc"):
        said = stilts(*grid(demo, tmp_path, f"--config.experiment.targets={targets}"))
    (result,) = results(tmp_path).values()
    for part in ("scores", "items", "data", "main_metric", "tasks"):
        assert result[part].keys() == {"tatoeba", "bucc"}, part
    assert set(result["phase"]["evaluates"]) == {"tatoeba", "bucc"} and "done before" in said
    whole = results(demo[0] / "grid")["none+retrieval"]
    assert result["scores"]["tatoeba"] == whole["scores"]["tatoeba"]


def test_rows_that_picked_the_best_step_are_not_scored_again(demo, tmp_path, monkeypatch):
    scored, score = [], evaluate.score
    monkeypatch.setattr(
        evaluate, "score", lambda *given: scored.append((given[1].split, given[1].limit)) or score(*given)
    )
    found = []
    for picked_by, limit in ((30, 30), (31, 30)):
        options = f"--config.train.eval_examples={picked_by}", f"--config.evaluation.limit={limit}"
        workdir = tmp_path / str(picked_by)
        stilts(*grid(demo, workdir, "--config.experiment.targets=udpos", *options))
        (result,) = results(workdir).values()
        found.append(result["selection"])
    assert scored == [("test", 30), ("test", 30), ("dev", 30)]
    assert found[0]["best_step"] == found[1]["best_step"]  # both have but one to choose from
    assert found[0]["source_dev"] == found[1]["source_dev"] and found[0]["source_dev"]["examples"] == 30


def test_selection_on_target_languages_is_asked_for_by_name_and_printed(demo, whole, tmp_path):
    command = grid(demo, tmp_path, "--config.experiment.targets=udpos")
    assert "target-languages" in stilts(*command, "--config.experiment.select_on=target", code=2)
    stilts(*command, "--config.experiment.select_on=target-languages")
    english, result = whole["none+udpos.s0"], results(tmp_path)["none+udpos.s0"]
    assert english["selection"]["zero_shot"] and not result["selection"]["zero_shot"]
    assert result["phase"]["key"] != english["phase"]["key"]
    assert result["curve"] == english["curve"]  # the same training, looked at with other eyes
    assert result["selection"]["history"] != english["selection"]["history"]
    stilts("report", tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    assert re.search(r"dev sets of the target languages +\| \**NO", page)


def test_what_trains_the_same_is_trained_once(demo, whole, tmp_path):
    """MNLI as an intermediate task is XNLI's target run on the untouched encoder; a dry run counts it once too."""
    command = grid(demo, tmp_path, "--config.experiment.targets=xnli", rows="none+mnli")
    text = stilts(*command, "--dry_run")
    table = text[text.index("phase ") :].split("\n\n")[0].splitlines()[1:]
    steps = {line.split()[0]: int(line.split()[1]) for line in table}
    assert list(steps) == ["none+mnli.s0", "mnli.s0", "mnli.s0+mnli.s0"]
    assert steps["none+mnli.s0"] == steps["mnli.s0+mnli.s0"] > steps["mnli.s0"] == 0
    assert f"3 phases, 3 of them open: {sum(steps.values())} steps" in text
    assert stilts(*command).count("taken over") == 1
    assert len(list(tmp_path.glob("phases/*/metrics.jsonl"))) == 2  # of three phases
    found = results(tmp_path)
    assert found["none+mnli.s0"]["curve"] == found["mnli.s0"]["curve"]
    assert found["mnli.s0"]["scores"] == whole["mnli.s0"]["scores"]


def test_of_two_processes_one_waits_for_what_the_other_trains_alike(demo, tmp_path):
    command = [*PROGRAM, *grid(demo, tmp_path, "--config.experiment.targets=xnli", rows="none+mnli")]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=300)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert "".join(said).count("taken over") == 1
    assert len(list(tmp_path.glob("phases/*/metrics.jsonl"))) == 2  # of three phases


@pytest.mark.parametrize("targets", ["mnli/squad_v1", "xnli+xquad"])
def test_debug_compiles_one_shape_a_task_and_judges_nothing(targets, world, tmp_path, monkeypatch, request):
    # What `:debug` sets for its process would stay for the tests that follow: their programs need other memory.
    request.addfinalizer(lambda: jax.config.update("jax_debug_nans", False))
    monkeypatch.setattr(progress, "_WORTH_A_LINE", 0.0)  # however fast it is
    options = [f"--data_root={world}/data", f"--workdir={tmp_path}", f"--config.encoder={world}/encoder"]
    options += ["--config.train.max_length=64"]  # the toy encoder takes 128
    config = f"intermediate:task={targets}:debug" if "/" in targets else "target:debug"
    options += [] if "/" in targets else [f"--config.experiment.targets={targets}"]
    said = stilts("train", f"--config={config}", *options)
    assert "chance level" not in said and "compiling 1 of" in said
    records = [json.loads(path.read_text()) for path in tmp_path.glob("phases/*/trained.json")]
    assert [one["work"]["compilations"] for one in records] == [len(one["heads"]) for one in records]
    told = [line for line in said.splitlines() if " batch" in line and " shape" in line]
    assert told and all("in 1 batch of 1 shape" in line for line in told)
