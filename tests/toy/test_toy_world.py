"""The written world read back with strict readers of this file's own, never with the package's."""

import json
import subprocess
import sys
from pathlib import Path

from stilts_jax.commands.demo import write_part
from stilts_jax.errors import EXIT_USAGE
from stilts_jax.main import main
from stilts_jax.progress import SILENT

CODES = ("en", "de", "es", "sw", "tr", "ru", "ar", "zh")


def lines(path: Path) -> list[str]:
    text = path.read_bytes().decode("utf-8")
    assert text.endswith("\n") and "\r" not in text
    return text[:-1].split("\n")


def table(path: Path, columns: int) -> list[list[str]]:
    rows = [line.split("\t") for line in lines(path)]
    assert all(len(row) == columns and all(cell.strip() for cell in row) for row in rows)
    return rows


def test_two_processes_write_each_part_once_and_another_size_is_refused(tmp_path, capsys):
    """The second one of a demo may be at work on a part, or be done with it."""
    world = tmp_path / "world"
    program = "import sys; from pathlib import Path; from stilts_jax.commands.demo import write_part; "
    program += "from stilts_jax.progress import SILENT; "
    program += "write_part(Path(sys.argv[1]), 'tasks', 'test', SILENT)"
    with subprocess.Popen([sys.executable, "-c", program, str(world)]) as other:
        write_part(world, "tasks", "test", SILENT)
    assert other.returncode == 0
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*.*") if path.suffix != ".lock"}
    write_part(world, "tasks", "test", SILENT)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert main(["demo", f"--workdir={tmp_path}", "--size=small"]) == EXIT_USAGE
    assert "a world of size 'test'" in capsys.readouterr().err
    (world / "tasks.json").write_text("{}")
    assert main(["demo", f"--workdir={tmp_path}", "--size=test"]) == EXIT_USAGE
    assert "tasks.json\n  to do: remove it" in capsys.readouterr().err


def test_xnli_is_aligned_and_its_splits_are_disjoint(world):
    folder, labels = world / "data" / "xnli", {"entailment", "neutral", "contradiction"}
    splits = {split: table(folder / f"{split}-en.tsv", 3) for split in ("train", "dev", "test")}
    assert [{row[2] for row in rows} for rows in splits.values()] == [labels] * 3
    for split in ("dev", "test"):
        for code in CODES:
            rows = table(folder / f"{split}-{code}.tsv", 3)
            assert [row[2] for row in rows] == [row[2] for row in splits[split]]
    seen = [(premise, hypothesis) for rows in splits.values() for premise, hypothesis, _ in rows]
    assert len(set(seen)) == len(seen)
    mnli = map(json.loads, lines(world / "data/mnli/multinli_1.0_train.jsonl"))
    assert [[r["sentence1"], r["sentence2"], r["gold_label"]] for r in mnli] == splits["train"]
