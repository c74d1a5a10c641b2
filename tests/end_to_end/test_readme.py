"""README.md, typed: every command block, every row of its table of uses and every Python block, at toy size.

``PROMISES`` says for each what is typed instead (toy data, few steps) and looks at what the sentence beside it
promises. What can't be run here says why, and as much of it as can be is run.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stilts_jax.tasks import get_task
from tests.typed import results, stilts

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def commands() -> list[str]:
    """The commands of indented blocks, as they are typed: continued lines joined, comments cut."""
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    lines = re.findall(r"(?m)^ {4}(\S.*)$", text.replace("\\\n", " "))
    return [" ".join(re.sub(r"\s#\s.*$", "", line).split()) for line in lines]


def uses() -> list[str]:
    """The first code of each row of the table of uses."""
    table = README.partition("| to | type |")[2].partition("\n\n")[0]
    return [
        row.split("|")[2].strip() for row in table.splitlines() if row.startswith("| ") and "---" not in row
    ]


class Toy:
    """Where commands run at toy size: data, an encoder and a finished grid of the toy world."""

    def __init__(self, demo: Path, folder: Path) -> None:
        self.demo, self.folder = demo, folder
        self.data, self.encoder = demo / "world" / "data", demo / "encoder"

    def grid(self, config: str, *more: object, data: Path | None = None) -> dict[str, dict]:
        """Runs a grid in debug size and returns its results by phase."""
        stilts("grid", *self.tiny(config, data), f"--workdir={self.folder / 'w'}", *more)
        return results(self.folder / "w")

    def tiny(self, config: str, data: Path | None = None) -> list[str]:
        """The options that make any config small enough: debug, and rows that the toy encoder takes."""
        places = [f"--data_root={data or self.data}", f"--config.encoder={self.encoder}"]
        shorter = [f"--config.{name}=64" for name in ("train.max_length", "mixture.mlm_max_length")]
        return [f"--config={config}:debug", *places, *shorter]

    def more_data(self, *copies: tuple[str, str]) -> Path:
        """A data root in which some files are there under other names too."""
        data = self.folder / "data"
        shutil.copytree(self.data, data)
        for name, other in copies:
            shutil.copy(data / name, data / other)
        return data

    def phase(self, name: str) -> Path:
        """A finished phase of the demo."""
        return next((self.demo / "grid" / "phases").glob(f"{name}-*"))


@pytest.fixture
def toy(demo, tmp_path, monkeypatch) -> Toy:
    monkeypatch.chdir(tmp_path)
    return Toy(demo[0], tmp_path)


SLICE = "xstilts:intermediates=none+mnli,targets=xnli+panx+tatoeba"  # instead of three rows and three seeds


def show_the_demo(toy: Toy) -> None:
    page = (toy.demo / "grid" / "report" / "report.html").read_text("utf-8")
    assert "toy results" in page.lower() and len(results(toy.demo / "grid")) == 7


def run_the_tests(toy: Toy) -> None:
    """Not run here, as this is one of them: .ci/run types it in a fresh environment."""
    assert "pytest" in (ROOT / ".ci" / "run").read_text("utf-8")


def list_tasks(toy: Toy) -> None:
    printed = stilts("tasks", f"--data_root={toy.data}")
    assert all(name in printed for name in ("mnli", "xnli", "tatoeba", "panx"))


def prepare_an_encoder(toy: Toy) -> None:
    """The hub is not asked: in tests/tasks/test_hub.py a server on this machine answers in its place."""
    names = ("mnli", "squad_v1", "xnli", "panx", "tatoeba")
    options = ("--languages=de+sw", f"--data_root={toy.data}", f"--encoder={toy.encoder}", "--no_download")
    printed = stilts("prepare", *names, *options, code=1)  # the counts are not those of the released data
    assert all(name in printed for name in names)


def look_first(toy: Toy) -> None:
    printed = stilts("grid", *toy.tiny(SLICE), f"--workdir={toy.folder / 'w'}", "--dry_run")
    assert all(word in printed for word in ("phase", "steps", "tokens", "FLOP", "disk", "device-hours"))
    assert not results(toy.folder / "w")


def run_a_slice(toy: Toy) -> None:
    found, targets = toy.grid(SLICE), ("mnli.s0", "panx.s0", "retrieval")
    assert set(found) == {"mnli.s0", *(f"{row}+{name}" for row in ("none", "mnli.s0") for name in targets)}
    assert set(found["mnli.s0+retrieval"]["scores"]) == {"tatoeba"}
    before = {path: path.read_bytes() for path in toy.folder.glob("w/phases/*/result.json")}
    toy.grid(SLICE)  # typed again: nothing is done twice
    assert {path: path.read_bytes() for path in before} == before


def report(toy: Toy) -> None:
    shutil.copytree(toy.demo / "grid", toy.folder / "w")
    stilts("report", toy.folder / "w")
    names = {path.suffix for path in (toy.folder / "w" / "report").rglob("*")}
    assert {".html", ".md", ".csv", ".tex"} <= names


def bench(toy: Toy) -> None:
    options = "--shape=tiny --lengths=mnli --max_length=16 --rounds=1 --rows=16 --batch_size=4 --config.train.buckets=1"
    printed = stilts("bench", *options.split(), f"--data_root={toy.data}", f"--encoder={toy.encoder}")
    assert "train" in printed and "examples/s" in printed


def several_at_once(toy: Toy) -> None:
    found = toy.grid("xstilts:intermediates=mnli/squad_v1+mnli/mlm,targets=tatoeba")
    assert {"mnli+squad_v1.s0", "mnli+mlm.s0"} <= set(found)


def pictures(toy: Toy) -> None:
    """Pictures of one colour, of 112 pixels as the default has it."""
    data = toy.more_data()
    for part, count in (("train", 60), ("test", 8)):
        folder = data / "easy_vqa" / part
        (folder / "images").mkdir(parents=True)
        colours = [("red", "blue")[number % 2] for number in range(count)]
        for number, colour in enumerate(colours):
            Image.new("RGB", (64, 64), colour).save(folder / "images" / f"{number}.png")
        asked = [["what color is it?", colour, number] for number, colour in enumerate(colours)]
        (folder / "questions.json").write_text(json.dumps(asked))
    rows = "none+easy_vqa+easy_vqa:blind+easy_vqa:shuffled+easy_vqa/mlm"
    found = toy.grid(f"xstilts:intermediates={rows},targets=tatoeba", data=data)
    assert {"easy_vqa.s0", "easy_vqa.blind.s0", "easy_vqa.shuffled.s0", "easy_vqa+mlm.s0"} <= set(found)
    stilts("report", toy.folder / "w")
    assert "With pictures / without" in (toy.folder / "w" / "report" / "report.md").read_text("utf-8")


def frozen_features(toy: Toy) -> None:
    """A vision encoder is made by PyTorch: tests/evaluation/test_picture_features.py runs it where PyTorch is there."""
    (toy.folder / "images").mkdir()
    stilts("features", f"--encoder={toy.encoder}", "--pictures=images", "--out=images.vit", code=1)
    assert not (toy.folder / "images.vit").exists()


def translated(toy: Toy) -> None:
    name = "mnli/multinli_1.0_{}.jsonl".format
    data = toy.more_data(*((name(split), name(f"{split}-de")) for split in ("train", "dev_matched")))
    found = toy.grid("xstilts:intermediates=mnli@de,targets=tatoeba", data=data)
    assert found["mnli@de.s0"]["phase"]["source_language"] == "de"


def another_encoder(toy: Toy) -> None:
    found = toy.grid(f"xstilts:intermediates=hub:{toy.encoder},targets=tatoeba")
    assert [one["scores"].keys() for one in found.values()] == [{"tatoeba"}]


def other_source_language(toy: Toy) -> None:
    data = toy.more_data(*((f"panx/{split}-en.tsv", f"panx/{split}-de.tsv") for split in ("train", "dev")))
    found = toy.grid("xstilts:intermediates=none,targets=panx,source_language=de", data=data)
    assert {one["phase"]["source_language"] for one in found.values()} == {"de"}


def xtreme_preset(toy: Toy) -> None:
    (found,) = toy.grid("xstilts:intermediates=none,targets=panx,preset=xtreme").values()
    presets = get_task("panx").hyperparameters
    rate = found["config"]["tasks"]["panx"]["hyperparameters"]["learning_rate"]
    assert rate == presets["xtreme"].learning_rate != presets["paper"].learning_rate


def xtreme_r(toy: Toy) -> None:
    """With --available: the toy world has a part of it. tests/long/test_every_task.py scores each."""
    options = [*toy.tiny("xstilts:benchmark=xtreme-r,intermediates=none"), f"--workdir={toy.folder / 'w'}"]
    printed = stilts("grid", *options, "--available", "--dry_run")
    assert "left out: mewslix" in printed
    trained = ("mnli.s0", "udpos.s0", "panx.s0", "squad_v1.s0", "retrieval")
    assert all(f"none+{name}" in printed for name in trained)


def parts(toy: Toy) -> None:
    config = "xstilts:intermediates=none,targets=udpos+panx"
    first, both = toy.grid(config, "--part=1/2"), toy.grid(config, "--part=2/2")
    assert len(first) == 1 and set(first) < set(both) == {"none+udpos.s0", "none+panx.s0"}


def copa_alone(toy: Toy) -> None:
    train_on = "--config.experiment.train_on=xcopa=copa"
    assert set(toy.grid("xstilts:intermediates=none,targets=xcopa", train_on)) == {"none+copa.s0"}


def by_task(toy: Toy) -> None:
    options = "--config.train.by_task=xnli.epochs=1,udpos.learning_rate=5e-5"
    found = toy.grid("xstilts:intermediates=none,targets=xnli+udpos", options)
    tasks = [
        found[name]["config"]["tasks"][name[5:-3]]["hyperparameters"]
        for name in ("none+mnli.s0", "none+udpos.s0")
    ]
    assert [(one["epochs"], one["learning_rate"]) for one in tasks] == [(1.0, 1e-5), (10.0, 5e-5)]


def three_examples(toy: Toy) -> None:
    printed = stilts("tasks", "xnli", f"--data_root={toy.data}", f"--encoder={toy.encoder}")
    assert printed.count("label: ") == 3 and printed.count(" pieces: ") == 6  # of a pair's two texts


def quick_look(toy: Toy) -> None:
    (result,) = toy.grid("xstilts:intermediates=none,targets=udpos", "--config.evaluation.limit=8").values()
    assert result["data"]["udpos"]["test"]["examples"] == 8 * len(result["scores"]["udpos"]["test"]["f1"])


def one_task(toy: Toy) -> None:
    stilts("train", *toy.tiny("target:task=panx"), f"--workdir={toy.folder / 'w'}")
    assert set(results(toy.folder / "w")) == {"none+panx.s0"}


def does_it_fit(toy: Toy) -> None:
    """The compiler for TPUs is in no extra that tests install: the same command for CPU devices."""
    options = "--encoder=tiny --topology=cpu:8 --task=xnli --rows=8 --length=16 --config=toy:size=test"
    printed = stilts("plan", *options.split(), f"--data_root={toy.data}", f"--config.encoder={toy.encoder}")
    assert all(word in printed for word in ("GiB on a device", "training", "parameters", "total"))


def pytorch_folder(toy: Toy) -> None:
    export(toy)
    options = (f"--data_root={toy.data}", f"--out={toy.folder / 'o'}", "--config.compute.dtype=float32")
    stilts("eval", toy.folder / "exported", "--task=xnli", *options)
    scores = json.loads((toy.folder / "o" / "scores.json").read_text("utf-8"))["scores"]["xnli"]
    assert len(scores["test"]["accuracy"]) == 8


def submission(toy: Toy) -> None:
    phase, out = toy.phase("none+udpos.s0"), toy.folder / "o"
    stilts("eval", phase, "--task=udpos", f"--data_root={toy.data}", f"--out={out}", "--submission")
    printed = stilts("score", f"--predictions={out / 'predictions'}", f"--gold={toy.data}")
    experiment = results(toy.demo / "grid")["none+udpos.s0"]["scores"]["udpos"]["test"]["f1"]
    assert f"{np.mean(list(experiment.values())):.2f}" in printed


def export(toy: Toy) -> None:
    stilts("export", toy.phase("mnli.s0"), f"--out={toy.folder / 'exported'}", "--head=mnli")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir(toy.folder / "exported"))


def predict(toy: Toy) -> None:
    Path("in.tsv").write_text("text\tpair\nA house.\tIt is a house.\nA river.\tNo river.\n")
    stilts("predict", toy.phase("mnli.s0"), "--input=in.tsv", "--out=out.tsv")
    assert len(Path("out.tsv").read_text("utf-8").splitlines()) == 3


def mine(toy: Toy) -> None:
    source, target = toy.data / "tatoeba" / "de-en.de", toy.data / "tatoeba" / "de-en.en"
    stilts("mine", f"--encoder={toy.encoder}", f"--source={source}", f"--target={target}", "--out=pairs.tsv")
    best = Path("pairs.tsv").read_text("utf-8").splitlines()[0].split("\t")
    assert len(best) == 3 and best[1] in source.read_text("utf-8")


def laboratory(toy: Toy) -> None:
    """Without PyTorch, which no extra that tests install brings; tests/benchmarks runs the peers where it is there."""
    options = "--shape=tiny --lengths=nli --max_length=16 --rounds=1 --rows=16 --batch_size=4 --config.train.buckets=1"
    command = [sys.executable, ROOT / "tests" / "benchmarks" / "speed.py", *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Training" in done.stdout and "stilts_jax" in done.stdout


GRID = (
    "stilts grid --config=xstilts:intermediates=none+mnli+squad_v1,targets=xnli+panx+tatoeba,seeds=3 "
    "--data_root=D --workdir=W"
)
PROMISES: dict[str, Callable[[Toy], None]] = {
    "pip install . && stilts demo": show_the_demo,
    "pip install '.[test]' && pytest": run_the_tests,
    "stilts tasks --data_root=D": list_tasks,
    "stilts prepare mnli squad_v1 xnli panx tatoeba --source=hub --languages=de+sw --data_root=D "
    "--encoder=FacebookAI/xlm-roberta-large": prepare_an_encoder,
    f"{GRID} --dry_run": look_first,
    GRID: run_a_slice,
    "stilts report W": report,
    "stilts bench --lengths=mnli --data_root=D --encoder=E": bench,
    "python tests/benchmarks/speed.py --shape=e5-small --lengths=mnli --max_length=128 --data_root=D --encoder=E "
    "--peer=torch": laboratory,
    "`intermediates=mnli/squad_v1+mnli/mlm`": several_at_once,
    "`intermediates=none+easy_vqa+easy_vqa:blind+easy_vqa:shuffled+easy_vqa/mlm`": pictures,
    "stilts features --encoder=VIT --pictures=D/easy_vqa/train/images "
    "--out=D/easy_vqa/train/images.vit": frozen_features,
    "`intermediates=mnli@de`": translated,
    "`intermediates=hub:NAME` (or a folder)": another_encoder,
    "`xstilts:source_language=de`": other_source_language,
    "`xstilts:preset=xtreme`": xtreme_preset,
    "`xstilts:benchmark=xtreme-r`": xtreme_r,
    "`stilts grid ... --available`": xtreme_r,
    "`stilts grid ... --part=1/4`": parts,
    "`--config.experiment.train_on=xcopa=copa`": copa_alone,
    "`--config.train.by_task=xnli.epochs=1,udpos.learning_rate=5e-5`": by_task,
    "`stilts tasks xnli --data_root=D --encoder=E`": three_examples,
    "`--config.evaluation.limit=200`": quick_look,
    "`stilts train --config=target:task=panx ...`": one_task,
    "`stilts plan --encoder=xxl --topology=v5e:16x16`": does_it_fit,
    "`stilts eval FOLDER --task=xnli --data_root=D --out=O`": pytorch_folder,
    "`stilts eval ... --submission`, `stilts score --predictions=P --gold=G`": submission,
    "`stilts export W/phases/PHASE --out=FOLDER --head=mnli`": export,
    "`stilts predict FOLDER --input=x.tsv --out=y.tsv`": predict,
    "`stilts mine --encoder=E --source=a.txt --target=b.txt --out=pairs.tsv`": mine,
}


@pytest.mark.slow
@pytest.mark.parametrize("promise", dict.fromkeys(PROMISES.values()), ids=lambda promise: promise.__name__)
def test_what_the_readme_types(promise: Callable[[Toy], None], toy: Toy) -> None:
    promise(toy)


def test_every_promise_is_listed() -> None:
    assert set(PROMISES) == {*commands(), *uses()}


@pytest.mark.slow
def test_the_python_blocks_run() -> None:
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        exec(block, {})
