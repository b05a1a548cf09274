"""Measures memory and time of a conversion: a folder of random weights becomes a run, its parameters are loaded, and a
folder is written again.

  python -m benchmarks.convert --size=large        needs 7 GB of disk under --scratch, and no transformers

Each part is a process of its own; its memory is the most that it ever had resident. The last line is JSON.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from xlmr_jax.data import sentencepiece_file
from xlmr_jax.data.protobuf import bytes_field
from xlmr_jax.huggingface import names, safetensors_file

FLAGS = flags.FLAGS
SIZES = {"base": names.Sizes(250_002, 514, 12, 768, 12, 3072), "large": names.Sizes(250_002, 514, 24, 1024, 16, 4096)}
flags.DEFINE_enum("size", "large", list(SIZES), "XLM-R's")
flags.DEFINE_string("scratch", None, "where the folders are made; by default where temporary files go")
flags.DEFINE_string("vocabulary", None, "a SentencePiece model of 250,002 entries; by default one of numbers is made")
LOAD = """
import jax
from ml_collections import ConfigDict
from xlmr_jax.open_model import load_params, open_record
record = open_record({0!r})
jax.block_until_ready(load_params({0!r}, record, ConfigDict(record.config), "latest"))
"""


def make_source(path: Path, sizes: names.Sizes, vocabulary: str | None) -> None:
  """Makes a Hugging Face folder of random weights. vocabulary: the file of a SentencePiece model, or None."""
  path.mkdir()
  shapes = {name: (np.dtype("<f4"), shape) for name, shape in names.tensor_shapes(sizes).items()}
  rng = np.random.default_rng(0)

  def tensor(name: str) -> np.ndarray:
    is_types = name == names.TYPE_TABLE  # XLM-R's token types are zero.
    return rng.standard_normal(shapes[name][1], np.float32) * np.float32(not is_types)

  safetensors_file.write(path / "model.safetensors", shapes, tensor)
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
    kinds = sentencepiece_file.UNKNOWN, sentencepiece_file.CONTROL, sentencepiece_file.CONTROL
    pieces = [(piece, 0.0, kind) for piece, kind in zip(("<unk>", "<s>", "</s>"), kinds)]
    pieces += [(f"\u2581{i}", -float(i), sentencepiece_file.NORMAL) for i in range(sizes.vocabulary - 5)]
    # A piece is its text, its score as a fixed 32-bit field, and its kind.
    made = b"".join(
      bytes_field(1, bytes_field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + bytes([0x18, kind]))
      for text, score, kind in pieces
    )
    (path / "sentencepiece.bpe.model").write_bytes(made + bytes_field(3, bytes_field(1, b"identity")))


def child(*command: str) -> tuple[float, float]:
  """Runs a process. Returns (the most bytes that it had resident, seconds)."""
  began = time.perf_counter()
  process = subprocess.Popen(
    [sys.executable, *command], stdout=subprocess.DEVNULL, env=os.environ | {"JAX_PLATFORMS": "cpu"}
  )
  _, status, usage = os.wait4(
    process.pid, 0
  )  # It is of this child alone, where getrusage gives the largest of all children.
  process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise SystemExit(process.returncode)
  return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), time.perf_counter() - began


def main(_: list[str]) -> None:
  with tempfile.TemporaryDirectory(dir=FLAGS.scratch) as scratch:
    source, run, out = (Path(scratch) / name for name in ("source", "run", "out"))
    # This is a process of its own too, because a child's peak begins with what its parent had resident at its start.
    child(
      "-c",
      f"from pathlib import Path; from benchmarks import convert as c; "
      f"c.make_source(Path({str(source)!r}), c.SIZES[{FLAGS.size!r}], {FLAGS.vocabulary!r})",
    )
    weights = sum(4 * tensor.size for tensor in safetensors_file.read_header(source / "model.safetensors").values())
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
        "times_weights": round(resident / weights, 3),
        "seconds": round(seconds, 1),
      }
      print(f"{name}: {resident / 1e9:.2f} GB, {resident / weights:.2f} x the weights, {seconds:.0f} s", flush=True)
    before, after = (safetensors_file.read_header(path / "model.safetensors") for path in (source, out))
    result["byte_equal"] = set(before) == set(after) and all(
      safetensors_file.same_bytes(before[name], after[name]) for name in before
    )
  print(json.dumps(result))


if __name__ == "__main__":
  app.run(main)
