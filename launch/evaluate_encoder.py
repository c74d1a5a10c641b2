"""Scores a model that was fine-tuned for NLI, here or in PyTorch, on two tasks.

Usage: python launch/evaluate_encoder.py MODEL DATA_ROOT OUT
"""

import sys

import stilts_jax as sj

if len(sys.argv) != 4:
    sys.exit(__doc__)
scores = sj.evaluate(sys.argv[1], ["tatoeba", "xnli"], data_root=sys.argv[2], out=sys.argv[3])
for task, splits in scores.items():
    for percent in splits["test"].values():  # nothing where gold is blanked
        print(f"{task} {sum(percent.values()) / len(percent):.1f} in {len(percent)} languages: {percent}")
