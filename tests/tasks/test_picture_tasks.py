"""Tasks with pictures, from files in the formats of the releases."""

import json

import pytest
from PIL import Image

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import DataSource, available_languages, read_examples, with_labels
from stilts_jax.tasks.spec import ClassifyExample, TextExample

VQA_LABELS = {"vqa_v2/trainval_ans2label.json": {"yes": 0, "2": 1, "t shirt": 2}}
GQA_LABELS = {"gqa/trainval_ans2label.json": {"women": 0, "red": 1}}


def ten(*answers):
    people = [*answers, *["nothing at all"] * (10 - len(answers))]
    return [
        {"answer": answer, "answer_confidence": "yes", "answer_id": n} for n, answer in enumerate(people, 1)
    ]


def vqa(split, *answers):
    ids = list(range(42000, 42000 + len(answers)))
    questions = [{"image_id": 42, "question": f"How many {n}?", "question_id": n} for n in ids]
    annotations = [
        {
            "question_id": n,
            "image_id": 42,
            "question_type": "how many",
            "answer_type": "number",
            "multiple_choice_answer": people[0] if people else "",
            "answers": ten(*people),
        }
        for n, people in zip(reversed(ids), reversed(answers))
    ]
    files = {f"vqa_v2/v2_OpenEnded_mscoco_{split}_questions.json": {"info": {}, "questions": questions}}
    if any(answers):
        files[f"vqa_v2/v2_mscoco_{split}_annotations.json"] = {"info": {}, "annotations": annotations}
    return VQA_LABELS | files


def gqa(name, **answers):
    content = {
        number: {"question": f"Who? {number}", "imageId": "n7", "answer": answer, "isBalanced": True}
        for number, answer in answers.items()
    }
    return GQA_LABELS | {name: content}


def coco(part):
    images = [{"id": 9, "file_name": "a.jpg"}, {"id": 25, "file_name": "b.jpg"}]
    captions = [(9, 1, "A cat sits."), (9, 2, "One cat."), (25, 3, "A dog runs.")]
    rows = [{"image_id": image, "id": number, "caption": text} for image, number, text in captions]
    return {f"coco/annotations/captions_{part}.json": {"images": images, "annotations": rows}}


NLI = {"Flikr30kID": "365.jpg#1", "gold_label": "neutral", "pairID": "365.jpg#1r1n", "sentence2": "Ein Hund."}
NLVR = {"identifier": "train-10171-0-0", "directory": 34, "label": "True", "sentence": "Two dogs."}
MARVL = {
    "concept": "42-Goat",
    "language": "sw",
    "caption": "Mbuzi wawili.",
    "left_img": "https://host/images/42-Goat/42-1.jpg",
    "right_img": "42-9.jpg",
    "id": "sw-0",
    "label": False,
}
JPG, PART = "coco/train2014/COCO_train2014_000000000042.jpg", "coco/val2014"


def asks(identifier, text, label, *pictures, answers=(), votes=()):
    return ClassifyExample(identifier, text, None, label, pictures, answers, votes)


