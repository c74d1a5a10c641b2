"""Figures with matplotlib: SVG files, in the page with its colours; and PDF and PNG for papers and slides."""

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stilts_jax.report.tables import Block

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MANY_POINTS = 40  # of a scatter: more want a taller figure and smaller labels
_WIDTH = 5.6  # inches: two stand side by side on a wide page, one fills a narrow one
_INK, _QUIET, _LINE, _PAPER = "#1b1f24", "#59636e", "#d5dae0", "#ffffff"
_COLOURS = ("#0b6bb8", "#c8570a", "#0a8a64", "#b0418a", "#8a6d00", "#6a51c9", "#54606c")
_VARIABLES = {_INK: "--ink", _QUIET: "--quiet", _LINE: "--line", _PAPER: "--paper"}
_VARIABLES |= {colour: f"--c{index}" for index, colour in enumerate(_COLOURS)}
_MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "|": "|"}  # and how a legend writes them
_STYLE: dict[str, Any] = {
    **{"svg.fonttype": "none", "svg.hashsalt": "stilts", "text.parse_math": False, "font.size": 8.5},
    **{"text.color": _INK, "axes.labelcolor": _QUIET, "xtick.color": _QUIET, "ytick.color": _INK},
    **{"axes.edgecolor": _LINE, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True},
    **{"grid.color": _LINE, "grid.linewidth": 0.7, "axes.axisbelow": True},
    **{"figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none"},
}
Plot = Callable[["Axes"], None]
Drawing = tuple[float, float, Plot]  # height and left margin in inches, and what draws on axes


