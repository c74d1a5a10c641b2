"""What prepare and tasks say: counts beside those of the releases, what is missing, and what overlaps."""

import pytest

from stilts_jax.main import main
from stilts_jax.tasks import get_task, list_tasks
from stilts_jax.tasks.sources.inventory import format_inventory, format_preparation, prepare
from stilts_jax.tasks.sources.read import DataSource
from tests.tasks.seed_files import squad

PARAGRAPH = "Ann came to the town in the morning. She left at night."


@pytest.fixture
def source(tmp_path, write):
    # The same paragraph in other case and spacing, and one that is not in training.
    upper = PARAGRAPH.upper().replace(" ", "  ")
    for name, content in {
        "squad/train-v1.1.json": squad(PARAGRAPH, "Another text that is long enough."),
        "xquad/xquad.en.json": squad(upper, "A paragraph that training has not."),
        "xnli/dev-de.tsv": "a\tb\tneutral\n" * 2490,
        "xnli/dev-sw.tsv": "a\tb\tneutral\nc\td\toops\n",
        "text/sv.txt": "ett\n",
    }.items():
        write(name, content)
    return DataSource(tmp_path)


def test_counts_stand_beside_those_of_the_release(source):
    splits, overlaps = prepare([get_task("xnli"), get_task("squad_v1"), get_task("xquad")], source)
    rows = {(row.task, row.split, row.language): row for row in splits}
    german, french = (rows["xnli", "dev", language] for language in ("de", "fr"))
    assert (german.found, german.expected, german.note) == (2490, 2490, "")
    assert french.found is None and "xnli/dev-{language}.tsv" in french.note
    assert "oops" in rows["xnli", "dev", "sw"].note and "dev-sw.tsv:2" in rows["xnli", "dev", "sw"].note
    english = rows["squad_v1", "train", "en"]
    assert (english.found, english.note) == (2, "another count")
    assert ("xnli", "train", "en") not in rows  # it is trained on MNLI
    text = format_preparation(splits, overlaps)
    assert overlaps == ["1 of 2 texts of xquad test are in squad_v1 train"] and overlaps[0] in text
    assert "xnli dev (ar bg el en es fr hi ru th tr ur vi zh): missing" in text
    assert "squad_v1 train en 2 87599 0 another count" in map(" ".join, map(str.split, text.splitlines()))


def test_a_treebank_belongs_to_the_language_of_its_code(tmp_path, write):
    for treebank, *words in (
        ("el_gdt", "Νέα", "πόλη"),
        ("grc_proiel", "μῆνιν", "ἄειδε"),
        ("fr_gsd", "Une", "ville"),
        ("fr_ftb", "_", "_"),  # a treebank whose words are withheld
        ("fro_srcmf", "Une", "cit"),
    ):
        lines = [f"{n}\t{word}\t_\tNOUN\t_\t_\t{n - 1}\t_\t_\t_\n" for n, word in enumerate(words, start=1)]
        write(f"udpos/ud-treebanks-v2.5/{treebank}/{treebank}-ud-test.conllu", "".join(lines) + "\n")
    # XTREME's copy on the hub mixes the two Greeks; this task is read from files, whatever the source.
    rows = prepare([get_task("udpos")], DataSource(tmp_path, kind="hub"))[0]
    found = {row.language: row for row in rows if row.split == "test" and row.found is not None}
    assert {language: row.found for language, row in found.items()} == {"el": 1, "fr": 1}
    assert (found["el"].expected, found["el"].note) == (456, "another count")


def test_only_the_languages_that_were_asked_for(source, capsys):
    assert main(["prepare", "xnli", "squad_v1", f"--data_root={source.root}", "--languages=sw+de"]) == 1
    printed = capsys.readouterr().out
    assert "xnli      dev    de" in printed and "xnli test (de en sw): missing" in printed
    assert "squad_v1  train  en" in printed  # what a task is trained in is always looked at
    assert main(["prepare", "mlm", f"--data_root={source.root}", "--languages=swe"]) == 0  # as its files say
    for option in ("--no_download", "--source=files"):  # makes no folder of a name that is mistyped
        assert main(["prepare", f"--data_root={source.root / 'none'}", option]) == 2
    for wrong in ("de,sw", "xx"):
        assert main(["prepare", "xnli", f"--data_root={source.root}", f"--languages={wrong}"]) == 2
        assert "joined by +" in capsys.readouterr().err
    assert not (source.root / "none").exists()


