import math
import sys

import numpy as np
import pytest

from stilts_jax.errors import DataError
from stilts_jax.evaluation.benchmarks import BENCHMARKS
from stilts_jax.report.languages import Language, known_languages
from stilts_jax.report.typology import find_typology, great_circle, read_distances


def place(latitude: float, longitude: float) -> Language:
    return Language("x", "x", ("xxx",), "Latn", ("a", "b", "c"), latitude, longitude, 1.0)


def test_every_language_of_both_benchmarks_is_known():
    needed = {code for tasks in BENCHMARKS.values() for task in tasks.values() for code in task.languages}
    assert needed <= set(known_languages())


def test_iso_codes_prefer_the_individual_language():
    known = known_languages()
    expected = {"zh": "cmn", "ar": "arb", "fa": "pes", "sw": "swh", "et": "ekk", "ms": "zsm", "en": "eng"}
    assert {code: known[code].iso639_3[0] for code in expected} == expected
    assert known["ar"].iso639_3[1] == "ara"


def test_great_circles():
    assert great_circle(place(0, 0), place(0, 180)) == pytest.approx(1.0, abs=1e-3)
    assert great_circle(place(0, 0), place(0, 90)) == pytest.approx(0.5, abs=1e-3)
    assert great_circle(place(90, 10), place(-90, 70)) == pytest.approx(1.0, abs=1e-3)
    # London to Beijing is about 8140 km.
    assert great_circle(place(51.5, -0.1), place(39.9, 116.4)) * 20015 == pytest.approx(8140, rel=0.01)


def test_built_in_distances():
    found = find_typology(["en", "de", "fr", "hi", "zh", "xx"], "en")
    family = found.distances["genealogical distance"]
    assert family == {"en": 0.0, "de": 0.25, "fr": 0.75, "hi": 0.75, "zh": 1.0}
    assert found.same_script == {"en": 1.0, "de": 1.0, "fr": 1.0, "hi": 0.0, "zh": 0.0}
    assert found.log_size["de"] == pytest.approx(math.log(18000))
    assert "xx" in found.notes[0]


def test_distances_from_lang2vec_data_files(tmp_path, monkeypatch):
    """A made-up package in the layout of the real one: languages x features x sources."""
    data = tmp_path / "lang2vec" / "data"
    data.mkdir(parents=True)
    (tmp_path / "lang2vec" / "__init__.py").write_text("raise ImportError('it must not be imported')")
    languages = np.array(["eng", "ara", "cmn"])
    features = np.array(["S_a", "S_b", "P_a", "P_b", "INV_a", "INV_b"])
    values = np.array([[1, 0, 1, 1, 1, 0], [1, 1, 1, 1, 0, 1], [0, 1, 1, 0, 1, 0]], np.float32)[:, :, None]
    np.savez(data / "feature_predictions.npz", langs=languages, feats=features, data=values)
    family = np.array([[1, 1], [0, 0], [1, 0]], np.float32)[:, :, None]
    np.savez(data / "family_features.npz", langs=languages, feats=np.array(["F_a", "F_b"]), data=family)
    monkeypatch.syspath_prepend(tmp_path)
    found = find_typology(["ar", "zh", "sw"], "en").distances
    assert "lang2vec" not in sys.modules
    # ar has no entry `arb` here: the macrolanguage `ara` stands in. sw is not in the data at all.
    assert found["syntactic distance"] == pytest.approx({"ar": 1 - 1 / math.sqrt(2), "zh": 1.0})
    assert found["phonological distance"] == pytest.approx({"ar": 0.0, "zh": 1 - 1 / math.sqrt(2)})
    assert found["inventory distance"] == pytest.approx({"ar": 1.0, "zh": 0.0})
    assert found["genetic distance"] == pytest.approx({"ar": 1.0, "zh": 1 - 1 / math.sqrt(2)})
    assert "genealogical distance" not in found


def test_own_csv(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(
        "\ufeffcode,name,word_order,script,log_size\nen,toy English,0,Latn,3\nsw,toy Swahili,.5,Latn,\n"
    )
    found = read_distances(path, "en")
    assert found.distances == {"word order": {"en": 0.0, "sw": 0.5}}
    assert found.same_script == {"en": 1.0, "sw": 1.0}
    assert found.log_size == {"en": 3.0}
    assert found.names["sw"] == "toy Swahili"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks columns"),
        ("code,script\nen,Latn\n", "lacks columns"),
        ("language,a\nen,1\n", "lacks columns"),
        ("code,a\nen,1\nsw,far\n", "own.csv:3, column a"),
        ("code,a\nsw,nan\n", "no number"),
    ],
)
def test_own_csv_with_mistakes(tmp_path, text, message):
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_distances(path, "en")
    assert message in str(caught.value)


def test_own_csv_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="can't be read"):
        read_distances(tmp_path / "absent.csv", "en")
