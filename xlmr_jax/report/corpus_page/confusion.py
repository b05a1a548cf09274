"""How the languages that a build identified differ from the labels of its source."""

from collections.abc import Mapping

from xlmr_jax.report.corpus_page.numbers import Corpus
from xlmr_jax.report.page.markup import LANGUAGE_COLUMNS, Column, html_table
from xlmr_jax.report.page.words import language_name, name_with_code, percent

_SHOWN_CONFUSIONS = 40

_SERBO_CROATIAN = ("bs", "hr", "sr")


def confusion_section(corpus: Corpus) -> str:
  """What text with a known language was found to be. "": the source had no labels."""
  confusion: dict[str, dict[str, int]] = corpus.manifest.get("confusion") or {}
  totals = {label: sum(found.values()) for label, found in confusion.items()}
  labels = sorted((label for label in confusion if totals[label]), key=lambda c: (-totals[c], c))
  if not labels:
    return ""
  wrong = [(size, label, found) for label in labels for found, size in confusion[label].items() if found != label and size]
  wrong.sort(key=lambda entry: (-entry[0], *entry[1:]))
  right = {label: confusion[label].get(label, 0) / totals[label] for label in labels}
  as_one = {
    label: sum(confusion[label].get(code, 0) for code in (_SERBO_CROATIAN if label in _SERBO_CROATIAN else (label,)))
    / totals[label]
    for label in labels
  }
  all_bytes = sum(totals.values())
  text = (
    "<p>The source said which language its text is in. The build did not believe it, but identified the language itself; "
    f"this compares the two. {percent(sum(right[c] * totals[c] for c in labels) / all_bytes)} of the bytes kept their "
    f"label; the mean over languages is {percent(sum(right.values()) / len(labels))}."
  )
  if any(label in _SERBO_CROATIAN for label in labels):
    text += (
      " Bosnian, Croatian and Serbian are so close that they are often counted as one; then these are "
      f"{percent(sum(as_one[c] * totals[c] for c in labels) / all_bytes)} and "
      f"{percent(sum(as_one.values()) / len(labels))}."
    )
  text += "</p>\n"
  if wrong:
    title = "The largest confusions" + (
      f" ({_SHOWN_CONFUSIONS} of {len(wrong):,})" if len(wrong) > _SHOWN_CONFUSIONS else ""
    )
    text += f"<h3>{title}</h3>\n" + html_table(
      [Column("label"), Column("found to be"), Column("bytes"), Column("share of the label's bytes", percent)],
      [
        [name_with_code(label), name_with_code(found), size, size / totals[label]]
        for size, label, found in wrong[:_SHOWN_CONFUSIONS]
      ],
    )
  return f"{text}<h3>Text that kept its label</h3>\n" + html_table(
    [*LANGUAGE_COLUMNS, Column("bytes with this label"), Column("kept it", percent), Column("most often taken for")],
    [[language_name(label), label, totals[label], right[label], _taken_for(confusion[label], label)] for label in labels],
  )


def _taken_for(found: Mapping[str, int], label: str) -> str | None:
  others = {code: size for code, size in found.items() if code != label and size}
  return name_with_code(min(others, key=lambda code: (-others[code], code))) if others else None
