"""Small charts as inline SVG: colours are CSS variables of the page, numbers are in ``<title>`` hints.

Every chart is drawn 560 units wide, so that two stand side by side on a wide page and one fills a narrow one
at about the same text size.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 560
FONT = 11.5  # of labels; the page's CSS says the same
LINE = 17.0  # height of a row of a dot chart
_SHAPES = ("circle", "square", "triangle", "diamond", "wedge", "bar")
_COLOURS = 7


@dataclass(frozen=True)
class Series:
    """A named sequence of values; NaN leaves a gap. ``style`` picks colour and shape."""

    name: str
    values: Sequence[float]
    style: int = 0


@dataclass(frozen=True)
class Curve:
    """A polyline; curves of the same name share a legend entry."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0


@dataclass(frozen=True)
class Point:
    """A labelled point of a scatter chart."""

    x: float
    y: float
    label: str
    hint: str = ""


def text_width(text: str, size: float = FONT) -> float:
    """An estimate that errs on the wide side: characters of wide scripts count as a whole em."""
    return sum(1.0 if ord(character) > 0x2E7F else 0.58 for character in text) * size


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover ``low`` to ``high``, the first at most ``low``, the last at least ``high``."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return [0.0, 1.0]
    if high - low < 1e-9 * max(1.0, abs(low)):
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(size * magnitude for size in (1, 2, 2.5, 5, 10) if size * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def format_tick(value: float) -> str:
    """``0.25``, ``1500``, ``20k``, with a real minus."""
    if abs(value) >= 10000:
        return f"{value / 1000:g}k".replace("-", "−")
    return f"{value:g}".replace("-", "−")


class Drawing:
    """Collects SVG elements."""

    def __init__(self, height: float, title: str) -> None:
        self.height = height
        self._title = title
        self._parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A straight line of CSS class ``kind``."""
        self._parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')

    def text(self, x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> None:
        """Text whose baseline starts, is centred or ends at (x, y)."""
        classes = f' class="{kind}"' if kind else ""
        escaped = html.escape(text)
        self._parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{classes}>{escaped}</text>')

    def upright(self, x: float, y: float, text: str) -> None:
        """Text that runs upwards, centred at (x, y)."""
        self._parts.append(
            f'<text transform="translate({x:.1f} {y:.1f}) rotate(-90)" text-anchor="middle" '
            f'class="axis">{html.escape(text)}</text>'
        )

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """A polyline."""
        if points:
            steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            self._parts.append(f'<polyline points="{steps}" class="{kind}"/>')

    def marker(self, x: float, y: float, style: int, hint: str = "", radius: float = 4.2) -> None:
        """One mark; ``style`` is told by shape and by colour; -1 is the baseline's."""
        colour = "base" if style < 0 else f"c{style % _COLOURS}"
        title = f"<title>{html.escape(hint)}</title>" if hint else ""
        shape = _SHAPES[max(style, 0) % len(_SHAPES)]
        self._parts.append(f'<g class="mark {colour}">{title}{_outline(shape, x, y, radius)}</g>')

    def svg(self) -> str:
        """The whole drawing."""
        title = html.escape(self._title)
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height:.0f}" role="img" aria-label="{title}">'
            + "".join(self._parts)
            + "</svg>"
        )


def _outline(shape: str, x: float, y: float, r: float) -> str:
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
    corners = {
        "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        "triangle": [(0, -1.1), (1.05, 0.8), (-1.05, 0.8)],
        "wedge": [(0, 1.1), (1.05, -0.8), (-1.05, -0.8)],
        "diamond": [(0, -1.25), (1.1, 0), (0, 1.25), (-1.1, 0)],
        "bar": [(-0.4, -1.3), (0.4, -1.3), (0.4, 1.3), (-0.4, 1.3)],
    }[shape]
    points = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}"/>'


def _legend(drawing: Drawing, names: Sequence[tuple[str, int]], y: float, *, lines: bool = False) -> float:
    """Draws markers (or short lines) with names, wrapped to the width; returns the y below."""
    x = 8.0
    for name, style in names:
        width = 18 + text_width(name) + 12
        if x + width > WIDTH and x > 8:
            x, y = 8.0, y + 17
        if lines:
            drawing.path([(x - 3, y - 4), (x + 10, y - 4)], _curve_kind(style))
        else:
            drawing.marker(x + 5, y - 4, style)
        drawing.text(x + 14, y, name)
        x += width
    return y + 8


