"""Figures with text in any script: installed fonts stand in where the default font lacks letters.

matplotlib (3.11 and later, with libraqm) joins letters, places marks and writes from right to left by itself, and takes
every letter from the first of a text's fonts that has it. Its own font, DejaVu Sans, has Latin, Greek, Cyrillic, Arabic
and Hebrew. For other scripts, this module appends installed fonts.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from functools import cache

import regex
from matplotlib import font_manager, ft2font
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text

from embedlab.data.text_analysis import script_of

# The first that is installed is taken, then any other: Noto (Linux), those of macOS and of Windows.
CHINESE = ("Noto Sans CJK SC", "Noto Sans SC", "PingFang SC", "Microsoft YaHei")
JAPANESE = ("Noto Sans CJK JP", "Noto Sans JP", "Hiragino Sans", "Yu Gothic")
KOREAN = ("Noto Sans CJK KR", "Noto Sans KR", "Apple SD Gothic Neo", "Malgun Gothic")
ONE_SCRIPT = ("Arabic", "Hebrew", "Devanagari", "Thai", "Tamil")
NOTO = ("Noto Sans", *(f"Noto Sans {script}" for script in ONE_SCRIPT))
MANY_SCRIPTS = ("Nirmala UI", "Leelawadee UI", "Arial Unicode MS", "WenQuanYi Micro Hei", "Droid Sans Fallback")

_KANA, _HANGUL = regex.compile(r"[\p{Hiragana}\p{Katakana}]"), regex.compile(r"\p{Hangul}")
_NOT_DRAWN = regex.compile(r"[\s\p{C}\p{Variation_Selector}]")  # white space, control and format characters

logger = logging.getLogger(__name__)
_reported: set[str] = set()  # scripts that the user has been told about


class AnyScriptFigure(Figure):
    """A figure whose texts get fonts that have their letters; see the module."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw the figure; letters that no installed font has are reported once, in the log."""
        choose_fonts(self)
        of_matplotlib = logging.getLogger(font_manager.__name__)
        level = of_matplotlib.level
        try:
            of_matplotlib.setLevel(logging.ERROR)  # it warns of a font without bold letters
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Glyph .* missing from font")
                super().draw(renderer)
        finally:
            of_matplotlib.setLevel(level)


def choose_fonts(figure: Figure) -> None:
    """Append installed fonts to the fonts of every text that needs them."""
    for axes in figure.axes:  # the texts of ticks are made when the figure is drawn, or here
        axes.get_xticklabels(which="both")
        axes.get_yticklabels(which="both")
    unreadable: set[str] = set()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        content = text.get_text()
        if content.isascii():
            continue
        families = text.get_fontfamily()
        missing = _without(_NOT_DRAWN.sub("", content), families)
        if missing:
            fallback = fallback_fonts(missing)
            text.set_fontfamily([*families, *fallback])
            unreadable |= _without(missing, fallback)
    _tell(unreadable)


@cache
def fallback_fonts(letters: frozenset[str]) -> tuple[str, ...]:
    """Return installed font families that have these letters, as few as a search in order of preference finds.

    Chinese, Japanese and Korean share characters that each of them draws in its own way. Kana or Hangul among the
    letters decide; otherwise the way is Chinese.

    Args:
        letters: all letters of a text that its own fonts lack.
    """
    joined = "".join(letters)
    first = JAPANESE if _KANA.search(joined) else KOREAN if _HANGUL.search(joined) else CHINESE
    installed = _installed_families()
    preferred = dict.fromkeys((*NOTO, *first, *CHINESE, *JAPANESE, *KOREAN, *MANY_SCRIPTS))
    fonts, rest = [], set(letters)
    for family in dict.fromkeys((*(name for name in preferred if name in installed), *installed)):
        if not rest:
            break
        if not rest.isdisjoint(_letters_of(family)):
            fonts.append(family)
            rest -= _letters_of(family)
    return tuple(fonts)


def scripts(letters: Iterable[str]) -> list[str]:
    """Name the scripts of letters as Unicode does.

    >>> scripts("กह")
    ['Devanagari', 'Thai']
    """
    return sorted(set(map(script_of, letters)))


def _without(letters: Iterable[str], families: Iterable[str]) -> frozenset[str]:
    """The letters that none of the font families has."""
    return frozenset(letters).difference(*map(_letters_of, families))


@cache
def _letters_of(family: str) -> frozenset[str]:
    """The letters of a font family, in its regular style; none if the font cannot be read."""
    properties = font_manager.FontProperties(family=[family])
    try:
        path = font_manager.fontManager.findfont(properties, fallback_to_default=False)
        font = ft2font.FT2Font(str(path), face_index=getattr(path, "face_index", 0))
    except (ValueError, OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, font.get_charmap()))


@cache
def _installed_families() -> tuple[str, ...]:
    """All installed font families. matplotlib keeps a list on disk, so it does not know fonts installed since."""
    manager = font_manager.fontManager
    listed = {entry.fname for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in listed:
            try:
                manager.addfont(path)
            except (OSError, RuntimeError, ValueError):  # a damaged font, or one of bitmaps only
                logger.debug("cannot read the font %s", path)
    return tuple(sorted({entry.name for entry in manager.ttflist}))


def _tell(unreadable: Iterable[str]) -> None:
    """Warn about scripts without a font, each once per process."""
    new = [script for script in scripts(unreadable) if script not in _reported]
    if new:
        _reported.update(new)
        logger.warning(
            "no installed font has all letters of these scripts: %s. Figures show boxes in their place. Install fonts, "
            "for example fonts-noto-core and fonts-noto-cjk on Debian; see docs/install.md#fonts-for-figures",
            ", ".join(new),
        )
