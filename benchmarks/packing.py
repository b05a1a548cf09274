"""Pads in rows as corpus.build packs them, against rows of one document each, as loaders that do not pack make them.

    python -m benchmarks.packing --text=DIR --tokenizer=FILE.model [--seq_len=128,512,2048]

Every document of the text counts. "apart" splits one that is longer than a row over several rows of its own; loaders
that truncate make one row a document, and truncated_loses is the share of the pieces that they never show. Pads are a
share of all tokens of the rows; min and max are those of single languages. The last line is JSON.
"""

import json
from pathlib import Path

import numpy as np
from absl import app, flags

from xlmr_jax.corpus.packing import check_seq_len, pack
from xlmr_jax.corpus.sources import cc100 as sources
from xlmr_jax.data.tokenizer import FIRST_PIECE, PAD, Tokenizer
from xlmr_jax.errors import UserError, run_command

_DATA = Path(__file__).parents[2] / "shared" / "data"


def lengths_of(paths: list[Path], tokenizer: Tokenizer) -> np.ndarray:
  """Pieces of each document of a language, int64[D]; paragraphs are encoded one by one, as corpus.build does."""
  lengths = []
  for path in paths:
    for block in sources.read_blocks(path):
      for document in sources.documents(block):
        lengths.append(sum(map(len, tokenizer.encode_lines(document.decode("utf-8").split("\n")))))
  return np.array(lengths, np.int64)


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
  """Shares over all languages, and the least and most of a single one with its name."""
  total = {key: sum(of[key] for of in counts.values()) for key in next(iter(counts.values()))}
  shares = {
    "pad_share": lambda of: of["pads"] / (of["rows"] * seq_len),
    "pad_share_apart": lambda of: of["pads_apart"] / (of["rows_apart"] * seq_len),
    "rows_saved": lambda of: 1 - of["rows"] / of["rows_apart"],
    "truncated_loses": lambda of: of["lost"] / of["pieces"],
  }
  result = {"rows": total["rows"], "rows_apart": total["rows_apart"]}
  for name, share in shares.items():
    each = {language: share(of) for language, of in counts.items()}
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
  tokenizer = Tokenizer(given.tokenizer)
  lengths = {name: lengths_of(paths, tokenizer) for name, paths in sources.find_sources(given.text).items()}
  result = {}
  for seq_len in seq_lens:
    result[str(seq_len)] = of = summary({name: count(x, seq_len) for name, x in lengths.items()}, seq_len)
    print(
      f"rows of {seq_len}: {of['rows']:,}, {of['pad_share']['total']:.1%} pads; a document a row: "
      f"{of['rows_apart']:,}, {of['pad_share_apart']['total']:.1%} pads; {of['rows_saved']['total']:.1%} saved",
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
  flags.DEFINE_list("seq_len", ["128", "512", "2048"], "tokens a row, by comma")
  app.run(run_command(main))
