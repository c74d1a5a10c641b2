"""LAReQA (XQuAD-R): the sentence that answers a question, ranked among those of all languages, one pool.

Trained as a dual encoder on SQuAD 1.1, to the last step: question, and answer sentence with its whole paragraph behind
it in one text (without a separator, as XTREME-R has it). Every question has a right sentence in each language.
"""

from dataclasses import replace

from stilts_jax.tasks.sources.retrieval import answer_pair, build_answers
from stilts_jax.tasks.spec import Hyperparameters, Task, files, hub
from stilts_jax.tasks.xquad import LANGUAGES

_ROLES = {"queries": "lareqa/xquad-r/{language}.json", "candidates": "lareqa/xquad-r/*.json"}
_SETTINGS = Hyperparameters(2e-5, 16, 3, max_length=256, weight_decay=0, max_query_length=96)

TASK = Task(
    name="lareqa",
    title="LAReQA",
    kind="embed",
    languages=LANGUAGES,
    aligned=True,
    split_languages={"dev": ("en",)},
    metric="map",
    retrieval="ranking",
    shared_candidates=True,
    hyperparameters={"paper": _SETTINGS, "xtreme": replace(_SETTINGS, warmup=0)},
    counts={"test": 1_190},
    sources=(
        files("squad/{split}-v1.1.json", answer_pair, "train dev"),
        files(_ROLES, splits="test", build=build_answers),
        hub("rajpurkar/squad/plain_text", answer_pair, "train dev"),
    ),
)
