"""Reads the files of retrieval evaluations: each ``build_...`` makes the set that one language is scored on."""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stilts_jax.tasks.sources.converters import span
from stilts_jax.tasks.sources.files import States, state_of
from stilts_jax.tasks.sources.readers import read_jsonl, read_lines, read_squad
from stilts_jax.tasks.sources.rows import EVERY_ROW, BadRow, Problems, Row, check_text
from stilts_jax.tasks.spec import EmbedExample, RetrievalSet, SpanExample

Paths = Mapping[str, tuple[Path, ...]]
Gold = dict[str, tuple[str, ...]]
Sentences = list[EmbedExample]
_SAME_RELEASE = "get both files of the same release"
_read_span = span(stripped=True)


def _add(found: dict[str, EmbedExample], name: str, text: str) -> None:
    if name in found:
        raise BadRow(f"the id {name!r} occurred before")
    found[name] = EmbedExample(check_text("the id", name), check_text("the text", text))


def build_pools(paths: Paths, language: str, problems: Problems) -> RetrievalSet:
    """Two pools of ``id TAB sentence`` with pairs of ids as gold (BUCC); a query may have several."""
    queries, candidates = (_read_pool(paths[role][0], problems) for role in ("queries", "candidates"))
    if "gold" not in paths:
        return RetrievalSet(queries, candidates, None)
    (path,) = paths["gold"]
    query_ids, candidate_ids = {query.id for query in queries}, {candidate.id for candidate in candidates}
    gold: Gold = {}
    for line, text in read_lines(path, problems):
        name, _, right = text.partition("\t")
        if name in query_ids and right in candidate_ids:
            gold[name] = (*gold.get(name, ()), right)
        else:
            problems.add(f"{path}:{line}", f"the ids of a query and of a candidate were expected: {text!r}")
    return RetrievalSet(queries, candidates, gold)


def build_numbered(paths: Paths, language: str, problems: Problems) -> RetrievalSet:
    """Two files of sentences; gold has the 0-based line of each English sentence's translation (Tatoeba)."""
    queries, candidates = _read_sides(paths, language, problems)
    if "gold" not in paths:
        return RetrievalSet(queries, candidates, None)
    (path,) = paths["gold"]
    lines = list(read_lines(path, problems))
    if len(lines) != len(queries):
        what = f"there are {len(queries)} queries, and gold for {len(lines)}"
        raise problems.refuse(path, what, _SAME_RELEASE)
    right = {str(number): (candidate.id,) for number, candidate in enumerate(candidates)}
    gold: Gold = {}
    for query, (line, text) in zip(queries, lines):
        if text.strip() not in right:  # never skipped: a query without gold would count as wrong
            what = f"{text!r} is no line of the {len(candidates)} candidates (from 0 on)"
            raise problems.refuse(f"{path}:{line}", what, _SAME_RELEASE)
        gold[query.id] = right[text.strip()]
    return RetrievalSet(queries, candidates, gold)


def build_parallel(paths: Paths, language: str, problems: Problems) -> RetrievalSet:
    """Two files of sentences in the same order (LASER's release of Tatoeba)."""
    return _sort_english(list(zip(*_read_sides(paths, language, problems))))


def build_translated(rows: Iterable[tuple[Path, Row]], language: str, problems: Problems) -> RetrievalSet:
    """Rows of a sentence and its English translation (Tatoeba of the hub and TFDS)."""
    pairs: list[Sequence[EmbedExample]] = []
    for path, row in rows:
        with problems.skipping(path, row):
            texts = [row[name].strip("\n") for name in ("target_sentence", "source_sentence")]
            pairs.append([EmbedExample(f"{language}-{len(pairs)}", text) for text in texts])
    return _sort_english(pairs)


def _sort_english(pairs: Sequence[Sequence[EmbedExample]]) -> RetrievalSet:
    """Returns XTREME's form of English sentences and their translations."""
    ordered = sorted(pairs, key=lambda pair: pair[0].text)
    queries = [EmbedExample(f"en-{line}", english.text) for line, (english, _) in enumerate(ordered)]
    gold = {query.id: (other.id,) for query, (_, other) in zip(queries, ordered)}
    return RetrievalSet(queries, [other for _, other in pairs], gold)


def _read_sides(paths: Paths, language: str, problems: Problems) -> list[Sentences]:
    """Returns English sentences and theirs; a line that can't be used is never skipped, as gold counts lines."""
    whole = Problems(problems.what)
    roles = {"queries": "en", "candidates": language}
    sides = [_read_pool(paths[role][0], whole, code) for role, code in roles.items()]
    if len(sides[0]) != len(sides[1]):
        what = f"{len(sides[0])} English sentences have {len(sides[1])} translations"
        raise problems.refuse(f"{paths['queries'][0]} and {paths['candidates'][0]}", what, _SAME_RELEASE)
    return sides


