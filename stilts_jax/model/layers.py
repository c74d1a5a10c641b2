"""The smallest parts of encoder and heads: dense layers, norms, dropout, attention, and how they get parameters.

Bits of dropout depend on the step, the row of the global batch, the site and the place. Every row has a key of its own,
so neither microbatches nor the mesh, the device or the padded length change what is dropped. A key is hashed with the
place by integer operations: this fuses with what stands beside it, needs no communication, and costs a fraction of the
bits of ``jax.random``.

Attention has a plain reference, cuDNN for padded rows and a TPU kernel for packed ones, which hold several sequences
that must not see each other. Dropout is never left out silently.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from stilts_jax.errors import ConfigError
from stilts_jax.model.config import Compute, EncoderConfig
from stilts_jax.sharding import BATCH_AXES, constrained_mesh, fit

Params = dict[str, Any]
PRODUCT = "dense"  # what rematerialisation knows the products by
_NORMAL = nnx.initializers.normal(0.02)
_LANES = 128  # what a TPU tile is wide: the splash kernel works on whole blocks of it


def platform_of(compute: Compute) -> str:
    """Returns what the program will run on: "cpu", "gpu" or "tpu"."""
    return compute.platform or jax.default_backend()


def product_precision(compute: Compute) -> AbstractContextManager:
    """Sets how exact matrix products are, where the settings say so; else the caller's own choice holds."""
    chosen = compute.matmul_precision
    return jax.default_matmul_precision(chosen) if chosen else nullcontext()


def wide_dtype(leaf: Any) -> jnp.dtype:
    """Returns the dtype in which sums, gradients and moments of ``leaf`` are kept: at least float32."""
    return jnp.promote_types(leaf.dtype, jnp.float32)


def widen(values: jax.Array) -> jax.Array:
    """Returns values in float32, or in what is wider."""
    return values.astype(wide_dtype(values))


def draw(module: Any, *settings: Any, key: jax.Array) -> Params:
    """Returns fresh parameters of ``module(*settings, rngs)``."""
    return nnx.to_pure_dict(nnx.state(module(*settings, nnx.Rngs(key))))


@lru_cache(maxsize=512)
def _define(module: Any, *settings: Any) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: module(*settings, nnx.Rngs(0))))[0]


def bind(params: Any, module: Any, *settings: Any) -> Any:
    """Returns ``module(*settings, rngs)`` with these parameters."""
    return nnx.merge(_define(module, *settings), params)


