"""A grid on damaged data: refused before anything is trained, with the file's name, or said with what is lost."""

import re
import shutil

import pytest

from tests.typed import results, stilts

pytestmark = pytest.mark.slow


def without_tags(text):
    return re.sub("\t.*", "", text)


def cut_one_tag(text):
    return re.sub("\t.*", "", text, count=1)


def lose_an_answer(text):
    return re.sub(r'"answers": \[.*?\]', '"answers": []', text, count=1, flags=re.DOTALL)


def nothing(text):
    return ""


# What is damaged, how (None: a link to nothing), and what the error says.
REFUSED = {
    "an empty file": ("udpos", "udpos/test-de.tsv", nothing, "no examples"),
    "one tag is lost": ("udpos", "udpos/test-de.tsv", cut_one_tag, "a word and its tag"),
    "tabs became spaces": ("udpos", "udpos/test-de.tsv", lambda text: text.replace("\t", " "), "spaces"),
    "NULs": ("udpos", "udpos/test-de.tsv", lambda text: text[:50] + "\0" * 4096 + text[4146:], "NUL"),
    "a broken link": ("udpos", "udpos/test-de.tsv", None, "can't be read"),
    "an empty dev set": ("udpos", "udpos/dev-en.tsv", nothing, "no examples"),
    "a dev set without tags": ("udpos", "udpos/dev-en.tsv", without_tags, "no gold"),
    "one label is lost": ("xnli", "xnli/test-de.tsv", cut_one_tag, "columns"),
    "one question's answers are lost": ("xquad", "xquad/xquad.de.json", lose_an_answer, "blank"),
    "an empty pool": ("tatoeba", "tatoeba/de-en.de", nothing, "empty"),
    "empty gold": ("bucc", "bucc2018/de-en.test.gold", nothing, "empty"),
}


@pytest.fixture
def grid(demo, tmp_path):
    """Runs a grid on a copy of the toy world's data in which one file is damaged."""
    data = tmp_path / "data"
    shutil.copytree(demo[0] / "world" / "data", data)

    def run(target, name, damage, code=0):
        path = data / name
        text = path.read_text()
        path.unlink()
        if damage is None:
            path.symlink_to("nowhere")
        else:
            path.write_text(damage(text))
            assert path.read_text() != text
        options = (f"--data_root={data}", f"--workdir={tmp_path / 'work'}", "--config.train.max_steps=2")
        encoder = f"--config.encoder={demo[0] / 'encoder'}"
        rows = (f"--config.experiment.targets={target}", "--config.experiment.intermediates=none")
        return path, stilts("grid", "--config=toy:size=test", *options, encoder, *rows, code=code)

    return run


@pytest.mark.parametrize("case", REFUSED)
def test_damaged_files_are_refused_before_training(grid, tmp_path, case):
    target, name, damage, reason = REFUSED[case]
    path, said = grid(target, name, damage, code=1)
    assert reason in said and str(path) in said and not (tmp_path / "work" / "phases").exists()


def test_a_language_without_gold_is_predicted_and_said(grid, tmp_path):
    _, said = grid("udpos", "udpos/test-de.tsv", without_tags)
    assert "gold is blank in de" in said
    (result,) = results(tmp_path / "work").values()
    assert "de" not in result["scores"]["udpos"]["test"]["f1"]
    notes = [note for note in result["selection"]["notes"] if note.startswith("udpos test")]
    assert "gold is blank in de" in notes[0] and "no data in af" in notes[1]
