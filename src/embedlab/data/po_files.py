"""Read translations in gettext's PO format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from embedlab.data import textio
from embedlab.errors import DataError

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog


class Message(NamedTuple):
    """A text and its translation.

    Attributes:
        context: `msgctxt`, empty if there is none.
        source: the text.
        translation: empty if the text is not translated, or only with a guess (`fuzzy`).
        line: of the file.
    """

    context: str
    source: str
    translation: str
    line: int | None


def language(path: Path) -> str:
    """Return the language of the translations that the header of a PO file names, such as `de` or `pt_BR`.

    Raises:
        DataError: the file is missing or malformed, or it names no language.
    """
    if locale := _catalogue(path).locale_identifier:
        return str(locale)
    remedy = r'Add it to the header: "Language: de\n".'
    raise DataError("the header does not say which language the translations have", remedy=remedy, file=path)


def messages(path: Path) -> Iterator[Message]:
    """Yield the messages of a PO file; of plural forms the first.

    Raises:
        DataError: the file is missing or malformed.
    """
    for message in _catalogue(path):
        source, translation = (
            text[0] if isinstance(text, tuple | list) else text for text in (message.id, message.string)
        )
        if source:  # the header has none
            context = message.context or ""
            yield Message(context, source.strip(), "" if message.fuzzy else translation.strip(), message.lineno)


def _catalogue(path: Path) -> Catalog:
    from babel.messages.pofile import PoFileError, read_po

    file = textio.find_file(path)
    try:
        with file.open("rb") as stream:
            return read_po(stream, abort_invalid=True)
    except (PoFileError, UnicodeDecodeError, LookupError, ValueError) as error:
        remedy = "Save it as UTF-8, and check it with msgfmt --check."
        raise DataError(f"this is not a PO file: {error}", remedy=remedy, file=path) from error
