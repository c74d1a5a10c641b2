"""One table record, four writers: HTML, Markdown, CSV, LaTeX."""

import csv
import html
import io
import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """What one field of a table shows.

    Attributes:
        text: what is read.
        value: the number behind the text, for CSV; the text itself if None.
        detail: a smaller second line.
        note: a footnote: why the cell is empty, what is incomplete.
        hint: what a pointer over the cell shows (HTML only; never the only place of a fact).
        tone: -1..1 on the diverging scale; None is uncoloured.
        numbers: what CSV has in columns of their own: percent, difference, their standard deviations, runs.
    """

    text: str = ""
    value: float | None = None
    detail: str = ""
    note: str = ""
    hint: str = ""
    tone: float | None = None
    strong: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """A column: its head, a smaller line below it, the head that it shares with neighbours.

    ``meaning`` is what CSV says in place of the smaller line.
    """

    head: str
    detail: str = ""
    group: str = ""
    numeric: bool = True
    meaning: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column names the row.

    Attributes:
        name: stem of the CSV and LaTeX files.
        title: what a reader of the CSV alone has to know.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default_factory=tuple)
    ruled: Sequence[int] = field(default_factory=tuple)  # rows with a rule below them

    def footnotes(self) -> dict[str, str]:
        """Marks (``a``, ``b``, ...) by note text, in reading order."""
        texts = dict.fromkeys(cell.note for row in self.rows for cell in row if cell.note)
        return {text: _mark(index) for index, text in enumerate(texts)}


