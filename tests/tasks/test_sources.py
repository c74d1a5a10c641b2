"""Reading splits: original release layouts, traps of XTREME's download, languages, fingerprints."""

import os

import pytest

from stilts_jax.errors import ConfigError, DataError
from stilts_jax.evaluation.evaluate import score_decoded
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import (
    DataSource,
    available_languages,
    fingerprint,
    read_counted,
    read_examples,
    read_labels,
    selection_language,
    with_labels,
)


def squad(*questions):
    """SQuAD's form of (id, question, context, answers)."""
    paragraphs = [
        {
            "context": context,
            "qas": [
                {
                    "id": name,
                    "question": question,
                    "answers": [{"text": text, "answer_start": start} for text, start in answers],
                }
            ],
        }
        for name, question, context, answers in questions
    ]
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}


def labels_of(examples, task):
    return [None if example.label is None else task.labels[example.label] for example in examples]


XNLI_HEADER = "language\tgold_label\tsentence1_binary_parse\tsentence1\tsentence2\tpairID\n"


def test_xnli_as_released_is_one_file_of_all_languages(write, source):
    task = get_task("xnli")
    rows = 'de\tneutral\t\tGut "so".\tJa.\t7\nsw\tcontradiction\t\tNdiyo.\tHapana.\t7\n'
    write("xnli/XNLI-1.0/xnli.dev.tsv", XNLI_HEADER + rows)
    (example,) = read_examples(task, "dev", "de", source)
    assert (example.id, example.text, example.pair) == ("7", 'Gut "so".', "Ja.")
    assert labels_of([example], task) == ["neutral"]
    assert available_languages(task, "dev", source) == ("de", "sw")
    with pytest.raises(DataError):
        read_examples(task, "dev", "fr", source)


def test_xnli_of_xtreme_with_and_without_gold(write, source):
    task = get_task("xnli")
    write("xnli/train-en.tsv", "a\tb\tcontradictory\n")
    assert labels_of(read_examples(task, "train", "en", source), task) == ["contradiction"]
    write("xnli/test-de.tsv", "a\tb\nc\td\n")
    write("xnli/test-ko.tsv.gz", "a\tb\tentailment\n")
    assert labels_of(read_examples(task, "test", "de", source), task) == [None, None]
    assert labels_of(read_examples(task, "test", "ko", source), task) == ["entailment"]
    # Korean is none of the benchmark's languages, yet can be read where a file is.
    assert available_languages(task, "test", source) == ("de",)
    assert available_languages(task, "test", source, beyond=True) == ("de", "ko")


def test_nli_labels_go_by_name_in_every_layout(write, source):
    task = get_task("mnli")
    write(
        "mnli/multinli_1.0_train.jsonl",
        [{"sentence1": "a", "sentence2": "b", "gold_label": "entailment", "pairID": "1n"}],
    )
    write(
        "MNLI/dev_matched.tsv",
        "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\ta\tb\tneutral\tcontradiction\n",
    )
    assert labels_of(read_examples(task, "train", "en", source), task) == ["entailment"]
    assert labels_of(read_examples(task, "dev", "en", source), task) == ["contradiction"]


def test_a_translated_task_reads_files_of_its_language(write, source):
    task = get_task("mnli@de")
    row = {"sentence1": "eins", "sentence2": "zwei", "gold_label": "neutral", "pairID": "1"}
    write("mnli/multinli_1.0_train-de.jsonl", [row])
    write("mnli/multinli_1.0_dev_matched.jsonl", [{**row, "sentence1": "one"}])
    assert [example.text for example in read_examples(task, "train", "de", source)] == ["eins"]
    # Without a translated dev set it is selected on English, once and under that name ...
    assert selection_language(task, source) == "en"
    assert available_languages(task, "dev", source) == ("en",)
    assert available_languages(task, "dev", source, beyond=True) == ("en",)
    # ... but is never trained on English by mistake.
    with pytest.raises(DataError):
        read_examples(get_task("mnli@ru"), "train", "ru", source)
    write("mnli/multinli_1.0_dev_matched-de.jsonl", [row])
    assert selection_language(task, source) == "de"
    assert available_languages(task, "dev", source) == ("de",)


