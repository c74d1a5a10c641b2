"""The encoder: XLM-R (norms after the blocks) and XLM-R XL and XXL (norms before them), layers stacked and scanned.

Flax NNX defines the modules. Parameters cross this file's border as plain nested dicts:

    {"embeddings": {"word" [V, D], "position" [P, D], "type" [1, D], "norm"},
     "layers": {"attention": {"query", "key", "value", "output", "norm"}, "ffn": {"up", "down", "norm"}},
     "final_norm"}

with a leading axis of layers in ``layers``, ``norm`` of the embeddings in XLM-R only, ``final_norm`` in XL and XXL
only, and ``pooler`` beside them where a head reads it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from stilts_jax.errors import ConfigError
from stilts_jax.model.attention import attention, choose_backend
from stilts_jax.model.config import Compute, EncoderConfig
from stilts_jax.model.layers import (
    PRODUCT,
    Norm,
    Params,
    bind,
    draw,
    drop,
    fold_in,
    linear,
    platform_of,
    row_keys,
    table,
)
from stilts_jax.sharding import constrain_batch, gather_rows

# A loop over layers copies every layer's parameters and activations in and out of stacks: on a CPU a fifth of a step of
# 12 layers of 384, three fifths of one of 3 layers of 64; on an H100 37 % of a step of Large, 45 % of one of 12 layers
# of 384, and the stacks take as much memory again. Written out, layers compile three to four times as long, a few of
# them no longer, and all that is rematerialised lives at once.
_WRITTEN_OUT = 24  # layers at most
FEW_LAYERS = 4
_WIDE = 256
_POLICIES = {
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Embeddings(nnx.Module):
    """Word, position and type rows, summed."""

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


def gelu(values: jax.Array) -> jax.Array:
    """The exact GELU."""
    return jax.nn.gelu(values, approximate=False)


class Layer(nnx.Module):
    """One block of the encoder."""

    def __init__(
        self,
        config: EncoderConfig,
        compute: Compute,
        rngs: nnx.Rngs,
        activation: Callable[[jax.Array], jax.Array] = gelu,
    ) -> None:
        self.config, self.compute, self.activation = config, compute, activation
        width, inner = config.hidden_size, config.intermediate_size
        dense, norm = partial(linear, compute=compute, rngs=rngs), partial(Norm, config, compute, rngs)
        projections = {name: dense(width, width) for name in ("query", "key", "value", "output")}
        self.attention = nnx.Dict(**projections, norm=norm())
        self.ffn = nnx.Dict(up=dense(width, inner), down=dense(inner, width), norm=norm())

    def __call__(self, hidden: jax.Array, attend: Any, keys: Any, queries: int | None = None) -> jax.Array:
        """``[B, T, D]`` -> ``[B, T, D]``, or of the first ``queries`` positions only.

        Args:
            attend: ``attention`` of query, key, value and a key for its dropout.
            keys: three for dropout, or None.
        """
        attention_key, output_key, ffn_key = (None,) * 3 if keys is None else keys
        post_norm, rate, part = self.config.post_norm, self.config.hidden_dropout, self.attention
        residual, normed = hidden[:, :queries], hidden if post_norm else part.norm(hidden)
        looking = normed[:, :queries]
        heads = (self.config.num_heads, self.config.head_dim)
        projected = (part.query(looking), part.key(normed), part.value(normed))
        found = attend(*(array.reshape(*array.shape[:-1], *heads) for array in projected), attention_key)
        hidden = residual + drop(part.output(found.reshape(looking.shape)), rate, output_key)
        if post_norm:
            hidden = part.norm(hidden)
        found = hidden if post_norm else self.ffn.norm(hidden)
        found = self.ffn.down(self.activation(self.ffn.up(found)))
        # transformers' XL has no dropout behind the second dense layer.
        return self.ffn.norm(hidden + drop(found, rate, ffn_key)) if post_norm else hidden + found


class Encoder(nnx.Module):
    """Embeddings, the stack of layers (every parameter with a leading axis of layers), XL's last norm."""

    def __init__(self, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        stack = nnx.vmap(lambda rngs: Layer(config, compute, rngs))
        self.embeddings = Embeddings(config, compute, rngs)
        self.layers = nnx.split_rngs(splits=config.num_layers)(stack)(rngs)
        if not config.post_norm:
            self.final_norm = Norm(config, compute, rngs)


def init_encoder(
    config: EncoderConfig,
    key: jax.Array,
    dtype: str = "float32",
    sharding: Callable[[Params], Any] | None = None,
) -> Params:
    """Returns fresh parameters: normal(0, 0.02), zero biases, zero rows for pads, as transformers does.

    ``sharding`` says where each array is born; see ``load_encoder``.
    """
    places = sharding and sharding(abstract_encoder(config))
    return jax.jit(_draw, static_argnums=(0, 2), out_shardings=places)(config, key, dtype)


def _draw(config: EncoderConfig, key: jax.Array, dtype: str) -> Params:
    params = draw(Encoder, config, Compute(param_dtype=dtype), key=key)  # type: ignore[arg-type]
    for name in ("word", "position"):
        params["embeddings"][name] = params["embeddings"][name].at[config.pad_id].set(0)
    return params


def abstract_encoder(config: EncoderConfig, dtype: str = "float32") -> Params:
    """Returns the shapes and dtypes of an encoder's parameters; costs no memory."""
    return jax.eval_shape(lambda: _draw(config, jax.random.key(0), dtype))


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
        visual: [B, P, D] embedded pictures behind the text, which are looked at and not returned. A packed row that
            has a picture holds one sequence.
        visual_mask: bool [B, P], which of them there are.
        dropout_key: of this step, or one for each row of the batch (the first axis); None for no dropout.
    """
    depth, length = config.num_layers if num_layers is None else num_layers, jnp.shape(tokens)[-1]
    _check_input(config, depth, length, segments, positions)
    with jax.default_matmul_precision(compute.matmul_precision or None):
        hidden, attend, keys, backend = _enter(
            params, config, compute, tokens, segments, positions, visual, visual_mask, dropout_key
        )
        first_only = first_only and backend == "xla"  # the fused kernels take as many queries as keys
        found = _run_layers(params, config, compute, depth, all_hidden, first_only, hidden, attend, keys)
    if visual is not None:
        found = found[..., :length, :]
    return found.reshape(*found.shape[:-3], *jnp.shape(tokens)[:-1], *found.shape[-2:])


def _check_input(config: EncoderConfig, depth: int, length: int, segments: Any, positions: Any) -> None:
    if not 0 <= depth <= config.num_layers:
        raise ConfigError(f"Layer {depth} of an encoder of {config.num_layers} layers.", where="num_layers")
    if (segments is None) != (positions is None):
        raise ConfigError("Packed rows have segments and positions, other rows neither.", where="encode")
    if segments is None and length > config.max_length:
        what = f"Rows of {length} tokens; the encoder has positions for {config.max_length}."
        raise ConfigError(what, where="max_length", fix=f"set it to {config.max_length} or less")


def _enter(
    params: Mapping[str, Any],
    config: EncoderConfig,
    compute: Compute,
    tokens: jax.Array,
    segments: jax.Array | None,
    positions: jax.Array | None,
    visual: jax.Array | None,
    visual_mask: jax.Array | None,
    dropout_key: jax.Array | None,
) -> tuple[jax.Array, Any, jax.Array | None, str]:
    """Returns the embedded rows, how they look at each other, the layers' keys, and what computes attention."""
    pad, length = config.pad_id, jnp.shape(tokens)[-1]
    ids = jnp.reshape(tokens, (-1, length))
    if segments is None or positions is None:
        visible = ids != pad
        position_ids = jnp.cumsum(visible, axis=-1, dtype=jnp.int32) * visible + pad
    else:
        visible = jnp.reshape(segments, ids.shape)
        position_ids = jnp.where(visible > 0, jnp.reshape(positions, ids.shape) + pad + 1, pad)
    if visual_mask is not None:
        visible = jnp.concatenate([visible, visual_mask.astype(visible.dtype)], axis=1)
    chosen = choose_backend(
        compute,
        platform_of(compute),
        seq_len=visible.shape[1],
        head_dim=config.head_dim,
        dropout=0.0 if dropout_key is None else config.attention_dropout,
        packed=segments is not None,
        gaps=visual is not None,
    )

    def attend(query: Any, key: Any, value: Any, dropout_key: Any) -> jax.Array:
        options = {"backend": chosen.name, "dropout": config.attention_dropout, "dropout_key": dropout_key}
        return attention(query, key, value, visible, **options)

    if compute.remat == "attention":
        attend = jax.checkpoint(attend, prevent_cse=False)
    embedding_key, keys = None, None
    if dropout_key is not None:
        if jnp.ndim(tokens) > 1:
            dropout_key = row_keys(dropout_key, len(tokens))
        if jnp.ndim(tokens) > 2:  # several sequences a row
            dropout_key = fold_in(dropout_key, jnp.arange(len(ids) // len(tokens))).reshape(-1)
        # All keys at once: folding in the scanned body would be compiled, and run, twice a layer.
        sites = jnp.moveaxis(fold_in(dropout_key, jnp.arange(3 * config.num_layers + 1)), -1, 0)
        embedding_key, keys = sites[0], sites[1:].reshape(config.num_layers, 3, -1)
    hidden = bind(params["embeddings"], Embeddings, config, compute)(ids, position_ids, embedding_key)
    if visual is not None:
        hidden = jnp.concatenate([hidden, visual.astype(hidden.dtype)], axis=1)
    return constrain_batch(hidden), attend, keys, chosen.name


def writes_layers_out(config: EncoderConfig, compute: Compute) -> bool:
    """Whether the program will have the layers one behind the other instead of a loop over their stack."""
    if compute.layers == "loop" or compute.remat != "none" or platform_of(compute) == "tpu":
        return False
    fits = config.num_layers <= (_WRITTEN_OUT if config.hidden_size >= _WIDE else FEW_LAYERS)
    return fits or compute.layers == "written-out"


def take_layers_apart(stack: Any) -> list[Any]:
    """Returns the parameters of each layer: where ``encode`` writes layers out, it takes them in place of the stack."""
    leaves, structure = jax.tree.flatten(stack)
    # The gradient of a split is one concatenation; that of an index would be a sum of stacks.
    cut = [[part[0] for part in jnp.split(jnp.asarray(leaf), leaf.shape[0])] for leaf in leaves]
    return [jax.tree.unflatten(structure, layer) for layer in zip(*cut, strict=True)]


def _run_layers(
    params: Mapping[str, Any],
    config: EncoderConfig,
    compute: Compute,
    depth: int,
    all_hidden: bool,
    first_only: bool,
    hidden: jax.Array,
    attend: Any,
    keys: jax.Array | None,
) -> jax.Array:
    embedded, stacked = hidden, params["layers"]

    def apply(hidden: jax.Array, part: Any, queries: int | None = None) -> tuple[jax.Array, Any]:
        layer = bind(part[0], Layer, config, compute)
        hidden = constrain_batch(layer(hidden, attend, part[1], queries))
        return hidden, hidden if all_hidden else None

    def apply_numbered(hidden: jax.Array, number: jax.Array) -> tuple[jax.Array, Any]:
        return apply(hidden, jax.tree.map(lambda array: jnp.asarray(array)[number], (stacked, keys)))

    if writes_layers_out(config, compute):
        layers = stacked if isinstance(stacked, list) else take_layers_apart(stacked)
        states: Any = []
        for number in range(depth):
            last = first_only and not all_hidden and number == config.num_layers - 1
            part = (layers[number], None if keys is None else keys[number])
            hidden, state = apply(hidden, part, 1 if last else None)
            states.append(state)
    else:
        # Where only the first token is read, nine tenths of the last layer need not be computed: 7 % of 12 layers. On a
        # CPU an index into the stack costs what a scan over it does; its gradient, in training, would cost far more.
        apart = first_only and not all_hidden and keys is None and platform_of(compute) == "cpu"
        apart = apart and 1 < depth == config.num_layers
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
