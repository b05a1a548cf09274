"""Tables of how much text each language has, how often training sees it, and what each step removed."""

import html

from xlmr_jax.report.corpus_page.numbers import (
  ALPHAS,
  ASSUMED_BYTES_PER_TOKEN,
  ASSUMED_ROW_TOKENS,
  BATCH_ROWS,
  TRAIN_STEPS,
  Corpus,
  Sampling,
  filter_reasons,
)
from xlmr_jax.report.corpus_page.steps import REASONS, STEPS
from xlmr_jax.report.page.markup import LANGUAGE_COLUMNS, Column, html_table
from xlmr_jax.report.page.words import language_name, name_with_code, percent, short_number


def languages_table(corpus: Corpus, sampling: Sampling) -> str:
  """Size by language."""
  rows_title = "rows, estimated" if sampling.estimated else "rows"
  columns = [*LANGUAGE_COLUMNS, Column("clean bytes"), Column("share of bytes", percent), Column("documents"),
             Column("paragraphs"), Column("bytes per document", lambda v: f"{v:,.0f}"), Column(rows_title),
             Column("bytes before"), Column("kept", percent, "clean bytes as a share of the bytes before")]  # fmt: skip
  total = max(corpus.bytes, 1)
  rows = []
  for code, found in corpus.languages.items():
    before = corpus.before(code)
    rows.append([
      language_name(code), code, found["bytes"], found["bytes"] / total, found["documents"], found["paragraphs"],
      found["bytes"] / max(found["documents"], 1), sampling.rows.get(code), before,
      found["bytes"] / before if before else None,
    ])  # fmt: skip
  text = (
    "<p>Bytes are those of the UTF-8 text. A paragraph is one line of a document. “Bytes before” is the repaired text that "
    "was found to be in this language: the clean text and everything that the steps below removed.</p>\n"
  )
  if corpus.options.get("rehydrate"):
    text += (
      "<p>This build repeats documents that had near duplicates (<code>--rehydrate</code>). So the clean bytes count these "
      "documents several times, and the bytes before cleaning are not known.</p>\n"
    )
  return text + _rows_note(corpus, sampling) + html_table(columns, rows)


def _rows_note(corpus: Corpus, sampling: Sampling) -> str:
  if sampling.estimated:
    return (
      "<p>How many rows a corpus has is known only once a tokenizer has read it. <strong>The rows here are an "
      f"estimate</strong>: it assumes {ASSUMED_BYTES_PER_TOKEN:g} bytes of text per token, for every language alike, and "
      f"rows of {ASSUMED_ROW_TOKENS} tokens. Scripts whose letters take three bytes have more bytes per token, so that they "
      "really have fewer rows than this says.</p>\n"
    )
  text = f"<p>Rows are training rows of {sampling.row_tokens:,} tokens, counted by the manifest of the rows.</p>\n"
  for codes, what in (
    ([code for code in corpus.languages if code not in sampling.rows], "has no training rows"),
    ([code for code in sampling.rows if code not in corpus.languages], "has training rows, but no text in this corpus"),
  ):
    if codes:
      listed = "; ".join(html.escape(name_with_code(code)) for code in codes)
      text += f'<p class="warning">{listed}: {what if len(codes) == 1 else what.replace("has", "have", 1)}.</p>\n'
  return text


def sampling_table(sampling: Sampling) -> str:
  """Shares and epochs by language."""
  shares = {alpha: sampling.shares(alpha) for alpha in ALPHAS}
  # Of a row store it is known how many documents and tokens its rows hold.
  counts = {"documents in rows": sampling.documents, "tokens": sampling.tokens} if not sampling.estimated else {}
  columns = [*LANGUAGE_COLUMNS, Column("rows, estimated" if sampling.estimated else "rows"), *map(Column, counts),
             *(Column(f"share at alpha\u00a0{alpha:g}", percent) for alpha in ALPHAS),
             *(Column(f"epochs at alpha\u00a0{alpha:g}", short_number) for alpha in ALPHAS)]  # fmt: skip
  rows = [
    [
      language_name(code), code, count, *(found[code] for found in counts.values() if found),
      *(shares[alpha][code] for alpha in ALPHAS),
      *(shares[alpha][code] * sampling.planned_rows / count for alpha in ALPHAS),
    ] for code, count in sampling.rows.items()
  ]  # fmt: skip
  planned = f"{sampling.train_steps:,} updates with {sampling.batch_rows:,} rows each"
  if (sampling.train_steps, sampling.batch_rows) == (TRAIN_STEPS, BATCH_ROWS):
    planned += ", as in the XLM-R paper"
  assumed = ""
  if sampling.estimated:
    assumed = (
      f" The rows are an estimate from bytes, which assumes {ASSUMED_BYTES_PER_TOKEN:g} bytes per token and "
      f"{ASSUMED_ROW_TOKENS} tokens per row; so the shares are shares of bytes, and the epochs are an estimate too."
    )
  return (
    "<p>A language with n rows is drawn with a probability proportional to n to the power alpha (Conneau et al. 2020, "
    "section 3). An epoch is one pass over all rows of a language: 20 epochs mean that training sees each of its rows 20 "
    f"times. The epochs are those of a training with {planned}.{assumed}</p>\n{html_table(columns, rows)}"
  )


def removed_tables(corpus: Corpus) -> str:
  """Counts by step, the reasons of the filters, and shares by language and step."""
  by_step = html_table(
    [Column("step"), Column("removes"), Column("bytes"), Column("whole documents"), Column("single paragraphs")],
    [[step.title, step.what, *(corpus.removed(name, key) for key in ("bytes", "documents", "paragraphs"))]
     for name, step in STEPS.items()],
  )  # fmt: skip
  reasons = filter_reasons(corpus)
  total = sum(reasons.values())
  by_reason = html_table(
    [Column("reason"), Column("what it means"), Column("documents"), Column("share of the filters' documents", percent)],
    [[reason.replace("_", " "), REASONS.get(reason, ""), n, n / max(total, 1)] for reason, n in reasons.items()],
  )
  codes = [*corpus.languages, *sorted(corpus.steps.keys() - corpus.languages.keys())]
  rows = []
  for code in codes:
    before, found = corpus.before(code), corpus.languages.get(code)
    lost = [corpus.removed(step, "bytes", code) for step in STEPS]
    if not found and not any(lost):
      continue
    shares = [size / before if before else None for size in (*lost, sum(lost))]
    kept = found["bytes"] if found else 0
    rows.append(
      [language_name(code), code, before, *shares, kept, sum(corpus.removed(step, "documents", code) for step in STEPS)]
    )
  columns = [*LANGUAGE_COLUMNS, Column("bytes before"), *(Column(f"{step.title}", percent) for step in STEPS.values()),
             Column("all steps", percent), Column("clean bytes"), Column("documents removed")]  # fmt: skip
  text = f"<h3>By step</h3>\n{by_step}"
  if reasons:
    text += f"<h3>Filters by reason</h3>\n{by_reason}"
  return text + (
    "<h3>By language</h3>\n<p>Each share is of the bytes that the language had before cleaning. A language without clean "
    f"bytes is one that the corpus does not have, or whose text was removed as a whole.</p>\n{html_table(columns, rows)}"
  )
