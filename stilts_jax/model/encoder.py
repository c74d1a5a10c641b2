"""The encoder: XLM-R (norms after the blocks) and XLM-R XL and XXL (norms before them), layers stacked and scanned.

Flax NNX defines the modules. Parameters cross this file's border as plain nested dicts:

    {"embeddings": {"word" [V, D], "position" [P, D], "type" [1, D], "norm"},
     "layers": {"attention": {"query", "key", "value", "output", "norm"}, "ffn": {"up", "down", "norm"}},
     "final_norm"}

with a leading axis of layers in ``layers``, ``norm`` of the embeddings in XLM-R only, ``final_norm`` in XL and XXL
only, and ``pooler`` beside them where a head reads it.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from stilts_jax.errors import ConfigError
from stilts_jax.model.attention import attention, choose_backend
from stilts_jax.model.config import Compute, EncoderConfig
from stilts_jax.model.dense import PRODUCT, linear
from stilts_jax.model.dropout import drop, fold_in, row_keys
from stilts_jax.sharding import constrain_batch, gather_rows

Params = dict[str, Any]

_normal = nnx.initializers.normal(0.02)

# On a CPU a loop over layers copies every layer's parameters and activations in and out of stacks, a fifth of a
# step. Written out, the program compiles twice as long, which narrow toy encoders never get back, and all that is
# rematerialised lives at once.
_WRITTEN_OUT = 24  # layers at most
_WIDE = 256


class Norm(nnx.LayerNorm):
    """Layer normalisation in float32 or better; gives back the dtype that it got."""

    def __init__(self, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        super().__init__(
            config.hidden_size,
            epsilon=config.layer_norm_eps,
            dtype=jnp.promote_types(compute.dtype, jnp.float32),
            param_dtype=jnp.dtype(compute.param_dtype),
            # E[x^2] - E[x]^2 loses everything where the mean is large, as in XL's residual stream.
            use_fast_variance=False,
            rngs=rngs,
        )

    def __call__(self, inputs: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Normalises the last axis."""
        return super().__call__(inputs, mask=mask).astype(inputs.dtype)


