"""Tasks with pictures and their controls, from files to the report, `stilts eval` and `stilts export`."""

import json
import os
import zipfile
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from stilts_jax import Checkpoints, HeadConfig, Model, TaskHead, export_encoder, init_params
from stilts_jax.experiment.models import read_shape
from stilts_jax.toy.world import write_pictures
from tests.typed import results, stilts

pytestmark = pytest.mark.slow
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
PICTURES = {"train": 400, "test": 60}


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, tuple):  # a colour
        Image.new("RGB", (16, 16), content).save(path)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture(scope="module")
def root(world, tmp_path_factory) -> Path:
    """The toy world with more of its pictures, and what it lacks of other tasks with pictures."""
    root = tmp_path_factory.mktemp("pictures")
    for path in (world / "data").iterdir():
        if path.name not in ("easy_vqa", "coco"):
            (root / path.name).symlink_to(path)
    write_pictures(root, PICTURES, seed=0)
    colours = {number: "red" if number % 5 < 2 else "blue" for number in range(24)}
    pictures = ["gqa/images/{0}.jpg"]
    for part in ("train2014", "val2014"):
        with zipfile.ZipFile(root / f"coco/{part}.zip") as archive:
            archive.extractall(root / f"coco/{part}")
        asked = [{"question_id": n, "image_id": n, "question": "which color?"} for n in colours]
        said = [{"question_id": n, "answers": [{"answer": colour}] * 10} for n, colour in colours.items()]
        write(root / f"vqa_v2/v2_OpenEnded_mscoco_{part}_questions.json", {"questions": asked})
        write(root / f"vqa_v2/v2_mscoco_{part}_annotations.json", {"annotations": said})
        pictures.append(f"coco/{part}/COCO_{part}_{{0:012d}}.jpg")
    for name in pictures:
        for number, colour in colours.items():
            write(root / name.format(number), COLOURS[colour])
    question = {"question": "which color?"}
    asked = {f"{n}": question | {"imageId": f"{n}", "answer": colour} for n, colour in colours.items()}
    for name in ("vqa_v2", "gqa"):
        write(root / f"{name}/trainval_ans2label.json", {"red": 0, "blue": 1})
    for name in ("gqa/train_balanced", "gqa/val_balanced"):
        write(root / f"{name}_questions.json", asked)
    for language in ("en", "de"):
        write(root / f"xgqa/testdev_balanced_questions_{language}.json", asked)
    pair = {"directory": 1, "sentence": "both are red"}
    rows = [pair | {"identifier": f"train-{n}-0-0", "label": str(n % 2 == 0)} for n in range(16)]
    for split in ("train", "dev"):
        write(root / f"nlvr2/{split}.json", "".join(json.dumps(row) + "\n" for row in rows))
    for number in range(16):
        for side in (0, 1):
            write(root / f"nlvr2/images/train/1/train-{number}-0-img{side}.png", COLOURS["red"])
    return root


def run(root: Path, world: Path, workdir: Path, rows: str, targets: str, *options: str) -> dict[str, dict]:
    command = ["grid", "--config=toy:size=test", f"--data_root={root}", f"--workdir={workdir}"]
    command += [f"--config.encoder=random:{world / 'encoder'}", f"--config.experiment.intermediates={rows}"]
    command += [f"--config.experiment.targets={targets}", "--config.train.buckets=1"]
    command += ["--config.data.picture_patch=16"]
    stilts(*command, *(f"--config.{option}" for option in options))
    return results(workdir)


SHORT = ("train.max_steps=2", "train.batch_size=8", "train.eval_examples=8", "train.max_length=32")


def score(result: dict, task: str, metric: str = "accuracy") -> float:
    return result["scores"][task]["dev"][metric]["en"]


@pytest.fixture(scope="module")
def seen(root, world, tmp_path_factory):
    """Long enough that what is seen is learnt."""
    long = ("train.epochs=80", "train.max_steps=700", "train.learning_rate=2e-3", "train.batch_size=32")
    long += ("train.layer_decay=1.0",)
    workdir, rows = tmp_path_factory.mktemp("seen"), "none+easy_vqa+easy_vqa:blind"
    return workdir, run(root, world, workdir, rows, "tatoeba", *long, "train.max_length=32")


