"""The truth model against brute force over possible worlds, pictures beside what is said of them, and seeds."""

import hashlib
import itertools
import json
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stilts_jax.toy.meaning import CLASSES, Clause, Entity, Thing, judge
from stilts_jax.toy.world import write_tasks, write_texts

MIRA, ELNA = Entity("person", ("Mira",)), Entity("person", ("Elna",))
TORVA, OSTIA = Entity("place", ("Torva",)), Entity("place", ("Ostia",))
# A small universe. A world is one full event: who, what is done, noun, adjective, count, place, time.
NOUNS = ("dog", "cat", "bread")
DETAILS = (("red", "old"), ("2", "3"), (TORVA, OSTIA), ("today", "friday"))
WORLDS = list(itertools.product((MIRA, ELNA), ("buys", "sells"), NOUNS, *DETAILS))


def holds(said: Clause, world: tuple) -> bool:
    """Whether ``said`` is true in a world, spelled out part by part."""
    subject, verb, noun, adjective, count, place, time = world
    true = said.subject == subject and said.verb == verb
    wanted = said.object
    true = true and (wanted.noun == noun or noun in CLASSES.get(wanted.noun, ()))
    true = true and wanted.adjective in (None, adjective) and wanted.count in (None, count)
    true = true and said.place in (None, place) and said.time in (None, time)
    return true != said.negated


def judge_by_worlds(premise: Clause, hypothesis: Clause) -> str:
    outcomes = {holds(hypothesis, world) for world in WORLDS if holds(premise, world)}
    return {frozenset([True]): "entailment", frozenset([False]): "contradiction"}.get(
        frozenset(outcomes), "neutral"
    )


def test_judge_equals_enumeration_of_worlds():
    draw = random.Random(7)

    def some_clause() -> Clause:
        adjective, count, place, time = (draw.choice((None, *values)) for values in DETAILS)
        thing = Thing(draw.choice((*NOUNS, "animal")), adjective, count)
        who, verb = draw.choice((MIRA, ELNA)), draw.choice(("buys", "sells"))
        return Clause(who, verb, thing, place, time, negated=draw.random() < 0.3)

    seen = set()
    for _ in range(400):
        premise = some_clause()
        # Often a variation of the premise: unrelated clauses nearly always contradict each other.
        hypothesis = some_clause()
        if draw.random() < 0.7:
            hypothesis = replace(premise, place=hypothesis.place, negated=hypothesis.negated)
        expected = judge_by_worlds(premise, hypothesis)
        seen.add((expected, premise.negated, hypothesis.negated))
        assert judge(premise, hypothesis) == expected, (premise, hypothesis)
    assert len(seen) >= 9  # every label, with and without negations


def test_pictures_show_what_their_answers_and_captions_say(world):
    """What is not white tells the colour; how much of its box is filled, the shape."""
    data = world / "data"
    for part, coco, count in (("train", "train2014", 80), ("test", "val2014", 20)):
        asked = json.loads((data / f"easy_vqa/{part}/questions.json").read_text())
        captions = json.loads((data / f"coco/annotations/captions_{coco}.json").read_text())
        assert (data / f"coco/{coco}.zip").read_bytes() == (data / f"easy_vqa/{part}/images.zip").read_bytes()
        with zipfile.ZipFile(data / f"easy_vqa/{part}/images.zip") as archive:
            pictures = [np.asarray(Image.open(archive.open(f"{number}.png"))) for number in range(count)]
        seen = [describe(picture) for picture in pictures]
        assert len(set(seen)) == 12 or part == "test"
        assert [one["caption"] for one in captions["annotations"]] == [f"the {s} is {c}." for c, s in seen]
        assert [one["file_name"] for one in captions["images"]] == [f"{n}.png" for n in range(count)]
        assert len(asked) == 3 * count
        for question, answer, number in asked:
            colour, shape = seen[number]
            named = question.removeprefix("is the shape ").rstrip("?")
            truth = {"what color is the shape?": colour, "what shape is it?": shape}
            assert answer == truth.get(question, "yes" if named == colour else "no"), question


def describe(picture: np.ndarray) -> tuple[str, str]:
    inked = (picture != 255).any(axis=-1)
    ink = picture[inked][0]
    colour = "black" if ink.max() < 50 else ["red", "green", "blue"][ink.argmax()]
    rows, columns = (np.flatnonzero(inked.any(axis=axis)) for axis in (1, 0))
    share = inked.sum() / (np.ptp(rows) + 1) / (np.ptp(columns) + 1)
    return colour, "rectangle" if share == 1 else "circle" if share > 0.65 else "triangle"


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_world(world, tmp_path):
    for seed in (0, 1):
        for write in (write_texts, write_tasks):
            write(tmp_path / str(seed), size="test", seed=seed)
    first, second, other = digests(world), digests(tmp_path / "0"), digests(tmp_path / "1")
    assert first == second and len(first) > 100 and not [name for name in first if "/." in name]
    assert first.keys() == other.keys()
    assert first["data/xnli/test-en.tsv"] != other["data/xnli/test-en.tsv"]
