"""The page as a whole: its overview, its sections in their order, and the options of the build."""

import html
import re
from collections import Counter

from xlmr_jax.report.corpus_page.clusters import clusters_section
from xlmr_jax.report.corpus_page.confusion import confusion_section
from xlmr_jax.report.corpus_page.limits import limits_table
from xlmr_jax.report.corpus_page.numbers import Corpus, Sampling
from xlmr_jax.report.corpus_page.pictures import draw_pictures
from xlmr_jax.report.corpus_page.samples import samples_section
from xlmr_jax.report.corpus_page.source import damage_section, repair_section
from xlmr_jax.report.corpus_page.steps import STEPS
from xlmr_jax.report.corpus_page.tables import languages_table, removed_tables, sampling_table
from xlmr_jax.report.page import frame
from xlmr_jax.report.page.frame import Section, tiles
from xlmr_jax.report.page.markup import Column, html_table
from xlmr_jax.report.page.words import byte_size, counted


def whole_page(corpus: Corpus, sampling: Sampling) -> str:
  """The whole page."""
  pictures = "".join(
    f"<figure><figcaption><b>{html.escape(title)}.</b> {html.escape(caption)}</figcaption>{image}</figure>\n"
    for title, caption, image in draw_pictures(corpus, sampling)
  )
  languages = languages_table(corpus, sampling) if corpus.languages else ""
  sections = [
    Section("pictures", "Pictures", pictures),
    Section("languages", "Languages", languages),
    Section("sampling", "Shares and epochs in training", sampling_table(sampling) if sampling.rows else ""),
    Section("removed", "What was removed", removed_tables(corpus) if corpus.steps else ""),
    Section("samples", "Samples of what was removed", samples_section(corpus)),
    Section("repairs", "Repairs", repair_section(corpus)),
    Section("confusion", "Confusion of languages", confusion_section(corpus)),
    Section("clusters", "Sizes of near-duplicate clusters", clusters_section(corpus)),
    Section("limits", "Limits that were learnt from each language", limits_table(corpus) if corpus.languages else ""),
    Section("damage", "Damage in the source", damage_section(corpus)),
    Section("build", "How this corpus was built", _build_section(corpus)),
  ]
  return frame.whole_page("Corpus report", _overview(corpus), sections)


def _overview(corpus: Corpus) -> str:
  """The numbers that one wants first."""
  source, lost = corpus.source, sum(corpus.removed(step, "bytes") for step in STEPS)
  facts = [
    counted(len(corpus.languages), "language"),
    f"{byte_size(corpus.bytes)} of clean text, from {byte_size(source['bytes'])} that the build read",
    f"{counted(corpus.documents, 'clean document')}, from {source['documents']:,} that the build read",
    f"{byte_size(lost)} removed",
    f"{counted(source.get('repaired_documents', 0), 'document')} repaired",
    f"{counted(source.get('damaged', 0), 'place')} in the source that could not be read",
  ]
  # The number, with its unit of bytes, is written large.
  found = [re.fullmatch(r"(\S+(?: .?B| bytes?)?) (.*)", fact) for fact in facts]
  text = tiles([(fact[1], fact[2]) for fact in found if fact])
  if not corpus.languages:
    text += (
      '<p class="warning">No language is left: this corpus is empty. Either the source holds no text in the languages that '
      "were "
      "asked for, or the steps removed all of it; what they removed is shown below.</p>\n"
    )
  personal: Counter[str] = Counter()
  for found in corpus.languages.values():
    personal.update(found.get("personal_data", {}))
  if personal.total():
    listed = ", ".join(
      f"{html.escape(kind.replace('_', ' '))} {number:,}" for kind, number in sorted(personal.items()) if number
    )
    text += f"<p>Personal data was masked ({listed}).</p>\n"
  return text


def _build_section(corpus: Corpus) -> str:
  """The options of the build, by which it can be repeated."""
  build = corpus.manifest["build"]
  words = {True: "yes", False: "no", "": "none"}
  rows = [[key.replace("_", " "), str(words.get(value, value) if isinstance(value, (bool, str)) else value)]
          for key, value in sorted(corpus.options.items())]  # fmt: skip
  rows += [[f"sha256 of the file for {key}", value] for key, value in sorted(build.get("files", {}).items())]
  shards = build.get("shards", {})
  if shards:
    rows.append(["source", f"{counted(shards['number'], 'shard')} of {counted(shards['bytes'], 'byte')} in all"])
  rows.append(["version of the steps", str(build.get("version", ""))])
  return "<p>The same source and the same options give the same bytes of clean text, and of this page.</p>\n" + html_table(
    [Column("option"), Column("value")], rows
  )