def _read_pool(path: Path, problems: Problems, code: str = "") -> Sentences:
    """Returns sentences of lines ``id TAB sentence``, or with a ``code`` of whole lines: ids are ``CODE-LINE``."""
    found: dict[str, EmbedExample] = {}
    for line, text in read_lines(path, problems):
        name, tab, sentence = (f"{code}-{line - 1}", "\t", text) if code else text.partition("\t")
        with problems.skipping(path, Row(line, 0, {})):
            if not tab:
                raise BadRow(f"an id, a tab and a sentence were expected: {text!r}")
            _add(found, name, sentence)
    if not found:
        raise problems.refuse(path, "the file is empty: it has no sentences")
    return list(found.values())


# The end of a sentence may be followed by quotes, brackets and a reference such as [12]; the next sentence begins
# with a capital, a digit or an opening quote.
_END = re.compile(r"[.?!][)'\"\u201d\u2019\]]*(?:\[[\w .?]{1,20}\])*\s+(?=[\[('\"\u201c\u2018]*[A-Z0-9])")
_ABBREVIATIONS = re.compile(
    r"\b(?:Mrs?|Ms|Drs?|Prof|Fr|Rev|Sta?|Lt|Gen|Col|Maj|Adm|Capt|Sgt|Rep|Gov|Sen|Pres|Hon|Jr|Mt|Ft|Jan|Feb|Aug|Sept?"
    r"|Oct|Nov|Dec|e\.g|i\.e|vs?|pp?|cf|ca?|approx|fl|et al|[A-Z]|[A-Z]\.[A-Z])\.\s+$"
)
_NUMBERED = re.compile(r"\b(?:[Aa]rt|[Nn]o|[Vv]ol|ch|[Ss]ec)\.\s+$")
_OPENERS = re.compile(r"(?:The|This|That|These|It|In|On|However|Meanwhile|After|During|Although)\b")


@functools.lru_cache(maxsize=16)  # the questions about a paragraph come one after the other
def find_sentences(text: str) -> tuple[tuple[int, int], ...]:
    """Returns start and end of each sentence of an English text, without the space between them."""
    breaks = []
    start = len(text) - len(text.lstrip())
    for match in _END.finditer(text):
        after = match.end()
        # An abbreviation or an initial goes on, unless a word that often begins a sentence comes next.
        goes_on = _ABBREVIATIONS.search(text, start, after) and not _OPENERS.match(text, after)
        if not goes_on and not (_NUMBERED.search(text, start, after) and text[after].isdecimal()):
            breaks.append((start, start + len(text[start:after].rstrip())))
            start = after
    end = len(text.rstrip())
    return (*breaks, (start, end)) if start < end else tuple(breaks)


def _read_breaks(row: Row, name: str, text: str) -> list[tuple[int, int]]:
    """Returns start and end of each sentence of a text, as a column lists them."""
    breaks, size = [], len(text)
    for index, place in enumerate(row.take(name, list)):
        match place:
            case [int(start), int(end)] | {"start": int(start), "end": int(end)} if 0 <= start < end <= size:
                breaks.append((start, end))
            case _:
                what = f"{row.within}{name}[{index}] is {place!s:.60}"
                raise BadRow(f"{what}, no start and end in a text of {size} characters")
    return breaks


def _sentence_at(position: int, breaks: Iterable[tuple[int, int]]) -> int | None:
    """Returns the index of the sentence that holds a character; None where it stands between sentences."""
    return next((index for index, (start, end) in enumerate(breaks) if start <= position < end), None)


def _read_question(row: Row) -> SpanExample:
    question: SpanExample = _read_span(row, ())
    if not question.answers:
        raise BadRow("answers is empty: the question has no answer")
    return question


def answer_pair(row: Row, labels: tuple[str, ...]) -> EmbedExample | None:
    """Returns a question of SQuAD and the sentence with its answer; None where that stands between sentences."""
    question = _read_question(row)
    breaks = find_sentences(question.context)
    if (found := _sentence_at(question.answers[0][1], breaks)) is None:
        return None
    sentence = question.context[slice(*breaks[found])]
    return EmbedExample(question.id, question.question, (sentence + question.context).replace("\n", ""))


def build_answers(paths: Paths, language: str, problems: Problems) -> RetrievalSet:
    """The questions of a language, and the sentences of all languages (LAReQA)."""
    queries, candidates, answers, skipped = _read_sentences(state_of(paths["candidates"]))
    problems.add_all(skipped)
    ours = queries.get(language, [])
    return RetrievalSet(ours, candidates, {query.id: answers[query.id.rpartition("_")[0]] for query in ours})


