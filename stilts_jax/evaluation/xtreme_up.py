"""XTREME-UP's text tasks in its own files, ``TASK/test/LL.jsonl``, scored by the rules of its script.

| task | a line of predictions | a line of gold |
|---|---|---|
| ner | ``{"prediction": "PER: Ada $$ LOC: Lagos"}`` | ``{"target": "PER: Ada $$ LOC: Lagos"}`` |
| qa_in_lang, qa_cross_lang | ``{"prediction": answer}`` | ``{"target": answer}`` |
| retrieval_in_lang, retrieval_cross_lang | ``{"prediction": [id, ...]}``, best first | ``{"id": id}`` |

Names may also be predicted as this package's tags, in ``masakhaner_x/test-LL.tsv`` or ``masakhaner_x@LL/test-LL.tsv``,
and their gold may lie in the release's ``masakhaner_x/test/LL.jsonl``, whose texts say what the tags stand for.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stilts_jax.errors import DataError
from stilts_jax.evaluation.benchmarks import summarise_tasks
from stilts_jax.evaluation.metrics import find_chunks, normalise_english, token_f1
from stilts_jax.evaluation.submission import MEND, check_count, read_tags, score_languages
from stilts_jax.files import write_lines
from stilts_jax.tasks.masakhaner_x import TASK as MASAKHANER_X
from stilts_jax.tasks.sources import read
from stilts_jax.tasks.sources.converters import word_places
from stilts_jax.tasks.sources.files import find
from stilts_jax.tasks.sources.readers import read_jsonl
from stilts_jax.tasks.sources.rows import Problems, Row
from stilts_jax.tasks.spec import names

Scores = dict[str, float]
_TINY = 1e-13  # the official script adds it to every denominator, so a perfect score is a little below 100
_BETWEEN = " $$ "
_OFFICIAL = "{}/test/{}.jsonl"  # of a task and a language


def span_f1(predictions: Sequence[str], gold: Sequence[str]) -> Scores:
    """Micro F1 of labelled names, example by example; what has not exactly one ":" is no name on either side."""
    ours, theirs = (
        Counter((number, *name) for number, text in enumerate(side) for name in _parse_names(text))
        for side in (predictions, gold)
    )
    right = (ours & theirs).total()
    precision, recall = right / (ours.total() + _TINY), right / (theirs.total() + _TINY)
    f1 = 2 * precision * recall / (precision + recall + _TINY)
    return {"f1": 100 * f1, "precision": 100 * precision, "recall": 100 * recall}


def _parse_names(text: str) -> list[tuple[str, ...]]:
    parts = [tuple(word.strip() for word in part.split(":")) for part in text.split(_BETWEEN)]
    return [part for part in parts if len(part) == 2]


def answer_f1(predictions: Sequence[str], gold: Sequence[str]) -> Scores:
    """Token F1 and exact match of the one answer of each question, normalised as SQuAD's are."""
    pairs = [(normalise_english(ours), normalise_english(theirs)) for ours, theirs in zip(predictions, gold)]
    f1, exact = (sum(values) for values in ((token_f1(*pair) for pair in pairs), (a == b for a, b in pairs)))
    return {"f1": 100 * f1 / len(pairs), "em": 100 * exact / len(pairs)}


def reciprocal_rank(predictions: Sequence[Sequence[Any]], gold: Sequence[Any]) -> Scores:
    """Mean reciprocal rank of the right passage, however far down it stands; the script gives a fraction."""
    found = [1 / (ours.index(right) + 1) if right in ours else 0.0 for ours, right in zip(predictions, gold)]
    return {"mrr": 100 * sum(found) / len(found)}


def _find_release(root: Path, code: str) -> Sequence[Path]:
    return find(MASAKHANER_X.sources[0], "test", code, root).get("", ())


class OfficialTask(NamedTuple):
    """A task of the benchmark: its under-represented languages, over which averages run, and how it is scored."""

    name: str
    languages: tuple[str, ...]
    score: Callable[[Sequence[Any], Sequence[Any]], Scores]
    metric: str = "f1"  # the value that is its number


_IN = names("bn id sw te")
_CROSS = names("as bho bn brx gbm gom gu hne kn mai ml mni mr mwr or pa ps sa ta te ur")
_ALL = (
    OfficialTask("ner", MASAKHANER_X.languages, span_f1),
    OfficialTask("qa_in_lang", _IN, answer_f1),
    OfficialTask("qa_cross_lang", _CROSS, answer_f1),
    OfficialTask("retrieval_in_lang", _IN, reciprocal_rank, "mrr"),
    OfficialTask("retrieval_cross_lang", _CROSS, reciprocal_rank, "mrr"),
)
TASKS: Mapping[str, OfficialTask] = {task.name: task for task in _ALL}


