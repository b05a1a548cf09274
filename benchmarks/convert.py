"""Memory and time of a conversion: a folder of random weights in, a run out, its parameters loaded, a folder out again.

  python -m benchmarks.convert --size=large        (7 GB of disk under --scratch; imports no transformers)

Each part is a process of its own, and its memory the most it ever had resident. The last line is JSON.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from xlmr_jax.huggingface import names
from xlmr_jax.huggingface import safetensors_file as files

FLAGS = flags.FLAGS
SIZES = {"base": names.Sizes(250_002, 514, 12, 768, 12, 3072), "large": names.Sizes(250_002, 514, 24, 1024, 16, 4096)}
flags.DEFINE_enum("size", "large", list(SIZES), "XLM-R's")
flags.DEFINE_string("scratch", None, "folder for the folders; a temporary one by default")
flags.DEFINE_string("vocabulary", None, "a SentencePiece model of 250,002 entries; one of numbers is made by default")
LOAD = """
import jax
from pathlib import Path
from ml_collections import ConfigDict
from xlmr_jax import open_model as runs
workdir = Path({0!r})
record = runs.read_run(workdir)
jax.block_until_ready(runs.load_params(workdir, record, ConfigDict(record["config"]), "latest"))
"""


def make_source(path: Path, sizes: names.Sizes, vocabulary: str | None) -> None:
  """A folder of random weights."""
  from xlmr_jax.huggingface import sentencepiece_file as sentencepiece

  path.mkdir()
  shapes = {name: (np.dtype("<f4"), shape) for name, shape in names.tensor_shapes(sizes).items()}
  rng = np.random.default_rng(0)
  # Zero token types, as XLM-R's.
  get = lambda name: rng.standard_normal(shapes[name][1], np.float32) * np.float32(name != names.TYPE_TABLE)  # noqa: E731
  files.write(path / "model.safetensors", shapes, get)
  (path / "config.json").write_text(
    json.dumps(
      {
        "model_type": "xlm-roberta",
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.ffn,
        "max_position_embeddings": sizes.positions,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
      }
    )
  )
  if vocabulary:
    shutil.copyfile(vocabulary, path / "sentencepiece.bpe.model")
  else:
    kinds = sentencepiece.UNKNOWN, sentencepiece.CONTROL, sentencepiece.CONTROL
    pieces = [(piece, 0.0, kind) for piece, kind in zip(("<unk>", "<s>", "</s>"), kinds)]
    pieces += [(f"\u2581{i}", -float(i), sentencepiece.NORMAL) for i in range(sizes.vocabulary - 5)]
    made = sentencepiece.serialize(sentencepiece.Vocabulary(pieces, b""), "identity")
    (path / "sentencepiece.bpe.model").write_bytes(made)


def child(*command: str) -> tuple[float, float]:
  """(most bytes resident, seconds) of a process."""
  began = time.perf_counter()
  process = subprocess.Popen(
    [sys.executable, *command], stdout=subprocess.DEVNULL, env=os.environ | {"JAX_PLATFORMS": "cpu"}
  )
  _, status, usage = os.wait4(process.pid, 0)  # of this child alone; getrusage gives the largest of all
  process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise SystemExit(process.returncode)
  return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), time.perf_counter() - began


def main(_):
  with tempfile.TemporaryDirectory(dir=FLAGS.scratch) as scratch:
    source, run, out = (Path(scratch) / name for name in ("source", "run", "out"))
    # In a process of its own too: a child's peak begins with what its parent had resident when it was started.
    child(
      "-c",
      f"from pathlib import Path; from benchmarks import convert as c; "
      f"c.make_source(Path({str(source)!r}), c.SIZES[{FLAGS.size!r}], {FLAGS.vocabulary!r})",
    )
    weights = sum(4 * tensor.size for tensor in files.read_header(source / "model.safetensors").values())
    result = {"size": FLAGS.size, "weights_gb": round(weights / 1e9, 3)}
    parts = {
      "import": ("-m", "xlmr_jax", "convert", "from-hf", f"--source={source}", f"--workdir={run}"),
      "load": ("-c", LOAD.format(str(run))),
      "export": ("-m", "xlmr_jax", "convert", "to-hf", f"--workdir={run}", "--checkpoint=latest", f"--out={out}"),
    }
    for name, command in parts.items():
      resident, seconds = child(*command)
      result[name] = {
        "memory_gb": round(resident / 1e9, 3),
        "of_weights": round(resident / weights, 3),
        "seconds": round(seconds, 1),
      }
      print(f"{name}: {resident / 1e9:.2f} GB, {resident / weights:.2f} x the weights, {seconds:.0f} s", flush=True)
    before, after = (files.read_header(path / "model.safetensors") for path in (source, out))
    result["byte_equal"] = set(before) == set(after) and all(files.same_bytes(before[name], after[name]) for name in before)
  print(json.dumps(result))


if __name__ == "__main__":
  app.run(main)
