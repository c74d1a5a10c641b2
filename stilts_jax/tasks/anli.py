"""ANLI+: SNLI, MNLI and the three rounds of adversarial NLI as one task with one head.

The parts are laid end to end, so that sampling is proportional to their sizes; dev is laid together likewise. Of both
a limited number is taken evenly.
"""

from dataclasses import replace

from stilts_jax.tasks import mnli, snli
from stilts_jax.tasks.sources.converters import classify
from stilts_jax.tasks.spec import Source, files, hub, tfds

_released = classify("context", "hypothesis", renamed=mnli.SPELLINGS, id="uid")
_prepared = classify("premise", "hypothesis")


def _round(one: int) -> tuple[Source, ...]:
    path = f"R{one}/{{split}}.jsonl"
    return (
        files(f"anli/{path} anli/anli_v1.0/{path} anli/anli_v0.1/{path}", _released, "train dev"),
        hub("facebook/anli/plain_text", _prepared, f"train:train_r{one} dev:dev_r{one}"),
        tfds(f"anli/r{one}", _released, "train dev"),
    )


_PARTS = {"snli": snli.TASK.sources, "mnli": mnli.TASK.sources}
_PARTS |= {f"anli_r{one}": _round(one) for one in (1, 2, 3)}

TASK = replace(
    snli.TASK,
    name="anli",
    title="ANLI",
    version=2,
    counts={"train": 1_104_934, "dev": 22_857},  # 16,946, 45,460 and 100,459 are of the rounds
    sources=tuple(replace(source, part=part) for part, sources in _PARTS.items() for source in sources),
)
