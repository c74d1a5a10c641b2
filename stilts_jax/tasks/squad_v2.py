"""SQuAD 2.0: questions of which some have no answer, where a model has to say so."""

from dataclasses import replace

from stilts_jax.tasks.sources.converters import span
from stilts_jax.tasks.spec import files, hub, tfds
from stilts_jax.tasks.squad_v1 import TASK as SQUAD

TASK = replace(
    SQUAD,
    name="squad_v2",
    title="SQuAD v2.0",
    metric="squad_v2",
    counts={"train": 130_319, "dev": 11_873},
    sources=(
        files("squad/{split}-v2.0.json", span(unanswerable=True), "train dev"),
        hub("rajpurkar/squad_v2/squad_v2", span(unanswerable=True, stripped=True), "train dev"),
        tfds("squad/v2.0", span(unanswerable=True), "train dev"),
    ),
)
