"""A user's own task of each kind goes through every command, from a folder with a module and a few small files."""

import json
import sys
from pathlib import Path

import pytest

from stilts_jax.main import main

MODULE = """
from stilts_jax.tasks.custom import choice_task, classify_task, pair_task, span_task, tag_task
from stilts_jax.tasks.spec import Hyperparameters

SHORT = {"paper": Hyperparameters(batch_size=4, max_length=32)}

REVIEWS = classify_task(
    name="reviews", labels=("bad", "good"), files={"train": "reviews/train.csv", "dev": "reviews/dev.csv"}
)
WEATHER = choice_task(
    name="weather", files={split: f"weather/{split}.jsonl" for split in ("train", "test")}, hyperparameters=SHORT
)
PARTS = tag_task(
    name="parts",
    title="Parts of speech",
    labels=("NOUN", "VERB"),
    files={split: f"parts/{split}-{{language}}.jsonl" for split in ("train", "dev", "test")},
    languages=("en", "de"),
    hyperparameters=SHORT,
)
WHO = span_task(name="who", files={split: f"who/{split}.csv" for split in ("train", "dev")}, group="intermediate")
FAQ = pair_task(
    name="faq", files={split: f"faq/{split}.tsv" for split in ("train", "dev", "test")}, hyperparameters=SHORT
)
"""
KINDS = {"reviews": "REVIEWS", "weather": "WEATHER", "parts": "PARTS", "who": "WHO", "faq": "FAQ"}
METRICS = {"reviews": "accuracy", "weather": "accuracy", "parts": "f1", "who": "em", "faq": "accuracy"}
WORDS = "mana luno seki tora pali"


def _table(path: Path, separator: str, *rows: tuple[str, ...]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(separator.join(row) + "\n" for row in rows))


def _lines(path: Path, *rows: dict) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_own_data(folder: Path) -> None:
    """Eight rows for each split of each task."""
    data = folder / "data"
    data.mkdir()
    words = WORDS.split()
    picked = [(words[number % 5], words[(number + 1) % 5]) for number in range(8)]
    for split in ("train", "dev", "test"):
        for name in ("reviews", "who"):
            (data / name).mkdir(exist_ok=True)
        if split != "test":
            reviews = [(f"{a} {b}", ("bad", "good")[index % 2]) for index, (a, b) in enumerate(picked)]
            _table(data / f"reviews/{split}.csv", ",", ("text", "label"), *reviews)
            spans = [(f"{a}?", f"{a} {b}", b, str(len(a) + 1)) for a, b in picked]
            _table(data / f"who/{split}.csv", ",", ("question", "context", "answer", "answer_start"), *spans)
        pairs = [(f"{a} {index}", f"{b} {index}") for index, (a, b) in enumerate(picked)]
        _table(data / f"faq/{split}.tsv", "\t", ("text", "positive"), *pairs)
        choices = [
            {"prompt": a, "choice1": b, "choice2": a, "label": index % 2}
            for index, (a, b) in enumerate(picked)
        ]
        _lines(data / f"weather/{split}.jsonl", *choices)
        for language in ("en", "de"):
            tagged = [{"words": [a, b], "tags": ["NOUN", "VERB"]} for a, b in picked]
            _lines(data / f"parts/{split}-{language}.jsonl", *tagged)
    (folder / "my_tasks.py").write_text(MODULE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, world):
    """Where the user types: the module lies here, and nothing is on the Python path."""
    here = tmp_path_factory.mktemp("user")
    write_own_data(here)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        yield here, f"random:{world / 'encoder'}"
    sys.modules.pop("my_tasks", None)


@pytest.fixture(scope="module")
def options(folder) -> list[str]:
    """What all commands that train have in common."""
    _, encoder = folder
    values = {
        "data_root": "data",
        "workdir": "W",
        "config.encoder": encoder,
        "config.train.max_steps": 2,
        "config.train.buckets": 1,
        "config.train.max_length": 32,
        "config.compute.dtype": "float32",
        "config.mixture.sampler": "weights",
        "config.mixture.weights": "my_tasks:REVIEWS=2,my_tasks:PARTS=1",
    }
    return [f"--{name}={value}" for name, value in values.items()]


BETWEEN = "my_tasks:REVIEWS/my_tasks:PARTS"
TARGETS = "+".join(f"my_tasks:{name}" for name in KINDS.values())
GRID = ["grid", f"--config=xstilts:intermediates={BETWEEN},targets={TARGETS}"]


@pytest.fixture(scope="module")
def grid(folder, options):
    """The work directory of a grid that has two own tasks in between and all of them as targets."""
    here, _ = folder
    assert main([*GRID, *options, "--dry_run"]) == 0
    assert not (here / "W/phases").exists()
    assert main([*GRID, *options]) == 0
    return here / "W"


