import math

import numpy as np
import pytest

from stilts_jax.errors import DataError
from stilts_jax.evaluation.benchmarks import BENCHMARKS
from stilts_jax.report.names import read_table
from stilts_jax.report.typology import find_typology, great_circle, read_distances


def test_every_language_of_both_benchmarks_is_known():
    needed = {
        code
        for name in ("xtreme", "xtreme-r")
        for task in BENCHMARKS[name].values()
        for code in task.languages
    }
    assert needed <= set(read_table("languages.csv").index)


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ((0, 0), (0, 180), 1.0),
        ((0, 0), (0, 90), 0.5),
        ((90, 10), (-90, 70), 1.0),
        ((51.5, -0.1), (39.9, 116.4), 8140 / 20015),  # London to Beijing
    ],
)
def test_great_circles(one, other, share):
    assert great_circle(*np.radians(one), *np.radians(other)) == pytest.approx(share, abs=2e-3)


def test_built_in_distances():
    found = find_typology(["en", "de", "fr", "hi", "zh", "xx"], "en")
    family = found.distances["genealogical distance"].to_dict()
    assert family == {"en": 0.0, "de": 0.25, "fr": 0.75, "hi": 0.75, "zh": 1.0}
    assert found.controls.same_script.to_dict() == {"en": 1.0, "de": 1.0, "fr": 1.0, "hi": 0.0, "zh": 0.0}
    assert found.controls.log_size["de"] == pytest.approx(math.log(18000))
    assert "xx" in found.note
    assert find_typology(["en", "de"], "xx").distances.empty


def test_own_csv(tmp_path):
    path = tmp_path / "own.csv"
    text = "code,name,word_order,script,log_size\nen,toy English,0,Latn,3\nsw,toy Swahili,.5,Latn,\n"
    path.write_text("\ufeff" + text, "utf-8")
    found = read_distances(path, "en")
    assert found.distances.to_dict() == {"word order": {"en": 0.0, "sw": 0.5}}
    assert found.controls.same_script.to_dict() == {"en": 1.0, "sw": 1.0}
    assert found.controls.log_size.dropna().to_dict() == {"en": 3.0}
    assert found.names["sw"] == "toy Swahili"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lacks columns"),
        (b"code,script\nen,Latn\n", "lacks columns"),
        (b"language,a\nen,1\n", "lacks columns"),
        (b"code,a\nen,1\nsw,far\n", "own.csv:3, column a"),
        (b"code,a\nsw,nan\n", "no number"),
        (b"code,a\nsw,inf\n", "no number"),
        (b"\x00\xff\xfe\x93" * 40, "can't be read"),
        (None, "can't be read"),
    ],
)
def test_own_csv_with_mistakes(tmp_path, content, message):
    path = tmp_path / "own.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_distances(path, "en")
    assert message in str(caught.value)
