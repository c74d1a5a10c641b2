"""ANLI+: SNLI, MNLI and the three rounds of adversarial NLI as one task with one head.

The parts are laid end to end, so that sampling is proportional to their sizes, and dev likewise; of both a limited
number is taken evenly.
"""

from dataclasses import replace

from stilts_jax.tasks import mnli, snli
from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.spec import files, hub, tfds

_released = classify("context", "hypothesis", renamed=mnli.SPELLINGS, id="uid")
_PARTS = {"snli": snli.TASK.sources, "mnli": mnli.TASK.sources}
for _round in ("r1", "r2", "r3"):
    _path = f"{_round.upper()}/{{split}}.jsonl"
    _PARTS[f"anli_{_round}"] = (
        files(f"anli/{_path} anli/anli_v1.0/{_path} anli/anli_v0.1/{_path}", _released, "train dev"),
        hub("facebook/anli/plain_text", mnli.prepared, f"train:train_{_round} dev:dev_{_round}"),
        tfds(f"anli/{_round}", _released, "train dev"),
    )

TASK = replace(
    snli.TASK,
    name="anli",
    title="ANLI",
    version=2,
    counts={"train": 1_104_934, "dev": 22_857},  # 16,946, 45,460 and 100,459 are of the rounds
    sources=tuple(replace(source, part=part) for part, sources in _PARTS.items() for source in sources),
)
