"""The written world read back with strict readers of this file's own, never with the package's."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stilts_jax.commands.demo import write_part
from stilts_jax.errors import EXIT_USAGE
from stilts_jax.main import main
from stilts_jax.progress import SILENT
from stilts_jax.toy.world import write_tasks, write_texts

CODES = ("en", "de", "es", "sw", "tr", "ru", "ar", "zh")


def lines(path: Path) -> list[str]:
    text = path.read_bytes().decode("utf-8")
    assert text.endswith("\n") and "\r" not in text
    return text[:-1].split("\n")


def table(path: Path, columns: int) -> list[list[str]]:
    rows = [line.split("\t") for line in lines(path)]
    assert all(len(row) == columns and all(cell.strip() for cell in row) for row in rows)
    return rows


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_world(world, tmp_path):
    for seed in (0, 1):
        for write in (write_texts, write_tasks):
            write(tmp_path / str(seed), size="test", seed=seed)
    first, second, other = digests(world), digests(tmp_path / "0"), digests(tmp_path / "1")
    assert first == second and len(first) > 100 and not [name for name in first if "/." in name]
    assert first.keys() == other.keys()
    assert first["data/xnli/test-en.tsv"] != other["data/xnli/test-en.tsv"]


def test_two_processes_write_each_part_once_and_another_size_is_refused(tmp_path, capsys):
    """The second one of a demo may be at work on a part, or be done with it."""
    world = tmp_path / "world"
    program = "import sys; from pathlib import Path; from stilts_jax.commands.demo import write_part; "
    program += "from stilts_jax.progress import SILENT; "
    program += "write_part(Path(sys.argv[1]), 'tasks', 'test', SILENT)"
    with subprocess.Popen([sys.executable, "-c", program, str(world)]) as other:
        write_part(world, "tasks", "test", SILENT)
    assert other.returncode == 0
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*") if path.is_file()}
    write_part(world, "tasks", "test", SILENT)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert main(["demo", f"--workdir={tmp_path}", "--size=small"]) == EXIT_USAGE
    assert "a world of size 'test'" in capsys.readouterr().err


def test_xnli_is_aligned_and_its_splits_are_disjoint(world):
    folder = world / "data" / "xnli"
    labels = {"entailment", "neutral", "contradiction"}
    splits = {split: table(folder / f"{split}-en.tsv", 3) for split in ("train", "dev", "test")}
    for rows in splits.values():
        assert {row[2] for row in rows} == labels
    for split in ("dev", "test"):
        for code in CODES:
            rows = table(folder / f"{split}-{code}.tsv", 3)
            assert [row[2] for row in rows] == [row[2] for row in splits[split]]
    seen = [(premise, hypothesis) for rows in splits.values() for premise, hypothesis, _ in rows]
    assert len(set(seen)) == len(seen)
    mnli = map(json.loads, lines(world / "data/mnli/multinli_1.0_train.jsonl"))
    assert [[r["sentence1"], r["sentence2"], r["gold_label"]] for r in mnli] == splits["train"]


def test_pictures_show_what_their_answers_and_captions_say(world):
    """What is not white tells the colour; how much of its box is filled, the shape."""
    data = world / "data"
    for part, coco, count in (("train", "train2014", 80), ("test", "val2014", 20)):
        asked = json.loads((data / f"easy_vqa/{part}/questions.json").read_text())
        captions = json.loads((data / f"coco/annotations/captions_{coco}.json").read_text())
        assert (data / f"coco/{coco}.zip").read_bytes() == (data / f"easy_vqa/{part}/images.zip").read_bytes()
        with zipfile.ZipFile(data / f"easy_vqa/{part}/images.zip") as archive:
            pictures = [np.asarray(Image.open(archive.open(f"{number}.png"))) for number in range(count)]
        seen = [describe(picture) for picture in pictures]
        assert len(set(seen)) == 12 or part == "test"
        assert [one["caption"] for one in captions["annotations"]] == [f"the {s} is {c}." for c, s in seen]
        assert [one["file_name"] for one in captions["images"]] == [f"{n}.png" for n in range(count)]
        assert len(asked) == 3 * count
        for question, answer, number in asked:
            colour, shape = seen[number]
            named = question.removeprefix("is the shape ").rstrip("?")
            truth = {"what color is the shape?": colour, "what shape is it?": shape}
            assert answer == truth.get(question, "yes" if named == colour else "no"), question


def describe(picture: np.ndarray) -> tuple[str, str]:
    inked = (picture != 255).any(axis=-1)
    ink = picture[inked][0]
    colour = "black" if ink.max() < 50 else ["red", "green", "blue"][ink.argmax()]
    rows, columns = (np.flatnonzero(inked.any(axis=axis)) for axis in (1, 0))
    share = inked.sum() / (np.ptp(rows) + 1) / (np.ptp(columns) + 1)
    return colour, "rectangle" if share == 1 else "circle" if share > 0.65 else "triangle"
