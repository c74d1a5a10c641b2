"""Writers of a whole report: one self-contained HTML page, and Markdown."""

import html
import re
from collections.abc import Sequence
from importlib import resources

from stilts_jax.report.document import Block, Chart, Code, Folded, Row, Section, Text
from stilts_jax.report.tables import Table, escape_markdown, to_html, to_markdown

SCALE = (("−20", "loss", 100), ("−5", "loss", 50), ("−1", "loss", 22), ("+1", "gain", 22), ("+5", "gain", 50))


def write_html(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Returns the page; it needs no other file, no network and no script."""
    style = resources.files("stilts_jax.report").joinpath("page.css").read_text(encoding="utf-8")
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style></head><body>\n",
        f'<header><h1>{html.escape(title)}</h1><p class="lead">{html.escape(subtitle)}</p></header>\n<nav>',
    ]
    for section in sections:
        parts.append(f'<a href="#{section.identifier}">{html.escape(section.title)}</a> ')
    parts.append("</nav>\n<main>\n")
    for section in sections:
        parts.append(f'<section id="{section.identifier}"><h2>{html.escape(section.title)}</h2>\n')
        parts.append(f'<p class="reading">{html.escape(section.reading)}</p>\n')
        if section.identifier == "main":
            parts.append(_scale())
        parts += [_html_block(block) for block in section.blocks]
        parts.append("</section>\n")
    parts.append("</main></body></html>\n")
    return "".join(parts)


def _scale() -> str:
    swatches = "".join(
        f'<span class="{kind}" style="--tone:{tone}%">{text}</span>'
        for text, kind, tone in (*SCALE, ("+20", "gain", 100))
    )
    return f'<p class="scale" aria-hidden="true">{swatches} points from the baseline</p>\n'


def _html_block(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{html.escape(text)}</p>\n"
        case Code(text):
            return f"<pre>{html.escape(text)}</pre>\n"
        case Chart(title, svg):
            return f'<figure class="chart"><figcaption>{html.escape(title)}</figcaption>{svg}</figure>\n'
        case Folded(title, blocks):
            inner = "".join(_html_block(inner) for inner in blocks)
            return f"<details><summary>{html.escape(title)}</summary>\n{inner}</details>\n"
        case Row(blocks):
            return '<div class="row">' + "".join(_html_block(inner) for inner in blocks) + "</div>\n"
        case Table():
            return to_html(block)


def write_markdown(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Returns the same report without its charts."""
    parts = [f"# {escape_markdown(title)}\n\n{escape_markdown(subtitle)}\n"]
    for section in sections:
        parts.append(f"\n## {section.title}\n\n{escape_markdown(section.reading)}\n")
        parts += [_markdown_block(block) for block in section.blocks]
    return "".join(parts)


def _markdown_block(block: Block) -> str:
    match block:
        case Text(text):
            return f"\n{escape_markdown(text)}\n"
        case Code(text):
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            return f"\n{fence}\n{text}\n{fence}\n"
        case Chart():
            return ""
        case Folded(title, blocks):
            return f"\n### {escape_markdown(title)}\n" + "".join(_markdown_block(inner) for inner in blocks)
        case Row(blocks):
            return "".join(_markdown_block(inner) for inner in blocks)
        case Table():
            return f"\n**{escape_markdown(block.title)}**\n\n{to_markdown(block)}"
