"""What a report consists of, independent of how it is written: sections of tables, charts and words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from stilts_jax.report.tables import Table


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Chart:
    """A drawing: its title and the SVG."""

    title: str
    svg: str


@dataclass(frozen=True)
class Code:
    """Preformatted text: a command, a configuration."""

    text: str


@dataclass(frozen=True)
class Folded:
    """Detail that opens on a click (and is always open in print)."""

    title: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Row:
    """Blocks that stand side by side where the page is wide enough."""

    blocks: Sequence["Block"]


Block = Text | Chart | Code | Table | Folded | Row


@dataclass(frozen=True)
class Section:
    """One part of the report; ``reading`` says how to read it."""

    identifier: str
    title: str
    reading: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def walk_tables(blocks: Sequence[Block]) -> Iterator[Table]:
    """Yields every table below ``blocks``."""
    for block in blocks:
        if isinstance(block, Table):
            yield block
        elif isinstance(block, Folded | Row):
            yield from walk_tables(block.blocks)
