"""What lies between two parts: languages that were translated half, footnotes, folders of others, empty languages."""

import csv
import re

import jax.numpy as jnp
import numpy as np
import pytest

from stilts_jax import load_results
from stilts_jax.automatic import Device, fit_memory
from stilts_jax.config import load_config, to_settings
from stilts_jax.errors import DataError
from stilts_jax.evaluation.benchmarks import BENCHMARKS
from stilts_jax.evaluation.evaluate import score_decoded
from stilts_jax.evaluation.metrics import token_accuracy
from stilts_jax.evaluation.submission import score_tasks
from stilts_jax.experiment.context import Context
from stilts_jax.experiment.needs import find_missing
from stilts_jax.experiment.phases import list_phases
from stilts_jax.files import write_record as write_json_record
from stilts_jax.files import write_whole
from stilts_jax.model import SHAPES, Compute
from stilts_jax.report import write_report
from stilts_jax.report.names import languages_of, trained_on
from stilts_jax.report.tables import Cell, Table, to_csv
from stilts_jax.tasks import get_task
from stilts_jax.tasks.custom import classify_task, tag_task
from stilts_jax.tasks.sources import read
from stilts_jax.tasks.sources.inventory import format_paths, prepare
from stilts_jax.tasks.sources.read import DataSource, available_languages, read_examples, selection_language
from stilts_jax.tasks.sources.rows import Row
from stilts_jax.tasks.spec import ClassifyExample
from stilts_jax.train.losses import masked_loss
from tests.long.test_keys import key_of
from tests.report.made_up_grid import make_record, table, write, write_record, write_right, xnli

pytestmark = pytest.mark.slow


def test_what_was_translated_for_training_alone_needs_the_english_dev_set(tmp_path):
    """The grid asks for it, so it is among what is missing before that."""
    row = '{"gold_label": "neutral", "sentence1": "eins", "sentence2": "zwei", "pairID": "1"}\n'
    write_whole(tmp_path / "mnli/multinli_1.0_train-de.jsonl", row)
    task, source = get_task("mnli@de"), DataSource(tmp_path)
    missing = [(one.split, one.language) for one in prepare([task], source)[0] if one.found is None]
    assert missing == [("dev", "en")] and "dev not found" in format_paths(task, source)
    write_whole(tmp_path / "mnli/multinli_1.0_dev_matched-de.jsonl", row)
    assert all(one.found == 1 for one in prepare([task], source)[0])


def test_a_task_of_ones_own_is_selected_on_its_own_language(tmp_path, monkeypatch):
    files = {"train": "r/train.jsonl", "dev": "r/dev.jsonl", "test": "r/test-{language}.jsonl"}
    declared = f'"reviews", files={files}, labels=("a", "b"), languages=("fr", "de"), source_language="fr"'
    write_whole(
        tmp_path / "edges_own.py",
        f"from stilts_jax.tasks.custom import classify_task\nR = classify_task({declared})",
    )
    monkeypatch.chdir(tmp_path)
    for path in ("train-de", "dev", "test-de"):
        write_whole(tmp_path / f"r/{path}.jsonl", '{"text": "t", "label": "a"}\n')
    german, source = get_task("edges_own:R@de"), DataSource(tmp_path)
    assert selection_language(german, source) == "fr" and available_languages(german, "dev", source) == (
        "fr",
    )


def test_footnotes_of_numbers_are_in_the_csv():
    rows = [
        [Cell("a"), Cell.score(1.25)._replace(note="of one seed")],
        [Cell("b"), Cell("–", note="not run")],
    ]
    header, *lines = csv.reader(to_csv(Table.plain("t", "T", "row|score", rows)).splitlines())
    assert header == ["row", "score", "note"]
    assert lines == [["a", "1.25", "of one seed"], ["b", "missing: not run", ""]]


def test_a_report_removes_nothing_from_a_folder_that_is_no_report(tmp_path):
    write(tmp_path, "none", (None, 0), xnli(de=50.0))
    own = tmp_path / "paper/tables/languages_of_mine.tex"
    write_whole(own, "mine")
    write_report(tmp_path, tmp_path / "paper")
    assert own.read_text() == "mine"
    write_report(tmp_path, tmp_path / "paper")  # now it is the place of a report
    assert not own.exists()


def test_a_language_without_rows_has_no_score():
    task, example = get_task("xnli"), ClassifyExample("1", "text", "other", 0)
    found = score_decoded(task, {"en": [0], "de": []}, {"en": [example], "de": []})
    assert found.scores["accuracy"] == {"en": 100.0}


