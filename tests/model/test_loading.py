"""Folders in: what is used, what is expected and unused, and what is wrong, each named."""

import json
import shutil
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import load_file, save_file

from stilts_jax.errors import EncoderError
from stilts_jax.model import TaskHead, export_encoder, load_encoder

WORD = "embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def original(maker, tmp_path_factory):
    """A folder with an encoder and a masked-language-model head."""
    folder = tmp_path_factory.mktemp("original") / "encoder"
    config = maker.config()
    head = maker.heads()["mlm"]
    export_encoder(folder, config, maker.encoder(config), head=TaskHead(head, maker.head(config, head)))
    return folder


@pytest.fixture
def folder(original, tmp_path):
    shutil.copytree(original, tmp_path / "encoder")
    return tmp_path / "encoder"


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut_off(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def split_in_two(folder):
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: weights[key] for key in keys}, folder / file)
    index = {"weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return index


def change_index(change):
    def damage(folder):
        index = split_in_two(folder)
        change(index["weight_map"])
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return damage


def gone(name):
    return lambda folder: (folder / name).unlink()


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


def cut(name, share=0.5):
    return lambda folder: cut_off(folder / name, share)


def config(**changes):
    return lambda folder: change_config(folder, **changes)


def weights(change):
    return lambda folder: change_weights(folder, change)


def in_parts(damage):
    return lambda folder: (split_in_two(folder), damage(folder))


def flip(name, place):
    """Turns all bits of one byte."""

    def change(folder):
        content = bytearray((folder / name).read_bytes())
        content[place] ^= 0xFF
        (folder / name).write_bytes(content)

    return change


LAYER = "roberta.encoder.layer.1.intermediate.dense.weight"
INDEX = "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
BAD_FOLDERS = {
    "no config.json": (gone("config.json"), "no config.json"),
    "a config.json that is no JSON": (cut("config.json"), "can't be read as JSON"),
    "a config.json that is a list": (write("config.json", "[]"), "no JSON object"),
    "a byte of config.json turned": (flip("config.json", 5), "can't be read as JSON"),
    "another architecture": (config(model_type="bert"), "'bert' model"),
    "another padding, 0": (config(pad_token_id=0), "pad_token_id is 0"),
    "another padding, 5": (config(pad_token_id=5), "pad_token_id is 5"),
    "a width that is text": (config(hidden_size="24"), "makes no sense"),
    "a width beyond reason": (config(intermediate_size=10**30), "makes no sense"),
    "an epsilon that is text": (config(layer_norm_eps="small"), "makes no sense"),
    "a byte of the header turned": (flip("model.safetensors", 30), "can't be read"),
    "not a number": (weights(lambda w: w[LAYER].__setitem__((0, 3), np.nan)), "not finite"),
    "infinity": (weights(lambda w: w[LAYER].__setitem__((0, 3), -np.inf)), "not finite"),
    "eight bits": (weights(lambda w: w.update({LAYER: w[LAYER].astype(np.int8)})), "numbers of the type I8"),
    "a pointer of Git LFS": (write("model.safetensors", POINTER), "can't be read"),
    "no weights": (gone("model.safetensors"), "holds no weights"),
    "weights cut off": (cut("model.safetensors"), "can't be read"),
    "weights cut off in the header": (cut("model.safetensors", 0.01), "can't be read"),
    "weights that are text": (write("model.safetensors", "hello, world"), "can't be read"),
    "empty weights": (write("model.safetensors", ""), "can't be read"),
    "a tensor missing": (weights(lambda w: w.pop(LAYER)), f"1 tensors are missing: {LAYER}"),
    "a head half there": (weights(lambda w: w.pop("lm_head.dense.bias")), "missing: lm_head.dense.bias"),
    "an unknown tensor": (
        weights(lambda w: w.update({"lm_head.offset": w.pop("lm_head.bias")})),
        "missing: lm_head.bias",
    ),
    "a tensor too many": (
        weights(lambda w: w.update(adapter=np.zeros(2, np.float32))),
        "no place in this model: adapter",
    ),
    "more layers than config.json says": (config(num_hidden_layers=2), "no place in this model"),
    "fewer layers than config.json says": (config(num_hidden_layers=4), "16 tensors are missing"),
    "another width than config.json says": (config(intermediate_size=41), "has shape"),
    "a matrix lying on its side": (weights(lambda w: w.update({LAYER: w[LAYER].T.copy()})), "has shape"),
    "the norms of the other family": (config(model_type="xlm-roberta-xl"), "tensors are missing"),
    "a decoder of its own": (
        weights(lambda w: w.update({"lm_head.decoder.weight": w["roberta." + WORD] + 1})),
        "word table of its own",
    ),
    "an index that is no JSON": (in_parts(cut(INDEX)), "can't be read as JSON"),
    "an index without its map": (in_parts(write(INDEX, "{}")), "no weight_map"),
    "a file of the index missing": (in_parts(gone("b.safetensors")), "not in the folder"),
    "one file of several cut off": (in_parts(cut("b.safetensors")), "can't be read"),
    "an index that lists what is not there": (
        change_index(lambda m: m.update({"roberta.encoder.layer.9.output.dense.bias": "a.safetensors"})),
        "its files lack",
    ),
    "an index that points outside": (
        change_index(lambda m: m.update(x="../../model.safetensors")),
        "not in the folder",
    ),
}


@pytest.mark.parametrize("case", sorted(BAD_FOLDERS))
def test_a_folder_that_cannot_be_used_is_named(folder, case):
    spoil, because = BAD_FOLDERS[case]
    spoil(folder)
    with pytest.raises(EncoderError) as caught:
        load_encoder(folder)
    assert because in caught.value.what
    assert str(folder) in caught.value.where
    assert caught.value.fix


@pytest.mark.parametrize("name", ["no/such/folder", "/nowhere/at/all", "../x", "", "two words"])
def test_a_place_that_is_none(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError):
        load_encoder(name or "missing folder")


def test_a_hub_name_that_is_not_cached_says_what_to_run(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError) as caught:
        load_encoder("example/encoder-that-is-not-here")
    assert "stilts prepare" in caught.value.fix


@pytest.fixture
def cache(original, monkeypatch, tmp_path):
    """A hub cache with one repository, and a hub that is out of reach."""
    import huggingface_hub

    def fail(*_args, **_options):
        raise RuntimeError("no network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "list_repo_files", fail)
    repository = tmp_path / "models--example--encoder"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(original, repository / "snapshots" / ("0" * 40))
    return repository / "snapshots" / ("0" * 40)


@pytest.mark.parametrize("download", [True, False])
def test_a_cached_hub_snapshot_needs_no_network(cache, download):
    assert load_encoder("example/encoder", download=download).tokenizer_folder == cache
    split_in_two(cache)
    assert load_encoder("example/encoder", download=download).tokenizer_folder == cache


def test_what_cannot_be_fetched_says_so(cache):
    for name in ("example/other", "example/encoder"):
        (cache / "model.safetensors").unlink(missing_ok=True)  # half of a repository
        with pytest.raises(EncoderError) as caught:
            load_encoder(name, download=True)
        assert "no network" in caught.value.what
        assert "network" in caught.value.fix


@pytest.mark.parametrize("sharded", [False, True])
def test_torch_files_are_not_fetched_where_torch_is_missing(cache, monkeypatch, sharded):
    import huggingface_hub

    files = ["pytorch_model-00001-of-00002.bin"] if sharded else ["config.json", "pytorch_model.bin"]
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: files)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EncoderError, match="torch is not installed") as caught:
        load_encoder("example/large", download=True)
    assert "stilts-jax[parity]" in caught.value.fix


