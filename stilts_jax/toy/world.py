"""Writes the embedded world: data of every kind in the real release formats, and an encoder to be trained."""

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from math import log10
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

from stilts_jax.files import write_whole
from stilts_jax.progress import SILENT, Progress
from stilts_jax.toy import tasks
from stilts_jax.toy.encoder import write_encoder_folder
from stilts_jax.toy.languages import Language, Utterance, build_languages, say, spell, text_of
from stilts_jax.toy.tasks import Choice, Pair, Passage, distinct


class Size(NamedTuple):
    """How much of everything there is."""

    train: int  # items of an English training set
    copa: int  # items of COPA's English training set: the real one is small too
    dev: int  # items of a development set, in each language
    test: int  # items of a test set, in each language
    pool: int  # sentences of a retrieval pool
    text: int  # lines of English text
    parallel: int  # sentence pairs of English with each other language
    vocabulary: int  # pieces of the tokenizer
    hidden: int  # width of the encoder
    layers: int  # depth of the encoder


SIZES = {
    "test": Size(240, 240, 32, 40, 40, 300, 200, 1000, 32, 2),
    "small": Size(3200, 400, 200, 300, 200, 2500, 5000, 1200, 64, 3),
    "full": Size(6000, 400, 300, 500, 300, 5000, 10000, 1200, 96, 4),
}
# The languages of the tasks (by folder) that are not in all languages.
_SPOKEN = {
    "pawsx": ("en", "de", "es", "zh"),
    **dict.fromkeys(("udpos", "xquad", "lareqa"), ("en", "de", "es", "tr", "ru", "ar", "zh")),
    "xcopa": ("en", "sw", "tr", "zh"),
    "bucc2018": ("de", "ru", "zh"),
}
# Sets of items: whose random numbers they take, what draws one, how many (a field of `Size`), and the files that say
# them. A path with {} is written in every language of its task, others in English. Sets that the same function draws
# share no item. Whoever changes the order, or the names that seed the random numbers, changes the world of every seed.
_SETS: tuple[tuple[str, Callable[[Random], Hashable], str, tuple[str, ...]], ...] = (
    ("_write_inference", tasks.inference, "test", ("xnli/test-{}.tsv",)),
    ("_write_inference", tasks.inference, "dev", ("xnli/dev-{}.tsv",)),
    ("_write_inference", tasks.inference, "dev", ("mnli/multinli_1.0_dev_matched.jsonl",)),
    ("_write_inference", tasks.inference, "train", ("xnli/train-en.tsv", "mnli/multinli_1.0_train.jsonl")),
    ("_write_paraphrases", tasks.paraphrase, "test", ("pawsx/test-{}.tsv",)),
    ("_write_paraphrases", tasks.paraphrase, "dev", ("pawsx/dev-{}.tsv",)),
    ("_write_paraphrases", tasks.paraphrase, "train", ("pawsx/train-en.tsv",)),
    ("_write_tagging", tasks.udpos, "test", ("udpos/test-{}.tsv",)),
    ("_write_tagging", tasks.udpos, "dev", ("udpos/dev-{}.tsv",)),
    ("_write_tagging", tasks.udpos, "train", ("udpos/train-en.tsv",)),
    ("_write_tagging", tasks.panx, "test", ("panx/test-{}.tsv",)),
    ("_write_tagging", tasks.panx, "dev", ("panx/dev-{}.tsv",)),
    ("_write_tagging", tasks.panx, "train", ("panx/train-en.tsv",)),
    ("_write_questions", tasks.passage, "test", ("xquad/xquad.{}.json", "lareqa/xquad-r/{}.json")),
    ("_write_questions", tasks.passage, "dev", ("squad/dev-v1.1.json",)),
    ("_write_questions", tasks.passage, "train", ("squad/train-v1.1.json",)),
    ("_write_choices", tasks.copa, "test", ("xcopa/test-{}.jsonl",)),
    ("_write_choices", tasks.copa, "dev", ("xcopa/val-{}.jsonl",)),
    ("_write_choices", tasks.copa, "copa", ("xcopa/train-en.jsonl",)),
    ("_write_choices", tasks.siqa, "dev", ("siqa/socialIQa_v1.4_dev.jsonl",)),
    ("_write_choices", tasks.siqa, "train", ("siqa/socialIQa_v1.4_trn.jsonl",)),
    ("_write_choices", tasks.continuation, "dev", ("hellaswag/hellaswag_val.jsonl",)),
    ("_write_choices", tasks.continuation, "train", ("hellaswag/hellaswag_train.jsonl",)),
    ("_write_choices", tasks.kind_question, "dev", ("commonsenseqa/dev_rand_split.jsonl",)),
    ("_write_choices", tasks.kind_question, "train", ("commonsenseqa/train_rand_split.jsonl",)),
)


