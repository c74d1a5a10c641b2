"""Trains a classifier on arrays of your own: no config, no tasks, no loop of ours.

Usage: python launch/train_own_arrays.py [ENCODER], a transformers folder; without one a tiny random encoder.
"""

import sys

import jax
import numpy as np

import stilts_jax as sj

# Yours: token ids [N, T] with 1 as padding, and labels [N]. A weight [N] that is 0 where a row does not count may be
# beside them.
label = np.random.default_rng(1).integers(0, 2, 1024, dtype=np.int32)
tokens = np.random.default_rng(0).integers(4, 40, (1024, 16), dtype=np.int32) + 10 * label[:, None]
tokens[:, 0], tokens[512:, 10:] = 0, 1
data = {"tokens": tokens, "label": label}

loaded = sj.load_encoder(sys.argv[1]) if len(sys.argv) > 1 else None
shape = loaded.config if loaded else sj.SHAPES["tiny"]
model = sj.Model(shape, (("mine", sj.HeadConfig(kind="classify", num_labels=2)),))
optimizer = sj.make_optimizer(sj.OptimizerConfig(learning_rate=2e-5 if loaded else 5e-3, total_steps=100))
loss, key = sj.make_loss(model, "mine"), jax.random.key(0)
state = sj.init_state(model, optimizer, key, encoder=loaded.params if loaded else None)
sj.check_batch(data, state.params, "mine")  # on the device a label too high would be a loss that is no number
step = jax.jit(
    lambda state, batch: sj.train_step(state, batch, loss_fn=loss, tx=optimizer, key=key),
    donate_argnums=0,  # the new state takes the old one's memory
)
for number in range(100):
    rows = np.random.default_rng(number).choice(960, 32, replace=False)
    state, metrics = step(state, {name: array[rows] for name, array in data.items()})
    if number % 20 == 0:
        print(f"step {number}  loss {float(metrics['loss']):.3f}  accuracy {float(metrics['accuracy']):.2f}")
sums = sj.eval_step(state.params, {name: array[960:] for name, array in data.items()}, loss_fn=loss)
print(f"held out: accuracy {float(sums['accuracy'] / sums['weight']):.2f}")
