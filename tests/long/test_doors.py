"""Accelerators, buckets, full disks, odd layouts: what a machine of tests does not meet by itself."""

import errno
import io
import json
import os
import socket
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax._src import cloud_tpu_init
from transformers import AutoModel, AutoTokenizer

import stilts_jax as sj
from stilts_jax import load_results
from stilts_jax.commands.score import _format
from stilts_jax.config import load_config, to_settings
from stilts_jax.distributed import _is_cluster
from stilts_jax.errors import ConfigError, DataError, TrainingError, explain
from stilts_jax.experiment import models
from stilts_jax.experiment.grid import run_grid
from stilts_jax.experiment.predict import _read_texts
from stilts_jax.experiment.results import read_result
from stilts_jax.features.build import load_or_build
from stilts_jax.features.records import Features, Ragged
from stilts_jax.files import open_path, write_record, write_whole
from stilts_jax.progress import Progress
from stilts_jax.report import write_report
from stilts_jax.report.significance import Comparisons
from stilts_jax.report.statistics import correlate
from stilts_jax.tasks import get_task
from stilts_jax.tasks.custom import classify_task
from stilts_jax.tasks.sources.files import find_files
from stilts_jax.tasks.sources.inventory import prepare
from stilts_jax.tasks.sources.read import DataSource, available_languages, read_examples, read_retrieval
from tests.launch.test_launch import TPU, call  # noqa: F401
from tests.report.made_up_grid import make_record, write_right
from tests.report.made_up_grid import write_record as write_result
from tests.report.test_grid import read as read_grid
from tests.typed import results, stilts

pytestmark = pytest.mark.slow


def test_a_host_that_is_alone_in_its_cluster_hears_sigterm():
    """As a TPU machine of one host is: JAX's coordination service takes the signal, and asks nobody."""
    program = """
import os, signal, time
from stilts_jax.distributed import initialize
from stilts_jax.interruption import catch_signals, deferred, is_asked
with catch_signals(), deferred():
    initialize()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
    print("asked" if is_asked() else "deaf", flush=True)
    os._exit(0)
"""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ | place, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "asked", done.stderr


