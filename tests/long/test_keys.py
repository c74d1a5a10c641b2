"""What a phase does not read is not in its key; and what is said of options that nothing reads."""

from types import SimpleNamespace

import pytest

from stilts_jax.config import load_config, to_settings
from stilts_jax.errors import ConfigError
from stilts_jax.experiment.context import Context, Part, PhaseData, choose_scored
from stilts_jax.experiment.grid import run_grid
from stilts_jax.experiment.models import encoder_fingerprint
from stilts_jax.experiment.phases import list_phases, unread_exceptions
from stilts_jax.experiment.results import find_kept
from stilts_jax.tasks import get_task
from stilts_jax.tasks.custom import span_task
from stilts_jax.tasks.sources.read import DataSource
from stilts_jax.tasks.spec import Hyperparameters
from tests.experiment import test_grid
from tests.experiment.test_keys import BEFORE, Experiment, keys_of

pytestmark = pytest.mark.slow


def key_of(row, **options):
    """The key of an intermediate training."""
    named = {name.replace("__", "."): value for name, value in options.items()}
    experiment = Experiment({"experiment.intermediates": row, "experiment.targets": "", **named}, None)
    (phase,) = list_phases(experiment.settings)
    parts = tuple(Part(get_task(name), "train", ("en",), Hyperparameters()) for name in phase.train)
    experiment.data = lambda _: PhaseData(parts, dict.fromkeys([part.task.name for part in parts], ()))
    return experiment.key(phase)


def test_a_run_that_met_a_loss_that_is_not_finite_can_go_on():
    """With the option that its error names, in the folder that its checkpoints are in."""
    assert keys_of({"train.skip_non_finite": "5"}) == BEFORE


def test_what_selects_target_phases_is_nothing_to_intermediate_ones():
    asked = {"experiment.select_on": "target-languages"}
    assert keys_of(asked)[0] != BEFORE[0]
    assert key_of("mnli", experiment__select_on="target-languages") == key_of("mnli")


@pytest.mark.parametrize(
    ("row", "read", "unread"),
    [
        ("mnli/squad_v1", {"mixture__cap": "9"}, {"mixture__mlm_weight": "0.3"}),
        ("mnli/mlm", {"mixture__mlm_weight": "0.3"}, {"mixture__cap": "9"}),
        ("mnli/squad_v1/mlm", {"mixture__cap": "9"}, {}),
    ],
)
def test_of_a_mixture_only_what_is_read_defines_training(row, read, unread):
    assert key_of(row, **unread) == key_of(row) != key_of(row, **read)


def test_batches_of_texts_beside_other_tasks_are_the_mixtures(tmp_path):
    def warnings(rows):
        options = {"experiment.intermediates": rows, "train.by_task": "mlm.batch_size=4"}
        settings = to_settings(load_config("target:task=panx", options))
        return list(unread_exceptions(list_phases(settings), settings))

    assert not warnings("mlm+mnli/mlm") and "mixture.mlm_batch_size" in warnings("mnli/mlm")[0]


@pytest.mark.parametrize(
    ("languages", "parts"),
    [
        (("en",), [("dev", ("en",))]),
        (("en", "de"), [("dev", ("en",)), ("dev", ("en", "de"))]),
        (("de",), [("dev", ("en",)), ("dev", ("de",))]),
    ],
)
def test_where_dev_is_reported_no_target_language_tunes_the_threshold(
    tmp_path, monkeypatch, languages, parts
):
    task = span_task("mine", files={"dev": "dev-{language}.json"}, languages=languages, metric="squad_v2")
    monkeypatch.setattr("stilts_jax.experiment.context.get_task", lambda name: task)
    for name in ("dev-en.json", "dev-de.json"):
        (tmp_path / name).touch()
    context = Context(to_settings(load_config("target:task=panx")), DataSource(tmp_path), tmp_path)
    assert [(part.split, part.languages) for part in choose_scored("mine", context)] == parts


