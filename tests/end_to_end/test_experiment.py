"""The whole recipe on the toy world, through the command line, on eight forced CPU devices."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stilts_jax.tasks import get_task

pytestmark = pytest.mark.slow

LANGUAGES = {"de", "es", "sw", "tr", "ru", "ar", "zh"}  # the toy world's, besides English


def stilts(environment, *arguments, check=True):
    command = [sys.executable, "-m", "stilts_jax.main", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def results_below(folder: Path) -> dict[str, dict]:
    """Returns the records of phases by name; of a phase whose last attempt failed, that failure."""
    paths = [path for name in ("result", "failure") for path in folder.glob(f"phases/*/{name}.json")]
    found = (json.loads(path.read_text()) for path in paths)
    return {result["phase"]["name"]: result for result in found}


def grid_arguments(demo_workdir, workdir, *more, intermediates="none"):
    return (
        "grid",
        "--config=toy:size=test",
        f"--data_root={demo_workdir / 'world' / 'data'}",
        f"--workdir={workdir}",
        f"--config.encoder={demo_workdir / 'encoder'}",
        f"--config.experiment.intermediates={intermediates}",
        *more,
    )


def test_the_demo_trains_and_scores_every_phase_in_every_language(demo):
    workdir, done = demo
    results = results_below(workdir / "grid")
    assert set(results) == {
        "none+udpos.s0",
        "none+squad_v1.s0",
        "none+retrieval",
        "mnli.s0",
        "mnli.s0+udpos.s0",
        "mnli.s0+squad_v1.s0",
        "mnli.s0+retrieval",
    }
    for name, result in results.items():
        assert result["error"] is None
        assert result["environment"]["device_count"] == 8
        if name != "mnli.s0":
            ((task, scores),) = result["scores"].items()
            for by_language in scores["test"].values():
                assert by_language.keys() - {"en"} == LANGUAGES & set(get_task(task).languages)
                assert all(0 <= value <= 100 for value in by_language.values())
    dev = results["mnli.s0+squad_v1.s0"]["selection"]["source_dev"]
    assert (dev["task"], dev["split"], dev["language"]) == ("squad_v1", "dev", "en")
    assert 0 <= dev["score"] <= 100
    assert results["mnli.s0+udpos.s0"]["phase"]["parent"] == results["mnli.s0"]["phase"]["key"]
    assert "Tatoeba" in done.stdout
    page = (workdir / "grid" / "report" / "report.html").read_text()
    assert "toy results" in page.lower()


def test_a_dry_run_says_what_the_grid_then_takes(demo, environment, tmp_path):
    workdir, _ = demo
    arguments = grid_arguments(workdir, tmp_path, "--dry_run", intermediates="none+mnli")
    text = stilts(environment, *arguments).stdout
    rows = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in text.split("\n\n")[0].splitlines())
    results = results_below(workdir / "grid")
    for name, result in results.items():
        steps, trained_on, _, _, model = re.split(r"  +", rows[name])
        assert int(steps) == result["throughput"]["steps"]
        (folder,) = (workdir / "grid" / "phases").glob(f"{name}-*")
        if int(steps):
            work = json.loads((folder / "trained.json").read_text())["work"]
            assert read_number(trained_on) == pytest.approx(work["real_tokens"], rel=0.05)
            files = [path for path in (folder / "final").rglob("*") if "tokenizer" not in path.parts]
            there = sum(path.stat().st_size for path in files)
            # Within a tenth, and what orbax writes beside the numbers (much, for a toy).
            assert read_number(model[:-1]) < there < 1.1 * read_number(model[:-1]) + 300_000
    assert f"{sum(result['throughput']['steps'] for result in results.values())} steps" in text
    assert "assuming 40% of its peak" in text
    # What is done counts no more, and tells how fast the rest will be.
    done = grid_arguments(workdir, workdir / "grid", "--dry_run", intermediates="none+mnli")
    text = stilts(environment, *done).stdout
    assert f"{len(results)} phases, 0 of them open: 0 steps" in text
    assert f"on {results['mnli.s0']['environment']['device']}, as fast as the 5 phases" in text


def test_a_dry_run_counts_once_what_is_trained_once(demo, environment, tmp_path):
    """MNLI between is XNLI's target run on the untouched encoder too."""
    workdir, _ = demo
    arguments = grid_arguments(
        workdir, tmp_path, "--config.experiment.targets=xnli", "--dry_run", intermediates="none+mnli"
    )
    text = stilts(environment, *arguments).stdout
    steps = {line.split()[0]: int(line.split()[1]) for line in text.split("\n\n")[0].splitlines()[1:]}
    assert list(steps) == ["none+mnli.s0", "mnli.s0", "mnli.s0+mnli.s0"]
    assert steps["none+mnli.s0"] == steps["mnli.s0"] > 0
    assert f"3 phases, 3 of them open: {steps['mnli.s0'] + steps['mnli.s0+mnli.s0']} steps" in text


def read_number(text):
    """Returns 1530 for ``1.53 k``."""
    number, _, prefix = text.partition(" ")
    return float(number) * 1000 ** " kMGT".index(prefix or " ")