def write_world(
    root: Path, *, size: Literal["test", "small", "full"], seed: int = 0, progress: Progress = SILENT
) -> None:
    """Writes the toy world below ``root``; the same size and seed give the same bytes.

    Items are drawn once, as meanings, and said in every language, so that the languages' files are aligned.
    ``root/data`` has the tasks' data as XTREME lays them out, and ``data/text`` running and parallel text;
    ``root/encoder`` a tokenizer and ``config.json`` (its weights are to be trained); ``root/languages.csv`` the
    languages' distances from English.
    """
    languages, amounts, data = build_languages(seed), SIZES[size], root / "data"
    draws = {stream: Random(f"{stream}/{seed}") for stream in {row[0] for row in _SETS}}
    taken: defaultdict[Callable, set[Hashable]] = defaultdict(set)
    with progress.track("toy world", len(_SETS) + 3, "parts") as bar:
        for stream, make, amount, paths in _SETS:
            items = distinct(make, getattr(amounts, amount), draws[stream], taken[make])
            for path in paths:
                _write_files(data, path, items, languages)
            bar.advance()
        said = _write_retrieval(data, languages, amounts.pool, Random(f"_write_retrieval/{seed}"))
        bar.advance()
        texts: list[str] = []
        for language in languages:
            texts += _write_text(data / "text", (language, languages[0]), amounts, seed, said)
        bar.advance()
        write_encoder_folder(root / "encoder", texts, amounts.vocabulary, amounts.hidden, amounts.layers)
        _write_distances(root, languages)
        bar.advance()


def _write_files(data: Path, path: str, items: Sequence[Any], languages: Sequence[Language]) -> None:
    task = path.split("/")[0]
    for language in _speakers(task, languages) if "{}" in path else languages[:1]:
        write_whole(data / path.format(language.code), _text_of_file(task, items, language))


def _speakers(task: str, languages: Sequence[Language]) -> list[Language]:
    return [language for language in languages if task not in _SPOKEN or language.code in _SPOKEN[task]]


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    write_whole(path, "".join(line + "\n" for line in lines))


