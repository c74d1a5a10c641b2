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

COLUMNS = [Column("Row", numeric=False), Column("a|b", "50 %", "Group_1"), Column("c", "", "Group_1")]
ROWS = [
    [Cell("x < y"), Cell("+1.3", "± 0.4", tone=0.5, numbers={"": 1.25}), Cell("–", note="not run")],
    [Cell("R&D_2"), Cell("−0.4", tone=-0.2, numbers={"": -0.4}), Cell("–", note="not run")],
]
TABLE = Table("made_up", "A <title> & more", COLUMNS, ROWS, ["A note."])


def test_csv_has_full_numbers_and_says_why_there_is_none():
    rows = list(csv.reader(io.StringIO(to_csv(TABLE))))
    assert rows[:2] == [["Row", "a|b (50 %)", "c"], ["x < y", "1.25", "missing: not run"]]


def test_cells_of_several_numbers_are_lines_so_that_percent_and_difference_share_no_column():
    cells = [
        Cell("70.0", numbers={"percent": 70.0}),
        Cell("+1", numbers={"percent": 71.0, "difference": 1.0}),
    ]
    table = Table("t", "", [Column("Row"), Column("a")], [[Cell("x"), one] for one in cells])
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [(row["percent"], row["difference"]) for row in rows] == [("70.0", ""), ("71.0", "1.0")]


def test_markdown_columns_line_up():
    lines = to_markdown(TABLE).splitlines()
    assert len({len(line.replace("\\|", "|")) for line in lines[:4] if "a\\|b" not in line}) == 1
    assert "\\[a\\] not run" in to_markdown(TABLE)


def test_latex_is_ready_to_paste_and_escaped():
    text = to_latex(TABLE)
    for part in (
        r"\caption{",
        r"\label{tab:made_up}",
        r"\toprule",
        r"R\&D\_2",
        r"x \textless{} y",
        r"50 \%",
        "$-$0.4",
    ):
        assert part in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.replace(r"\&", "").count("&") for line in body} == {2}


@pytest.mark.parametrize(
    ("value", "text"), [(1.25, "+1.2"), (-0.36, "−0.4"), (0.04, "0.0"), (-0.04, "0.0"), (math.nan, "–")]
)
def test_signed(value, text):
    assert signed(value) == text
    assert fixed(-1.0) == "−1.0"


@pytest.mark.parametrize(
    ("gain", "tone"), [(20.0, 1.0), (-5.0, -0.5), (80.0, 1.0), (0.01, None), (math.nan, None)]
)
def test_tones(gain, tone):
    assert gain_tone(gain) == pytest.approx(tone)
