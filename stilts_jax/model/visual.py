"""Pictures as tokens behind a text: patches or features, projected, with their places and the number of the picture.

These parameters belong to the head of a task. So they are trained and saved with it, and stay behind when the encoder
travels to the next phase, which is XLM-R as it was.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from stilts_jax.errors import ConfigError
from stilts_jax.model.config import Compute, EncoderConfig, HeadConfig
from stilts_jax.model.dense import linear
from stilts_jax.model.dropout import drop
from stilts_jax.model.encoder import Norm

_normal = nnx.initializers.normal(0.02)


class Visual(nnx.Module):
    """``{"project", "position" [P, D], "type" [K, D], "norm"}`` for at most K pictures of P patches."""

    def __init__(self, head: HeadConfig, encoder: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        def table(rows: int) -> nnx.Param:
            return nnx.Param(
                _normal(rngs.params(), (rows, encoder.hidden_size), jnp.dtype(compute.param_dtype))
            )

        self.project = linear(head.patch_width, encoder.hidden_size, compute=compute, rngs=rngs)
        self.position, self.type = table(head.patches), table(head.pictures)
        self.norm = Norm(encoder, compute, rngs)

    def __call__(self, pictures: jax.Array) -> jax.Array:
        """``[B, K, P, F]`` of patches (uint8) or features -> ``[B, K * P, D]``"""
        patches = pictures.astype(self.project.dtype)
        if pictures.dtype == jnp.uint8:
            patches = patches / 127.5 - 1
        hidden = self.project(patches) + self.position[...] + self.type[...][: pictures.shape[1], None]
        return self.norm(hidden.astype(patches.dtype)).reshape(len(pictures), -1, hidden.shape[-1])


@lru_cache(maxsize=64)
def _definition(head: HeadConfig, encoder: EncoderConfig, compute: Compute) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: Visual(head, encoder, compute, nnx.Rngs(0))))[0]


def see(
    head: HeadConfig,
    encoder: EncoderConfig,
    compute: Compute,
    params: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    dropout_key: jax.Array | None,
) -> dict[str, jax.Array]:
    """Returns what ``encode`` takes of the pictures of a batch: nothing, if the head looks at none.

    Args:
        params: of the head.
        batch: with ``visual`` [B, K, P, F] and ``visual_mask`` [B, K], which pictures there are.
    """
    if not head.patches:
        return {}
    if "visual" not in batch:
        raise ConfigError(
            "This head looks at pictures, and there are none.",
            where="visual",
            fix="give pictures, or take the model of a task without them",
        )
    count, *form = batch["visual"].shape[1:]
    if form != [head.patches, head.patch_width] or count > head.pictures:
        raise ConfigError(
            f"{count} picture(s) of {form[0]} patches of {form[1]} numbers were given; this head looks at "
            f"{head.pictures} of {head.patches} patches of {head.patch_width}.",
            where="visual",
            fix="set data.pictures, data.picture_size and data.picture_patch as they were in training",
        )
    tokens = nnx.merge(_definition(head, encoder, compute), dict(params["visual"]))(batch["visual"])
    mask = jnp.repeat(batch["visual_mask"] > 0, head.patches, axis=1)
    return {"visual": drop(tokens, encoder.hidden_dropout, dropout_key), "visual_mask": mask}