def accuracy(generator, size, share):
    return {"xnli": {"de": generator.random(size) < share}}


def test_pictures_are_compared_where_both_rows_have_the_same_seeds(tmp_path):
    """One seed of the control against the mean of three would have no error of seeds."""
    generator = np.random.default_rng(0)
    write_right(tmp_path, "none", (None, 0), accuracy(generator, 400, 0.5))
    for seed in range(3):
        write_right(tmp_path, "easy_vqa", (seed, 0), accuracy(generator, 400, 0.6))
    write_right(tmp_path, "easy_vqa.blind", (0, 0), accuracy(generator, 400, 0.4))
    report = write_report(tmp_path)
    (line,) = table(report, "pictures")
    assert "not the same items, languages and seeds" in str(line)
    assert "Of easy-VQA, blind there is one seed of the intermediate training" in " ".join(
        report.summary.split()
    )
    for seed in (1, 2):
        write_right(tmp_path, "easy_vqa.blind", (seed, 0), accuracy(generator, 400, 0.4))
    assert float(table(tmp_path, "pictures")[0]["error_seeds"]) > 0


def test_published_means_are_of_the_languages_of_xtreme(tmp_path):
    """XTREME-R adds some to POS; the number beside has none of them."""
    scores = dict.fromkeys(BENCHMARKS["xtreme-r"]["udpos"].languages, 60.0)
    config = {"encoder": "xlm-roberta-large"}
    write(tmp_path, "none", (None, 0), {"udpos": {"f1": scores}}, "udpos", config=config)
    text = write_report(tmp_path, benchmark="xtreme-r", published=True).markdown.read_text()
    assert "languages: 33 of 33 (and" in text.partition("## Published")[2]


def test_words_of_a_sentence_are_one_item():
    task = tag_task("words", labels=("x", "y"), files={"train": "a.jsonl"})
    found = token_accuracy(task, [["x", "x", "y"], ["y"]], [["x", "y", "y"], ["y"]], "en")
    assert found.values == {"accuracy": 75.0} and found.items.values.tolist() == [[2, 3, 3], [1, 1, 1]]


def test_a_task_of_ones_own_is_not_called_english(tmp_path):
    assert languages_of("reviews+mnli@de") == {"de"} and trained_on("reviews") == "reviews"
    record = make_record("reviews", "mnli@de", xnli(en=50.0, fr=60.0))
    record["phase"]["source_language"] = "de"
    write_record(tmp_path, record)
    assert load_results(tmp_path).zero_shot.all()


def test_what_could_not_be_tested_has_no_colour(tmp_path):
    for row, percent in (("none", 40.0), ("mnli", 70.0)):
        write(tmp_path, row, (None if row == "none" else 0, 0), xnli(de=percent))
    report = write_report(tmp_path)
    assert not re.search(r'class="number[^>]*--tone', report.html.read_text())
    assert "No row has items of the same languages" in report.markdown.read_text()


def test_one_name_of_two_encoders_is_said(tmp_path):
    for row, start in (("none", "one"), ("mnli", "other")):
        config = {"encoder": f"/{start}/final", "start": start}
        write(tmp_path, row, (None if row == "none" else 0, 0), xnli(de=50.0), config=config)
    assert "Not all rows start from the same encoder" in write_report(tmp_path).summary


def test_a_training_that_numbers_rest_on_is_not_said_to_be_in_none(tmp_path):
    for day, (key, target) in enumerate((("old", "panx"), ("new", "mnli")), 1):
        environment = {"finished": f"2026-01-0{day}"}
        parent = make_record("mnli", None, {}, seeds=(0, None), stage="intermediate", environment=environment)
        parent["phase"]["key"] = key
        write_json_record(tmp_path / f"phases/{key}/result.json", parent)
        child = make_record("mnli", target, xnli(de=50.0), environment=environment)
        child["phase"]["parent"] = key
        write_record(tmp_path, child)
    assert "rows here still start from it" in " ".join(write_report(tmp_path).summary.split())


@pytest.mark.parametrize(("far", "said"), [(None, ""), (1.0, "all languages are equally far")])
def test_own_distances_without_more(far, said, tmp_path):
    """No script and no size of texts: nothing is held constant, so no partial correlation lacks anything."""
    codes, generator = ["en", "de", "fr", "ru", "sw", "zh", "ar", "hi"], np.random.default_rng(0)
    for row in ("none", "mnli"):
        scores = xnli(**{code: generator.uniform(40, 60) for code in codes})
        write(tmp_path, row, (None if row == "none" else 0, 0), scores)
    rows = (f"{code},{far or number}" for number, code in enumerate(codes))
    write_whole(tmp_path / "far.csv", "\n".join(["code,far", *rows]))
    text = write_report(tmp_path, distances=tmp_path / "far.csv").markdown.read_text()
    typology = text.partition("## Typology")[2]
    assert said in typology and "No partial" not in typology and "### Learning curves" not in text