def test_the_inventory_lists_every_task_without_reading_it_and_whatever_is_damaged(source):
    (source.root / "mnli").mkdir()
    (source.root / "mnli" / "train.tsv").write_text("this is not read")
    (source.root / "xnli" / "xnli.test.tsv").write_text("this is not text: \0")
    damaged = next(row for row in prepare([get_task("xnli")], source)[0] if row.split == "test")
    assert damaged.found is None and "1 NUL" in damaged.note and "xnli.test.tsv:1" in damaged.note
    lines = format_inventory(map(get_task, list_tasks()), source).splitlines()[1:]
    rows = {line.split()[0]: " ".join(line.split()) for line in lines}
    assert set(rows) == set(list_tasks())
    assert rows["xnli"].endswith(" dev 2 hub, tfds dev 13 languages, test can't be read")
    assert rows["qqp"].endswith(" - hub, tfds train, dev")
    assert "train 21,253, dev 46-3,974, test 47-5,440" in rows["udpos"]


def test_three_examples_are_shown_as_the_model_reads_them(tmp_path, write, capsys, world):
    rows = "".join(f"{n}\ttravel\tTunakwenda {n}.\n" for n in range(5))
    for code in ("swh_Latn", "afr_Latn", "zu"):  # the release has no folder of the last name
        for split in ("dev", "test"):
            write(f"sib200/{code}/{split}.tsv", f"index_id\tcategory\ttext\n{rows}")
    assert main(["tasks", "sib200", f"--data_root={tmp_path}", f"--encoder={world / 'encoder'}"]) == 0
    printed = capsys.readouterr().out
    assert "dev: sib200/{language}/dev.tsv, 2 languages:\n    af=afr_Latn sw=swh_Latn\n" in printed
    assert "hub: Davlan/sib200" in printed and " zu=zul_Latn\n" in printed
    assert "3 of 5 examples" in printed and "text: Tunakwenda 2." in printed and "Tunakwenda 3" not in printed
    assert printed.count("label: travel") == printed.count(" pieces: ") == 3
    for name in ("de-en.de", "de-en.en", "sw-en.en", "sw-en.sw"):
        write(f"tatoeba/{name}", "a\n")
    assert main(["tasks", "belebele", "ccg", "tatoeba", f"--data_root={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name}: no split is there" in printed for name in ("belebele", "ccg"))
    assert "-en.en, 2 languages:\n    de sw\n" in printed


def test_what_is_shown_of_a_translated_task_and_of_long_texts(tmp_path, write, capsys, world):
    answers = {f"mc_answer{n}": f"answer {n}" for n in range(1, 5)}
    row = {"link": "a", "question_number": 1, "flores_passage": "word " * 200, "question": "Which?"}
    write("belebele/eng_Latn.jsonl", [{**row, **answers, "correct_answer_num": "3"}])
    for language in ("yo", "ha"):
        line = {"example_id": "1", "text": "Ade lo .", "spans": [], "target": "", "language": language}
        write(f"masakhaner_x/{language}/test.jsonl", [line])
    names = ["belebele", "masakhaner_x@yo"]
    assert main(["tasks", *names, f"--data_root={tmp_path}", f"--encoder={world / 'encoder'}"]) == 0
    printed = capsys.readouterr().out
    assert "test: belebele/eng_Latn.jsonl (en=eng_Latn)" in printed and "label: 2 (answer 3)" in printed
    assert " ... (1,0" in printed and "pieces: " in printed
    assert "test: masakhaner_x/yo/test.jsonl (yo)" in printed and "masakhaner_x/ha" not in printed
    write("masakhaner_x/yo/test.jsonl", [{}])
    assert main(["tasks", "masakhaner_x@yor", f"--data_root={tmp_path}"]) == 1
    printed = capsys.readouterr()
    assert "test: masakhaner_x/yo/test.jsonl (yo)" in printed.out and "test.jsonl:1" in printed.err
