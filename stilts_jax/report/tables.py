"""What a report consists of - sections of blocks, tables of cells - and its forms beside HTML: Markdown, CSV, LaTeX."""

import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import pandas as pd

_FULL_TONE = 20.0  # points that have the scale's last colour


class Cell(NamedTuple):
    """One field of a table: its text, a smaller second line, and a footnote (why it is empty or incomplete).

    ``tone`` is its place on the diverging scale from -1 to 1, ``numbers`` are what CSV has, unrounded, in columns of
    their names; the field's own column has that which is named "".
    """

    text: str = ""
    detail: str = ""
    note: str = ""
    tone: float | None = None
    strong: bool = False
    numbers: Mapping[str, float] = {}

    def __str__(self) -> str:
        return f"{self.text} {self.detail}".strip().replace("\n", "; ")

    @staticmethod
    def score(value: float, digits: int = 1) -> "Cell":
        """``71.3``."""
        return Cell(fixed(value, digits), numbers={"": value})

    @staticmethod
    def change(value: float, *, sure: bool = True) -> "Cell":
        """``+1.3``, coloured where it is ``sure``; an en dash for NaN."""
        tone = None
        if sure and math.isfinite(value) and round(value, 1) != 0:
            # The root shows small differences too.
            tone = math.copysign(math.sqrt(min(abs(value), _FULL_TONE) / _FULL_TONE), value)
        return Cell(signed(value), tone=tone, numbers={"": value})


class Column(NamedTuple):
    """A head, a smaller line below it (CSV says ``meaning`` instead), the head that it shares with neighbours."""

    head: str
    detail: str = ""
    group: str = ""
    meaning: str = ""

    def __str__(self) -> str:
        return f"{self.head} ({self.detail})" if self.detail else self.head


class Table(NamedTuple):
    """Rows of cells, the first of which names the row; ``ruled`` have a rule below; ``name`` is its files' stem."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    ruled: Sequence[int] = ()
    latex: bool = False  # whether a paper would show it

    @staticmethod
    def plain(name: str, title: str, heads: str, rows: Sequence, notes: Sequence[str] = ()) -> "Table":
        """Of texts, cells and numbers: fractions have one digit, and all in CSV."""

        def cell(value: object) -> Cell:
            if isinstance(value, Cell | float):
                return value if isinstance(value, Cell) else Cell.score(value)
            return Cell(str(value), numbers={"": value} if isinstance(value, int) else {})

        return Table(name, title, columns(heads), [list(map(cell, row)) for row in rows], notes)

    @property
    def right(self) -> list[bool]:
        """Of each column whether it is right-aligned: those that have numbers are, but for the first."""
        numeric = [any(cell.numbers for cell in column) for column in zip(*self.rows)]
        return [False, *numeric[1:]] if numeric else [False] * len(self.columns)

    @property
    def marks(self) -> dict[str, str]:
        """Marks (``a``, ``b``, ... ``aa``) of footnotes by their text, in reading order."""
        texts = dict.fromkeys(cell.note for row in self.rows for cell in row if cell.note)
        return {text: chr(96 + n // 26) * (n > 25) + chr(97 + n % 26) for n, text in enumerate(texts)}

    @property
    def spans(self) -> list[tuple[str, int]]:
        """Heads that several columns share, with their widths; empty where there is none."""
        found = [(name, len(list(columns))) for name, columns in groupby(self.columns, lambda one: one.group)]
        return found if any(name for name, _ in found) else []

    @property
    def footer(self) -> list[str]:
        """Footnotes and notes, as Markdown and LaTeX show them."""
        return [f"[{mark}] {text}" for text, mark in self.marks.items()] + list(self.notes)


class Block(NamedTuple):
    """A section, whose ``kind`` is its name in links and whose ``text`` says how to read it, or a part of one.

    A part is ``text``, ``code``, a ``chart`` (title and SVG), or blocks: in a ``row``, or ``folded`` until a click.
    """

    kind: str
    title: str = ""
    text: str = ""
    blocks: Sequence["Block | Table"] = ()

    @property
    def tables(self) -> Iterator[Table]:
        """Every table in it."""
        for block in self.blocks:
            yield from [block] if isinstance(block, Table) else block.tables


def columns(heads: str, group: str = "") -> list[Column]:
    """Columns whose heads are joined by ``|``; what follows ``: `` in a head is the smaller line."""
    parts = (head.partition(": ") for head in heads.split("|"))
    return [Column(head, detail, group) for head, _, detail in parts]


def stem(name: str) -> str:
    """A part of a file's name for what a result or a CSV calls ``name``: letters and digits, and not too many."""
    plain = re.sub(r"\W", "_", name.lower(), flags=re.ASCII)
    known = re.fullmatch("[a-z0-9_ ]{1,80}", name)
    return plain if known else f"{plain[:60]}_{zlib.crc32(name.encode()):08x}"


def fixed(value: float, digits: int = 1) -> str:
    """``71.3``; an en dash for NaN."""
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def signed(value: float, digits: int = 1) -> str:
    """``+1.3``, ``−0.4`` (with a real minus), ``0.0``; an en dash for NaN."""
    if not math.isfinite(value) or round(value, digits) == 0:
        return fixed(abs(value), digits)
    return f"{value:+.{digits}f}".replace("-", "−")


