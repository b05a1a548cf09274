"""Samples of what each step removed, and how a sample is shown."""

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from xlmr_jax.corpus.languages import LANGUAGES
from xlmr_jax.report.corpus_page.numbers import Corpus
from xlmr_jax.report.corpus_page.steps import REASONS, STEPS
from xlmr_jax.report.page.markup import folded, visible
from xlmr_jax.report.page.words import byte_size, counted, name_with_code

SHOWN_SAMPLES = 8  # of each step and language; the files below removed/ hold more


def samples_section(corpus: Corpus) -> str:
  """Samples of what each step removed, folded by step and language."""
  parts = []
  for name, step in STEPS.items():
    groups = []
    for code in corpus.by_bytes_removed(name):
      samples, bad = corpus.samples(name, code)
      counts = corpus.steps[code][name]
      reasons = counts["reasons"]
      listed = "; ".join(f"{_meaning(reason)}: {number:,}" for reason, number in reasons.items())
      if len(reasons) == 1:
        listed = _meaning(next(iter(reasons)))
      amounts = [counted(counts["documents"], "document")] if counts["documents"] else []
      amounts += [counted(counts["paragraphs"], "paragraph")] if counts["paragraphs"] else []
      text = f"{' and '.join(amounts)}, {counted(counts['bytes'], 'byte')} ({listed})"
      shown = "".join(
        _sample(code, sample, _meaning(sample["reason"]) if len(reasons) > 1 else "")
        for sample in _to_read(samples)[:SHOWN_SAMPLES]
      )
      summary = f"<b>{html.escape(name_with_code(code))}</b>: {html.escape(text)}"
      groups.append(folded(summary, more_samples(samples, bad, name, code) + shown))
    if groups:
      amount = f"{byte_size(corpus.removed(name, 'bytes'))} in {counted(len(groups), 'language')}"
      inside = f"<p>This step removes {html.escape(step.what)}.</p>\n{''.join(groups)}"
      parts.append(folded(f"<b>{html.escape(step.title)}</b>: {amount}", inside, "step"))
  if not parts:
    return "<p>Nothing was removed.</p>\n"
  return (
    "<p>Open a step and a language to read what was removed, and judge whether it should have been. The samples are chosen "
    "by a hash of their text, so nobody picked them; where a step has several reasons, each is shown. On paper only those "
    f"appear that are open.</p>\n{''.join(parts)}"
  )


def _to_read(samples: Sequence[dict[str, str]]) -> list[dict[str, str]]:
  """The samples in another order: the first of each reason, then the second of each; repeated texts come last."""
  seen_reasons: Counter[str] = Counter()
  seen_texts: Counter[str] = Counter()
  ranks = []
  for sample in samples:
    ranks.append((seen_texts[sample["text"]], seen_reasons[sample["reason"]]))
    seen_texts[sample["text"]] += 1
    seen_reasons[sample["reason"]] += not ranks[-1][0]
  return [sample for _, sample in sorted(zip(ranks, samples), key=lambda pair: pair[0])]


def _sample(code: str, sample: Mapping[str, str], reason: str) -> str:
  """A sample with where it comes from. reason: why it was removed, "" if the reader has just been told."""
  shown = f'<span class="reason">{html.escape(reason)}</span> ' if reason else ""
  return (
    f'<div class="sample"><div class="place">{shown}{visible(sample["id"])}</div>{sample_text(code, sample["text"])}</div>\n'
  )


def _meaning(reason: str) -> str:
  return REASONS.get(reason, reason.replace("_", " "))


def sample_text(code: str, text: str) -> str:
  """Text of a sample, in its own direction and, where the language is known, in its own letter shapes."""
  tag = code.replace("_rom", "-Latn").replace("_zaw", "").replace("_", "-")
  language = f' lang="{tag}"' if code in LANGUAGES else ""
  return f'<div class="text" dir="auto"{language}>{visible(text)}</div>'


def more_samples(samples: Sequence[Any], bad: int, step: str, code: str) -> str:
  """Where the other samples of a step and language are."""
  path = f"<code>removed/{html.escape(step)}/{html.escape(code)}.jsonl</code>"
  text = "There are no samples of this." if not samples else ""
  if len(samples) > SHOWN_SAMPLES:
    text = f"{SHOWN_SAMPLES} of {len(samples)} samples; the others are in {path}."
  if bad:
    text += f" {counted(bad, 'line')} of {path} could not be read."
  return f"<p>{text}</p>\n" if text else ""