class Embeddings(nnx.Module):
    """Word, position and type rows, summed."""

    def __init__(self, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        def table(rows: int) -> nnx.Param:
            return nnx.Param(
                _normal(rngs.params(), (rows, config.hidden_size), jnp.dtype(compute.param_dtype))
            )

        self.config, self.compute = config, compute
        self.word = table(config.vocab_size)
        self.position = table(config.max_positions)
        self.type = table(config.type_vocab_size)
        if config.post_norm:
            self.norm = Norm(config, compute, rngs)

    def __call__(self, tokens: jax.Array, position_ids: jax.Array, key: jax.Array | None) -> jax.Array:
        """``[B, T]`` -> ``[B, T, D]``"""
        dtype = jnp.dtype(self.compute.dtype)
        words = gather_rows(jnp.asarray(self.word[...]), tokens).astype(dtype)
        positions = jnp.take(jnp.asarray(self.position[...]), position_ids, axis=0).astype(dtype)
        # The type vocabulary of XLM-R has one row: there are no sentence A and B.
        hidden = words + self.type[...][0].astype(dtype) + positions
        if self.config.post_norm:
            hidden = self.norm(hidden)
        return drop(hidden, self.config.hidden_dropout, key)


class SelfAttention(nnx.Module):
    """Multi-head attention with its projections; the residual sum is the layer's."""

    def __init__(self, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        width = config.hidden_size
        self.config, self.compute = config, compute
        self.query = linear(width, width, compute=compute, rngs=rngs)
        self.key = linear(width, width, compute=compute, rngs=rngs)
        self.value = linear(width, width, compute=compute, rngs=rngs)
        self.output = linear(width, width, compute=compute, rngs=rngs)
        self.norm = Norm(config, compute, rngs)

    def __call__(
        self, hidden: jax.Array, visible: Mapping[str, Any], keys: Any, queries: int | None = None
    ) -> jax.Array:
        """``[B, T, D]`` -> ``[B, T, D]``.

        Args:
            visible: the mask or segments, and the backend.
            queries: only so many positions of each row look; None: all.
        """
        probability_key, output_key = keys
        attend: Callable[..., jax.Array] = partial(
            attention, **visible, dropout=self.config.attention_dropout, dropout_key=probability_key
        )
        if self.compute.remat == "attention":
            attend = jax.checkpoint(attend, prevent_cse=False)
        looking = hidden[:, :queries]
        projected = (self.query(looking), self.key(hidden), self.value(hidden))
        heads = (self.config.num_heads, self.config.head_dim)
        found = attend(*(array.reshape(*array.shape[:-1], *heads) for array in projected))
        return drop(self.output(found.reshape(looking.shape)), self.config.hidden_dropout, output_key)


class FeedForward(nnx.Module):
    """Two dense layers with an exact GELU between them; the residual sum is the layer's."""

    def __init__(self, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        self.up = linear(config.hidden_size, config.intermediate_size, compute=compute, rngs=rngs)
        self.down = linear(config.intermediate_size, config.hidden_size, compute=compute, rngs=rngs)
        self.norm = Norm(config, compute, rngs)

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """``[B, T, D]`` -> ``[B, T, D]``"""
        return self.down(jax.nn.gelu(self.up(hidden), approximate=False))


class Layer(nnx.Module):
    """One block of the encoder."""

    def __init__(self, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        self.config = config
        self.attention = SelfAttention(config, compute, rngs)
        self.ffn = FeedForward(config, compute, rngs)

    def __call__(
        self, hidden: jax.Array, visible: Mapping[str, Any], keys: Any, queries: int | None = None
    ) -> jax.Array:
        """``[B, T, D]`` -> ``[B, T, D]``, or of the first ``queries`` positions only.

        Args:
            keys: three for dropout, or None.
        """
        *attention_keys, ffn_key = (None,) * 3 if keys is None else keys
        attend = partial(self.attention, visible=visible, keys=attention_keys, queries=queries)
        if self.config.post_norm:
            hidden = self.attention.norm(hidden[:, :queries] + attend(hidden))
            down = drop(self.ffn(hidden), self.config.hidden_dropout, ffn_key)
            return self.ffn.norm(hidden + down)
        hidden = hidden[:, :queries] + attend(self.attention.norm(hidden))
        # transformers' XL has no dropout behind the second dense layer.
        return hidden + self.ffn(self.ffn.norm(hidden))


class Encoder(nnx.Module):
    """Embeddings, the stack of layers (every parameter with a leading axis of layers), XL's last norm."""

    def __init__(self, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap
        def stack(rngs: nnx.Rngs) -> Layer:
            return Layer(config, compute, rngs)

        self.embeddings = Embeddings(config, compute, rngs)
        self.layers = stack(rngs)
        if not config.post_norm:
            self.final_norm = Norm(config, compute, rngs)


@lru_cache(maxsize=256)
def _definition(module: type[nnx.Module], config: EncoderConfig, compute: Compute) -> nnx.GraphDef:
    """A part of the encoder without its parameters; costs no memory."""
    return nnx.split(nnx.eval_shape(lambda: module(config, compute, nnx.Rngs(0))))[0]  # type: ignore[call-arg]


def init_encoder(
    config: EncoderConfig,
    key: jax.Array,
    dtype: str = "float32",
    sharding: Callable[[Params], Any] | None = None,
) -> Params:
    """Returns fresh parameters: normal(0, 0.02), zero biases, zero rows for pads, as transformers does.

    Args:
        config: the encoder's shape.
        key: to draw from.
        dtype: of the parameters.
        sharding: from abstract parameters to their shardings, where each array is born; see ``load_encoder``.
    """
    draw = jax.jit(
        _draw, static_argnums=(0, 2), out_shardings=sharding and sharding(abstract_encoder(config))
    )
    return draw(config, key, dtype)


def _draw(config: EncoderConfig, key: jax.Array, dtype: str) -> Params:
    encoder = Encoder(config, Compute(param_dtype=dtype), nnx.Rngs(key))  # type: ignore[arg-type]
    params = nnx.to_pure_dict(nnx.state(encoder))
    for table in ("word", "position"):
        params["embeddings"][table] = params["embeddings"][table].at[config.pad_id].set(0)
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
    """Runs the encoder.

        >>> import jax, numpy as np, stilts_jax as sj
        >>> shape = sj.SHAPES["tiny"]
        >>> params = sj.init_params(sj.Model(shape), jax.random.key(0))["encoder"]
        >>> sj.encode(params, np.full((4, 8), 5), config=shape, compute=sj.Compute()).shape
        (4, 8, 32)

    Args:
        params: the encoder's parameters; see the head of this file.
        tokens: int32 [..., T], pads (``config.pad_id``) behind each row's tokens.
        config: its shape.
        compute: how it is computed.
        segments: int32 [..., T] for packed rows: 1-based numbers of the sequences in a row, 0 is padding.
        positions: int32 [..., T] for packed rows: 0-based in each segment.
        num_layers: stop after so many layers (static; 0 gives the embeddings). Meant for inference: the
            gradient of an encoder that stopped early is slow.
        all_hidden: return all hidden states, the embeddings first.
        first_only: only the first token of each row will be read, so the last layer need not compute the rest.
            T may then be 1 in the result.
        visual: [B, P, D] embedded pictures, which stand behind the text and are looked at; the text's states alone
            are returned. A packed row that has a picture holds one sequence.
        visual_mask: bool [B, P], which of them there are.
        dropout_key: of this step, or one for each row of the batch (the first axis); None for no dropout.

    Returns:
        The last hidden state [..., T, D], or [num_layers + 1, ..., T, D]. XL's last norm belongs to its last
        layer: states before it are the raw residual stream, as transformers counts them.
    """
    depth = config.num_layers if num_layers is None else num_layers
    length = jnp.shape(tokens)[-1]
    _check_input(config, depth, length, segments, positions)
    flat = lambda array: jnp.reshape(array, (-1, length))  # noqa: E731
    ids = flat(tokens)
    if segments is None:
        real = ids != config.pad_id
        visible: dict[str, Any] = {"key_mask": real}
        position_ids = jnp.cumsum(real, axis=-1, dtype=jnp.int32) * real + config.pad_id
    else:
        visible = {"segments": flat(segments)}
        position_ids = jnp.where(visible["segments"] > 0, flat(positions) + config.pad_id + 1, config.pad_id)
    if visual is not None:
        name = next(iter(visible))
        visible[name] = jnp.concatenate([visible[name], visual_mask.astype(visible[name].dtype)], axis=1)  # type: ignore[union-attr]
    visible["backend"] = choose_backend(
        compute,
        compute.platform or jax.default_backend(),
        seq_len=length if visual is None else length + visual.shape[1],
        head_dim=config.head_dim,
        dropout=0.0 if dropout_key is None else config.attention_dropout,
        packed=segments is not None,
        gaps=visual is not None,
    ).name
    if dropout_key is not None and jnp.ndim(tokens) > 1:
        dropout_key = row_keys(dropout_key, len(tokens))
        if jnp.ndim(tokens) > 2:  # several sequences a row
            dropout_key = fold_in(dropout_key, jnp.arange(len(ids) // len(tokens))).reshape(-1)
    run = partial(_run, params, config, compute, depth, all_hidden, first_only and not all_hidden)
    with jax.default_matmul_precision(compute.matmul_precision or None):
        found = run(ids, position_ids, visible, visual, dropout_key)
    if visual is not None:
        found = found[..., :length, :]
    return found.reshape(*found.shape[:-3], *jnp.shape(tokens)[:-1], *found.shape[-2:])


def _check_input(config: EncoderConfig, depth: int, length: int, segments: Any, positions: Any) -> None:
    if not 0 <= depth <= config.num_layers:
        raise ConfigError(f"Layer {depth} of an encoder of {config.num_layers} layers.", where="num_layers")
    if (segments is None) != (positions is None):
        raise ConfigError("Packed rows have segments and positions, other rows neither.", where="encode")
    if segments is None and length > config.max_length:
        raise ConfigError(
            f"Rows of {length} tokens; the encoder has positions for {config.max_length}.",
            where="max_length",
            fix=f"set it to {config.max_length} or less",
        )


def writes_layers_out(config: EncoderConfig, compute: Compute) -> bool:
    """Whether the program will have the layers one behind the other instead of a loop over their stack."""
    on_cpu = (compute.platform or jax.default_backend()) == "cpu"
    fits = config.hidden_size >= _WIDE and config.num_layers <= _WRITTEN_OUT
    return on_cpu and compute.remat == "none" and fits


def take_layers_apart(stack: Any) -> list[Any]:
    """Returns the parameters of each layer; an encoder takes them in place of their stack.

    Where layers are written out, a program that gets the stack first copies each layer out of it: up to a
    twentieth of a prediction's time, and more than half of what there is to compile.
    """
    leaves, structure = jax.tree.flatten(stack)
    # The gradient of a split is one concatenation; that of an index would be a sum of stacks.
    cut = [[part[0] for part in jnp.split(jnp.asarray(leaf), leaf.shape[0])] for leaf in leaves]
    return [jax.tree.unflatten(structure, layer) for layer in zip(*cut, strict=True)]


def _run(
    params: Mapping[str, Any],
    config: EncoderConfig,
    compute: Compute,
    depth: int,
    all_hidden: bool,
    first_only: bool,
    tokens: jax.Array,
    position_ids: jax.Array,
    visible: Mapping[str, Any],
    visual: jax.Array | None,
    dropout_key: jax.Array | None,
) -> jax.Array:
    embedding_key, keys = None, None
    if dropout_key is not None:
        # All keys at once: folding in the scanned body would be compiled, and run, twice a layer.
        sites = jnp.moveaxis(fold_in(dropout_key, jnp.arange(3 * config.num_layers + 1)), -1, 0)
        embedding_key, keys = sites[0], sites[1:].reshape(config.num_layers, 3, -1)
    embeddings = nnx.merge(_definition(Embeddings, config, compute), params["embeddings"])
    hidden = embeddings(tokens, position_ids, embedding_key)
    if visual is not None:
        hidden = jnp.concatenate([hidden, visual.astype(hidden.dtype)], axis=1)
    embedded = hidden = constrain_batch(hidden)
    stacked, layer = params["layers"], _definition(Layer, config, compute)

    def apply_layer(hidden: jax.Array, part: Any, queries: int | None = None) -> tuple[jax.Array, Any]:
        state, layer_keys = part
        hidden = constrain_batch(nnx.merge(layer, state)(hidden, visible, layer_keys, queries))
        return hidden, hidden if all_hidden else None

    def apply_numbered(hidden: jax.Array, number: jax.Array) -> tuple[jax.Array, Any]:
        return apply_layer(hidden, jax.tree.map(lambda array: jnp.asarray(array)[number], (stacked, keys)))

    if writes_layers_out(config, compute):
        layers = stacked if isinstance(stacked, list) else take_layers_apart(stacked)
        found = []
        for number in range(depth):
            queries = 1 if first_only and number == config.num_layers - 1 else None
            hidden, state = apply_layer(
                hidden, (layers[number], None if keys is None else keys[number]), queries
            )
            found.append(state)
        states = jnp.stack(found) if all_hidden and found else jnp.zeros((0, *hidden.shape), hidden.dtype)
    elif depth < config.num_layers:
        # Scanning a slice of the stack would copy the slice, 25 GB of it for XXL.
        hidden, states = jax.lax.scan(_rematerialise(apply_numbered, compute), hidden, jnp.arange(depth))
    else:
        hidden, states = jax.lax.scan(_rematerialise(apply_layer, compute), hidden, (stacked, keys))
    is_normed = depth == config.num_layers and not config.post_norm
    if is_normed:
        hidden = nnx.merge(_definition(Norm, config, compute), params["final_norm"])(hidden)
    if not all_hidden:
        return hidden
    states = jnp.concatenate([embedded[None], states])
    return states.at[-1].set(hidden) if is_normed else states


def _rematerialise(function: Any, compute: Compute) -> Any:
    if compute.remat not in ("dots", "full"):
        return function
    policy = {
        "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),
        "full": jax.checkpoint_policies.nothing_saveable,
    }[compute.remat]
    # Inside a loop nothing can be merged over the border of a step: what prevents it would only cost time.
    return jax.checkpoint(function, policy=policy, prevent_cse=False)
