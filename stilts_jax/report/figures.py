"""Figures with matplotlib: SVG whose colours are CSS variables of the page, and PDF and PNG for papers and slides."""

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 5.6  # inches: two stand side by side on a wide page, one fills a narrow one
_INK, _QUIET, _LINE, _PAPER = "#1b1f24", "#59636e", "#d5dae0", "#ffffff"
_COLOURS = ("#0b6bb8", "#c8570a", "#0a8a64", "#b0418a", "#8a6d00", "#6a51c9", "#54606c")
_VARIABLES = {_INK: "--ink", _QUIET: "--quiet", _LINE: "--line", _PAPER: "--paper"} | {
    colour: f"--c{index}" for index, colour in enumerate(_COLOURS)
}
_MARKERS = "os^Dv|"
_STYLE: dict[str, Any] = {
    **{"svg.fonttype": "none", "svg.hashsalt": "stilts", "text.parse_math": False},
    **{
        "font.size": 8.5,
        "text.color": _INK,
        "axes.labelcolor": _QUIET,
        "xtick.color": _QUIET,
        "ytick.color": _INK,
    },
    **{"axes.edgecolor": _LINE, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True},
    **{"grid.color": _LINE, "grid.linewidth": 0.7, "axes.axisbelow": True, "legend.frameon": False},
    **{"figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none"},
}


@dataclass
class Figures:
    """Draws figures; ``files`` are those for papers, by name."""

    files: dict[str, bytes] = field(default_factory=dict)

    def draw(self, name: str, height: float, plot: Callable[["Axes"], None], *, files: bool = True) -> str:
        """Calls ``plot`` on new axes of ``height`` inches and returns the SVG; a legend stands above the axes.

        Args:
            name: stem of the files.
            files: whether PDF and PNG are written too.
        """
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a script that the font lacks
            figure = Figure(figsize=(WIDTH, height))
            axes = figure.subplots()
            plot(axes)
            handles, labels = axes.get_legend_handles_labels()
            columns = max(1, min(len(labels), 90 // (max(map(len, labels), default=0) + 8)))
            top = 0.1 + 0.17 * math.ceil(len(labels) / columns)
            # By hand, as matplotlib's layout engines draw everything once more for each file.
            names = [label.get_text() for label in axes.get_yticklabels()] if axes.get_ylabel() == "" else []
            left = 0.15 + 0.068 * max(map(len, names), default=7)
            figure.subplots_adjust(left / WIDTH, 0.42 / height, 1 - 0.12 / WIDTH, 1 - top / height)
            if labels:
                figure.legend(
                    handles,
                    labels,
                    loc="upper left",
                    ncols=columns,
                    handletextpad=0.3,
                    borderpad=0,
                    borderaxespad=0,
                )
            for form in ("pdf", "png") if files else ():
                stream, metadata = io.BytesIO(), {"CreationDate": None} if form == "pdf" else {}
                figure.savefig(stream, format=form, dpi=120, facecolor="white", metadata=metadata)
                self.files[f"{name}.{form}"] = stream.getvalue()
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        return _inline(text.getvalue(), name)


def _inline(svg: str, name: str) -> str:
    """The drawing as part of a page: its own ids, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = re.sub("|".join(_VARIABLES), lambda found: f"var({_VARIABLES[found[0]]})", svg)
    return svg.replace("<svg", '<svg role="img"', 1)


def style(index: int) -> dict[str, Any]:
    """Colour and marker of a series; -1 is the baseline's."""
    if index < 0:
        return {"color": _INK, "marker": "o", "markerfacecolor": "none"}
    return {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKERS[index % len(_MARKERS)]}


def dots(
    labels: Sequence[str], series: Mapping[str, Sequence[float]], axis: str, *, zero: bool
) -> tuple[float, Callable[["Axes"], None]]:
    """One line a label with a mark for each series; returns what ``Figures.draw`` takes.

    Args:
        zero: values are differences: the axis shows where there is none.
    """

    def plot(axes: "Axes") -> None:
        places = range(len(labels))
        for index, (name, values) in enumerate(series.items()):
            axes.plot(values, places, linestyle="", markersize=5, label=name, **style(index))
        if zero:
            axes.axvline(0, color=_QUIET, linewidth=1)
        axes.set_yticks(places, labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.tick_params(left=False)
        axes.grid(visible=False, axis="y")  # one collection of lines is drawn much faster than a line a tick
        ends = [value for values in series.values() for value in values if math.isfinite(value)]
        ends += [0.0] * (zero or not ends)
        axes.hlines(places, min(ends), max(ends), color=_LINE, linewidth=0.5, zorder=0)
        axes.set_xlabel(axis)

    return 0.9 + 0.17 * len(labels) + 0.06 * len(series), plot


def curves(
    lines: Sequence[tuple[str, int, Sequence[tuple[float, float]]]], axis: str
) -> tuple[float, Callable[["Axes"], None]]:
    """Curves over steps: (name, style, points); several of one name are one line with gaps."""
    joined: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for name, index, points in lines:
        joined.setdefault((name, index), []).extend([*points, (math.nan, math.nan)])

    def plot(axes: "Axes") -> None:
        for (name, index), points in joined.items():
            look = style(index) | {"marker": "." if len(points) == 2 else ""}
            axes.plot(
                *zip(*points), "--" if index >= len(_COLOURS) else "-", linewidth=1.1, label=name, **look
            )
        axes.set_xlabel("step")
        axes.set_ylabel(axis)

    return 3.0, plot


def scatter(
    points: Mapping[str, tuple[float, float]], x_axis: str, y_axis: str
) -> tuple[float, Callable[["Axes"], None]]:
    """Labelled points; a label stands on whichever side of its point is emptiest."""

    def plot(axes: "Axes") -> None:
        axes.axhline(0, color=_QUIET, linewidth=1)
        places = list(points.values())
        axes.plot(*zip(*places), linestyle="", markersize=4.5, **style(0))
        spans = [max(max(one) - min(one), 1e-9) for one in zip(*places)]
        scaled = [(x / spans[0], y / spans[1]) for x, y in places]
        taken = list(scaled)
        for label, place, (x, y) in zip(points, places, scaled):
            # Offsets in points, and about where that is on the scale of the axes.
            sides = {
                (0, 8): (x, y + 0.05),
                (0, -8): (x, y - 0.05),
                (9, 0): (x + 0.04, y),
                (-9, 0): (x - 0.04, y),
            }
            others = [one for one in taken if one != (x, y)]
            free = {
                side: min((math.dist(at, one) for one in others), default=1.0) for side, at in sides.items()
            }
            best = max(free, key=free.__getitem__)
            taken.append(sides[best])
            axes.annotate(
                label, place, best, textcoords="offset points", ha="center", va="center", fontsize=8
            )
        axes.margins(0.08)
        axes.set_xlabel(x_axis)
        axes.set_ylabel(y_axis)

    return 3.2, plot