def score_files(predictions: Path, gold: Path) -> dict[str, Any]:
    """Scores all that has predictions and gold; returns what ``benchmarks.summarise`` does, as far as it applies."""
    scores = score_languages(TASKS, _score_language, predictions, gold, _OFFICIAL.format("TASK", "LL"))
    # The benchmark's average takes tasks of speech and generation too.
    return {"benchmark": "xtreme-up", "overall": None, **summarise_tasks(TASKS, scores)}


def write_names(
    predictions: Path, source: read.DataSource, predicted: Mapping[str, Collection[str]]
) -> list[str]:
    """Writes the names of MasakhaNER-X beside the tags that say them, in the benchmark's own file.

    ``predicted`` are the languages of each task. Returns those without such a file, as rows of the release are skipped:
    it would not have a line for each sentence.
    """
    incomplete = []
    for code in MASAKHANER_X.languages:
        tasks = [name for name, languages in predicted.items() if code in languages]
        given = _find_tags(predictions, code, tasks) if tasks else None
        release = _find_release(source.root, code)
        if given and release:
            if source.skip_budget and read.read_counted(MASAKHANER_X, "test", code, source).skipped:
                incomplete.append(code)
                continue
            records = ({"prediction": text} for text in _spell_names(given, release[0]))
            lines = [json.dumps(record, ensure_ascii=False) for record in records]
            write_lines(predictions / _OFFICIAL.format("ner", code), lines)
    return incomplete


def remove_names(predictions: Path, task: str, code: str) -> None:
    """Removes the file of names that an earlier run may have made of other tags: it would be scored in their place."""
    if task.partition("@")[0] == MASAKHANER_X.name:
        (predictions / _OFFICIAL.format("ner", code)).unlink(missing_ok=True)


def _find_tags(folder: Path, code: str, tasks: Sequence[str] = ()) -> Path | None:
    """The file of a language's tags, of ``tasks`` if any are named."""
    known = (f"{MASAKHANER_X.name}@{code}", MASAKHANER_X.name)
    paths = (folder / task / f"test-{code}.tsv" for task in known if not tasks or task in tasks)
    return next(filter(Path.is_file, paths), None)


def _spell_names(given: Path, release: Path) -> list[str]:
    """The names that a file of tags says, by sentences of the release, as the official files spell them."""
    sentences, texts, spelled = read_tags(given)[0], _read(release, lambda row: row["text"]), []
    check_count(given, sentences, release, texts)
    for number, (text, tags) in enumerate(zip(texts, sentences), 1):
        words, where = word_places(text), f"{given}, sentence {number}"
        if len(words) != len(tags):
            what = f"{len(tags)} tags for the {len(words)} words of {text[:60]!r}."
            raise DataError(what, where=where, fix="give every word one tag")
        if wrong := next((tag for tag in tags if not re.fullmatch("O|[BI]-.+", tag)), ""):
            raise DataError(f"{wrong[:60]!r} is not a tag.", where=where, fix="write O, B-TYPE or I-TYPE")
        found = sorted((first, last, label) for label, first, last in find_chunks(tags))
        labelled = (f"{label}: {text[words[first][0] : words[last][1]]}" for first, last, label in found)
        spelled.append(_BETWEEN.join(labelled))
    return spelled


def _score_language(task: OfficialTask, code: str, predictions: Path, gold: Path) -> Scores | None:
    official = _OFFICIAL.format(task.name, code)
    given, wanted = predictions / official, gold / official
    tags = _find_tags(predictions, code) if task.name == "ner" and not given.is_file() else None
    if task.name == "ner" and not wanted.is_file():
        wanted = next(iter(_find_release(gold, code)), wanted)
    if not tags and not given.is_file():
        return None
    if not wanted.is_file():
        return {}
    is_ranked = task.metric == "mrr"
    right = _read(wanted, lambda row: row.id("id") if is_ranked else row.text("target"))
    texts = Row.texts if is_ranked else Row.text
    predicted = _spell_names(tags, wanted) if tags else _read(given, lambda row: texts(row, "prediction"))
    check_count(tags or given, predicted, wanted, right)
    if not any(right):
        raise DataError("Gold is blank in all lines.", where=str(wanted), fix="take gold that has answers")
    return task.score(predicted, right)


def _read(path: Path, column: Callable[[Row], Any]) -> list[Any]:
    problems, found = Problems("XTREME-UP", fix=MEND), []
    for row in read_jsonl(path, "", problems):
        with problems.skipping(path, row):
            found.append(column(row))
    return found
