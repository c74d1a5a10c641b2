"""A finished phase is usable alone: from any directory, moved, without the encoder's folder, as it was scored."""

import json
import shutil
from pathlib import Path

import pytest

from stilts_jax.config import load_config, to_settings
from stilts_jax.errors import EncoderError
from stilts_jax.experiment.models import encoder_fingerprint
from stilts_jax.main import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def phases(demo, tmp_path_factory):
    """The demo's phases, moved away from their work directory."""
    folder = tmp_path_factory.mktemp("elsewhere") / "phases"
    shutil.copytree(demo[0] / "grid" / "phases", folder)
    return folder


@pytest.fixture
def phase(phases, tmp_path, monkeypatch):
    """A copy of the POS phase, of the name that a user would type; typed from another directory."""
    shutil.copytree(next(phases.glob("none+udpos.s0-*")), tmp_path / "pos")
    monkeypatch.chdir(tmp_path)
    return "pos"


def evaluate(model, task, demo, capsys, *options):
    """Returns the exit code, what was said, and the scores."""
    data = demo[0] / "world" / "data"
    code = main(["eval", str(model), f"--task={task}", f"--data_root={data}", "--out=out", *options])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    found = json.loads(Path("out/scores.json").read_text())["scores"] if code == 0 else None
    return code, said.out + said.err, found


def test_a_moved_phase_is_scored_as_its_grid_scored_it(phase, phases, demo, capsys):
    assert str(demo[0]) not in Path(phase, "trained.json").read_text()
    for folder, task in ((phase, "udpos"), (next(phases.glob("mnli.s0+squad_v1.s0-*")), "xquad")):
        expected = json.loads(Path(folder, "result.json").read_text())["scores"]
        code, said, found = evaluate(folder, task, demo, capsys)
        assert code == 0, said
        assert found == expected
        assert "float32" in said
    _, said, _ = evaluate(phase, "udpos", demo, capsys, "--config.compute.dtype=bfloat16")
    assert "bfloat16" in said


def test_an_export_of_a_moved_phase_scores_the_same(phase, demo, capsys):
    assert main(["export", phase, "--out=exported", "--head=udpos"]) == 0
    expected = json.loads(Path(phase, "result.json").read_text())["scores"]
    code, said, found = evaluate("exported", "udpos", demo, capsys)
    assert code == 0, said
    assert found == expected
    assert main(["export", phase, "--out=again", "--head=mnli"]) == 1
    assert "udpos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "command"),
    [
        ("replaced", "eval"),
        ("replaced", "export"),
        ("removed", "eval"),
        ("damaged", "export"),
        ("record", "eval"),
    ],
)
def test_a_phase_with_another_tokenizer_is_refused(phase, demo, capsys, damage, command):
    vocabulary = Path(phase, "final", "tokenizer", "tokenizer.json")
    content = json.loads(vocabulary.read_text())
    if damage == "replaced":
        pieces = content["model"]["vocab"]
        pieces[5:] = pieces[:4:-1]
        vocabulary.write_text(json.dumps(content))
    elif damage == "removed":
        shutil.rmtree(vocabulary.parent)
    elif damage == "damaged":
        vocabulary.write_text(json.dumps(content)[:1000])
    else:
        Path(phase, "trained.json").write_text("[1]")
    if command == "eval":
        code, said, _ = evaluate(phase, "udpos", demo, capsys)
    else:
        code = main(["export", phase, "--out=exported"])
        said = capsys.readouterr().err
    assert code == 1 and phase in said
    assert ("trained.json" if damage == "record" else "tokenizer") in said


def test_another_tokenizer_or_family_is_another_phase(demo, tmp_path):
    """A relaunched grid does not find the phases that were trained with the tokenizer before."""
    settings = to_settings(load_config("toy:size=test"))
    folder = tmp_path / "encoder"
    shutil.copytree(demo[0] / "encoder", folder)
    before = {name: encoder_fingerprint(f"{name}{folder}", settings) for name in ("", "random:")}
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text().replace("\u2581", "_", 1))
    for name, fingerprint in before.items():
        assert encoder_fingerprint(f"{name}{folder}", settings) != fingerprint
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match="'bert' model"):  # and not its tokenizer
        encoder_fingerprint(str(folder), settings)
