"""Attention behind one interface: a plain reference, cuDNN for padded rows, a TPU kernel for packed ones.

A row either holds one sequence and pads behind it (``key_mask``), or several sequences that must not see each
other (``segments``). A backend that is named and cannot do what is asked raises an error; only ``auto`` chooses another
one, and says which and why. Dropout is never left out silently.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from stilts_jax.errors import ConfigError
from stilts_jax.model.config import Compute
from stilts_jax.model.dropout import drop, fold_in, row_keys
from stilts_jax.sharding import BATCH_AXES, constrained_mesh, fit

_LANES = 128  # what a TPU tile is wide: the splash kernel works on whole blocks of it
_MAX_BLOCK = 512
_CUDNN_MAX_HEAD_DIM = 128  # 256 from Hopper on, but then no other chip runs it


class Backend(NamedTuple):
    """What computes attention, and why."""

    name: str
    reason: str


def choose_backend(
    compute: Compute,
    platform: str,
    *,
    seq_len: int,
    head_dim: int,
    dropout: float,
    packed: bool,
    gaps: bool = False,
) -> Backend:
    """Decides what computes attention.

    Args:
        compute: ``compute.attention`` is a backend or "auto".
        platform: "cpu", "gpu" or "tpu".
        seq_len: tokens of a row.
        head_dim: width of one head.
        dropout: rate on the attention probabilities; 0 where nothing is trained.
        packed: whether rows hold several segments.
        gaps: whether pads stand before something that is looked at (pictures).

    Returns:
        The backend and the reason to print and to record.

    Raises:
        ConfigError: the backend asked for can't be used here; says why.
    """
    name: str = compute.attention
    if name == "auto":
        name = {"gpu": "cudnn", "tpu": "splash"}.get(platform, "xla")
    without_dropout = (dropout, f"it would leave out attention dropout ({dropout})")
    whole_tiles = (seq_len % _LANES, f"rows must be a multiple of {_LANES} long, these are {seq_len}")
    obstacles: dict[str, list[tuple[Any, str]]] = {
        "xla": [],
        "cudnn": [
            (platform != "gpu", f"cuDNN runs on NVIDIA GPUs, this is {platform}"),
            without_dropout,
            (packed, "it can't keep the segments of packed rows apart"),
            (gaps, "it can't leave out the pads between a text and pictures"),
            (compute.dtype != "bfloat16", f"it computes in bfloat16, compute.dtype is {compute.dtype}"),
            (
                head_dim % 8 or head_dim > _CUDNN_MAX_HEAD_DIM,
                f"heads must be a multiple of 8 and at most {_CUDNN_MAX_HEAD_DIM} wide, these are {head_dim}",
            ),
        ],
        "splash": [
            (platform != "tpu", f"splash is a TPU kernel, this is {platform}"),
            without_dropout,
            whole_tiles,
        ],
        "splash-interpret": [without_dropout, whole_tiles],
    }
    obstacle = next((reason for stands, reason in obstacles[name] if stands), "")
    if compute.attention == "auto":
        if obstacle:
            return Backend("xla", f"not {name}: {obstacle}")
        return Backend(
            name, f"{platform} has no other backend" if name == "xla" else f"fastest on {platform}"
        )
    if obstacle:
        raise ConfigError(
            f"Attention backend {name!r} can't be used: {obstacle}.",
            where="compute.attention",
            fix="take 'xla' or 'auto', or remove the obstacle",
        )
    return Backend(name, "asked for")


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    key_mask: jax.Array | None = None,
    segments: jax.Array | None = None,
    backend: str = "xla",
    dropout: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Lets every position look at the positions that it may see.

    Args:
        query: [B, T, N, H]
        key: [B, T, N, H]
        value: [B, T, N, H]
        key_mask: bool [B, T], what may be looked at: a prefix of each row. Outputs behind it mean nothing.
        segments: int32 [B, T] instead: positions see those of their own number.
        backend: what ``choose_backend`` named.
        dropout: rate on the probabilities ("xla" only).
        dropout_key: of each row [B], or one of which these are made; None for no dropout.

    Returns:
        [B, T, N, H] in the dtype of ``value``.
    """
    if (key_mask is None) == (segments is None):
        raise ConfigError("Attention takes either a key mask or segments.", where="attention")
    if backend == "xla":
        return _attend_plainly(query, key, value, key_mask, segments, dropout, dropout_key)
    if dropout and dropout_key is not None:
        raise ConfigError(f"Backend {backend!r} would leave out attention dropout.", where="attention")
    if backend == "cudnn":
        if key_mask is None:
            raise ConfigError("Backend 'cudnn' can't keep segments apart.", where="attention")
        return _attend_with_cudnn(query, key, value, key_mask)
    if segments is None:
        segments = key_mask.astype(jnp.int32)  # type: ignore[union-attr]
    return _attend_with_splash(query, key, value, segments, interpret=backend == "splash-interpret")


