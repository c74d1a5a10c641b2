"""MLQA: questions about Wikipedia in seven languages; trained on SQuAD 1.1. Files that mix languages are not read."""

from dataclasses import replace

from stilts_jax.tasks.sources.converters import span
from stilts_jax.tasks.spec import counts, files, hub, names, tfds
from stilts_jax.tasks.xquad import TASK as XQUAD

LANGUAGES = names("en es de ar hi vi zh")

TASK = replace(
    XQUAD,
    name="mlqa",
    title="MLQA",
    languages=LANGUAGES,
    metric="mlqa",
    counts={
        "dev": counts("en:1148 de:512 es:500 ar:517 zh:504 vi:511 hi:507"),
        "test": counts("en:11590 de:4517 es:5253 ar:5335 zh:5137 vi:5495 hi:4918"),
    },
    sources=(
        files("mlqa/MLQA_V1/{split}/{split}-context-{language}-question-{language}.json", span(), "dev test"),
        hub("google/xtreme/MLQA.{language}.{language}", span(stripped=True), "dev test", languages=LANGUAGES),
        tfds("mlqa/{language}", span(), "dev test", languages=LANGUAGES),
    ),
)
