"""``:debug`` shows that everything runs: few steps, one shape to compile for each task, and no verdict."""

import json

import pytest

from stilts_jax.main import main

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("targets", ["mnli/squad_v1", "xnli+xquad"])
def test_debug_compiles_one_shape_a_task_and_judges_nothing(targets, world, tmp_path, capsys):
    options = [f"--data_root={world}/data", f"--workdir={tmp_path}", f"--config.encoder={world}/encoder"]
    options += ["--config.train.max_length=64"]  # the toy encoder takes 128
    config = f"intermediate:task={targets}:debug" if "/" in targets else "target:debug"
    options += [] if "/" in targets else [f"--config.experiment.targets={targets}"]
    assert main(["train", f"--config={config}", *options]) == 0
    said = capsys.readouterr().err
    assert "chance level" not in said and "compiling 1 of" in said
    records = [json.loads(path.read_text()) for path in tmp_path.glob("phases/*/trained.json")]
    assert [one["work"]["compilations"] for one in records] == [len(one["heads"]) for one in records]
    assert all("in 1 batches of 1 shapes" in line for line in said.splitlines() if " batches of " in line)
