"""The predictor against one plain batch of all rows."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stilts_jax.errors import ConfigError, StiltsError
from stilts_jax.evaluation import predict as predict_module
from stilts_jax.evaluation.evaluate import evaluate_task
from stilts_jax.evaluation.predict import predict
from stilts_jax.features.build import FeatureSettings, build_features
from stilts_jax.model import encoder
from stilts_jax.tasks import get_task
from stilts_jax.tasks.spec import ChoiceExample, ClassifyExample, EmbedExample, SpanExample, TagExample

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
    }
    seeds, built = {"de": range(17), "zh": range(17, 30)}, {}
    for kind, one in make.items():
        examples = {code: list(map(one, of)) for code, of in seeds.items()}
        built[kind] = build_features(kind, examples, tokenizer, SETTINGS, training=False)
    return built


def token_rows(features):
    tokens = features.columns["tokens"]
    return [tokens[number] for number in range(len(tokens))]


def test_labels(features, model, head_params, run_at_once, monkeypatch):
    rows, seen, apply = features["classify"], set(), predict_module.apply_model

    def note(*given, **named):
        seen.add(jax.config.jax_default_matmul_precision)
        return apply(*given, **named)

    monkeypatch.setattr(predict_module, "apply_model", note)
    with jax.default_matmul_precision("high"):  # which holds in the threads that compute
        found = predict(model, head_params("classify"), rows, head="classify", tokens_per_batch=512)
    expected = run_at_once("classify", token_rows(rows))["logits"].argmax(axis=1)
    np.testing.assert_array_equal(found["label"], expected)
    assert len({*expected.tolist()}) > 1 and seen == {"high"}


def test_parts_that_do_not_fit_are_refused_where_they_would_give_numbers(features, model, head_params):
    rows, shape, part = features["classify"], model.encoder, head_params("classify")
    pads, flat = (replace(model, encoder=replace(shape, **one)) for one in ({"pad_id": 0}, {"num_layers": 2}))
    short = replace(rows, columns={**rows.columns, "example": np.arange(3)})
    wrong = [(model, features["span"], None, "of 'span'"), (model, short, None, "30 rows of tokens, and 3")]
    wrong += [(pads, rows, None, "pad_id is 0"), (flat, rows, None, "3 layers"), (model, rows, 1.0, "layer=")]
    for made, table, layer, words in wrong:
        with pytest.raises(ConfigError, match=words):
            predict(made, part, table, head="classify", layer=layer)
    named = ClassifyExample("0", "a", label="neutral")
    examples = {"de": [named] * 17, "zh": [named] * 13}
    for task, words in (("pawsx", "has 3 outputs"), ("xnli", "'neutral' is a name")):  # of its labels too
        with pytest.raises(StiltsError, match=words):
            evaluate_task(model, part, get_task(task), rows, examples, head="classify")


def test_layers_apart_hold_no_memory_of_their_own(model, head_params, monkeypatch):
    monkeypatch.setattr(encoder, "_WIDE", 1)
    part = jax.tree.map(jnp.array, head_params("classify"))  # copies, as one is donated
    placed = predict_module._place(part, model, predict_module.one_device())
    kernel = part["encoder"]["layers"]["ffn"]["up"]["kernel"]
    for number, layer in enumerate(placed["encoder"]["layers"]):
        found = layer["ffn"]["up"]["kernel"]
        assert found.unsafe_buffer_pointer() == kernel.unsafe_buffer_pointer() + number * found.nbytes
        np.testing.assert_array_equal(found, kernel[number])
    # A step that donates the state may follow while somebody still reads a layer.
    expected = np.array(found)
    jax.jit(lambda stack: stack + 1, donate_argnums=0)(kernel).block_until_ready()
    np.testing.assert_array_equal(found, expected)


def test_choices_of_unequal_number(features, model, head_params, run_at_once):
    rows = features["choice"]
    found = predict(model, head_params("choice"), rows, head="choice", tokens_per_batch=1024)
    sequences = token_rows(rows)
    scores = run_at_once("choice", sequences, choice_mask=np.ones((len(sequences), 1)))["logits"][:, 0]
    first, count = rows.columns["first_choice"], rows.columns["num_choices"]
    expected = [scores[begin : begin + size].argmax() for begin, size in zip(first, count)]
    assert found["label"].tolist() == expected and set(expected) == {0, 1, 2, 3}


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


def test_a_window_of_fewer_than_twenty_tokens_offers_as_many_spans_as_a_longer_one():
    tokens, logits = np.array([[0, 5, 2, 2, 7, 8, 9, 2]]), np.arange(8, dtype=np.float32)[None]
    batch = {"tokens": tokens, "context_mask": np.ones((1, 8), bool)}
    found = predict_module.best_spans({"start_logits": logits, "end_logits": logits}, batch)
    shapes = {name: array.shape for name, array in found.items()}
    assert shapes == {**dict.fromkeys(("starts", "ends", "scores"), (1, 20)), "null": (1,)}
    assert [int(found[name][0, 0]) for name in ("starts", "ends")] == [6, 6]
    least = {name: array[:, :4] for name, array in batch.items()}
    found = predict_module.best_spans(dict.fromkeys(("start_logits", "end_logits"), logits[:, :4]), least)
    assert found["scores"].shape == (1, 20)
