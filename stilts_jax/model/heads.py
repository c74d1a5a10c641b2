"""Heads: what reads the encoder for each kind of task, and a model as one function.

Parameters of the heads, plain dicts as the encoder's:

    classify, choice  {"dense", "out"}          tag, span  {"out"}          mlm  {"dense", "norm", "bias" [V]}
    embed             {} for the mean of all tokens; {"pooler", "logit_scale" []} for dual encoders

and ``visual`` (see visual.py) beside them where a head looks at pictures.
"""

import math
import zlib
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from stilts_jax.errors import ConfigError
from stilts_jax.model.config import Compute, EncoderConfig, HeadConfig, Model
from stilts_jax.model.dense import linear, wide_dtype
from stilts_jax.model.dropout import drop, row_keys, split
from stilts_jax.model.encoder import Norm, Params, encode, init_encoder
from stilts_jax.model.visual import Visual, see

Arrays = dict[str, jax.Array]

_LOGIT_SCALE = 100.0  # where dual encoders start; cosines are scaled by it


class Head(nnx.Module):
    """The parameters of any head; which ones there are depends on its kind."""

    def __init__(self, head: HeadConfig, encoder: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        width = encoder.hidden_size
        outputs = {"classify": head.num_labels, "choice": 1, "tag": head.num_labels, "span": 2}

        def dense(size: int) -> nnx.Linear:
            return linear(width, size, compute=compute, rngs=rngs, **_initializers(head, width))

        if head.kind in ("classify", "choice", "mlm"):
            self.dense = dense(width)
        if head.kind in outputs:
            self.out = dense(outputs[head.kind])
        if head.kind == "mlm":
            self.norm = Norm(encoder, compute, rngs)
            self.bias = nnx.Param(jnp.zeros(encoder.vocab_size, compute.param_dtype))
        if head.patches:
            self.visual = Visual(head, encoder, compute, rngs)
        if head.kind == "embed" and head.pooling == "pooler":
            self.pooler = dense(width)
            self.logit_scale = nnx.Param(jnp.full([], _LOGIT_SCALE, compute.param_dtype))


class Pooler(nnx.Module):
    """The encoder's own pooler, which transformers gives every bare model."""

    def __init__(self, encoder: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        self.pooler = linear(encoder.hidden_size, encoder.hidden_size, compute=compute, rngs=rngs)


def _initializers(head: HeadConfig, fan_in: int) -> dict[str, Any]:
    if head.init == "transformers":
        return {}

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any, **_: Any) -> jax.Array:
        bound = 1 / math.sqrt(fan_in)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return {"kernel_init": uniform, "bias_init": uniform}


def init_head(head: HeadConfig, encoder: EncoderConfig, key: jax.Array, dtype: str = "float32") -> Params:
    """Returns fresh parameters of a head."""
    return _init(partial(Head, head), encoder, key, dtype)


def init_pooler(encoder: EncoderConfig, key: jax.Array, dtype: str = "float32") -> Params:
    """Returns a fresh ``encoder/pooler``: dense, normal(0, 0.02)."""
    return _init(Pooler, encoder, key, dtype)["pooler"]


def _init(module: Any, encoder: EncoderConfig, key: jax.Array, dtype: str) -> Params:
    compute = Compute(param_dtype=dtype)  # type: ignore[arg-type]
    return nnx.to_pure_dict(nnx.state(module(encoder, compute, nnx.Rngs(key))))


def init_params(
    model: Model,
    key: jax.Array,
    encoder: Params | None = None,
    heads: Mapping[str, Params] | None = None,
) -> Params:
    """Returns ``{"encoder", "heads"}`` for training.

        >>> import jax, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("mine", sj.HeadConfig(kind="span")),))
        >>> sorted(sj.init_params(model, jax.random.key(0))["heads"]["mine"]["out"])
        ['bias', 'kernel']

    Args:
        model: what to make parameters of, in ``model.compute.param_dtype``.
        key: heads draw from it by their names, so that a head starts the same whatever stands beside it.
        encoder: a loaded encoder, or one of an earlier phase; None draws one. Its pooler is kept where a
            head reads it, drawn where it is missing, and left out where none does.
        heads: those that are not to be drawn, by name.
    """
    dtype, given = model.compute.param_dtype, heads or {}
    named = lambda name: jax.random.fold_in(key, zlib.crc32(name.encode()))  # noqa: E731
    if encoder is None:
        encoder = init_encoder(model.encoder, named("encoder"), dtype)
    encoder = dict(encoder)
    pooler = encoder.pop("pooler", None)
    if any(head.uses_encoder_pooler for _, head in model.heads):
        encoder["pooler"] = init_pooler(model.encoder, named("pooler"), dtype) if pooler is None else pooler
    made = {
        name: given[name] if name in given else init_head(head, model.encoder, named(f"heads/{name}"), dtype)
        for name, head in model.heads
    }
    return {"encoder": encoder, "heads": made}


def abstract_params(model: Model) -> Params:
    """Returns the shapes and dtypes of ``init_params``; costs no memory."""
    return jax.eval_shape(lambda: init_params(model, jax.random.key(0)))


@lru_cache(maxsize=64)
def _definition(head: HeadConfig, encoder: EncoderConfig, compute: Compute) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: Head(head, encoder, compute, nnx.Rngs(0))))[0]


