"""Against transformers' PyTorch classes, live: our parameters go out through a folder, and come back as theirs."""

from functools import partial

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from stilts_jax.model import Model, TaskHead, apply_model, encode, export_encoder, load_encoder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

FAMILIES = ["xlm-roberta", "xlm-roberta-xl"]
# (dtype, largest difference, gradient's difference relative to the tensor's own norm)
FLOAT32, FLOAT64 = ("float32", 1e-5, 1e-4), ("float64", 1e-12, 1e-10)
AUTO = {
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


@pytest.mark.parametrize("tolerances", [FLOAT32, FLOAT64], ids=lambda value: value[0])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_hidden_state_and_the_pooled_output(maker, exact, family, tolerances, tmp_path):
    dtype, tolerance, _ = tolerances
    config = maker.config(family)
    params, tokens = {**maker.encoder(config), "pooler": maker.pooler(config)}, maker.tokens(config)
    export_encoder(tmp_path / "out", config, params)
    with torch.no_grad():
        theirs = their_model("AutoModel", tmp_path / "out", dtype)
        expected = run_theirs(theirs, tokens, output_hidden_states=True)
    with jax.enable_x64(dtype == "float64"):
        compute = maker.replace(exact, dtype=dtype, param_dtype=dtype)
        ours = jax.tree.map(lambda array: np.asarray(array, dtype), params)
        options = {"static_argnames": ("num_layers", "all_hidden")}
        run = jax.jit(partial(encode, config=config, compute=compute), **options)
        states = np.asarray(run(ours, tokens, all_hidden=True))
        stopped = {number: run(ours, tokens, num_layers=number) for number in (0, 2, 3)}
    assert states.dtype == dtype
    for number, state in enumerate(expected.hidden_states):
        np.testing.assert_allclose(states[number], state.numpy(), rtol=0, atol=tolerance)
        np.testing.assert_allclose(stopped.get(number, state), state.numpy(), rtol=0, atol=tolerance)
    pooled = np.tanh(states[-1][:, 0] @ ours["pooler"]["kernel"] + ours["pooler"]["bias"])
    np.testing.assert_allclose(pooled, expected.pooler_output.numpy(), rtol=0, atol=tolerance)


def their_outputs(model, kind, batch):
    found = run_theirs(model, batch["tokens"])
    if kind == "span":
        return torch.stack([found.start_logits, found.end_logits], -1)
    if kind == "mlm":
        places = torch.tensor(batch["masked_positions"], dtype=torch.long)[..., None]
        return torch.take_along_dim(found.logits, places, 1)
    return found.logits


@pytest.mark.parametrize(
    ("kind", "tolerances"),
    [*((kind, FLOAT32) for kind in AUTO), ("classify", FLOAT64), ("mlm", FLOAT64)],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_all_gradients(maker, exact, family, kind, tolerances, tmp_path):
    (dtype, tolerance, gradient_tolerance), folder = tolerances, tmp_path / "out"
    config, head = maker.config(family), maker.heads()[kind]
    params = {"encoder": maker.encoder(config), "head": maker.head(config, head)}
    labels = ("a", "b", "c") if kind in ("classify", "tag") else ()
    export_encoder(folder, config, params["encoder"], head=TaskHead(head, params["head"], labels))
    with jax.enable_x64(dtype == "float64"):
        theirs = their_model(AUTO[kind], folder, dtype)
        model = Model(config, ((kind, head),), maker.replace(exact, dtype=dtype, param_dtype=dtype))
        params = jax.tree.map(lambda array: np.asarray(array, dtype), params)
        batch = maker.batch(kind, maker.tokens(config))
        expected = their_outputs(theirs, kind, batch)
        weights = np.random.default_rng(5).normal(size=expected.shape)
        if kind in ("tag", "span"):
            weights *= (batch["tokens"] != 1)[..., None]  # no loss reads pads; torch freezes their rows
        (expected * torch.tensor(weights, dtype=expected.dtype)).sum().backward()

        def loss(params):
            found = maker.outputs(apply_model(model, params, batch, head=kind))
            return (found * weights.astype(found.dtype)).sum(), found

        (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(np.asarray(found), expected.detach().numpy(), rtol=0, atol=tolerance)
    # Their gradients take the way of their weights: a folder, and our loader.
    named = theirs.named_parameters(remove_duplicate=False)
    found = {name: (torch.zeros_like(one) if one.grad is None else one.grad).numpy() for name, one in named}
    save_file(found, folder / "model.safetensors")
    loaded = load_encoder(folder, dtype=dtype)
    loaded.params.pop("pooler", None)
    back = loaded.mlm_head if kind == "mlm" else loaded.task_head.params
    maker.compare_gradients(gradients, {"encoder": loaded.params, "head": back}, gradient_tolerance)


def test_what_torch_saves_is_what_was_exported(maker, tmp_path):
    config, head = maker.config(), maker.heads()["mlm"]
    encoder, params = maker.encoder(config), maker.head(config, head)
    export_encoder(tmp_path / "ours", config, encoder, head=TaskHead(head, params))
    their_model("AutoModelForMaskedLM", tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    back = load_encoder(tmp_path / "theirs")
    jax.tree.map(np.testing.assert_array_equal, (back.params, back.mlm_head), (encoder, params))
    assert back.config == config
