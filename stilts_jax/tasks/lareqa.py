"""LAReQA (XQuAD-R): the sentence that answers a question, among those of all languages.

Trained as a dual encoder on SQuAD 1.1: question, and answer sentence with its whole paragraph behind it in
one text (without a separator, as XTREME-R has it). SQuAD's dev set selects; the test set, ranked over the one
pool of all languages, is reported. Every question has a right sentence in each language.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

from stilts_jax.tasks.sources.converters import span
from stilts_jax.tasks.sources.documents import BadRow
from stilts_jax.tasks.sources.files import state_of
from stilts_jax.tasks.sources.readers import read_squad
from stilts_jax.tasks.sources.retrieval import check_sentences
from stilts_jax.tasks.sources.rows import Problems, Row
from stilts_jax.tasks.sources.sentences import check_spans, find_sentences, sentence_at
from stilts_jax.tasks.spec import (
    EmbedExample,
    Files,
    Hyperparameters,
    Pools,
    Prepared,
    RetrievalSet,
    Sources,
    Task,
)
from stilts_jax.tasks.xquad import TASK as XQUAD

_read_answer = span(stripped=True)


def _answer_text(sentence: str, paragraph: str) -> str:
    return (sentence + paragraph).replace("\n", "")


def _pair(row: Row) -> EmbedExample | None:
    question = _read_answer(row)
    if not question.answers:
        raise BadRow("the question has no answer")
    breaks = find_sentences(question.context)
    found = sentence_at(question.answers[0][1], breaks)
    if found is None:
        return None
    start, end = breaks[found]
    return EmbedExample(
        question.id, question.question, _answer_text(question.context[start:end], question.context)
    )


def _build(paths: Mapping[str, tuple[Path, ...]], language: str, problems: Problems) -> RetrievalSet:
    queries, candidates, answers, skipped = _read_pool(state_of(paths["pool"]), problems.budget)
    problems.found += skipped
    ours = queries.get(language, [])
    gold = {query.id: answers[query.id.rpartition("_")[0]] for query in ours}
    return RetrievalSet(ours, candidates, gold)


@functools.lru_cache(maxsize=1)  # every language has the same pool, the very same object
def _read_pool(
    states: tuple[tuple[Path, int, int], ...], budget: int
) -> tuple[dict[str, list[EmbedExample]], list[EmbedExample], dict[str, tuple[str, ...]], list[str]]:
    """Returns queries by language, candidates, the right ones by question, and what was skipped."""
    problems = Problems("lareqa, test, all languages", budget)
    queries: dict[str, list[EmbedExample]] = {}
    candidates: list[EmbedExample] = []
    answers: dict[str, tuple[str, ...]] = {}
    for path, _, _ in states:
        language = path.name.partition(".")[0]
        ours = queries[language] = []
        seen: set[str] = set()
        number, sentences = 0, []
        for row in read_squad(path, language, problems):
            with problems.skipping(path, row):
                question = _read_answer(row)
                if not question.answers:
                    raise BadRow("answers is empty")
                context, place = question.context, row.integer("paragraph")
                breaks = check_spans("sentence_breaks", row.pairs("sentence_breaks"), context)
                if place != number:
                    cut = [context[start:end] for start, end in breaks]
                    candidates += check_sentences(
                        EmbedExample(f"{language}_{place}_{index}", _answer_text(sentence, context))
                        for index, sentence in enumerate(cut)
                    )
                    number, sentences = place, cut
                name = question.id
                if name in seen:
                    raise BadRow(f"the id {name!r} occurred before")
                seen.add(name)
                found = sentence_at(question.answers[0][1], breaks)
                if found is None:
                    raise BadRow(f"the answer of question {name!r} is in no sentence")
                ours += check_sentences([EmbedExample(f"{name}_{language}", question.question)])
                # A sentence that stands twice in its paragraph is right at both places.
                right = [index for index, sentence in enumerate(sentences) if sentence == sentences[found]]
                answers[name] = (
                    *answers.get(name, ()),
                    *(f"{language}_{number}_{index}" for index in right),
                )
    return queries, candidates, answers, problems.found


TASK = Task(
    name="lareqa",
    version=1,
    kind="embed",
    group="retrieval",
    description="the sentence that answers a question, in any of 11 languages (XQuAD-R)",
    languages=XQUAD.languages,
    split_languages={"dev": ("en",)},
    metric="map",
    retrieval="ranking",
    shared_candidates=True,
    hyperparameters={
        "paper": Hyperparameters(2e-5, 16, 3, max_length=256, weight_decay=0, max_query_length=96),
        "xtreme": Hyperparameters(2e-5, 16, 3, max_length=256, weight_decay=0, max_query_length=96),
    },
    counts={"test": 1_190},
    sources=Sources(
        files=(
            Files(
                paths={"train": ("squad/train-v1.1.json",), "dev": ("squad/dev-v1.1.json",)},
                read=read_squad,
                convert=_pair,
            ),
        ),
        pools=(
            Pools(
                paths={
                    "test": {"queries": "lareqa/xquad-r/{language}.json", "pool": "lareqa/xquad-r/*.json"}
                },
                build=_build,
            ),
        ),
        hub=(
            Prepared(
                name="rajpurkar/squad",
                config="plain_text",
                splits={"train": "train", "dev": "validation"},
                convert=_pair,
            ),
        ),
    ),
)
