"""Running a list of phases: order, failures, waiting for another part, disk; with a stand-in for the run itself."""

import io
import threading
from functools import partial
from types import SimpleNamespace

import pytest

from stilts_jax.checkpoint import lock_run
from stilts_jax.errors import ConfigError, StiltsError
from stilts_jax.experiment import grid
from stilts_jax.experiment.grid import is_done, run_grid
from stilts_jax.experiment.models import FORMAT as TRAINED_FORMAT
from stilts_jax.experiment.phases import Phase
from stilts_jax.experiment.results import FAILURE, FORMAT, RESULT, read_result
from stilts_jax.files import write_record
from stilts_jax.progress import SILENT, Progress
from stilts_jax.settings import MeshConfig


class Experiment:
    """What run_grid needs of a context, on a folder."""

    def __init__(self, folder, keep="models"):
        self.workdir, self.progress, self.is_main = folder, SILENT, True
        self.settings = SimpleNamespace(experiment=SimpleNamespace(keep=keep), mesh=MeshConfig())
        self.settings.compute, self.ran = SimpleNamespace(param_dtype="float32"), []
        self.data = lambda phase: SimpleNamespace(scored={"xnli": ()})
        self.evaluation_record = lambda one: {"tasks": {"xnli": {"data": {self.evaluation_key(one): ""}}}}

    def folder(self, phase):
        return self.workdir / phase.name

    def key(self, phase):
        return phase.name

    evaluation_key = key

    def run(self, phase, context):
        self.ran.append(phase.name)
        for part in ("checkpoints", "final"):
            (self.folder(phase) / part).mkdir(parents=True, exist_ok=True)
        key = self.key(phase)
        write_record(self.folder(phase) / "trained.json", {"format": TRAINED_FORMAT, "key": key})
        result = {"format": FORMAT, "phase": {"key": key}, "evaluation": self.evaluation_record(phase)}
        write_record(self.folder(phase) / RESULT, result)


read_failure = partial(read_result, name=FAILURE)


def phase(name, parent=None, stage="target"):
    return Phase(name, stage, "row", ("mnli",), (), "encoder", parent=parent)


@pytest.fixture
def family():
    parent = phase("parent", stage="intermediate")
    return [parent, phase("a", parent), phase("b", parent), phase("other")]


def test_a_failure_is_recorded_and_stops_only_what_depends_on_it(tmp_path, family):
    experiment = Experiment(tmp_path)

    def run(phase, context):
        if phase.name == "parent":
            raise StiltsError("The sky fell.", where="above", fix="look up")
        experiment.run(phase, context)

    experiment.progress = Progress(heard := io.StringIO())
    assert run_grid(family, experiment, run=run) == 1
    assert heard.getvalue().count("The sky fell.") == 1
    assert heard.getvalue().splitlines()[-1] == "3 of 4 phases failed: parent, a, b"
    assert experiment.ran == ["other"]
    assert "The sky fell." in read_failure(tmp_path / "parent")["error"]["message"]
    assert "parent" in read_failure(tmp_path / "a")["error"]["message"]


@pytest.fixture
def waits(monkeypatch):
    return lambda **seconds: [monkeypatch.setattr(grid, f"_{name}", value) for name, value in seconds.items()]


def test_waiting_has_a_limit_and_ends_at_once_if_the_parent_failed(tmp_path, family, waits):
    experiment = Experiment(tmp_path)
    waits(LIMIT=0.2, PAUSE=0.05)
    assert run_grid(family, experiment, mine=family[1:2], run=experiment.run) == 1
    assert "within" in read_failure(tmp_path / "a")["error"]["message"]
    error = {"type": "MemoryError", "message": ""}
    write_record(tmp_path / "parent" / FAILURE, {"format": FORMAT, "error": error})
    waits(LIMIT=1e9, PAUSE=1e9, GRACE=0)
    assert run_grid(family, experiment, mine=family[2:3], run=experiment.run) == 1
    assert "another machine: MemoryError" in read_failure(tmp_path / "b")["error"]["message"]


KEPT = {"all": "a/checkpoints a/final parent/checkpoints parent/final", "models": "a/final parent/final"}
KEPT |= {"encoders": "parent/final", "none": ""}


@pytest.mark.parametrize("keep", KEPT)
def test_disk_keeps_what_the_settings_say(tmp_path, family, keep):
    experiment = Experiment(tmp_path, keep)
    assert run_grid(family[:2], experiment, run=experiment.run) == 0
    found = {f"{path.parent.name}/{path.name}" for path in tmp_path.glob("*/*") if path.is_dir()}
    assert " ".join(sorted(found)) == KEPT[keep]


