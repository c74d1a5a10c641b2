"""Folders out: bit-equal on the way back, whole or not at all."""

import json
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stilts_jax.errors import ConfigError, EncoderError
from stilts_jax.model import HeadConfig, TaskHead, export_encoder, load_encoder

FAMILIES = ["xlm-roberta", "xlm-roberta-xl"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_out_and_back_is_bit_equal(maker, family, dtype, tmp_path):
    config = maker.config(family, layer_norm_eps=3e-6, hidden_dropout=0.25)
    params = {**maker.encoder(config), "pooler": maker.pooler(config)}
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    export_encoder(tmp_path / "out", config, params, dtype=dtype)
    back = load_encoder(tmp_path / "out", dtype=dtype)
    assert back.config == config and (back.mlm_head, back.task_head) == (None, None)
    jax.tree.map(np.testing.assert_array_equal, back.params, params)


@pytest.mark.parametrize("kind", ["classify", "choice", "tag", "span", "mlm", "embed"])
def test_a_head_comes_back(maker, kind, tmp_path):
    config = maker.config()
    head = HeadConfig(kind=kind, num_labels=3, pooling="pooler", dropout=0.25)
    params = maker.head(config, head)
    labels = ("yes", "no", "maybe") if kind in ("classify", "tag") else ()
    export_encoder(tmp_path / "out", config, maker.encoder(config), head=TaskHead(head, params, labels))
    back = load_encoder(tmp_path / "out")
    found = back.mlm_head
    if kind == "embed":  # a dual encoder's pooler is the encoder's own
        found, params = back.params["pooler"], params["pooler"]
    elif kind != "mlm":
        found = back.task_head.params
        assert back.task_head.labels == labels
        assert (back.task_head.config.kind, back.task_head.config.dropout) == (kind, 0.25)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    encoder = {name: part for name, part in back.params.items() if name != "pooler"}
    jax.tree.map(np.testing.assert_array_equal, encoder, maker.encoder(config))
    assert ("pooler" in back.params) == (kind in ("choice", "embed"))


def test_large_weights_are_cut_into_files(maker, tmp_path):
    config = maker.config()
    params = maker.encoder(config)
    export_encoder(tmp_path / "out", config, params, file_bytes=10_000)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 3 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    jax.tree.map(np.testing.assert_array_equal, load_encoder(tmp_path / "out").params, params)


def test_the_tokenizer_goes_along(maker, tmp_path):
    config = maker.config()
    (source := tmp_path / "source").mkdir()
    with pytest.raises(EncoderError, match="no tokenizer"):
        export_encoder(tmp_path / "out", config, maker.encoder(config), tokenizer_folder=source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    (source / "tokenizer.json").write_text("{}")
    (source / "notes.txt").write_text("not ours")
    out = export_encoder(tmp_path / "out", config, maker.encoder(config), tokenizer_folder=source)
    names = ["config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o644}


def test_a_failure_leaves_nothing_behind_and_names_the_folder(maker, tmp_path):
    params, before = maker.encoder(maker.config()), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*/out'"):
            export_encoder(tmp_path / "out", maker.config(), params)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_what_stands_there_is_not_overwritten(maker, tmp_path, monkeypatch):
    config = maker.config()
    (tmp_path / "file").write_text("a file")
    export_encoder(tmp_path / "out", config, maker.encoder(config))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="must be a local one"):
        export_encoder("gs://bucket/out", config, maker.encoder(config))
    for name in ("~/out", tmp_path / "out", tmp_path / "file"):
        with pytest.raises(EncoderError, match="exists"):
            export_encoder(name, config, maker.encoder(config))


@pytest.mark.parametrize(
    ("head", "labels", "because"),
    [
        (HeadConfig(kind="classify", num_labels=3, form="jiant"), (), "jiant"),
        *(
            (HeadConfig(kind="tag", num_labels=2), wrong, "name the 2")
            for wrong in (("a",), "ab", {0: "a", 1: "b"})
        ),
    ],
)
def test_heads_that_transformers_would_not_read(maker, tmp_path, head, labels, because):
    config = maker.config()
    with pytest.raises(ConfigError, match=because):
        made = TaskHead(head, maker.head(config, head), labels)
        export_encoder(tmp_path / "out", config, maker.encoder(config), head=made)
    with pytest.raises(ConfigError, match="the model wants"):
        made = TaskHead(HeadConfig(kind="tag", num_labels=7), maker.head(config, HeadConfig(kind="span")))
        export_encoder(tmp_path / "out", config, maker.encoder(config), head=made)
