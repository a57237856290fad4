"""Text in any script in figures: fonts with its letters, its shape and direction, and one warning without a font."""

from __future__ import annotations

import io
import logging
import warnings

import numpy as np
import pytest
import regex
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from embedlab.reporting import figure_fonts
from embedlab.reporting.figures import Label, label_lines, label_points, new_axes, set_finding
from embedlab.reporting.html_report import svg

OWN = {  # matplotlib's own font has them
    "Latin": "Brüche, đái tháo đường",
    "Cyrillic": "Острый гепатит",
    "Greek": "Οξεία ηπατίτιδα",
    "Arabic": "التهاب الكبد الحاد",
    "Hebrew": "דלקת כבד חריפה",
}
INSTALLED = {
    "Devanagari": "क्षय रोग और हिन्दी",
    "Thai": "โรคตับอักเสบที่",
    "Tamil": "கல்லீரல் அழற்சி",
    "Chinese": "急性肝炎",
    "Japanese": "きゅう性肝炎ウイルス",
    "Korean": "급성 간염",
    "code-mixed": "acute 肝炎 حاد",
}


def needs_font(text):
    """Skip without a font; CI installs them."""
    missing = figure_fonts._without(regex.sub(r"\s", "", text), ["DejaVu Sans"])
    if figure_fonts._without(missing, figure_fonts.fallback_fonts(missing)):
        pytest.skip("no installed font has these letters: install fonts-noto-core and fonts-noto-cjk")


def drawn_without_a_box(figure):
    """Draw with matplotlib's own method, which warns of every letter that no font has."""
    figure.savefig(io.BytesIO(), format="png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Figure.draw(figure, FigureCanvasAgg(figure).get_renderer())


def pixels(text, **options):
    """A text as an image (height, width), cut to its letters."""
    figure = figure_fonts.AnyScriptFigure(figsize=(6, 1), dpi=100)
    figure.text(0.5, 0.5, text, ha="center", fontsize=20, **options)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ink = np.asarray(canvas.buffer_rgba())[..., 0] < 128
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@pytest.mark.parametrize("text", [*OWN.values(), *INSTALLED.values()], ids=[*OWN, *INSTALLED])
class TestScripts:
    def test_every_place_of_a_figure_has_the_letters(self, text):
        needs_font(text)
        figure, axes = new_axes(text, text, text)
        axes.plot([0, 1], [0, 1], label=text)
        axes.set_xticks([0, 1], [text, "b"])
        set_finding(axes, text)
        axes.legend()
        label_points(axes, [Label(text, 0.5, 0.5, "#000000")])
        label_lines(axes, [Label(text, 1, 1, "#000000")])
        drawn_without_a_box(figure)

    def test_the_svg_of_a_page_keeps_the_text_for_the_browser(self, text):
        needs_font(text)
        figure, _ = new_axes(text, "x", "y")
        assert text in svg(figure)


class TestShapes:
    """What matplotlib does with the help of libraqm, and embedlab relies on."""

    def test_hebrew_runs_from_right_to_left(self):
        from_left = chr(0x202D) + "גבא" + chr(0x202C)  # with an override of the direction
        assert np.array_equal(pixels("אבג"), pixels(from_left))
        assert not np.array_equal(pixels("אבג"), pixels("גבא"))

    def test_arabic_letters_join(self):
        apart = chr(0x200C).join("بيت")  # a zero-width non-joiner between the letters
        assert pixels("بيت").shape[1] < pixels(apart).shape[1]

    def test_a_devanagari_vowel_sign_stands_before_its_letter(self):
        needs_font("कि")
        letter, word = pixels("क"), pixels("कि")
        assert word.shape[1] > letter.shape[1]
        start, end = word[-letter.shape[0] :, : letter.shape[1]], word[-letter.shape[0] :, -letter.shape[1] :]
        assert (end == letter).mean() > (start == letter).mean()


class TestFallback:
    def test_own_letters_change_nothing(self):
        figure, axes = new_axes("größer ≥ 5 − Гепатит", "x", "y")
        before = axes.title.get_fontfamily()
        figure_fonts.choose_fonts(figure)
        assert axes.title.get_fontfamily() == before

    def test_kana_and_hangul_decide_how_shared_characters_look(self, monkeypatch):
        families = {"Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR"}
        monkeypatch.setattr(figure_fonts, "_installed_families", lambda: tuple(sorted(families)))
        monkeypatch.setattr(figure_fonts, "_letters_of", lambda family: frozenset("急性あ급"))
        choose = figure_fonts.fallback_fonts.__wrapped__
        assert choose(frozenset("急性")) == ("Noto Sans CJK SC",)
        assert choose(frozenset("急性あ")) == ("Noto Sans CJK JP",)
        assert choose(frozenset("急性급")) == ("Noto Sans CJK KR",)

    def test_any_installed_font_is_better_than_none(self, monkeypatch):
        letters = {"A font": frozenset("急"), "Noto Sans": frozenset("x"), "Z font": frozenset("性あ")}
        monkeypatch.setattr(figure_fonts, "_installed_families", lambda: tuple(letters))
        monkeypatch.setattr(figure_fonts, "_letters_of", lambda family: letters.get(family, frozenset()))
        assert figure_fonts.fallback_fonts.__wrapped__(frozenset("急性")) == ("A font", "Z font")

    def test_a_font_installed_after_matplotlib_made_its_list_is_found(self, monkeypatch, tmp_path):
        path = new_font(tmp_path / "new.ttf", "Newly Installed", chr(0xE000))
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(path), str(tmp_path / "absent.ttf")])
        for cached in (figure_fonts._installed_families, figure_fonts._letters_of):
            monkeypatch.setattr(figure_fonts, cached.__name__, cached.__wrapped__)
        assert "Newly Installed" in figure_fonts._installed_families()
        assert chr(0xE000) in figure_fonts._letters_of("Newly Installed")


