"""How the gradient of an FSDP kernel travels between TPU chips, in four forms, by the compiled text (no chip needed).

A chain of four feed-forward blocks of XXL's width, sharded over 256 v5e chips, is differentiated: by JAX itself, with a
sharding constraint on the kernel's gradient, with ``psum_scatter``, and with an ``all_to_all`` that each chip sums for
itself. Needs TPU's compiler (``pip install '.[tpu]'``):

    python tests/long/gradient_sums.py
"""

import os

from stilts_jax.chips import environment, parse_topology, topology_devices

TOPOLOGY = parse_topology("v5e:16x16")
os.environ.update(environment(TOPOLOGY))

import jax  # noqa: E402 - reads the environment when it starts
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from collectives import count_collectives  # noqa: E402
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec  # noqa: E402

LAYERS, WIDTH, INNER, ROWS, LENGTH = 4, 4096, 16384, 2048, 512
DEVICES = topology_devices(TOPOLOGY)
MESH = Mesh(np.array(DEVICES), ("fsdp",), axis_types=(AxisType.Auto,))


def sharding(*axes):
    """Returns a sharding of the mesh."""
    return NamedSharding(MESH, PartitionSpec(*axes))


def whole(kernel):
    """Returns a kernel as every chip needs it for its rows."""
    return jax.lax.with_sharding_constraint(kernel.astype(jnp.bfloat16), sharding())


def product(x, kernel):
    """Returns x times the gathered kernel; JAX finds the gradient."""
    return x @ whole(kernel)


def with_own_gradient(kernel_gradient):
    """Returns ``product`` with another way to a kernel's gradient."""
    form = jax.custom_vjp(product)
    form.defvjp(
        lambda x, kernel: (product(x, kernel), (x, kernel)),
        lambda saved, d: (d @ whole(saved[1]).T, kernel_gradient(saved[0], d)),
    )
    return form


def local_product(x, d):
    """Returns the gradient of one chip's rows, or of all where the compiler shares them out."""
    return jnp.einsum("btk,btn->kn", x, d, preferred_element_type=jnp.bfloat16)


def constrained(x, d):
    """Asks the compiler for the shard alone."""
    return jax.lax.with_sharding_constraint(local_product(x, d).astype(jnp.float32), sharding("fsdp"))


def scattered(x, d):
    """Writes the reduce-scatter out."""

    def local(x, d):
        found = jax.lax.psum_scatter(local_product(x, d), "fsdp", scatter_dimension=0, tiled=True)
        return found.astype(jnp.float32)

    return _on_each_chip(local)(x, d)


def exchanged(x, d):
    """Sends each chip its part of every chip's gradient, and adds there."""

    def local(x, d):
        found = local_product(x, d)
        parts = found.reshape(len(DEVICES), -1, found.shape[1])
        return jax.lax.all_to_all(parts, "fsdp", 0, 0).astype(jnp.float32).sum(0)

    return _on_each_chip(local)(x, d)


def _on_each_chip(local):
    rows = PartitionSpec("fsdp")
    return jax.shard_map(local, mesh=MESH, in_specs=(rows, rows), out_specs=rows)


def compiled(form):
    """Returns the compiled gradient of the chain."""

    def loss(kernels, x):
        def block(x, kernels):
            up, down = kernels
            y = form(jax.nn.gelu(form(x, up)), down)
            return jax.lax.with_sharding_constraint(x + y, sharding("fsdp")), None

        x, _ = jax.lax.scan(jax.checkpoint(block, prevent_cse=False), x, kernels)
        return x.astype(jnp.float32).mean()

    by_row = sharding(None, "fsdp")
    kernels = tuple(
        jax.ShapeDtypeStruct((LAYERS, *shape), jnp.float32, sharding=by_row)
        for shape in ((WIDTH, INNER), (INNER, WIDTH))
    )
    x = jax.ShapeDtypeStruct((ROWS, LENGTH, WIDTH), jnp.bfloat16, sharding=sharding("fsdp"))
    return jax.jit(jax.grad(loss), out_shardings=(by_row, by_row)).lower(kernels, x).compile()


def main():
    """Prints what each form sends."""
    forms = {
        "as JAX differentiates": product,
        "sharding constraint": with_own_gradient(constrained),
        "psum_scatter": with_own_gradient(scattered),
        "all_to_all, summed locally": with_own_gradient(exchanged),
    }
    with jax.set_mesh(MESH):
        for name, form in forms.items():
            found = count_collectives(compiled(form).as_text(), len(DEVICES))
            sent = ", ".join(f"{one.kind} {one.bytes / 1e9:.2f} GB" for one in found)
            print(f"{name}: a chip sends in {LAYERS} blocks: {sent}", flush=True)


if __name__ == "__main__":
    main()
