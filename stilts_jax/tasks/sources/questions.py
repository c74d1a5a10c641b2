"""Questions about pictures and captions of pictures; answers are scored as by the official script of VQA v2."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from stilts_jax.tasks.sources.converters import Converter, Labels, index_labels
from stilts_jax.tasks.sources.rows import BadRow, Problems, Row, check_text, read_json
from stilts_jax.tasks.spec import UNKNOWN_LABEL, ClassifyExample, Example, names, pairs

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# The contractions of the official script. What lacks one of the apostrophes gets it.
_CONTRACTED = names("""
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""")
_RESPELLED = {
    word[: mark.start()] + word[mark.end() :]: word for word in _CONTRACTED for mark in re.finditer("'", word)
}
# The last one stands there like that.
_RESPELLED |= pairs("""none:0 zero:0 one:1 two:2 three:3 four:4 five:5 six:6 seven:7 eight:8 nine:9 ten:10
a: an: the: somebody'd:somebodyd""")


@lru_cache(maxsize=2**16)
def normalise_answer(text: str) -> str:
    """Returns an answer as the official script spells it: no punctuation, no articles, digits, lower case."""
    found, in_number = text, re.search(r"\d,\d", text)
    for sign in _PUNCTUATION:
        beside_space = f"{sign} " in text or f" {sign}" in text
        found = found.replace(sign, "" if beside_space or in_number else " ")
    # The official script hands re.UNICODE, which is 32, to `sub` as a count.
    words = re.sub(r"\.(?!\d)", "", found, count=32).lower().split()
    return " ".join(filter(None, (_RESPELLED.get(word, word) for word in words)))


def score_answer(predicted: str, answers: Sequence[str]) -> float:
    """Returns the accuracy of one answer, 0 to 1: the mean of ``min(matches / 3, 1)`` over all nine of ten people."""
    said = [re.sub(r"[\n\t]", " ", text).strip() for text in (predicted, *answers)]
    if len(set(said[1:])) > 1:  # only where people disagree, as in the official script
        said = list(map(normalise_answer, said))
    matches = [one.lower() == said[0].lower() for one in said[1:]]
    return sum(min((sum(matches) - match) / 3, 1.0) for match in matches) / len(matches)


def _make(row: Row, id: str, picture: str, said: Sequence[str], labels: Labels, *more: Any) -> Example | None:
    """Returns a question with the most frequent answer that is a label, else the unknown one; None in training."""
    known = index_labels(labels)
    frequent = (answer for answer, _ in Counter(said).most_common() if answer in known)
    label = known.get(next(frequent, UNKNOWN_LABEL)) if said else None
    if said and label is None:
        return None
    return ClassifyExample(row.id(id), row["question"], None, label, (picture,), *more)


def read_triples(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields the rows of easy-VQA's file: a list of lists of question, answer and number of the picture."""
    content = read_json(path)
    for number, item in enumerate(content if isinstance(content, list) else []):
        values = item if isinstance(item, list) and len(item) <= 3 else ()
        yield Row(0, number, dict(zip(("question", "answer", "image"), values)), f"[{number}]")


def read_by_id(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields the rows of GQA's and xGQA's files: an object from each question's id to the question."""
    document = Row.document(path)
    for number, name in enumerate(document.fields):
        place = repr(name)  # an id of half a character could be written nowhere
        with problems.skipping(path, Row(0, number, {}, place)):
            check_text("the id", name)
            yield Row(0, number, {**document.part(name).fields, "id": name}, place)


def answer_gqa(row: Row, labels: Labels) -> Example | None:
    """Returns a question of GQA; one whose answer is no label can't be trained on."""
    said = () if row.get("answer") is None else (str(row.get("answer")),)
    return _make(row, "id", f"gqa/images/{row['imageId']}.jpg", said, labels)


def read_vqa(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields VQA's questions, joined with their annotations by the ids where there is a file of these."""
    # The pattern finds annotations, which are read with their questions, and lists of complementary pairs.
    if not path.name.removesuffix(".gz").endswith("_questions.json"):
        return
    name = path.name.removesuffix(".gz").replace("OpenEnded_", "").replace("_questions.", "_annotations.")
    beside = path.with_name(name) if path.with_name(name).is_file() else path.with_name(f"{name}.gz")
    try:
        rows = Row.document(beside).parts("annotations") if beside.is_file() else []
        said = {row.take("question_id", int): [one["answer"] for one in row.parts("answers")] for row in rows}
    except BadRow as error:  # without its id nobody knows whose annotation it is
        raise problems.refuse(beside, str(error), "compare it with the released file") from error
    for number, question in enumerate(Row.document(path).parts("questions")):
        with problems.skipping(path, question):
            identifier = question.take("question_id", int)
            if said and identifier not in said:
                raise BadRow(f"question {identifier} has no annotation in {beside.name}")
            answers = {"answers": said[identifier]} if said else {}
            yield Row(0, number, {**question.fields, **answers}, question.place)


def answer_vqa(part: str) -> Converter:
    """Returns a converter for VQA's questions about a part of COCO."""
    pattern = f"coco/{part}/COCO_{part}_{{:012d}}.jpg"

    def convert(row: Row, labels: Labels) -> Example | None:
        answers = tuple(row.texts("answers")) if "answers" in row.fields else ()
        said, known = [normalise_answer(one) for one in answers], index_labels(labels)
        votes = tuple(known[one] for one in said if one in known)
        picture = pattern.format(row.take("image_id", int))
        return _make(row, "question_id", picture, said, labels, answers, votes)

    return convert


def read_captions(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields COCO's captions with the file of their ``picture``, and the next other caption of an ``other`` one."""
    content = Row.document(path)
    pictures = {row.take("id", int): row["file_name"] for row in content.parts("images")}
    rows = content.parts("annotations")
    for number, row in enumerate(rows):
        with problems.skipping(path, row):
            image, said = row.take("image_id", int), row["caption"]
            if image not in pictures:
                raise BadRow(f"caption {row.id('id')} has the picture {image}, which is not in images")
            away = (rows[(number + step) % len(rows)] for step in range(1, len(rows)))
            others = (one.value("caption") for one in away if one.value("image_id") != image)
            other = next((caption for caption in others if caption != said), said)
            fields = {**row.fields, "picture": pictures[image], "other": other}
            yield Row(0, number, fields, row.place)
