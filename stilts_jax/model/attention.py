"""Attention behind one interface: a plain reference, cuDNN for padded rows, a TPU kernel for packed ones.

A row holds one sequence and pads, or several sequences that must not see each other. A backend that is named and can't
do what is asked is an error; only ``auto`` chooses another one, and says why. Dropout is never left out silently.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from stilts_jax.errors import ConfigError
from stilts_jax.model.config import Compute
from stilts_jax.model.layers import drop, fold_in, row_keys
from stilts_jax.sharding import BATCH_AXES, constrained_mesh, fit

_LANES = 128  # what a TPU tile is wide: the splash kernel works on whole blocks of it


class Backend(NamedTuple):
    """What computes attention, and why."""

    name: str
    reason: str


def choose_backend(
    compute: Compute, platform: str, *, seq_len: int, head_dim: int, dropout: float, packed: bool, gaps: bool
) -> Backend:
    """Decides what computes attention on a "cpu", "gpu" or "tpu"; raises where what ``compute`` names can't be used.

    ``dropout`` is 0 where nothing is trained. ``packed`` rows hold several segments; ``gaps`` are pads before something
    that is looked at (pictures).
    """
    fastest = {"gpu": "cudnn", "tpu": "splash"}.get(platform, "xla")
    name: str = fastest if compute.attention == "auto" else compute.attention
    cudnn, splash = name == "cudnn", name.startswith("splash")
    old = ""
    if cudnn and jax.default_backend() == "gpu":  # else this is a plan for chips that are not here
        capability = str(getattr(jax.local_devices()[0], "compute_capability", "")) or "none"
        major = capability.partition(".")[0]
        old = "" if major.isdigit() and int(major) >= 8 else capability
    undropped = f"it would leave out attention dropout (model.attention_dropout, {dropout})"
    obstacles: dict[str, Any] = {
        f"cuDNN runs on NVIDIA GPUs, this is {platform}": cudnn and platform != "gpu",
        f"splash is a TPU kernel, this is {platform}": name == "splash" and platform != "tpu",
        undropped: name != "xla" and dropout,
        f"rows must be a multiple of {_LANES} long, these are {seq_len}": splash and seq_len % _LANES,
        "it can't keep the segments of packed rows apart": cudnn and packed,
        "it can't leave out the pads between a text and pictures": cudnn and gaps,
        f"it needs bfloat16, compute.dtype is {compute.dtype}": cudnn and compute.dtype != "bfloat16",
        f"it needs an NVIDIA GPU of compute capability 8.0 or more, this has {old}": old,
        # 256 from Hopper on, but then no other chip runs it.
        f"heads must be a multiple of 8 and at most 128 wide, these are {head_dim}": cudnn
        and (head_dim % 8 or head_dim > 128),
    }
    obstacle = next((why for why, stands in obstacles.items() if stands), "")
    if compute.attention != "auto":
        if obstacle:
            what, fix = f"Attention backend {name!r} can't be used: {obstacle}.", "take 'xla' or 'auto'"
            raise ConfigError(what, where="compute.attention", fix=f"{fix}, or remove the obstacle")
        return Backend(name, "asked for")
    if obstacle:
        return Backend("xla", f"not {name}: {obstacle}")
    return Backend(name, f"{platform} has no other backend" if name == "xla" else f"fastest on {platform}")


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    visible: jax.Array,
    *,
    backend: str = "xla",
    dropout: float = 0.0,
    dropout_key: jax.Array | None = None,
    places: jax.Array | None = None,
) -> jax.Array:
    """Lets every position look at the positions that it may see: [B, T, N, H] each, in the dtype of ``value``.

    Args:
        visible: bool [B, T], what may be looked at (outputs elsewhere mean nothing), or int32 [B, T]: positions see
            those of their own number.
        dropout_key: of each row [B], or one of which these are made, for dropout of the probabilities ("xla" only).
        places: uint32 [T], the numbers of positions for dropout; they are counted where there are none.
    """
    if backend == "cudnn":
        # Lengths instead of a mask: cuDNN turns a mask into a dense bias. A row of pads keeps one key.
        lengths = jnp.maximum(visible.sum(-1, dtype=jnp.int32), 1)
        options: Any = {"query_seq_lengths": lengths, "key_value_seq_lengths": lengths}
        found = jax.nn.dot_product_attention(query, key, value, implementation="cudnn", **options)
        return jnp.where(visible[:, :, None, None], found, 0)  # what lies behind a row's length is undefined
    if backend != "xla":
        segments = visible.astype(jnp.int32)
        return _attend_with_splash(query, key, value, segments, backend == "splash-interpret")
    mask = visible[:, None, None, :]
    if visible.dtype != bool:
        mask = visible[:, None, :, None] == mask
    exact = jnp.promote_types(value.dtype, jnp.float32)
    scores = jnp.einsum("btnh,bsnh->bnts", query, key, preferred_element_type=exact)
    # Large and finite: a row of nothing but pads must not give NaN, whose gradient would spoil the whole batch.
    scores = jnp.where(mask, scores * query.shape[-1] ** -0.5, jnp.finfo(exact).min)
    probabilities = jax.nn.softmax(scores, axis=-1)
    if dropout_key is not None:
        keys = fold_in(row_keys(dropout_key, len(query)), jnp.arange(query.shape[2]))
        probabilities = drop(probabilities, dropout, keys, places, places)
    return jnp.einsum("bnts,bsnh->btnh", probabilities.astype(value.dtype), value)


def _attend_with_splash(query: Any, key: Any, value: Any, segments: Any, interpret: bool) -> jax.Array:
    # Imported here: Pallas is slow to import and only TPUs (and tests) need it.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length = query.shape[1]
    block = max(size for size in range(_LANES, 512 + 1, _LANES) if length % size == 0)
    names = ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")
    blocks: dict[str, Any] = dict.fromkeys(names, block)

    def attend(query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array) -> jax.Array:
        mask = masks.MultiHeadMask([masks.FullMask((length, length))] * query.shape[2])
        options: Any = {"block_sizes": splash.BlockSizes(**blocks), "interpret": interpret}
        kernel = splash.make_splash_mha(mask, head_shards=1, q_seq_shards=1, **options)
        by_head = (jnp.swapaxes(array, 1, 2) for array in (query * query.shape[-1] ** -0.5, key, value))
        found = jax.vmap(kernel)(*by_head, segment_ids=splash.SegmentIds(segments, segments))
        return jnp.swapaxes(found, 1, 2).astype(value.dtype)

    mesh = constrained_mesh()
    if mesh is not None:
        # The compiler can't cut a kernel of ours: each device calls it on its own rows and heads.
        whole = fit(P(BATCH_AXES, None, "tensor", None), query.shape, mesh.shape)
        specs = (whole, whole, whole, P(whole[0], None))
        attend = jax.shard_map(attend, in_specs=specs, out_specs=whole, check_vma=False)
    return attend(query, key, value, segments)
