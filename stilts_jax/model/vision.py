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
from flax import nnx

from stilts_jax.errors import ConfigError, EncoderError
from stilts_jax.model.config import Compute, EncoderConfig
from stilts_jax.model.convert import LEAVES, Tensor, nest, walk
from stilts_jax.model.encoder import FeedForward, Layer, Norm, Params, abstract_encoder
from stilts_jax.model.loading import account, config_path, load_tensor
from stilts_jax.model.weights import open_weights, read_json

_ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "quick_gelu": lambda values: values * jax.nn.sigmoid(1.702 * values),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
}
_SHAPE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "num_channels": 3,
}
# What transformers takes where config.json is silent, by model_type.
_DEFAULTS: Mapping[str, dict[str, Any]] = {
    "vit": {**_SHAPE, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "patch_size": 16},
    "clip_vision_model": {**_SHAPE, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "patch_size": 32},
    "siglip_vision_model": {
        **_SHAPE,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "patch_size": 16,
    },
}
# Modules and arrays of ours -> theirs. {} is the number of the layer.
_VIT = {
    "patch": "embeddings.patch_embeddings.projection",
    "position": "embeddings.position_embeddings",
    "first": "embeddings.cls_token",
    "layers/attention/norm": "encoder.layer.{}.layernorm_before",
    "layers/attention/query": "encoder.layer.{}.attention.attention.query",
    "layers/attention/key": "encoder.layer.{}.attention.attention.key",
    "layers/attention/value": "encoder.layer.{}.attention.attention.value",
    "layers/attention/output": "encoder.layer.{}.attention.output.dense",
    "layers/ffn/norm": "encoder.layer.{}.layernorm_after",
    "layers/ffn/up": "encoder.layer.{}.intermediate.dense",
    "layers/ffn/down": "encoder.layer.{}.output.dense",
    "final_norm": "layernorm",
}
_CLIP = {
    "patch": "embeddings.patch_embedding",
    "position": "embeddings.position_embedding.weight",
    "first": "embeddings.class_embedding",
    "first_norm": "pre_layrnorm",  # as CLIP spells it
    "layers/attention/norm": "encoder.layers.{}.layer_norm1",
    "layers/attention/query": "encoder.layers.{}.self_attn.q_proj",
    "layers/attention/key": "encoder.layers.{}.self_attn.k_proj",
    "layers/attention/value": "encoder.layers.{}.self_attn.v_proj",
    "layers/attention/output": "encoder.layers.{}.self_attn.out_proj",
    "layers/ffn/norm": "encoder.layers.{}.layer_norm2",
    "layers/ffn/up": "encoder.layers.{}.mlp.fc1",
    "layers/ffn/down": "encoder.layers.{}.mlp.fc2",
    "final_norm": "post_layernorm",
}
# Heads of theirs that stand on a tower, the text side of a pair of towers, and a buffer.
_UNUSED = (
    *("pooler.", "head.", "classifier.", "text_model.", "visual_projection.", "text_projection."),
    *("logit_scale", "logit_bias", "embeddings.position_ids"),
)


@dataclass(frozen=True)
class VisionEncoder:
    """A loaded tower.

    Attributes:
        kind: its ``model_type``.
        config: its blocks, as those of an encoder.
        size: pixels of a side of a picture.
        patch: pixels of a side of a patch.
        params: in float32.
    """

    kind: str
    config: EncoderConfig
    activation: str
    size: int
    patch: int
    params: Params

    def encode(self, pictures: Any, layer: int | None = None) -> jax.Array:
        """Runs the tower.

        Args:
            pictures: float32 [B, size, size, 3], normalised as the tower wants it.
            layer: a hidden state, counted as transformers does (0 is the embeddings); None is the last one behind
                its norm (of CLIP without: there the norm belongs to the pooled vector).

        Returns:
            float32 [B, tokens, hidden size], the first token included where there is one.
        """
        depth = self.config.num_layers if layer is None else layer
        if not 0 <= depth <= self.config.num_layers:
            raise ConfigError(
                f"Layer {layer} of a vision encoder of {self.config.num_layers} layers.", where="--layer"
            )
        is_normed = layer is None and self.kind != "clip_vision_model"
        return _run(self.params, pictures, self.config, self.activation, self.patch, depth, is_normed)

    def features(self, pictures: Any, layer: int | None = None) -> jax.Array:
        """Returns the vectors of the patches alone, row by row: ``[B, (size / patch) ** 2, hidden size]``."""
        return self.encode(pictures, layer)[:, int("first" in self.params) :]


