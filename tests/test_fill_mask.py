"""Filling masks: the pieces and probabilities are transformers', in any script, from runs and folders."""

import io
import json
import os

import numpy as np
import pytest

from tests import hugging_face as hf
from tests.test_convert import command, run_theirs, theirs_of
from xlmr_jax.commands.fill_mask import refuse_without_mask, texts_of
from xlmr_jax.errors import UserError
from xlmr_jax.huggingface.importing import from_hf
from xlmr_jax.ids import FIRST_PIECE
from xlmr_jax.open_model import open_model
from xlmr_jax.run.workdir import Workdir

TEXTS = ["the <mask> sees a hut", "巴黎是<mask>国", "กรุงเทพ<mask>เมือง <mask>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return hf.make_folder(tmp_path_factory.mktemp("fill") / "source")


def test_the_likeliest_pieces_are_those_of_transformers(folder):
  transformers = pytest.importorskip("transformers")
  model, tokenizer = theirs_of(folder), transformers.AutoTokenizer.from_pretrained(folder)
  filled = open_model(folder).fill(TEXTS)
  for text, found in zip(TEXTS, filled, strict=True):
    ids = np.array([tokenizer(text).input_ids])
    probabilities = run_theirs(model, ids).logits.softmax(-1).numpy()[0]
    at = np.flatnonzero(ids[0] == tokenizer.mask_token_id)
    assert len(found) == len(at) == text.count("<mask>")
    for pieces, slot in zip(found, probabilities[at]):
      best = sorted(range(FIRST_PIECE, len(slot) - 1), key=lambda i: -slot[i])[:5]
      assert [piece for piece, _ in pieces] == [tokenizer.convert_ids_to_tokens(i) for i in best]
      np.testing.assert_allclose([p for _, p in pieces], slot[best], atol=1e-5)


@pytest.mark.slow
def test_the_command_reads_arguments_and_lines(folder, tmp_path):
  from_hf(folder, Workdir(tmp_path / "run"))
  result = command("fill_mask", f"--workdir={tmp_path / 'run'}", *TEXTS)
  assert result.returncode == 0, result.stderr
  lines = [json.loads(line) for line in result.stdout.splitlines()]
  assert [line["text"] for line in lines] == [*TEXTS, TEXTS[-1]] and all(len(line["pieces"]) == 5 for line in lines)
  piped = command("fill_mask", f"--workdir={folder}", input="\ufeff" + "\r\n\r\n".join(TEXTS) + "\r\n\r\n")
  assert piped.stdout == result.stdout


def test_lines_of_a_file_from_windows():
  """A byte order mark, carriage returns and empty lines are no part of a text, and an empty line ends nothing."""
  lines = io.BytesIO("\ufeffa <mask>\r\n\r\n \t\r\n\n\ufeffb <mask>\n<mask>".encode())
  assert list(texts_of(lines)) == ["a <mask>", "\ufeffb <mask>", "<mask>"]


@pytest.mark.parametrize(
  "content, message",
  [
    ("a <mask>\nd\u00e9 <mask>".encode("latin-1"), "standard input, line 2: byte 0xe9 at 2 is not UTF-8"),
    ("a <mask>".encode("utf-16"), "standard input, line 1: byte 0xff at 1 is not UTF-8"),
    (b"a <mask>\n\nno gap\n", "no <mask> in line 3 of standard input, 'no gap'"),
    (b"\xed\xa0\x80 <mask>", "line 1: byte 0xed at 1 is not UTF-8"),
  ],
)
def test_a_line_that_is_no_text_is_named(content, message):
  with pytest.raises(UserError, match=message):
    list(texts_of(io.BytesIO(content)))


def test_arguments_that_are_no_text(folder):
  with pytest.raises(UserError, match="not UTF-8"):
    refuse_without_mask(os.fsdecode(b"d\xe9 <mask>"), "an argument")
  model = open_model(folder)
  for call in (model.fill, model.encode):
    with pytest.raises(UserError, match=r"texts\[1\]=.*half of a surrogate pair"):
      call(["a <mask>", "\ud83d <mask>"])


@pytest.mark.parametrize(
  "arguments, message", [(["no gap"], "no <mask> in 'no gap'"), (["--top=0"], "--top=0: must be at least 1")]
)
def test_refusals(folder, arguments, message):
  result = command("fill_mask", f"--workdir={folder}", *arguments)
  assert result.returncode == 1 and result.stderr == f"error: {message}\n"
