"""Filling masks: the pieces and probabilities are transformers', in any script, from runs and folders."""

import json

import numpy as np
import pytest

from tests import hugging_face as hf
from tests.test_convert import command, run_theirs, theirs_of
from xlmr_jax.commands import convert, fill_mask
from xlmr_jax.data.tokenizer import FIRST_PIECE
from xlmr_jax.errors import UserError

TEXTS = ["the <mask> sees a hut", "巴黎是<mask>国", "กรุงเทพ<mask>เมือง <mask>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return hf.make_folder(tmp_path_factory.mktemp("fill") / "source")


def test_the_likeliest_pieces_are_those_of_transformers(folder):
  transformers = pytest.importorskip("transformers")
  model, tokenizer = theirs_of(folder), transformers.AutoTokenizer.from_pretrained(folder)
  fill = fill_mask.make_filler(folder)
  for text in TEXTS:
    ids = np.array([tokenizer(text).input_ids])
    probabilities = run_theirs(model, ids).logits.softmax(-1).numpy()[0]
    at = np.flatnonzero(ids[0] == tokenizer.mask_token_id)
    found = fill(text)
    assert len(found) == len(at) == text.count("<mask>")
    for pieces, slot in zip(found, probabilities[at]):
      best = sorted(range(FIRST_PIECE, len(slot) - 1), key=lambda i: -slot[i])[:5]
      assert [piece for piece, _ in pieces] == [tokenizer.convert_ids_to_tokens(i) for i in best]
      np.testing.assert_allclose([p for _, p in pieces], slot[best], atol=1e-5)


def test_the_command_reads_arguments_and_lines(folder, tmp_path):
  convert.from_hf(folder, tmp_path / "run")
  result = command("fill_mask", f"--workdir={tmp_path / 'run'}", *TEXTS)
  assert result.returncode == 0, result.stderr
  lines = [json.loads(line) for line in result.stdout.splitlines()]
  assert [line["text"] for line in lines] == [*TEXTS, TEXTS[-1]] and all(len(line["pieces"]) == 5 for line in lines)
  piped = command("fill_mask", f"--workdir={folder}", input="\n".join(TEXTS) + "\n\n")
  assert piped.stdout == result.stdout


def test_refusals(folder):
  result = command("fill_mask", f"--workdir={folder}", "no gap")
  assert result.returncode == 1 and result.stderr == "error: no <mask> in 'no gap'\n"
  fill = fill_mask.make_filler(folder)
  with pytest.raises(UserError, match=r"no <mask> in 'x'"):
    fill("x")
  with pytest.raises(UserError, match=r"tokens, the model takes 32: 'the the"):
    fill("the " * 40 + "<mask>")
  with pytest.raises(UserError, match=r"--checkpoint=12: .* is a Hugging Face folder"):
    fill_mask.make_filler(folder, "12")
