"""What do the stop words and the stemmer of the documents' own language bring to BM25?

    python -m experiments.languages.bm25_stemmers

The name of a disease asks for the name of its category in the same language (`icd10multi:de-de`), all queries of all
splits. Nothing is trained or chosen.
"""

from __future__ import annotations

from embedlab.data.languages import detect_language
from embedlab.data.load import load_dataset
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import bootstrap_ci, paired_difference
from embedlab.search.bm25 import bm25_ranking

LANGUAGES = ("en", "de", "es", "fr", "pt", "el", "vi")
METRIC = "ndcg@10"


def main() -> None:
    """Print a table in Markdown."""
    print("| language | detected | queries | documents | English stemmer | own stemmer | difference |")
    print("|---|---|---|---|---|---|---|")
    for language in LANGUAGES:
        data = load_dataset(f"icd10multi:{language}-{language}", training=False)
        qrels = {query: grades for judged in data.qrels.values() for query, grades in judged.items()}
        queries = {query: data.queries[query] for query in qrels}
        english, own = (
            evaluate(bm25_ranking(data.corpus, queries, 10, language=choice), qrels, [10]).of(METRIC)
            for choice in ("en", None)
        )
        gain = paired_difference(own, english)
        means = [f"{bootstrap_ci(values).mean:.3f}" for values in (english, own)]
        cells = [
            language,
            detect_language(data.corpus.values()) or "none",
            f"{len(queries):,}",
            f"{len(data.corpus):,}",
        ]
        cells += [*means, f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