def test_torch_files_without_torch_say_what_to_install(folder, monkeypatch):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EncoderError) as caught:
        load_encoder(folder)
    assert "torch is not installed" in caught.value.what


def test_what_older_versions_saved_is_left_aside(folder):
    extra = {
        "roberta.embeddings.position_ids": np.arange(20)[None],
        "lm_head.decoder.weight": load_file(folder / "model.safetensors")["roberta." + WORD],
        "lm_head.decoder.bias": load_file(folder / "model.safetensors")["lm_head.bias"],
    }
    expected = load_encoder(folder)
    assert expected.unused == ()
    change_weights(folder, lambda weights: weights.update(extra))
    found = load_encoder(folder)
    assert sorted(found.unused) == sorted(extra)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


def test_several_files_equal_one(folder):
    expected = load_encoder(folder)
    split_in_two(folder)
    found = load_encoder(folder)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    jax.tree.map(np.testing.assert_array_equal, found.mlm_head, expected.mlm_head)


@pytest.mark.parametrize("stored", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_becomes_what_was_asked_for(folder, stored):
    wide = load_file(folder / "model.safetensors")
    change_weights(folder, lambda w: w.update({key: value.astype(stored) for key, value in w.items()}))
    found = load_encoder(folder)
    kernel = found.params["layers"]["ffn"]["up"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel[1], wide[LAYER].astype(stored).astype(np.float32).T)
    narrow = load_encoder(folder, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow.params)} == {np.dtype(ml_dtypes.bfloat16)}


