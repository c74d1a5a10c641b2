"""Against what torch computed once (tests/golden/make_golden.py): the same checks where torch is absent."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from stilts_jax.model import Compute, HeadConfig, Model, apply_model, encode, load_encoder

GOLDEN = Path(__file__).parents[1] / "golden" / "model"
FAMILIES = ["xlm-roberta", "xlm-roberta-xl"]
PRECISIONS = [("float32", 1e-5, 1e-4), ("float64", 1e-12, 1e-10)]


@pytest.fixture(params=FAMILIES)
def golden(request):
    folder = GOLDEN / request.param
    with np.load(folder / "expected.npz", allow_pickle=False) as file:
        return folder, dict(file)


@pytest.mark.parametrize(("dtype", "tolerance", "gradient_tolerance"), PRECISIONS, ids=["float32", "float64"])
def test_hidden_states_logits_and_gradients(golden, dtype, tolerance, gradient_tolerance, tmp_path):
    folder, expected = golden
    loaded = load_encoder(folder, dtype=dtype)
    compute = Compute(dtype=dtype, param_dtype=dtype, matmul_precision="highest", attention="xla")
    model = Model(loaded.config, (("mlm", HeadConfig(kind="mlm")),), compute)
    tokens = expected["tokens"]
    real = tokens != 1
    batch = {
        "tokens": tokens,
        "segments": real.astype(np.int32),
        "positions": np.cumsum(real, -1).astype(np.int32) - 1,
        "masked_positions": np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape),
    }
    weight = expected["logits_weight"].astype(dtype)

    def loss(params):
        found = apply_model(model, params, batch, head="mlm")
        logits = found["features"] @ found["table"].T + found["bias"]
        return (logits * weight).sum(), logits

    with jax.enable_x64(dtype == "float64"):
        params = {"encoder": loaded.params, "head": loaded.mlm_head}
        run = jax.jit(partial(encode, config=loaded.config, compute=compute, all_hidden=True))
        hidden = np.asarray(run(loaded.params, tokens))
        (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(hidden, expected["hidden"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(np.asarray(logits)[real], expected["mlm_logits"][real], rtol=0, atol=tolerance)

    prefix = "gradient/"
    theirs = {name.removeprefix(prefix): value for name, value in expected.items() if name.startswith(prefix)}
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(theirs, tmp_path / "model.safetensors")
    back = load_encoder(tmp_path, dtype=dtype)
    wanted = {"encoder": back.params, "head": back.mlm_head}
    whole = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(wanted)))
    for (path, ours), theirs in zip(
        jax.tree_util.tree_flatten_with_path(gradients)[0], jax.tree.leaves(wanted)
    ):
        bound = gradient_tolerance * max(np.linalg.norm(theirs), 1e-2 * whole)
        assert np.linalg.norm(np.asarray(ours) - theirs) <= bound, jax.tree_util.keystr(path)


@pytest.mark.parametrize("kind", ["classify", "choice", "tag", "span"])
def test_heads(golden, kind, exact):
    folder, expected = golden
    loaded = load_encoder(folder)
    prefix = f"head/{kind}/"
    theirs = {name.removeprefix(prefix): value for name, value in expected.items() if name.startswith(prefix)}
    modules = {
        "classify": {"dense": "classifier.dense", "out": "classifier.out_proj"},
        "choice": {"dense": "roberta.pooler.dense", "out": "classifier"},
        "tag": {"out": "classifier"},
        "span": {"out": "qa_outputs"},
    }[kind]
    head = {
        ours: {"kernel": theirs[f"{name}.weight"].T, "bias": theirs[f"{name}.bias"]}
        for ours, name in modules.items()
    }
    assert len(theirs) == 2 * len(head)
    model = Model(loaded.config, ((kind, HeadConfig(kind=kind, num_labels=3)),), exact)
    tokens = expected["tokens"]
    batch = {"tokens": tokens}
    if kind == "choice":
        batch = {"tokens": tokens.reshape(2, 2, -1), "choice_mask": np.ones((2, 2), np.float32)}
    found = apply_model(model, {"encoder": loaded.params, "head": head}, batch, head=kind)
    if kind == "span":
        found = {"logits": jnp.stack([found["start_logits"], found["end_logits"]], -1)}
    np.testing.assert_allclose(found["logits"], expected[f"logits/{kind}"], rtol=0, atol=1e-5)
