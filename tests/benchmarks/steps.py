"""Times one training step of given rows and length: layers in a loop, layers written out, and eager PyTorch.

Usage: python tests/benchmarks/steps.py --shape=large --sizes=32x64,256x64 --peer=torch

Rows are 0.7 to 1 times as long as they are padded to. bfloat16 over float32 parameters except on a CPU, the recipe's
AdamW, clipping and dropout on both sides, a vocabulary of 13,568 rows as a phase of MNLI has; PyTorch with sdpa
attention and fused AdamW. A time is the best of three turns of ten steps.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

import stilts_jax as sj
from stilts_jax.chips import compiler_options

VOCABULARY, LABELS = 13_568, 3


def draw_batch(rows: int, length: int, vocabulary: int) -> dict[str, np.ndarray]:
    """Rows of random tokens, with pads behind them."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(5, vocabulary - 2, (rows, length), np.int32)
    lengths = generator.integers(int(0.7 * length), length + 1, rows)
    tokens[np.arange(length)[None] >= lengths[:, None]] = 1
    return {"tokens": tokens, "label": generator.integers(0, LABELS, rows, np.int32)}


def best_of_turns(step: Callable[[], Any], wait: Callable[[Any], Any]) -> float:
    """Seconds of a step, after three that do not count."""
    times = []
    for count in (3, 10, 10, 10):
        began = time.perf_counter()
        for _ in range(count):
            last = step()
        wait(last)
        times.append((time.perf_counter() - began) / count)
    return min(times[1:])


def time_ours(shape: sj.EncoderConfig, dtype: str, layers: str, batch: dict[str, np.ndarray]) -> str:
    """One line: milliseconds, seconds to compile, memory for what is kept and worked on."""
    compute: Any = sj.Compute(dtype=dtype, layers=layers)
    model = sj.Model(shape, (("task", sj.HeadConfig(kind="classify", num_labels=LABELS)),), compute)
    tx = sj.make_optimizer(sj.OptimizerConfig(learning_rate=1e-5, total_steps=10**6))
    state, loss = sj.init_state(model, tx, jax.random.key(0)), sj.make_loss(model, "task")

    def take(state: Any, batch: Any, key: jax.Array) -> Any:
        return sj.train_step(state, batch, loss_fn=loss, tx=tx, key=key)

    began = time.perf_counter()
    given = state, jax.device_put(batch), jax.random.key(0)
    step = jax.jit(take, donate_argnums=0, compiler_options=compiler_options()).lower(*given).compile()
    compiled = time.perf_counter() - began

    def once() -> Any:
        nonlocal state
        state, metrics = step(state, *given[1:])
        return metrics

    seconds = best_of_turns(once, jax.block_until_ready)
    flops = shape.training_flops(batch["tokens"].shape[1]) * batch["tokens"].size
    memory = step.memory_analysis().temp_size_in_bytes / 2**30
    return (
        f"{layers:12} {1e3 * seconds:9.1f} ms {flops / seconds / 1e12:8.2f} TFLOP/s, "
        f"{memory:.2f} GiB of temporaries, compiled in {compiled:.0f} s"
    )


def time_torch(shape: sj.EncoderConfig, dtype: str, batch: dict[str, np.ndarray]) -> str:
    """One line: milliseconds of transformers' model, eager."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config: Any = XLMRobertaConfig(**shape.to_transformers(), num_labels=LABELS)
    config._attn_implementation = "sdpa"
    model: Any = XLMRobertaForSequenceClassification(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    tokens, labels = (torch.from_numpy(batch[name]).long().to(device) for name in ("tokens", "label"))
    mask = (tokens != 1).long()

    def once() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    seconds = best_of_turns(once, lambda _: torch.cuda.synchronize() if device == "cuda" else None)
    return f"{'PyTorch':12} {1e3 * seconds:9.1f} ms"


def main() -> None:
    """Prints a line for each contender and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--shape", default="large")
    parser.add_argument("--sizes", default="32x64,256x64", metavar="ROWSxLENGTH,...")
    parser.add_argument("--peer", choices=("", "torch"), default="")
    options = parser.parse_args()
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    shape = sj.SHAPES[options.shape]
    shape = replace(shape, vocab_size=min(shape.vocab_size, VOCABULARY))
    print(f"{options.shape}, {dtype}, {jax.devices()[0].device_kind}; jax {jax.__version__}")
    for size in options.sizes.split(","):
        rows, length = map(int, size.split("x"))
        batch = draw_batch(rows, length, shape.vocab_size)
        for layers in ("loop", "written-out"):
            print(f"{size:8} {time_ours(shape, dtype, layers, batch)}", flush=True)
        if options.peer:
            print(f"{size:8} {time_torch(shape, dtype, batch)}", flush=True)


if __name__ == "__main__":
    main()