def test_a_process_with_chips_of_its_own_joins_nobody(monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NODELIST", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setattr(cloud_tpu_init, "running_in_cloud_tpu_vm", True)
    assert _is_cluster()
    monkeypatch.setenv("TPU_PROCESS_BOUNDS", "1,1,1")
    assert not _is_cluster()


DESCRIBED = """case "$*" in
  *describe*) {0} ;;
  *stilts-exit*) echo "stilts-exit=0" ;;
esac"""


@pytest.mark.parametrize(
    "described",
    [
        'if test -e "$TMPDIR/asked"; then echo ACTIVE; else touch "$TMPDIR/asked"; exit 1; fi',
        'if test -e "$TMPDIR/asked"; then echo ACTIVE; else touch "$TMPDIR/asked"; echo ACTIVE; fi',
        'if test -e "$TMPDIR/asked"; then echo ACTIVE; else touch "$TMPDIR/asked"; echo PROVISIONING; fi',
    ],
)
def test_a_slice_that_lives_or_waits_is_never_deleted(described, call):  # noqa: F811
    """The first question fails where the network is away for a moment, as after a lost connection."""
    stubs = {"gcloud": DESCRIBED.format(described), "git": "echo c0ffee"}
    done, calls = call("tpu_vm.sh", "grid", stubs=stubs, PAUSE="0", **TPU)
    assert done.returncode == 0 and not any(" delete " in f"{line} " for line in calls)


def test_a_slice_that_failed_is_asked_for_anew(call):  # noqa: F811
    described = 'if test -e "$TMPDIR/asked"; then echo ACTIVE; else touch "$TMPDIR/asked"; echo FAILED; fi'
    stubs = {"gcloud": DESCRIBED.format(described), "git": "echo c0ffee"}
    _, calls = call("tpu_vm.sh", "grid", stubs=stubs, PAUSE="0", **TPU)
    words = [word for line in calls for word in ("delete", "create") if f" {word} " in line]
    assert words == ["delete", "create"]


def test_a_grid_takes_the_gpus_that_are_its_own(call):  # noqa: F811
    done, _ = call("grid.sh", "--dry_run", "all/2", "-x", CUDA_VISIBLE_DEVICES="5,7")
    assert "DEVICES=5 " in done.stdout and "DEVICES=7 " in done.stdout
    assert call("grid.sh", "--dry_run", "all/3", "-x", CUDA_VISIBLE_DEVICES="5,7")[0].returncode == 2


def test_what_a_failed_phase_held_is_given_back(tmp_path, monkeypatch):
    """A traceback in a local name is a cycle: a model's arrays would stay on the device until Python looks for such."""
    import gc

    from stilts_jax.experiment.context import Context
    from stilts_jax.experiment.phases import list_phases

    class Big:
        pass

    kept = []

    def fail(phase, context):
        big = Big()
        kept.append(weakref.ref(big))
        raise ValueError("no number")

    settings = to_settings(load_config("intermediate:task=mnli"))
    context = Context(settings, DataSource(tmp_path), tmp_path)
    monkeypatch.setattr(Context, "key", lambda self, phase: "0" * 16)
    monkeypatch.setattr("stilts_jax.experiment.grid.is_done", lambda *_: False)
    monkeypatch.setattr("stilts_jax.experiment.grid.results.write_failure", lambda *_: None)
    gc.collect()
    gc.disable()
    try:
        assert run_grid(list_phases(settings), context, run=fail) == 1
        assert kept and kept[0]() is None
    finally:
        gc.enable()


def test_a_record_that_can_not_be_read_now_is_not_taken_for_none(tmp_path, monkeypatch):
    """What is trained or scored would be made again, and what others scored would go."""
    write_record(tmp_path / "result.json", {"format": 2})
    assert read_result(tmp_path) == {"format": 2}
    monkeypatch.setattr(Path, "read_bytes", lambda path: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
    with pytest.raises(OSError, match="no"):
        read_result(tmp_path)
    monkeypatch.undo()
    (tmp_path / "result.json").write_text("{")
    assert read_result(tmp_path) is None  # damaged, which is said


def test_one_result_that_can_not_be_read_takes_no_other_with_it(tmp_path, monkeypatch):
    from stilts_jax.report.results import read_results

    for number in range(2):
        write_result(
            tmp_path, make_record("none", "xnli", {"xnli": {"accuracy": {"en": 50.0}}}, seeds=(None, number))
        )
    bad = sorted(tmp_path.glob("phases/*/result.json"))[0]
    read = Path.read_bytes

    def once(path):
        if path == bad:
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", once)
    runs, broken = read_results(tmp_path)
    assert len(runs) == 1 and any("Input/output" in text for text in broken.values())


def test_only_buckets_that_orbax_writes_to_are_taken():
    with pytest.raises(ConfigError, match="begin with s3"):
        open_path("s3://bucket/folder")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("bucket/w/phases"),
        OSError("Forbidden: bucket"),
        OSError(errno.ENOTCONN, "Not connected"),
    ],
)
def test_what_object_stores_raise_is_explained(error, monkeypatch):
    assert explain(FileNotFoundError("my_lexicon.txt")) is None  # of a program's own, where there is no store
    monkeypatch.setitem(sys.modules, "gcsfs", sys)
    assert explain(error) and explain(error).fix
    assert explain(OSError("2 of 3 files did not come")) is None  # what says itself what is wrong


def test_a_number_that_is_none_is_explained():
    assert "check_nans" in explain(FloatingPointError("invalid value (nan) encountered in jit(step)")).what