def new_font(path, family, letter):
    """Write a font with one square letter."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for number, point in enumerate([(0, 0), (0, 500), (500, 500), (500, 0)]):
        (pen.lineTo if number else pen.moveTo)(point)
    pen.closePath()
    square = pen.glyph()
    font = FontBuilder(1000)
    font.setupGlyphOrder([".notdef", "square"])
    font.setupCharacterMap({ord(letter): "square"})
    font.setupGlyf({".notdef": square, "square": square})
    font.setupHorizontalMetrics({".notdef": (600, 0), "square": (600, 0)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": family, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    return path


class TestWithoutFont:
    @pytest.fixture(autouse=True)
    def no_fonts(self, monkeypatch):
        monkeypatch.setattr(figure_fonts, "_installed_families", lambda: ())
        monkeypatch.setattr(figure_fonts, "fallback_fonts", figure_fonts.fallback_fonts.__wrapped__)
        monkeypatch.setattr(figure_fonts, "_reported", set())

    def test_one_warning_names_the_scripts_and_the_remedy(self, caplog):
        figure, axes = new_axes("急性肝炎 हिन्दी", "x", "y")
        axes.set_xticks([0, 1], ["กข", "हि"])
        with caplog.at_level(logging.WARNING), warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                figure.savefig(io.BytesIO(), format="png")
        (record,) = caplog.records
        assert "CJK, Devanagari, Thai" in record.message and "fonts-noto-cjk" in record.message

    def test_another_script_is_told_too_but_none_twice(self, caplog):
        for title in ("हिन्दी", "க हि"):
            new_axes(title, "x", "y")[0].savefig(io.BytesIO(), format="png")
        assert [record.message.split(": ")[1].split(".")[0] for record in caplog.records] == ["Devanagari", "Tamil"]


class TestLongLabels:
    def test_a_line_is_never_cut_before_a_mark(self):
        figure, axes = new_axes("title", "x", "y")
        text = "โรคตับอักเสบที่เกิดจากเชื้อไวรัสที่ไม่ระบุ" * 2
        label_lines(axes, [Label(text, 1, 1, "#000000")])
        lines = axes.texts[-1].get_text().split("\n")
        assert len(lines) > 2 and "".join(lines) == text
        assert not [line for line in lines if regex.match(r"\p{M}", line)]
        assert figure.axes == [axes]

    def test_wide_letters_count_twice(self):
        _, axes = new_axes("title", "x", "y")
        label_lines(axes, [Label("急" * 26, 1, 1, "#000000"), Label("a" * 26, 1, 0, "#000000")])
        assert sorted(text.get_text().count("\n") for text in axes.texts) == [0, 1]