def test_snli_without_a_majority_is_dropped(write, source):
    row = {"sentence1": "a", "sentence2": "b"}
    labels = ["entailment", "-", "neutral", "-"]
    write(
        "snli/snli_1.0_train.jsonl",
        [{**row, "gold_label": label, "pairID": str(n)} for n, label in enumerate(labels)],
    )
    reading = read_counted(get_task("snli"), "train", "en", source)
    assert [example.id for example in reading.examples] == ["0", "2"] and reading.dropped == 2


def test_anli_plus_is_five_data_sets_with_one_head(write, source):
    task = get_task("anli")
    pair = {"sentence1": "a", "sentence2": "b", "gold_label": "neutral", "pairID": "1"}
    write("snli/snli_1.0_train.jsonl", [pair, {**pair, "gold_label": "-"}])
    write("mnli/multinli_1.0_train.jsonl", [pair])
    for number in (1, 2):
        row = {"uid": "u", "context": f"c{number}", "hypothesis": "h", "label": "e"}
        write(f"anli/R{number}/train.jsonl", [row])
    with pytest.raises(DataError, match="part anli_r3"):
        read_examples(task, "train", "en", source)
    write("anli/R3/train.jsonl", [row])
    examples = read_examples(task, "train", "en", source)
    assert [example.id for example in examples] == ["snli/1", "mnli/1", "anli_r1/u", "anli_r2/u", "anli_r3/u"]
    assert labels_of(examples, task) == ["neutral", "neutral"] + ["entailment"] * 3


def test_pawsx_as_released(write, source):
    task = get_task("pawsx")
    rows = 'id\tsentence1\tsentence2\tlabel\n4\tNS\tEin Satz.\t0\n6\tHe\'s "it".\tIt.\t1\n9\tA NS b\tc\t0\n'
    write("pawsx/x-final/de/dev_2k.tsv", rows)
    reading = read_counted(task, "dev", "de", source)
    assert [(example.id, example.text, example.label) for example in reading.examples] == [
        ("6", 'He\'s "it".', 1),
        ("9", "A NS b", 0),
    ]
    assert reading.dropped == 1
    write("pawsx/de/translated_train.tsv", rows)
    assert len(read_examples(task, "train", "de", source)) == 2


def test_panx_as_released(write, source):
    write("panx/sw/dev", "sw:a:b\tB-LOC\nsw:c\tO\n")
    (example,) = read_examples(get_task("panx"), "dev", "sw", source)
    assert example.words == ("a:b", "c") and example.tags == (0, 6)
    assert available_languages(get_task("panx"), "dev", source) == ("sw",)


def test_treebanks_of_a_language_are_read_together_in_order(write, source):
    def sentence(word):
        return f"1\t{word}\t_\tNOUN\t_\t_\t0\troot\t_\t_\n\n"

    write("udpos/UD_German-HDT/de_hdt-ud-test.conllu", sentence("zwei"))
    write("udpos/UD_German-GSD/de_gsd-ud-test.conllu.gz", sentence("eins"))
    write("udpos/UD_Danish-DDT/da_ddt-ud-test.conllu", sentence("tre"))
    task = get_task("udpos")
    examples = read_examples(task, "test", "de", source)
    assert [example.words for example in examples] == [("eins",), ("zwei",)]
    assert [example.id for example in examples] == ["0", "1"]
    assert available_languages(task, "test", source, beyond=True) == ("de", "da")


def test_languages_without_a_dev_set():
    dev = get_task("udpos").split_languages["dev"]
    assert set(get_task("udpos").languages) - set(dev) == {"kk", "th", "tl", "yo"}


def test_romanian_is_read_where_its_file_is(write, source):
    write("xquad/xquad.ro.json", squad(("q", "Cine?", "Ana a venit.", [("Ana", 0)])))
    (example,) = read_examples(get_task("xquad"), "test", "ro", source)
    assert example.answers == (("Ana", 0),)


def test_blanked_answers_are_no_answers_and_no_impossible_question(write, source):
    write("xquad/xquad.zh.json", squad(("q", "谁？", "安娜来了。", [("", 0)])))
    (example,) = read_examples(get_task("xquad"), "test", "zh", source)
    assert example.answers == () and not example.impossible


def test_impossible_questions_are_squad_v2s(write, source):
    content = squad(("a", "?", "text", []), ("b", "?", "text", [("ex", 1)]))
    questions = content["data"][0]["paragraphs"]
    questions[0]["qas"][0]["is_impossible"] = True
    questions[1]["qas"][0]["is_impossible"] = False
    write("squad/train-v2.0.json", content)
    first, second = read_examples(get_task("squad_v2"), "train", "en", source)
    assert first.impossible and first.answers == ()
    assert not second.impossible and second.answers == (("ex", 1),)


