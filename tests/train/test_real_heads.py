"""The step on the package's own encoder and heads, all kinds of them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stilts_jax.model import SHAPES, Compute, HeadConfig, Model, abstract_params
from stilts_jax.sharding import MeshConfig, make_mesh, path_of, state_shardings
from stilts_jax.train.losses import LOSSES, make_loss
from stilts_jax.train.optimizer import OptimizerConfig, is_decayed, make_optimizer
from stilts_jax.train.state import TrainState, select_head
from stilts_jax.train.step import train_step
from stilts_jax.train.vocabulary import PhaseVocabulary

HEADS = {
    "classify": HeadConfig(kind="classify", num_labels=3),
    "jiant": HeadConfig(kind="classify", num_labels=3, form="jiant"),
    "choice": HeadConfig(kind="choice"),
    "tag": HeadConfig(kind="tag", num_labels=5),
    "span": HeadConfig(kind="span"),
    "embed": HeadConfig(kind="embed", pooling="pooler"),
    "mlm": HeadConfig(kind="mlm"),
}
FAMILIES = ("xlm-roberta", "xlm-roberta-xl")
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, total_steps=20, warmup=0)


def _model(family="xlm-roberta", dtype="float32"):
    shape = replace(SHAPES["tiny"], family=family, hidden_size=16, intermediate_size=32, vocab_size=200)
    return Model(shape, tuple(HEADS.items()), Compute(param_dtype=dtype, dtype=dtype))


def _params(model):
    """Random parameters; no bias and no norm is where it would start."""
    random = np.random.default_rng(0)

    def draw(keys, leaf):
        one = path_of(keys).endswith("scale")
        return random.normal(1.0 if one else 0.0, 0.1, leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(model))


def _batch(kind, rows=8, length=10, *, vocabulary=120, extra=0):
    """A batch of one kind; ``extra`` more columns of padding change nothing."""
    random = np.random.default_rng(5)
    shape = (rows, 4, length) if kind == "choice" else (rows, length)
    tokens = random.integers(4, vocabulary, shape).astype(np.int32)
    tokens[: rows // 2, ..., -3:] = 1
    tokens[..., 0] = 0
    wide = np.pad(tokens, [(0, 0)] * (tokens.ndim - 1) + [(0, extra)], constant_values=1)
    batch = {"tokens": wide, "weight": np.ones(rows, np.float32)}
    batch["weight"][-1] = 0
    if kind in ("classify", "choice"):
        batch["label"] = random.integers(0, 3, rows).astype(np.int32)
        batch["choice_mask"] = np.ones((rows, 4), np.float32)
    elif kind == "tag":
        tags = np.where(
            (tokens != 1) & (random.random(tokens.shape) < 0.5), random.integers(0, 5, tokens.shape), -1
        )
        batch["tags"] = np.pad(tags, [(0, 0), (0, extra)], constant_values=-1).astype(np.int32)
    elif kind == "span":
        batch["start"], batch["end"] = random.integers(0, 6, (2, rows)).astype(np.int32)
    elif kind == "embed":
        batch["pair_tokens"] = np.roll(wide, 1, axis=0)
    elif kind == "mlm":
        batch["segments"] = (wide != 1).astype(np.int32)
        batch["positions"] = np.broadcast_to(np.arange(length + extra, dtype=np.int32), wide.shape) * (
            wide != 1
        )
        batch["masked_positions"] = np.tile(np.array([[1, 4, 6]], np.int32), (rows, 1))
        batch["masked_targets"] = random.integers(4, vocabulary, (rows, 3)).astype(np.int32)
        batch["masked_weights"] = (random.random((rows, 3)) < 0.7).astype(np.float32)
    return batch


def _gradients(model, head, batch, accumulation=1):
    """What the step hands to its optimizer."""

    loss = make_loss(model, head)

    def without_dropout(params, batch, key):
        return loss(params, batch, None)

    without_dropout.head = head
    without_dropout.needs_whole_batch = loss.needs_whole_batch
    # A transformation that moves nothing and remembers the gradients.
    catching = optax.GradientTransformation(
        lambda params: params,
        lambda gradients, state, params: (jax.tree.map(jnp.zeros_like, params), gradients),
    )

    def step(params, batch):
        state, metrics = train_step(
            TrainState.create(params, catching),
            batch,
            loss_fn=without_dropout,
            tx=catching,
            key=jax.random.key(0),
            accumulation=accumulation,
        )
        return select_head(state.moments, head), metrics

    return jax.jit(step)(_params(model), batch)


def _assert_close(one, other, tolerance):
    for (keys, a), b in zip(
        jax.tree_util.tree_flatten_with_path(one)[0], jax.tree.leaves(other), strict=True
    ):
        # Relative to the largest, with a floor: key biases have no gradient but rounding.
        scale = max(float(np.abs(b).max()), 1e-2)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=path_of(keys))


def test_the_heads_here_are_of_every_kind():
    assert {head.kind for head in HEADS.values()} == set(LOSSES)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_decays_in_real_trees(family):
    """As in transformers' examples: no bias and no LayerNorm weight."""
    params = abstract_params(_model(family))
    paths = [path_of(keys) for keys, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    spared = {path for path in paths if not is_decayed(path)}
    matrices = {path for path in paths if path.endswith(("/kernel", "/word", "/position", "/type"))}
    assert spared == set(paths) - matrices
    assert any("norm/scale" in path for path in spared) and "heads/embed/logit_scale" in spared
    assert ("encoder/final_norm/scale" in spared) is (family == "xlm-roberta-xl")


@pytest.mark.parametrize("family", FAMILIES)
def test_moments_lie_where_their_parameters_lie(family):
    params = abstract_params(_model(family))
    shardings = state_shardings(
        jax.eval_shape(lambda p: TrainState.create(p, make_optimizer(OPTIMIZER)), params),
        make_mesh(MeshConfig(), jax.devices()[:1]),
    )
    for name in ("mu", "nu"):
        assert shardings.moments["encoder"][name] == shardings.params["encoder"]
        assert {head: part[name] for head, part in shardings.moments["heads"].items()} == shardings.params[
            "heads"
        ]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["choice", "mlm"])