def table(rows: int, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> nnx.Param:
    """Returns an embedding table, normal(0, 0.02)."""
    return nnx.Param(_NORMAL(rngs.params(), (rows, config.hidden_size), jnp.dtype(compute.param_dtype)))


def linear(inputs: int, outputs: int, *, compute: Compute, rngs: nnx.Rngs, **initializers: Any) -> nnx.Linear:
    """Returns a dense layer that keeps parameters and computes as ``compute`` says."""

    def product(values: jax.Array, kernel: jax.Array, _: Any, *, precision: Any = None, **__: Any) -> Any:
        multiply = _multiply_on_cpu if platform_of(compute) == "cpu" else _multiply
        return checkpoint_name(multiply(precision, values, kernel), PRODUCT)

    options: Any = {"dtype": jnp.dtype(compute.dtype), "param_dtype": jnp.dtype(compute.param_dtype)}
    options |= {"precision": compute.matmul_precision or None, "kernel_init": _NORMAL, **initializers}
    return nnx.Linear(inputs, outputs, dot_general=product, rngs=rngs, **options)


def _multiply(precision: Any, values: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.matmul(values, kernel, precision=precision)


# JAX makes the kernel's gradient transposed, and XLA on a CPU then copies both operands into another order before it
# multiplies them, which is 5 % of a training step: there the gradient is written out.
_multiply_on_cpu = jax.custom_vjp(_multiply, nondiff_argnums=(0,))


def _multiply_backward(precision: Any, saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    values, kernel = saved
    rows, gradient_rows = (array.reshape(-1, array.shape[-1]) for array in (values, gradient))
    of_values = jnp.matmul(gradient, kernel.T, precision=precision)
    return of_values, jnp.einsum("mk,mn->kn", rows, gradient_rows, precision=precision)


_multiply_on_cpu.defvjp(lambda precision, *given: (_multiply(precision, *given), given), _multiply_backward)


class Norm(nnx.LayerNorm):
    """Layer normalisation in float32 or better; gives back the dtype that it got."""

    def __init__(self, config: EncoderConfig, compute: Compute, rngs: nnx.Rngs) -> None:
        dtype, param_dtype = jnp.promote_types(compute.dtype, jnp.float32), jnp.dtype(compute.param_dtype)
        # E[x^2] - E[x]^2 loses everything where the mean is large, as in XL's residual stream.
        options: Any = {"epsilon": config.layer_norm_eps, "use_fast_variance": False}
        super().__init__(config.hidden_size, dtype=dtype, param_dtype=param_dtype, rngs=rngs, **options)

    def __call__(self, inputs: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        return super().__call__(inputs, mask=mask).astype(inputs.dtype)


def typed_key(key: jax.Array) -> jax.Array:
    """Returns a key of ``jax.random.key``; one of the older ``jax.random.PRNGKey`` becomes such a key."""
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return key
    if dtype != jnp.uint32:
        raise ConfigError(f"{key!r} is no random key.", where="key", fix="give jax.random.key(0)")
    return jax.random.wrap_key_data(key)


def row_keys(key: jax.Array, rows: int) -> jax.Array:
    """Returns keys [rows], one for each row of a batch; keys of rows stay what they are."""
    key = typed_key(key)
    if key.ndim:
        return key
    # The generator that a key names makes no bits here, and some of them depend on the mesh.
    key = jax.random.wrap_key_data(jax.random.key_data(key)[:2], impl="threefry2x32")
    return fold_in(key, jnp.arange(rows))


def fold_in(keys: jax.Array, numbers: jax.Array) -> jax.Array:
    """Returns keys [..., N]: each of ``keys`` [...] folded with each of the ``numbers`` [N]."""
    each = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
    return each(keys.reshape(-1), numbers).reshape(*keys.shape, len(numbers))


def split(keys: jax.Array | None, count: int) -> list[Any]:
    """Returns independent keys for ``count`` sites of each row; None for no dropout gives Nones."""
    folded = None if keys is None else fold_in(keys, jnp.arange(count))
    return [None if folded is None else folded[..., number] for number in range(count)]


def drop(values: jax.Array, rate: float, keys: Any, rows: Any = None, columns: Any = None) -> jax.Array:
    """Zeroes a share ``rate`` of ``values`` [*K, W] or [*K, T, W] and scales up the rest; without keys, nothing.

    Keys are [*K], or one that makes those of the rows. ``rows`` uint32 [T] and ``columns`` uint32 [W] number the
    places, below 2**16; they are counted from 0 where there are none.
    """
    if keys is None or not rate:
        return values
    keys = row_keys(keys, len(values))
    inner = values.shape[keys.ndim :]
    # T and W are below 2**16, so no two places of a row have the same number, however long the rows are.
    place = jax.lax.broadcasted_iota(jnp.uint32, inner, len(inner) - 1) if columns is None else columns
    if len(inner) == 2:
        first = jax.lax.broadcasted_iota(jnp.uint32, inner, 0) if rows is None else rows[: inner[0], None]
        place = place + (first << 16)
    words = jax.random.key_data(keys).reshape(*keys.shape, *(1 for _ in inner), 2)
    # A hash of 32 bits without visible bias (constants of Wellons' search), keyed in its middle.
    bits, middle = place * jnp.uint32(0x9E3779B1) ^ words[..., 0], words[..., 1]
    bits = (bits ^ bits >> 16) * jnp.uint32(0x7FEB352D)
    bits = ((bits ^ bits >> 15) + middle) * jnp.uint32(0x846CA68B)
    bits = bits ^ bits >> 16
    dropped = min(round(rate * 2**32), 2**32 - 1)
    return jnp.where(bits >= jnp.uint32(dropped), values / (1 - dropped / 2**32), jnp.zeros([], values.dtype))


class Backend(NamedTuple):
    name: str
    reason: str  # for choosing it


def choose_backend(
    compute: Compute, platform: str, *, seq_len: int, head_dim: int, dropout: float, packed: bool, gaps: bool
) -> Backend:
    """Decides what computes attention on a "cpu", "gpu" or "tpu"; raises where what ``compute`` names can't be used.

    ``dropout`` is 0 where nothing is trained; ``gaps`` are pads before something that is looked at (pictures).
    """
    fastest = {"gpu": "cudnn", "tpu": "splash"}.get(platform, "xla")
    name: str = fastest if compute.attention == "auto" else compute.attention
    cudnn, splash = name == "cudnn", name.startswith("splash")
    old = ""
    if cudnn and jax.default_backend() == "gpu":  # else this is a plan for chips that are not here
        capability = str(getattr(jax.local_devices()[0], "compute_capability", "")) or "none"
        major = capability.partition(".")[0]
        old = "" if major.isdigit() and int(major) >= 8 else capability
    wide = cudnn and (head_dim % 8 or head_dim > 128)  # 256 from Hopper on, but then no other chip runs it
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
        f"heads must be a multiple of 8 and at most 128 wide, these are {head_dim}": wide,
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
    divide_late: bool = False,
) -> jax.Array:
    """Lets every position look at the positions that it may see: [B, T, N, H] each, in the dtype of ``value``.

    ``visible`` is bool [B, T], what may be looked at (outputs elsewhere mean nothing), or int32 [B, T]: positions see
    those of their own number. Dropout of the probabilities ("xla" only) takes a key, or one a row [B], and ``places``,
    uint32 [T], to number positions; they are counted where there are none. ``divide_late`` ("xla" only) divides by the
    sum of the weights behind their product with values: on a CPU logits of rows of 48 tokens are 5 % faster then, of
    128 tokens 7 %, while steps on a TPU would keep 2 to 4 % more.
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
    # Heads first: products that change the order of their axes take a CPU three times as long.
    query, key, value = (jnp.swapaxes(array, 1, 2) for array in (query, key, value))
    scores = jnp.einsum("bnth,bnsh->bnts", query, key, preferred_element_type=exact)
    # Large and finite: a row of nothing but pads must not give NaN, whose gradient would spoil the whole batch.
    scores = jnp.where(mask, scores * query.shape[-1] ** -0.5, jnp.finfo(exact).min)
    if divide_late:
        weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
        total = weights.sum(axis=-1, keepdims=True)
    else:
        weights, total = jax.nn.softmax(scores, axis=-1), None
    if dropout_key is not None:
        keys = fold_in(row_keys(dropout_key, len(query)), jnp.arange(query.shape[1]))
        weights = drop(weights, dropout, keys, places, places)
    found = jnp.einsum("bnts,bnsh->bnth", weights.astype(value.dtype), value)
    return jnp.swapaxes(found if total is None else (found / total).astype(value.dtype), 1, 2)


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