CASES = {
    "easy_vqa": (
        {"easy_vqa/test/questions.json": [["what is it?", "teal", 3], ["is it red?", "no", 4]]},
        ("test", "en"),
        [
            asks("0", "what is it?", 5, "easy_vqa/test/images/3.png"),
            asks("1", "is it red?", 12, "easy_vqa/test/images/4.png"),
        ],
    ),
    # "2" wins over the answer that comes first in alphabet and file; a row whose answers have no label is dropped.
    "vqa_v2": (
        vqa("train2014", ["yes", "two", "2", "Two."], ["T-shirt"], ["blue"]),
        ("train", "en"),
        [
            asks(
                "42000",
                "How many 42000?",
                1,
                JPG,
                answers=("yes", "two", "2", "Two.", *["nothing at all"] * 6),
                votes=(0, 1, 1, 1),
            ),
            asks(
                "42001", "How many 42001?", 2, JPG, answers=("T-shirt", *["nothing at all"] * 9), votes=(2,)
            ),
        ],
    ),
    "vqa_v2 dev": (
        vqa("val2014", ["blue"]),
        ("dev", "en"),
        [
            asks(
                "42000",
                "How many 42000?",
                3,  # the label that nobody predicts
                JPG.replace("train", "val"),
                answers=("blue", *["nothing at all"] * 9),
            )
        ],
    ),
    "vqa_v2 test": (
        vqa("test2015", []),
        ("test", "en"),
        [asks("42000", "How many 42000?", None, JPG.replace("train2014", "test2015"))],
    ),
    "gqa": (
        gqa("gqa/train_balanced_questions.json", a="red", b="purple"),
        ("train", "en"),
        [asks("a", "Who? a", 1, "gqa/images/n7.jpg")],
    ),
    "xgqa": (
        gqa("xgqa/zero_shot/testdev_balanced_questions_de.json", a="women", b="purple"),
        ("test", "de"),
        [asks("a", "Who? a", 0, "gqa/images/n7.jpg"), asks("b", "Who? b", 2, "gqa/images/n7.jpg")],
    ),
    "coco_captions": (
        coco("val2014"),
        ("dev", "en"),
        [
            TextExample("1", "A cat sits.", (f"{PART}/a.jpg",)),
            TextExample("2", "One cat.", (f"{PART}/a.jpg",)),
            TextExample("3", "A dog runs.", (f"{PART}/b.jpg",)),
        ],
    ),
    # The second caption is swapped for the next one that belongs to another picture.
    "coco_matching": (
        coco("val2014"),
        ("dev", "en"),
        [
            asks("1", "A cat sits.", 1, f"{PART}/a.jpg"),
            asks("2", "A dog runs.", 0, f"{PART}/a.jpg"),
            asks("3", "A dog runs.", 1, f"{PART}/b.jpg"),
        ],
    ),
    "xvnli": (
        {"xvnli/annotations/fr/test.jsonl": [NLI, {**NLI, "gold_label": "-"}]},
        ("test", "fr"),
        [asks("365.jpg#1r1n", "Ein Hund.", 2, "flickr30k/365.jpg")],
    ),
    "nlvr2": (
        {"nlvr2/data/train.json": [NLVR]},
        ("train", "en"),
        [
            asks(
                "train-10171-0-0",
                "Two dogs.",
                1,
                "nlvr2/images/train/34/train-10171-0-img0.png",
                "nlvr2/images/train/34/train-10171-0-img1.png",
            )
        ],
    ),
    "marvl": (
        {"marvl/sw/annotations/marvl-sw.jsonl": [MARVL]},
        ("test", "sw"),
        [
            asks(
                "sw-0",
                "Mbuzi wawili.",
                0,
                "marvl/sw/images/42-Goat/42-1.jpg",
                "marvl/sw/images/42-Goat/42-9.jpg",
            )
        ],
    ),
}


def write(root, files, examples):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = name.endswith(".jsonl") or name.startswith("nlvr2")
        path.write_text("\n".join(map(json.dumps, content)) if lines else json.dumps(content))
    for picture in {picture for example in examples for picture in example.pictures}:
        (root / picture).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / picture)


@pytest.mark.parametrize("name", CASES)
def test_a_release_is_read(name, tmp_path):
    files, (split, language), expected = CASES[name]
    write(tmp_path, files, expected)
    task, source = get_task(name.split()[0]), DataSource(tmp_path)
    assert language in available_languages(task, split, source)
    assert read_examples(task, split, language, source) == expected
    assert with_labels(task, source).labels or task.kind == "mlm"


def test_a_row_without_its_picture_is_named_with_its_line(tmp_path):
    files, (split, language), expected = CASES["xvnli"]
    write(tmp_path, files, expected)
    (tmp_path / "flickr30k" / "365.jpg").rename(tmp_path / "flickr30k" / "366.jpg")
    with pytest.raises(DataError) as caught:
        read_examples(get_task("xvnli"), split, language, DataSource(tmp_path))
    assert "365.jpg" in caught.value.what and "test.jsonl:1" in caught.value.where
    for control in ("blind", "text"):  # they look at no picture
        assert read_examples(get_task(f"xvnli:{control}"), split, language, DataSource(tmp_path)) == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("easy_vqa", {"easy_vqa/test/questions.json": [["what?", "red", 1], ["what?", "red"]]}),
        ("easy_vqa", {"easy_vqa/test/questions.json": [["what?", "purple", 1]]}),
        ("xgqa", gqa("xgqa/testdev_balanced_questions_en.json", a="red") | {GQA: [] for GQA in GQA_LABELS}),
    ],
)
def test_bad_rows_are_refused(name, content, tmp_path):
    write(tmp_path, content, [])
    with pytest.raises(DataError):
        read_examples(get_task(name), "test", "en", DataSource(tmp_path))


def test_controls_are_tasks_of_their_own():
    task = get_task("easy_vqa")
    found = {name: get_task(f"easy_vqa:{name}") for name in ("blind", "shuffled", "text")}
    assert {name: one.pictures for name, one in found.items()} == {
        "blind": "blind",
        "shuffled": "shuffled",
        "text": "",
    }
    assert len({task.name, *(one.name for one in found.values())}) == 4
    assert get_task("easy_vqa:blind@de").name == "easy_vqa.blind@de"
    for wrong in ("easy_vqa:deaf", "mnli:blind"):
        with pytest.raises(ConfigError):
            get_task(wrong)