class _Full(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_work_goes_on_where_its_log_is_full():
    progress = Progress(_Full())
    progress.say("nobody hears this")
    with progress.track("training", 3) as bar:
        bar.start_t -= 100
        for _ in range(3):
            bar.advance(loss=1.0)


def test_pictures_that_were_damaged_on_disk_are_seen_again(tmp_path):
    path = tmp_path / "upright-0-16-8.npy"

    def build():
        if not path.exists():
            np.save(path, np.full((2, 4, 3), 7, np.uint8))
        columns = {"tokens": Ragged.from_list([[0, 2], [0, 2]]), "pictures": Ragged.from_list([[0], [1]])}
        columns |= {"label": np.zeros(2, np.int32), "example": np.arange(2, dtype=np.int32)}
        return Features("classify", columns, ("en",), 2, pictures=str(path))

    load_or_build(tmp_path, {"a": 1}, build)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert (load_or_build(tmp_path, {"a": 1}, build).table == 7).all()


def test_weights_that_were_exchanged_with_their_time_are_others(tmp_path, monkeypatch):
    """``cp -p`` and archives keep the time of the last change of content; nobody can set that of the last change."""
    monkeypatch.setattr(models, "_WORTH_REMEMBERING", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(models.time, "time_ns", lambda: 2**62)  # long after
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"one")
    first, times = models._remembered_hash(path), path.stat()
    assert models._remembered_hash(path) == first
    time.sleep(0.05)  # one tick of the file system's clock; the package waits for two seconds
    with path.open("r+b") as file:
        file.write(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert models._remembered_hash(path) != first


def test_a_translation_lies_in_files_whatever_english_is_read_from(tmp_path):
    row = '{"gold_label": "neutral", "sentence1": "eins", "sentence2": "zwei", "pairID": "1"}\n'
    write_whole(tmp_path / "mnli/multinli_1.0_train-de.jsonl", row)
    source, task = DataSource(tmp_path, "hub"), get_task("mnli@de")
    assert source.kind_of(task, "train") == "files" and source.kind_of(task, "dev") == "hub"
    assert len(read_examples(task, "train", "de", source)) == 1
    assert (
        DataSource(tmp_path / "nothing", "hub").kind_of(task, "train") == "hub"
    )  # where it would be fetched from


def test_a_code_of_three_letters_is_the_same_language(tmp_path):
    """What was trained on Swahili is no zero-shot transfer to it, however that was called."""
    record = make_record("mnli@swa", "xnli", {"xnli": {"accuracy": {"en": 50.0, "sw": 40.0, "de": 45.0}}})
    write_result(tmp_path, record)
    frame = load_results(tmp_path).set_index("language")
    assert not frame.zero_shot["sw"] and frame.zero_shot["de"]


def test_debug_is_one_thing_however_it_is_written():
    written = [
        to_settings(load_config(f"xstilts{how}")) for how in (":debug", ":debug=true", ":seeds=3,debug=true")
    ]
    assert all(one.debug and one.train.max_steps == 4 for one in written)
    with pytest.raises(ConfigError, match="tiny"):
        to_settings(load_config("xstilts", {"debug": "true"}))


def test_pytorch_models_are_evaluated_in_exact_float32(tmp_path):
    for dtype, expected in (("float32", "highest"), ("bfloat16", "")):
        (tmp_path / "config.json").write_text(json.dumps({"dtype": dtype}))
        assert models.own_options(str(tmp_path)).get("compute.matmul_precision", "") == expected


def test_questions_of_test_select_nothing(tmp_path):
    """xGQA's dev files are of its test questions; X-CSQA's dev set is what is reported."""
    assert not get_task("xgqa").selection
    choices = [{"label": label, "text": label.lower()} for label in "ABCDE"]
    for split, count in (("train", 200), ("dev", 3)):
        rows = [
            {"id": f"{split}{n}", "question": {"stem": f"{split} {n}?", "choices": choices}, "answerKey": "A"}
            for n in range(count)
        ]
        write_whole(tmp_path / f"X-CSQA/en/{split}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    task, source = get_task("xcsqa"), DataSource(tmp_path)
    train, dev, test = (
        {one.id for one in read_examples(task, part, "en", source)} for part in ("train", "dev", "test")
    )
    assert len(train | dev) == 200 and not train & dev and 5 <= len(dev) <= 40
    assert test == {"dev0", "dev1", "dev2"} and task.reported == "test"


def test_treebanks_in_several_files_are_whole(tmp_path):
    """As German-HDT lies on GitHub."""
    for part in ("a-1", "b-2"):
        row = f"1\twort{part}\t_\tNOUN\t_\t_\t_\t_\t_\t_\n\n"
        write_whole(tmp_path / f"udpos/UD_German-HDT/de_hdt-ud-train-{part}.conllu", row)
    task, source = get_task("udpos@de"), DataSource(tmp_path)
    assert [one.words for one in read_examples(task, "train", "de", source)] == [("worta-1",), ("wortb-2",)]
    assert available_languages(get_task("udpos@de"), "train", source) == ("de",)


def test_seeds_of_fewer_languages_wait(tmp_path):
    """A mean over runs of other languages, and its deviation, would be of the languages and not of seeds."""
    every = {"en": 90.0, "de": 60.0, "sw": 30.0}
    for seed in range(3):
        scores = every if seed == 0 else {"en": 90.0}
        write_result(
            tmp_path, make_record("none", "xnli", {"xnli": {"accuracy": scores}}, seeds=(None, seed))
        )
    grid = read_grid(tmp_path)
    number = grid.number(("none", "en"), "xnli")
    assert (number.percent, number.runs) == (60.0, 1) and np.isnan(number.percent_sd)
    assert "2 of 3 runs" in grid.reason(("none", "en"), "xnli")


def test_a_row_of_fewer_languages_than_others_says_so(tmp_path):
    for row, scores in (("mnli", {"en": 90.0, "de": 60.0}), ("squad_v1", {"en": 91.0})):
        write_result(tmp_path, make_record(row, "xnli", {"xnli": {"accuracy": scores}}))
    write_report(tmp_path)
    assert "without de, which other rows have" in (tmp_path / "report/report.md").read_text()


def test_pools_are_whole_whatever_the_limit(tmp_path):
    """A quick look at other tasks does not take LAReQA's comparison away."""
    for row, seeds, limit in (("none", (None, 0), 8), ("mnli", (0, 0), 0)):
        record = make_record(row, "lareqa", {"lareqa": {"map": {"en": 20.0 + limit}}}, seeds=seeds)
        record["config"]["scored_rows"] = limit
        write_result(tmp_path, record)
    assert read_grid(tmp_path).number(("mnli", "en"), "lareqa").difference == -8.0


def test_a_partial_correlation_says_of_how_many_languages_it_is():
    generator = np.random.default_rng(0)
    x, y, size = generator.normal(size=(3, 40))
    size[10:] = np.nan
    found = correlate(x, y, size[:, None])
    assert (found["languages"], found["partial_languages"]) == (40, 10)


@pytest.mark.parametrize("pearson", [0.0, 0.7, 0.9])
def test_intervals_of_rank_correlations_hold_what_they_say(pearson):
    """Of bivariate normal draws, whose Spearman's rho has a closed form."""
    generator, held = np.random.default_rng(1), 0
    rho = 6 / np.pi * np.arcsin(pearson / 2)
    for _ in range(400):
        x, noise = generator.normal(size=(2, 40))
        found = correlate(x, pearson * x + np.sqrt(1 - pearson**2) * noise, np.empty((40, 0)))
        held += found["low"] <= rho <= found["high"]
    assert 0.93 <= held / 400 <= 0.975


CUT = """
from functools import partial
import jax, jax.numpy as jnp, numpy as np, optax, stilts_jax as sj
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
mesh = jax.make_mesh((2, 2), ("replica", "model"))
assert AxisType.Explicit in mesh.axis_types
model = sj.Model(sj.SHAPES["tiny"], (("mine", sj.HeadConfig(kind="classify", num_labels=2)),))
whole = sj.init_params(model, jax.random.key(0))
rules = (("embeddings/word", P(None, "model")), ("query/kernel", P(None, None, "model")), (".*", P()))
params = jax.device_put(whole, sj.shardings(whole, mesh, rules))
batch = {"tokens": np.arange(64).reshape(8, 8) % 50 + 5, "label": np.arange(8) % 2}
cut = {name: jax.device_put(array, NamedSharding(mesh, P("replica"))) for name, array in batch.items()}
loss, key = sj.make_loss(model, "mine"), jax.random.key(1)
recipe = sj.make_optimizer(sj.OptimizerConfig(learning_rate=1e-3, total_steps=9))
for tx in (optax.adamw(1e-3), optax.sgd(1e-3), recipe):
    ends = []
    step = jax.jit(partial(sj.train_step, loss_fn=loss, tx=tx, key=key))
    for start, rows in ((whole, batch), (params, cut)):
        state = sj.TrainState.create(start, tx)
        for _ in range(2):
            state, metrics = step(state, rows)
        ends.append((float(metrics["loss"]), state))
    assert abs(ends[0][0] - ends[1][0]) < 1e-5
moments = ends[1][1].moments["encoder"]["mu"]["layers"]["attention"]["query"]["kernel"]
assert len(moments.sharding.device_set) == 4
logits = [sj.apply_model(model, one, rows, head="mine")["logits"] for one, rows in ((whole, batch), (params, cut))]
np.testing.assert_allclose(*logits, atol=1e-6)
summed = lambda params, rows: loss(params, rows, None)[0]
with jax.set_mesh(mesh):
    ours = jax.jit(jax.grad(summed))({"encoder": params["encoder"], "head": params["heads"]["mine"]}, cut)
theirs = jax.grad(summed)({"encoder": whole["encoder"], "head": whole["heads"]["mine"]}, batch)
jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, atol=1e-5), ours, theirs)
print("equal")
"""


def test_a_state_of_ones_own_on_a_mesh_of_ones_own(environment):
    """``jax.make_mesh`` makes Explicit axes, and a state that was resumed has its step elsewhere."""
    flags = "--xla_force_host_platform_device_count=4"
    given = environment | {"XLA_FLAGS": f"{environment['XLA_FLAGS']} {flags}"}
    done = subprocess.run([sys.executable, "-c", CUT], env=given, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "equal", done.stderr[-3000:]


def _masked_batch(**changes):
    batch = {"tokens": np.full((2, 8), 6), "segments": np.ones((2, 8), np.int32)}
    batch |= {"positions": np.tile(np.arange(8), (2, 1)), "masked_positions": np.array([[1, 2], [3, 0]])}
    batch |= {"masked_targets": np.array([[7, 8], [9, 6]]), "masked_weights": np.ones((2, 2), np.float32)}
    return {name: changes.get(name, array) for name, array in batch.items()}


def test_targets_below_zero_are_ignored_in_every_loss():
    model = sj.Model(sj.SHAPES["tiny"], (("text", sj.HeadConfig(kind="mlm")),))
    params, loss = sj.init_params(model, jax.random.key(0)), sj.make_loss(model, "text")
    given = {"encoder": params["encoder"], "head": params["heads"]["text"]}
    weights = np.array([[1, 1], [1, 0]], np.float32)
    expected = loss(given, _masked_batch(masked_weights=weights), None)
    found = loss(given, _masked_batch(masked_targets=np.array([[7, 8], [9, -100]])), None)
    assert float(found[1]) == 3 and float(found[0]) == pytest.approx(float(expected[0]), rel=1e-6)
    sj.check_batch(_masked_batch(masked_targets=np.array([[7, 8], [9, -100]])), params, "text")
    far = _masked_batch(masked_positions=np.array([[1, 2], [3, 8]]), masked_weights=weights)
    with pytest.raises(TrainingError, match="places"):
        sj.check_batch(far, params, "text")


def test_a_larger_vocabulary_than_the_models_is_refused():
    """Its head would give the rows that are too many the bias of others."""
    model = sj.Model(sj.SHAPES["tiny"], (("text", sj.HeadConfig(kind="mlm")),))
    params = sj.init_params(model, jax.random.key(0))
    words = params["encoder"]["embeddings"]["word"]
    more = {**params["encoder"]["embeddings"], "word": np.concatenate([words, words[:5]])}
    with pytest.raises(ConfigError, match="shape"):
        sj.init_params(model, jax.random.key(0), {**params["encoder"], "embeddings": more})
    larger = sj.Model(replace(sj.SHAPES["tiny"], vocab_size=len(words) + 5), model.heads)
    with pytest.raises(ConfigError, match="heads/text: bias"):
        sj.init_params(larger, jax.random.key(0), heads=params["heads"])


def test_the_label_of_a_choice_that_is_left_out_is_refused():
    model = sj.Model(sj.SHAPES["tiny"], (("pick", sj.HeadConfig(kind="choice")),))
    params = sj.init_params(model, jax.random.key(0))
    batch = {
        "tokens": np.full((2, 2, 8), 6),
        "choice_mask": np.array([[1, 1], [1, 0]]),
        "label": np.array([1, 0]),
    }
    sj.check_batch(batch, params, "pick")
    with pytest.raises(TrainingError, match="labels"):
        sj.check_batch(batch | {"label": np.array([0, 1])}, params, "pick")


def test_what_is_misspelt_ends_in_an_error_in_three_parts(tmp_path):
    with pytest.raises(ConfigError, match="fp16"):
        sj.load_encoder(tmp_path, dtype="fp16")
    model = sj.Model(sj.SHAPES["tiny"], (("mine", sj.HeadConfig(kind="classify", num_labels=2)),))
    params, tx = sj.init_params(model, jax.random.key(0)), optax.sgd(1e-3)
    batch = {"tokens": np.full((2, 8), 6), "label": np.array([0, 1])}
    state = sj.TrainState.create({"encoder": params["encoder"], "head": params["heads"]["mine"]}, tx)
    with pytest.raises(ConfigError, match="no heads"):
        sj.train_step(state, batch, loss_fn=sj.make_loss(model, "mine"), tx=tx, key=jax.random.key(0))
    recipe = sj.make_optimizer(sj.OptimizerConfig(learning_rate=1e-3, total_steps=9))
    masked = optax.multi_transform({"a": recipe, "b": optax.set_to_zero()}, {"encoder": "b", "heads": "a"})
    with pytest.raises(ConfigError, match="masked"):
        masked.init(params)


def test_a_run_that_one_side_lacks_takes_no_interval_away(tmp_path):
    """A seed of the baseline that failed: what is left of pairs is compared, as if there had been no third seed."""
    generator, found = np.random.default_rng(0), []
    shares = {"none": 0.5, "mnli": 0.6}
    right = {(row, seed): generator.random(300) < shares[row] for row in shares for seed in range(3)}
    for folder, seeds in (
        ("pairs", {"none": (0, 1), "mnli": (0, 1)}),
        ("lacks", {"none": (0, 1), "mnli": (0, 1, 2)}),
    ):
        for row, of in seeds.items():
            for seed in of:
                scores = {"xnli": {"de": right[row, seed]}}
                write_right(tmp_path / folder, row, (None if row == "none" else 0, seed), scores)
        grid = read_grid(tmp_path / folder)
        found.append(Comparisons(grid).tests[("mnli", "en"), "xnli"].interval)
    assert found[0] == found[1] and found[0].error_items > 0 and found[0].error_seeds > 0


def test_a_row_of_several_intermediate_seeds_lacks_a_run(tmp_path):
    """Each of its runs stands against the baseline of its target seed, so means are not of the same weights."""
    generator, right = np.random.default_rng(3), {}
    for row, seeds in (
        ("none", (None, 0)),
        ("none", (None, 1)),
        ("mnli", (0, 0)),
        ("mnli", (1, 0)),
        ("mnli", (0, 1)),
    ):
        share = 0.5 + 0.1 * (row == "mnli") + 0.1 * (seeds[1] or 0)
        right[row, seeds] = generator.random(300) < share
        write_right(tmp_path, row, seeds, {"xnli": {"de": right[row, seeds]}})
    grid = read_grid(tmp_path)
    found = Comparisons(grid).tests[("mnli", "en"), "xnli"].interval
    runs = [
        100.0 * right["mnli", seeds] - 100.0 * right["none", (None, seeds[1])]
        for seeds in ((0, 0), (1, 0), (0, 1))
    ]
    by_item = np.mean(runs, axis=0)
    assert found.difference == pytest.approx(by_item.mean())
    assert found.difference == pytest.approx(grid.number(("mnli", "en"), "xnli").difference)
    assert found.error_items == pytest.approx(by_item.std(ddof=1) / 300**0.5)


def test_languages_that_overlap_and_then_do_not_are_all_kept(demo, tmp_path):
    """The number of examples is not known then, which once ended in a crash after all scoring."""
    command = (
        "grid",
        "--config=toy:size=test",
        f"--data_root={demo[0] / 'world/data'}",
        f"--workdir={tmp_path}",
    )
    command += (f"--config.encoder={demo[0] / 'encoder'}", "--config.experiment.intermediates=none")
    command += ("--config.experiment.targets=udpos", "--config.train.max_steps=1")
    for asked in ("de+ru", "ru+en", "zh"):
        stilts(*command, f"--config.experiment.languages={asked}")
    (result,) = results(tmp_path).values()
    assert set(result["scores"]["udpos"]["test"]["f1"]) == {"de", "ru", "en", "zh"}
    # What is read by retrieval alone takes nothing from others; another limit does, and says so.
    stilts(*command, "--config.experiment.languages=zh", "--config.model.retrieval_layer=1")
    said = stilts(*command, "--config.experiment.languages=zh", "--config.evaluation.limit=4")
    assert "scores of udpos that were made with other options" in said
    (result,) = results(tmp_path).values()
    assert set(result["scores"]["udpos"]["test"]["f1"]) == {"zh"}


def test_a_file_beside_the_folders_of_phases_ends_nothing(tmp_path):
    (tmp_path / "none.tar.gz").write_text("packed")
    assert read_result(tmp_path / "none.tar.gz") is None


def test_codes_of_files_are_no_zero_shot_transfer_either(tmp_path):
    record = make_record("none", "xnli", {"xnli": {"accuracy": {"pt_BR": 50.0, "de": 45.0}}}, seeds=(None, 0))
    record["phase"]["source_language"] = "pt_BR"
    write_result(tmp_path, record)
    frame = load_results(tmp_path).set_index("language")
    assert not frame.zero_shot["pt_BR"] and frame.zero_shot["de"]


def test_a_source_that_was_asked_for_is_read(tmp_path):
    write_whole(tmp_path / "panx/train-de.tsv", "de:Ein\tO\n\n")
    for kinds in ({"panx@de": "hub"}, {"panx": "hub"}):
        assert DataSource(tmp_path, "files", kinds).kind_of(get_task("panx@de"), "train") == "hub"
    # Files serve where what was asked for lacks a translation, and nothing serves in place of files.
    for at_hub, in_files, asked, read in (
        (False, True, "hub", "files"),
        (True, True, "hub", "hub"),
        (False, False, "hub", "hub"),
        (True, False, "files", "files"),
    ):
        root = tmp_path / f"{at_hub}{in_files}{asked}"
        if at_hub:
            write_whole(root / "hub/google/xtreme/PAN-X.de/train/0.parquet", "rows")
        if in_files:
            write_whole(root / "panx/train-de.tsv", "de:Ein\tO\n\n")
        assert DataSource(root, asked).kind_of(get_task("panx@de"), "train") == read


def test_one_walk_finds_plain_and_packed_files(tmp_path):
    for name in ("a/de_one-ud-train.conllu", "b/de_two-ud-train.conllu.gz", "b/de_two-ud-train.conllu.bak"):
        write_whole(tmp_path / name, "")
    write_whole(tmp_path / "b/de_one-ud-train.conllu.gz", "")
    found = find_files(tmp_path, "**/de_*-ud-train*.conllu")
    assert [one.relative_to(tmp_path).as_posix() for one in found] == [
        *("a/de_one-ud-train.conllu", "b/de_one-ud-train.conllu.gz", "b/de_two-ud-train.conllu.gz"),
    ]
    assert find_files(tmp_path, "a/de_one-ud-train.conllu") and not find_files(tmp_path, "c/*.conllu")


def test_own_tasks_dev_set_in_its_own_language_lacks_nothing(tmp_path):
    rows = "text,label\nhello,a\nbye,b\n"
    files = {"train": "own/train.csv", "dev": "own/dev.csv", "test": "own/test-{language}.csv"}
    task = classify_task("doors", labels=("a", "b"), languages=("en", "de"), files=files)
    for path in ("train", "dev", "test-en", "test-de"):
        write_whole(tmp_path / f"own/{path}.csv", rows)
    splits, _ = prepare([task], DataSource(tmp_path))
    assert not any(one.note for one in splits) and {one.language for one in splits if one.split == "dev"} == {
        "en"
    }


def test_every_task_that_was_asked_for_is_scored_or_named():
    said = _format(
        {"tasks": {"xcopa": {"mean": 50.0, "languages": {"et": 50.0}}}, "mean": 50.0, "missing": ["xnli"]}
    )
    assert "tasks without predictions or gold: xnli" in said


def test_words_in_a_list_and_empty_lines_of_a_table_to_predict(tmp_path):
    write_whole(tmp_path / "words.jsonl", '{"words": ["Rubo", "wants"]}\n{"words": "a b"}\n')
    assert [text for _, text in _read_texts(tmp_path / "words.jsonl", "tag", {})] == [
        ["Rubo", "wants"],
        ["a", "b"],
    ]
    for name, table in (("one", "text\na\n\nb\n"), ("two", "text\tpair\na\tb\n\nc\td\n")):
        write_whole(tmp_path / f"{name}.tsv", table)
        with pytest.raises(DataError, match="empty"):
            list(_read_texts(tmp_path / f"{name}.tsv", "classify", {}))
    write_whole(tmp_path / "end.tsv", "\ntext\tpair\na\tb\n\n\n")
    assert len(list(_read_texts(tmp_path / "end.tsv", "classify", {}))) == 1


@pytest.mark.parity
def test_a_dual_encoder_in_transformers_layout_is_evaluated_by_its_pooler(demo, tmp_path):
    """As `stilts export` writes one; without a pooler there is nothing that a folder of transformers could hold."""
    loaded = sj.load_encoder(demo[0] / "encoder")
    model = sj.Model(loaded.config, (("pairs", sj.HeadConfig(kind="embed", pooling="pooler")),))
    params = sj.init_params(model, jax.random.key(0), loaded.params)
    head = sj.TaskHead(model.head("pairs"), params["heads"]["pairs"])
    folder = sj.export_encoder(
        tmp_path / "dual", loaded.config, params["encoder"], tokenizer_folder=demo[0] / "encoder", head=head
    )
    data, test = demo[0] / "world/data", get_task("lareqa")
    sets = {"en": read_retrieval(test, "test", "en", DataSource(data))}
    command = ("eval", folder, "--task=lareqa", f"--data_root={data}", "--config.experiment.languages=en")
    stilts(*command, f"--out={tmp_path / 'out'}")
    (scores,) = json.loads((tmp_path / "out/scores.json").read_text())["scores"].values()
    # By hand: unit vectors of tanh(W h_0 + b), ranked by their products.
    texts = [[one.text for one in side] for side in (sets["en"].queries, sets["en"].candidates)]
    torch = pytest.importorskip("torch")
    theirs, tokenizer = (one.from_pretrained(folder) for one in (AutoModel, AutoTokenizer))
    vectors = []
    for side, length in zip(texts, (96, 128)):
        given = tokenizer(side, padding=True, truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            found = theirs.eval()(**given).pooler_output.numpy()
        vectors.append(found / np.linalg.norm(found, axis=1, keepdims=True))
    products = vectors[0] @ vectors[1].T
    best = np.sort(products, axis=1)
    first = [sets["en"].candidates[place].id for place in products.argmax(axis=1)]
    ranked = json.loads((tmp_path / "out/predictions/lareqa/test-en.json").read_text())
    sure = best[:, -1] - best[:, -2] > 1e-6
    differ = [
        one.id for one, name, gap in zip(sets["en"].queries, first, sure) if gap and ranked[one.id][0] != name
    ]
    assert scores["test"]["map"]["en"] > 0 and sure.sum() > 10 and not differ