def test_accumulated_is_unaccumulated(head):
    model = _model()
    batch = _batch(HEADS[head].kind)
    whole, metrics = _gradients(model, head, batch)
    parts, others = _gradients(model, head, batch, accumulation=4)
    _assert_close(parts, whole, 2e-5)
    np.testing.assert_allclose(others["loss"], metrics["loss"], rtol=1e-6)


@pytest.mark.parametrize("head", ["jiant", "tag", "span", "embed", "mlm"])
def test_a_loss_does_not_depend_on_the_length_that_a_batch_is_padded_to(head):
    model = _model()
    params = select_head(_params(model), head)
    loss = jax.jit(make_loss(model, head))
    sums, longer = (loss(params, _batch(HEADS[head].kind, extra=extra), None) for extra in (0, 6))
    np.testing.assert_allclose(sums[0], longer[0], rtol=1e-5)
    assert float(sums[1]) == float(longer[1]) > 0


def test_in_batch_negatives_need_the_whole_batch():
    loss = make_loss(_model(), "embed")
    assert loss.needs_whole_batch and not make_loss(_model(), "mlm").needs_whole_batch


@pytest.mark.slow
def test_the_phase_vocabulary_on_a_real_encoder_in_float64():
    with jax.enable_x64(True):
        model = _model(dtype="float64")
        batches = [_batch("tag", rows=4, vocabulary=60 + 10 * step) for step in range(6)]
        vocabulary = PhaseVocabulary.from_tokens([b["tokens"] for b in batches], 200, multiple=8)
        small = Model(replace(model.encoder, vocab_size=len(vocabulary)), model.heads, model.compute)
        ends, tx = [], make_optimizer(OPTIMIZER)
        for one, prepare, form in ((model, dict, lambda p: p), (small, vocabulary.remap, vocabulary.shrink)):
            params = form({**(full := _params(model)), "heads": {"tag": full["heads"]["tag"]}})
            step = jax.jit(
                lambda state, batch, one=one: train_step(
                    state, batch, loss_fn=make_loss(one, "tag"), tx=tx, key=jax.random.key(0)
                )
            )
            state = TrainState.create(params, tx)
            for batch in batches:
                state, _ = step(state, prepare(batch))
            ends.append(state.params)
        original = _params(model)["encoder"]["embeddings"]["word"]
        restored = vocabulary.restore(ends[1], original, optimizer=OPTIMIZER, steps=len(batches))
        for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(ends[0]), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)
