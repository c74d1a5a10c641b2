"""What the report's tables look like where names are unusual."""

import pytest

from stilts_jax.report.tables import Cell, Table, columns, to_latex

pytestmark = pytest.mark.slow


def test_bracket_begins_no_row_of_a_latex_table():
    rows = [[Cell("none"), Cell.score(50.0)], [Cell("[ours] v2"), Cell.change(1.0)], [Cell("[x]"), Cell()]]
    latex = to_latex(Table("main", "[a] title", columns("Intermediate|XNLI"), rows, ruled=[0]))
    lines = latex.splitlines()
    before = [line.endswith(r"\\") or line.endswith("rule") for line in lines]
    assert not [line for line, breaks in zip(lines[1:], before) if breaks and line.startswith("[")]
    assert "{[}ours] v2 & " in latex
