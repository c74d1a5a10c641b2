"""Frozen vision encoders: the towers of ViT, CLIP and SigLIP folders in transformers' layout, pictures to vectors.

All three are this package's encoder of the XL family behind another entrance: norms before the blocks and once at the
end. They differ in the activation, in a first token of their own and in a norm behind the embeddings.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from stilts_jax.errors import ConfigError, EncoderError
from stilts_jax.model.attention import attention
from stilts_jax.model.config import SHAPES, Compute, EncoderConfig
from stilts_jax.model.encoder import Layer, abstract_encoder, gelu
from stilts_jax.model.layers import Norm, Params, bind
from stilts_jax.model.loading import account, list_tensors, load_tensors
from stilts_jax.model.weights import Weights, read_json

_ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "quick_gelu": lambda values: values * jax.nn.sigmoid(1.702 * values),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
}
# Kinds of towers, and what each has besides patches, positions and blocks.
_ENTRANCES = {
    "vit": ("patch/bias", "first"),
    "clip_vision_model": ("first", "first_norm/scale", "first_norm/bias"),
    "siglip_vision_model": ("patch/bias",),
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


@dataclass(frozen=True)
class VisionEncoder:
    """A loaded tower."""

    kind: str  # its ``model_type``
    config: EncoderConfig  # its blocks, as those of an encoder
    activation: str
    size: int  # pixels of a side of a picture
    patch: int  # pixels of a side of a patch
    params: Params  # in float32

    def encode(self, pictures: Any, layer: int | None = None) -> jax.Array:
        """Returns hidden states, float32 [B, tokens, hidden size], the first token included where there is one.

        Args:
            pictures: float32 [B, size, size, 3], normalised as the tower wants it.
            layer: counted as transformers does (0 is the embeddings); None is the last one behind its norm (of CLIP
                without: there the norm belongs to the pooled vector).
        """
        depth = self.config.num_layers if layer is None else layer
        if not 0 <= depth <= self.config.num_layers:
            what = f"Layer {layer} of a vision encoder of {self.config.num_layers} layers."
            raise ConfigError(what, where="--layer", fix="take one of these, or 0 for the embeddings")
        is_normed = layer is None and self.kind != "clip_vision_model"
        return _run(self.params, pictures, self.config, self.activation, depth, is_normed)

    def features(self, pictures: Any, layer: int | None = None) -> jax.Array:
        """Returns the vectors of the patches alone, row by row: ``[B, (size / patch) ** 2, hidden size]``."""
        return self.encode(pictures, layer)[:, int("first" in self.params) :]


def load_vision_encoder(folder: Path) -> VisionEncoder:
    """Loads the vision tower of a folder; raises an EncoderError if the folder holds something else."""
    from transformers import AutoConfig  # it takes a while

    path = folder / "config.json"
    described = read_json(path)
    kind = str(described.get("model_type"))
    if kind in ("clip", "siglip"):
        kind, described = f"{kind}_vision_model", described.get("vision_config") or {}
    if kind not in _ENTRANCES:
        fix = f"take one of {', '.join(_ENTRANCES)}, clip and siglip"
        raise EncoderError(f"This is a {kind!r} model.", where=f"{path}: model_type", fix=fix)
    values = AutoConfig.for_model(kind).to_dict() | described
    size, patch, activation = values["image_size"], values["patch_size"], values["hidden_act"]
    whole = all(type(side) is int and side > 0 for side in (size, patch)) and size % patch == 0
    if not whole or values["num_channels"] != 3 or activation not in _ACTIVATIONS:
        raise EncoderError(
            "Pictures of three colours in whole square patches are needed, and a known activation.",
            where=f"{path}: image_size, patch_size, num_channels, hidden_act",
            fix=f"activations: {', '.join(_ACTIVATIONS)}",
        )
    blocks = SHAPES["xl"].to_transformers() | {name: values[name] for name in _BLOCKS}
    config = EncoderConfig.from_transformers(blocks, where=str(path))
    weights, shapes, of_clip = Weights(folder), _abstract(kind, config, size, patch), kind != "vit"
    prefixes = ("vit.", "vision_model.")
    prefix = next((one for one in prefixes if any(key.startswith(one) for key in weights.shapes)), "")
    names = {
        ours: _LAYERS[of_clip] * ours.startswith("layers/") + theirs[of_clip]
        for ours, theirs in _NAMES.items()
    }
    tensors = list_tensors(shapes, names, config.num_layers, prefix)
    account(folder, weights, tensors, lambda key: key.removeprefix(prefix).startswith(_UNUSED))
    params = load_tensors(weights, tensors, "float32")
    return VisionEncoder(kind, config, activation, size, patch, params)


def _abstract(kind: str, config: EncoderConfig, size: int, patch: int) -> Params:
    """Returns the shapes of a tower's parameters: its blocks' as ours are, its entrance's as theirs are."""
    width, blocks = config.hidden_size, abstract_encoder(config)
    own, leading = _ENTRANCES[kind], (1,) * (kind == "vit")
    shapes = {
        "patch/weight": (width, 3, patch, patch),
        "position": (*leading, (size // patch) ** 2 + ("first" in own), width),
        "first": (*leading, *leading, width),
    }
    paths = ("patch/weight", "position", *own)
    entrance = {path: jax.ShapeDtypeStruct(shapes.get(path, (width,)), "float32") for path in paths}
    return unflatten_dict(entrance, sep="/") | {name: blocks[name] for name in ("layers", "final_norm")}


@partial(jax.jit, static_argnames=("config", "activation", "depth", "is_normed"))
def _run(
    params: Params, pictures: jax.Array, config: EncoderConfig, activation: str, depth: int, is_normed: bool
) -> jax.Array:
    kernel = params["patch"]["weight"]
    rows, patch = len(pictures), kernel.shape[-1]
    side = pictures.shape[1] // patch
    grid = pictures.reshape(rows, side, patch, side, patch, 3)
    hidden = jnp.einsum("bypxqc,dcpq->byxd", grid, kernel).reshape(rows, side * side, -1)
    hidden = hidden + params["patch"].get("bias", 0.0)
    if "first" in params:
        first = jnp.broadcast_to(params["first"], (rows, 1, config.hidden_size))
        hidden = jnp.concatenate([first, hidden], axis=1)
    hidden = hidden + params["position"]
    if "first_norm" in params:
        hidden = bind(params["first_norm"], Norm, config, Compute())(hidden)
    layer = partial(Layer, activation=_ACTIVATIONS[activation])
    everything = jnp.ones(hidden.shape[:2], bool)
    attend = lambda query, key, value, _: attention(query, key, value, everything)  # noqa: E731

    def apply(hidden: jax.Array, state: Params) -> tuple[jax.Array, None]:
        return bind(state, layer, config, Compute())(hidden, attend, None), None

    hidden, _ = jax.lax.scan(apply, hidden, jax.tree.map(lambda array: array[:depth], params["layers"]))
    return bind(params["final_norm"], Norm, config, Compute())(hidden) if is_normed else hidden
