"""The sizes of the clusters of near duplicates."""

from collections import Counter

from xlmr_jax.report.corpus_page.numbers import Corpus
from xlmr_jax.report.page.markup import LANGUAGE_COLUMNS, Column, html_table
from xlmr_jax.report.page.words import language_name, percent

_SHOWN_CLUSTERS = 15

_CLUSTER_BINS = (1, 2, 3, 4, 6, 11, 21, 51, 101, 1001, 10001)


def clusters_section(corpus: Corpus) -> str:
  """A histogram of the sizes of clusters, and the languages with the most near duplicates."""
  clusters, documents = Counter(), Counter()
  rows = []
  for code, found in corpus.languages.items():
    sizes = {int(size): number for size, number in found.get("clusters", {}).items()}
    for size, number in sizes.items():
      first = max(least for least in _CLUSTER_BINS if least <= size)
      clusters[first] += number
      documents[first] += size * number
    if several := {size: number for size, number in sizes.items() if size > 1}:
      alike = sum(size * number for size, number in several.items())
      all_documents = sum(size * number for size, number in sizes.items())
      rows.append([language_name(code), code, sum(several.values()), alike, alike / all_documents, max(several)])
  if not clusters:
    return ""
  ends = [least - 1 for least in _CLUSTER_BINS[1:]]
  titles = {a: f"{a:,}" if a == b else f"{a:,} to {b:,}" for a, b in zip(_CLUSTER_BINS, ends)}
  titles |= {1: "1 (no near duplicate)", _CLUSTER_BINS[-1]: f"{_CLUSTER_BINS[-1]:,} or more"}
  total = sum(documents.values())
  histogram = html_table(
    [Column("documents in a cluster"), Column("clusters"), Column("documents in these clusters"),
     Column("share of the documents", percent)],
    [[titles[least], clusters[least], documents[least], documents[least] / max(total, 1)]
     for least in _CLUSTER_BINS if clusters[least]],
  )  # fmt: skip
  rows.sort(key=lambda row: (-row[3], row[1]))
  text = (
    "<p>Documents that are almost the same form a cluster, of which the corpus keeps the first document. This table counts "
    f"the documents that the filters had left, before all but the first were removed.</p>\n{histogram}"
  )
  if not rows:
    return text
  columns = [*LANGUAGE_COLUMNS, Column("clusters of two or more"), Column("documents in them"),
             Column("share of the language's documents", percent), Column("largest cluster")]  # fmt: skip
  title = "Languages with near duplicates"
  if len(rows) > _SHOWN_CLUSTERS:
    title += f", the {_SHOWN_CLUSTERS} with the most of {len(rows)}"
  return f"{text}<h3>{title}</h3>\n{html_table(columns, rows[:_SHOWN_CLUSTERS])}"
