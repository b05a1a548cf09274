"""Pads and cut documents in rows as `xlmr build_rows` packs them, against two ways without best fit.

    python -m benchmarks.packing --text=DIR --tokenizer=FILE.model [--seq_len=128,512,2048]

Every document of the text counts. "apart" splits a document that is longer than a row over several rows of its own. Loaders
that truncate make one row per document, and truncated_loses is the share of the pieces that they never show. "in_order" sets
one document behind another and cuts it where a row ends. Pads are given as a share of all tokens of the rows; min and max
are of single languages. cut counts the documents that are cut, cut_needlessly those of them that would have fitted into a
row, and cuts all cuts. The last line is JSON.
"""

import json
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from xlmr_jax.corpus.packing import check_seq_len, lay_out, pack
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.data.tokenizer import Tokenizer, open_tokenizer
from xlmr_jax.errors import UserError, run_command
from xlmr_jax.ids import FIRST_PIECE, PAD

_DATA = Path(__file__).parents[2] / "shared" / "data"


def document_lengths(folder: str, tokenizer: Tokenizer) -> dict[str, np.ndarray]:
  """The pieces of each document, int64[D], by language; paragraphs are encoded one by one, as `xlmr build_rows` does."""
  source, lengths = CC100(folder), {}
  for shard in source.shards(32 << 20):
    for document in source.documents(shard):
      pieces = sum(map(len, tokenizer.encode_lines(document.text.split("\n"))))
      lengths.setdefault(document.language, []).append(pieces)
  return {language: np.array(pieces, np.int64) for language, pieces in lengths.items()}


def in_order(lengths: np.ndarray, seq_len: int) -> tuple[int, np.ndarray]:
  """(rows, pieces of each document) where each document begins behind the one before it and is cut where a row ends.

  It moves on to the next row if it would leave a piece of fewer than min(16, seq_len // 8) tokens.
  """
  smallest = min(16, seq_len // 8)
  rows, free, pieces = 0, 0, np.zeros(lengths.size, np.int64)
  for document, left in enumerate(lengths.tolist()):
    while left:
      size = left if left <= free - 2 else min(free - 2, left - smallest)
      if size < min(smallest, left):
        rows, free = rows + 1, seq_len
        continue
      pieces[document] += 1
      free -= size + 2
      left -= size
  return rows, pieces


def count(lengths: np.ndarray, seq_len: int) -> dict[str, float]:
  """Rows, pads and cuts of each way, the pieces, those that truncating loses, and the seconds of packing."""
  lengths = lengths[lengths > 0]
  tokens = np.full(lengths.sum(), FIRST_PIECE, np.int32)
  began = time.perf_counter()
  rows = pack(tokens, lengths, seq_len)
  seconds = time.perf_counter() - began
  room = seq_len - 2  # <s> and </s>
  apart = int((-(-lengths // room)).sum())
  counted = {
    "pieces": int(lengths.sum()),
    "documents": lengths.size,
    "rows": len(rows),
    "pads": int(np.count_nonzero(rows == PAD)),
    "rows_apart": apart,
    "pads_apart": apart * room - int(lengths.sum()),
    "lost": int(np.maximum(lengths - room, 0).sum()),
    "seconds": seconds,
  }
  counted["rows_in_order"], parts_in_order = in_order(lengths, seq_len)
  counted["pads_in_order"] = counted["rows_in_order"] * seq_len - int(lengths.sum() + 2 * parts_in_order.sum())
  parts = np.bincount(lay_out(lengths, seq_len)[1], minlength=lengths.size)
  for name, x in (("", parts), ("_in_order", parts_in_order)):
    counted[f"cut{name}"] = int((x > 1).sum())
    counted[f"cut_needlessly{name}"] = int(((x > 1) & (lengths <= room)).sum())
    counted[f"cuts{name}"] = int((x - 1).sum())
  return counted


def summary(counts: dict[str, dict[str, float]], seq_len: int) -> dict[str, object]:
  """Shares over all languages, and the least and the greatest of a single language, with its name."""
  total = {key: sum(language[key] for language in counts.values()) for key in next(iter(counts.values()))}
  shares = {
    "pad_share": lambda counted: counted["pads"] / (counted["rows"] * seq_len),
    "pad_share_in_order": lambda counted: counted["pads_in_order"] / (counted["rows_in_order"] * seq_len),
    "pad_share_apart": lambda counted: counted["pads_apart"] / (counted["rows_apart"] * seq_len),
    "rows_saved": lambda counted: 1 - counted["rows"] / counted["rows_apart"],
    "truncated_loses": lambda counted: counted["lost"] / counted["pieces"],
  }
  result = {key: total[key] for key in ("rows", "rows_in_order", "rows_apart")}
  result |= {key: total[key] for key in total if key.startswith("cut")}
  result["tokens_per_s"] = round(total["pieces"] / total["seconds"])
  for name, share in shares.items():
    each = {language: share(counted) for language, counted in counts.items()}
    ends = {which: choose(each, key=each.get) for which, choose in (("min", min), ("max", max))}
    result[name] = {"total": round(share(total), 4)} | {
      which: [language, round(each[language], 4)] for which, language in ends.items()
    }
  return result


def main(argv: list[str]) -> None:
  given = flags.FLAGS
  if len(argv) > 1:
    raise UserError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
  for path in (given.text, given.tokenizer):
    if not Path(path).exists():
      raise UserError(f"{path}: not there; pass --text=DIR and --tokenizer=FILE.model")
  try:
    seq_lens = [int(seq_len) for seq_len in given.seq_len]
  except ValueError:
    raise UserError(f"--seq_len={','.join(given.seq_len)}: must be whole numbers") from None
  for seq_len in seq_lens:
    check_seq_len(seq_len)
  lengths = document_lengths(given.text, open_tokenizer(given.tokenizer))
  result = {}
  for seq_len in seq_lens:
    result[str(seq_len)] = found = summary({name: count(x, seq_len) for name, x in lengths.items()}, seq_len)
    print(
      f"rows of {seq_len}: {found['rows']:,}, {found['pad_share']['total']:.1%} pads; one document per row: "
      f"{found['rows_apart']:,}, {found['pad_share_apart']['total']:.1%} pads; {found['rows_saved']['total']:.1%} saved",
      flush=True,
    )
    print(
      f"  documents cut: {found['cut']:,} in {found['cuts']:,} places, of which {found['cut_needlessly']:,} would fit; "
      f"packed in order: {found['cut_in_order']:,} in {found['cuts_in_order']:,}, of which "
      f"{found['cut_needlessly_in_order']:,} would fit, and {found['pad_share_in_order']['total']:.1%} pads; "
      f"packing takes {found['tokens_per_s'] / 1e6:.0f} million tokens/s",
      flush=True,
    )
  print(
    json.dumps(
      {
        "languages": len(lengths),
        "documents": int(sum(x.size for x in lengths.values())),
        "pieces": int(sum(x.sum() for x in lengths.values())),
        "seq_len": result,
      }
    )
  )


if __name__ == "__main__":
  flags.DEFINE_string("text", str(_DATA / "tiny100"), "folder in CC-100 layout")
  flags.DEFINE_string("tokenizer", str(_DATA / "tokenizer" / "xlmr.spm.model"), "SentencePiece model")
  flags.DEFINE_list("seq_len", ["128", "512", "2048"], "tokens per row, by comma")
  app.run(run_command(main))
