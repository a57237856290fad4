"""Split texts of any script into words, and decide when two texts are the same.

Words follow Unicode: combining marks belong to their letter (Hindi and Tamil vowel signs, Thai tone marks). Scripts
without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are cut into overlapping pairs of
characters, as Lucene's CJK analyzer does. Width, case, Unicode form, digits and invisible characters do not matter. Nor
do marks that writers often leave out: Arabic and Hebrew vowel points, Greek accents, the dots of ё.

Symbols do not count as words, but some decide what a text means: C++ and C#, x > 5 and x < 5, +5 °C and -5 °C, $100
and €100, .NET. The normal form keeps them.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

import regex

_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー々〆"
_CHARACTER = rf"(?!\p{{M}})[{_SPACELESS}]\p{{M}}*"
_WORD = r"[\p{L}\p{N}_][\p{L}\p{N}\p{M}_]*"
_AFTER_NUMBER, _BEFORE_NUMBER = r"(?<=\d\s?)", r"(?=\s?[+-]?\.?\d)"
_LEFT, _RIGHT = r"(?<=[\p{L}\p{N}\p{M}_+#%°)\]]\s*)", r"(?=\s*[+-]?\.?[\p{L}\p{N}_])"

_WORDS = regex.compile(_WORD)
_CHARACTERS = regex.compile(r"[^\p{M}]\p{M}*")
_SPACELESS_RUN = regex.compile(rf"((?:{_CHARACTER})+)")
_OPENING = r"[\p{Ps}\p{Pi}]"
_UNSPACED_WORD = regex.compile(
    rf"{_OPENING}{{0,3}}(?:{_CHARACTER}){{1,2}}(?:(?!{_OPENING})[^\p{{L}}\p{{N}}])*|(?:(?!{_OPENING}{{0,3}}{_CHARACTER}).)+",
    regex.DOTALL,
)
_TOKENS = regex.compile(
    rf"""(?<![\p{{L}}\p{{N}}\p{{M}}_)])[+-]\.?\d[\p{{L}}\p{{N}}\p{{M}}_]*  # a sign: +5, -5
    | (?<![\p{{L}}\p{{N}}\p{{M}}_.])\.{_WORD}                              # .NET, .5
    | {_WORD}(?:(?:\+\+?|\#)(?![\p{{L}}\p{{N}}\p{{M}}_+#]))?               # a word; C++, C#, A+
    | [<>]=?{_BEFORE_NUMBER}                                               # > 5
    | (?=[<>=!+*^]){_LEFT}(?:[<>=!]=|[<>=+*^]){_RIGHT}                                  # x > y, a + b, key = value
    | /(?<=\d\s*/)(?=\s*\d)                                                # 1/2
    | \p{{Sc}}{_BEFORE_NUMBER} | {_AFTER_NUMBER}\p{{Sc}}                   # $100, 100 €
    | {_AFTER_NUMBER}(?:[%‰]|°[cfk]?(?![\p{{L}}\p{{N}}]))                  # 5 %, 5 °C
    | [\p{{Sm}}\p{{Emoji_Presentation}}✓✔✗✘♀♂--[\x00-\x7f¬⁄]]""",
    regex.VERBOSE | regex.VERSION1,
)
_NAMES = regex.compile(  # C++, C#, HER2+; .NET
    r"""(?<![\p{L}\p{N}\p{M}_])\p{L}[\p{L}\p{N}\p{M}_]*+(?:\+\+?|\#)(?![\p{L}\p{N}\p{M}_+#])
    | (?<![\p{L}\p{N}\p{M}_.])\.\p{L}[\p{L}\p{N}\p{M}_]++""",
    regex.VERBOSE,
)
# ASCII letters, digits and punctuation that is never a symbol: the tokens of such a text are its words.
_PLAIN = regex.compile(r"""(?:[\w\s,;:'"?&()\[\]]++|\.(?!\w)|-(?![\d.]))*+""")
_WORDS_ALONE = re.compile(r"[\w ]*")
_INVISIBLE = regex.compile(r"[\p{Cf}\p{Variation_Selector}ـ--\u200b]", regex.VERSION1)  # all but the zero-width space
_EXPONENT = regex.compile(r"(?<=\d)[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_DIGIT = regex.compile(r"[\p{Nd}--0-9]", regex.VERSION1)
_THAI_TONE = regex.compile("([\u0e48-\u0e4b])\u0e4d|([\u0ec8-\u0ecb])\u0ecd")  # typed in either order
_THAI_VOWELS = ("\u0e4d", "\u0ecd")
_DASHES = dict.fromkeys("‐‑‒–−", "-") | {"⁄": "/"}

# Words that BM25 must analyse further; all others keep bm25s's tokens.
_ANALYSED = regex.compile(rf"[\p{{M}}\p{{Hangul}}\p{{Arabic}}\p{{Hebrew}}\p{{Greek}}ёЁ{_SPACELESS}]|[\uff00-\uffef]")
_UNSEPARATED_RUN = regex.compile(rf"((?:(?!\p{{M}})[\p{{Hangul}}{_SPACELESS}]\p{{M}}*)+)")
_LOWER_WORDS = regex.compile(r"[\p{L}\p{N}_][\p{L}\p{N}\p{M}_\u200c\u200d\u00ad]*")
_OPTIONAL_MARKS = regex.compile(r"(?<=[\p{Arabic}\p{Hebrew}\p{Greek}]\p{M}*)\p{Mn}|(?<=е)\u0308")
_ACCENTS = regex.compile(r"(?<=[\p{Latin}\p{Greek}\p{Cyrillic}\p{Arabic}\p{Hebrew}]\p{M}*)\p{M}")
_TURKISH = frozenset("İĞ")
_HAS_OPTIONAL_MARKS = regex.compile(r"[\p{Arabic}\p{Hebrew}\p{Greek}ё]|е\u0308")
_VARIANTS = str.maketrans({"ى": "ي", "ی": "ي", "ک": "ك", "ة": "ه"})


def words(text: str) -> list[str]:
    """Split `text` into words without symbols.

    >>> words("The X-ray of a CAFÉ, 水泵漏水")
    ['the', 'x', 'ray', 'of', 'a', 'café', '水泵', '泵漏', '漏水']
    """
    if text.isascii():  # nothing to fold or to cut
        return _ascii_words(text)
    return [piece for word in _WORDS.findall(_folded(text)) for piece, _ in _pieces(word)]


def unspaced_words(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Divide the characters [start, end) of `text`, which hold no white space, where a script has no spaces.

    Two characters of such a script are a word, with the punctuation around them. Every other part stays whole.

    >>> unspaced_words("水泵漏水，见C++手册。", 0, 12)
    [(0, 2), (2, 5), (5, 6), (6, 9), (9, 12)]
    """
    if text[start:end].isascii():
        return [(start, end)]
    return [match.span() for match in _UNSPACED_WORD.finditer(text, start, end)]


def symbols(text: str) -> frozenset[str]:
    """Return the tokens of `text` whose symbols decide its meaning.

    >>> sorted(symbols("Is C++ > 5 % faster than C?"))
    ['%', '>', 'c++']
    """
    return frozenset(token for token in _TOKENS.findall(_folded_apart(text)) if not _WORDS.fullmatch(token))


def normalise(text: str) -> str:
    """Normal form of `text`: equal for texts that differ only in case, white space, punctuation or Unicode form.

    >>> normalise("Reiter's  disease.") == normalise("reiter's DISEASE")
    True
    >>> normalise("sort a list in C#"), normalise("25 °C"), normalise("水泵 漏水！")
    ('sort a list in c#', '25 °c', '水泵漏水')
    """
    if text.isascii() and _PLAIN.fullmatch(text):
        return " ".join(_ascii_words(text)) or text.strip()
    folded = _folded(text)
    join = _spaced_tokens if folded.isascii() or not _SPACELESS_RUN.search(folded) else _joined
    form = join(folded)
    # Without the punctuation around it, a symbol may stand elsewhere: repeat until nothing changes.
    while not _WORDS_ALONE.fullmatch(form) and (shorter := join(form)) != form:
        form = shorter
    return form or text.strip()


def without_symbols(text: str) -> str:
    """`normalise` without symbols, for data in which they rarely tell two texts apart.

    >>> without_symbols("HER2+") == without_symbols("HER2-")
    True
    """
    return " ".join(words(text)) or text.strip()


def search_words(text: str) -> list[str]:
    """Split `text` into the words that BM25 matches, before stop words and stemming.

    Latin and Cyrillic words are those of bm25s: lower case, two characters or more. Korean is cut into pairs of
    characters too, because particles follow the noun without a space. Names with a symbol, such as C++, C# and .NET,
    come last, in addition to their word.

    >>> search_words("A Ménière attack"), search_words("펌프에서"), search_words("HER2+ in C#")
    (['ménière', 'attack'], ['펌프', '프에', '에서'], ['her2', 'in', 'her2+', 'c#'])
    """
    return [*_search_words(_lower(text)), *_NAMES.findall(_folded_apart(text))]


def unseparated_parts(text: str) -> list[tuple[str, bool]]:
    """Cut `text` into the parts that `search_words` reads as pairs of characters, and the parts between.

    Joined, the parts are the text.

    >>> unseparated_parts("急性 hepatitis肝炎")
    [('急性', True), (' hepatitis', False), ('肝炎', True)]

    Returns:
        Part, and whether it has no spaces between its words.
    """
    return list(_parts(text, _UNSEPARATED_RUN))


def spaced(text: str) -> str:
    """Set words apart that stand next to a script without spaces, so that a search for whole words finds them.

    >>> spaced("HIV感染2型")
    'HIV 感染 2 型'
    """
    return text if text.isascii() else " ".join(segment for segment, _ in unseparated_parts(text))


def script(text: str) -> str:
    """Name the script of most letters of `text`, for example Latin, Cyrillic or CJK (Chinese characters).

    Text with kana is Japanese, whatever its Chinese characters. Without a letter, the name is empty.

    >>> script("ｆｒａｃｔｕｒｅ"), script("肺炎の疑い"), script("肺炎 12"), script("12.3")
    ('Latin', 'Japanese', 'CJK', '')
    """
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    counts = Counter(script_of(letter) for letter in plain if letter.isalpha())
    if kana := counts.pop("Hiragana", 0) + counts.pop("Katakana", 0):
        counts["Japanese"] = kana + counts.pop("CJK", 0)
    return counts.most_common(1)[0][0] if counts else ""


def script_of(letter: str) -> str:
    """Name the script of a letter, by its name in Unicode.

    >>> script_of("ж"), script_of("急")
    ('Cyrillic', 'CJK')
    """
    name = unicodedata.name(letter, "unknown").split()[0].split("-")[0]
    return name if name == "CJK" else name.capitalize()


def without_accents(text: str) -> str:
    """Remove the marks of letters that mean about the same without them: é, ü, й, Hebrew and Arabic vowel points.

    The marks of other scripts stay: without them, Japanese ガ would be カ, and Thai and Hindi words would be others.

    >>> without_accents("Ménière, đái tháo đường"), without_accents("ガギ हिन्दी")
    ('Meniere, đai thao đuong', 'ガギ हिन्दी')
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", text)))


def characters(text: str) -> list[str]:
    """Split `text` into its letters, each with its combining marks."""
    letters: list[str] = _CHARACTERS.findall(text)
    return letters


def _search_words(lower: str) -> Iterator[str]:
    for word in _LOWER_WORDS.findall(lower):
        if word.isascii() or (unicodedata.is_normalized("NFKC", word) and not _ANALYSED.search(word)):
            pieces = [(word, False)]
        else:
            segments = _WORDS.findall(_folded(word))
            pieces = [piece for segment in segments for piece in _pieces(segment, _UNSEPARATED_RUN)]
        yield from (piece for piece, unseparated in pieces if unseparated or len(piece) > 1)


def _without_optional_marks(text: str) -> str:
    """`text` without marks that writers often leave out, and Greek ones are missing in capitals."""
    if not _HAS_OPTIONAL_MARKS.search(text):
        return text
    decomposed = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", _OPTIONAL_MARKS.sub("", decomposed)).translate(_VARIANTS)


def _ascii_words(text: str) -> list[str]:
    found: list[str] = _WORDS.findall(text.lower())
    return found


def _lower(text: str) -> str:
    return text.lower() if text.isascii() else _turkish(text).lower()


def _turkish(text: str) -> str:
    """`text` with the letter that a Turkish capital stands for: İ is i, and I is ı.

    Only a text all in capitals with a letter of Turkish tells what its I means.
    """
    if text.isupper() and not _TURKISH.isdisjoint(text):
        text = text.replace("I", "ı")
    return text.replace("İ", "i")


def _folded(text: str) -> str:
    """`text` in one width, case, Unicode form and set of digits, without invisible characters."""
    if text.isascii():
        return text.lower()
    visible: str = _INVISIBLE.sub("", _EXPONENT.sub(r"^\g<0>", _turkish(text)))
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())
    if any(vowel in text for vowel in _THAI_VOWELS):
        text = _THAI_TONE.sub(lambda tone: tone[0][1] + tone[0][0], text)
    text = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0], digit[0])), text)
    text = _without_optional_marks(text)
    for dash, plain in _DASHES.items():  # `translate` takes a hundred times as long
        text = text.replace(dash, plain)
    return text


def _folded_apart(text: str) -> str:
    return _apart(_folded(text))


def _apart(folded: str) -> str:
    """A text with spaces around its parts in a script without spaces: in C#の, the # ends a word."""
    return folded if folded.isascii() else _SPACELESS_RUN.sub(r" \1 ", folded)


def _spaced_tokens(folded: str) -> str:
    """The tokens of a text that has no script without spaces, with a space between them."""
    return " ".join(_TOKENS.findall(folded))


def _joined(folded: str) -> str:
    """The tokens of a text, with a space between them except inside scripts that have none."""
    form: list[str] = []
    after_run = False
    for token in _TOKENS.findall(_apart(folded)):
        for segment, is_run in _parts(token, _SPACELESS_RUN):
            form.append(segment if is_run and after_run or not form else f" {segment}")
            after_run = is_run
    return "".join(form)


def _pieces(word: str, run: regex.Pattern[str] = _SPACELESS_RUN) -> Iterator[tuple[str, bool]]:
    """`word`, or the pairs of characters of its parts without spaces; whether a piece comes from such a part."""
    for segment, is_run in _parts(word, run):
        letters = _CHARACTERS.findall(segment) if is_run else []
        if len(letters) > 1:
            yield from ((first + second, True) for first, second in itertools.pairwise(letters))
        else:
            yield segment, is_run


def _parts(word: str, run: regex.Pattern[str]) -> Iterator[tuple[str, bool]]:
    """The longest parts of `word` that `run` matches, and the parts between; whether a part is matched."""
    if word.isascii():
        yield word, False
        return
    for position, segment in enumerate(run.split(word)):
        if segment:
            yield segment, position % 2 == 1
