"""The predictor against one plain batch of all rows."""

import os
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

from stilts_jax.batches.masking import Masking
from stilts_jax.batches.plan import PredictionStream
from stilts_jax.errors import StiltsError
from stilts_jax.evaluation import predict as predict_module
from stilts_jax.evaluation.predict import default_layer, predict
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.model import encode, encoder
from stilts_jax.tasks.spec import (
    ChoiceExample,
    ClassifyExample,
    EmbedExample,
    SpanExample,
    TagExample,
    TextExample,
)

SETTINGS = FeatureSettings(max_length=48, max_query_length=10, stride=12)


@pytest.fixture(scope="module")
def features(make_text, tokenizer):
    """Examples of every kind in two languages, of many lengths."""
    make = {
        "classify": lambda s: ClassifyExample(str(s), make_text(s), make_text(s + 100), s % 3),
        "choice": lambda s: ChoiceExample(
            str(s), make_text(s, 1, 6), tuple(make_text(s + 50 * c, 1, 6) for c in range(2 + s % 3)), 0
        ),
        "tag": lambda s: TagExample(str(s), tuple(make_text(s, 1, 60).split()), None),
        "span": lambda s: SpanExample(str(s), make_text(s, 2, 5), make_text(s + 200, 5, 90)),
        "embed": lambda s: EmbedExample(str(s), make_text(s)),
        "mlm": lambda s: TextExample(str(s), make_text(s)),
    }
    seeds, built = {"de": range(17), "zh": range(17, 30)}, {}
    for kind, one in make.items():
        examples = {code: list(map(one, of)) for code, of in seeds.items()}
        built[kind] = build_features(kind, examples, tokenizer, SETTINGS, training=False)
    return built


def token_rows(features):
    tokens = features.columns["tokens"]
    return [tokens[number] for number in range(len(tokens))]


@pytest.mark.parametrize("kind", ["classify", "tag"])
def test_labels(kind, features, model, head_params, run_at_once):
    found = predict(model, head_params(kind), features[kind], head=kind, tokens_per_batch=512)
    rows = token_rows(features[kind])
    expected = run_at_once(kind, rows)["logits"].argmax(axis=-1)
    if kind == "tag":
        expected = np.concatenate([tags[: len(ids)] for tags, ids in zip(expected, rows)])
    found = found["label" if kind == "classify" else "tags"]
    np.testing.assert_array_equal(found, expected)
    assert len({*expected.tolist()}) > 1


def test_shapes_are_compiled_once_and_layers_taken_apart(
    features, model, head_params, run_at_once, monkeypatch
):
    """Two batches at a time on a CPU want the same program at once: jax makes it for both, and for later calls."""
    traced, part = [], head_params("classify")

    def label(outputs, batch):
        traced.append(batch["tokens"].shape)
        time.sleep(0.2)  # the other batch asks for it meanwhile
        return best_label(outputs, batch)

    best_label = predict_module.PREDICTORS["classify"]
    monkeypatch.setitem(predict_module.PREDICTORS, "classify", label)
    monkeypatch.setattr(predict_module, "PredictionStream", partial(PredictionStream, max_buckets=1))
    monkeypatch.setattr(encoder, "_WIDE", 1)
    predict_module._compile.cache_clear()
    for _ in range(2):
        found = predict(model, part, features["classify"], head="classify", tokens_per_batch=64)
    predict_module._compile.cache_clear()
    assert traced == [(8, 48)]
    expected = run_at_once("classify", token_rows(features["classify"]))["logits"].argmax(axis=1)
    np.testing.assert_array_equal(found["label"], expected)


def test_choices_of_unequal_number(features, model, head_params, run_at_once):
    rows = features["choice"]
    found = predict(model, head_params("choice"), rows, head="choice", tokens_per_batch=1024)
    sequences = token_rows(rows)
    scores = run_at_once("choice", sequences, choice_mask=np.ones((len(sequences), 1)))["logits"][:, 0]
    first, count = rows.columns["first_choice"], rows.columns["num_choices"]
    expected = [scores[begin : begin + size].argmax() for begin, size in zip(first, count)]
    assert found["label"].tolist() == expected
    assert set(expected) == {0, 1, 2, 3}


