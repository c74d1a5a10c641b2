"""What the columns of hub repositories and TFDS builders are, as their documentation has it.

A column is ``"text"``, ``"int"``, ``"bool"``, a tuple of class names, a list with what it is a list of, or a
mapping of columns. Data is checked against this before it is read, so that a changed repository is an error
that names the column and not a wrong number later.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stilts_jax.errors import DataError
from stilts_jax.tasks.spec import names

Column = str | tuple[str, ...] | list | Mapping[str, Any]

_NLI = ("entailment", "neutral", "contradiction")
_ENTITIES = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
_UPOS = names("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X")
_PREMISES: Mapping[str, Column] = {"premise": "text", "hypothesis": "text", "label": _NLI}
_ANSWERS: Column = {"text": ["text"], "answer_start": ["int"]}
_QUESTIONS: Mapping[str, Column] = {"id": "text", "context": "text", "question": "text", "answers": _ANSWERS}
_COPA: Mapping[str, Column] = {
    "premise": "text",
    "choice1": "text",
    "choice2": "text",
    "question": "text",
    "idx": "int",
}
_TRANSLATED: Mapping[str, Column] = {
    "premise": {},
    "hypothesis": {"language": ["text"], "translation": ["text"]},
    "label": _NLI,
}
_SENTENCES: Mapping[str, Column] = {"sentence1": "text", "sentence2": "text"}
_PAIRED: Mapping[str, Column] = {"source_sentence": "text", "target_sentence": "text"}


@dataclass(frozen=True)
class Schema:
    """Where a data set is documented, and the columns that are read of it."""

    documentation: str
    columns: Mapping[str, Column]


def _hub(repository: str, columns: Mapping[str, Column]) -> Schema:
    return Schema(f"https://huggingface.co/datasets/{repository}", columns)


def _tfds(builder: str, columns: Mapping[str, Column]) -> Schema:
    return Schema(f"https://www.tensorflow.org/datasets/catalog/{builder}", columns)


# By repository and configuration, as tasks name them.
HUB: Mapping[tuple[str, str], Schema] = {
    ("nyu-mll/glue", "mnli"): _hub("nyu-mll/glue", {**_PREMISES, "idx": "int"}),
    ("nyu-mll/glue", "qqp"): _hub(
        "nyu-mll/glue",
        {"question1": "text", "question2": "text", "label": ("not_duplicate", "duplicate"), "idx": "int"},
    ),
    ("facebook/xnli", "{language}"): _hub("facebook/xnli", _PREMISES),
    ("facebook/anli", "plain_text"): _hub("facebook/anli", {"uid": "text", **_PREMISES, "reason": "text"}),
    ("stanfordnlp/snli", "plain_text"): _hub("stanfordnlp/snli", _PREMISES),
    ("rajpurkar/squad", "plain_text"): _hub("rajpurkar/squad", _QUESTIONS),
    ("rajpurkar/squad_v2", "squad_v2"): _hub("rajpurkar/squad_v2", _QUESTIONS),
    ("google/xquad", "xquad.{language}"): _hub("google/xquad", _QUESTIONS),
    ("google-research-datasets/tydiqa", "secondary_task"): _hub(
        "google-research-datasets/tydiqa", _QUESTIONS
    ),
    ("Rowan/hellaswag", "default"): _hub(
        "Rowan/hellaswag",
        {"ind": "int", "ctx_a": "text", "ctx_b": "text", "ctx": "text", "endings": ["text"], "label": "text"},
    ),
    ("allenai/cosmos_qa", "default"): _hub(
        "allenai/cosmos_qa",
        {"id": "text", "context": "text", "question": "text"}
        | {f"answer{index}": "text" for index in range(4)}
        | {"label": "int"},
    ),
    ("tau/commonsense_qa", "default"): _hub(
        "tau/commonsense_qa",
        {
            "id": "text",
            "question": "text",
            "question_concept": "text",
            "choices": {"label": ["text"], "text": ["text"]},
            "answerKey": "text",
        },
    ),
    ("allenai/social_i_qa", "default"): _hub(
        "allenai/social_i_qa",
        {
            "context": "text",
            "question": "text",
            "answerA": "text",
            "answerB": "text",
            "answerC": "text",
            "label": "text",
        },
    ),
    ("aps/super_glue", "copa"): _hub("aps/super_glue", {**_COPA, "label": ("choice1", "choice2")}),
    ("cambridgeltl/xcopa", "{language}"): _hub(
        "cambridgeltl/xcopa", {**_COPA, "label": "int", "changed": "bool"}
    ),
    ("google-research-datasets/paws-x", "{language}"): _hub(
        "google-research-datasets/paws-x", {"id": "int", **_SENTENCES, "label": ("0", "1")}
    ),
    ("unimelb-nlp/wikiann", "{language}"): _hub(
        "unimelb-nlp/wikiann",
        {"tokens": ["text"], "ner_tags": [_ENTITIES], "langs": ["text"], "spans": ["text"]},
    ),
    ("google/xtreme", "XNLI"): _hub(
        "google/xtreme", {"language": "text", **_SENTENCES, "gold_label": "text"}
    ),
    ("google/xtreme", "PAWS-X.{language}"): _hub("google/xtreme", {**_SENTENCES, "label": "text"}),
    ("google/xtreme", "PAN-X.{language}"): _hub(
        "google/xtreme", {"tokens": ["text"], "ner_tags": [_ENTITIES], "langs": ["text"]}
    ),
    ("google/xtreme", "udpos.{language}"): _hub("google/xtreme", {"tokens": ["text"], "pos_tags": [_UPOS]}),
    ("google/xtreme", "XQuAD.{language}"): _hub("google/xtreme", _QUESTIONS),
    ("google/xtreme", "MLQA.{language}.{language}"): _hub("google/xtreme", {**_QUESTIONS, "title": "text"}),
    ("google/xtreme", "tydiqa"): _hub("google/xtreme", {**_QUESTIONS, "title": "text"}),
    ("google/xtreme", "tatoeba.{language}"): _hub(
        "google/xtreme", {**_PAIRED, "source_lang": "text", "target_lang": "text"}
    ),
}
TFDS: Mapping[tuple[str, str], Schema] = {
    ("multi_nli", ""): _tfds("multi_nli", _PREMISES),
    ("xtreme_xnli", ""): _tfds("xtreme_xnli", _TRANSLATED),
    ("xnli", ""): _tfds("xnli", _TRANSLATED),
    ("snli", ""): _tfds("snli", _PREMISES),
    **{
        ("anli", config): _tfds(
            "anli", {"uid": "text", "context": "text", "hypothesis": "text", "label": ("e", "n", "c")}
        )
        for config in ("r1", "r2", "r3")
    },
    ("glue", "qqp"): _tfds(
        "glue",
        {"question1": "text", "question2": "text", "label": ("not_duplicate", "duplicate"), "idx": "int"},
    ),
    ("squad", "v1.1"): _tfds("squad", _QUESTIONS),
    ("squad", "v2.0"): _tfds("squad", {**_QUESTIONS, "is_impossible": "bool"}),
    ("cosmos_qa", ""): _tfds(
        "cosmos_qa",
        {"id": "text", "context": "text", "question": "text"}
        | {f"answer{index}": "text" for index in range(4)}
        | {"label": ("0", "1", "2", "3")},
    ),
    ("super_glue", "copa"): _tfds("super_glue", {**_COPA, "label": ("choice1", "choice2")}),
    ("paws_x_wiki", "{language}"): _tfds(
        "paws_x_wiki", {**_SENTENCES, "label": ("different_meaning", "paraphrase")}
    ),
    ("wikiann", "{language}"): _tfds(
        "wikiann", {"tokens": ["text"], "tags": [_ENTITIES], "langs": ["text"], "spans": ["text"]}
    ),
    ("xtreme_pos", "xtreme_pos_{language}"): _tfds("xtreme_pos", {"tokens": ["text"], "upos": [_UPOS]}),
    ("xquad", "{language}"): _tfds("xquad", _QUESTIONS),
    ("mlqa", "{language}"): _tfds("mlqa", _QUESTIONS),
    ("tydi_qa", "goldp"): _tfds("tydi_qa", _QUESTIONS),
    ("tatoeba", "tatoeba_{language}"): _tfds(
        "tatoeba", {**_PAIRED, "source_language": "text", "target_language": "text"}
    ),
}


def check_columns(schema: Schema, columns: Mapping[str, Column], where: str) -> Mapping[str, Column]:
    """Returns the columns to read, with the class names that the data itself has.

    Args:
        schema: what the documentation says.
        columns: what the data has.
        where: the data, for errors.

    Raises:
        DataError: a column is missing or of another kind.
    """
    for name, expected in schema.columns.items():
        if name not in columns:
            _refuse(f"there is no column {name!r}, only {', '.join(map(repr, columns))}", schema, where)
        if not _fits(expected, columns[name]):
            _refuse(
                f"the column {name!r} is {columns[name]!r}, where {expected!r} was expected", schema, where
            )
    return {name: _with_names(expected, columns[name]) for name, expected in schema.columns.items()}


def _refuse(what: str, schema: Schema, where: str) -> None:
    raise DataError(
        what, where=where, fix=f"compare it with {schema.documentation}; read the task from files meanwhile"
    )


def _fits(expected: Column, actual: Column) -> bool:
    if isinstance(expected, tuple):  # names may be lost (parquet of other tools), never others
        return actual == "int" or (isinstance(actual, tuple) and set(actual) >= set(expected))
    if isinstance(expected, list):
        return isinstance(actual, list) and _fits(expected[0], actual[0])
    if isinstance(expected, Mapping):
        return isinstance(actual, Mapping) and all(
            key in actual and _fits(column, actual[key]) for key, column in expected.items()
        )
    return expected == actual


def _with_names(expected: Column, actual: Column) -> Column:
    if isinstance(expected, list) and isinstance(actual, list):
        return [_with_names(expected[0], actual[0])]
    return expected if actual == "int" else actual


def name_classes(columns: Mapping[str, Column]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Returns a function that puts names in the place of class numbers (None for -1) in a row."""

    def name(column: Column, value: Any) -> Any:
        if isinstance(column, tuple):
            return None if value is None or value < 0 else column[value]
        if isinstance(column, list) and isinstance(column[0], tuple):
            return [name(column[0], item) for item in value]
        return value

    return lambda row: {key: name(column, row[key]) for key, column in columns.items()}
