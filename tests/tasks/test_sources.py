"""Reading splits: original release layouts, traps of XTREME's download, languages, fingerprints."""

import os
from dataclasses import astuple

import pytest

from stilts_jax.errors import DataError
from stilts_jax.evaluation.evaluate import score_decoded
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import (
    available_languages,
    fingerprint,
    read_examples,
    selection_language,
    with_labels,
)


def squad(*questions):
    """SQuAD's form of (id, question, context, answers) and more."""
    paragraphs = [
        {"context": context, "qas": [{"id": name, "question": question, "answers": answers, **more}]}
        for name, question, context, answers, *others in questions
        for more in (others or [{}])
    ]
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}


def answer(text, start=0):
    return [{"text": text, "answer_start": start}]


def nli(label, name="1", first="a"):
    return {"sentence1": first, "sentence2": "b", "gold_label": label, "pairID": name}


def tree(word):
    return f"1\t{word}\t_\tNOUN\t_\t_\t0\troot\t_\t_\n\n"


XNLI = "language\tgold_label\tsentence1_binary_parse\tsentence1\tsentence2\tpairID\n" + (
    'de\tneutral\t\tGut "so".\tJa.\t7\nsw\tcontradiction\t\tNdiyo.\tHapana.\t7\n'
)
GLUE = "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta\tb\tneutral\tcontradiction\n"
PAWS = 'id\tsentence1\tsentence2\tlabel\n4\tNS\tEin Satz.\t0\n6\tHe\'s "it".\tIt.\t1\n9\tA NS b\tc\t0\n'
PAWS_READ = [("6", 'He\'s "it".', "It.", 1), ("9", "A NS b", "c", 0)]
QQP = (
    "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tA?\tB?\t1\n4\t5\t6\tA?\n5\t6\t7\tA?\t\t0\n"
)
TREES = {
    "udpos/UD_German-HDT/de_hdt-ud-test.conllu": tree("zwei"),
    "udpos/UD_German-GSD/de_gsd-ud-test.conllu.gz": tree("eins"),
    "udpos/UD_Danish-DDT/da_ddt-ud-test.conllu": tree("tre"),
}
SCENE = {"ctx_a": "He sits.", "endings": ["he", "she", "it", "a"]}
POSSIBLE = squad(
    ("a", "?", "text", [], {"is_impossible": True}),
    ("b", "?", "text", answer("ex", 1), {"is_impossible": False}),
)
CHOICES = [{"label": letter, "text": letter.lower()} for letter in "ABCDE"]
SENSE = [{"id": "x", "answerKey": "E", "question": {"stem": "S?", "choices": CHOICES}}]
SIQA = [{"context": "C.", "question": "Q?", "answerA": "a", "answerB": "b", "answerC": "c", "correct": "B"}]
COSMOS = 'id,context,question,answer0,answer1,answer2,answer3,label\n1,"A, ""b"".",Q?,a,b,c,d,2\n'
# Task, split, language, files, and the examples that are in them; labels are numbers in the order of the task.
LAYOUTS = [
    ("xnli", "dev", "de", {"xnli/XNLI-1.0/xnli.dev.tsv": XNLI}, [("7", 'Gut "so".', "Ja.", 2)]),
    ("mnli", "train", "en", {"mnli/multinli_1.0_train.jsonl": [nli("entailment")]}, [("1", "a", "b", 1)]),
    ("mnli", "dev", "en", {"MNLI/dev_matched.tsv": GLUE}, [("0", "a", "b", 0)]),
    # Without a majority.
    ("snli", "dev", "en", {"snli/snli_1.0_dev.jsonl": [nli("-"), nli("neutral", "2")]}, [("2", "a", "b", 2)]),
    ("pawsx", "dev", "de", {"pawsx/x-final/de/dev_2k.tsv": PAWS}, [("4", "NS", "Ein Satz.", 0), *PAWS_READ]),
    ("pawsx", "train", "de", {"pawsx/de/translated_train.tsv": PAWS}, PAWS_READ),
    # Broken lines are in the release.
    ("qqp", "train", "en", {"qqp/train.tsv": QQP}, [("0", "A?", "B?", 1)]),
    ("panx", "dev", "sw", {"panx/sw/dev": "sw:a:b\tB-LOC\nsw:c\tO\n"}, [("0", ("a:b", "c"), (0, 6))]),
    ("udpos", "test", "de", TREES, [("0", ("eins",), (7,)), ("1", ("zwei",), (7,))]),
    ("xquad", "test", "ro", {"xquad/xquad.ro.json": squad(("q", "Cine?", "Ana a venit.", answer("Ana")))},
        [("q", "Cine?", "Ana a venit.", (("Ana", 0),), False)]),
    ("xnli", "test", "de", {"xnli/test-de.tsv": "a\tb\nc\td\n"}, [("0", "a", "b", None), ("1", "c", "d", None)]),
    # Of which the files that mix languages are not read.
    ("mlqa", "dev", "de", {
        f"mlqa/MLQA_V1/dev/dev-context-{c}-question-{q}.json": squad(("q", q, f"Ann ({c}).", answer("Ann")))
        for c, q in (("de", "de"), ("de", "en"), ("en", "de"))}, [("q", "de", "Ann (de).")]),
    ("mlm", "train", "de-en", {"text/de-en.tsv": "eins\tone\n"}, [("0", "eins one")]),
    # Blanked, and no impossible question.
    ("xquad", "test", "zh", {"xquad/xquad.zh.json": squad(("q", "谁？", "安娜来了。", answer("")))},
        [("q", "谁？", "安娜来了。", (), False)]),
    ("squad_v2", "train", "en", {"squad/train-v2.0.json": POSSIBLE},
        [("a", "?", "text", (), True), ("b", "?", "text", (("ex", 1),), False)]),
    # ActivityNet and WikiHow are numbered separately, so that their ids are not unique.
    ("hellaswag", "dev", "en",
        {"hellaswag/hellaswag_val.jsonl": [{"ind": 4, "ctx_b": "then", "label": 3, **SCENE}] * 2},
        [(str(n), "He sits.", ("then he", "then she", "then it", "then a"), 3) for n in range(2)]),
    ("hellaswag", "test", "en", {"hellaswag/hellaswag_test.jsonl": [{"ind": 5, "ctx_b": "", **SCENE}]},
        [("0", "He sits.", ("he", "she", "it", "a"), None)]),
    ("commonsenseqa", "dev", "en", {"commonsenseqa/dev_rand_split.jsonl": SENSE}, [("x", "S?", tuple("abcde"), 4)]),
    ("siqa", "train", "en", {"siqa/socialIQa_v1.4_trn.jsonl": SIQA}, [("0", "C. Q?", ("a", "b", "c"), 1)]),
    ("cosmosqa", "train", "en", {"cosmosqa/train.csv": COSMOS}, [("1", 'A, "b". Q?', tuple("abcd"), 2)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "split", "language", "files", "expected"), LAYOUTS, ids=[next(iter(row[3])) for row in LAYOUTS]
)
def test_released_layouts(write, source, name, split, language, files, expected):
    for path, content in files.items():
        write(path, content)
    task, other = get_task(name), get_task(f"{name}@zz")
    found = [astuple(example) for example in read_examples(task, split, language, source)]
    assert [fields[: len(row)] for fields, row in zip(found, expected, strict=True)] == expected
    assert language in available_languages(task, split, source, beyond=True)
    assert split in ("train", task.selection) or not available_languages(other, split, source)
    with pytest.raises(DataError):
        read_examples(task, split, "fr", source)


def test_a_translated_task_reads_files_of_its_language(write, source):
    task = get_task("mnli@de")
    row = {"sentence1": "eins", "sentence2": "zwei", "gold_label": "neutral", "pairID": "1"}
    write("mnli/multinli_1.0_train-de.jsonl", [row])
    write("mnli/multinli_1.0_dev_matched.jsonl", [{**row, "sentence1": "one"}])
    assert [example.text for example in read_examples(task, "train", "de", source)] == ["eins"]
    # Without a translated dev set it is selected on English, once and under that name ...
    assert (selection_language(task, source), available_languages(task, "dev", source)) == ("en", ("en",))
    # ... but is never trained on English by mistake.
    with pytest.raises(DataError):
        read_examples(get_task("mnli@ru"), "train", "ru", source)
    write("mnli/multinli_1.0_dev_mismatched-en.jsonl", [row])  # not a name of an English file
    assert not available_languages(get_task("mnli"), "dev_mismatched", source)
    write("mnli/multinli_1.0_dev_matched-de.jsonl", [row])
    assert (selection_language(task, source), available_languages(task, "dev", source)) == ("de", ("de",))


def test_tydiqa_carves_its_dev_set_from_english_train(write, source):
    task = get_task("tydiqa")
    # XTREME's ids: cut down until they repeat. Two questions on each paragraph.
    texts = [f"Paragraph {n // 2}: x." for n in range(400)]
    questions = [(f"{n % 3}", f"q{n}?", text, answer("x", text.index("x"))) for n, text in enumerate(texts)]
    write("tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json", squad(*questions))
    train, dev = (read_examples(task, split, "en", source) for split in ("train", "dev"))
    assert len(train) + len(dev) == 400 and 10 <= len(dev) <= 80
    assert not {example.context for example in train} & {example.context for example in dev}
    assert len({example.id for example in (*train, *dev)}) == 400
    assert fingerprint(task, "train", "en", source) != fingerprint(task, "dev", "en", source)


def test_tydiqa_as_released_trains_on_english_alone(write, source):
    task = get_task("tydiqa")
    contexts = [f"Paragraph {n}." for n in range(30)]
    numbered = [(f"{name}-{n}-0", text) for n, text in enumerate(contexts) for name in ("english", "korean")]
    rows = [(name, "?", text, answer("P")) for name, text in numbered]
    write("tydiqa/tydiqa-goldp-v1.1-train.json", squad(*rows))
    korean = squad(("korean-1-1", "?", "P.", answer("P")))
    write("tydiqa/tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-korean.json", korean)
    both = [*read_examples(task, "train", "en", source), *read_examples(task, "dev", "en", source)]
    assert len(both) == 30 and all(example.id.startswith("english-") for example in both)
    assert available_languages(task, "test", source) == ("ko",)
    assert len(read_examples(task, "test", "ko", source)) == 1


def test_xcopas_overwritten_labels_are_blanks(write, source):
    task = get_task("xcopa")
    row = {"premise": "It rained.", "choice1": "It got wet.", "choice2": "It got dry.", "question": "effect"}

    def copa(count, label):
        return [{**row, "idx": n, "label": label(n)} for n in range(count)]

    write("xcopa/test-et.jsonl", copa(500, lambda n: 0))
    write("xcopa/test-qu.jsonl", copa(500, lambda n: n % 2))
    write("xcopa/data/sw/val.sw.jsonl", copa(100, lambda n: n % 2))
    assert {example.label for example in read_examples(task, "test", "et", source)} == {None}
    assert {example.label for example in read_examples(task, "test", "qu", source)} == {0, 1}
    assert read_examples(task, "dev", "sw", source)[0].prompt == "It rained. What was the effect?"


def test_ccg_tags_that_training_lacks_are_never_right(write, source):
    task = get_task("ccg")
    write("ccg/tags_to_id.json", {"n": 1, "np/n": 0})
    write("ccg/train.tsv", "the dog\tnp/n n\n")
    write("ccg/dev.tsv", "the dog barks\tnp/n n s\\np\n")
    assert with_labels(task, source).labels == ("np/n", "n")  # the head has no output for others
    assert read_examples(task, "train", "en", source)[0].tags == (0, 1)
    dev = read_examples(task, "dev", "en", source)
    assert dev[0].tags == (0, 1, 2)
    for predicted in ((0, 1, 0), (0, 1, 1)):
        scored = score_decoded(with_labels(task, source), {"en": [predicted]}, {"en": dev})
        assert scored.scores["accuracy"]["en"] == pytest.approx(200 / 3)
    write("ccg/train.tsv", "barks\ts\\np\n")
    with pytest.raises(DataError, match=r"s\\\\np"):
        read_examples(task, "train", "en", source)


def test_a_fingerprint_follows_bytes(write, source):
    prints = []
    for step, text in enumerate(("a\tb\tneutral\n", "a\tc\tneutral\n", "a\tb\tneutral\n")):
        os.utime(write("xnli/dev-de.tsv", text), ns=(0, step * 10_000_000))
        prints.append(fingerprint(get_task("xnli"), "dev", "de", source))
    assert prints[0] == prints[2] != prints[1]
