"""A user's own task of each kind goes through every command, from a folder with a module and a few small files."""

import json
import sys
from pathlib import Path

import pytest

from tests.typed import results, stilts

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
METRICS = {"reviews": "accuracy", "weather": "accuracy", "parts": "accuracy", "who": "em", "faq": "accuracy"}


def write_own_data(folder: Path) -> None:
    """Eight rows for each split of each task."""
    words = ["mana", "luno", "seki", "tora", "pali"]
    picked = [(words[number % 5], words[(number + 1) % 5]) for number in range(8)]
    rows = list(enumerate(picked))
    weather = [{"prompt": a, "choice1": b, "choice2": a, "label": index % 2} for index, (a, b) in rows]
    parts = [{"words": pair, "tags": ["NOUN", "VERB"]} for pair in picked]
    asked = [f"{a}?,{a} {b},{b},{len(a) + 1}" for a, b in picked]
    tables = {
        "reviews/{}.csv": ["text,label", *(f"{a} {b},{('bad', 'good')[n % 2]}" for n, (a, b) in rows)],
        "who/{}.csv": ["question,context,answer,answer_start", *asked],
        "faq/{}.tsv": ["text\tpositive", *(f"{a} {index}\t{b} {index}" for index, (a, b) in rows)],
        "weather/{}.jsonl": list(map(json.dumps, weather)),
        "parts/{}-{{}}.jsonl": list(map(json.dumps, parts)),
    }
    for name, lines in tables.items():
        for split in ("train", "dev") if name[:3] in ("rev", "who") else ("train", "dev", "test"):
            for language in ("en", "de") if name.startswith("parts") else ("en",):
                path = folder / "data" / name.format(split).format(language)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join(lines) + "\n")
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
    values = {"encoder": encoder, "train.max_steps": 2, "train.buckets": 1, "train.max_length": 32}
    values |= {"compute.dtype": "float32", "mixture.sampler": "weights"}
    values |= {"mixture.weights": "my_tasks:REVIEWS=2,my_tasks:PARTS=1"}
    return [
        "--data_root=data",
        "--workdir=W",
        *(f"--config.{name}={value}" for name, value in values.items()),
    ]


BETWEEN = "my_tasks:REVIEWS/my_tasks:PARTS"
TARGETS = "+".join(f"my_tasks:{name}" for name in KINDS.values())
GRID = ["grid", f"--config=xstilts:intermediates={BETWEEN},targets={TARGETS}"]


@pytest.fixture(scope="module")
def grid(folder, options):
    """The work directory of a grid that has two own tasks in between and all of them as targets."""
    here, _ = folder
    stilts(*GRID, *options, "--dry_run")
    assert not (here / "W/phases").exists()
    stilts(*GRID, *options)
    return here / "W"


@pytest.mark.slow
def test_a_grid_trains_and_scores_own_tasks_of_every_kind(grid):
    found = results(grid)
    assert set(found["reviews+parts.s0"]["scores"]) == {"reviews", "parts"}
    for name, metric in METRICS.items():
        result = found[f"reviews+parts.s0+{name}.s0"]
        split = "dev" if name in ("reviews", "who") else "test"
        languages = {"en", "de"} if name == "parts" else {"en"}
        assert result["scores"][name][split][metric].keys() == languages
        assert result["reported_split"] == {name: split}
        assert result["selection"]["best_step"] == 2  # trained, the dual encoder too
        assert result["tasks"][name]["reference"] == f"my_tasks:{KINDS[name]}"
    # What trains and has no dev set is kept as it is at the end.
    assert found["reviews+parts.s0+weather.s0"]["selection"]["source_dev"] is None


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_eval_score_and_export_find_an_own_task(grid, name):
    result = results(grid)[f"reviews+parts.s0+{name}.s0"]
    phase, task, out = result["folder"], f"my_tasks:{KINDS[name]}", grid / f"eval-{name}"
    options = ["--data_root=data", f"--task={task}", "--config.compute.dtype=float32"]
    stilts("eval", phase, *options, f"--out={out}")
    assert json.loads((out / "scores.json").read_text())["scores"][name] == result["scores"][name]
    table = out / "table.json"
    stilts("score", f"--task={task}", f"--predictions={out}/predictions", "--gold=data", f"--out={table}")
    metrics = json.loads(table.read_text())["tasks"][name]["metrics"]
    (expected,) = result["scores"][name].values()
    for metric, values in expected.items():
        assert {language: metrics[metric][language] for language in values} == pytest.approx(values, abs=1e-9)
    if name != "faq":  # transformers has no dual encoder
        stilts("export", phase, f"--out={out / 'torch'}", f"--head={task}")
        assert (out / "torch/config.json").is_file()


def test_tasks_lists_the_paths_of_an_own_task(folder):
    printed = stilts("tasks", "my_tasks:PARTS+my_tasks:REVIEWS@de", "--data_root=data")
    assert "parts/test-{language}.jsonl" in printed and "reviews/dev.csv" in printed
    assert "train not found; looked for reviews/train-{language}.csv (de)" in printed
