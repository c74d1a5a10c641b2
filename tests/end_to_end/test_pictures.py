"""Tasks with pictures and their controls, from files to the report, `stilts eval` and `stilts export`."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stilts_jax.main import main

pytestmark = pytest.mark.slow
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
ANSWERS = {"red": 0, "blue": 1}


def draw(path: Path, colour: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), COLOURS[colour]).save(path)


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def colour_of(number: int) -> str:
    return "red" if number * 7919 % 5 < 2 else "blue"


def questions(part: str, count: int) -> list:
    return [["what color is the shape?", colour_of(number), number] for number in range(count)]


@pytest.fixture(scope="module")
def root(world, tmp_path_factory) -> Path:
    """The toy world, and pictures of one colour: what can only be seen decides every answer."""
    root = tmp_path_factory.mktemp("pictures")
    for path in (world / "data").iterdir():
        (root / path.name).symlink_to(path)
    for part, count in (("train", 400), ("test", 40)):
        for number in range(count):
            draw(root / f"easy_vqa/{part}/images/{number}.png", colour_of(number))
        write(root / f"easy_vqa/{part}/questions.json", questions(part, count))
    for part in ("train2014", "val2014"):
        images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(24)]
        captions = [
            {"id": n, "image_id": n, "caption": f"a {colour_of(n)} shape is on a picture"} for n in range(24)
        ]
        write(root / f"coco/annotations/captions_{part}.json", {"images": images, "annotations": captions})
        for number in range(24):
            draw(root / f"coco/{part}/{number}.jpg", colour_of(number))
            draw(root / f"coco/{part}/COCO_{part}_{number:012d}.jpg", colour_of(number))
        asked = [{"question_id": n, "image_id": n, "question": "which color?"} for n in range(24)]
        said = [{"question_id": n, "answers": [{"answer": colour_of(n)}] * 10} for n in range(24)]
        write(root / f"vqa_v2/v2_OpenEnded_mscoco_{part}_questions.json", {"questions": asked})
        write(root / f"vqa_v2/v2_mscoco_{part}_annotations.json", {"annotations": said})
    write(root / "vqa_v2/trainval_ans2label.json", ANSWERS)
    write(root / "gqa/trainval_ans2label.json", ANSWERS)
    asked = {
        str(n): {"question": "which color?", "imageId": str(n), "answer": colour_of(n)} for n in range(24)
    }
    for name in ("train", "val"):
        write(root / f"gqa/{name}_balanced_questions.json", asked)
    for language in ("en", "de"):
        write(root / f"xgqa/testdev_balanced_questions_{language}.json", asked)
    for number in range(24):
        draw(root / f"gqa/images/{number}.jpg", colour_of(number))
    pairs = [
        {"identifier": f"train-{n}-0-0", "directory": 1, "sentence": "both are red", "label": str(n % 2 == 0)}
        for n in range(16)
    ]
    for split in ("train", "dev"):
        (root / f"nlvr2/{split}.json").parent.mkdir(exist_ok=True)
        (root / f"nlvr2/{split}.json").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    for number in range(16):
        for side in (0, 1):
            draw(root / f"nlvr2/images/train/1/train-{number}-0-img{side}.png", "red")
    return root


def run(root: Path, world: Path, workdir: Path, rows: str, targets: str, *options: str) -> dict[str, dict]:
    command = ["grid", "--config=toy:size=test", f"--data_root={root}", f"--workdir={workdir}"]
    command += [f"--config.encoder=random:{world / 'encoder'}", f"--config.experiment.intermediates={rows}"]
    command += [f"--config.experiment.targets={targets}", "--config.train.buckets=1"]
    command += ["--config.data.picture_size=16", "--config.data.picture_patch=8"]
    assert main([*command, *(f"--config.{option}" for option in options)]) == 0
    return {
        result["phase"]["name"]: result | {"folder": path.parent}
        for path in workdir.glob("phases/*/result.json")
        if not (result := json.loads(path.read_text())).get("error")
    }


SHORT = ("train.max_steps=2", "train.batch_size=8", "train.eval_examples=8", "train.max_length=32")


def accuracy(result: dict, task: str) -> float:
    return result["scores"][task]["dev"]["accuracy"]["en"]


@pytest.fixture(scope="module")
def seen(root, world, tmp_path_factory):
    """Long enough that what is seen is learnt."""
    options = (
        "train.epochs=10",
        "train.max_steps=200",
        "train.learning_rate=3e-3",
        "train.batch_size=16",
        "train.max_length=32",
    )
    workdir = tmp_path_factory.mktemp("seen")
    return workdir, run(root, world, workdir, "none+easy_vqa+easy_vqa:blind", "tatoeba", *options)


def test_seeing_is_learnt_and_blind_is_not(seen):
    _, found = seen
    assert accuracy(found["easy_vqa.s0"], "easy_vqa") == 100
    assert accuracy(found["easy_vqa.blind.s0"], "easy_vqa.blind") < 75


def test_the_report_compares_seeing_with_blind(seen, capsys):
    workdir, _ = seen
    assert main(["report", str(workdir)]) == 0
    lines = (workdir / "report" / "tables" / "pictures.csv").read_text().splitlines()
    assert len(lines) == 2 and lines[1].startswith('"easy-VQA − easy-VQA, blind",Tatoeba')


def test_a_finished_model_is_evaluated_and_its_encoder_exported(seen, root, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    _, found = seen
    folder = found["easy_vqa.s0"]["folder"]
    out = tmp_path / "eval"
    command = ["eval", str(folder), "--task=easy_vqa", f"--data_root={root}", f"--out={out}"]
    assert main(command) == 0
    scores = json.loads((out / "scores.json").read_text())["scores"]["easy_vqa"]
    assert scores["test"]["accuracy"]["en"] == 100
    assert main(["export", str(folder), f"--out={tmp_path / 'encoder'}"]) == 0
    config = transformers.AutoConfig.from_pretrained(tmp_path / "encoder")
    assert config.architectures == ["XLMRobertaModel"]
    capsys.readouterr()
    assert main(["export", str(folder), "--head=easy_vqa", f"--out={tmp_path / 'with_head'}"]) == 2
    assert "looks at pictures" in capsys.readouterr().err
    (tmp_path / "text.tsv").write_text("text\nwhat color is the shape?\n")
    assert (
        main(["predict", str(folder), f"--input={tmp_path / 'text.tsv'}", f"--out={tmp_path / 'x.tsv'}"]) == 2
    )


def test_every_task_and_control_runs(root, world, tmp_path):
    rows = "vqa_v2/coco_captions+coco_captions:text+coco_matching+nlvr2+easy_vqa:shuffled/mlm"
    found = run(root, world, tmp_path, rows, "xgqa+xgqa:blind", *SHORT)
    assert accuracy(found["vqa_v2+coco_captions.s0"], "vqa_v2") >= 0
    for name in ("nlvr2", "coco_matching"):
        assert accuracy(found[f"{name}.s0"], name) >= 0
    targets = [name for name in found if "+gqa" in name]
    assert len(targets) == 2 * 5  # each row before GQA and before blind GQA
    for name in targets:
        task = "xgqa.blind" if ".blind" in name else "xgqa"
        assert set(found[name]["scores"][task]["test"]["accuracy"]) == {"en", "de"}


def test_features_of_an_encoder_stand_for_pictures(root, world, tmp_path, capsys):
    for part in ("train", "test"):
        names = [f"{number}.png" for number in range(400 if part == "train" else 40)]
        folder = root / f"easy_vqa/{part}/images.made"
        folder.mkdir()
        colours = [colour_of(int(name.partition(".")[0])) == "red" for name in names]
        np.save(folder / "features.npy", np.tile(np.array(colours, np.float16)[:, None, None], (1, 3, 5)))
        write(folder / "features.json", {"names": names})
    found = run(root, world, tmp_path, "easy_vqa+easy_vqa:blind", "", "data.pictures=made", *SHORT)
    assert set(found) == {"easy_vqa.s0", "easy_vqa.blind.s0"}
    os.remove(root / "easy_vqa/train/images.made/features.npy")
    command = [
        "train",
        "--config=intermediate:task=easy_vqa",
        f"--data_root={root}",
        f"--workdir={tmp_path / 'w'}",
    ]
    assert (
        main([*command, f"--config.encoder=random:{world / 'encoder'}", "--config.data.pictures=made"]) == 1
    )
    assert "features" in capsys.readouterr().err


def test_a_plan_has_pictures(root, capsys):
    command = ["plan", "--config=intermediate:task=easy_vqa", "--encoder=tiny", "--topology=cpu:1", "--json"]
    sizes = []
    for name in ("easy_vqa", "easy_vqa:text"):
        assert main([*command, f"--task={name}", "--rows=8", "--length=32"]) == 0
        sizes.append(json.loads(capsys.readouterr().out)["plan"]["num_parameters"])
    width, patches = 32, 49
    assert sizes[0] - sizes[1] == (768 + 1) * width + (patches + 1) * width + 2 * width


@pytest.mark.real
def test_easy_vqa_itself(world, tmp_path):
    """A few hundred rows of the release."""
    root = Path(os.environ.get("STILTS_REAL_DATA", "")) / "multimodal"
    if not (root / "easy_vqa").is_dir():
        pytest.skip("no real data")
    options = [*SHORT, "data.limit=300", "data.picture_size=64", "data.picture_patch=16"]
    found = run(root, world, tmp_path, "easy_vqa+easy_vqa:blind+easy_vqa:shuffled", "", *options)
    assert len(found) == 3 and len({result["phase"]["key"] for result in found.values()}) == 3
    for name, result in found.items():
        trained = json.loads((result["folder"] / "trained.json").read_text())
        assert trained["data"][name.removesuffix(".s0")]["train"]["examples"] == 300
