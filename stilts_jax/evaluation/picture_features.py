"""What a frozen vision encoder sees of the pictures of a folder, written once: `stilts features`.

The towers of ViT, CLIP and SigLIP folders in transformers' layout are this package's encoder of the XL family behind
another entrance: norms before the blocks and once at the end. They differ in the activation, in a first token of their
own and in a norm behind the embeddings.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from PIL import Image

from stilts_jax.errors import ConfigError, DataError, EncoderError
from stilts_jax.features.pictures import read_picture, write_table
from stilts_jax.files import replacing, write_json
from stilts_jax.model.config import SHAPES, Compute, EncoderConfig
from stilts_jax.model.encoder import Layer, abstract_encoder, gelu
from stilts_jax.model.layers import Norm, Params, attention, bind
from stilts_jax.model.loading import account, list_tensors, load_tensors
from stilts_jax.model.weights import open_weights, read_json
from stilts_jax.progress import Progress
from stilts_jax.tasks.sources.pictures import ARRAY, NAMES, PictureFolder, open_pictures

_ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "quick_gelu": lambda values: values * jax.nn.sigmoid(1.702 * values),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
}
# What config.json says of the blocks.
_BLOCKS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps")
# Modules and arrays of ours -> those of ViT, and of CLIP and SigLIP; those of a layer behind ``_LAYERS``.
_NAMES = {
    "patch": ("embeddings.patch_embeddings.projection", "embeddings.patch_embedding"),
    "position": ("embeddings.position_embeddings", "embeddings.position_embedding.weight"),
    "first": ("embeddings.cls_token", "embeddings.class_embedding"),
    "first_norm": ("", "pre_layrnorm"),  # as CLIP spells it
    "layers/attention/norm": ("layernorm_before", "layer_norm1"),
    "layers/attention/query": ("attention.attention.query", "self_attn.q_proj"),
    "layers/attention/key": ("attention.attention.key", "self_attn.k_proj"),
    "layers/attention/value": ("attention.attention.value", "self_attn.v_proj"),
    "layers/attention/output": ("attention.output.dense", "self_attn.out_proj"),
    "layers/ffn/norm": ("layernorm_after", "layer_norm2"),
    "layers/ffn/up": ("intermediate.dense", "mlp.fc1"),
    "layers/ffn/down": ("output.dense", "mlp.fc2"),
    "final_norm": ("layernorm", "post_layernorm"),
}
_LAYERS = ("encoder.layer.{}.", "encoder.layers.{}.")
# Heads of theirs that stand on a tower, the text side of a pair of towers, and a buffer.
_UNUSED = (
    *("pooler.", "head.", "classifier.", "text_model.", "visual_projection.", "text_projection."),
    *("logit_scale", "logit_bias", "embeddings.position_ids"),
)
_LARGE = 8  # how many times the tower's side pictures may be scaled to: by a wrong number it would never end
_NARROW = 20  # how much longer than wide a picture may be before its ends go, which would be cut off anyway
# By kind of tower: what it has besides patches, positions and blocks, and what prepares its pictures.
_KINDS = {
    "vit": (("patch/bias", "first"), "ViTImageProcessorPil"),
    "clip": (("first", "first_norm/scale", "first_norm/bias"), "CLIPImageProcessorPil"),
    "siglip": (("patch/bias",), "SiglipImageProcessorPil"),
}


class VisionEncoder:
    """The tower of a folder; an EncoderError if the folder holds something else."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoConfig  # it takes a while

        path = folder / "config.json"
        described = read_json(path)
        self.kind = str(described.get("model_type")).removesuffix("_vision_model")
        if self.kind not in _KINDS:
            fix = f"take one of {', '.join(_KINDS)}"
            raise EncoderError(f"This is a {self.kind!r} model.", where=f"{path}: model_type", fix=fix)
        tower = described.get("vision_config")
        described = tower if isinstance(tower, dict) else described  # a tower for texts may stand beside it
        usual = AutoConfig.for_model("vit" if self.kind == "vit" else f"{self.kind}_vision_model").to_dict()
        values = usual | described
        size, patch, activation = values["image_size"], values["patch_size"], values["hidden_act"]
        is_square = all(type(side) is int and side > 0 for side in (size, patch))
        if not is_square or str(activation) not in _ACTIVATIONS:
            what = "Square pictures and patches are needed, and a known activation."
            where, fix = f"{path}: image_size, patch_size, hidden_act", f"known: {', '.join(_ACTIVATIONS)}"
            raise EncoderError(what, where=where, fix=fix)
        self.size, self.patch = size, patch  # pixels of a side of a picture, and of a patch
        self.activation = _ACTIVATIONS[activation]
        blocks = SHAPES["xl"].to_transformers() | {name: values[name] for name in _BLOCKS}
        self.config = EncoderConfig.from_transformers(blocks, where=str(path))
        weights, at = open_weights(folder), int(self.kind != "vit")
        prefixes = ("vit.", "vision_model.")
        prefix = next((one for one in prefixes if any(key.startswith(one) for key in weights)), "")
        names = {our: _LAYERS[at] * our.startswith("layers/") + their[at] for our, their in _NAMES.items()}
        # Shapes of the parameters: the blocks' as ours are, the entrance's as theirs are.
        width, inner, own = self.config.hidden_size, abstract_encoder(self.config), _KINDS[self.kind][0]
        leading = () if at else (1,)
        shapes = {
            "patch/weight": (width, 3, patch, patch),
            "position": (*leading, (size // patch) ** 2 + ("first" in own), width),
            "first": (*leading, *leading, width),
        }
        paths = ("patch/weight", "position", *own)
        entrance = {path: jax.ShapeDtypeStruct(shapes.get(path, (width,)), "float32") for path in paths}
        whole = unflatten_dict(entrance, sep="/") | {name: inner[name] for name in ("layers", "final_norm")}
        tensors = list_tensors(whole, names, self.config.num_layers, prefix)
        account(folder, weights, tensors, lambda key: key.removeprefix(prefix).startswith(_UNUSED))
        self.params = jax.device_put(load_tensors(weights, tensors, "float32"))
        self._run = jax.jit(self._compute, static_argnums=(2, 3))
        self._read_preparation(folder)

    def _read_preparation(self, folder: Path) -> None:
        """Reads how pictures are prepared; what the folder does not say is usual for the kind of tower."""
        import transformers

        self._preparation, newer = (folder / f"{name}_config.json" for name in ("preprocessor", "processor"))
        given = read_json(self._preparation) if self._preparation.is_file() else {}
        both = read_json(newer) if newer.is_file() else {}  # beside the tokenizer's settings
        if "image_processor" in both:
            self._preparation, given = newer, both["image_processor"]
        square = {"height": self.size, "width": self.size}
        usual = {"size": {"shortest_edge": self.size} if self.kind == "clip" else square, "crop_size": square}
        try:
            self._processor = getattr(transformers, _KINDS[self.kind][1])(**{**usual, **given})
            said = self._processor
            for name, sides in (("size", said.size), ("crop_size", said.crop_size)):
                if max(dict(sides or ()).values(), default=0) > _LARGE * self.size:
                    raise ValueError(f"{name} is {dict(sides)}, for squares of {self.size} pixels")
            self.prepare(Image.new("RGB", (self.size, self.size), "white"))
        except (TypeError, ValueError) as error:
            what = f"Pictures can't be prepared as this says: {error}"
            raise EncoderError(what, where=str(self._preparation), fix="fetch it again") from error

    def prepare(self, picture: Image.Image) -> np.ndarray:
        """Returns a picture as the tower was trained to be shown it: float32 [size, size, 3]."""
        short = min(picture.size)
        if self._processor.size.shortest_edge and max(picture.size) > _NARROW * short:
            # Scaled, it would take gigabytes.
            left, top = ((side - min(side, _NARROW * short)) // 2 for side in picture.size)
            picture = picture.crop((left, top, picture.width - left, picture.height - top))
        prepared = self._processor(picture, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        if prepared.shape != (self.size, self.size, 3) or not np.isfinite(prepared).all():
            height, width, _ = prepared.shape
            what = f"{picture.width} x {picture.height} pixels become {width} x {height} of {prepared.max()}."
            fix = f"fetch it again, or write there what makes squares of {self.size} pixels"
            raise EncoderError(what, where=str(self._preparation), fix=fix)
        return prepared

    def see(self, folder: PictureFolder, names: Sequence[str], layer: int | None, rows: int) -> np.ndarray:
        """Returns features, float16 [pictures, patches, hidden size]; ``rows`` are computed, to compile once."""
        prepared = np.stack([self.prepare(read_picture(folder, name)) for name in names])
        states = self.encode(np.resize(prepared, (rows, *prepared.shape[1:])), layer)
        features = np.asarray(states[: len(names), -((self.size // self.patch) ** 2) :], np.float16)
        if not np.isfinite(features).all():
            where, fix = f"{folder.path}: {names[0]} to {names[-1]}", "take another layer with --layer"
            raise DataError("The encoder's output does not fit into float16.", where=where, fix=fix)
        return features

    def encode(self, pictures: Any, layer: int | None = None) -> jax.Array:
        """Returns hidden states, float32 [B, tokens, hidden size], of pictures as ``prepare`` makes them.

        The patches, row by row, are the last tokens. Layers are counted as transformers does (0: the embeddings); None
        is the last one behind its norm (of CLIP without: there the norm belongs to the pooled vector).
        """
        depth = self.config.num_layers if layer is None else layer
        self.config.check_layer(depth)
        is_normed = layer is None and self.kind != "clip"
        return self._run(self.params, pictures, depth, is_normed)

    def _compute(self, params: Params, pictures: jax.Array, depth: int, is_normed: bool) -> jax.Array:
        rows, patch, side, compute = len(pictures), self.patch, self.size // self.patch, Compute()
        whole = pictures[:, : side * patch, : side * patch]  # 384 pixels in patches of 14 have a rest
        grid = whole.reshape(rows, side, patch, side, patch, 3)
        hidden = jnp.einsum("bypxqc,dcpq->byxd", grid, params["patch"]["weight"])
        hidden = hidden.reshape(rows, side * side, -1) + params["patch"].get("bias", 0.0)
        if "first" in params:
            first = jnp.broadcast_to(params["first"], (rows, 1, self.config.hidden_size))
            hidden = jnp.concatenate([first, hidden], axis=1)
        hidden = hidden + params["position"]
        if "first_norm" in params:
            hidden = bind(params["first_norm"], Norm, self.config, compute)(hidden)
        layer, everything = partial(Layer, activation=self.activation), jnp.ones(hidden.shape[:2], bool)
        attend = partial(attention, visible=everything)

        def apply(hidden: jax.Array, state: Params) -> tuple[jax.Array, None]:
            return bind(state, layer, self.config, compute)(hidden, attend, None), None

        hidden, _ = jax.lax.scan(apply, hidden, jax.tree.map(lambda array: array[:depth], params["layers"]))
        return bind(params["final_norm"], Norm, self.config, compute)(hidden) if is_normed else hidden


def write_features(
    encoder_folder: Path, pictures: Path, out: Path, layer: int | None, batch_size: int, progress: Progress
) -> int:
    """Writes features of all pictures of a folder (or its zip) and a manifest, all or nothing; returns their number."""
    if out.exists():
        fix = "name another folder, or remove it"
        raise ConfigError("Something is there already.", where=str(out), fix=fix)
    encoder = VisionEncoder(encoder_folder)
    found = open_pictures(pictures.parent, pictures.name)
    names = list(found.names)
    if not names:
        fix = "name the folder that holds them; in a zip they may lie in one folder of its own name"
        raise DataError("There are no PNG or JPEG files directly in it.", where=str(found.path), fix=fix)
    batches = (names[start : start + batch_size] for start in range(0, len(names), batch_size))
    features = chain.from_iterable(encoder.see(found, some, layer, batch_size) for some in batches)
    with replacing(out, folder=True) as made:
        write_table(made / ARRAY, names, features, progress)
        told = {"encoder": str(encoder_folder), "layer": "last" if layer is None else layer}
        write_json(made / NAMES, {"names": names, "pictures": str(found.path), **told})
    return len(names)
