"""The encoder: XLM-R (norms after the blocks) and XLM-R XL and XXL (norms before them), layers stacked and scanned.

Flax NNX defines the modules. Parameters cross this file's border as plain nested dicts:

    {"embeddings": {"word" [V, D], "position" [P, D], "type" [1, D], "norm"},
     "layers": {"attention": {"query", "key", "value", "output", "norm"}, "ffn": {"up", "down", "norm"}},
     "final_norm"}

with a leading axis of layers in ``layers``, ``norm`` of the embeddings in XLM-R only, ``final_norm`` in XL and XXL
only, and ``pooler`` beside them where a head reads it.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from stilts_jax.chips import compiler_options, in_program
from stilts_jax.errors import ConfigError
from stilts_jax.model import layers
from stilts_jax.model.config import Compute, EncoderConfig
from stilts_jax.model.layers import Norm, Params, bind, draw, drop, fold_in, linear, row_keys, table
from stilts_jax.sharding import constrain_batch, gather_rows, parameter_paths

# A loop over layers copies every layer's parameters and activations in and out of stacks: on a CPU a fifth of a step of
# 12 layers of 384, three fifths of one of 3 layers of 64, on an H100 two fifths, and the stacks take as much memory
# again. Written out, layers compile three to four times as long, and all that is rematerialised lives at once.
_WRITTEN_OUT = 24  # layers at most
_PICTURES_FROM = 2**15  # the number of a picture's first place for dropout; no text is that long
FEW_LAYERS = 4
_WIDE = 256
gelu = partial(jax.nn.gelu, approximate=False)
_TOGETHER = "take both from one load_encoder: loaded.params and loaded.config"
_POLICIES = {
    "dots": jax.checkpoint_policies.save_only_these_names(layers.PRODUCT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Embeddings(nnx.Module):
    def __init__(self, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        self.config, self.compute = config, compute
        self.word = table(config.vocab_size, config, compute, rngs)
        self.position = table(config.max_positions, config, compute, rngs)
        self.type = table(config.type_vocab_size, config, compute, rngs)
        if config.post_norm:
            self.norm = Norm(config, compute, rngs)

    def __call__(self, tokens: jax.Array, position_ids: jax.Array, key: jax.Array | None) -> jax.Array:
        """``[B, T]`` -> ``[B, T, D]``"""
        dtype = jnp.dtype(self.compute.dtype)
        words = gather_rows(jnp.asarray(self.word[...]), tokens).astype(dtype)
        positions = jnp.take(jnp.asarray(self.position[...]), position_ids, axis=0).astype(dtype)
        # The type vocabulary of XLM-R has one row: there are no sentence A and B.
        hidden = words + self.type[...][0].astype(dtype) + positions
        return drop(self.norm(hidden) if self.config.post_norm else hidden, self.config.hidden_dropout, key)


class Layer(nnx.Module):
    def __init__(self, config: EncoderConfig, compute: Compute, rngs: Any, activation: Any = gelu) -> None:
        self.config, self.compute, self.activation = config, compute, activation
        width, inner = config.hidden_size, config.intermediate_size
        dense, norm = partial(linear, compute=compute, rngs=rngs), partial(Norm, config, compute, rngs)
        projections = {name: dense(width, width) for name in ("query", "key", "value", "output")}
        self.attention = nnx.Dict(**projections, norm=norm())
        self.ffn = nnx.Dict(up=dense(width, inner), down=dense(inner, width), norm=norm())

    def __call__(
        self, hidden: jax.Array, attend: Any, keys: Any, queries: int | None = None, places: Any = None
    ) -> jax.Array:
        """``[B, T, D]`` -> ``[B, T, D]``, or of the first ``queries`` positions only.

        ``attend`` is ``attention`` of query, key and value; ``keys`` are three for dropout, or None; ``places`` number
        positions for dropout, where they are not counted from 0.
        """
        attention_key, output_key, ffn_key = (None,) * 3 if keys is None else keys
        post_norm, rate, part = self.config.post_norm, self.config.hidden_dropout, self.attention
        residual, normed = hidden[:, :queries], hidden if post_norm else part.norm(hidden)
        looking, heads = normed[:, :queries], (self.config.num_heads, self.config.head_dim)
        projected = (part.query(looking), part.key(normed), part.value(normed))
        by_head = (array.reshape(*array.shape[:-1], *heads) for array in projected)
        found = attend(*by_head, dropout_key=attention_key)
        hidden = residual + drop(part.output(found.reshape(looking.shape)), rate, output_key, places)
        if post_norm:
            hidden = part.norm(hidden)
        found = hidden if post_norm else self.ffn.norm(hidden)
        found = self.ffn.down(self.activation(self.ffn.up(found)))
        # transformers' XL has no dropout behind the second dense layer.
        return self.ffn.norm(hidden + drop(found, rate, ffn_key, places)) if post_norm else hidden + found


class Encoder(nnx.Module):
    """Embeddings, the stack of layers (every parameter with a leading axis of layers), XL's last norm."""

    def __init__(self, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        stack = nnx.vmap(lambda rngs: Layer(config, compute, rngs))
        self.embeddings = Embeddings(config, compute, rngs)
        self.layers = nnx.split_rngs(splits=config.num_layers)(stack)(rngs)
        if not config.post_norm:
            self.final_norm = Norm(config, compute, rngs)


def init_encoder(
    config: EncoderConfig, key: jax.Array, dtype: str = "float32", sharding: Callable | None = None
) -> Params:
    """Returns fresh parameters: normal(0, 0.02), zero biases and rows for pads, born as ``sharding`` says."""
    places = sharding and sharding(abstract_encoder(config))
    options: Any = {"out_shardings": places, "compiler_options": compiler_options()}
    return jax.jit(_draw, static_argnums=(0, 2), **options)(config, key, dtype)


def _draw(config: EncoderConfig, key: jax.Array, dtype: Any) -> Params:
    params = draw(Encoder, config, Compute(param_dtype=dtype), key=key)
    for name in ("word", "position"):
        params["embeddings"][name] = params["embeddings"][name].at[config.pad_id].set(0)
    return params


def abstract_encoder(config: EncoderConfig) -> Params:
    """Returns the shapes of an encoder's parameters; costs no memory."""
    return jax.eval_shape(lambda: _draw(config, jax.random.key(0), "float32"))


def check_encoder(params: Mapping[str, Any], config: EncoderConfig, *, any_rows: bool = False) -> None:
    """Raises where parameters are not those of ``config``, with a ``pooler`` or ``any_rows`` of words if need be."""
    if not isinstance(params, Mapping):
        what = f"{type(params).__name__} is no tree of parameters."
        raise ConfigError(what, where="encoder", fix=_TOGETHER)
    rows = "embeddings/word" if any_rows else ""
    check_shapes({**params, "pooler": {}}, abstract_encoder(config), "encoder", _TOGETHER, any_rows=rows)


def check_shapes(params: Any, abstract: Any, where: str, fix: str, *, any_rows: str = "") -> None:
    """Raises where parameters have not the shapes of ``abstract``; the array ``any_rows`` may have fewer rows."""
    wanted = {path: leaf.shape for path, leaf in parameter_paths(abstract)}
    found = {path: leaf.shape for path, leaf in parameter_paths(params)}
    if any_rows in wanted and any_rows in found:
        wanted[any_rows] = (min(found[any_rows][0], wanted[any_rows][0]), *wanted[any_rows][1:])
    for path in sorted(wanted.keys() | found.keys()):
        has, wants = found.get(path, "(missing)"), wanted.get(path, "no such array")
        if has != wants:
            what = f"It has the shape {has}; the model wants {wants}."
            raise ConfigError(what, where=f"{where}: {path}", fix=fix)


def encode(
    params: Mapping[str, Any],
    tokens: jax.Array,
    *,
    config: EncoderConfig,
    compute: Compute,
    segments: jax.Array | None = None,
    positions: jax.Array | None = None,
    num_layers: int | None = None,
    all_hidden: bool = False,
    first_only: bool = False,
    visual: jax.Array | None = None,
    visual_mask: jax.Array | None = None,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Runs the encoder; returns the last hidden state [..., T, D].

        >>> import jax, numpy as np, stilts_jax as sj
        >>> shape = sj.SHAPES["tiny"]
        >>> params = sj.init_params(sj.Model(shape), jax.random.key(0))["encoder"]
        >>> sj.encode(params, np.full((4, 8), 5), config=shape, compute=sj.Compute()).shape
        (4, 8, 32)

    Args:
        tokens: int32 [..., T], pads (``config.pad_id``) behind each row's tokens.
        segments: int32 [..., T] for packed rows: 1-based numbers of the sequences in a row, 0 is padding.
        positions: int32 [..., T] for packed rows: 0-based in each segment.
        num_layers: stop after so many layers (0: the embeddings). Meant for inference: its gradient is slow.
        all_hidden: return all states, [num_layers + 1, ..., T, D]. XL's last norm belongs to its last layer: states
            before it are the raw residual stream, as transformers counts them.
        first_only: only the first token will be read, so that T may be 1 in the result.
        visual: [B, P, D] embedded pictures behind the text (of one sequence), which are looked at and not returned;
            ``visual_mask`` bool [B, P] says which there are.
        dropout_key: of this step, or one for each row of the batch (the first axis); None for no dropout.
    """
    depth, length = config.num_layers if num_layers is None else num_layers, jnp.shape(tokens)[-1]
    config.check_layer(depth)
    with layers.product_precision(compute):
        ids = jnp.reshape(tokens, (-1, length))
        visible, position_ids, places = _number_places(config, ids, segments, positions, visual_mask)
        rate = 0.0 if dropout_key is None else config.attention_dropout
        form: Any = {"seq_len": visible.shape[1], "head_dim": config.head_dim, "dropout": rate}
        form |= {"packed": segments is not None, "gaps": visual is not None}
        platform = layers.platform_of(compute)
        backend = layers.choose_backend(compute, platform, **form).name
        options: Any = {"dropout": rate, "places": places, "divide_late": platform == "cpu"}
        attend = partial(layers.attention, visible=visible, backend=backend, **options)
        embedding_key, keys = _dropout_keys(dropout_key, jnp.shape(tokens), config.num_layers)
        hidden = bind(params["embeddings"], Embeddings, config, compute)(ids, position_ids, embedding_key)
        if visual is not None:
            hidden = jnp.concatenate([hidden, visual.astype(hidden.dtype)], axis=1)
        # The fused kernels take as many queries as keys.
        first_only = first_only and backend == "xla" and not all_hidden and depth == config.num_layers
        run = partial(_run_layers, params, config, compute, depth, first_only, all_hidden)
        found = run(constrain_batch(hidden), attend, keys, places)
    if visual is not None:
        found = found[..., :length, :]
    return found.reshape(*found.shape[:-3], *jnp.shape(tokens)[:-1], *found.shape[-2:])


def _number_places(config: EncoderConfig, ids: Any, segments: Any, positions: Any, visual_mask: Any) -> tuple:
    """Returns what ``attention`` may look at, rows of the position table, and numbers of places for dropout."""
    pad, length = config.pad_id, ids.shape[1]
    if (segments is None) != (positions is None):
        raise ConfigError("Packed rows have segments and positions, other rows neither.", where="encode")
    if segments is not None:
        visible = jnp.reshape(segments, ids.shape)
        rows = jnp.where(visible > 0, jnp.reshape(positions, ids.shape) + pad + 1, pad)
    elif length > config.max_length:
        what = f"Rows of {length} tokens; the encoder has positions for {config.max_length}."
        raise ConfigError(what, where="max_length", fix=f"set it to {config.max_length} or less")
    else:
        visible = ids != pad
        rows = jnp.cumsum(visible, axis=-1, dtype=jnp.int32) * visible + pad
    if visual_mask is None:
        return visible, rows, None
    visible = jnp.concatenate([visible, visual_mask.astype(visible.dtype)], axis=1)
    places = jnp.arange(visible.shape[1], dtype=jnp.uint32)
    # Those of pictures do not depend on how far the text before them is padded.
    return visible, rows, jnp.where(places < length, places, places - length + _PICTURES_FROM)


def _dropout_keys(key: jax.Array | None, shape: tuple[int, ...], num_layers: int) -> tuple[Any, Any]:
    """Returns the keys of the embeddings, and three a layer."""
    if key is None:
        return None, None
    if len(shape) > 1:
        key = row_keys(key, shape[0])
    if len(shape) > 2:  # several sequences a row
        key = fold_in(key, jnp.arange(math.prod(shape[1:-1]))).reshape(-1)
    # All keys at once: folding in the scanned body would be compiled, and run, twice a layer.
    sites = jnp.moveaxis(fold_in(key, jnp.arange(3 * num_layers + 1)), -1, 0)
    return sites[0], sites[1:].reshape(num_layers, 3, -1)


def writes_layers_out(config: EncoderConfig, compute: Compute) -> bool:
    """Whether the program will have the layers one behind the other instead of a loop over their stack."""
    looped = compute.layers == "loop" or layers.platform_of(compute) == "tpu"
    if looped or compute.remat not in ("none", "auto"):
        return False
    fits = config.num_layers <= (_WRITTEN_OUT if config.hidden_size >= _WIDE else FEW_LAYERS)
    return fits or compute.layers == "written-out"


def _unstack(stacked: Any) -> list[Any]:
    """Returns the parameters of each layer."""
    leaves, structure = jax.tree.flatten(stacked)
    # The gradient of a split is one concatenation; that of an index would be a sum of stacks.
    cut = [[part[0] for part in jnp.split(jnp.asarray(leaf), leaf.shape[0])] for leaf in leaves]
    return [jax.tree.unflatten(structure, layer) for layer in zip(*cut, strict=True)]


def _run_layers(
    params: Mapping[str, Any],
    config: EncoderConfig,
    compute: Compute,
    depth: int,
    first_only: bool,
    all_hidden: bool,
    hidden: jax.Array,
    attend: Any,
    keys: jax.Array | None,
    places: jax.Array | None,
) -> jax.Array:
    embedded, stacked = hidden, params["layers"]
    has = len(stacked if isinstance(stacked, list) else jax.tree.leaves(stacked)[0])
    if has != config.num_layers:  # fewer would be run, or the last one several times
        what, fix = f"Parameters of {has} layers; the model has {config.num_layers}.", _TOGETHER
        raise ConfigError(what, where="encoder: layers", fix=fix)
    if compute.remat == "attention":
        attend = jax.checkpoint(attend, prevent_cse=False)

    def apply(hidden: jax.Array, part: Any, queries: int | None = None) -> tuple[jax.Array, Any]:
        layer = bind(part[0], Layer, config, compute)
        hidden = constrain_batch(layer(hidden, attend, part[1], queries, places))
        return hidden, hidden if all_hidden else None

    def apply_numbered(hidden: jax.Array, number: jax.Array) -> tuple[jax.Array, Any]:
        return apply(hidden, jax.tree.map(lambda array: jnp.asarray(array)[number], (stacked, keys)))

    if writes_layers_out(config, compute):
        stacked = stacked if isinstance(stacked, list) else _unstack(stacked)  # predictions have them apart
        # Many layers are traced once; two or three would take longer, and outside of a program each call would compile.
        once: Any = jax.jit(apply, static_argnums=2) if depth > FEW_LAYERS and in_program() else apply
        states: Any = []
        for number in range(depth):
            part = (stacked[number], None if keys is None else keys[number])
            hidden, state = once(hidden, part, 1 if first_only and number == depth - 1 else None)
            states.append(state)
    else:
        # Where only the first token is read, nine tenths of the last layer need not be computed: 7 % of 12 layers. On a
        # CPU an index into the stack costs what a scan over it does; its gradient, in training, would cost far more.
        apart = first_only and keys is None and layers.platform_of(compute) == "cpu" and depth > 1
        # Scanning a slice of the stack would copy the slice, 25 GB of it for XXL.
        whole = depth == config.num_layers and not apart
        body: Any = apply if whole else apply_numbered
        if compute.remat in _POLICIES:
            # Inside a loop nothing can be merged over the border of a step: what prevents it would only cost time.
            body = jax.checkpoint(body, policy=_POLICIES[compute.remat], prevent_cse=False)
        hidden, states = jax.lax.scan(body, hidden, (stacked, keys) if whole else jnp.arange(depth - apart))
        if apart:
            hidden, _ = apply(hidden, (jax.tree.map(lambda array: array[depth - 1], stacked), None), 1)
    is_normed = depth == config.num_layers and not config.post_norm
    if is_normed:
        hidden = bind(params["final_norm"], Norm, config, compute)(hidden)
    if not all_hidden:
        return hidden
    states = jnp.asarray(states, hidden.dtype).reshape(depth, *hidden.shape)
    found = jnp.concatenate([embedded[None], states])
    return found.at[-1].set(hidden) if is_normed else found
