"""Memory of training a vocabulary against what was announced, and what alpha is worth to the language that fares worst.

    python -m benchmarks.vocabulary --text=DIR [--size=32000] [--compare=FILE.model] [--report=FOLDER]

It trains `size` pieces at alpha 0.3 and 1.0, and at 0.3 the largest vocabulary that the text supports, which SentencePiece
tells when it is asked for too many. Each training has a process of its own, so that its peak is its own. Memory is what the
training took beyond what the process had before. Characters per piece are counted on drawn paragraphs of each language. With
--report the pictures and models go to a folder. The last line is JSON.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import app, flags

from xlmr_jax.errors import UserError, run_command

_DATA = Path(__file__).parents[2] / "shared" / "data"


def train(text: str, out: Path, size: int, alpha: float, sentences: int | None, compare: str) -> dict[str, Any]:
  """The summary of one training and, under "table", its languages. Raises UserError: the training failed."""
  command = [sys.executable, "-m", "xlmr_jax", "train_vocabulary", f"--text={text}", f"--out={out}", f"--size={size}"]
  command += [f"--alpha={alpha}", f"--report={out.with_suffix('.png')}"]
  command += [f"--sentences={sentences}"] * (sentences is not None) + [f"--compare={compare}"] * bool(compare)
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
  return json.loads(out.with_suffix(".json").read_text())


def largest(text: str, folder: Path, sentences: int | None) -> int:
  """The largest size that a text supports, from what the training says when it is asked for more."""
  try:
    train(text, folder / "refused.model", 10**7, 0.3, sentences, "")
  except UserError as error:
    if found := re.search(r"at most (\d+)$", str(error)):
      return int(found[1])
    raise
  raise UserError("a vocabulary of ten million pieces was trained; name a smaller text")


def measured(found: dict[str, Any]) -> dict[str, Any]:
  """The figures of one training."""
  table = found["table"]
  worst = min(table, key=lambda row: row["characters_per_piece"])
  result = {
    **{key: found[key] for key in ("size", "sentences", "seconds", "announced_gb", "peak_gb")},
    "within": found["peak_gb"] <= found["announced_gb"],
    "worst": [worst["language"], worst["characters_per_piece"]],
    "mean_characters_per_piece": round(sum(row["characters_per_piece"] for row in table) / len(table), 3),
    "least_covered": round(min(row["character_coverage"] for row in table), 6),
  }
  if found["compared"]:
    compared = {row["language"]: row["compared"]["characters_per_piece"] for row in table}
    name = min(compared, key=lambda language: compared[language])
    result["compared"] = {
      "worst": [name, compared[name]],
      "mean_characters_per_piece": round(sum(compared.values()) / len(compared), 3),
      "at_least_as_long_in": sum(row["characters_per_piece"] >= compared[row["language"]] for row in table),
    }
  return result


def main(argv: list[str]) -> None:
  given = flags.FLAGS
  if len(argv) > 1:
    raise UserError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
  with tempfile.TemporaryDirectory() as temporary:
    folder = Path(given.report or temporary)
    folder.mkdir(parents=True, exist_ok=True)
    result = {}
    for name, size, alpha in (("alpha 0.3", given.size, 0.3), ("alpha 1.0", given.size, 1.0), ("largest", None, 0.3)):
      size = size or largest(given.text, folder, given.sentences)
      out = folder / f"{name.replace(' ', '_')}.model"
      result[name] = found = measured(train(given.text, out, size, alpha, given.sentences, given.compare))
      print(
        f"{name}: {size:,} pieces in {found['seconds']:.0f} s, {found['peak_gb']:.2f} GB of {found['announced_gb']:.2f} GB "
        f"announced; worst {found['worst'][0]} with {found['worst'][1]:.2f} characters per piece",
        flush=True,
      )
  better = result["alpha 0.3"]["worst"][1] > result["alpha 1.0"]["worst"][1]
  print(json.dumps({**result, "within": all(found["within"] for found in result.values()), "alpha_helps_the_worst": better}))


if __name__ == "__main__":
  flags.DEFINE_string("text", str(_DATA / "tiny100"), "folder in CC-100's layout")
  flags.DEFINE_integer("size", 32000, "ids of the first two vocabularies")
  flags.DEFINE_integer("sentences", None, "paragraphs to train on; as `xlmr train_vocabulary` chooses by default")
  flags.DEFINE_string("compare", str(_DATA / "tokenizer" / "xlmr.spm.model"), "another vocabulary; none if empty")
  flags.DEFINE_string("report", None, "folder for the models, pictures and tables; by default none are kept")
  app.run(run_command(main))
