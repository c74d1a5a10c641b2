"""Questions about pictures, captions of pictures and pairs of pictures, in the formats that they are released in."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from stilts_jax.tasks.sources.answers import normalise_answer
from stilts_jax.tasks.sources.documents import BadRow, read_json, read_object
from stilts_jax.tasks.sources.rows import Problems, Row, describe
from stilts_jax.tasks.spec import UNKNOWN_LABEL, ClassifyExample

_normalise = lru_cache(maxsize=2**16)(normalise_answer)
Labels = tuple[str, ...]


@lru_cache(maxsize=4)
def _index(labels: Labels) -> dict[str, int]:
    return {label: number for number, label in enumerate(labels)}


def find_label(answers: Sequence[str], labels: Labels) -> int | None:
    """Returns the label of the most frequent answer that has one; else that of unknown ones, which training lacks."""
    known = _index(labels)
    for answer, _ in Counter(answers).most_common():
        if answer in known:
            return known[answer]
    return known.get(UNKNOWN_LABEL)


def read_triples(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields the rows of easy-VQA's file: a list of lists of question, answer and number of the picture."""
    content = read_json(path)
    for number, item in enumerate(content if isinstance(content, list) else []):
        row = Row(0, number, {}, (number,))
        with problems.skipping(path, row):
            if not isinstance(item, list) or len(item) != 3:
                raise BadRow(f"the row is {describe(item)}, not a question, an answer and a number")
            yield Row(0, number, dict(zip(("question", "answer", "image"), item)), (number,))


def read_by_id(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields the rows of GQA's and xGQA's files: an object from each question's id to the question."""
    for number, (identifier, fields) in enumerate(read_object(path).items()):
        row = Row(0, number, {}, (identifier,))
        with problems.skipping(path, row):
            if not isinstance(fields, dict):
                raise BadRow(f"the question is {describe(fields)}, not an object")
            yield Row(0, number, {**fields, "id": identifier}, (identifier,))


def answer_gqa(row: Row, labels: Labels) -> ClassifyExample | None:
    """Returns a question of GQA; one whose answer is no label can't be trained on."""
    answer = row.get("answer")
    label = None if answer is None else find_label((str(answer),), labels)
    if label is None and answer is not None:
        return None
    return ClassifyExample(row["id"], row["question"], None, label, (f"gqa/images/{row['imageId']}.jpg",))


def read_vqa(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields VQA's questions, joined with their annotations by the ids where there is a file of these.

    A pattern finds both files, and the questions alone are read with the annotations beside them.
    """
    if path.name.endswith("_annotations.json"):
        return
    beside = path.with_name(path.name.replace("OpenEnded_", "").replace("_questions.", "_annotations."))
    annotations: dict[int, Row] = {}
    if beside.is_file():
        for row in Row(0, 0, read_object(beside)).parts("annotations"):
            annotations[row.integer("question_id")] = row
    for number, question in enumerate(Row(0, 0, read_object(path)).parts("questions")):
        with problems.skipping(path, question):
            fields = dict(question.fields)
            if annotations:
                identifier = question.integer("question_id")
                if identifier not in annotations:
                    raise BadRow(f"question {identifier} has no annotation in {beside.name}")
                fields["answers"] = [one["answer"] for one in annotations[identifier].parts("answers")]
            yield Row(0, number, fields, question.place)


def answer_vqa(pattern: str) -> Callable[[Row, Labels], ClassifyExample | None]:
    """Returns a converter for VQA's questions; ``pattern`` makes the path of a picture of its number."""

    def convert(row: Row, labels: Labels) -> ClassifyExample | None:
        answers = tuple(row.texts("answers")) if "answers" in row.fields else ()
        said, known = [_normalise(one) for one in answers], _index(labels)
        label = find_label(said, labels) if answers else None
        if answers and label is None:
            return None
        votes = tuple(known[one] for one in said if one in known)
        picture = pattern.format(row.integer("image_id"))
        return ClassifyExample(
            row.id("question_id"), row["question"], None, label, (picture,), answers, votes
        )

    return convert


def read_captions(path: Path, language: str, problems: Problems) -> Iterator[Row]:
    """Yields COCO's captions with the file of each picture: ``id``, ``caption``, ``picture`` and ``matches``.

    Every second row also has ``other``, the caption of the next row of another picture, to tell from its own.
    """
    content = Row(0, 0, read_object(path))
    names = {row.integer("id"): row["file_name"] for row in content.parts("images")}
    rows = content.parts("annotations")
    for number, row in enumerate(rows):
        with problems.skipping(path, row):
            image = row.integer("image_id")
            if image not in names:
                raise BadRow(f"caption {row.id('id')} has the picture {image}, which is not in images")
            away = (rows[(number + step) % len(rows)] for step in range(1, len(rows)))
            other = next((one["caption"] for one in away if one.integer("image_id") != image), row["caption"])
            fields = {**row.fields, "picture": names[image], "other": other}
            yield Row(0, number, fields, row.place)