@lru_cache(maxsize=64)
def _pooler_definition(encoder: EncoderConfig, compute: Compute) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: Pooler(encoder, compute, nnx.Rngs(0))))[0]


def apply_model(
    model: Model,
    params: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    *,
    head: str,
    dropout_key: jax.Array | None = None,
) -> Arrays:
    """Runs the encoder and one head on a batch.

        >>> import jax, numpy as np, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("nli", sj.HeadConfig(kind="classify", num_labels=2)),))
        >>> params = sj.init_params(model, jax.random.key(0))
        >>> part = {"encoder": params["encoder"], "head": params["heads"]["nli"]}
        >>> sj.apply_model(model, part, {"tokens": np.full((4, 8), 5)}, head="nli")["logits"].shape
        (4, 2)

    Args:
        model: what it is.
        params: ``{"encoder": E, "head": H}``.
        batch: ``tokens`` [B, T] ([B, C, T] for choice, with ``choice_mask`` [B, C]); ``pair_tokens`` [B, T]
            where a dual encoder is trained; for mlm ``segments`` and ``positions`` [B, T] and
            ``masked_positions`` [B, M]; ``visual`` [B, K, P, F] and ``visual_mask`` [B, K] where a head looks at
            pictures. Other arrays are left alone.
        head: its name in the model.
        dropout_key: of this step, or one for each row [B]; None for no dropout.

    Returns:
        ``logits`` [B, labels or choices] or [B, T, labels] (tag); ``start_logits`` and ``end_logits`` [B, T];
        ``vectors`` [B, D] (with ``pair_vectors`` and ``logit_scale``); or ``features`` [B, M, D] with the
        ``table`` [V, D] and ``bias`` [V] that ``chunked_cross_entropy`` takes beside them. Logits and vectors
        are at least float32.
    """
    settings = model.head(head)
    if dropout_key is not None:
        dropout_key = row_keys(dropout_key, len(batch["tokens"]))
    keys = split(dropout_key, 4)
    with jax.default_matmul_precision(model.compute.matmul_precision or None):
        module = nnx.merge(_definition(settings, model.encoder, model.compute), dict(params["head"]))
        seen = see(settings, model.encoder, model.compute, params["head"], batch, keys[3])
        run: Any = partial(_run_encoder, model, settings, params["encoder"], **seen)
        if settings.kind == "mlm":
            hidden = run(batch["tokens"], keys[0], segments=batch["segments"], positions=batch["positions"])
            return _read_masked(module, params["encoder"], hidden, batch["masked_positions"])
        if settings.kind == "embed":
            vectors = {"vectors": _embed(model, settings, module, run, batch["tokens"], keys[0])}
            if "pair_tokens" in batch:
                if settings.pooling != "pooler":
                    raise ConfigError(
                        "Pairs train a dual encoder, and this head has nothing to train.",
                        where=f"model.heads.{head}.pooling",
                        fix="set it to 'pooler'",
                    )
                vectors["pair_vectors"] = _embed(model, settings, module, run, batch["pair_tokens"], keys[3])
                vectors["logit_scale"] = module.logit_scale[...]
            return vectors
        hidden = run(batch["tokens"], keys[0])
        if settings.kind in ("tag", "span"):
            logits = _wide(module.out(drop(hidden, settings.dropout * (settings.kind == "tag"), keys[1])))
            if settings.kind == "tag":
                return {"logits": logits}
            return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
        logits = _classify(model, settings, module, params["encoder"], hidden[..., 0, :], keys[1:3])
        if settings.kind == "classify":
            return {"logits": logits}
        logits = jnp.squeeze(logits, -1)
        return {"logits": jnp.where(batch["choice_mask"] > 0, logits, jnp.finfo(logits.dtype).min / 2)}