def fail(phase, context):
    if not is_done(phase, context):
        raise StiltsError(f"No {phase.name}.")


def test_a_failure_stands_beside_scores_and_children_that_are_done_are_kept(tmp_path, family):
    experiment = Experiment(tmp_path)
    run_grid(family[:3], experiment, run=experiment.run)
    before = {path: path.read_bytes() for path in tmp_path.glob("*/result.json")}
    experiment.evaluation_key = lambda phase: {"a": "a"}.get(phase.name, "other languages")
    assert run_grid(family[:3], experiment, run=fail) == 1
    assert {path: path.read_bytes() for path in tmp_path.glob("*/result.json")} == before
    failures = {name: read_failure(tmp_path / name) for name in ("parent", "a", "b")}
    assert failures["parent"]["error"]["message"] == "No parent."
    assert failures["a"] is None and "parent" in failures["b"]["error"]["message"]
    assert run_grid(family[:3], experiment, run=experiment.run) == 0
    assert not list(tmp_path.glob("*/failure.json"))


def test_what_another_process_is_at_work_on_is_left_to_it_and_waited_for(tmp_path, family, waits):
    """The other one trains the parent; what does not need it is done meanwhile, the rest by whoever comes first."""
    experiment, here, there = Experiment(tmp_path), [], []

    def run(phase, context, ran=here):
        with lock_run(context.folder(phase)):
            if not is_done(phase, context):
                experiment.run(phase, context)
                ran.append(phase.name)

    def work():
        with lock_run(tmp_path / "parent"):
            held.set()
            assert until_other.wait(30)
            experiment.run(family[0], experiment)
        run_grid(family[:2], experiment, run=partial(run, ran=there))

    def watched(phase, context):
        run(phase, context)
        until_other.set() if phase.name == "other" else None

    held, until_other = threading.Event(), threading.Event()
    other = threading.Thread(target=work)
    other.start()
    assert held.wait(30)
    waits(PAUSE=0.05)
    assert run_grid(family, experiment, run=watched) == 0
    other.join()
    assert here[0] == "other" and sorted(here + there) == ["a", "b", "other"]
    assert all(is_done(phase, experiment) for phase in family) and not list(tmp_path.glob("*/failure.json"))


def test_a_failure_of_an_earlier_launch_is_waited_out(tmp_path, family, waits):
    experiment, error = Experiment(tmp_path), {"type": "E", "message": "yesterday"}
    write_record(tmp_path / "parent" / FAILURE, {"format": FORMAT, "error": error})
    threading.Timer(0.3, run_grid, (family[:1], experiment), {"run": experiment.run}).start()
    waits(LIMIT=30, PAUSE=0.05)
    assert run_grid(family, experiment, mine=family[1:3], run=experiment.run) == 0


def test_bfloat16_parameters_are_refused_where_something_is_trained(tmp_path, family):
    experiment = Experiment(tmp_path)
    experiment.settings.compute.param_dtype = "bfloat16"
    with pytest.raises(ConfigError, match="bfloat16") as caught:
        run_grid(family, experiment, run=experiment.run)
    assert "param_dtype" in caught.value.where and not experiment.ran
    scored = Phase("scored", "retrieval", "row", (), (), "encoder")
    assert run_grid([scored], experiment, run=experiment.run) == 0


def test_weights_that_changed_are_said_of_a_row_of_any_name(tmp_path):
    before = {"start": "old", "title": "", "encoder": "encoder", "scored_rows": 0}
    experiment = Experiment(tmp_path)
    experiment.progress = Progress(heard := io.StringIO())
    experiment.folder = lambda phase: tmp_path / "hub_a_b-00000002"
    experiment.training_record = lambda phase: {"start": "new"}
    write_record(tmp_path / "hub_a_b-00000001" / RESULT, {"format": FORMAT, "config": before})
    grid._warn_of_another_encoder(phase("hub:a/b"), experiment)
    assert "hub_a_b-00000001 started from" in heard.getvalue()


@pytest.mark.parametrize("record", ["result.json", "trained.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', "digit", "folder"])
def test_a_phase_with_a_damaged_record_is_not_done(tmp_path, family, record, content):
    experiment = Experiment(tmp_path)
    experiment.run(family[0], experiment)
    assert is_done(family[0], experiment)
    path = tmp_path / "parent" / record
    content = path.read_text().replace("parent", "parenT", 1) if content == "digit" else content
    path.unlink()
    path.mkdir() if content == "folder" else path.write_text(content)
    assert not is_done(family[0], experiment)
