"""Folders in: what is used, what is expected and unused, and what is wrong, each named."""

import json
import shutil
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stilts_jax.errors import EncoderError, StiltsError
from stilts_jax.model import TaskHead, export_encoder, load_encoder

WORD = "embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def original(maker, tmp_path_factory):
    """A folder with an encoder and a masked-language-model head."""
    folder, config = tmp_path_factory.mktemp("original") / "encoder", maker.config()
    head = maker.heads()["mlm"]
    export_encoder(folder, config, maker.encoder(config), head=TaskHead(head, maker.head(config, head)))
    return folder


@pytest.fixture
def folder(original, tmp_path):
    shutil.copytree(original, tmp_path / "encoder")
    return tmp_path / "encoder"


def weights(change):
    def spoil(folder):
        found = load_file(folder / "model.safetensors")
        change(found)
        save_file(found, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def config(**changes):
    def spoil(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def cut(name):
    def spoil(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return spoil


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


def gone(name):
    return lambda folder: (folder / name).unlink()


def in_two(spoil=lambda folder: None, change=lambda places: None):
    """Cuts the weights into two files, changes the index and spoils what is there then."""

    def spoil_parts(folder):
        found = load_file(folder / "model.safetensors")
        places = {name: "ab"[number % 2] + ".safetensors" for number, name in enumerate(sorted(found))}
        for file in set(places.values()):
            save_file({key: found[key] for key in found if places[key] == file}, folder / file)
        change(places)
        (folder / INDEX).write_text(json.dumps({"weight_map": places}))
        (folder / "model.safetensors").unlink()
        spoil(folder)

    return spoil_parts


LAYER = "roberta.encoder.layer.1.intermediate.dense.weight"
INDEX = "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
TABLE, DECODER = "roberta." + WORD, "lm_head.decoder.weight"
BAD_FOLDERS = {
    "no config.json": (gone("config.json"), "no config.json"),
    "a config.json that is no JSON": (cut("config.json"), "can't be read as JSON"),
    "another architecture": (config(model_type="bert"), "'bert' model"),
    "another padding": (config(pad_token_id=0), "pad_token_id is 0"),
    "a width that is text": (config(hidden_size="24"), "makes no sense"),
    "NaN": (weights(lambda w: w.update(dict.fromkeys((TABLE, DECODER), w[TABLE] * np.nan))), "not finite"),
    "eight bits": (weights(lambda w: w.update({LAYER: w[LAYER].astype(np.int8)})), "numbers of the type I8"),
    "a pointer of Git LFS": (write("model.safetensors", POINTER), "can't be read"),
    "no weights": (gone("model.safetensors"), "holds no weights"),
    "weights cut off": (cut("model.safetensors"), "can't be read"),
    "a tensor missing": (weights(lambda w: w.pop(LAYER)), f"1 tensors are missing: {LAYER}"),
    "a tensor too many": (
        weights(lambda w: w.update(adapter=np.zeros(2, np.float32))),
        "no place in this model: adapter",
    ),
    "fewer layers than config.json says": (config(num_hidden_layers=4), "16 tensors are missing"),
    "a matrix lying on its side": (weights(lambda w: w.update({LAYER: w[LAYER].T.copy()})), "has shape"),
    "the norms of the other family": (config(model_type="xlm-roberta-xl"), "tensors are missing"),
    "another decoder": (weights(lambda w: w.update({DECODER: w[TABLE] + 1})), "table of its own"),
    "a file of the index missing": (in_two(gone("b.safetensors")), "not in the folder"),
    "one file of several cut off": (in_two(cut("b.safetensors")), "can't be read"),
    "a tensor of the index missing": (
        in_two(change=lambda places: places.update({"x": "a.safetensors", DECODER: "a.safetensors"})),
        "its files lack: x",
    ),
    "an index that points outside": (
        in_two(change=lambda places: places.update(x="../../model.safetensors")),
        "not in the folder",
    ),
}


@pytest.mark.parametrize("case", sorted(BAD_FOLDERS))
def test_a_folder_that_cannot_be_used_is_named(folder, case):
    spoil, because = BAD_FOLDERS[case]
    spoil(folder)
    with pytest.raises(EncoderError) as caught:
        load_encoder(folder)
    assert because in caught.value.what and str(folder) in caught.value.where and caught.value.fix


@pytest.mark.parametrize(
    ("name", "fix"),
    [("/none", ""), ("a b", ""), ("an/encoder", "stilts prepare"), ("~no-one/x", "whole path")],
)
def test_a_place_that_is_none(name, fix, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(StiltsError) as caught:
        load_encoder(name)
    assert fix in caught.value.fix


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
    (cache / "tokenizer.json").touch()  # without its vocabulary it would not be whole
    assert load_encoder("example/encoder", download=download).tokenizer_folder == cache
    in_two()(cache)
    assert load_encoder("example/encoder", download=download).tokenizer_folder == cache


def test_what_cannot_be_fetched_says_so(cache):
    (cache / "tokenizer.json").touch()
    for name in ("example/other", "example/encoder"):
        (cache / "model.safetensors").unlink(missing_ok=True)  # half of a repository
        with pytest.raises(EncoderError, match="no network") as caught:
            load_encoder(name, download=True)
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


def test_what_older_versions_saved_is_left_aside(folder):
    extra = {
        "roberta.embeddings.position_ids": np.arange(20)[None],
        "lm_head.decoder.weight": load_file(folder / "model.safetensors")["roberta." + WORD],
        "lm_head.decoder.bias": load_file(folder / "model.safetensors")["lm_head.bias"],
    }
    expected = load_encoder(folder)
    weights(lambda found: found.update(extra))(folder)
    jax.tree.map(np.testing.assert_array_equal, load_encoder(folder).params, expected.params)


@pytest.mark.parametrize("stored", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_becomes_what_was_asked_for(folder, stored):
    wide = load_file(folder / "model.safetensors")
    weights(lambda w: w.update({key: value.astype(stored) for key, value in w.items()}))(folder)
    kernel = load_encoder(folder).params["layers"]["ffn"]["up"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel[1], wide[LAYER].astype(stored).astype(np.float32).T)
    narrow = load_encoder(folder, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow.params)} == {np.dtype(ml_dtypes.bfloat16)}


class Stranger:
    """An object whose unpickling runs code."""

    def __reduce__(self):
        return print, ("this ran",)


TORCH_FILES = {
    "code": (lambda torch, found, path: torch.save({"a": Stranger(), **found}, path), "Python objects"),
    "a training state": (lambda torch, found, path: torch.save({"model": found}, path), "something else"),
    "the half": (
        lambda torch, found, path: (torch.save(found, path), cut(path.name)(path.parent)),
        "can't be read",
    ),
    "eight bits": (
        lambda torch, found, path: torch.save({**found, LAYER: found[LAYER].to(torch.int8)}, path),
        "numbers of the type int8",
    ),
}


@pytest.fixture
def torch_weights(folder):
    """The tensors of the folder as torch has them; the folder holds none any more."""
    torch = pytest.importorskip("torch")
    found = {key: torch.tensor(value) for key, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    return torch, found


@pytest.mark.parity
@pytest.mark.parametrize("case", sorted(TORCH_FILES))
def test_torch_files_that_cannot_be_used_are_named(folder, torch_weights, case, capsys):
    make, because = TORCH_FILES[case]
    make(*torch_weights, folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=because) as caught:
        load_encoder(folder)
    assert caught.value.fix and "ran" not in capsys.readouterr().out


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_equal_safetensors(original, folder, torch_weights, zipped):
    torch, found = torch_weights
    found[LAYER] = torch.nn.Parameter(found[LAYER])
    places = {key: f"pytorch_model-{1 + index % 2}.bin" for index, key in enumerate(found)}
    for file in set(places.values()):
        part = {key: value for key, value in found.items() if places[key] == file}
        torch.save(part, folder / file, _use_new_zipfile_serialization=zipped)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    ours, expected = load_encoder(folder), load_encoder(original)
    jax.tree.map(np.testing.assert_array_equal, ours.params, expected.params)
    jax.tree.map(np.testing.assert_array_equal, ours.mlm_head, expected.mlm_head)
