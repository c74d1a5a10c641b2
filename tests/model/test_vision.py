"""Vision towers against transformers' PyTorch classes, on random weights."""

import jax
import numpy as np
import pytest

from stilts_jax.errors import ConfigError, EncoderError
from stilts_jax.evaluation.picture_features import VisionEncoder
from stilts_jax.tasks.spec import names

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

SHAPE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
TEXT = {**SHAPE, "vocab_size": 99, "bos_token_id": 0, "eos_token_id": 1}
SHAPE |= {"image_size": 35, "patch_size": 8}  # whose last pixels nobody looks at
TOWERS = names("ViTModel ViTForImageClassification CLIPVisionModel CLIPModel SiglipVisionModel SiglipModel")


def make(name, folder):
    """Writes a random tower, alone or in the model that it is usually shipped in, and returns it."""
    torch.manual_seed(0)
    kind, whole = getattr(transformers, name), {"vision_config": SHAPE, "text_config": TEXT}
    model = kind(kind.config_class(**(whole if name in ("CLIPModel", "SiglipModel") else SHAPE))).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh biases and norms are 0 and 1, and would hide a mistake
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    return getattr(model, "vit", getattr(model, "vision_model", model))


@pytest.mark.parametrize("name", TOWERS)
def test_every_hidden_state_is_that_of_pytorch(name, tmp_path):
    theirs = make(name, tmp_path)
    pictures = np.random.default_rng(0).normal(size=(3, 35, 35, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor(pictures.transpose(0, 3, 1, 2)), output_hidden_states=True)
    ours = VisionEncoder(tmp_path)
    with jax.default_matmul_precision("highest"):
        for layer, state in enumerate(expected.hidden_states):
            np.testing.assert_allclose(ours.encode(pictures, layer), state.numpy(), rtol=0, atol=1e-5)
        last = ours.encode(pictures)
        np.testing.assert_allclose(last, expected.last_hidden_state.numpy(), rtol=0, atol=1e-5)


def test_a_folder_that_is_no_tower_is_refused(tmp_path):
    make("ViTModel", tmp_path)
    with pytest.raises(ConfigError, match="Layer 3"):
        VisionEncoder(tmp_path).encode(np.zeros((1, 35, 35, 3), np.float32), 3)
    config = tmp_path / "config.json"
    text = config.read_text()
    for old, new, message in [
        ('"vit"', '"resnet"', "'resnet' model"),
        ('"patch_size": 8', '"patch_size": 7', "has shape"),
        ('"patch_size": 8', '"patch_size": 0', "Square pictures"),
        ('"gelu"', '["gelu"]', "known activation"),
        ('"num_hidden_layers": 2', '"num_hidden_layers": 1', "have no place"),
        ('"num_hidden_layers": 2', '"num_hidden_layers": 3', "are missing"),
        ('"image_size": 35', '"image_size": 64, "vision_config": "x"', "has shape"),
    ]:
        assert old in text
        config.write_text(text.replace(old, new))
        with pytest.raises(EncoderError, match=message):
            VisionEncoder(tmp_path)
