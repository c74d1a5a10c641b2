"""Trains with an optax transformation, a mesh and sharding rules of your own; the mesh's axes have your names.

Usage: python launch/train_own_mesh.py, on one device or many.
"""

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import stilts_jax as sj

mesh = jax.make_mesh((jax.device_count(), 1), ("replica", "model"))
# Rules match the end of a parameter's path; the first that matches counts, ours are for axes that this mesh lacks.
rules = [(r"ffn/up/kernel", P(None, None, "replica")), (r"ffn/down/kernel", P(None, "replica")), *sj.RULES]
model = sj.Model(sj.SHAPES["tiny"], (("mine", sj.HeadConfig(kind="classify", num_labels=2)),))
tx = optax.chain(optax.clip_by_global_norm(1.0), optax.lion(optax.linear_schedule(1e-3, 0.0, 120)))
loss, key = sj.make_loss(model, "mine"), jax.random.key(0)
state = sj.init_state(model, tx, key, mesh=mesh, rules=rules)  # every array is born in its shards
kernel = state.params["encoder"]["layers"]["ffn"]["up"]["kernel"]
print("a feed-forward kernel's shards:", kernel.sharding.spec)
step = jax.jit(
    lambda state, batch: sj.train_step(state, batch, loss_fn=loss, tx=tx, key=key, accumulation=2),
    donate_argnums=0,
    out_shardings=(jax.tree.map(lambda array: array.sharding, state), None),
)
rows = NamedSharding(mesh, P("replica"))
random = np.random.default_rng(0)
for _ in range(120):
    label = random.integers(0, 2, 32)
    tokens = random.integers(4, 40, (32, 16)) + 10 * label[:, None]
    state, metrics = step(state, jax.device_put({"tokens": tokens, "label": label}, rows))
    metrics["loss"].block_until_ready()  # steps that queue up can lock the threads of one CPU's many devices
print(f"loss {float(metrics['loss']):.3f}  accuracy {float(metrics['accuracy']):.2f}")
