"""Tasks with pictures, from files in the formats of the releases, and the accuracy of answers."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.evaluation.metrics import METRICS
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.inventory import format_examples, prepare
from stilts_jax.tasks.sources.pictures import normalise_answer, score_answer
from stilts_jax.tasks.sources.read import DataSource, available_languages, read_examples, with_labels
from stilts_jax.tasks.spec import ClassifyExample, TextExample

VQA_LABELS = {"vqa_v2/trainval_ans2label.json": {"yes": 0, "2": 1, "t shirt": 2}}
GQA_LABELS = {"gqa/trainval_ans2label.json": {"women": 0, "red": 1}}


def ten(*answers):
    return (*answers, *["nothing at all"] * (10 - len(answers)))


def vqa(split, *answers):
    numbered = list(enumerate(answers, 42000))
    questions = [{"image_id": 42, "question": f"How many {n}?", "question_id": n} for n, _ in numbered]
    annotations = [
        {"question_id": n, "image_id": 42, "answers": [{"answer": one} for one in ten(*people)]}
        for n, people in reversed(numbered)
    ]
    files = {f"vqa_v2/v2_OpenEnded_mscoco_{split}_questions.json": {"info": {}, "questions": questions}}
    files[f"vqa_v2/v2_mscoco_{split}_complementary_pairs.json"] = [[42000, 42001]]  # a part of the release
    if any(answers):
        files[f"vqa_v2/v2_mscoco_{split}_annotations.json"] = {"info": {}, "annotations": annotations}
    return VQA_LABELS | files


def gqa(name, **answers):
    content = {n: {"question": f"Who? {n}", "imageId": "n7", "answer": one} for n, one in answers.items()}
    return GQA_LABELS | {name: content}


def coco(part):
    images = [{"id": 9, "file_name": "a.jpg"}, {"id": 25, "file_name": "b.jpg"}]
    captions = [(9, 1, "A cat sits."), (9, 2, "One cat."), (25, 3, "One cat."), (25, 4, "A dog runs.")]
    rows = [{"image_id": image, "id": number, "caption": text} for image, number, text in captions]
    return {f"coco/annotations/captions_{part}.json": {"images": images, "annotations": rows}}


NLI = {"Flikr30kID": "365.jpg#1", "gold_label": "neutral", "pairID": "365.jpg#1r1n", "sentence2": "Ein Hund."}
NLVR = {"identifier": "train-10171-0-0", "directory": 34, "label": "True", "sentence": "Two dogs."}
SIDES = {"language": "sw", "left_img": "https://h/images/42-Goat/42-1.jpg", "right_img": "42-9.jpg"}
MARVL = {"concept": "42-Goat", "caption": "Mbuzi wawili.", "id": "sw-0", "label": False, **SIDES}
JPG, A, B = "coco/{0}/COCO_{0}_000000000042.jpg", "coco/val2014/a.jpg", "coco/val2014/b.jpg"
NLVR_STEM, GOAT = "nlvr2/images/train/34/train-10171-0-img", "marvl/sw/images/42-Goat/42-"
TRIPLES = [["what is it?", "teal", 3], ["is it red?", "no", 4]]


def asks(identifier, text, label, *pictures, answers=(), votes=()):
    return ClassifyExample(identifier, text, None, label, pictures, answers, votes)


def how_many(number, label, part, *answers, votes=()):
    people = ten(*answers) if answers else ()
    return asks(f"{number}", f"How many {number}?", label, JPG.format(part), answers=people, votes=votes)


# By task: files, split and language, and what is read.
CASES = {
    "easy_vqa": ({"easy_vqa/test/questions.json": TRIPLES}, "test", "en", [
        asks("0", "what is it?", 5, "easy_vqa/test/images/3.png"),
        asks("1", "is it red?", 12, "easy_vqa/test/images/4.png")]),
    # "2" wins over the answer that comes first in alphabet and file; a row whose answers have no label is dropped.
    "vqa_v2": (vqa("train2014", ["yes", "two", "2", "Two."], ["T-shirt"], ["blue"]), "train", "en", [
        how_many(42000, 1, "train2014", "yes", "two", "2", "Two.", votes=(0, 1, 1, 1)),
        how_many(42001, 2, "train2014", "T-shirt", votes=(2,))]),
    # The label that nobody predicts.
    "vqa_v2 dev": (vqa("val2014", ["blue"]), "dev", "en", [how_many(42000, 3, "val2014", "blue")]),
    "vqa_v2 test": (vqa("test2015", []), "test", "en", [how_many(42000, None, "test2015")]),
    "gqa": (gqa("gqa/train_balanced_questions.json", a="red", b="purple"), "train", "en", [
        asks("a", "Who? a", 1, "gqa/images/n7.jpg")]),
    "xgqa": (gqa("xgqa/zero_shot/testdev_balanced_questions_de.json", a="women", b="purple"), "test", "de", [
        asks("a", "Who? a", 0, "gqa/images/n7.jpg"), asks("b", "Who? b", 2, "gqa/images/n7.jpg")]),
    "coco_captions": (coco("val2014"), "dev", "en", [
        TextExample("1", "A cat sits.", (A,)), TextExample("2", "One cat.", (A,)),
        TextExample("3", "One cat.", (B,)), TextExample("4", "A dog runs.", (B,))]),
    # The second caption is swapped for the next one of other words that belongs to another picture.
    "coco_matching": (coco("val2014"), "dev", "en", [
        asks("1", "A cat sits.", 1, A), asks("2", "A dog runs.", 0, A), asks("3", "One cat.", 1, B),
        asks("4", "A cat sits.", 0, B)]),
    "xvnli": ({"xvnli/annotations/fr/test.jsonl": [NLI, {**NLI, "gold_label": "-"}]}, "test", "fr", [
        asks("365.jpg#1r1n", "Ein Hund.", 2, "flickr30k/365.jpg")]),
    "nlvr2": ({"nlvr2/data/train.json": [NLVR]}, "train", "en", [
        asks("train-10171-0-0", "Two dogs.", 1, f"{NLVR_STEM}0.png", f"{NLVR_STEM}1.png")]),
    "marvl": ({"marvl/sw/annotations/marvl-sw.jsonl": [MARVL]}, "test", "sw", [
        asks("sw-0", "Mbuzi wawili.", 0, f"{GOAT}1.jpg", f"{GOAT}9.jpg")]),
}  # fmt: skip


def write(root, files, examples=()):
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
    files, split, language, expected = CASES[name]
    write(tmp_path, files, expected)
    task, source = get_task(name.split()[0]), DataSource(tmp_path)
    assert language in available_languages(task, split, source)
    assert read_examples(task, split, language, source) == expected
    assert with_labels(task, source).labels or task.kind == "mlm"
    shown = format_examples(task, source)
    assert shown.startswith(task.name)  # with an unknown answer too
    assert name != "vqa_v2" or "votes: yes | 2 | 2 | 2" in shown


def test_a_row_without_its_picture_is_named_with_its_line(tmp_path):
    files, split, language, expected = CASES["xvnli"]
    write(tmp_path, files, expected)
    (tmp_path / "flickr30k" / "365.jpg").rename(tmp_path / "flickr30k" / "366.jpg")
    with pytest.raises(DataError) as caught:
        read_examples(get_task("xvnli"), split, language, DataSource(tmp_path))
    assert "365.jpg" in caught.value.what and "test.jsonl:1" in caught.value.where
    for control in ("blind", "text"):  # they look at no picture
        assert read_examples(get_task(f"xvnli:{control}"), split, language, DataSource(tmp_path)) == expected


ANSWERS, XGQA = "vqa_v2/v2_mscoco_test2015_annotations.json", "xgqa/testdev_balanced_questions_en.json"
ASKED = vqa("test2015", ["2"])
BAD = [
    ("easy_vqa", {"easy_vqa/test/questions.json": [["what?", "red", 1], ["what?", "red"]]}, "no 'image'"),
    ("easy_vqa", {"easy_vqa/test/questions.json": [["what?", "purple", 1]]}, "purple"),
    ("xgqa", gqa(XGQA, a="red") | {"gqa/trainval_ans2label.json": []}, "trainval_ans2label.json"),
    ("xgqa", gqa(XGQA, **{"\ud83d": "red"}), "id holds half a character"),
    ("vqa_v2", ASKED | {ANSWERS: {"annotations": [7]}}, ANSWERS),
    ("vqa_v2", ASKED | {ANSWERS: {"annotations": [{"question_id": 42000}]}}, "'annotations[0].answers'"),
]


@pytest.mark.parametrize(("name", "content", "said"), BAD)
def test_bad_rows_are_refused(name, content, said, tmp_path):
    write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_examples(get_task(f"{name}:text"), "test", "en", DataSource(tmp_path))
    assert said in f"{caught.value}".encode().decode()  # which can be written


def test_easy_vqa_is_split_alike_wherever_it_lies(tmp_path):
    """One picture in twenty is kept for selection, with all its questions, none of which is one of training."""
    triples = [["what is the shape now?", "teal", number // 2] for number in range(400)]
    kept = []
    for root in ("easy_vqa", "multimodal/easy_vqa"):
        files = {f"{root}/train/questions.json": triples}
        source = DataSource(tmp_path / root.replace("/", "-"))
        pictures = [asks("", "", 0, f"{root}/train/images/{number}.png") for number in range(200)]
        write(source.root, files, pictures)
        dev = read_examples(get_task("easy_vqa"), "dev", "en", source)
        train = read_examples(get_task("easy_vqa"), "train", "en", source)
        assert len(train) + len(dev) == 400
        assert {one.pictures for one in train}.isdisjoint(one.pictures for one in dev)
        kept.append([one.id for one in dev])
        assert not prepare([get_task("easy_vqa")], source)[1]
    assert kept[0] == kept[1] and 8 <= len(kept[0]) <= 40


def test_controls_are_tasks_of_their_own():
    shown = {"": "seen", ":blind": "blind", ":shuffled": "shuffled", ":text": ""}
    assert {control: get_task(f"easy_vqa{control}").pictures for control in shown} == shown
    assert get_task("easy_vqa:blind@de").name == "easy_vqa.blind@de"
    for wrong in ("easy_vqa:deaf", "mnli:blind"):
        with pytest.raises(ConfigError):
            get_task(wrong)


def test_accuracy_of_answers_by_the_published_rule():
    """VQA accuracy against cases worked out by hand from visualqa.org/evaluation.

    An apostrophe is no punctuation; with a comma inside a number all punctuation goes without a space.
    """
    normalised = """
        The cat.=cat|Two dogs=2 dogs|none=0|dont know=don't know|yall=y'all|A=|couldnt've=couldn't've|it's=it's|
        couldn'tve=couldn't've|red/blue=red blue|red / blue=red blue|red, blue=red blue|t-shirt=t shirt|1,000=1000|
        3.5=3.5|1,000 t-shirts=1000 tshirts|st. john=st john|a.m.=am|yes!=yes"""
    for case in normalised.split("|"):
        text, _, expected = case.strip().partition("=")
        assert " ".join(normalise_answer(text).split()) == expected
    # Of n people who say it, n see n - 1 others and 10 - n see n others: n min((n-1)/3, 1) + (10-n) min(n/3, 1).
    for people, expected in ((0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0), (10, 1.0)):
        answers = ["dog"] * people + [f"other {number}" for number in range(10 - people)]
        assert score_answer("dog", answers) == pytest.approx(expected)
    # Answers are normalised only where people disagree; case never counts.
    assert score_answer("the dog", ["dog"] * 10) == 0.0
    assert score_answer("the dog", ["dog"] * 9 + ["cat"]) == 1.0
    assert score_answer("Dog", ["dog"] * 10) == score_answer("dog\n", ["\tdog"] * 10) == 1.0
    assert score_answer("two", ["2"] * 5 + ["two."] * 5) == 1.0


def test_the_metric_takes_labels_and_names():
    task = replace(get_task("vqa_v2"), labels=("dog", "2"))
    gold = [["two"] * 5 + ["2"] * 5, ["dog", *["cat"] * 9]]
    for predictions in ([1, 0], ["2", "dog"]):
        found = METRICS["vqa_accuracy"](task, predictions, gold, "en")
        assert found.values == {"accuracy": pytest.approx(65.0)}
        assert found.items.values.tolist() == pytest.approx([1.0, 0.3])
