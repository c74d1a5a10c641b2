"""Pictures: where they lie, questions about them and captions; answers are scored as by the official script of VQA v2.

Pictures lie in a folder of PNG and JPEG files, in a zip of that name, or as what a vision encoder wrote of them.
An example names its picture by a path below the data root, such as ``coco/train2014/COCO_train2014_000000000009.jpg``,
which may be in ``coco/train2014.zip``. Features of the encoder ``vit`` lie in ``coco/train2014.vit``: ``features.npy``,
an array [pictures, patches, width], and ``features.json`` with the names of the pictures in that order under ``names``.
"""

import functools
import hashlib
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stilts_jax.errors import DataError
from stilts_jax.files import digest_file
from stilts_jax.tasks.sources.converters import Converter, Labels, index_labels
from stilts_jax.tasks.sources.files import state_of
from stilts_jax.tasks.sources.rows import BadRow, Problems, Row, check_text, read_json
from stilts_jax.tasks.spec import UNKNOWN_LABEL, ClassifyExample, Example, names, pairs

MAX_BYTES = 2**28  # of one file; a zip may hold far more than it seems
ARRAY, NAMES = "features.npy", "features.json"
# No name of another folder, and none that is hidden: macOS puts such files beside pictures and into zips.
_PICTURE = re.compile(r"[^./][^/]*\.(png|jpe?g)", re.IGNORECASE)
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


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of one folder."""

    path: Path  # the folder, the zip, or the folder of features
    names: Mapping[str, Any]  # of each picture its file, its entry of the zip, or its place in the features
    archive: zipfile.ZipFile | None = None
    features: np.ndarray | None = None  # [pictures, patches, width]

    def state(self, name: str) -> int:
        """Returns a picture's size in bytes, or its place in the features."""
        found = self.names[name]
        return found.stat().st_size if isinstance(found, Path) else getattr(found, "file_size", found)

    def read(self, name: str) -> bytes:
        """Returns the bytes of a picture's file; raises whatever the disk and the zip raise."""
        size, found = self.state(name), self.names[name]
        if size > MAX_BYTES:
            raise self.refuse(name, f"it has {size} bytes, and {MAX_BYTES} are allowed")
        return self.archive.read(found) if self.archive else found.read_bytes()

    def refuse(self, name: str, reason: str, fix: str = "fetch or copy it again") -> DataError:
        """Returns the error that names a picture which can't be used."""
        return DataError(f"The picture can't be used: {reason}.", where=str(self.path / name), fix=fix)


def open_pictures(root: Path, folder: str, encoder: str = "") -> PictureFolder:
    """Opens the pictures of a folder below the data root, or what ``encoder`` made of them; a DataError if none are."""
    path = root / (f"{folder}.{encoder}" if encoder else folder)
    zipped = path.parent / f"{path.name}.zip"
    if not encoder and not path.is_dir() and zipped.is_file():
        path = zipped
    try:
        # Files that are written anew in a folder leave its time as it was.
        files = (path / NAMES, path / ARRAY) if encoder else (path,)
        return _open(path, bool(encoder), tuple(one.stat().st_mtime_ns for one in files))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        wanted, fix = "pictures in this folder or its .zip", "copy the pictures of the release there"
        if encoder:
            wanted, fix = f"features that can be used ({ARRAY}, {NAMES})", "write them with `stilts features`"
        what = f"There are no {wanted}: {getattr(error, 'strerror', None) or error}."
        raise DataError(what, where=str(path), fix=fix) from error


@functools.lru_cache(maxsize=256)  # to list a zip of COCO takes a second; NLVR2's rows lie in 100 folders
def _open(path: Path, is_features: bool, modified: tuple[int, ...]) -> PictureFolder:
    if is_features:
        names, array = Row.document(path / NAMES).get("names"), np.load(path / ARRAY, mmap_mode="r")
        names = names if isinstance(names, list) else []
        places = {str(name): place for place, name in enumerate(names)}
        if array.ndim != 3 or array.dtype.kind != "f" or not len(array) == len(places) == len(names):
            what = f"{len(places)} different names and {array.dtype} of the shape {array.shape}"
            raise ValueError(f"{what}, not floating-point numbers [pictures, patches, width]")
        return PictureFolder(path, places, features=array)
    archive = None if path.is_dir() else zipfile.ZipFile(path)
    entries: Any = archive.infolist() if archive else path.iterdir()
    below, names = f"{path.stem}/", dict[str, Any]()
    for one in entries:
        name = one.filename.removeprefix("./").removeprefix(below) if archive else one.name
        if _PICTURE.fullmatch(name) and names.setdefault(name, one) is not one:
            raise DataError(f"{name} is there twice.", where=str(path), fix="leave one of the two out")
    return PictureFolder(path, dict(sorted(names.items())), archive)


def check_picture(root: Path, picture: str, encoder: str = "") -> None:
    """Raises ``BadRow`` unless there is such a picture."""
    folder, _, name = picture.rpartition("/")
    if ".." in picture.split("/") or picture.startswith("/") or not folder:
        raise BadRow(f"{picture[:80]!r} is no path of a picture below the data root")
    found = open_pictures(root, folder, encoder)
    if name not in found.names:
        raise BadRow(f"there is no picture {name[:80]!r} in {found.path}")


@functools.lru_cache(maxsize=256)  # gigabytes, which every task and control asks for
def _digest(path: Path, *state: int) -> str:
    return digest_file(path)


def hash_pictures(root: Path, pictures: Sequence[str], encoder: str = "") -> str:
    """Returns a hash of names and sizes of pictures; of features, of the whole file of each folder."""
    places = [one.rpartition("/")[::2] for one in pictures]
    folders = {folder: open_pictures(root, folder, encoder) for folder in sorted({one for one, _ in places})}
    state = [f"{name}:{folders[folder].state(name)}" for folder, name in places]
    arrays = [one.path / ARRAY for one in folders.values() if encoder]
    state += [_digest(*one) for one in state_of(arrays)]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]


@functools.lru_cache(maxsize=2**16)
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
