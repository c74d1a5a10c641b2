"""Against what torch computed once (tests/long/make_golden.py): the same checks where torch is absent."""

from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from stilts_jax.model import Compute, HeadConfig, Model, apply_model, encode, load_encoder

GOLDEN = Path(__file__).parents[1] / "golden" / "model"
PRECISIONS = [("float32", 1e-5, 1e-4), ("float64", 1e-12, 1e-10)]


@pytest.fixture(params=["xlm-roberta", "xlm-roberta-xl"])
def golden(request):
    folder = GOLDEN / request.param
    with np.load(folder / "expected.npz", allow_pickle=False) as file:
        return folder, dict(file)


def below(expected, prefix):
    return {name.removeprefix(prefix): value for name, value in expected.items() if name.startswith(prefix)}


@pytest.mark.parametrize(("dtype", "tolerance", "gradient_tolerance"), PRECISIONS, ids=["float32", "float64"])
def test_hidden_states_logits_and_gradients(golden, maker, dtype, tolerance, gradient_tolerance, tmp_path):
    folder, expected = golden
    loaded = load_encoder(folder, dtype=dtype)
    compute = Compute(dtype=dtype, param_dtype=dtype, matmul_precision="highest", attention="xla")
    model = Model(loaded.config, (("mlm", HeadConfig(kind="mlm")),), compute)
    tokens, weight = expected["tokens"], expected["logits_weight"].astype(dtype)
    places = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    batch = maker.batch("mlm", tokens) | {"masked_positions": places}

    def loss(params):
        logits = maker.outputs(apply_model(model, params, batch, head="mlm"))
        return (logits * weight).sum(), logits

    with jax.enable_x64(dtype == "float64"):
        run = jax.jit(partial(encode, config=loaded.config, compute=compute, all_hidden=True))
        hidden = np.asarray(run(loaded.params, tokens))
        params = {"encoder": loaded.params, "head": loaded.mlm_head}
        (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    real = tokens != 1
    np.testing.assert_allclose(hidden, expected["hidden"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(np.asarray(logits)[real], expected["mlm_logits"][real], rtol=0, atol=tolerance)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(below(expected, "gradient/"), tmp_path / "model.safetensors")
    back = load_encoder(tmp_path, dtype=dtype)
    maker.compare_gradients(gradients, {"encoder": back.params, "head": back.mlm_head}, gradient_tolerance)


@pytest.mark.parametrize(
    ("kind", "modules"),
    [
        ("classify", {"dense": "classifier.dense", "out": "classifier.out_proj"}),
        ("choice", {"dense": "roberta.pooler.dense", "out": "classifier"}),
        ("tag", {"out": "classifier"}),
        ("span", {"out": "qa_outputs"}),
    ],
)
def test_heads(golden, maker, exact, kind, modules):
    folder, expected = golden
    loaded, theirs = load_encoder(folder), below(expected, f"head/{kind}/")
    head = {
        our: {"kernel": theirs[f"{one}.weight"].T, "bias": theirs[f"{one}.bias"]}
        for our, one in modules.items()
    }
    assert len(theirs) == 2 * len(head)
    model = Model(loaded.config, ((kind, HeadConfig(kind=kind, num_labels=3)),), exact)
    batch = maker.batch(kind, expected["tokens"])
    found = maker.outputs(apply_model(model, {"encoder": loaded.params, "head": head}, batch, head=kind))
    np.testing.assert_allclose(found, expected[f"logits/{kind}"], rtol=0, atol=1e-5)