def escape_markdown(text: str) -> str:
    """Makes ``text`` one line in which nothing is markup; underscores inside words never are."""
    return re.sub(r"([\\`*|<>\[\]~]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


def to_markdown(table: Table, escape: Callable[[str], str] = escape_markdown) -> str:
    """Returns the table with padded columns, which reads well as plain text too (with ``str`` to escape)."""
    marks, lines = table.marks, [list(map(str, table.columns))]
    for row in table.rows:
        lines.append([f"{cell} [{marks[cell.note]}]" if cell.note else str(cell) for cell in row])
    lines = [[escape(text) for text in line] for line in lines]
    widths = [max(3, *map(len, texts)) for texts in zip(*lines)]
    sides = ["<>"[right] for right in table.right]
    rule = ["-" * (width - 1) + ("-:"[side == ">"]) for width, side in zip(widths, sides)]
    body = ""
    for line in (lines[0], rule, *lines[1:]):
        fields = [f"{text:{side}{width}}" for text, side, width in zip(line, sides, widths)]
        body += f"| {' | '.join(fields)} |\n"
    return body + "".join(f"\n{escape(note)}  " for note in table.footer) + "\n" * bool(table.footer)


def sections_to_markdown(title: str, lead: Sequence[str], sections: Sequence[Block]) -> str:
    """Returns the page as Markdown; figures are in the HTML only."""

    def write(block: Block | Table) -> str:
        if isinstance(block, Table):
            return f"\n**{escape_markdown(block.title)}**\n\n{to_markdown(block)}"
        if block.kind == "chart":
            return ""
        if block.kind == "code":
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
            return f"\n{fence}\n{block.text}\n{fence}\n"
        head = f"\n### {escape_markdown(block.title)}\n" if block.kind == "folded" else ""
        text = f"\n{escape_markdown(block.text)}\n" if block.text else ""
        body = text + "".join(map(write, block.blocks))
        return (head + body) * bool(body)  # charts are left out, and a head of nothing else

    parts = [f"# {escape_markdown(title)}\n", *(f"\n{escape_markdown(one)}\n" for one in lead)]
    for one in sections:
        parts += [f"\n## {one.title}\n\n{escape_markdown(one.text)}\n", *map(write, one.blocks)]
    return "".join(parts)


def to_csv(table: Table) -> str:
    """Returns the table with unrounded numbers; a missing value says why.

    Where cells have several numbers (``percent``, ``difference``, ...), a cell is a line and each of them a column.
    """
    names = list(dict.fromkeys(name for row in table.rows for cell in row for name in cell.numbers if name))
    if names:
        heads, lines = [table.columns[0].head.lower(), "column", "detail", *names, "note"], []
        for row in table.rows:
            for column, cell in zip(table.columns[1:], row[1:]):
                numbers = [cell.numbers.get(name) for name in names]
                lines.append([row[0].text, column.head, column.meaning or column.detail, *numbers, cell.note])
    else:

        def field(cell: Cell) -> str | float:
            why = f"missing: {cell.note}" if cell.note and cell.text in ("", "–") else str(cell)
            return float(cell.numbers[""]) if "" in cell.numbers else why

        heads, shown = list(map(str, table.columns)), ([one for one in row if one.text] for row in table.rows)
        notes = [
            "; ".join(dict.fromkeys(one.note for one in row if one.note and one.text != "–")) for row in shown
        ]
        lines = [list(map(field, row)) for row in table.rows]
        if any(notes):
            heads, lines = [*heads, "note"], [[*line, note] for line, note in zip(lines, notes)]
    frame = pd.DataFrame(lines, columns=heads).astype(dict.fromkeys(names, float))
    return frame.to_csv(index=False, lineterminator="\n")


_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"[": "{[}"}  # at the start of a row it would be an option of the ``\\`` or rule before it
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
    | {">": r"\textgreater{}", "−": "$-$", "±": r"$\pm$", "–": "--", "ρ": r"$\rho$", "†": r"\dag{}"}
)


def to_latex(table: Table) -> str:
    """Returns a ``booktabs`` table with caption and label; colours need the ``table`` option of xcolor."""
    marks, columns = table.marks, table.columns

    def write(cell: Cell) -> str:
        text = cell.text.translate(_LATEX)
        text = f"\\textbf{{{text}}}" if cell.strong else text
        text += f"\\textsuperscript{{{marks[cell.note]}}}" if cell.note else ""
        text += f" {{\\scriptsize {cell.detail.translate(_LATEX)}}}" if cell.detail else ""
        if cell.tone is not None:
            text = f"\\cellcolor{{{'blue' if cell.tone > 0 else 'orange'}!{abs(cell.tone) * 40:.0f}}}{text}"
        return text

    lines = [" & ".join(f"\\multicolumn{{{n}}}{{c}}{{{name.translate(_LATEX)}}}" for name, n in table.spans)]
    lines.append(" & ".join(column.head.translate(_LATEX) for column in columns))
    details = [f"\\scriptsize {column.detail.translate(_LATEX)}" for column in columns]
    lines.append(" & ".join(details) if any(column.detail for column in columns) else "")
    lines = [rf"{line} \\" for line in lines if line] + [r"\midrule"]
    for number, row in enumerate(table.rows):
        lines += [" & ".join(map(write, row)) + r" \\"] + [r"\midrule"] * (number in table.ruled)
    caption = table.title.translate(_LATEX)
    form = "".join("lr"[right] for right in table.right)
    opening = [
        r"% needs \usepackage{booktabs} and \usepackage[table]{xcolor}",
        rf"\begin{{table}}\centering\caption{{{caption}}}\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{form}}}",
    ]
    notes = [f"\n\\par\\noindent\\footnotesize {note.translate(_LATEX)}" for note in table.footer]
    lines = [*opening, r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}"]
    return "\n".join(lines)
