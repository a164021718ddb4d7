"""Charts are well-formed, keep to their page, and hide no value."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.svg import LETTER_WIDTH, WIDTH, Bar, Chart, Panel, format_value

SVG = "{http://www.w3.org/2000/svg}"
FOOT = "2026-11-25. A machine & its kernel"


def chart_of(*values: float, title: str = "Rates", label: str = "a system") -> Chart:
    bars = tuple(Bar(f"{label} {index}", value, index == 0) for index, value in enumerate(values))
    return Chart("rates", title, "More is better.", (Panel("Messages of 1 KiB", "/s", bars),))


def texts_of(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def bars_of(root: ET.Element) -> list[ET.Element]:
    return [one for one in root.iter(f"{SVG}rect") if one.get("class") in ("ours", "theirs")]


def test_every_bar_has_its_label_and_its_value_with_the_unit() -> None:
    root = ET.fromstring(chart_of(27_512.0, 48_600.0).as_svg(FOOT))

    texts = texts_of(root)
    assert "a system 0" in texts
    assert "27,500/s" in texts
    assert "48,600/s" in texts
    assert FOOT in texts
    assert [bar.get("class") for bar in bars_of(root)] == ["ours", "theirs"]


def test_bars_of_one_panel_are_as_long_as_their_values() -> None:
    root = ET.fromstring(chart_of(50.0, 100.0).as_svg(FOOT))

    short, long = (float(bar.get("width", "")) for bar in bars_of(root))
    assert short == pytest.approx(long / 2, abs=0.1)


def test_a_bar_far_beyond_the_others_is_cut_and_says_so() -> None:
    root = ET.fromstring(chart_of(1.0, 2.0, 3.0, 900.0).as_svg(FOOT))

    widths = [float(bar.get("width", "")) for bar in bars_of(root)]
    cuts = [one for one in root.iter(f"{SVG}path") if one.get("class") == "cut"]
    assert max(widths) == widths[3]
    assert widths[2] > 0.5 * widths[3]
    assert len(cuts) == 2  # Two strokes through the one bar.
    assert "900/s" in texts_of(root)


UNCUT = {
    "the longest is four times the next": [197.0, 61.0, 24.0, 8.0, 1.0],
    "some are very short": [100.0, 90.0, 80.0, 1.0, 0.5],
    "there are two, far apart": [1000.0, 999.0],
    "the others are nothing": [1.0, 0.0, 0.0],
}


@pytest.mark.parametrize("title", UNCUT)
def test_no_bar_is_cut_when(title: str) -> None:
    root = ET.fromstring(chart_of(*UNCUT[title]).as_svg(FOOT))

    assert [one for one in root.iter(f"{SVG}path") if one.get("class") == "cut"] == []


def test_a_long_label_has_room() -> None:
    root = ET.fromstring(
        chart_of(1.0, label="channel, agents meet for the first time").as_svg(FOOT)
    )

    [label] = [text for text in root.iter(f"{SVG}text") if text.get("class") == "label"]
    assert label.text is not None
    assert float(label.get("x", "")) - LETTER_WIDTH * len(label.text) > 0


def test_words_with_the_letters_of_xml_stay_words() -> None:
    root = ET.fromstring(chart_of(1.0, title='<b> & "c"', label="a<b>&").as_svg(FOOT))

    assert '<b> & "c"' in texts_of(root)
    assert root.get("aria-label") == '<b> & "c"'
    assert "a<b>& 0" in texts_of(root)


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=12))
def test_nothing_leaves_the_page(values: list[float]) -> None:
    root = ET.fromstring(chart_of(*values).as_svg(FOOT))

    height = float(root.get("height", ""))
    for bar in bars_of(root):
        assert float(bar.get("width", "")) > 0
        assert float(bar.get("x", "")) + float(bar.get("width", "")) < WIDTH
    for text in root.iter(f"{SVG}text"):
        assert 0 < float(text.get("x", "")) < WIDTH
        assert 0 < float(text.get("y", "")) < height


VALUES = {
    27_512.0: "27,500",
    1_000.0: "1,000",
    999.6: "1,000",
    61.74: "61.7",
    2.0: "2",
    2.1: "2.10",
    0.5702: "0.570",
    0.0: "0",
    1_234_567.0: "1,230,000",
}


@pytest.mark.parametrize("value", VALUES)
def test_a_value_shows_the_digits_that_count(value: float) -> None:
    assert format_value(value) == VALUES[value]