@pytest.mark.parametrize(("name", "read"), [("pytorch_model.bin", False), ("model.safetensors", True)])
def test_only_weights_that_are_read_tell_encoders_apart(tmp_path, monkeypatch, name, read):
    monkeypatch.setattr("stilts_jax.experiment.models.read_shape", lambda folder: None)
    settings, found = SimpleNamespace(debug=False), []
    (tmp_path / "model.safetensors").write_text("weights")
    for text in ("some", "others"):
        (tmp_path / name).write_text(text)
        found.append(encoder_fingerprint(str(tmp_path), settings))
    assert (found[0] != found[1]) == read


def test_a_number_that_the_preset_has_changes_nothing():
    row, default = "mnli", to_settings(load_config("target:task=panx"))
    assert (
        key_of(row, train__by_task="mnli.epochs=2")
        == key_of(row)
        != key_of(row, train__by_task="mnli.epochs=3")
    )
    assert default.train.epochs is None  # else the option would not be what is tried


@pytest.mark.parametrize("option", ["train.window=1", "model.hidden_dropout=0", "data.limit=5"])
def test_what_is_not_trained_reads_no_option_of_training(option):
    def key_of_retrieval(**overrides):
        experiment = Experiment({"experiment.targets": "tatoeba", **overrides}, lambda phase: PhaseData())
        (phase,) = list_phases(experiment.settings)
        return experiment.key(phase)

    assert key_of_retrieval(**dict([option.split("=")])) == key_of_retrieval()


def test_the_weights_of_other_rows_define_nothing():
    weighted = {"mixture__sampler": "weights", "mixture__weights": "mnli=2,mlm=1"}
    more = {**weighted, "mixture__weights": "mnli=2.0,mlm=1,qqp=4"}
    assert key_of("mnli/mlm", **weighted) == key_of("mnli/mlm", **more) != key_of("mnli/mlm")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"experiment.intermediates": "mnli/mlm@de"}, "mixture.mlm_languages=de"),
        ({"experiment.targets": "tatoeba", "experiment.train_on": "tatoeba=mnli"}, "without training"),
    ],
)
def test_what_would_do_nothing_is_refused(options, said):
    with pytest.raises(ConfigError) as caught:
        list_phases(to_settings(load_config("target:task=panx", options)))
    assert said in str(caught.value)


@pytest.mark.parametrize("option", ["model.retrieval_layer=3", "model.sweep_layers=true"])
def test_scores_without_retrieval_stay_whatever_retrieval_is_asked_for(option):
    def experiment(**overrides):
        found = Experiment(overrides, lambda phase: DATA)
        return found, list_phases(found.settings)[0]

    panx = get_task("panx")
    train, dev, test = (Part(panx, split, ("en",), Hyperparameters()) for split in ("train", "dev", "test"))
    DATA = PhaseData((train,), {"panx": (dev,)}, {"panx": (test,)})
    before, phase = experiment()
    result = {"phase": {"key": before.key(phase)}, "evaluation": before.evaluation_record(phase)}
    after, _ = experiment(**dict([option.split("=")]))
    assert after.evaluation_record(phase) != before.evaluation_record(phase)
    assert find_kept(result, phase, after) == ["panx"]


@pytest.mark.parametrize("keep", ["none", "encoders", "models"])
def test_a_model_stays_until_what_trains_the_same_has_taken_it_over(tmp_path, keep):
    target, middle = test_grid.phase("target"), test_grid.phase("middle", stage="intermediate")
    phases = [target, middle, test_grid.phase("child", middle)]
    context, there = test_grid.Experiment(tmp_path, keep), {}
    context.key = lambda phase: "child" if phase.name == "child" else "same"

    def run(phase, _):
        there[phase.name] = (tmp_path / "target/final").exists()
        context.run(phase, context)

    assert run_grid(phases, context, run=run) == 0
    assert there["middle"]
    left = {path.parent.name for path in tmp_path.glob("*/final")}
    assert left == {"none": set(), "encoders": {"middle"}, "models": {"target", "middle", "child"}}[keep]
