"""Every task of the package, from its files through training and evaluation to `stilts eval` and `stilts score`.

The encoder is random and each phase takes two steps: what is tested are the joints, not the scores. Data are the
smallest toy world's, and a few rows made here for the tasks that it lacks.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stilts_jax.evaluation.metrics import MAIN_VALUES
from stilts_jax.report import write_report
from stilts_jax.report.results import Run
from stilts_jax.report.statistics import score_items
from stilts_jax.tasks import get_task, list_tasks
from stilts_jax.tasks.sources.files import list_paths
from tests.tasks.seed_files import SEEDS
from tests.typed import results, stilts

pytestmark = pytest.mark.slow

INTERMEDIATES = "squad_v2 mnli@de anli/qqp/ccg/squad_v1 hellaswag/cosmosqa/commonsenseqa mnli/mlm"
NEW_TARGETS = "sib200 belebele masakhaner2 masakhaner_x afriqa uner nusax masakhanews xcsqa"
TARGETS = f"xnli pawsx udpos panx xquad mlqa tydiqa xcopa lareqa mewslix {NEW_TARGETS}"
# A user's own task with a threshold of "no answer", a dev set in English and test sets in two languages.
OWN = {"nullable": "own_every_task:NULLABLE"}
# Trained or read under other names: snli in anli, siqa and copa for xcopa, mnli for xnli, text for mnli/mlm.
WITHIN_OTHERS = {"snli", "siqa", "copa", "mlm"}
# With pictures: see tests/long/test_pictures.py.
WITH_PICTURES = {name for name in list_tasks() if get_task(name).pictures}


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def write_what_the_world_lacks(root: Path) -> None:
    pairs = [json.loads(line) for line in (root / "mnli/multinli_1.0_dev_matched.jsonl").open()]
    write(root / "mnli/multinli_1.0_train-de.jsonl", pairs)
    write(root / "pawsx/train-de.tsv", (root / "pawsx/dev-de.tsv").read_text())
    for split in ("train", "dev"):
        write(root / f"snli/snli_1.0_{split}.jsonl", pairs[:8])
        # A tag that training does not have.
        tags = "N N/N" if split == "train" else "N NEW"
        write(root / f"ccg/{split}.tsv", f"two words\t{tags}\n" * 8)
        squad = json.loads((root / f"squad/{split}-v1.1.json").read_text())
        questions = [q for article in squad["data"] for part in article["paragraphs"] for q in part["qas"]]
        for question in questions[::2]:
            question |= {"answers": [], "is_impossible": True}
        write(root / f"squad/{split}-v2.0.json", squad)
    write(root / "ccg/tags_to_id.json", {"N": 0, "N/N": 1})
    train = (root / "squad/train-v1.1.json").read_text()
    write(root / "tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json", train)
    for language, ours in (("en", "en"), ("de", "fi")):
        text = (root / f"xquad/xquad.{language}.json").read_text()
        write(root / f"mlqa/MLQA_V1/test/test-context-{language}-question-{language}.json", text)
        write(root / f"tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.{ours}.dev.json", text)
    for name in ("anli", "qqp", "cosmosqa", "mewslix labels", "mewslix pairs"):
        for path, text in SEEDS[name].files.items():
            if not path.startswith(("snli", "mnli")):
                write(root / path, text)
                write(root / re.sub("dev|valid", "train", path).replace("test-de", "test-en"), text)
    for name in NEW_TARGETS.split():
        task = get_task(name)
        (text,) = SEEDS[name].files.values()
        for split in () if task.train_on else ("train", "dev", "test"):
            pattern = list_paths(task.sources[0], split, task.source_language)[""][0]
            write(root / pattern.replace("**/", "").replace("*", "x"), text)
        for path in SEEDS[name].files:
            write(root / path, text)


@pytest.fixture(scope="module")
def root(world, tmp_path_factory) -> Iterator[Path]:
    """Every task in English and German (BUCC in German, and in Russian without gold of dev)."""
    root = tmp_path_factory.mktemp("root")
    for path in sorted((world / "data").rglob("*.*")):
        inside = path.relative_to(world / "data")
        others = "es|tr|ar|zh" + ("" if inside.parts[0] == "bucc2018" else "|ru")
        pictured = inside.parts[0] in ("easy_vqa", "coco")
        if path.is_file() and not pictured and not re.search(rf"(?<![a-z])({others})(?![a-z])", path.name):
            write(root / inside, path.read_text())
    (root / "bucc2018/ru-en.dev.gold").unlink()
    write_what_the_world_lacks(root)
    write(
        root / "own_every_task.py",
        "from stilts_jax.tasks.custom import span_task\n"
        "files = {'train': 'squad/train-v2.0.json', 'dev': 'squad/dev-v2.0.json', 'test': 'own/{language}.json'}\n"
        "NULLABLE = span_task('nullable', files=files, metric='squad_v2', languages=('en', 'de'))\n",
    )
    for language in ("en", "de"):
        write(root / f"own/{language}.json", (root / f"xquad/xquad.{language}.json").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        yield root


def run(root: Path, world: Path, workdir: Path, *options: str) -> dict[str, dict]:
    """Runs a grid and returns its results by phase, each with its folder."""
    command = ["grid", "--config=toy:size=test", f"--data_root={root}", f"--workdir={workdir}"]
    command += [f"--config.encoder=random:{world / 'encoder'}", "--config.train.max_steps=2"]
    command += ["--config.train.batch_size=8", "--config.train.buckets=1", "--config.train.eval_examples=8"]
    stilts(*command, *(f"--config.{option}" for option in options))
    found = results(workdir)
    assert not any(result["error"] for result in found.values())
    if any(result["phase"]["stage"] != "intermediate" for result in found.values()):
        stilts("report", workdir)  # it reads them all
    return found


@pytest.fixture(scope="module")
def intermediates(root, world, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("intermediates")
    rows = "+".join(INTERMEDIATES.split())
    run(root, world, workdir, f"experiment.intermediates={rows}", "experiment.targets=")
    rows = "experiment.intermediates=none+squad_v2"
    return run(root, world, workdir, rows, "experiment.targets=tatoeba+bucc")


@pytest.fixture(scope="module")
def targets(root, world, tmp_path_factory):
    names = "+".join([*TARGETS.split(), *OWN.values()])
    workdir = tmp_path_factory.mktemp("targets")
    return run(root, world, workdir, "experiment.intermediates=none", f"experiment.targets={names}")


def check_scores(result: dict) -> None:
    """What every result promises to its readers, whatever the tasks; the report's reader finds it."""
    read = Run(result["folder"] / "result.json")
    for name, splits in result["scores"].items():
        split, metrics = result["reported_split"][name], result["main_metric"][name]
        assert tuple(metrics) == MAIN_VALUES[get_task(OWN.get(name, name)).metric]
        for metric in metrics:
            assert splits[split][metric], (name, metric)
            assert all(0 <= value <= 100 for value in splits[split][metric].values())
        languages = set(splits[split][metrics[0]])
        shown = {metric: splits[split][metric] for metric in metrics}
        expected = {(name, split, one, code, shown[one][code]) for one in metrics for code in languages}
        assert expected <= set(read.scores)
        items = read.items(name)
        assert set(items) == languages
        for language, values in items.items():  # the number that a report compares is the one that it shows
            counted = ["f1"] if values.statistic == "binary_f1" else metrics
            expected = sum(shown[metric][language] for metric in counted) / len(counted)
            assert score_items(values) == pytest.approx(expected, abs=1e-3), (name, language)
        assert languages <= set(result["data"][name][split]["languages"])