def _curve_kind(style: int) -> str:
    """The CSS classes of a curve; when the colours are used up, they come again dashed."""
    if style < 0:
        return "curve cbase"
    return f"curve c{style % _COLOURS}" + (" dashed" if style // _COLOURS % 2 else "")


def _legend_height(names: Sequence[tuple[str, int]]) -> float:
    return _legend(Drawing(0, ""), names, 16)


def dot_chart(
    title: str, labels: Sequence[str], series: Sequence[Series], axis: str, *, zero: bool = False
) -> str:
    """One line a label with a mark for each series, and a thin rule over their range.

    Args:
        zero: values are differences: the axis shows where there is none.
    """
    names = [(one.name, one.style) for one in series]
    top = _legend_height(names) + 14
    drawing = Drawing(top + LINE * len(labels) + 36, title)
    _legend(drawing, names, 16)
    left = max((text_width(label) for label in labels), default=0) + 16
    right = WIDTH - 16.0
    finite = [value for one in series for value in one.values if math.isfinite(value)] + [0.0] * zero
    ticks = nice_ticks(min(finite, default=0.0), max(finite, default=1.0), 6)

    def place(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (right - left)

    radius = 4.2 if len(series) < 5 else 3.5
    bottom = top + LINE * len(labels)
    for tick in ticks:
        drawing.line(place(tick), top - 6, place(tick), bottom, "zero" if zero and tick == 0 else "grid")
        drawing.text(place(tick), bottom + 14, format_tick(tick), "middle", "axis")
    drawing.text((left + right) / 2, bottom + 30, axis, "middle", "axis")
    for index, label in enumerate(labels):
        y = top + LINE * (index + 0.5)
        drawing.text(left - 8, y + 4, label, "end")
        there = [one for one in series if math.isfinite(one.values[index])]
        if there:
            ends = [place(one.values[index]) for one in there] + [place(0)] * zero
            drawing.line(min(ends), y, max(ends), y, "range")
        for one in there:
            hint = f"{label}, {one.name}: {one.values[index]:.1f}"
            drawing.marker(place(one.values[index]), y, one.style, hint, radius)
    return drawing.svg()


def line_chart(title: str, curves: Sequence[Curve], x_axis: str, y_axis: str, height: float = 260) -> str:
    """Curves over a common pair of axes; several of one name are drawn alike."""
    names = list({curve.name: (curve.name, curve.style) for curve in curves}.values())
    top = _legend_height(names) + 8
    height += top
    drawing = Drawing(height, title)
    _legend(drawing, names, 16, lines=True)
    points = [point for curve in curves for point in curve.points if math.isfinite(point[1])]
    frame = _Frame(points, top, height)
    frame.draw(drawing, x_axis, y_axis)
    for curve in curves:
        placed = [frame.place(x, y) for x, y in curve.points if math.isfinite(y)]
        if len(placed) == 1:
            drawing.marker(*placed[0], curve.style, curve.name, 3)
        drawing.path(placed, _curve_kind(curve.style))
    return drawing.svg()


class _Frame:
    """Axes around a cloud of points; ``inset`` keeps marks and their labels off the edge."""

    def __init__(
        self, points: Sequence[tuple[float, float]], top: float, height: float, inset: float = 0
    ) -> None:
        xs = [x for x, _ in points] or [0.0, 1.0]
        ys = [y for _, y in points] or [0.0, 1.0]
        self.x_ticks, self.y_ticks = nice_ticks(min(xs), max(xs)), nice_ticks(min(ys), max(ys))
        self.left = 30 + max(text_width(format_tick(tick)) for tick in self.y_ticks)
        self.right, self.top, self.bottom = WIDTH - 20.0, top, height - 42
        self._inset = inset

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x_ticks[0]) / (self.x_ticks[-1] - self.x_ticks[0])
        up = (y - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])
        width, height = self.right - self.left - 2 * self._inset, self.bottom - self.top - 2 * self._inset
        return self.left + self._inset + across * width, self.bottom - self._inset - up * height

    def draw(self, drawing: Drawing, x_axis: str, y_axis: str) -> None:
        for tick in self.x_ticks:
            x, _ = self.place(tick, self.y_ticks[0])
            drawing.line(x, self.top, x, self.bottom, "grid")
            drawing.text(x, self.bottom + 18, format_tick(tick), "middle", "axis")
        for tick in self.y_ticks:
            _, y = self.place(self.x_ticks[0], tick)
            drawing.line(self.left, y, self.right, y, "zero" if tick == 0 else "grid")
            drawing.text(self.left - 6, y + 4, format_tick(tick), "end", "axis")
        drawing.text((self.left + self.right) / 2, self.bottom + 35, x_axis, "middle", "axis")
        drawing.upright(14, (self.top + self.bottom) / 2, y_axis)


def scatter_chart(title: str, points: Sequence[Point], x_axis: str, y_axis: str, height: float = 300) -> str:
    """Points with labels that overlap neither each other nor points nor the frame."""
    drawing = Drawing(height, title)
    cloud = [(point.x, point.y) for point in points]
    frame = _Frame([*cloud, (cloud[0][0], 0.0)], 14, height, inset=14)
    frame.draw(drawing, x_axis, y_axis)
    places = [frame.place(point.x, point.y) for point in points]
    for (x, y), point in zip(places, points):
        drawing.marker(x, y, 0, point.hint or point.label, 3.6)
    for box, (x, y), point in zip(place_labels(places, points, frame), places, points):
        if box is None:
            continue  # its name is in the hint of its mark, and in the table
        middle, baseline = (box[0] + box[2]) / 2, box[3] - 3
        if math.hypot(middle - x, (box[1] + box[3]) / 2 - y) > 24:
            drawing.line(x, y, middle, (box[1] + box[3]) / 2, "leader")
        drawing.text(middle, baseline, point.label, "middle", "point")
    return drawing.svg()


Box = tuple[float, float, float, float]  # left, top, right, bottom


def place_labels(
    places: Sequence[tuple[float, float]], points: Sequence[Point], frame: _Frame
) -> list[Box | None]:
    """Finds a free box near each point, nearest first; None where the neighbourhood is full."""
    marks = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    taken: list[Box] = list(marks)
    boxes: list[Box | None] = []
    for (x, y), point in zip(places, points):
        width, height = text_width(point.label) + 2, FONT + 2
        found = None
        for distance in (0, 6, 14, 24, 36):
            for angle in (0, 180, 90, 270, 45, 135, 225, 315):
                across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
                middle_x = x + across * (width / 2 + 6 + distance)
                middle_y = y - up * (height / 2 + 5 + distance)
                box = (
                    middle_x - width / 2,
                    middle_y - height / 2,
                    middle_x + width / 2,
                    middle_y + height / 2,
                )
                inside = frame.left <= box[0] and box[2] <= frame.right
                inside = inside and frame.top <= box[1] and box[3] <= frame.bottom
                if inside and not any(_overlap(box, other) for other in taken):
                    found = box
                    break
            if found:
                break
        boxes.append(found)
        if found:
            taken.append(found)
    return boxes


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
