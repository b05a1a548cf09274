"""What was wrong with the source: damage that could not be read, and text that the build repaired."""

import html
import unicodedata
from collections.abc import Mapping

from xlmr_jax.report.corpus_page.numbers import Corpus
from xlmr_jax.report.corpus_page.samples import SHOWN_SAMPLES, more_samples, sample_text
from xlmr_jax.report.corpus_page.steps import REPAIRS
from xlmr_jax.report.page.markup import Column, folded, html_table, visible
from xlmr_jax.report.page.words import counted, name_with_code


def damage_section(corpus: Corpus) -> str:
  damaged, damages = corpus.source.get("damaged", 0), corpus.source.get("damages", [])
  if not damaged:
    return "<p>Everything in the source could be read.</p>\n"
  text = f"<p>{counted(damaged, 'place')} in the source could not be read; reading went on after each where that was safe."
  if len(damages) < damaged:
    text += f" The first {len(damages):,} are listed."
  return (
    text
    + "</p>\n"
    + html_table([Column("file and place"), Column("what is wrong")], [list(map(str, entry[:2])) for entry in damages])
  )


def repair_section(corpus: Corpus) -> str:
  """Counts of repairs, and samples before and after."""
  repaired = corpus.source.get("repaired_documents", 0)
  text = f"<p>{counted(repaired, 'document')} of {corpus.source['documents']:,} came out of the repair changed.</p>\n"
  if kinds := {kind: number for kind, number in corpus.source.get("repaired", {}).items() if number}:
    text += html_table(
      [Column("repair"), Column("what it means"), Column("characters")],
      [[kind.replace("_", " "), REPAIRS.get(kind, ""), number] for kind, number in kinds.items()],
    )
  groups = []
  for code in sorted((code for code in corpus.steps if "repair" in corpus.steps[code]), key=name_with_code):
    samples, bad = corpus.samples("repair", code)
    if samples or bad:
      shown = "".join(_before_and_after(code, sample) for sample in samples[:SHOWN_SAMPLES])
      groups.append(
        folded(f"<b>{html.escape(name_with_code(code))}</b>", more_samples(samples, bad, "repair", code) + shown)
      )
  if groups:
    text += (
      "<h3>Before and after</h3>\n<p>Each sample is the first line of a document that the repair changed. A number in a red "
      f"box is a character without a shape, in hexadecimal.</p>\n{''.join(groups)}"
    )
  return text


def _before_and_after(code: str, sample: Mapping[str, str]) -> str:
  before, _, after = sample["text"].partition("\n-> ")
  alike = unicodedata.normalize("NFC", before) == unicodedata.normalize("NFC", after)
  note = " (both look alike: only how the letters are composed of characters differs)" if alike else ""
  return (
    f'<div class="sample"><div class="place">{visible(sample["id"])}{note}</div><div class="pair">'
    f'<span class="mark">before</span>{sample_text(code, before)}'
    f'<span class="mark">after</span>{sample_text(code, after)}</div></div>\n'
  )