def test_a_treebank_of_two_versions_is_refused(tmp_path):
    """XTREME-R takes some languages from another version of UD; each sentence would count twice."""
    for version in ("2.5", "2.7"):
        folder = f"udpos/ud-treebanks-v{version}/UD_English-EWT"
        write_whole(tmp_path / folder / "en_ewt-ud-test.conllu", "1\tAda\t_\tPROPN\t_\t_\t_\t_\t_\t_\n\n")
    with pytest.raises(DataError, match="twice"):
        read_examples(get_task("udpos"), "test", "en", DataSource(tmp_path))


def test_what_the_machine_could_not_translate_is_not_trained_on(tmp_path):
    rows = "id\tsentence1\tsentence2\tlabel\n1\tEins.\tZwei.\t0\n2\t\t\t0\n"
    write_whole(tmp_path / "pawsx/de/translated_train.tsv", rows)
    write_whole(tmp_path / "pawsx/de/test_2k.tsv", rows)
    task, source = get_task("pawsx@de"), DataSource(tmp_path)
    assert [one.id for one in read_examples(task, "train", "de", source)] == ["1"]
    with pytest.raises(DataError, match="empty"):
        read_examples(task, "test", "de", source)


@pytest.mark.parametrize("code", ["es-419", "german", "zh-Hant-TW", "sr_Latn"])
def test_a_declared_language_is_found_whatever_it_is_called(code, tmp_path):
    files = {"test": "r/test-{language}.jsonl"}
    task = classify_task("reviews", files=files, labels=("a", "b"), languages=("en", code))
    write_whole(tmp_path / f"r/test-{code}.jsonl", '{"text": "t", "label": "a"}\n')
    assert available_languages(task, "test", DataSource(tmp_path)) == (code,)
    assert len(read_examples(task, "test", code, DataSource(tmp_path))) == 1


def test_texts_of_languages_by_longer_codes(tmp_path):
    for code in ("de", "zh-min-nan", "be-x-old"):
        write_whole(tmp_path / f"text/{code}.txt", "one\n")
    found = available_languages(get_task("mlm"), "train", DataSource(tmp_path))
    assert set(found) == {"de", "zh-min-nan", "be-x-old"}


def test_texts_have_one_order_whatever_order_was_asked_for(tmp_path):
    """The cache of features does not know it, and rows are drawn by their place."""
    for code in ("de", "en"):
        write_whole(tmp_path / f"text/{code}.txt", "one\ntwo\n")
    orders = set()
    for asked in ("en+de", "de+en", ""):
        settings = to_settings(load_config("intermediate:task=mlm", {"mixture.mlm_languages": asked}))
        context = Context(settings, DataSource(tmp_path), tmp_path)
        orders.add(context.data(list_phases(settings)[0]).train[0].languages)
    assert orders == {("de", "en")}


def test_xcsqa_is_trained_on_its_own_split():
    """Its authors split the original anew: nine tenths of its dev questions are in the original's training set."""
    assert get_task("xcsqa").train_on == () and "train" in get_task("xcsqa").sources[0].splits


def test_treebanks_are_joined_in_the_order_of_xtreme(tmp_path):
    """By the names of files, where ``partut`` comes before ``pud``; folders begin with capitals."""
    for folder, word in (("UD_French-PUD/fr_pud", "deux"), ("UD_French-ParTUT/fr_partut", "un")):
        row = f"1\t{word}\t_\tNUM\t_\t_\t_\t_\t_\t_\n\n"
        write_whole(tmp_path / f"udpos/ud-treebanks-v2.5/{folder}-ud-test.conllu", row)
    found = read_examples(get_task("udpos"), "test", "fr", DataSource(tmp_path))
    assert [one.words for one in found] == [("un",), ("deux",)]


def test_blanked_entities_are_no_gold(tmp_path):
    """XTREME's preparation of Mewsli-X leaves an empty name to each mention."""
    write_whole(tmp_path / "gold/mewslix/wikinews_labels/test-de.json", '{"m1": [""]}')
    write_whole(tmp_path / "own/mewslix/test-de.json", '{"m1": ["Q1"]}')
    with pytest.raises(DataError, match="blank"):
        score_tasks(["mewslix"], tmp_path / "own", tmp_path / "gold")