class Figures(dict[str, bytes]):
    """Draws figures; it has the files that lie beside the page, by name."""

    def draw(self, name: str, title: str, drawing: Drawing, *, paper: bool = False) -> Block:
        """Returns a drawing with a legend above the axes, for the page; ``paper`` makes PDF and PNG files too."""
        import matplotlib
        from matplotlib.figure import Figure

        height, left, plot = drawing
        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a script that the font lacks
            figure = Figure(figsize=(_WIDTH, height))
            box = left / _WIDTH, 0.42 / height, 1 - (left + 0.12) / _WIDTH
            axes = figure.add_axes((*box, 0.1))
            plot(axes)
            # The legend is plain text, and margins are set by hand: matplotlib's own take longer than all the rest.
            lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
            widest = max([len(str(line.get_label())) + 8 for line in lines], default=1)
            columns = max(1, min(len(lines), 90 // widest))
            for number, line in enumerate(lines):
                row, column = divmod(number, columns)
                text = f"{_MARKERS.get(line.get_marker(), '–')} {line.get_label()}"
                place = 0.01 + 0.98 * column / columns, 1 - (0.12 + 0.17 * row) / height
                figure.text(*place, text, color=line.get_color(), va="center")
            top = 0.1 + 0.17 * math.ceil(len(lines) / columns)
            axes.set_position((*box, 1 - (0.42 + top) / height))
            forms = {"svg": {"Date": None, "Creator": None}}
            forms |= {"pdf": {"CreationDate": None}, "png": {}} if paper else {}
            for form, metadata in forms.items():
                stream, facecolor = io.BytesIO(), "none" if form == "svg" else "white"
                figure.savefig(stream, format=form, dpi=120, facecolor=facecolor, metadata=metadata)
                self[f"{name}.{form}"] = stream.getvalue()
        # In the page a drawing has ids of its own, and the page's colours.
        svg = self[f"{name}.svg"].decode().partition("<svg")[2]
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        svg = re.sub(r'<g id="[^"]*"', "<g", svg)
        svg = re.sub(r'(id="|href="#|url\(#)', rf"\1{name}-", svg)
        svg = re.sub("|".join(_VARIABLES), lambda found: f"var({_VARIABLES[found[0]]})", svg)
        return Block("chart", title, f'<svg role="img"{svg}')


def _style(index: int) -> dict[str, Any]:
    """Colour and marker of a series; -1 is the baseline's."""
    if index < 0:
        return {"color": _INK, "marker": "o", "markerfacecolor": "none"}
    return {"color": _COLOURS[index % len(_COLOURS)], "marker": list(_MARKERS)[index % len(_MARKERS)]}


def dots(labels: Sequence[str], series: Mapping[str, Sequence], axis: str, *, zero: bool) -> Drawing:
    """One line a label; of each a series has a value, or (value, low, high); ``zero`` shows where no difference is."""
    marks = {name: np.array(values, float).reshape(len(labels), -1) for name, values in series.items()}

    def plot(axes: "Axes") -> None:
        places = range(len(labels))
        apart = min(0.2, 0.6 / max(len(series), 1))  # marks of equal values lie beside each other
        for index, (name, values) in enumerate(marks.items()):
            own = np.array(places) + apart * (index - (len(series) - 1) / 2)
            axes.plot(values[:, 0], own, linestyle="", markersize=5, label=name, **_style(index))
            if values.shape[1] > 1:
                axes.hlines(own, *values[:, 1:].T, color=_style(index)["color"], linewidth=1.2)
        if zero:
            axes.axvline(0, color=_QUIET, linewidth=1)
        axes.set_yticks([])  # texts and one collection of lines are drawn much faster than ticks
        for place, label in enumerate(labels):
            axes.text(-0.015, place, label, transform=axes.get_yaxis_transform(), ha="right", va="center")
        axes.set_ylim(len(labels) - 0.4, -0.6)
        ends = [float(value) for values in marks.values() for value in values.flat if math.isfinite(value)]
        ends += [0.0] * (zero or not ends)
        axes.hlines(places, min(ends), max(ends), color=_LINE, linewidth=0.5, zorder=0)
        axes.set_xlabel(axis)

    left = 0.15 + 0.068 * max(map(len, labels), default=7)
    return 0.9 + 0.17 * len(labels) + 0.06 * len(series), left, plot


def curves(lines: Mapping[tuple[str, int], Sequence], axis: str, below: str = "step") -> Drawing:
    """Curves of points by name and style, over steps or what else is named ``below``."""

    def plot(axes: "Axes") -> None:
        for (name, index), points in lines.items():
            look = _style(index) | {"marker": "." if len(points) == 2 else ""}
            line = "--" if index >= len(_COLOURS) else "-"
            axes.plot(*zip(*points), line, linewidth=1.1, label=name, **look)
        axes.set_xlabel(below)
        axes.set_ylabel(axis)

    return 3.0, 0.6, plot


def scatter(points: Mapping[str, tuple[float, float]], x_axis: str, y_axis: str) -> Drawing:
    """Labelled points; a label stands above its point, or below it where that is emptier."""
    many = len(points) > _MANY_POINTS

    def plot(axes: "Axes") -> None:
        if min(y for _, y in points.values()) < 0:
            axes.axhline(0, color=_QUIET, linewidth=1)
        axes.plot(*zip(*points.values()), linestyle="", markersize=2.5 if many else 4.5, **_style(0))
        scale = [max(span, 1e-9) for span in (max(one) - min(one) for one in zip(*points.values()))]
        taken = [(x / scale[0], y / scale[1]) for x, y in points.values()]
        off, size = (0.018, 6) if many else (0.05, 8)
        for label, (x, y) in points.items():
            here = x / scale[0], y / scale[1]
            others = [one for one in taken if one != here] or [(math.inf, math.inf)]
            places = {side: (here[0], here[1] + off * side) for side in (1, -1)}
            room = {side: min(math.dist(place, one) for one in others) for side, place in places.items()}
            side = max(room, key=room.__getitem__)
            taken.append(places[side])
            axes.text(x, y + off * side * scale[1], label, ha="center", va="center", size=size)
        axes.margins(0.08)
        axes.set_xlabel(x_axis)
        axes.set_ylabel(y_axis)

    return 6.4 if many else 3.2, 0.6, plot
