"""Heads: what reads the encoder for each kind of task, and a model as one function.

Parameters of the heads, plain dicts as the encoder's:

    classify, choice  {"dense", "out"}          tag, span  {"out"}          mlm  {"dense", "norm", "bias" [V]}
    embed             {} for the mean of all tokens; {"pooler", "logit_scale" []} for dual encoders

and ``visual`` beside them where a head looks at pictures: so it is trained and saved with the head, and stays behind
when the encoder travels to the next phase, which is XLM-R as it was.
"""

import math
import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from stilts_jax.errors import ConfigError, nearest
from stilts_jax.model import layers
from stilts_jax.model.config import Compute, EncoderConfig, HeadConfig, Model
from stilts_jax.model.encoder import check_encoder, check_shapes, encode, gelu, init_encoder
from stilts_jax.model.layers import Norm, Params, bind, draw, drop, linear, row_keys, split, table, widen
from stilts_jax.sharding import cut_by_compiler, explicit_mesh

Arrays = dict[str, jax.Array]


class Visual(nnx.Module):
    """Patches or features as tokens: ``{"project", "position" [P, D], "type" [K, D], "norm"}`` for K pictures."""

    def __init__(self, head: HeadConfig, encoder: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        self.project = linear(head.patch_width, encoder.hidden_size, compute=compute, rngs=rngs)
        self.position = table(head.patches, encoder, compute, rngs)
        self.type = table(head.pictures, encoder, compute, rngs)
        self.norm = Norm(encoder, compute, rngs)
        self.head, self.dropout = head, encoder.hidden_dropout

    def __call__(self, batch: Mapping[str, jax.Array], key: Any) -> dict[str, jax.Array]:
        """Returns what ``encode`` takes, of ``visual`` [B, K, P, F] (patches are uint8) and ``visual_mask`` [B, K]."""
        form, head = batch["visual"].shape[1:] if "visual" in batch else (), self.head
        if form[1:] != (head.patches, head.patch_width) or form[0] > head.pictures:
            what = f"This head looks at {head.pictures} picture(s) of {head.patches} patches of {head.patch_width} "
            what += f"numbers, and there are {' x '.join(map(str, form)) or 'none'}."
            fix = "set data.pictures, data.picture_size and data.picture_patch as they were in training, "
            raise ConfigError(what, where="visual", fix=f"{fix}or take the model of a task without pictures")
        patches = batch["visual"].astype(self.project.dtype)
        if batch["visual"].dtype == jnp.uint8:
            patches = (patches - head.pixel_mean) / head.pixel_spread
        hidden = self.project(patches) + self.position[...] + self.type[...][: form[0], None]
        hidden = self.norm(hidden.astype(patches.dtype)).reshape(len(patches), -1, hidden.shape[-1])
        mask = jnp.repeat(batch["visual_mask"] > 0, head.patches, axis=1)
        return {"visual": drop(hidden, self.dropout, key), "visual_mask": mask}


class Head(nnx.Module):
    """The parameters of any head; which ones there are depends on its kind."""

    def __init__(self, head: HeadConfig, encoder: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        width = encoder.hidden_size
        outputs = {"classify": head.num_labels, "choice": 1, "tag": head.num_labels, "span": 2}
        bound = 1 / math.sqrt(width)

        def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any, **_: Any) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        drawn: Any = {} if head.init == "transformers" else {"kernel_init": uniform, "bias_init": uniform}
        dense: Any = partial(linear, width, compute=compute, rngs=rngs, **drawn)
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
            self.logit_scale = nnx.Param(jnp.full([], 100.0, compute.param_dtype))  # cosines are scaled by it


def _pooler(encoder: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> nnx.Linear:
    return linear(encoder.hidden_size, encoder.hidden_size, compute=compute, rngs=rngs)


def init_head(head: HeadConfig, encoder: EncoderConfig, key: jax.Array, dtype: Any = "float32") -> Params:
    return draw(Head, head, encoder, Compute(param_dtype=dtype), key=key)


def init_pooler(encoder: EncoderConfig, key: jax.Array, dtype: Any = "float32") -> Params:
    """Returns a fresh ``encoder/pooler``, which transformers gives every bare model."""
    return draw(_pooler, encoder, Compute(param_dtype=dtype), key=key)


def init_params(
    model: Model, key: jax.Array, encoder: Params | None = None, heads: Mapping[str, Params] | None = None
) -> Params:
    """Returns ``{"encoder", "heads"}`` for training; what is drawn is in ``model.compute.param_dtype``.

        >>> import jax, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("mine", sj.HeadConfig(kind="span")),))
        >>> sorted(sj.init_params(model, jax.random.key(0))["heads"]["mine"]["out"])
        ['bias', 'kernel']

    Heads draw from ``key`` by their names, so that a head starts the same whatever stands beside it. What is not to be
    drawn is given: ``heads`` by name (one that reads texts only may begin one that looks at pictures), and an
    ``encoder``, whose pooler is kept where a head reads it, drawn where it is missing, and left out where none does.
    """
    dtype, given, key = model.compute.param_dtype, heads or {}, layers.typed_key(key)
    named = lambda name: jax.random.fold_in(key, zlib.crc32(name.encode()))  # noqa: E731
    if encoder is not None:  # with any rows: the word table may be cut to those of a phase
        check_encoder(encoder, model.encoder, any_rows=True)
    encoder = dict(init_encoder(model.encoder, named("encoder"), dtype) if encoder is None else encoder)
    given_pooler = encoder.pop("pooler", None)
    if any(head.uses_encoder_pooler for _, head in model.heads):
        encoder["pooler"] = given_pooler or init_pooler(model.encoder, named("pooler"), dtype)
    for name, params in given.items():
        form = model.head(name)  # raises at a name that the model lacks
        wanted = jax.eval_shape(lambda form=form: init_head(form, model.encoder, key))
        fix = "take a head's parameters and its HeadConfig from one place, or leave it out, and it is drawn"
        if "visual" not in params:
            wanted.pop("visual", None)
        check_shapes(params, wanted, f"heads/{name}", fix)
    made = {}
    for name, head in model.heads:
        made[name], looks = given.get(name, {}), head.patches > 0
        if not made[name] or (looks and "visual" not in made[name]):
            drawn = init_head(head, model.encoder, named(f"heads/{name}"), dtype)
            if looks:
                _begin_as_words(drawn["visual"], encoder["embeddings"])
            made[name] = {**drawn, **made[name]}
    return {"encoder": encoder, "heads": made}


def _begin_as_words(visual: Params, embeddings: Mapping[str, Any]) -> None:
    """Lets a patch start as the mean word, varied as words are, so that attention finds nothing strange in it."""

    def mean_word(tables: Mapping[str, Any]) -> jax.Array:
        return jnp.stack([widen(table).mean(0) for name, table in tables.items() if name != "norm"]).sum(0)

    mean = cut_by_compiler(mean_word, embeddings, keep=False).astype(visual["type"].dtype)
    visual["project"]["kernel"] *= mean.std()
    visual["type"] += mean
    if "norm" in embeddings:
        visual["norm"] = jax.tree.map(jnp.asarray, embeddings["norm"])


def abstract_params(model: Model) -> Params:
    """Returns the shapes and dtypes of ``init_params``; costs no memory."""
    return jax.eval_shape(lambda: init_params(model, jax.random.key(0)))


def select_head(params: Mapping[str, Any], head: str) -> Mapping[str, Any]:
    """Returns ``{"encoder", "head"}`` of all parameters; what has no ``heads`` is that part already."""
    if "heads" not in params:
        return params
    if head not in params["heads"]:
        raise ConfigError(f"There is no head {head!r}.", where="heads", fix=nearest(head, params["heads"]))
    return {"encoder": params["encoder"], "head": params["heads"][head]}


def apply_model(
    model: Model, params: Mapping[str, Any], batch: Mapping[str, Any], *, head: str, dropout_key: Any = None
) -> Arrays:
    """Runs the encoder and one head on a batch.

        >>> import jax, numpy as np, stilts_jax as sj
        >>> model = sj.Model(sj.SHAPES["tiny"], (("nli", sj.HeadConfig(kind="classify", num_labels=2)),))
        >>> params = sj.init_params(model, jax.random.key(0))
        >>> part = {"encoder": params["encoder"], "head": params["heads"]["nli"]}
        >>> sj.apply_model(model, part, {"tokens": np.full((4, 8), 5)}, head="nli")["logits"].shape
        (4, 2)

    Args:
        params: all of them, or ``{"encoder", "head"}``.
        batch: ``tokens`` [B, T] ([B, C, T] for choice, with ``choice_mask`` [B, C]); ``pair_tokens`` [B, T]
            where a dual encoder is trained; for mlm ``segments`` and ``positions`` [B, T] and
            ``masked_positions`` [B, M]; ``visual`` [B, K, P, F] and ``visual_mask`` [B, K] where a head looks at
            pictures. Other arrays are left alone.
        dropout_key: of this step, or one for each row [B]; None for no dropout.

    Returns ``logits`` [B, labels or choices] or [B, T, labels] (tag); ``start_logits`` and ``end_logits`` [B, T];
    ``vectors`` [B, D] (with ``pair_vectors`` and ``logit_scale``); or ``features`` [B, M, D] with the ``table`` [V, D]
    and ``bias`` [V] of ``chunked_cross_entropy``. Logits and vectors are at least float32.
    """
    if explicit_mesh(params):
        cut = lambda *given: apply_model(model, *given[:2], head=head, dropout_key=given[2])  # noqa: E731
        return cut_by_compiler(cut, params, batch, dropout_key, keep=False)
    settings, config, compute = model.head(head), model.encoder, model.compute
    params = select_head(params, head)
    keys = split(dropout_key if dropout_key is None else row_keys(dropout_key, len(batch["tokens"])), 4)
    with layers.product_precision(compute):
        module = bind(dict(params["head"]), Head, settings, config, compute)
        seen = module.visual(batch, keys[3]) if settings.patches else {}
        if settings.kind == "mlm":
            seen |= {name: batch[name] for name in ("segments", "positions")}
        first_only = settings.kind in ("classify", "choice")
        options: Any = {"num_layers": settings.layer, "first_only": first_only, **seen}
        run: Any = partial(encode, params["encoder"], config=config, compute=compute, **options)
        hidden = run(batch["tokens"], dropout_key=keys[0])
        if settings.kind == "embed" and "pair_tokens" in batch:
            batch = {**batch, "pair_hidden": run(batch["pair_tokens"], dropout_key=keys[3])}
        return _read(model, settings, module, params["encoder"], batch, hidden, keys)


def _read(
    model: Model, head: HeadConfig, module: Head, encoder: Any, batch: Any, hidden: jax.Array, keys: list[Any]
) -> Arrays:
    if head.kind == "mlm":
        found = jnp.take_along_axis(hidden, batch["masked_positions"][..., None], axis=1)
        features = module.norm(gelu(module.dense(found)))
        return {"features": features, "table": encoder["embeddings"]["word"], "bias": module.bias[...]}
    if head.kind == "embed" and head.pooling == "mean":
        if "pair_tokens" in batch:
            what = "Pairs train a dual encoder, and this head has nothing to train."
            raise ConfigError(what, where="head.pooling", fix="set it to 'pooler'")
        return {"vectors": normalise(pool_mean(hidden, batch["tokens"], model.encoder.pad_id))}
    if head.kind == "embed":
        pool = lambda states: normalise(jnp.tanh(module.pooler(states[..., 0, :])))  # noqa: E731
        if "pair_tokens" not in batch:
            return {"vectors": pool(hidden)}
        pairs = pool(batch["pair_hidden"])
        return {"vectors": pool(hidden), "pair_vectors": pairs, "logit_scale": module.logit_scale[...]}
    if head.kind == "span":
        logits = _logits(module.out, hidden)
        return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
    if head.kind == "tag":
        return {"logits": _logits(module.out, drop(hidden, head.dropout, keys[1]))}
    first = hidden[..., 0, :]
    if head.form == "jiant":
        first = jnp.tanh(bind(dict(encoder["pooler"]), _pooler, model.encoder, model.compute)(first))
    if head.form == "jiant" or head.kind == "classify":
        # ForMultipleChoice alone has no dropout in front: there the dense layer is called the pooler.
        first = drop(first, head.dropout, keys[1])
    logits = _logits(module.out, drop(jnp.tanh(module.dense(first)), head.dropout, keys[2]))
    if head.kind == "classify":
        return {"logits": logits}
    logits = jnp.squeeze(logits, -1)
    return {"logits": jnp.where(batch["choice_mask"] > 0, logits, jnp.finfo(logits.dtype).min / 2)}


def _logits(out: nnx.Linear, values: jax.Array) -> jax.Array:
    """Returns the last product in float32 at least: in bfloat16 logits near 9 are a sixteenth apart, and tie."""
    exact = layers.wide_dtype(values)
    if exact == values.dtype:
        return widen(out(values))
    arrays: Any = out.kernel, out.bias
    kernel, bias = (array[...].astype(kind) for array, kind in zip(arrays, (values.dtype, exact)))
    return jnp.matmul(values, kernel, preferred_element_type=exact) + bias


def pool_mean(hidden: jax.Array, tokens: jax.Array, pad_id: int = 1) -> jax.Array:
    """Returns the mean over all tokens that are not pads, specials included: ``[..., T, D]`` -> ``[..., D]``."""
    real = (tokens != pad_id)[..., None]
    return jnp.where(real, widen(hidden), 0).sum(-2) / jnp.maximum(real.sum(-2), 1)


def normalise(vectors: jax.Array) -> jax.Array:
    """Scales vectors to length one; a zero vector stays zero."""
    vectors = widen(vectors)
    square = (vectors * vectors).sum(-1, keepdims=True)
    # The square root has no gradient at zero.
    return jnp.where(square > 0, vectors * jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)
