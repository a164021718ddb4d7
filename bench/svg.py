"""Bar charts as SVG, with nothing but text: legible at 900 pixels, in a browser and in a README."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape, quoteattr

WIDTH: Final = 900
MARGIN: Final = 28
LABEL_WIDTH_MIN, LABEL_WIDTH_MAX = 120, 360
VALUE_WIDTH: Final = 118
BAR_HEIGHT: Final = 20
BAR_STEP: Final = 28
PANEL_GAP: Final = 22
PANEL_TITLE_HEIGHT: Final = 30
TITLE_HEIGHT: Final = 64
FOOT_HEIGHT: Final = 34

# What a letter takes on the average, at 14 pixels, in the widest of the fonts below.
LETTER_WIDTH: Final = 7.5
LABEL_GAP: Final = 12

# Bars so many times longer than the next shorter one would leave the others no room: they are drawn
# cut, with their values beside them like all others.
CUT_AT_TIMES: Final = 5.0

_STYLE: Final = """\
text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2733 }
.title { font-size: 20px; font-weight: 600 }
.note { font-size: 13px; fill: #5b6675 }
.panel { font-size: 15px; font-weight: 600 }
.label, .value { font-size: 14px }
.value { font-variant-numeric: tabular-nums }
.ours { fill: #1d62c4 }
.theirs { fill: #a9b4c2 }
.axis { stroke: #d5dbe3; stroke-width: 1 }
.cut { stroke: #ffffff; stroke-width: 3 }"""


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    value: float
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars that share a scale and a unit, which follows each value: with its space, if any."""

    title: str
    unit: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """``name`` is that of its file, without the ending."""

    name: str
    title: str
    note: str
    panels: tuple[Panel, ...]

    def as_svg(self, foot: str) -> str:
        """The whole file. ``foot`` says where and when it was measured."""
        parts: list[str] = []
        y = MARGIN + TITLE_HEIGHT
        left = MARGIN + _label_width(self.panels)
        for panel in self.panels:
            parts += _panel(panel, y, left)
            y += PANEL_TITLE_HEIGHT + BAR_STEP * len(panel.bars) + PANEL_GAP
        height = y + FOOT_HEIGHT
        head = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
            f' viewBox="0 0 {WIDTH} {height}" role="img" aria-label={quoteattr(self.title)}>',
            f"<style>{escape(_STYLE)}</style>",
            f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
            _text("title", MARGIN, MARGIN + 18, self.title),
            _text("note", MARGIN, MARGIN + 42, self.note),
        ]
        return "\n".join([*head, *parts, _text("note", MARGIN, y + 10, foot), "</svg>"]) + "\n"


def format_value(value: float) -> str:
    """Three digits that count, and thousands apart."""
    size = abs(value)
    if size >= 999.5:
        return f"{float(f'{value:.3g}'):,.0f}"
    if size >= 100 or value == int(value):
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def _label_width(panels: Sequence[Panel]) -> int:
    """The same for all panels of a chart, so that their bars begin below each other."""
    letters = max(len(bar.label) for panel in panels for bar in panel.bars)
    wanted = int(letters * LETTER_WIDTH) + LABEL_GAP
    return min(max(wanted, LABEL_WIDTH_MIN), LABEL_WIDTH_MAX)


def _panel(panel: Panel, top: int, left: int) -> Iterator[str]:
    yield _text("panel", MARGIN, top + 16, panel.title)
    first = top + PANEL_TITLE_HEIGHT
    scale = _scale([bar.value for bar in panel.bars])
    for index, bar in enumerate(panel.bars):
        y = first + index * BAR_STEP
        is_cut = bar.value > scale
        width = max(2.0, (WIDTH - left - VALUE_WIDTH - MARGIN) * min(1.0, bar.value / scale))
        kind = "ours" if bar.is_ours else "theirs"
        middle = y + BAR_HEIGHT - 5
        yield _text("label", left - LABEL_GAP, middle, bar.label, anchor="end")
        yield (
            f'<rect class="{kind}" x="{left}" y="{y}" width="{width:.1f}"'
            f' height="{BAR_HEIGHT}" rx="2"/>'
        )
        if is_cut:
            yield from _cut_marks(left + width - 24, y)
        value = f"{format_value(bar.value)}{panel.unit}"
        yield _text("value", left + width + 8, middle, value)
    end = first + len(panel.bars) * BAR_STEP - (BAR_STEP - BAR_HEIGHT)
    yield f'<path class="axis" d="M{left - 0.5} {first - 4}V{end + 4}"/>'


def _scale(values: Sequence[float]) -> float:
    """The value that a bar of full length stands for."""
    ordered = sorted(values, reverse=True)
    scale = ordered[0]
    # Only the longer half is ever cut: that a few are very short is no reason.
    for longer, shorter in itertools.pairwise(ordered[: len(ordered) // 2 + 1]):
        if longer > CUT_AT_TIMES * shorter > 0:
            scale = 1.25 * shorter
    return scale or 1.0  # Nothing but zeros.


def _cut_marks(x: float, y: int) -> Iterator[str]:
    for offset in (0, 7):
        left = x + offset
        yield f'<path class="cut" d="M{left:.1f} {y + BAR_HEIGHT + 2}L{left + 8:.1f} {y - 2}"/>'


def _text(kind: str, x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