def check_written(result: dict, tasks: list[str], root: Path, folder: Path) -> None:
    """`stilts eval` on the phase's folder writes what `stilts score` scores as the experiment did."""
    names = [f"--task={OWN.get(task, task)}" for task in tasks]
    model, out = result.get("model", result["folder"]), folder / "scored.json"
    stilts("eval", model, *names, f"--data_root={root}", "--config=toy:size=test", f"--out={folder}")
    again = json.loads((folder / "scores.json").read_text())["scores"]
    sides = (f"--predictions={folder / 'predictions'}", f"--gold={root}")
    printed = stilts("score", *sides, *names, f"--out={out}")
    scored = json.loads(out.read_text())["tasks"]
    for task in tasks:
        expected = result["scores"][task][result["reported_split"][task]]
        assert again[task][result["reported_split"][task]] == expected, task
        found = scored[task]["metrics"]
        assert set(found) == set(expected), task
        for metric, values in expected.items():
            some = {language: found[metric][language] for language in values}
            assert some == pytest.approx(values, abs=1e-9), (task, metric)
        assert re.search(rf"^{re.escape(task)} +{scored[task]['mean']:.2f} ", printed, re.MULTILINE)


def test_every_task_of_the_package_is_here():
    names = {name.partition("@")[0] for row in INTERMEDIATES.split() for name in row.split("/")}
    assert names | {*TARGETS.split(), "tatoeba", "bucc"} | WITHIN_OTHERS | WITH_PICTURES == {*list_tasks()}