def test_mlqa_mixes_no_languages(write, source):
    folder = "mlqa/MLQA_V1/dev/dev-context"
    write(f"{folder}-de-question-de.json", squad(("q", "Wer?", "Ann kam.", [("Ann", 0)])))
    write(f"{folder}-de-question-en.json", squad(("q", "Who?", "Ann kam.", [("Ann", 0)])))
    write(f"{folder}-en-question-de.json", squad(("q", "Wer?", "Ann came.", [("Ann", 0)])))
    task = get_task("mlqa")
    assert available_languages(task, "dev", source, beyond=True) == ("de",)
    assert [example.question for example in read_examples(task, "dev", "de", source)] == ["Wer?"]


def test_tydiqa_carves_its_dev_set_from_english_train(write, source):
    task = get_task("tydiqa")
    # XTREME's ids: cut down until they repeat. Two questions on each paragraph.
    questions = [
        (str(n % 3), f"q{n}?", f"Paragraph {n // 2}: x.", [("x", len(f"Paragraph {n // 2}: "))])
        for n in range(400)
    ]
    write("tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json", squad(*questions))
    train, dev = (read_examples(task, split, "en", source) for split in ("train", "dev"))
    assert len(train) + len(dev) == 400 and 10 <= len(dev) <= 80
    assert not {example.context for example in train} & {example.context for example in dev}
    assert len({example.id for example in (*train, *dev)}) == 400
    assert fingerprint(task, "train", "en", source) != fingerprint(task, "dev", "en", source)


def test_tydiqa_as_released_trains_on_english_alone(write, source):
    task = get_task("tydiqa")
    contexts = [f"Paragraph {n}." for n in range(30)]
    rows = [
        (f"{name}-{n}-0", "?", text, [("P", 0)])
        for n, text in enumerate(contexts)
        for name in ("english", "korean")
    ]
    write("tydiqa/tydiqa-goldp-v1.1-train.json", squad(*rows))
    write(
        "tydiqa/tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-korean.json",
        squad(("korean-1-1", "?", "P.", [("P", 0)])),
    )
    both = [*read_examples(task, "train", "en", source), *read_examples(task, "dev", "en", source)]
    assert len(both) == 30 and all(example.id.startswith("english-") for example in both)
    assert available_languages(task, "test", source) == ("ko",)
    assert len(read_examples(task, "test", "ko", source)) == 1


def copa(count, label):
    row = {"premise": "It rained.", "choice1": "It got wet.", "choice2": "It got dry.", "question": "effect"}
    return [{**row, "idx": n, "label": label(n)} for n in range(count)]


def test_xcopas_overwritten_labels_are_blanks(write, source):
    task = get_task("xcopa")
    write("xcopa/test-et.jsonl", copa(500, lambda n: 0))
    write("xcopa/test-qu.jsonl", copa(500, lambda n: n % 2))
    write("xcopa/data/sw/val.sw.jsonl", copa(100, lambda n: n % 2))
    assert {example.label for example in read_examples(task, "test", "et", source)} == {None}
    assert {example.label for example in read_examples(task, "test", "qu", source)} == {0, 1}
    (first, *_) = read_examples(task, "dev", "sw", source)
    assert first.prompt == "It rained. What was the effect?" and first.choices == (
        "It got wet.",
        "It got dry.",
    )
    assert available_languages(task, "test", source) == ("et", "qu")