def _phase(workdir: Path, name: str) -> tuple[Path, dict]:
    """The one folder whose phase has a name, and its result."""
    found = {path.parent: json.loads(path.read_text()) for path in workdir.glob("phases/*/result.json")}
    ((folder, result),) = [item for item in found.items() if item[1]["phase"]["name"] == name]
    return folder, result


@pytest.mark.slow
def test_a_grid_trains_and_scores_own_tasks_of_every_kind(grid, capsys):
    _, before = _phase(grid, "reviews+parts.s0")
    assert set(before["scores"]) == {"reviews", "parts"}
    for name, metric in METRICS.items():
        _, result = _phase(grid, f"reviews+parts.s0+{name}.s0")
        split = "dev" if name in ("reviews", "who") else "test"
        languages = {"en", "de"} if name == "parts" else {"en"}
        assert set(result["scores"][name][split][metric]) == languages
        assert result["reported_split"] == {name: split}
        assert result["selection"]["best_step"] == 2  # trained, the dual encoder too
        assert result["tasks"][name]["reference"] == f"my_tasks:{KINDS[name]}"
    assert _phase(grid, "reviews+parts.s0+who.s0")[1]["tasks"]["who"]["group"] == "intermediate"
    assert _phase(grid, "reviews+parts.s0+parts.s0")[1]["tasks"]["parts"]["title"] == "Parts of speech"
    # What trains and has no dev set is kept as it is at the end.
    assert _phase(grid, "reviews+parts.s0+weather.s0")[1]["selection"]["source_dev"] is None


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_eval_score_and_export_find_an_own_task(grid, name):
    phase, result = _phase(grid, f"reviews+parts.s0+{name}.s0")
    task, out = f"my_tasks:{KINDS[name]}", grid / f"eval-{name}"
    options = ["--data_root=data", f"--task={task}", "--config.compute.dtype=float32"]
    assert main(["eval", str(phase), *options, f"--out={out}"]) == 0
    assert main(["eval", str(phase), *options, f"--out={out}-only", "--submission"]) == 0
    scored = json.loads((out / "scores.json").read_text())["scores"]
    assert scored[name] == result["scores"][name]
    files = {path.name: path.read_text() for path in (out / f"predictions/{name}").iterdir()}
    assert files == {path.name: path.read_text() for path in Path(f"{out}-only/predictions/{name}").iterdir()}
    table = out / "table.json"
    assert (
        main(["score", f"--task={task}", f"--predictions={out}/predictions", "--gold=data", f"--out={table}"])
        == 0
    )
    metrics = json.loads(table.read_text())["tasks"][name]["metrics"]
    (expected,) = result["scores"][name].values()
    for metric, values in expected.items():
        assert {language: metrics[metric][language] for language in values} == pytest.approx(values, abs=1e-9)
    if name != "faq":  # transformers has no dual encoder
        assert main(["export", str(phase), f"--out={out / 'torch'}", f"--head={task}"]) == 0
        assert (out / "torch/config.json").is_file()


@pytest.mark.slow
def test_the_report_has_own_tasks_in_their_groups(grid):
    assert main(["report", str(grid)]) == 0
    page = (grid / "report/report.html").read_text()
    assert all(name in page for name in ("reviews", "weather", "who", "faq"))


def _open_phases(capsys, options: list[str]) -> set[str]:
    """The phases that a dry run does not call done."""
    assert main([*GRID, *options, "--dry_run"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    return {row[0] for row in rows if row and row[0].startswith("reviews+") and row[1] != "done"}


@pytest.mark.slow
def test_train_finds_what_the_grid_trained_and_another_declaration_does_not(grid, options, capsys):
    phases = len(list(grid.glob("phases/*")))
    assert main(["train", f"--config=intermediate:task={BETWEEN}", *options]) == 0
    assert len(list(grid.glob("phases/*"))) == phases
    capsys.readouterr()
    assert _open_phases(capsys, options) == set()
    module = Path("my_tasks.py")
    try:
        module.write_text(
            MODULE.replace('name="weather",', 'name="weather", choices=("choice2", "choice1"),')
        )
        sys.modules.pop("my_tasks")
        assert _open_phases(capsys, options) == {"reviews+parts.s0+weather.s0"}
    finally:
        module.write_text(MODULE)
        sys.modules.pop("my_tasks", None)


def test_tasks_lists_the_paths_of_an_own_task(folder, capsys):
    assert main(["tasks", "my_tasks:PARTS", "my_tasks:REVIEWS@de", "--data_root=data"]) == 0
    printed = capsys.readouterr().out
    assert "parts/test-de.jsonl" in printed and "reviews/dev.csv" in printed
    assert "train not found (de)" in printed