def test_gold_is_looked_for_beyond_blanked_files(tmp_path, monkeypatch):
    """XTREME's download and what the hub has of the same task, below one data root."""
    write_whole(tmp_path / "gold/xnli/test-de.tsv", "eins\tzwei\n")
    write_whole(tmp_path / "own/xnli/test-de.tsv", "neutral\n")
    hub = read.MODULES["hub"]
    monkeypatch.setattr(hub, "find", lambda one, split, language, root: {"": [tmp_path / "gold/x"]})
    row = Row(0, 0, {"premise": "eins", "hypothesis": "zwei", "label": "neutral"}, "")
    monkeypatch.setattr(hub, "open_rows", lambda *given: [(tmp_path / "gold/x", [row])])
    found = score_tasks(["xnli"], tmp_path / "own", tmp_path / "gold")
    assert found["tasks"]["xnli"]["metrics"]["accuracy"]["de"] == 100.0


def test_a_dev_set_that_does_not_select_may_be_absent(tmp_path):
    """XTREME's download has MNLI's training rows and not its dev set."""
    write_whole(tmp_path / "xnli/train-en.tsv", "one\ttwo\tneutral\n")
    for split in ("dev", "test"):
        write_whole(tmp_path / f"xnli/{split}-de.tsv", "eins\tzwei\tneutral\n")
    for selected, missing in (("target-languages", []), ("en", ["mnli dev"])):
        settings = to_settings(load_config("target:task=xnli", {"experiment.select_on": selected}))
        context = Context(settings, DataSource(tmp_path), tmp_path)
        phases = list_phases(settings)
        found = [line.partition(" in ")[0] for line in find_missing(phases, context)]
        assert [line for line in found if line.startswith("mnli")] == missing
        assert (context.data(phases[0]).source_dev is None) == (not missing) or missing


def test_rows_that_only_fill_up_take_memory_too():
    """Four rows on sixteen chips become sixteen: each chip has one, of four texts."""
    device, shape = Device("TPU v5 lite", 16, int(15.75 * 2**30)), SHAPES["xxl"]
    compute = Compute(dtype="bfloat16", remat="auto")
    few, many = (fit_memory(device, shape, compute, (1, 16, 1), [("choice", n, 256)], 0) for n in (4, 16))
    assert few == many == (1, "full")


def test_pairs_are_never_cut_into_microbatches():
    """They are each other's wrong answers; other tasks of the same grid may be cut."""
    device, compute = Device("NVIDIA H200"), Compute()
    for kind, parts in (("embed", 1), ("classify", 4)):
        assert fit_memory(device, SHAPES["base"], compute, (1, 1, 1), [(kind, 16, 128)], 4)[0] == parts


def test_rows_of_weight_zero_are_not_learnt_in_masked_language_modelling():
    generator = np.random.default_rng(0)
    outputs = {"features": generator.normal(size=(2, 3, 8)), "table": generator.normal(size=(20, 8))}
    outputs = {name: jnp.asarray(one, jnp.float32) for name, one in {**outputs, "bias": np.zeros(20)}.items()}
    batch = {"masked_targets": np.full((2, 3), 7), "masked_weights": np.ones((2, 3), np.float32)}
    both, one = (
        masked_loss(outputs, {**batch, "weight": np.array(given)}) for given in ([1.0, 1.0], [1.0, 0.0])
    )
    first = {name: array[:1] if name == "features" else array for name, array in outputs.items()}
    alone = masked_loss(first, {name: array[:1] for name, array in batch.items()} | {"weight": np.ones(1)})
    assert (float(both[1]), float(one[1])) == (6.0, 3.0) and np.isclose(
        float(one[0]), float(alone[0]), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        (
            "mlm",
            {"mixture.mlm_weight": 0.5, "mixture.mlm_batch_size": 8, "mixture.cap": 9, "train.patience": 3},
        ),
        ("mnli/mlm", {"mixture.sampler": "proportional", "mixture.temperature": 3.0}),
    ],
)
def test_what_texts_do_not_read_is_not_in_their_key(row, unread):
    assert key_of(row, **unread) == key_of(row)
    assert key_of("mlm", **{"mixture.mlm_rate": 0.3}) != key_of("mlm")


def test_the_small_config_has_an_encoder_of_the_family():
    assert load_config("small").encoder.startswith("FacebookAI/xlm-roberta")
