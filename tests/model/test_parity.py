"""Against transformers' PyTorch classes, live: our parameters go out through a folder, and come back as theirs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from stilts_jax.model import (
    Model,
    TaskHead,
    apply_model,
    encode,
    export_encoder,
    load_encoder,
)

torch = pytest.importorskip("torch")
load_file = pytest.importorskip("safetensors.torch").load_file
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

FAMILIES = ["xlm-roberta", "xlm-roberta-xl"]
KINDS = ["classify", "choice", "tag", "span", "mlm"]
# (dtype, largest difference, gradient's difference relative to the tensor's own norm)
FLOAT32, FLOAT64 = ("float32", 1e-5, 1e-4), ("float64", 1e-12, 1e-10)
_AUTO = {
    "classify": "AutoModelForSequenceClassification",
    "choice": "AutoModelForMultipleChoice",
    "tag": "AutoModelForTokenClassification",
    "span": "AutoModelForQuestionAnswering",
    "mlm": "AutoModelForMaskedLM",
}


def their_model(name, folder, dtype="float32"):
    model, report = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    return model.to(getattr(torch, dtype)).eval()


def run_theirs(model, tokens, **options):
    tokens = torch.tensor(tokens, dtype=torch.long)
    return model(input_ids=tokens, attention_mask=(tokens != 1).long(), **options)


def build(maker, exact, family, kind, folder, dtype):
    config = maker.config(family)
    head = maker.heads()[kind]
    encoder, params = maker.encoder(config), maker.head(config, head)
    labels = ("a", "b", "c") if head.kind in ("classify", "tag") else ()
    export_encoder(folder, config, encoder, head=TaskHead(head, params, labels))
    theirs = their_model(_AUTO[kind], folder, dtype)
    compute = maker.replace(exact, dtype=dtype, param_dtype=dtype)
    ours = jax.tree.map(lambda array: np.asarray(array, dtype), {"encoder": encoder, "head": params})
    return Model(config, ((kind, head),), compute), ours, theirs


def make_batch(maker, config, kind):
    tokens = maker.tokens(config)
    batch = {"tokens": tokens}
    if kind == "choice":
        batch = {"tokens": tokens.reshape(2, 2, -1), "choice_mask": np.ones((2, 2), np.float32)}
    if kind == "mlm":
        lengths = (tokens != 1).sum(-1)
        batch["segments"] = (tokens != 1).astype(np.int32)
        batch["positions"] = np.where(batch["segments"] > 0, np.arange(tokens.shape[1]), 0).astype(np.int32)
        batch["masked_positions"] = np.stack([lengths // 2, lengths - 1], 1).astype(np.int32)
    return batch


def our_outputs(model, kind, params, batch):
    found = apply_model(model, params, batch, head=kind)
    if kind == "span":
        return jnp.stack([found["start_logits"], found["end_logits"]], -1)
    if kind == "mlm":
        return found["features"] @ found["table"].T + found["bias"]
    return found["logits"]


def their_outputs(model, kind, batch):
    found = run_theirs(model, batch["tokens"])
    if kind == "span":
        return torch.stack([found.start_logits, found.end_logits], -1)
    if kind == "mlm":
        places = torch.tensor(batch["masked_positions"], dtype=torch.long)[..., None]
        return torch.take_along_dim(found.logits, places, 1)
    return found.logits


@pytest.mark.parametrize("tolerances", [FLOAT32, FLOAT64], ids=lambda value: value[0])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_hidden_state_and_the_pooled_output(maker, exact, family, tolerances, tmp_path):
    dtype, tolerance, _ = tolerances
    config = maker.config(family)
    params = {**maker.encoder(config), "pooler": maker.pooler(config)}
    export_encoder(tmp_path / "out", config, params)
    theirs = their_model("AutoModel", tmp_path / "out", dtype)
    tokens = maker.tokens(config)
    with torch.no_grad():
        expected = run_theirs(theirs, tokens, output_hidden_states=True)
    with jax.enable_x64(dtype == "float64"):
        compute = maker.replace(exact, dtype=dtype, param_dtype=dtype)
        ours = jax.tree.map(lambda array: np.asarray(array, dtype), params)
        run = jax.jit(
            partial(encode, config=config, compute=compute), static_argnames=("num_layers", "all_hidden")
        )
        states = np.asarray(run(ours, tokens, all_hidden=True))
        stopped = {number: run(ours, tokens, num_layers=number) for number in (0, 2, 3)}
    assert states.dtype == dtype
    for number, state in enumerate(expected.hidden_states):
        np.testing.assert_allclose(states[number], state.numpy(), rtol=0, atol=tolerance)
        np.testing.assert_allclose(stopped.get(number, state), state.numpy(), rtol=0, atol=tolerance)
    pooled = np.tanh(states[-1][:, 0] @ ours["pooler"]["kernel"] + ours["pooler"]["bias"])
    np.testing.assert_allclose(pooled, expected.pooler_output.numpy(), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("kind", "tolerances"),
    [*((kind, FLOAT32) for kind in KINDS), ("classify", FLOAT64), ("mlm", FLOAT64)],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_all_gradients(maker, exact, family, kind, tolerances, tmp_path):
    dtype, tolerance, gradient_tolerance = tolerances
    with jax.enable_x64(dtype == "float64"):
        model, params, theirs = build(maker, exact, family, kind, tmp_path / "out", dtype)
        batch = make_batch(maker, model.encoder, kind)
        expected = their_outputs(theirs, kind, batch)
        weights = np.random.default_rng(5).normal(size=expected.shape)
        if kind in ("tag", "span"):
            weights *= (batch["tokens"] != 1)[..., None]  # no loss reads pads; torch freezes their rows
        (expected * torch.tensor(weights, dtype=expected.dtype)).sum().backward()

        def loss(params):
            found = our_outputs(model, kind, params, batch)
            return (found * weights.astype(found.dtype)).sum(), found

        (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        np.testing.assert_allclose(np.asarray(found), expected.detach().numpy(), rtol=0, atol=tolerance)

        # Their gradients take the way of their weights: a folder, and our loader.
        save_file(
            {
                name: (tensor.grad if tensor.grad is not None else torch.zeros_like(tensor)).numpy()
                for name, tensor in theirs.named_parameters(remove_duplicate=False)
            },
            tmp_path / "out" / "model.safetensors",
        )
        loaded = load_encoder(tmp_path / "out", dtype=dtype)
        head = loaded.mlm_head if kind == "mlm" else loaded.task_head.params
        theirs_by_path = {
            "encoder": {name: part for name, part in loaded.params.items() if name != "pooler"},
            "head": head,
        }
        compare_gradients(gradients, theirs_by_path, gradient_tolerance)


def compare_gradients(ours, theirs, tolerance):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    whole = np.sqrt(sum(float((np.asarray(leaf) ** 2).sum()) for leaf in jax.tree.leaves(theirs)))
    for (path, found), expected in zip(
        jax.tree_util.tree_flatten_with_path(ours)[0], jax.tree.leaves(theirs)
    ):
        # A floor for key biases, whose gradient is zero in theory.
        bound = tolerance * max(np.linalg.norm(expected), 1e-2 * whole)
        assert np.linalg.norm(np.asarray(found) - expected) <= bound, jax.tree_util.keystr(path)


def test_what_torch_saves_is_what_was_exported(maker, tmp_path):
    config = maker.config()
    head = maker.heads()["mlm"]
    encoder, params = maker.encoder(config), maker.head(config, head)
    export_encoder(tmp_path / "ours", config, encoder, head=TaskHead(head, params))
    their_model("AutoModelForMaskedLM", tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    back = load_encoder(tmp_path / "theirs")
    jax.tree.map(np.testing.assert_array_equal, back.params, encoder)
    jax.tree.map(np.testing.assert_array_equal, back.mlm_head, params)
    assert back.config == config


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_auto_tokens_of_the_exported_dtype(maker, dtype, tmp_path):
    config = maker.config()
    params = maker.encoder(config)
    export_encoder(tmp_path / "out", config, params, dtype=dtype)
    model = transformers.AutoModel.from_pretrained(tmp_path / "out", dtype="auto", add_pooling_layer=False)
    assert model.dtype == getattr(torch, dtype)
    kernel = params["layers"]["ffn"]["up"]["kernel"][1]
    theirs = model.encoder.layer[1].intermediate.dense.weight.detach().float().numpy().T
    np.testing.assert_array_equal(np.asarray(kernel.astype(jnp.dtype(dtype)), np.float32), theirs)