def test_best_spans_follow_the_rule(features, model, head_params, run_at_once):
    rows = features["span"]
    found = predict(model, head_params("span"), rows, head="span", tokens_per_batch=2048)
    assert len(rows) > rows.num_examples  # some contexts have several windows
    outputs = run_at_once("span", token_rows(rows))
    dropped = 0
    for row, (start, end) in enumerate(zip(outputs["start_logits"], outputs["end_logits"])):
        inside = np.flatnonzero(rows.columns["char_start"][row] >= 0)
        seen = np.flatnonzero(rows.columns["max_context"][row])
        real = len(rows.columns["tokens"][row])
        # BERT's script ranks all tokens first, and drops those of the question and the special ones afterwards.
        starts, ends = (np.argsort(-logits[:real], kind="stable")[:20] for logits in (start, end))
        spans = [(start[s] + end[e], s, e) for s in starts for e in ends if s <= e < s + 30]
        spans = [span for span in spans if span[1] in seen and span[2] in inside]
        dropped += len(set(starts) - set(seen))
        spans.sort(key=lambda span: -span[0])
        assert found["null"][row] == pytest.approx(start[0] + end[0], abs=1e-4)
        real = np.isfinite(found["scores"][row])
        assert real.sum() == min(len(spans), 20)
        np.testing.assert_allclose(found["scores"][row][real], [s[0] for s in spans[:20]], atol=1e-4)
        if spans and (len(spans) == 1 or spans[0][0] - spans[1][0] > 1e-4):
            assert (found["starts"][row][0], found["ends"][row][0]) == spans[0][1:]
    assert dropped  # else the order of ranking and dropping would make no difference


def test_pooled_layers(features, model, params):
    rows = features["embed"]
    tokens = rows.columns["tokens"]
    everything = predict(model, params, rows, head=None, layer="all", tokens_per_batch=2048)["vectors"]
    for row in (0, 29):
        options = {"config": model.encoder, "compute": model.compute, "all_hidden": True}
        states = encode(params["encoder"], tokens[row][None], **options)
        np.testing.assert_allclose(everything[row], np.asarray(states)[:, 0].mean(axis=1), atol=2e-5)
    assert everything.shape == (30, 4, 32)
    for layer in (0, None):
        one = predict(model, params, rows, head=None, layer=layer, tokens_per_batch=2048)["vectors"]
        np.testing.assert_allclose(one, everything[:, 2 if layer is None else 0], atol=2e-5)
    assert [default_layer(depth) for depth in (3, 12, 24, 36, 48)] == [2, 7, 14, 21, 28]


def test_masked_losses_of_packed_rows(features, model, head_params, tokenizer):
    options = {"masking": Masking(tokenizer.mask_id, tokenizer.vocab_size), "tokens_per_batch": 100_000}
    found = predict(model, head_params("mlm"), features["mlm"], head="mlm", **options)
    assert 0 < len(found["loss"]) < len(features["mlm"])
    assert (found["loss"] > 0).all() and (found["weight"] >= 1).all()
    uniform = np.log(model.encoder.vocab_size)
    assert found["loss"].sum() / found["weight"].sum() > 0.5 * uniform  # random weights know nothing


def test_no_rows(model, head_params, tokenizer):
    none = build_features("classify", {"de": []}, tokenizer, SETTINGS, training=False)
    assert predict(model, head_params("classify"), none, head="classify") == {}


def test_a_row_that_is_left_out_is_noticed(features, model, head_params, monkeypatch):
    class Short(predict_module.PredictionStream):
        def __len__(self):
            return super().__len__() - 1

    monkeypatch.setattr(predict_module, "PredictionStream", Short)
    with pytest.raises(StiltsError, match="not predicted exactly once"):
        predict(model, head_params("classify"), features["classify"], head="classify", tokens_per_batch=512)


_ON_DEVICES = """
import jax, numpy as np
from stilts_jax.features.records import Features, Ragged
from stilts_jax.evaluation.predict import predict
from stilts_jax.model import SHAPES, HeadConfig, Model, init_params
from stilts_jax.sharding import MeshConfig, make_mesh
assert jax.device_count() == 4
model = Model(SHAPES["tiny"], (("t", HeadConfig(kind="tag", num_labels=5)),))
params = jax.tree.map(lambda a: np.asarray(a) * 8, init_params(model, jax.random.key(0)))
params = {"encoder": params["encoder"], "head": params["heads"]["t"]}
draw = np.random.default_rng(0)
tokens = Ragged.from_list([draw.integers(4, 300, size) for size in draw.integers(3, 60, 45)])
tags = Ragged(np.full_like(tokens.values, -1), tokens.offsets)
columns = {"tokens": tokens, "tags": tags, "example": np.arange(45), "language": np.zeros(45, np.int32)}
features = Features("tag", columns, ("en",), 45, "")
alone = predict(model, params, features, head="t", tokens_per_batch=1024)["tags"]
for shape in (MeshConfig(), MeshConfig(data=1, fsdp=2, tensor=2)):
    shared = predict(model, params, features, head="t", tokens_per_batch=1024, mesh=make_mesh(shape))["tags"]
    np.testing.assert_array_equal(shared, alone)
"""


@pytest.mark.slow
def test_devices_share_batches():
    flags = "--xla_force_host_platform_device_count=4"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", _ON_DEVICES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