def test_every_intermediate(intermediates, root, tmp_path):
    for row in INTERMEDIATES.split():
        result = intermediates[f"{row.replace('/', '+')}.s0"]
        check_scores(result)
        tasks = [name for name in row.split("/") if name != "mlm"]
        assert list(result["scores"]) == tasks
        check_written(result, tasks, root, tmp_path / row.replace("/", "+"))
    assert intermediates["mnli@de.s0"]["phase"]["source_language"] == "de"


def test_bucc_takes_its_threshold_from_dev_or_stays_empty(intermediates, root, tmp_path):
    for name in ("none+retrieval", "squad_v2.s0+retrieval"):
        result = intermediates[name]
        check_scores(result)
        assert list(result["thresholds"]["bucc"]) == ["de"]
        splits = result["scores"]["bucc"]
        assert set(splits["dev"]["f1"]) == set(splits["test"]["f1"]) == {"de"}
        notes = [note for note in result["selection"]["notes"] if re.search(r"\bru\b", note)]
        assert any("bucc" in note and "dev" in note for note in notes)
        assert set(result["scores"]["tatoeba"]["test"]["accuracy"]) == {"de", "sw"}
    phase = intermediates["squad_v2.s0+retrieval"] | {"model": intermediates["squad_v2.s0"]["folder"]}
    folder = tmp_path / "predictions/bucc2018"
    check_written(phase, ["tatoeba", "bucc"], root, tmp_path)
    assert not (folder / "test-ru.tsv").exists()


def test_a_sweep_over_layers_tunes_each_on_dev(root, world, intermediates, tmp_path, monkeypatch):
    rows = ("experiment.intermediates=none", "experiment.targets=tatoeba+bucc", "model.sweep_layers=True")
    (result,) = run(root, world, tmp_path, *rows).values()
    # Where memory holds the vectors of one layer only, each has a pass of its own.
    monkeypatch.setattr("stilts_jax.experiment.evaluate.total_memory", lambda: 1)
    (apart,) = run(root, world, tmp_path / "apart", *rows).values()
    assert apart["scores"] == result["scores"] and apart["thresholds"] == result["thresholds"]
    for task, metric, languages in (("bucc", "f1", {"de"}), ("tatoeba", "accuracy", {"de", "sw"})):
        layers = [split for split in result["scores"][task] if split.startswith("test-layer")]
        assert layers == ["test-layer0", "test-layer1", "test-layer2"]
        for layer in layers:
            assert set(result["scores"][task][layer][metric]) == languages
        # The reported layer is one of them.
        assert result["scores"][task]["test"] == result["scores"][task]["test-layer1"]
        plain = intermediates["none+retrieval"]["scores"][task]["test"][metric]
        assert result["scores"][task]["test"][metric] == pytest.approx(plain, abs=3)
    paths = write_report(tmp_path)
    lines = csv.DictReader((paths.tables / "layers.csv").read_text().splitlines())
    shown = [float(line["2"]) for line in lines if line["Target"] == "Tatoeba"]
    values = result["scores"]["tatoeba"]["test-layer2"]["accuracy"].values()
    assert shown == [pytest.approx(sum(values) / 2)] and (paths.figures / "layers_tatoeba.png").is_file()


def test_every_target(targets, root, tmp_path):
    seen = []
    for name, result in targets.items():
        check_scores(result)
        tasks = list(result["scores"])
        if tasks:
            check_written(result, tasks, root, tmp_path / name)
        seen += tasks
    assert sorted(seen) == sorted([*TARGETS.split(), *OWN])
    (own,) = (result for result in targets.values() if "nullable" in result["scores"])
    assert own["thresholds"]["nullable"]["en"] == own["thresholds"]["nullable"]["de"]
    assert set(own["scores"]["nullable"]["dev"]["f1"]) == {"en"}
    assert any("nullable" in note and "dev" in note for note in own["selection"]["notes"])
    for task, languages in (
        ("mlqa", {"en", "de"}),
        ("tydiqa", {"en", "fi", "sw"}),
        ("mewslix", {"en", "de"}),
    ):
        (found,) = (result["scores"][task]["test"] for result in targets.values() if task in result["scores"])
        assert all(set(values) == languages for values in found.values())