def test_seeing_is_learnt_and_blind_is_not(seen):
    _, found = seen
    seeing = score(found["easy_vqa.s0"], "easy_vqa", "open")
    blind = score(found["easy_vqa.blind.s0"], "easy_vqa.blind", "open")
    assert seeing > 60 and seeing > blind + 20  # blind, a fourth of the colours and a third of the shapes


def test_a_finished_model_is_evaluated_and_its_encoder_exported(seen, root, tmp_path):
    folder, out = seen[1]["easy_vqa.s0"]["folder"], tmp_path / "eval"
    stilts("eval", folder, "--task=easy_vqa", f"--data_root={root}", f"--out={out}")
    scores = json.loads((out / "scores.json").read_text())["scores"]["easy_vqa"]
    assert scores["test"]["open"]["en"] > 45
    stilts("export", folder, f"--out={tmp_path / 'encoder'}")
    config = json.loads((tmp_path / "encoder/config.json").read_text())
    assert config["architectures"] == ["XLMRobertaModel"]
    said = stilts("export", folder, "--head=easy_vqa", f"--out={tmp_path / 'with_head'}", code=2)
    assert "looks at pictures" in said
    (tmp_path / "text.tsv").write_text("text\nwhat color is the shape?\n")
    stilts("predict", folder, f"--input={tmp_path / 'text.tsv'}", f"--out={tmp_path / 'x.tsv'}", code=2)


def test_every_task_and_control_runs(root, world, tmp_path):
    rows = "vqa_v2/coco_captions+coco_captions:text+coco_matching+nlvr2+easy_vqa:shuffled/mlm"
    found = run(root, world, tmp_path, rows, "xgqa+xgqa:blind", *SHORT)
    assert score(found["vqa_v2+coco_captions.s0"], "vqa_v2") >= 0
    for name in ("nlvr2", "coco_matching"):
        assert score(found[f"{name}.s0"], name) >= 0
    targets = [name for name in found if "+gqa" in name]
    assert len(targets) == 2 * 5  # each row before GQA and before blind GQA
    for name in targets:
        task = "xgqa.blind" if ".blind" in name else "xgqa"
        assert set(found[name]["scores"][task]["test"]["accuracy"]) == {"en", "de"}


def test_captions_begin_with_the_head_that_the_encoder_brings(root, world, tmp_path):
    """As masked language modelling on texts alone does: a fresh one over 250,000 words learns little."""
    config = read_shape(str(world / "encoder"))
    model = Model(config, (("mlm", HeadConfig(kind="mlm")),))
    params = init_params(model, jax.random.key(5))
    head, encoder = params["heads"]["mlm"], tmp_path / "encoder"
    brought = TaskHead(model.head("mlm"), head)
    export_encoder(encoder, config, params["encoder"], tokenizer_folder=world / "encoder", head=brought)
    rows = "coco_captions+coco_captions:text+easy_vqa/coco_captions+easy_vqa/mlm"
    options = ("train.learning_rate=1e-9", "experiment.keep=models", f"encoder={encoder}")
    found = run(root, world, tmp_path / "w", rows, "", *SHORT, *options)
    for name, one in found.items():
        (trained,) = (one for one in name.removesuffix(".s0").split("+") if one != "easy_vqa")
        with Checkpoints(one["folder"] / "final", read_only=True) as kept:
            heads = kept.load("params")["heads"]
        close = partial(np.testing.assert_allclose, atol=1e-6)
        for part in ("dense", "norm"):
            jax.tree.map(close, heads[trained][part], dict(head[part]))
        assert ("visual" in heads[trained]) == (trained == "coco_captions")


def test_features_of_an_encoder_stand_for_pictures(root, world, tmp_path):
    for part, count in PICTURES.items():
        folder = root / f"easy_vqa/{part}/images.made"
        folder.mkdir()
        np.save(folder / "features.npy", np.zeros((count, 3, 5), np.float16))
        write(folder / "features.json", {"names": [f"{number}.png" for number in range(count)]})
    found = run(root, world, tmp_path, "easy_vqa+easy_vqa:blind", "", "data.pictures=made", *SHORT)
    assert set(found) == {"easy_vqa.s0", "easy_vqa.blind.s0"}
    os.remove(root / "easy_vqa/train/images.made/features.npy")
    places = (f"--data_root={root}", f"--workdir={tmp_path / 'w'}", "--config.data.pictures=made")
    encoder = f"--config.encoder=random:{world / 'encoder'}"
    assert "features" in stilts("train", "--config=intermediate:task=easy_vqa", *places, encoder, code=1)
