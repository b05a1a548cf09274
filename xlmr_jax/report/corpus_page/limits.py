"""The limits of the filters that a build learnt from each language."""

import html
from collections import Counter
from collections.abc import Mapping
from typing import Any

from xlmr_jax.corpus import filters
from xlmr_jax.report.corpus_page.numbers import Corpus
from xlmr_jax.report.page.markup import LANGUAGE_COLUMNS, Column, html_table
from xlmr_jax.report.page.words import counted, language_name, percent


def limits_table(corpus: Corpus) -> str:
  """What is usual in each language, and the limit that follows."""
  learnt: Counter[str] = Counter()
  rows = []
  for code, found in corpus.languages.items():
    limits = found.get("limits") or {}
    sample, features = limits.get("sample", {}), limits.get("features", {})
    cells: list[Any] = [language_name(code), code, limits.get("learnt_from", "crawl")]
    cells += [sample.get("documents"), sample.get("words")]
    for name, floor in filters.FLOORS.items():
      limit = features.get(name)
      cells.append(limit)
      learnt[name] += limit is not None and limit > floor
    for name in ("spelling", "order"):
      usual = limits.get("scores", {}).get(name)
      cells.append(_median_and_spread(usual["median"], usual["spread"]) if usual else None)
      cells.append(_median_and_spread(usual["spoilt"], usual["spoilt_spread"]) if usual else None)
      cells.append(_safe_from(name, usual) if usual else None)
    usual = limits.get("scores", {}).get("prior")
    reach = filters.PRIOR_SPREADS * max(usual["spread"], filters.LEAST_PRIOR_SPREAD) if usual else 0.0
    cells.append(_median_and_spread(usual["median"], usual["spread"]) if usual else None)
    cells += [usual["median"] - reach, usual["median"] + reach] if usual else [None, None]
    rows.append(cells)
  plain = {"signs": "punctuation and symbols", "digits": "digits", "repeated_phrases": "words in repeated phrases",
           "most_frequent_word": "the most frequent word"}  # fmt: skip
  score = "{:.2f}".format
  columns = [*LANGUAGE_COLUMNS, Column("learnt from"), Column("documents looked at"), Column("words looked at"),
             *(Column(f"{plain.get(name, name)}, at most", percent) for name in filters.FLOORS)]  # fmt: skip
  for title, spoilt in (("spelling", "noise"), ("order", "random order")):
    columns += [Column(f"{title}: usual"), Column(f"{title}: with {spoilt}"), Column(f"{title}: safe from", score)]
  columns += [Column("prior: usual"), Column("prior: safe from", score), Column("prior: safe up to", score)]
  floors = ", ".join(
    f"{percent(floor)} for {plain.get(name, name)} ({counted(learnt[name], 'language')} learnt a higher limit)"
    for name, floor in filters.FLOORS.items()
  )
  return f"""<p>The filters have no table of numbers by language. They look at a sample of each language and refuse what
lies far outside what is usual there.</p>
<ul>
<li>A document needs at least {filters.LEAST_LETTERS} letters; a letter of a script without spaces counts as three.</li>
<li>Four shares have an upper limit. It is the median of the language plus {filters.SPREADS:g} times the usual spread, but
never below a floor that ordinary text stays under. The floors are {html.escape(floors)}.</li>
<li><em>Spelling</em> is how little the letters surprise after the two before them: minus the root of how much less likely
than one in a hundred they are (a mean of logarithms). <em>Order</em> is how much better neighbouring words fit together
than words far apart. Both know the language and the rest of the document. Both are measured on text of the sample that is
not spoilt (“usual”), and on the same text spoilt on purpose, with wrong letters (“noise”) or with its words in random order.
A document is refused if its score is far likelier for spoilt text than for text. A document whose score is at least that of
“safe from” is never refused by it. Whether one below is depends on its length too, because chance has more room in a short
document. Where “usual” and spoilt text are close together, the score tells too little and refuses nothing.</li>
<li><em>Prior</em> is how common the words of a document are (the mean logarithm of the probability of their classes). Within
{filters.PRIOR_SPREADS:g} spreads of the median on either side, no document is refused by it.</li>
<li>A dash means that the sample was too small to say what is usual; then this score refuses nothing.</li>
</ul>
<p>“a ± b” stands for a median of a, and a spread of b between documents.</p>
{html_table(columns, rows)}"""


def _median_and_spread(median: float, spread: float) -> str:
  return f"{median:.2f}\u00a0±\u00a0{spread:.2f}"  # Its parts stay on one line.


def _safe_from(name: str, usual: Mapping[str, float]) -> float:
  """The score from which on the filters refuse no document because of it, whatever its length."""
  return min((usual["median"] + usual["spoilt"]) / 2, usual["median"] - filters.LEAST_SPREADS[name] * usual["spread"])
