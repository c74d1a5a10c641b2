"""Scores against distance, and what is known of the languages of today's targets."""

from stilts_jax.report import write_report
from stilts_jax.report.names import language_name, read_table
from stilts_jax.tasks import get_task
from tests.report.made_up_grid import table, write, xnli


def test_a_grid_that_compares_nothing_shows_its_scores_against_distance(tmp_path):
    far = dict(zip(("nl", "de", "fr", "ru", "hi", "zh", "vi"), (90.0, 88.0, 86.0, 80.0, 70.0, 60.0, 58.0)))
    write(tmp_path, "none", (0, 0), xnli(en=95.0, **far))
    paths = write_report(tmp_path)
    assert (paths.figures / "typology_classification.png").is_file()
    text = paths.markdown.read_text("utf-8")
    assert "Do languages far from English score lower?" in text and "Caution" not in text
    (line,) = table(paths, "typology_geographic_distance")
    assert float(line["languages"]) == 7  # English was trained on
    assert float(line["rho"]) < -0.9


def test_codes_of_targets_of_today_have_names_scripts_and_families():
    known = read_table("languages.csv")
    for name in ("sib200", "belebele", "masakhaner_x", "afriqa", "nusax", "masakhanews"):
        assert {*get_task(name).languages} - {*known.index} <= {"eo"}  # a language without a place
    assert known.family.str.count("/").eq(2).all()
    assert known.script.str.fullmatch("[A-Z][a-z]{3}").all()
    assert known.latitude.between(-90, 90).all() and known.longitude.between(-180, 180).all()
    assert language_name("sw") == "Swahili" and language_name("taq_Tfng") == "Tamasheq (Tifinagh)"
