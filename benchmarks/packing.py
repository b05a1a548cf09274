"""Pads in rows as `xlmr build_rows` packs them, against rows of one document each, as loaders that do not pack make them.

    python -m benchmarks.packing --text=DIR --tokenizer=FILE.model [--seq_len=128,512,2048]

Every document of the text counts. "apart" splits a document that is longer than a row over several rows of its own. Loaders
that truncate make one row per document, and truncated_loses is the share of the pieces that they never show. Pads are given
as a share of all tokens of the rows; min and max are those of single languages. The last line is JSON.
"""

import json
from pathlib import Path

import numpy as np
from absl import app, flags

from xlmr_jax.corpus.packing import check_seq_len, pack
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


def count(lengths: np.ndarray, seq_len: int) -> dict[str, int]:
  """Rows and pads both ways, the pieces, and those that truncating loses."""
  lengths = lengths[lengths > 0]
  rows = pack(np.full(lengths.sum(), FIRST_PIECE, np.int32), lengths, seq_len)
  room = seq_len - 2  # <s> and </s>
  apart = int((-(-lengths // room)).sum())
  return {
    "pieces": int(lengths.sum()),
    "documents": lengths.size,
    "rows": len(rows),
    "pads": int(np.count_nonzero(rows == PAD)),
    "rows_apart": apart,
    "pads_apart": apart * room - int(lengths.sum()),
    "lost": int(np.maximum(lengths - room, 0).sum()),
  }


def summary(counts: dict[str, dict[str, int]], seq_len: int) -> dict[str, object]:
  """Shares over all languages, and the least and the greatest of a single language, with its name."""
  total = {key: sum(language[key] for language in counts.values()) for key in next(iter(counts.values()))}
  shares = {
    "pad_share": lambda counted: counted["pads"] / (counted["rows"] * seq_len),
    "pad_share_apart": lambda counted: counted["pads_apart"] / (counted["rows_apart"] * seq_len),
    "rows_saved": lambda counted: 1 - counted["rows"] / counted["rows_apart"],
    "truncated_loses": lambda counted: counted["lost"] / counted["pieces"],
  }
  result = {"rows": total["rows"], "rows_apart": total["rows_apart"]}
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
