"""`stilts features` writes what a vision encoder sees of the pictures of a folder, all of it or nothing."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from stilts_jax.errors import EncoderError
from stilts_jax.evaluation.picture_features import VisionEncoder
from stilts_jax.files import this_machine
from stilts_jax.main import main

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    config = transformers.CLIPVisionConfig(**shape, image_size=32, patch_size=8)
    transformers.CLIPVisionModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, size in enumerate([(32, 32), (64, 32), (40, 90)]):
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def run(tower, pictures, out, *options):
    return main(["features", f"--encoder={tower}", f"--pictures={pictures}", f"--out={out}", *options])


def test_features_are_those_of_the_encoder(tower, pictures, tmp_path):
    out = tmp_path / "images.clip"
    assert run(tower, pictures, out, "--layer=1", "--batch_size=2") == 0
    array, record = np.load(out / "features.npy"), json.loads((out / "features.json").read_text())
    assert array.dtype == np.float16 and array.shape == (3, 16, 24)
    assert record["names"] == ["0.png", "1.png", "2.png"] and out.stat().st_mode == pictures.stat().st_mode
    assert (record["layer"], record["encoder"], record["pictures"]) == (1, str(tower), str(pictures))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "images.clip"]
    shown = [Image.open(pictures / name) for name in record["names"]]
    prepared = transformers.CLIPImageProcessorPil(size=32, crop_size=32)(shown, return_tensors="pt")
    with torch.no_grad():
        model = transformers.CLIPVisionModel.from_pretrained(tower).eval()
        expected = model(**prepared, output_hidden_states=True).hidden_states[1][:, 1:]
    np.testing.assert_allclose(array, expected.numpy(), rtol=1e-3, atol=1e-3)  # as float16 holds it


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_pictures_are_prepared_as_their_folder_says(tower, tmp_path):
    folder = tmp_path / "tower"
    shutil.copytree(tower, folder)
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8))
    plain = np.asarray(wide, np.float32)
    middle = np.asarray(wide.resize((64, 32), Image.Resampling.BICUBIC).crop((16, 0, 48, 32)))
    for said, expected in [
        ({}, middle / 255),
        ({"do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
            (middle / 255 - [0.1, 0.2, 0.3]) / np.array([0.5, 0.6, 0.7])),
        ({"do_resize": False}, plain[8:40, 32:64] / 255),
        ({"size": {"shortest_edge": 48}}, plain[8:40, 32:64] / 255),
        ({"do_rescale": False, "size": 48}, plain[8:40, 32:64]),
        ({"do_center_crop": False, "size": {"height": 32, "width": 32}},
            np.asarray(wide.resize((32, 32), Image.Resampling.BICUBIC)) / 255),
        ({"crop_size": 40}, None),
        ({"size": {"shortest_edge": 10**6}}, None),
        ({"do_center_crop": False}, None),
        ({"image_std": [0, 0, 0], "do_normalize": True}, None),
        ({"resample": 99}, None),
    ]:  # fmt: skip
        (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, **said}))
        if expected is None:
            with pytest.raises(EncoderError, match=r"preprocessor_config\.json"):
                VisionEncoder(folder).prepare(wide)
        else:
            np.testing.assert_allclose(VisionEncoder(folder).prepare(wide), expected, rtol=1e-5)
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": {"do_normalize": False}}))
    np.testing.assert_allclose(VisionEncoder(folder).prepare(wide), middle / 255, rtol=1e-6)
    narrow = VisionEncoder(tower).prepare(Image.new("RGB", (2, 2**20)))  # scaled whole: half a gigabyte
    assert narrow.shape == (32, 32, 3)


def test_all_or_nothing(tower, pictures, tmp_path, capsys):
    out = tmp_path / "images.clip"
    (pictures / "1.png").write_bytes(b"no picture")
    (tmp_path / f".images.clip.{this_machine()}.999999999-0.tmp").mkdir()  # of a killed process
    assert run(tower, pictures, out) == 1 and "PNG or JPEG" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    assert run(tower, pictures, pictures) == 2 and "there already" in capsys.readouterr().err
    assert run(tower, tmp_path / "nowhere", tmp_path / "other") == 1
    (tmp_path / "images.zip").write_bytes(b"PK\5\6" + bytes(18))  # empty; not the folder beside it
    assert run(tower, tmp_path / "images.zip", out) == 1 and "no PNG or JPEG" in capsys.readouterr().err