def _run_encoder(
    model: Model, head: HeadConfig, params: Mapping[str, Any], tokens: Any, key: Any, **packing: Any
) -> jax.Array:
    return encode(
        params,
        tokens,
        config=model.encoder,
        compute=model.compute,
        num_layers=head.layer,
        first_only=head.kind in ("classify", "choice"),
        dropout_key=key,
        **packing,
    )


def _classify(
    model: Model, head: HeadConfig, module: Head, encoder: Mapping[str, Any], first: jax.Array, keys: Any
) -> jax.Array:
    inner, outer = keys
    if head.form == "jiant":
        pooler = nnx.merge(
            _pooler_definition(model.encoder, model.compute), {"pooler": dict(encoder["pooler"])}
        )
        first = jnp.tanh(pooler.pooler(first))
    if head.form == "jiant" or head.kind == "classify":
        # ForMultipleChoice alone has no dropout in front: there the dense layer is called the pooler.
        first = drop(first, head.dropout, inner)
    return _wide(module.out(drop(jnp.tanh(module.dense(first)), head.dropout, outer)))


def _embed(model: Model, head: HeadConfig, module: Head, run: Any, tokens: Any, key: Any) -> jax.Array:
    hidden = run(tokens, key)
    if head.pooling == "pooler":
        return normalise(jnp.tanh(module.pooler(hidden[..., 0, :])))
    return normalise(pool_mean(hidden, tokens, model.encoder.pad_id))


def pool_mean(hidden: jax.Array, tokens: jax.Array, pad_id: int = 1) -> jax.Array:
    """Returns the mean over all tokens that are not pads, specials included: ``[..., T, D]`` -> ``[..., D]``."""
    real = (tokens != pad_id)[..., None]
    total = jnp.where(real, _wide(hidden), 0).sum(-2)
    return total / jnp.maximum(real.sum(-2), 1)


def normalise(vectors: jax.Array) -> jax.Array:
    """Scales vectors to length one; a zero vector stays zero."""
    vectors = _wide(vectors)
    square = (vectors * vectors).sum(-1, keepdims=True)
    # The square root has no gradient at zero.
    return jnp.where(square > 0, vectors * jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)


def _read_masked(module: Head, encoder: Mapping[str, Any], hidden: jax.Array, places: jax.Array) -> Arrays:
    found = jnp.take_along_axis(hidden, places[..., None], axis=1)
    features = module.norm(jax.nn.gelu(module.dense(found), approximate=False))
    return {"features": features, "table": encoder["embeddings"]["word"], "bias": module.bias[...]}


def _wide(values: jax.Array) -> jax.Array:
    return values.astype(wide_dtype(values))
