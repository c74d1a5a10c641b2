"""Writes toy items in the file formats of the real releases; nothing here decides what is in them."""

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

from stilts_jax.files import write_whole
from stilts_jax.toy.grammar import Sentence, Utterance, say, spell, spell_with_offsets
from stilts_jax.toy.languages import Language
from stilts_jax.toy.tasks import Choice, Pair, Passage


def text_of(utterances: Sequence[Utterance], language: Language) -> str:
    """Sentences one after the other."""
    return (" " if language.spaces else "").join(spell(say(said, language), language) for said in utterances)


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """One text a line."""
    write_whole(path, "".join(line + "\n" for line in lines))


def write_json_lines(path: Path, records: Sequence[dict]) -> None:
    """One JSON object a line."""
    write_lines(path, [json.dumps(record, ensure_ascii=False) for record in records])


def write_pairs(path: Path, pairs: Sequence[Pair], language: Language) -> None:
    """XNLI and PAWS-X as XTREME lays them out: two texts and the label, parted by tabs."""
    write_lines(
        path,
        ["\t".join((text_of([p.first], language), text_of([p.second], language), p.label)) for p in pairs],
    )


def write_mnli(path: Path, pairs: Sequence[Pair], language: Language) -> None:
    """MultiNLI's JSON lines."""
    write_json_lines(
        path,
        [
            {
                "gold_label": pair.label,
                "pairID": f"toy-{number}",
                "sentence1": text_of([pair.first], language),
                "sentence2": text_of([pair.second], language),
            }
            for number, pair in enumerate(pairs)
        ],
    )


def write_tagged(path: Path, utterances: Sequence[Utterance], language: Language, column: str) -> None:
    """A word and its ``tag`` or ``entity`` a line, an empty line behind each sentence."""
    lines = []
    for said in utterances:
        lines += [f"{word.text}\t{getattr(word, column)}" for word in say(said, language)]
        lines.append("")
    write_lines(path, lines)


def write_squad(path: Path, passages: Sequence[Passage], language: Language, *, breaks: bool = False) -> None:
    """SQuAD v1.1's JSON; with ``breaks`` XQuAD-R's, which says where the sentences of a paragraph are."""
    articles = []
    for first in range(0, len(passages), 5):
        paragraphs = [
            _paragraph(passage, number, language, breaks=breaks)
            for number, passage in enumerate(passages[first : first + 5], start=first)
        ]
        articles.append({"title": f"Toy_{first // 5}", "paragraphs": paragraphs})
    write_whole(path, json.dumps({"version": "1.1", "data": articles}, ensure_ascii=False, indent=1) + "\n")


def _paragraph(passage: Passage, number: int, language: Language, *, breaks: bool) -> dict:
    context = ""
    spans: list[tuple[int, int]] = []
    words_of: list[tuple[Sentence, list[tuple[int, int]]]] = []
    for utterance in passage.sentences:
        if context and language.spaces:
            context += " "
        words = say(utterance, language)
        text, offsets = spell_with_offsets(words, language)
        words_of.append((words, [(start + len(context), end + len(context)) for start, end in offsets]))
        spans.append((len(context), len(context) + len(text)))
        context += text
    questions: list[dict] = []
    for index, question in enumerate(passage.questions):
        words, offsets = words_of[question.sentence]
        parts = "OC" if question.asked.asked == "O" else question.asked.asked
        said = [
            offset for word, offset in zip(words, offsets, strict=True) if word.part and word.part in parts
        ]
        start, end = said[0][0], said[-1][1]
        answer = {"text": context[start:end], "answer_start": start}
        identifier = hashlib.sha256(f"{number}/{index}/{passage}".encode()).hexdigest()[:24]
        text = spell(say(question.asked, language), language)
        questions.append({"id": identifier, "question": text, "answers": [answer]})
    paragraph: dict[str, object] = {"context": context, "qas": questions}
    if breaks:
        paragraph["sentence_breaks"] = [list(span) for span in spans]
    return paragraph