def test_a_killed_grid_ends_with_the_same_scores_and_metrics(demo, environment, tmp_path):
    workdir, _ = demo
    arguments = grid_arguments(workdir, tmp_path, "--config.experiment.targets=udpos")
    more = ["--config.train.checkpoint_every=4", "--config.train.log_every=1"]
    command = [sys.executable, "-m", "stilts_jax.main", *arguments, *more]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:  # until a checkpoint is there and training goes on behind it
        saved = list(tmp_path.glob("phases/*/checkpoints/4/_CHECKPOINT_METADATA"))
        lines = [len(path.read_text().splitlines()) for path in tmp_path.glob("phases/*/metrics.jsonl")]
        if saved and max(lines) > 4:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not results_below(tmp_path)
    done = stilts(environment, *arguments, *more)
    assert "going on after step" in done.stderr
    whole = results_below(workdir / "grid")["none+udpos.s0"]
    killed = results_below(tmp_path)["none+udpos.s0"]
    assert killed["phase"]["key"] == whole["phase"]["key"]
    assert killed["scores"] == whole["scores"]
    assert killed["items"] == whole["items"]


def test_two_parts_at_once_give_the_results_of_one_process(demo, environment, tmp_path):
    """Both parts share one row: the second trains on the intermediate that the first is still training."""
    workdir, _ = demo
    arguments = grid_arguments(workdir, tmp_path, intermediates="mnli")
    command = [sys.executable, "-m", "stilts_jax.main", *arguments]
    parts = [
        subprocess.Popen([*command, f"--part={part}/2"], env=environment, stderr=subprocess.PIPE, text=True)
        for part in (2, 1)
    ]
    said = [part.communicate(timeout=300)[1] for part in parts]
    assert [part.returncode for part in parts] == [0, 0], said
    assert "waiting for mnli.s0, which another part trains" in said[0]
    for words in said:  # each did some of it
        assert "training:" in words
        assert "done before" not in words
    one = {name: found for name, found in results_below(workdir / "grid").items() if name.startswith("mnli")}
    two = results_below(tmp_path)
    assert set(one) == set(two)
    for name, found in two.items():
        for part in ("phase", "evaluation_key", "scores", "items", "selection", "curve", "config", "data"):
            assert found[part] == one[name][part], (name, part)


def test_another_test_language_scores_again_and_never_trains_again(demo, environment, tmp_path):
    workdir, _ = demo
    arguments = grid_arguments(workdir, tmp_path, "--config.experiment.targets=udpos")
    stilts(environment, *arguments, "--config.experiment.languages=de")
    (trained,) = tmp_path.glob("phases/*/trained.json")
    before = trained.stat().st_mtime_ns
    assert set(results_below(tmp_path)["none+udpos.s0"]["scores"]["udpos"]["test"]["f1"]) == {"de"}
    stilts(environment, *arguments, "--config.experiment.languages=de+ru")
    assert set(results_below(tmp_path)["none+udpos.s0"]["scores"]["udpos"]["test"]["f1"]) == {"de", "ru"}
    stilts(environment, *arguments, "--config.experiment.languages=ru", "--config.evaluation.limit=8")
    limited = results_below(tmp_path)["none+udpos.s0"]
    assert limited["data"]["udpos"]["test"]["examples"] == 8
    assert "udpos: scored on the first 8 examples of each language only" in limited["selection"]["notes"]
    assert trained.stat().st_mtime_ns == before
    assert len(list(tmp_path.glob("phases/*"))) == 1


def test_selection_on_target_languages_is_asked_for_by_name_and_printed(demo, environment, tmp_path):
    workdir, _ = demo
    arguments = grid_arguments(workdir, tmp_path, "--config.experiment.targets=udpos")
    mistyped = stilts(environment, *arguments, "--config.experiment.select_on=target", check=False)
    assert mistyped.returncode == 2
    assert "target-languages" in mistyped.stderr
    stilts(environment, *arguments, "--config.experiment.select_on=target-languages")
    english = results_below(workdir / "grid")["none+udpos.s0"]
    result = results_below(tmp_path)["none+udpos.s0"]
    assert english["selection"]["zero_shot"]
    assert not result["selection"]["zero_shot"]
    assert result["phase"]["key"] != english["phase"]["key"]
    assert result["curve"] == english["curve"]  # the same training, looked at with other eyes
    assert result["selection"]["history"] != english["selection"]["history"]
    stilts(environment, "report", tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    assert re.search(r"dev sets of the target languages +\| \**NO", page)


def test_what_trains_the_same_is_trained_once(demo, environment, tmp_path):
    """MNLI as an intermediate task is XNLI's target run on the untouched encoder."""
    workdir, _ = demo
    arguments = grid_arguments(
        workdir, tmp_path, "--config.experiment.targets=xnli", intermediates="none+mnli"
    )
    done = stilts(environment, *arguments)
    assert done.stderr.count("taken over") == 1
    assert len(list(tmp_path.glob("phases/*/metrics.jsonl"))) == 2  # of three phases
    results = results_below(tmp_path)
    alike = results["none+mnli.s0"], results["mnli.s0"]
    assert alike[0]["curve"] == alike[1]["curve"]
    trained_alone = results_below(workdir / "grid")["mnli.s0"]
    assert alike[1]["scores"] == trained_alone["scores"]


def test_a_row_from_another_encoder_needs_nothing_of_the_experiments_own(demo, environment, tmp_path):
    workdir, _ = demo
    other = ("--config.encoder=not/here", "--config.experiment.targets=udpos")
    row = f"hub:{workdir / 'encoder'}"
    arguments = grid_arguments(workdir, tmp_path, *other, intermediates=row)
    stilts(environment, *arguments)
    (result,) = results_below(tmp_path).values()
    # It starts from the same files as the row without an intermediate task: the same training, the same scores.
    assert result["scores"] == results_below(workdir / "grid")["none+udpos.s0"]["scores"]
