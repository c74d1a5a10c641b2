"""Wraps the encoder in a Flax NNX module of your own, here one that predicts a number, and trains it Flax's way."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import stilts_jax as sj


class Rater(nnx.Module):
    """The mean of an encoder's last hidden states, and a line."""

    def __init__(self, config: sj.EncoderConfig, params: dict, rngs: nnx.Rngs) -> None:
        self.config, self.encoder = config, nnx.data(jax.tree.map(nnx.Param, params))
        self.line = nnx.Linear(config.hidden_size, 1, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        hidden = sj.encode(nnx.as_pure(self.encoder), tokens, config=self.config, compute=sj.Compute())
        return self.line(hidden.mean(1))[:, 0]


@nnx.jit
def step(rater: Rater, optimizer: nnx.Optimizer, tokens: jax.Array, rating: jax.Array) -> jax.Array:
    loss, gradients = nnx.value_and_grad(lambda rater: jnp.mean((rater(tokens) - rating) ** 2))(rater)
    optimizer.update(rater, gradients)
    return loss


config = sj.SHAPES["tiny"]  # or: loaded = sj.load_encoder(FOLDER); loaded.config, loaded.params
params = sj.init_params(sj.Model(config), jax.random.key(0))["encoder"]
rater = Rater(config, params, nnx.Rngs(0))
optimizer = nnx.Optimizer(rater, optax.adamw(3e-3), wrt=nnx.Param)
for number in range(100):
    tokens = np.random.default_rng(number).integers(4, 300, (16, 12))
    loss = step(rater, optimizer, tokens, (tokens > 150).mean(1))
print(f"mean squared error {float(loss):.4f}")
