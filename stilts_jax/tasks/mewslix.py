"""Mewsli-X: the entity of Wikidata that a text in one of eleven languages mentions, among a million in one pool.

Trained as a dual encoder on English Wikipedia, to the last step: a mention in its sentence, and the entity's
description. Test mentions are news; candidates are described in many languages.
"""

from stilts_jax.tasks.sources.retrieval import build_mentions, mention_pair
from stilts_jax.tasks.spec import XTREME, Hyperparameters, Task, files, names

_ROLES = {
    "queries": "mewslix/wikinews_mentions/{split}-{language}.jsonl",
    "candidates": "mewslix/candidate_set_entities.jsonl",
    "gold": "mewslix/wikinews_labels/{split}-{language}.json",
}
_SETTINGS = {"epochs": 2, "max_length": 64}

TASK = Task(
    name="mewslix",
    title="Mewsli-X",
    kind="embed",
    languages=names("ar de en es fa ja pl ro ta tr uk"),
    split_languages={"dev": ("en",)},
    metric="mrr",
    retrieval="ranking",
    shared_candidates=True,
    hyperparameters={"paper": Hyperparameters(**_SETTINGS), "xtreme": XTREME(**_SETTINGS)},
    sources=(
        files("mewslix/wikipedia_pairs-{split}.jsonl", mention_pair, "train dev"),
        files(_ROLES, splits="mentions_dev:dev test", build=build_mentions),
    ),
)
