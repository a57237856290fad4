"""Wins and losses to read: one HTML file that needs no server, no network and no library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from embedlab.evaluation.human_review.cases import Case

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title></title>
<style>
  body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 0 1rem; color: #222 }
  header { position: sticky; top: 0; background: #fff; padding: .5rem 0; border-bottom: 1px solid #ccc }
  article { border-bottom: 1px solid #ddd; padding: .8rem 0 }
  h1 { font-size: 1.2rem } h2 { font-size: 1rem; margin: 0 0 .3rem }
  select, input { font: inherit; margin-right: .6rem; max-width: 16rem }
  .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem }
  ol { margin: .2rem 0; padding-left: 1.4rem }
  .win { color: #0072B2 } .loss { color: #D55E00 } .tie, small { color: #666 } .hit { background: #d9f2e6 }
</style>
<header>
  <h1 dir="auto"></h1>
  <select id="outcome">
    <option value="">every outcome</option><option>win</option><option>tie</option><option>loss</option>
  </select>
  <select id="slice"><option value="">every slice</option></select>
  <input id="words" type="search" dir="auto" placeholder="words in the texts">
  <span id="count"></span>
</header>
<main></main>
<script type="application/json" id="data">DATA</script>
<script>
  const get = id => document.getElementById(id);
  const data = JSON.parse(get("data").textContent);
  const slices = row => Object.entries(row.fields).map(field => field.join(": "));

  function make(tag, text, kind, ...children) {
    const element = document.createElement(tag);
    element.textContent = text;
    element.dir = "auto";  // texts may be written from right to left
    if (kind) element.className = kind;
    element.append(...children);
    return element;
  }
  function found(doc) {
    const grade = doc.grade === null ? "" : ", grade " + doc.grade;
    return make("li", (doc.text || "(no text)") + " ", doc.grade > 0 ? "hit" : "", make("small", doc.document + grade));
  }
  function side(name, value, docs) {
    return make("div", "", "", make("strong", name + " " + value.toFixed(3)), make("ol", "", "", ...docs.map(found)));
  }
  function card(row) {
    const change = make("span", row.outcome + " " + (row.of_a - row.of_b).toFixed(3), row.outcome);
    const answers = row.answers.map(doc => doc.text || doc.document).join(" | ");
    return make("article", "", "",
      make("h2", (row.text || "(no text)") + " ", "", make("small", row.query + " "), change),
      make("small", "answers: " + answers + " · " + slices(row).join(", ")),
      make("div", "", "pair", side(data.names[0], row.of_a, row.found_a), side(data.names[1], row.of_b, row.found_b)));
  }
  function show() {
    const outcome = get("outcome").value, slice = get("slice").value, words = get("words").value.toLowerCase();
    const chosen = data.cases.filter(row => (!outcome || row.outcome === outcome)
      && (!slice || slices(row).includes(slice)) && (!words || JSON.stringify(row).toLowerCase().includes(words)));
    get("count").textContent = chosen.length + " of " + data.cases.length;
    document.querySelector("main").replaceChildren(...chosen.map(card));
  }
  document.title = document.querySelector("h1").textContent = data.title;
  get("slice").append(...[...new Set(data.cases.flatMap(slices))].sort().map(name => make("option", name)));
  for (const id of ["outcome", "slice", "words"]) get(id).addEventListener("input", show);
  show();
</script>
</html>
"""


def write_browser(cases: Sequence[Case], path: Path, *, names: tuple[str, str], title: str = "") -> Path:
    """Write the cases side by side into one HTML file with filters by outcome, slice and words; returns its path.

    Texts go in as data and come out as text, never as markup, so that a corpus of web pages cannot run anything.

    Args:
        cases: from `side_by_side`.
        path: the file.
        names: of the first and the second system.
        title: heading; made of the names when empty.
    """
    data = {"title": title or " against ".join(names), "names": names, "cases": [asdict(case) for case in cases]}
    # Escaped, "<" can neither close the script element nor open a comment in it.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PAGE.replace("DATA", text), encoding="utf-8")
    return path
