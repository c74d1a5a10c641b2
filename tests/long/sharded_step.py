"""Loss and gradients of a shrunken XXL, cut over eight devices by fsdp and tensor and on one; prints differences.

Running text goes through the TPU kernel, interpreted: it has no attention dropout and needs rows of 128.
"""

import json
from dataclasses import replace

import jax
import numpy as np

from stilts_jax.model.config import Compute, EncoderConfig, HeadConfig, Model
from stilts_jax.model.heads import init_params
from stilts_jax.sharding import MeshConfig, make_mesh, parameter_paths, shard_batch, shardings
from stilts_jax.train.losses import make_loss

# XXL's inner width; the others are small.
SIZES = {"vocab_size": 502, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 16384}
ENCODER = EncoderConfig(family="xlm-roberta-xl", **SIZES)
KINDS = {
    "nli": HeadConfig(kind="classify", num_labels=3, form="jiant"),
    "text": HeadConfig(kind="mlm"),
    "vqa": HeadConfig(kind="classify", num_labels=3, patches=4, patch_width=12, pictures=2),
}
MODEL = Model(
    ENCODER, tuple(KINDS.items()), Compute(remat="full", attention="xla", matmul_precision="highest")
)


def batches() -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    tokens = random.integers(4, 502, (8, 128)).astype(np.int32)
    tokens[np.arange(128) >= random.integers(5, 25, (8, 1))] = 1
    weight = np.array([1, 1, 1, 0, 1, 1, 1, 1], np.float32)
    masked = random.integers(0, 5, (8, 3)).astype(np.int32)
    pairs = {"tokens": tokens[:, :24], "weight": weight, "label": random.integers(0, 3, 8).astype(np.int32)}
    pictures = random.integers(0, 256, (8, 2, 4, 12)).astype(np.uint8)
    return {
        "nli": pairs,
        "vqa": pairs | {"visual": pictures, "visual_mask": random.random((8, 2)) < 0.7},
        "text": {
            "tokens": tokens,
            "weight": weight,
            "segments": (tokens != 1).astype(np.int32),
            "positions": np.broadcast_to(np.arange(128, dtype=np.int32), (8, 128)),
            "masked_positions": masked,
            "masked_targets": random.integers(4, 502, (8, 3)).astype(np.int32),
            "masked_weights": weight[:, None] * np.ones((8, 3), np.float32),
        },
    }


def run(task: str, config: MeshConfig, devices: list) -> tuple[float, dict[str, np.ndarray]]:
    mesh = make_mesh(config, devices)
    params = init_params(MODEL, jax.random.key(1))
    active = {"encoder": params["encoder"], "head": params["heads"][task]}
    active = jax.device_put(active, shardings(active, mesh))
    batch = shard_batch(batches()[task], mesh)
    model = MODEL
    if task == "text":
        kernel = "splash-interpret" if len(devices) > 1 else "xla"
        compute, encoder = replace(MODEL.compute, attention=kernel), replace(ENCODER, attention_dropout=0.0)
        model = replace(MODEL, compute=compute, encoder=encoder)
    loss_fn = make_loss(model, task)

    def mean(active: dict, batch: dict) -> jax.Array:
        # With dropout: what is dropped must not depend on the mesh either.
        total, weight, _ = loss_fn(active, batch, jax.random.key(5))
        return total / weight

    with jax.set_mesh(mesh):
        loss, gradients = jax.jit(jax.value_and_grad(mean))(active, batch)
    return float(loss), {path: np.asarray(leaf, np.float64) for path, leaf in parameter_paths(gradients)}


def main() -> None:
    found = {}
    for task, config in {
        "nli": MeshConfig(1, 4, 2),
        "text": MeshConfig(2, 2, 2),
        "vqa": MeshConfig(2, 2, 2),
    }.items():
        one, expected = run(task, MeshConfig(), jax.devices()[:1])
        loss, gradients = run(task, config, jax.devices())
        # Relative to a tensor's norm; a floor for those that are zero in exact arithmetic (key biases).
        errors = {
            path: float(np.linalg.norm(gradients[path] - value) / max(np.linalg.norm(value), 1e-3))
            for path, value in expected.items()
        }
        found[f"{task}, {config}"] = {"loss": abs(loss - one) / abs(one), **errors}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