def _attend_plainly(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    key_mask: jax.Array | None,
    segments: jax.Array | None,
    dropout: float,
    dropout_key: jax.Array | None,
) -> jax.Array:
    if segments is not None:
        mask = segments[:, None, :, None] == segments[:, None, None, :]
    else:
        mask = key_mask[:, None, None, :]  # type: ignore[index]
    exact = jnp.promote_types(value.dtype, jnp.float32)
    scores = jnp.einsum("btnh,bsnh->bnts", query, key, preferred_element_type=exact)
    # Large and finite: a row of nothing but pads must not give NaN, whose gradient would spoil the whole batch.
    scores = jnp.where(mask, scores * query.shape[-1] ** -0.5, jnp.finfo(exact).min)
    probabilities = jax.nn.softmax(scores, axis=-1)
    if dropout_key is not None:
        keys = fold_in(row_keys(dropout_key, len(query)), jnp.arange(query.shape[2]))
        probabilities = drop(probabilities, dropout, keys)
    probabilities = probabilities.astype(value.dtype)
    return jnp.einsum("bnts,bsnh->btnh", probabilities, value)


def _attend_with_cudnn(query: jax.Array, key: jax.Array, value: jax.Array, key_mask: jax.Array) -> jax.Array:
    # Lengths instead of a mask: cuDNN turns a mask into a dense bias. A row of pads keeps one key.
    lengths = jnp.maximum(key_mask.sum(-1, dtype=jnp.int32), 1)
    found = jax.nn.dot_product_attention(
        query, key, value, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation="cudnn"
    )
    # What lies behind a row's length is undefined there.
    return jnp.where(key_mask[:, :, None, None], found, 0)


def _attend_with_splash(
    query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array, *, interpret: bool
) -> jax.Array:
    # Imported here: Pallas is slow to import and only TPUs (and tests) need it.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length = query.shape[1]
    block = max(size for size in range(_LANES, _MAX_BLOCK + 1, _LANES) if length % size == 0)
    names = ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")
    blocks: dict[str, Any] = dict.fromkeys(names, block)
    sizes = splash.BlockSizes(**blocks)

    def attend(query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array) -> jax.Array:
        heads = query.shape[2]
        kernel = splash.make_splash_mha(
            masks.MultiHeadMask([masks.FullMask((length, length))] * heads),
            head_shards=1,
            q_seq_shards=1,
            block_sizes=sizes,
            interpret=interpret,
        )
        by_head = (jnp.swapaxes(array, 1, 2) for array in (query * query.shape[-1] ** -0.5, key, value))
        found = jax.vmap(kernel)(*by_head, segment_ids=splash.SegmentIds(segments, segments))
        return jnp.swapaxes(found, 1, 2).astype(value.dtype)

    mesh = constrained_mesh()
    if mesh is None:
        return attend(query, key, value, segments)
    # The compiler can't cut a kernel of ours: each device calls it on its own rows and heads.
    whole = fit(P(BATCH_AXES, None, "tensor", None), query.shape, mesh.shape)
    ids = P(whole[0], None)
    return jax.shard_map(attend, in_specs=(whole, whole, whole, ids), out_specs=whole, check_vma=False)(
        query, key, value, segments
    )
