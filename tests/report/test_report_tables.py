import csv
import io
import math

import pytest

from stilts_jax.report.tables import (
    Cell,
    Column,
    Table,
    fixed,
    gain_tone,
    signed,
    to_csv,
    to_latex,
    to_markdown,
)

TABLE = Table(
    "made_up",
    "A <title> & more",
    [Column("Row", numeric=False), Column("a|b", "50 %", "Group_1"), Column("c", "", "Group_1")],
    [
        [Cell("x < y"), Cell("+1.3", 1.25, "± 0.4", tone=0.5), Cell("–", note="not run")],
        [Cell("R&D_2"), Cell("−0.4", -0.4, tone=-0.2), Cell("–", note="not run")],
    ],
    ["A note."],
)


def test_csv_has_full_numbers_and_says_why_there_is_none():
    rows = list(csv.reader(io.StringIO(to_csv(TABLE))))
    assert rows[0] == ["Row", "a|b (50 %)", "c"]
    assert rows[1] == ["x < y", "1.25", "missing: not run"]


def test_markdown_columns_line_up():
    lines = to_markdown(TABLE).splitlines()
    assert len({len(line.replace("\\|", "|")) for line in lines[:4] if "a\\|b" not in line}) == 1
    assert "\\[a\\] not run" in to_markdown(TABLE)


def test_latex_escapes():
    text = to_latex(TABLE)
    assert r"R\&D\_2" in text
    assert r"x \textless{} y" in text
    assert r"50 \%" in text
    assert "$-$0.4" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.replace(r"\&", "").count("&") for line in body} == {2}


@pytest.mark.parametrize(
    ("value", "text"), [(1.25, "+1.2"), (-0.36, "−0.4"), (0.04, "0.0"), (-0.04, "0.0"), (math.nan, "–")]
)
def test_signed(value, text):
    assert signed(value) == text


def test_fixed():
    assert fixed(71.26) == "71.3"
    assert fixed(-1.0) == "−1.0"
    assert fixed(math.nan) == "–"


def test_tones():
    assert gain_tone(20.0) == 1.0
    assert gain_tone(-5.0) == pytest.approx(-0.5)
    assert gain_tone(80.0) == 1.0
    assert gain_tone(0.01) is None
    assert gain_tone(math.nan) is None
