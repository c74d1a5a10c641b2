"""Pictures behind a text: what the encoder makes of both, and that nothing else changes."""

import zlib
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from stilts_jax.errors import ConfigError
from stilts_jax.model import HeadConfig, Model, TaskHead, apply_model, encode, export_encoder
from stilts_jax.model.heads import init_head, init_params

HEAD = HeadConfig(kind="classify", num_labels=3, dropout=0.0, patches=4, patch_width=12, pictures=2)


def pictures(rows, head=HEAD):
    shape = (rows, head.pictures, head.patches, head.patch_width)
    mask = np.ones(shape[:2], bool)
    mask[0, 1:] = False
    return {"visual": np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8), "visual_mask": mask}


@pytest.mark.parity
@pytest.mark.parametrize("family", ["xlm-roberta", "xlm-roberta-xl"])
def test_text_and_pictures_are_encoded_as_by_pytorch(maker, exact, family, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = maker.config(family)
    params, tokens = maker.encoder(config), maker.tokens(config)
    export_encoder(tmp_path / "out", config, params)
    model = transformers.AutoModel.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    visual = np.random.default_rng(1).normal(size=(4, 5, config.hidden_size)).astype(np.float32)
    there = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]], bool)
    mask = np.concatenate([tokens != config.pad_id, there], axis=1)
    with torch.no_grad():
        text = model.embeddings(input_ids=torch.tensor(tokens, dtype=torch.long))
        hidden = torch.cat([text, torch.tensor(visual)], 1)
        bias = torch.where(torch.tensor(mask), 0.0, torch.finfo(torch.float32).min)[:, None, None, :]
        expected = model.encoder(hidden, attention_mask=bias).last_hidden_state[:, : tokens.shape[1]]
    found = encode(params, tokens, config=config, compute=exact, visual=visual, visual_mask=there)
    real = tokens != config.pad_id
    np.testing.assert_allclose(np.asarray(found)[real], expected.numpy()[real], rtol=0, atol=1e-5)


def test_pictures_that_are_not_there_change_nothing(maker, exact):
    config = maker.config()
    params, tokens = maker.encoder(config), maker.tokens(config)
    run = partial(encode, params, tokens, config=config, compute=exact)
    there = np.full((4, 3, config.hidden_size), 7.0, np.float32)
    absent = {"visual": there, "visual_mask": np.zeros((4, 3), bool)}
    for options in ({}, {"first_only": True}):
        rows = slice(None, 1 if "first_only" in options else None)
        expected, found = (np.asarray(run(**options, **more))[..., rows, :] for more in ({}, absent))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("pixels", [(127.5, 127.5), (200.0, 40.0)])
def test_patches_are_projected_and_know_their_place(maker, exact, pixels):
    config, (mean, spread) = maker.config(), pixels
    form = replace(HEAD, pixel_mean=mean, pixel_spread=spread)
    head, model = maker.head(config, form), Model(config, (("vqa", form),), exact)
    params = {"encoder": maker.encoder(config), "head": head}
    batch = {"tokens": maker.tokens(config), **pictures(4)}
    found = np.asarray(apply_model(model, params, batch, head="vqa")["logits"])

    visual = head["visual"]
    patches = (batch["visual"].astype(np.float64) - mean) / spread
    summed = patches @ visual["project"]["kernel"] + visual["project"]["bias"]
    summed += visual["position"] + visual["type"][:, None]
    centred = summed - summed.mean(-1, keepdims=True)
    normed = centred / np.sqrt(summed.var(-1, keepdims=True) + config.layer_norm_eps)
    tokens = (normed * visual["norm"]["scale"] + visual["norm"]["bias"]).reshape(4, 8, -1)
    seen = {"visual": tokens.astype(np.float32), "visual_mask": np.repeat(batch["visual_mask"], 4, axis=1)}
    hidden = encode(params["encoder"], batch["tokens"], config=config, compute=exact, **seen)[:, 0]
    logits = np.tanh(hidden @ head["dense"]["kernel"] + head["dense"]["bias"]) @ head["out"]["kernel"]
    np.testing.assert_allclose(found, logits + head["out"]["bias"], rtol=0, atol=1e-5)

    features = {**batch, "visual": patches.astype(np.float16)}  # features are taken as they are
    near = np.asarray(apply_model(model, params, features, head="vqa")["logits"])
    np.testing.assert_allclose(near, found, rtol=0, atol=2e-2)


@pytest.mark.parametrize("family", ["xlm-roberta", "xlm-roberta-xl"])
def test_a_picture_starts_as_the_mean_word(maker, exact, family):
    """Of what nothing is seen (the mean colour), the encoder gets its own mean word, position and type, normed."""
    config = maker.config(family)
    encoder, form = maker.encoder(config), replace(HEAD, pictures=1)
    model = Model(config, (("vqa", form),), exact)
    visual = init_params(model, jax.random.key(0), encoder)["heads"]["vqa"]["visual"]
    tables = [table for name, table in encoder["embeddings"].items() if name != "norm"]
    mean = sum(np.asarray(table, np.float64).mean(0) for table in tables)
    own_key = jax.random.fold_in(jax.random.key(0), zlib.crc32(b"heads/vqa"))
    drawn = init_head(form, config, own_key, exact.param_dtype)["visual"]
    np.testing.assert_allclose(visual["type"], drawn["type"] + mean, rtol=0, atol=1e-6)
    kernel = drawn["project"]["kernel"] * mean.std()
    np.testing.assert_allclose(visual["project"]["kernel"], kernel, rtol=1e-4, atol=1e-9)
    if family == "xlm-roberta":
        for name in ("scale", "bias"):
            np.testing.assert_array_equal(visual["norm"][name], encoder["embeddings"]["norm"][name])


def test_what_pictures_can_not_do_is_refused(maker, exact, tmp_path):
    config = maker.config()
    head = maker.head(config, HEAD)
    params = {"encoder": maker.encoder(config), "head": head}
    model, task_head = Model(config, (("vqa", HEAD),), exact), TaskHead(HEAD, head, ("a", "b", "c"))
    with pytest.raises(ConfigError, match="there are none"):
        apply_model(model, params, {"tokens": maker.tokens(config)}, head="vqa")
    with pytest.raises(ConfigError, match="looks at pictures"):
        export_encoder(tmp_path / "out", config, params["encoder"], head=task_head)
    for wrong in ({"kind": "span"}, {"patch_width": 0}):
        with pytest.raises(ConfigError):
            maker.replace(HEAD, **wrong)