def _mark(index: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return letters[index] if index < 26 else _mark(index // 26 - 1) + letters[index % 26]


def stem(name: str) -> str:
    """A part of a file's name for what a result or a CSV calls ``name``: letters and digits, and not too many."""
    plain = re.sub(r"\W", "_", name.lower(), flags=re.ASCII)
    if re.fullmatch("[a-z0-9_ ]{1,80}", name):
        return plain
    return f"{plain[:60]}_{zlib.crc32(name.encode()):08x}"


def words(*heads: str) -> list[Column]:
    """Columns of text; ``head: detail`` names the smaller line too."""
    return [Column(*_split_head(head), numeric=False) for head in heads]


def numbers(*heads: str) -> list[Column]:
    """Columns of numbers."""
    return [Column(*_split_head(head)) for head in heads]


def _split_head(head: str) -> tuple[str, str]:
    name, _, detail = head.partition(": ")
    return name, detail


def cells(*values: "str | int | Cell") -> list[Cell]:
    """Fields from what they show: texts, counts, or cells that are made already."""
    return [
        value if isinstance(value, Cell) else Cell(str(value), value if isinstance(value, int) else None)
        for value in values
    ]


def score(value: float, digits: int = 1) -> Cell:
    """``71.3``."""
    return Cell(fixed(value, digits), value)


def change(value: float, digits: int = 1, *, coloured: bool = False) -> Cell:
    """``+1.3``; an en dash for NaN."""
    return Cell(signed(value, digits), value, tone=gain_tone(value) if coloured else None)


def probability(value: float) -> Cell:
    """``0.032``, ``< 0.001``."""
    return Cell(format_p(value), value)


def signed(value: float, digits: int = 1) -> str:
    """``+1.3``, ``−0.4`` (with a real minus), ``0.0``; an en dash for NaN."""
    if not math.isfinite(value):
        return "–"
    rounded = round(value, digits)
    if rounded == 0:
        return f"{0:.{digits}f}"
    return f"{'+' if rounded > 0 else '−'}{abs(rounded):.{digits}f}"


def fixed(value: float, digits: int = 1) -> str:
    """``71.3``; an en dash for NaN."""
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def format_p(value: float) -> str:
    """``0.032``, ``< 0.001``; an en dash for NaN."""
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def gain_tone(difference: float, full: float = 20.0) -> float | None:
    """Where a difference in points lies on the colour scale; the root shows small differences too."""
    if not math.isfinite(difference) or round(difference, 1) == 0:
        return None
    return math.copysign(math.sqrt(min(abs(difference), full) / full), difference)


def to_html(table: Table) -> str:
    """Returns a ``figure`` with the table in a box that scrolls sideways where the page is narrow."""
    marks = table.footnotes()
    parts = [f'<figure class="table" id="table-{html.escape(table.name)}"><div class="scroll"><table>']
    parts.append(f"<caption>{html.escape(table.title)}</caption><thead>")
    if any(column.group for column in table.columns):
        parts.append("<tr>")
        for group, span in _spans(table.columns):
            kind = ' class="group"' if group else ""
            parts.append(f'<th colspan="{span}"{kind} scope="colgroup">{html.escape(group)}</th>')
        parts.append("</tr>")
    parts.append("<tr>")
    for index, column in enumerate(table.columns):
        detail = f"<small>{html.escape(column.detail)}</small>" if column.detail else ""
        classes = ["number"] * bool(column.numeric and index) + ["whole"] * (" " not in column.head)
        kind = f' class="{" ".join(classes)}"' if classes else ""
        parts.append(f'<th scope="col"{kind}>{html.escape(column.head)}{detail}</th>')
    parts.append("</tr></thead><tbody>")
    for number, row in enumerate(table.rows):
        parts.append('<tr class="ruled">' if number in table.ruled else "<tr>")
        for index, (cell, column) in enumerate(zip(row, table.columns)):
            parts.append(_html_cell(cell, column, index == 0, marks))
        parts.append("</tr>")
    parts.append("</tbody></table></div>")
    if marks or table.notes:
        lines = [f"<sup>{mark}</sup> {html.escape(text)}" for text, mark in marks.items()]
        lines += [html.escape(note) for note in table.notes]
        parts.append("<figcaption>" + "<br>".join(lines) + "</figcaption>")
    parts.append("</figure>\n")
    return "".join(parts)


def _html_cell(cell: Cell, column: Column, first: bool, marks: dict[str, str]) -> str:
    classes = ["number"] if column.numeric and not first else []
    style = ""
    if cell.tone is not None:
        classes.append("gain" if cell.tone > 0 else "loss")
        style = f' style="--tone:{abs(cell.tone) * 100:.0f}%"'
    attributes = (f' class="{" ".join(classes)}"' if classes else "") + style
    if cell.hint:
        attributes += f' title="{html.escape(cell.hint)}"'
    text = html.escape(cell.text)
    if cell.strong:
        text = f"<b>{text}</b>"
    if cell.note:
        text += f"<sup>{marks[cell.note]}</sup>"
    if cell.detail:
        text += f"<small>{html.escape(cell.detail)}</small>"
    return f'<th scope="row"{attributes}>{text}</th>' if first else f"<td{attributes}>{text}</td>"


def _spans(columns: Sequence[Column]) -> list[tuple[str, int]]:
    spans: list[tuple[str, int]] = []
    for column in columns:
        if spans and spans[-1][0] == column.group:
            spans[-1] = (column.group, spans[-1][1] + 1)
        else:
            spans.append((column.group, 1))
    return spans


def escape_markdown(text: str) -> str:
    """Makes ``text`` one line in which nothing is markup; underscores inside words never are."""
    return re.sub(r"([\\`*|<>\[\]~]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


def to_markdown(table: Table, escape: Callable[[str], str] = escape_markdown) -> str:
    """Returns the table with padded columns, so that it also reads well as plain text.

    Args:
        escape: ``str`` for a terminal, where nobody renders it.
    """
    marks = table.footnotes()
    lines = [[_join(column.head, column.detail) for column in table.columns]]
    for row in table.rows:
        lines.append([_plain(cell, marks) for cell in row])
    lines = [[escape(text) for text in line] for line in lines]
    widths = [max(len(line[index]) for line in lines) for index in range(len(table.columns))]
    numeric = [column.numeric and index > 0 for index, column in enumerate(table.columns)]

    def write(line: Sequence[str]) -> str:
        padded = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric)
        )
        return "| " + " | ".join(padded) + " |"

    rule = (
        "-" * (max(width, 3) - 1) + ":" if right else "-" * max(width, 3)
        for width, right in zip(widths, numeric)
    )
    out = [write(lines[0]), "| " + " | ".join(rule) + " |", *map(write, lines[1:])]
    notes = [escape(f"[{mark}] {text}") for text, mark in marks.items()] + list(map(escape, table.notes))
    return "\n".join(out) + "\n" + "".join(f"\n{note}  " for note in notes) + ("\n" if notes else "")


def _join(text: str, detail: str) -> str:
    return f"{text} ({detail})" if detail else text


def _plain(cell: Cell, marks: dict[str, str]) -> str:
    text = f"{cell.text} {cell.detail}".strip().replace("\n", "; ")
    return f"{text} [{marks[cell.note]}]" if cell.note else text


def to_csv(table: Table) -> str:
    """Returns one header line and one line a row, numbers unrounded; a missing value says why.

    Where cells have several numbers, a cell is a line, so that percent and differences never share a column.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = list(dict.fromkeys(name for row in table.rows for cell in row for name in cell.numbers))
    if names:
        writer.writerow([table.columns[0].head.lower(), "column", "detail", *names, "note"])
        for row in table.rows:
            for column, cell in zip(table.columns[1:], row[1:]):
                values = [cell.numbers.get(name, math.nan) for name in names]
                shown = [repr(value) if math.isfinite(value) else "" for value in values]
                writer.writerow(
                    [row[0].text, column.head, column.meaning or column.detail, *shown, cell.note]
                )
        return stream.getvalue()
    writer.writerow([_join(column.head, column.detail) for column in table.columns])
    for row in table.rows:
        writer.writerow([_csv_field(cell) for cell in row])
    return stream.getvalue()


def _csv_field(cell: Cell) -> str:
    if cell.value is not None:
        return repr(float(cell.value)) if math.isfinite(cell.value) else ""
    if cell.note and cell.text in ("", "–", "—"):
        return f"missing: {cell.note}"
    return f"{cell.text} {cell.detail}".strip().replace("\n", "; ")


_PAGE = 40  # rows that fit on a page; a longer table is broken over several

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "±": r"$\pm$",
    "–": "--",
    "ρ": r"$\rho$",
    "†": r"\dag{}",
    "≤": r"$\le$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def escape_latex(text: str) -> str:
    """Makes ``text`` safe in LaTeX's text mode."""
    return "".join(_LATEX.get(character, character) for character in text)


def to_latex(table: Table) -> str:
    """Returns a ``booktabs`` table; colours need the ``table`` option of xcolor."""
    marks = table.footnotes()
    frame = "longtable" if len(table.rows) > _PAGE else "tabular"
    form = "l" + "".join("r" if column.numeric else "l" for column in table.columns[1:])
    lines = [
        "% needs \\usepackage{booktabs,longtable} and \\usepackage[table]{xcolor}",
    ]
    named = f"\\caption{{{escape_latex(table.title)}}}\\label{{tab:{table.name}}}"
    if frame == "longtable":
        lines += [f"\\begin{{longtable}}{{{form}}}", named + r" \\\\"]
    else:
        lines += [r"\begin{table}", r"\centering", named, f"\\begin{{tabular}}{{{form}}}"]
    lines.append(r"\toprule")
    if any(column.group for column in table.columns):
        spans = _spans(table.columns)
        lines.append(_latex_line(f"\\multicolumn{{{n}}}{{c}}{{{escape_latex(group)}}}" for group, n in spans))
    lines.append(_latex_line(escape_latex(column.head) for column in table.columns))
    if any(column.detail for column in table.columns):
        lines.append(_latex_line(f"\\scriptsize {escape_latex(column.detail)}" for column in table.columns))
    lines.append("\\midrule")
    for number, row in enumerate(table.rows):
        lines.append(_latex_line(_latex_cell(cell, marks) for cell in row))
        if number in table.ruled:
            lines.append("\\midrule")
    lines += ["\\bottomrule", f"\\end{{{frame}}}"]
    notes = [f"[{mark}] {text}" for text, mark in marks.items()] + list(table.notes)
    lines += [f"\n\\par\\noindent\\footnotesize {escape_latex(note)}" for note in notes]
    lines += [r"\end{table}"] * (frame == "tabular")
    return f"% {' '.join(table.title.split())}\n" + "\n".join(lines) + "\n"


def _latex_line(fields: Iterable[str]) -> str:
    return " & ".join(fields) + r" \\"


def _latex_cell(cell: Cell, marks: dict[str, str]) -> str:
    text = escape_latex(cell.text)
    if cell.strong:
        text = f"\\textbf{{{text}}}"
    if cell.note:
        text += f"\\textsuperscript{{{marks[cell.note]}}}"
    if cell.detail:
        text += f" {{\\scriptsize {escape_latex(cell.detail.replace(chr(10), '; '))}}}"
    if cell.tone is not None:
        colour = "blue" if cell.tone > 0 else "orange"
        text = f"\\cellcolor{{{colour}!{abs(cell.tone) * 40:.0f}}}{text}"
    return text