def _write_retrieval(data: Path, languages: Sequence[Language], size: int, draw: Random) -> set[Hashable]:
    """Pools of sentences, and which are translations; returns what they say: it must not be parallel text too."""
    english, said = languages[0], set[Hashable]()
    shared = distinct(tasks.retrieved, size, draw, said)
    # The English side is sorted, and the gold says where each partner stands.
    pairs = sorted((text_of(sentence, english), number) for number, sentence in enumerate(shared))
    for language in languages[1:]:
        stem = f"{data}/tatoeba/{language.code}-en"
        _write_lines(Path(f"{stem}.{language.code}"), [text_of(sentence, language) for sentence in shared])
        _write_lines(Path(f"{stem}.en"), [text for text, _ in pairs])
        _write_lines(Path(f"{stem}.gold"), [str(number) for _, number in pairs])
    for language in _speakers("bucc2018", languages):
        for split, count in (("dev", size // 2), ("test", size)):
            stem = f"{data}/bucc2018/{language.code}-en.{split}"
            shared, *others = (distinct(tasks.retrieved, n, draw, said) for n in (count // 2, count, count))
            numbers = []
            for spoken, only in zip((language, english), others, strict=True):
                pool = [*shared, *only]
                draw.shuffle(pool)
                names = {sentence: f"{spoken.code}-{n:09d}" for n, sentence in enumerate(pool, start=1)}
                rows = [f"{name}\t{text_of(sentence, spoken)}" for sentence, name in names.items()]
                _write_lines(Path(f"{stem}.{spoken.code}"), rows)
                numbers.append(names)
            gold = sorted(f"{numbers[0][sentence]}\t{numbers[1][sentence]}" for sentence in shared)
            _write_lines(Path(f"{stem}.gold"), gold)
    return said


def _write_text(
    folder: Path, languages: tuple[Language, Language], size: Size, seed: int, said: set[Hashable]
) -> list[str]:
    """Running text of a language, and sentences with their English translations; returns all of it."""
    language, english = languages
    draw, texts = Random(f"text/{seed}/{language.code}"), []
    amount = round(size.text * language.text_share)
    lines = [text_of(tasks.running_text(draw), language) for _ in range(amount)]
    if language is english:
        # The tasks themselves ask in English; so its text has such questions too.
        for _ in range(size.text // 10):
            premise, asked, options, label = tasks.copa(draw)
            told, right = text_of(premise, english), text_of(options[label], english)
            lines.append(f"{told} What was the {asked}? {right}")
    else:
        pairs: list[Utterance] = []
        while len(pairs) < size.parallel:
            sentence = tasks.sentence(draw, questions=0.2)
            pairs += [sentence] if sentence not in said else []
        halves = [[text_of(sentence, spoken) for sentence in pairs] for spoken in languages]
        _write_lines(folder / f"{language.code}-en.tsv", ["\t".join(row) for row in zip(*halves)])
        texts = halves[0] + halves[1]
    _write_lines(folder / f"{language.code}.txt", lines)
    return texts + lines


def _write_distances(root: Path, languages: Sequence[Language]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measures = ("distance", "spelling_difference", "order_difference", "log_text_bytes")
    writer.writerow(("code", "name", "script", *measures))
    for language in languages:
        size = (root / "data" / "text" / f"{language.code}.txt").stat().st_size
        numbers = (language.distance, 1 - language.shared_spelling, language.order_difference, log10(size))
        writer.writerow((language.code, language.name, language.script, *(round(n, 4) for n in numbers)))
    write_whole(root / "languages.csv", text.getvalue())


def _text_of_file(task: str, items: Sequence[Any], language: Language) -> str:
    """The text of a file of items: SQuAD's JSON, or a record an item, which is a line or a JSON object on a line."""
    if task not in _RECORDS:
        return _squad(items, language, breaks=task == "lareqa")
    records = [_RECORDS[task](item, number, language) for number, item in enumerate(items)]
    lines = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in records]
    return "".join(line + "\n" for line in lines)


def _pair(item: Pair, number: int, language: Language) -> str:
    first, second, label = item
    return f"{text_of(first, language)}\t{text_of(second, language)}\t{label}"


def _mnli(item: Pair, number: int, language: Language) -> dict:
    first, second = (text_of(said, language) for said in item[:2])
    return {"gold_label": item[2], "pairID": f"toy-{number}", "sentence1": first, "sentence2": second}


def _words(column: str, item: Utterance, number: int, language: Language) -> str:
    return "".join(f"{word.text}\t{getattr(word, column)}\n" for word in say(item, language))


def _squad(items: Sequence[Passage], language: Language, *, breaks: bool) -> str:
    """SQuAD v1.1's JSON; with ``breaks`` XQuAD-R's, which says where the sentences of a paragraph are."""
    paragraphs = [_paragraph(item, number, language, breaks=breaks) for number, item in enumerate(items)]
    articles = [
        {"title": f"Toy_{first // 5}", "paragraphs": paragraphs[first : first + 5]}
        for first in range(0, len(paragraphs), 5)
    ]
    return json.dumps({"version": "1.1", "data": articles}, ensure_ascii=False, indent=1) + "\n"


def _paragraph(item: Passage, number: int, language: Language, *, breaks: bool) -> dict:
    sentences = [say(said, language) for said in item.sentences]
    context, offsets = spell(sentences, language)
    questions = []
    for index, question in enumerate(item.questions):
        words = zip(sentences[question.sentence], offsets[question.sentence], strict=True)
        parts = ("O", "C") if question.asked.asked == "O" else (question.asked.asked,)
        spans = [span for word, span in words if word.part in parts]
        start, end = spans[0][0], spans[-1][1]
        identifier = hashlib.sha256(f"{number}/{index}/{item}".encode()).hexdigest()[:24]
        answers = [{"text": context[start:end], "answer_start": start}]
        asked = text_of(question.asked, language)
        questions.append({"id": identifier, "question": asked, "answers": answers})
    paragraph: dict[str, Any] = {"context": context, "qas": questions}
    if breaks:
        paragraph["sentence_breaks"] = [[spans[0][0], spans[-1][1]] for spans in offsets]
    return paragraph


def _copa(item: Choice, number: int, language: Language) -> dict:
    premise, asked, options, label = item
    choices = {f"choice{i}": text_of(option, language) for i, option in enumerate(options, start=1)}
    gold = {"question": asked, "label": label, "idx": number, "changed": False}
    return {"premise": text_of(premise, language), **choices, **gold}


def _siqa(item: Choice, number: int, language: Language) -> dict:
    premise, asked, options, label = item
    question = {"cause": "Why is that so?", "effect": "What is next?"}[asked]
    answers = {f"answer{'ABC'[i]}": text_of(option, language) for i, option in enumerate(options)}
    context = text_of(premise, language)
    return {"context": context, "question": question, **answers, "correct": "ABC"[label]}


def _hellaswag(item: Choice, number: int, language: Language) -> dict:
    premise, _, options, label = item
    context = text_of(premise, language)
    head = {"ind": number, "activity_label": "toy", "ctx_a": context, "ctx_b": "", "ctx": context}
    return {**head, "endings": [text_of(option, language) for option in options], "label": label}


def _commonsenseqa(item: tuple[str, Sequence[str], int], number: int, language: Language) -> dict:
    name, nouns, label = item
    words = language.words
    choices = [{"label": "ABCDE"[i], "text": words[noun]} for i, noun in enumerate(nouns)]
    stem = f"{words['what']} {words['is']} {words[name]}?"
    question = {"question_concept": words[name], "choices": choices, "stem": stem}
    return {"answerKey": "ABCDE"[label], "id": f"toy-{number}", "question": question}


_RECORDS: dict[str, Callable[[Any, int, Language], str | dict]] = {
    "xnli": _pair,
    "pawsx": _pair,
    "mnli": _mnli,
    "udpos": partial(_words, "tag"),
    "panx": partial(_words, "entity"),
    "xcopa": _copa,
    "siqa": _siqa,
    "hellaswag": _hellaswag,
    "commonsenseqa": _commonsenseqa,
}