def load_vision_encoder(folder: Path) -> VisionEncoder:
    """Loads the vision tower of a folder.

    Raises:
        EncoderError: the folder holds something else; names the file, the tensor or the setting.
    """
    path = config_path(folder)
    described = read_json(path)
    kind = str(described.get("model_type"))
    if kind in ("clip", "siglip"):
        kind, described = f"{kind}_vision_model", described.get("vision_config") or {}
    if kind not in _DEFAULTS:
        raise EncoderError(
            f"This is a {kind!r} model.",
            where=f"{path}: model_type",
            fix=f"take one of {', '.join(_DEFAULTS)}, clip and siglip",
        )
    values = {name: described.get(name, default) for name, default in _DEFAULTS[kind].items()}
    size, patch, activation = values["image_size"], values["patch_size"], values["hidden_act"]
    if (
        not all(type(side) is int and side > 0 for side in (size, patch))
        or size % patch
        or values["num_channels"] != 3
        or activation not in _ACTIVATIONS
    ):
        raise EncoderError(
            "Pictures of three colours in whole square patches are needed, and a known activation.",
            where=f"{path}: image_size, patch_size, num_channels, hidden_act",
            fix=f"activations: {', '.join(_ACTIVATIONS)}",
        )
    config = EncoderConfig(
        family="xlm-roberta-xl",
        vocab_size=2,  # no words
        hidden_size=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=values["num_attention_heads"],
        intermediate_size=values["intermediate_size"],
        layer_norm_eps=values["layer_norm_eps"],
    )
    weights = open_weights(folder)
    names = _VIT if kind == "vit" else _CLIP
    prefixes = [
        one for one in ("vit.", "vision_model.") if any(key.startswith(one) for key in weights.shapes)
    ]
    prefix = "".join(prefixes[:1])
    tensors = [
        _find_tensor(path, leaf.shape, names, prefix, config.num_layers)
        for path, leaf in walk(_abstract(kind, config, size, patch))
    ]
    account(folder, weights, tensors, lambda key: key.removeprefix(prefix).startswith(_UNUSED))
    params = nest({one.path: load_tensor(weights, one, "float32", None) for one in tensors})
    return VisionEncoder(kind, config, activation, size, patch, params)


def _abstract(kind: str, config: EncoderConfig, size: int, patch: int) -> Params:
    """Returns the shapes of a tower's parameters: its blocks' as ours are, its entrance's as theirs are."""
    width, blocks = config.hidden_size, abstract_encoder(config)
    has_first = kind != "siglip_vision_model"
    positions, leading = (size // patch) ** 2 + has_first, (1,) * (kind == "vit")
    shapes: dict[str, tuple[int, ...]] = {"patch/weight": (width, 3, patch, patch)}
    if kind != "clip_vision_model":
        shapes["patch/bias"] = (width,)
    shapes["position"] = (*leading, positions, width)
    if has_first:
        shapes["first"] = (*leading, *leading, width)
    if kind == "clip_vision_model":
        shapes |= {"first_norm/scale": (width,), "first_norm/bias": (width,)}
    entrance = nest({path: jax.ShapeDtypeStruct(shape, "float32") for path, shape in shapes.items()})
    return {**entrance, "layers": blocks["layers"], "final_norm": blocks["final_norm"]}


def _find_tensor(
    path: str, shape: tuple[int, ...], names: Mapping[str, str], prefix: str, layers: int
) -> Tensor:
    module, _, leaf = path.rpartition("/")
    name = f"{names[module]}.{LEAVES.get(leaf, leaf)}" if module else names[path]
    stacked = path.startswith("layers/")
    keys = tuple(prefix + name.format(number) for number in range(layers if stacked else 1))
    return Tensor(path, keys, leaf == "kernel", stacked, tuple(shape))


class _FeedForward(FeedForward):
    def __init__(self, activation: str, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        super().__init__(config, compute, rngs)
        self.activation = activation

    def __call__(self, hidden: jax.Array) -> jax.Array:
        return self.down(_ACTIVATIONS[self.activation](self.up(hidden)))


class _Layer(Layer):
    def __init__(self, activation: str, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        super().__init__(config, compute, rngs)
        self.ffn = _FeedForward(activation, config, compute, rngs)


@partial(jax.jit, static_argnames=("config", "activation", "patch", "depth", "is_normed"))
def _run(
    params: Params,
    pictures: jax.Array,
    config: EncoderConfig,
    activation: str,
    patch: int,
    depth: int,
    is_normed: bool,
) -> jax.Array:
    def define(module: Callable[..., nnx.Module]) -> nnx.GraphDef:
        return nnx.split(nnx.eval_shape(lambda: module(config, Compute(), nnx.Rngs(0))))[0]

    rows, side = len(pictures), pictures.shape[1] // patch
    grid = pictures.reshape(rows, side, patch, side, patch, 3)
    hidden = jnp.einsum("bypxqc,dcpq->byxd", grid, params["patch"]["weight"]).reshape(rows, side * side, -1)
    hidden = hidden + params["patch"].get("bias", 0.0)
    if "first" in params:
        first = jnp.broadcast_to(params["first"], (rows, 1, config.hidden_size))
        hidden = jnp.concatenate([first, hidden], axis=1)
    hidden = hidden + params["position"]
    if "first_norm" in params:
        hidden = nnx.merge(define(Norm), params["first_norm"])(hidden)
    layer = define(partial(_Layer, activation))
    visible = {"key_mask": jnp.ones(hidden.shape[:2], bool), "backend": "xla"}

    def apply(hidden: jax.Array, state: Params) -> tuple[jax.Array, None]:
        return nnx.merge(layer, state)(hidden, visible, None), None

    hidden, _ = jax.lax.scan(apply, hidden, jax.tree.map(lambda array: array[:depth], params["layers"]))
    return nnx.merge(define(Norm), params["final_norm"])(hidden) if is_normed else hidden