@functools.lru_cache(maxsize=1)  # every language has the same pool, the very same object
def _read_sentences(states: States) -> tuple[dict[str, Sentences], Sentences, Gold, Problems]:
    """Returns queries by language, candidates, the right ones by question, and what was skipped."""
    problems = Problems("lareqa, test, all languages", EVERY_ROW)
    queries: dict[str, Sentences] = {}
    candidates: dict[str, EmbedExample] = {}
    answers: Gold = {}
    for path, *_ in states:
        language = path.name.partition(".")[0]
        ours: dict[str, EmbedExample] = {}
        for row in read_squad(path, language, problems):
            with problems.skipping(path, row):
                question = _read_question(row)
                context, name = question.context, question.id
                breaks = _read_breaks(row, "sentence_breaks", context)
                sentences = [context[start:end] for start, end in breaks]
                ids = [f"{language}_{row.take('paragraph', int)}_{index}" for index in range(len(breaks))]
                for one, sentence in zip(ids, sentences):
                    if one not in candidates:
                        _add(candidates, one, (sentence + context).replace("\n", ""))
                if (found := _sentence_at(question.answers[0][1], breaks)) is None:
                    raise BadRow(f"the answer of question {name!r} is in no sentence")
                _add(ours, f"{name}_{language}", question.question)
                # A sentence that stands twice in its paragraph is right at both places.
                right = [one for one, sentence in zip(ids, sentences) if sentence == sentences[found]]
                answers[name] = (*answers.get(name, ()), *right)
        queries[language] = list(ours.values())
    return queries, list(candidates.values()), answers, problems


def mention_pair(row: Row, labels: tuple[str, ...]) -> EmbedExample:
    """Returns a mention of Wikipedia in its sentence, and the description of its entity."""
    contextual = row.part("contextual_mention")
    mention = contextual.part("mention")
    text = _mention_text(contextual.part("context"), mention)
    return EmbedExample(mention.id("example_id"), text, _describe_entity(row.part("entity")))


def build_mentions(paths: Paths, language: str, problems: Problems) -> RetrievalSet:
    """The mentions of a language, and all entities (Mewsli-X)."""
    queries: dict[str, EmbedExample] = {}
    gold: Gold = {}
    places: dict[str, str] = {}
    (path,) = paths["queries"]
    for row in read_jsonl(path, language, problems):
        with problems.skipping(path, row):
            for mention in row.parts("mentions"):
                name = mention.id("example_id")
                _add(queries, name, _mention_text(row.part("context"), mention))
                places[name] = row.where(path)
                gold[name] = (mention.id("entity_id"),) if mention.get("entity_id") else ()
    for path in paths.get("gold", ()):
        links, places = Row.document(path), dict.fromkeys(queries, str(path))
        gold = dict.fromkeys(queries, ())
        for name in links.fields:
            gold.pop(name, None)  # a list that can't be used is counted once
            with problems.skipping(path, links):
                check_text("the id of a mention", name)
                gold[name] = tuple(filter(None, links.texts(name)))
    for name in queries if any(gold.values()) else ():
        if gold.get(name) == ():
            what = f"gold of the mention {name!r} is blank or missing, and others have it"
            problems.add(places[name], what)
    entities, skipped = _read_entities(state_of(paths["candidates"]))
    problems.add_all(skipped)
    gold = {name: right for name, right in gold.items() if right}
    return RetrievalSet(list(queries.values()), entities, gold or None)


@functools.lru_cache(maxsize=1)  # every language has the same pool, the very same object
def _read_entities(states: States) -> tuple[Sentences, Problems]:
    problems = Problems("mewslix, candidates", EVERY_ROW)
    entities: Sentences = []  # one described in two languages is there twice
    for path, *_ in states:
        for row in read_jsonl(path, "", problems):
            with problems.skipping(path, row):
                entities.append(EmbedExample(row.id("entity_id"), _describe_entity(row)))
    return entities, problems


def _tidy(text: str) -> str:
    return " ".join(text.splitlines()).replace("  ", " ").strip()


def _describe_entity(entity: Row) -> str:
    description = entity["description"]
    breaks = _read_breaks(entity, "sentence_spans", description)
    return check_text("the description", _tidy(" ".join(description[start:end] for start, end in breaks)))


def _mention_text(context: Row, mention: Row) -> str:
    """Returns ``NAME: left { NAME } right`` with the one sentence that holds the mention."""
    span, text = mention.part("mention_span"), context["text"]
    start, end, name = span.take("start", int), span.take("end", int), span["text"]
    breaks = _read_breaks(context, "sentence_spans", text)
    found = _sentence_at(start, breaks)
    if found is None or end > breaks[found][1]:
        raise BadRow(f"the mention {mention.id('example_id')!r} is not inside one sentence")
    if text[start:end] != name:
        raise BadRow(f"the mention {name!r} is not at characters {start} to {end}, but {text[start:end]!r}")
    # Braces of the text itself become round, so that only the mention stands in braces.
    sides = text[breaks[found][0] : start], text[end : breaks[found][1]]
    left, right = (re.sub(r"\{(.*?)\}", r"(\1)", side) for side in sides)
    return _tidy(f"{name}: {left} {{ {name} }} {right}")