def test_choices_of_every_released_form(write, source):
    write(
        "hellaswag/hellaswag_val.jsonl",
        # ActivityNet and WikiHow are numbered separately.
        [{"ind": 4, "ctx_a": "He sits.", "ctx_b": "then", "endings": ["he", "she", "it", "a"], "label": 3}]
        * 2,
    )
    write(
        "hellaswag/hellaswag_test.jsonl",
        [{"ind": 5, "ctx_a": "He sits.", "ctx_b": "", "endings": ["he", "she", "it", "a"]}],
    )
    example, second = read_examples(get_task("hellaswag"), "dev", "en", source)
    assert example.id != second.id
    assert example.prompt == "He sits." and example.choices[1] == "then she" and example.label == 3
    (example,) = read_examples(get_task("hellaswag"), "test", "en", source)
    assert example.choices[1] == "she" and example.label is None
    choices = [{"label": letter, "text": letter.lower()} for letter in "ABCDE"]
    write(
        "commonsenseqa/dev_rand_split.jsonl",
        [{"id": "x", "answerKey": "E", "question": {"stem": "S?", "choices": choices}}],
    )
    (example,) = read_examples(get_task("commonsenseqa"), "dev", "en", source)
    assert (example.prompt, example.choices, example.label) == ("S?", tuple("abcde"), 4)
    write(
        "siqa/socialIQa_v1.4_trn.jsonl",
        [{"context": "C.", "question": "Q?", "answerA": "a", "answerB": "b", "answerC": "c", "correct": "B"}],
    )
    (example,) = read_examples(get_task("siqa"), "train", "en", source)
    assert (example.prompt, example.label) == ("C. Q?", 1)
    write(
        "cosmosqa/train.csv",
        'id,context,question,answer0,answer1,answer2,answer3,label\n1,"A, ""b"".",Q?,a,b,c,d,2\n',
    )
    (example,) = read_examples(get_task("cosmosqa"), "train", "en", source)
    assert (example.prompt, example.label) == ('A, "b". Q?', 2)


def test_qqp_bears_the_broken_lines_of_its_release(write, source):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    write("qqp/train.tsv", header + "1\t2\t3\tA?\tB?\t1\n4\t5\t6\tA?\n5\t6\t7\tA?\t\t0\n")
    reading = read_counted(get_task("qqp"), "train", "en", source)
    assert [example.label for example in reading.examples] == [1] and len(reading.skipped) == 2


def test_ccg_tags_that_training_lacks_are_never_right(write, source):
    task = get_task("ccg")
    write("ccg/tags_to_id.json", {"n": 1, "np/n": 0})
    write("ccg/train.tsv", "the dog\tnp/n n\n")
    write("ccg/dev.tsv", "the dog barks\tnp/n n s\\np\n")
    labels = read_labels(task, source)
    assert labels == ("np/n", "n") == with_labels(task, source).labels  # the head has no output for others
    assert read_examples(task, "train", "en", source)[0].tags == (0, 1)
    dev = read_examples(task, "dev", "en", source)
    assert dev[0].tags == (0, 1, 2)
    for predicted in ((0, 1, 0), (0, 1, 1)):
        scored = score_decoded(with_labels(task, source), {"en": [predicted]}, {"en": dev})
        assert scored.scores["accuracy"]["en"] == pytest.approx(200 / 3)
    write("ccg/train.tsv", "barks\ts\\np\n")
    with pytest.raises(DataError, match=r"s\\\\np"):
        read_examples(task, "train", "en", source)


def test_text_of_the_languages_that_are_there(write, source):
    task = get_task("mlm")
    write("text/gsw.txt", "".join(f"Zeile {n}.\n\n" for n in range(500)))
    write("text/de-en.tsv", "eins\tone\n")
    assert available_languages(task, "train", source) == ("de-en", "gsw")
    train, dev = (read_examples(task, split, "gsw", source) for split in ("train", "dev"))
    assert len(train) + len(dev) == 500 and 0 < len(dev) < 25
    assert [example.text for example in read_examples(task, "train", "de-en", source)] == ["eins one"]


def test_a_fingerprint_follows_bytes_and_version(write, source):
    task = get_task("xnli")
    path = write("xnli/dev-de.tsv", "a\tb\tneutral\n")
    first = fingerprint(task, "dev", "de", source)
    state = path.stat()
    path.write_text("a\tc\tneutral\n")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 10_000_000))
    second = fingerprint(task, "dev", "de", source)
    path.write_text("a\tb\tneutral\n")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 20_000_000))
    assert first != second and fingerprint(task, "dev", "de", source) == first


def test_sources_are_chosen_by_task(tmp_path):
    source = DataSource(tmp_path, kind="hub", per_task={"mnli": "files"})
    for name, split, kind in (
        ("mnli@de", "train", "files"),
        ("xnli", "test", "hub"),
        ("udpos", "test", "files"),  # no right data set on the hub
        ("lareqa", "train", "hub"),
        ("lareqa", "test", "files"),
    ):
        assert source.kind_of(get_task(name), split) == kind
    with pytest.raises(ConfigError):
        DataSource(tmp_path, kind="ftp").kind_of(get_task("xnli"), "test")