def test_the_epsilon_of_config_json_is_kept(folder):
    change_config(folder, layer_norm_eps=1e-12)
    assert load_encoder(folder).config.layer_norm_eps == 1e-12


def test_straight_into_a_sharding(folder):
    """On one device here; test_loading_memory.py has eight."""
    mesh = Mesh(np.array(jax.devices()[:1]), ("fsdp",), axis_types=(AxisType.Auto,))
    place = lambda tree: jax.tree.map(lambda _: NamedSharding(mesh, P()), tree)  # noqa: E731
    found, expected = load_encoder(folder, sharding=place), load_encoder(folder)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found.params))
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


class Stranger:
    """An object whose unpickling runs code."""

    def __reduce__(self):
        return print, ("this ran",)


TORCH_FILES = {
    "code": (lambda torch, weights, path: torch.save({"a": Stranger(), **weights}, path), "Python objects"),
    "numpy": (lambda torch, weights, path: torch.save({"a": np.zeros(3)}, path), "Python objects"),
    "a training state": (lambda torch, weights, path: torch.save({"model": weights}, path), "something else"),
    "a text": (lambda torch, weights, path: path.write_text("hello"), "can't be read"),
    "nothing": (lambda torch, weights, path: path.write_bytes(b""), "can't be read"),
    "the half": (lambda torch, weights, path: (torch.save(weights, path), cut_off(path)), "can't be read"),
    "eight bits": (
        lambda torch, weights, path: torch.save({**weights, LAYER: weights[LAYER].to(torch.int8)}, path),
        "numbers of the type int8",
    ),
}


@pytest.mark.parity
@pytest.mark.parametrize("case", sorted(TORCH_FILES))
def test_torch_files_that_cannot_be_used_are_named(folder, case, capsys):
    torch = pytest.importorskip("torch")
    write, because = TORCH_FILES[case]
    weights = {key: torch.tensor(value) for key, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    write(torch, weights, folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=because) as caught:
        load_encoder(folder)
    assert caught.value.fix
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_equal_safetensors(folder, zipped):
    torch = pytest.importorskip("torch")
    expected = load_encoder(folder)
    weights = {key: torch.tensor(value) for key, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    places = {key: f"pytorch_model-{1 + index % 2}.bin" for index, key in enumerate(weights)}
    for file in set(places.values()):
        part = {key: value for key, value in weights.items() if places[key] == file}
        torch.save(part, folder / file, _use_new_zipfile_serialization=zipped)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    found = load_encoder(folder)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    jax.tree.map(np.testing.assert_array_equal, found.mlm_head, expected.mlm_head)