def write_copa(path: Path, choices: Sequence[Choice], language: Language) -> None:
    """COPA's and XCOPA's JSON lines."""
    write_json_lines(
        path,
        [
            {
                "premise": text_of([choice.premise], language),
                "choice1": text_of([choice.options[0]], language),
                "choice2": text_of([choice.options[1]], language),
                "question": choice.asked,
                "label": choice.label,
                "idx": number,
                "changed": False,
            }
            for number, choice in enumerate(choices)
        ],
    )


def write_siqa(path: Path, choices: Sequence[Choice], language: Language) -> None:
    """Social IQa's JSON lines."""
    asked = {"cause": "Why is that so?", "effect": "What is next?"}
    write_json_lines(
        path,
        [
            {
                "context": text_of([choice.premise], language),
                "question": asked[choice.asked],
                **{
                    f"answer{'ABC'[i]}": text_of([option], language)
                    for i, option in enumerate(choice.options)
                },
                "correct": "ABC"[choice.label],
            }
            for choice in choices
        ],
    )


def write_hellaswag(path: Path, choices: Sequence[Choice], language: Language) -> None:
    """HellaSwag's JSON lines."""
    write_json_lines(
        path,
        [
            {
                "ind": number,
                "activity_label": "toy",
                "ctx_a": text_of([choice.premise], language),
                "ctx_b": "",
                "ctx": text_of([choice.premise], language),
                "endings": [text_of([option], language) for option in choice.options],
                "label": choice.label,
            }
            for number, choice in enumerate(choices)
        ],
    )


def write_commonsenseqa(
    path: Path, items: Sequence[tuple[str, tuple[str, ...], int]], language: Language
) -> None:
    """CommonsenseQA's JSON lines: which of five things is of a class."""
    write_json_lines(
        path,
        [
            {
                "answerKey": "ABCDE"[label],
                "id": f"toy-{number}",
                "question": {
                    "question_concept": language.words[name],
                    "choices": [
                        {"label": "ABCDE"[i], "text": language.words[noun]} for i, noun in enumerate(nouns)
                    ],
                    "stem": f"{language.words['what']} {language.words['is']} {language.words[name]}?",
                },
            }
            for number, (name, nouns, label) in enumerate(items)
        ],
    )


def write_tatoeba(
    folder: Path, utterances: Sequence[Utterance], english: Language, language: Language
) -> None:
    """Sentence pairs; the English side is sorted, and the gold says where each partner stands."""
    pairs = sorted((text_of([said], english), number) for number, said in enumerate(utterances))
    stem = f"{language.code}-en"
    write_lines(folder / f"{stem}.{language.code}", [text_of([said], language) for said in utterances])
    write_lines(folder / f"{stem}.en", [text for text, _ in pairs])
    write_lines(folder / f"{stem}.gold", [str(number) for _, number in pairs])


def write_bucc(
    folder: Path,
    split: str,
    shared: Sequence[Utterance],
    only: tuple[Sequence[Utterance], Sequence[Utterance]],
    languages: tuple[Language, Language],
    draw: Random,
) -> None:
    """Two shuffled pools of sentences, of which ``shared`` are in both, and the pairs.

    Args:
        only: what is only in the first and only in the second pool.
        languages: a language and English.
    """
    numbers: list[dict[Utterance, str]] = []
    stem = folder / f"{languages[0].code}-en.{split}"
    for language, extra in zip(languages, only, strict=True):
        pool = [*shared, *extra]
        draw.shuffle(pool)
        numbers.append({said: f"{language.code}-{number:09d}" for number, said in enumerate(pool, start=1)})
        lines = [f"{identifier}\t{text_of([said], language)}" for said, identifier in numbers[-1].items()]
        write_lines(Path(f"{stem}.{language.code}"), lines)
    write_lines(Path(f"{stem}.gold"), sorted(f"{numbers[0][said]}\t{numbers[1][said]}" for said in shared))


def write_table(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """A CSV file with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())
