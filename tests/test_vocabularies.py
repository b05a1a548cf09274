"""Models with the vocabularies that people have come in and go out with equal ids and logits: <mask> at 4, padded
embeddings, added tokens, an epsilon of their own, encoders without their head. What can never go out is refused before the
training.
"""

import contextlib
import functools
import json

import jax
import numpy as np
import pytest

from tests import hugging_face as hf
from tests import tiny
from tests.test_convert import LONG, command, opened, rows_of, run_theirs, theirs_of
from tests.test_hf_tokenizer import byte_level as merges_of
from tests.test_pipelines import byte_level, sentencepiece, unigram
from xlmr_jax.commands.pretrain import say_if_not_exportable
from xlmr_jax.corpus.build import build_rows
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.data.mixture import Mixture
from xlmr_jax.data.pipeline import BatchSpec, train_batches
from xlmr_jax.data.rows import RowStore
from xlmr_jax.data.tokenizer import encode_words, open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.huggingface import tokenizer
from xlmr_jax.huggingface.importing import from_hf
from xlmr_jax.huggingface.probe import PROBE
from xlmr_jax.open_model import load_params, open_model, open_record, open_tokenizer_of
from xlmr_jax.report.export import to_hf
from xlmr_jax.run.workdir import Workdir


@functools.cache
def uncased():
  """A tokenizer.json of the tokenizers library: uncased, <mask> at 4, no decoder, and a post-processor of its own pairs."""
  tokenizers = pytest.importorskip("tokenizers")
  n, p = tokenizers.normalizers, tokenizers.pre_tokenizers
  made = tokenizers.Tokenizer.from_str(
    unigram([*PROBE], n.Sequence([n.Nmt(), n.NFKC(), n.Lowercase()]), p.Metaspace(prepend_scheme="never")).decode()
  )
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
  )
  return made


def folder_of(path, whole, rows, **changes):
  """A Hugging Face folder with this tokenizer.json and an embedding of so many rows."""
  sizes = LONG._replace(vocabulary=rows)
  values = hf.tensors(sizes)
  path.mkdir()
  (path / "tokenizer.json").write_text(whole, encoding="utf-8")
  (path / "config.json").write_text(json.dumps(hf.config_of(sizes, **changes)))
  hf.write_tensors(path / "model.safetensors", values)
  return values


def added(special):
  """(a tokenizer.json with two tokens that a user added, its entries)."""
  import tokenizers

  made = tokenizers.Tokenizer.from_str(uncased().to_str())
  for name, is_special in (("[URL]", special), ("ŋŋ", False)):
    made.add_tokens([tokenizers.AddedToken(name, special=is_special)])
  return made.to_str(), made.get_vocab_size()


@pytest.mark.parametrize("kind", ["mask at 4", "added tokens", "added special token", "padded to 64", "added and padded"])
def test_in_and_out_with_equal_ids_and_logits(tmp_path, kind):
  transformers = pytest.importorskip("transformers")
  whole, entries = added("special" in kind) if "added" in kind else (uncased().to_str(), uncased().get_vocab_size())
  rows = -(-entries // 64) * 64 if "padded" in kind else entries
  values = folder_of(tmp_path / "source", whole, rows, layer_norm_eps=1e-12)
  from_hf(tmp_path / "source", Workdir(tmp_path / "run"))
  to_hf(Workdir(tmp_path / "run"), "latest", tmp_path / "out")
  hf.assert_same_bytes(hf.read_tensors(tmp_path / "out"), values)

  ours, theirs = open_model(tmp_path / "run").tokenizer, transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
  texts = [*PROBE, "see [URL] and ŋŋ, SHOUTED", "x[URL]y"]
  source = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "source" / "tokenizer.json"))
  expected = [source(text).input_ids for text in texts]
  assert [ours.encode(text) for text in texts] == expected == theirs(texts).input_ids
  assert (ours.mask_id, theirs.mask_token_id, ours.size) == (4, 4, rows)
  assert ours.encode("[URL]")[1:-1] == ([entries - 2] if "added" in kind else ours.encode("[url]")[1:-1])
  assert theirs("a", "b").input_ids == [*ours.encode("a"), 2, *ours.encode("b")[1:]]  # the pairs of our fine-tuning

  never = {0, 1, 2, 3, 4, *range(entries, rows)} | ({entries - 2} if "special" in kind else set())
  assert set(range(rows)) - set(ours.replacements.tolist()) == never
  ids = rows_of(np.random.default_rng(0), 24)
  logits = run_theirs(theirs_of(tmp_path / "out"), ids).logits.numpy()
  model, params = opened(tmp_path / "run")
  found = jax.jit(functools.partial(model.apply, method="logits"))({"params": params}, ids)
  assert logits.shape[-1] == rows and np.abs(np.asarray(found) - logits)[ids != 1].max() < 1e-4


def test_a_padded_sentencepiece_model(tmp_path):
  """XLM-R's own kind: 90 pieces of 96 rows. The mask stays where it was, and the file goes out as it came in."""
  source = hf.make_folder(tmp_path / "source", hf.tensors(hf.SIZES._replace(vocabulary=90)), hf.SIZES)
  values = hf.tensors(hf.SIZES._replace(vocabulary=96))
  hf.write_tensors(source / "model.safetensors", values)
  (source / "config.json").write_text(json.dumps(hf.config_of(hf.SIZES._replace(vocabulary=96))))
  from_hf(source, Workdir(tmp_path / "run"))
  ours = open_model(tmp_path / "run").tokenizer
  assert (ours.size, ours.mask_id, ours.piece(89), ours.piece(95)) == (96, 89, "<mask>", "")
  assert ours.replacements.tolist() == list(range(4, 89))
  to_hf(Workdir(tmp_path / "run"), "latest", tmp_path / "out")
  hf.assert_same_bytes(hf.read_tensors(tmp_path / "out"), values)
  name = tokenizer.SENTENCEPIECE
  assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes() == hf.vocabulary()
  assert open_tokenizer_of(source, open_record(source)).size == 96
  sizes = hf.SIZES._replace(vocabulary=90 + 512)
  (source / "config.json").write_text(json.dumps(hf.config_of(sizes)))
  hf.write_tensors(source / "model.safetensors", hf.tensors(sizes))
  with pytest.raises(UserError, match="602 entries, the tokenizer one of 90"):  # no padding, but another vocabulary
    from_hf(source, Workdir(tmp_path / "again"))


def test_rows_of_such_vocabularies_never_draw_what_is_no_piece(tmp_path):
  whole, entries = added(True)
  (tmp_path / "text").mkdir()
  (tmp_path / "text" / "en.txt").write_text("\n\n".join([*PROBE, "<s> see [URL] <mask>"] * 3), encoding="utf-8")
  path = tmp_path / "tokenizer.json"
  path.write_text(json.dumps({tokenizer.ROWS: entries + 5} | json.loads(whole)), encoding="utf-8")
  build_rows(CC100(tmp_path / "text"), path, tmp_path / "rows", seq_len=64, held_out=0.1, workers=1)
  store = RowStore(tmp_path / "rows")
  assert (store.mask_id, store.vocabulary_size) == (4, entries + 5)
  assert store.no_pieces == (entries - 2, *range(entries, entries + 5))
  rows = store.read("train", np.zeros(20, np.int32), np.arange(20))
  assert not np.any(rows == 4)  # "<mask>" and "<s>" in a text are text
  spec = BatchSpec(len(rows), None, slots=64, seed=0, mask_share=0.9)
  mixture = Mixture(store.counts("train"), 1.0, 0)
  with train_batches(store, mixture, spec, 0) as batches:
    seen = {id for _ in range(40) for id in next(batches)["ids"].ravel().tolist()}
  assert 4 in seen and not seen & set(store.no_pieces[1:])  # The special token stands in the text itself.
  assert len(seen & set(open_tokenizer(path).replacements.tolist())) > 0.9 * len(open_tokenizer(path).replacements)
  assert np.all(rows[:, 0] == 0) and np.array_equal((rows == 0).sum(axis=1), (rows == 2).sum(axis=1))


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda w: w["model"].update(dropout=0.1) or w["model"].update(type="BPE"), r"model.dropout=0.1 cuts a text otherwise"),
    (lambda w: w["model"].update(unk_id=None), r"model.unk_id=None; it must be <unk>, which has id 3"),
    (lambda w: w["model"].update(unk_id=5), r"model.unk_id=5; it must be <unk>"),
    (lambda w: w["model"].update(type="WordLevel"), r"a tokenizer of kind WordLevel; it must be a unigram"),
    (
      lambda w: w["post_processor"].update(single=w["post_processor"]["single"][:2]),
      "post_processor makes '<s> .*' of the text",
    ),
    (lambda w: w.update(normalizer={"type": "Backwards"}), "no tokenizer.json that can be read"),
    (lambda w: w["model"]["vocab"].insert(0, ["[PAD]", 0.0]), "<s> has id 1, not 0 as in RoBERTa"),
    (lambda w: w["model"].pop("vocab"), "no tokenizer.json that can be read"),
    # Here the library panics, which is no Exception.
    (
      lambda w: w.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
      "no tokenizer.json that can be",
    ),
    (lambda w: w["post_processor"].update(special_tokens={}), "no tokenizer.json that can be read"),
    (lambda w: w.update(post_processor=[1]), "no tokenizer.json that can be read"),
  ],
)
def test_a_step_that_we_cannot_do_is_named(tmp_path, change, message):
  whole = json.loads(uncased().to_str())
  change(whole)
  (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
  with pytest.raises(UserError, match=message) as error:
    tokenizer.read_vocabulary(tmp_path)
  assert str(tmp_path / "tokenizer.json") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["never", "byte-level", "no dummy prefix", "as trained here"])
def test_a_word_alone_has_the_pieces_of_running_text(tmp_path, kind):
  """Tagging encodes words one by one; where the vocabulary puts no space before a text, the word still has its own."""
  if kind == "never":
    vocabulary = uncased().to_str().encode()
  elif kind == "byte-level":
    vocabulary = byte_level([*PROBE])
  else:
    vocabulary = sentencepiece([*PROBE], **({"add_dummy_prefix": False} if "no" in kind else {}))
  ours = open_tokenizer("words", vocabulary)
  words = ["river", "河很宽", "nobody,", "½", "Wide"]
  for word, ids in zip(words, encode_words(ours, words), strict=True):
    running = ours.encode(f"crossed {word}")[1:-1]
    assert running[len(running) - len(ids) :] == ids.tolist() and ours.piece(ids[0]).startswith("▁"), word
  assert [ids.tolist() for ids in encode_words(ours, [""])] == [ours.encode("")[1:-1]] and encode_words(ours, []) == []


def test_a_damaged_sentencepiece_model_is_named(tmp_path):
  damaged = hf.vocabulary().replace("巴黎".encode(), b"\xe5\xe5\xe5\xe5\xe5\xe5")
  with pytest.raises(UserError, match="no SentencePiece model"):
    open_tokenizer(tmp_path / "damaged.model", damaged)
  switched = hf.vocabulary() + b"\x1a\x04\x12\x02ab"  # another charsmap, which SentencePiece or the library must refuse
  with pytest.raises(UserError):
    tokenizer.exported(open_tokenizer(tmp_path / "switched.model", switched))


def test_files_that_add_to_a_vocabulary(tmp_path):
  """added_tokens.json and tokenizer_config.json of slow tokenizers are read, or refused by their names."""
  transformers = pytest.importorskip("transformers")
  size = merges_of(tmp_path / "bpe")
  (tmp_path / "bpe" / "added_tokens.json").write_text(json.dumps({"[A]": size, "[B]": size + 1}))
  (tmp_path / "bpe" / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": True}))
  vocabulary, entries = tokenizer.read_vocabulary(tmp_path / "bpe")
  ours = open_tokenizer("bpe", vocabulary)
  assert entries == size + 2 and ours.encode("[B][A]")[1:-1] == [size + 1, size]
  assert ours.encode("the cat") == ours.encode(" the cat")
  tokenizer.write_tokenizer(tmp_path, ours, 512)
  (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  for text in ("the cat", "a [B] hut", ", the"):
    assert theirs(text).input_ids == ours.encode(text)
  (tmp_path / "bpe" / "added_tokens.json").write_text(json.dumps({"[A]": size + 7}))
  with pytest.raises(UserError, match=r"added token '\[A\]' has id"):
    tokenizer.read_vocabulary(tmp_path / "bpe")
  (tmp_path / "spm").mkdir()
  (tmp_path / "spm" / tokenizer.SENTENCEPIECE).write_bytes(hf.vocabulary())
  (tmp_path / "spm" / "added_tokens.json").write_text('{"<mask>": 89, "[A]": 90}')
  with pytest.raises(UserError, match=r"it adds '\[A\]' to sentencepiece.bpe.model; save the tokenizer with transformers 5"):
    tokenizer.read_vocabulary(tmp_path / "spm")
  # By name alone: what the model has is no new token, and what it has not gets an id behind its own.
  (tmp_path / "spm" / "added_tokens.json").unlink()
  for names, message in ((["<mask>", "<s>"], None), (["<mask>", "<new>"], "it adds '<new>' to")):
    (tmp_path / "spm" / "tokenizer_config.json").write_text(json.dumps({"additional_special_tokens": names}))
    with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
      tokenizer.read_vocabulary(tmp_path / "spm")


# --- an encoder without its head ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["AutoModel", "fine-tuned"])
def test_an_encoder_without_its_head(tmp_path, kind, capsys):
  values = hf.tensors(types=True)
  encoder = {name: value for name, value in values.items() if not name.startswith("lm_head.")}
  given = {name.removeprefix("roberta."): value for name, value in encoder.items()}
  if kind == "fine-tuned":
    given = encoder | {"classifier.weight": np.zeros((3, 16), np.float32), "classifier.bias": np.zeros(3, np.float32)}
  source = hf.make_folder(tmp_path / "source", given)
  whole = hf.make_folder(tmp_path / "whole", values)
  texts = ["the cat", "巴黎是法国的首都"]
  model = open_model(source)
  assert "has no masked-language-model head: a new one is drawn" in capsys.readouterr().err
  np.testing.assert_array_equal(model.encode(texts), open_model(whole).encode(texts))
  from_hf(source, Workdir(tmp_path / "run"))
  for path in (source, tmp_path / "run"):
    with pytest.raises(UserError, match="has no masked-language-model head, so it cannot fill a <mask>"):
      open_model(path).fill(["the <mask>"])
    with pytest.raises(UserError, match="has no masked-language-model head to export"):
      to_hf(Workdir(path), "latest", tmp_path / "out")
  # Pretraining begins with a head that is drawn, the same each time.
  record = open_record(tmp_path / "run")
  from ml_collections import ConfigDict

  first, second = (load_params(tmp_path / "run", record, ConfigDict(record.config), "initial")[1] for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, first, second)
  assert np.asarray(first["head_dense"]["kernel"]).std() == pytest.approx(0.02, rel=0.2)
  assert np.all(np.asarray(first["head_norm"]["scale"]) == 1) and not np.any(np.asarray(first["head_bias"]))
  del given[next(name for name in given if "layer.1" in name)]
  hf.write_tensors(source / "model.safetensors", given)
  with pytest.raises(UserError, match=r"layer\.1.* is missing"):
    open_model(source)


# --- before the training ----------------------------------------------------------------------------------------------


def test_what_cannot_be_exported_is_refused_before_rows_are_built(tmp_path, capsys):
  (tmp_path / "text").mkdir()
  (tmp_path / "text" / "en.txt").write_text("\n\n".join(PROBE * 2), encoding="utf-8")
  (tmp_path / "v.model").write_bytes(sentencepiece([*PROBE], treat_whitespace_as_suffix=True))
  arguments = ["--text", tmp_path / "text", "--tokenizer", tmp_path / "v.model", "--out", tmp_path / "rows", "--workers=1"]
  refused = command("build_rows", *arguments)
  assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and not (tmp_path / "rows").exists()
  assert "treat_whitespace_as_suffix=true" in refused.stderr and "--noexport builds the rows" in refused.stderr
  config = tiny.config()
  say_if_not_exportable(config, tmp_path / "v.model")  # as a training on such rows does
  assert "this model will not be exported to Hugging Face: " in (said := capsys.readouterr().err) and said.count("\n") == 1
  (tmp_path / "v.model").write_bytes(sentencepiece([*PROBE]))
  say_if_not_exportable(config, tmp_path / "v.model")
  assert capsys.readouterr().err == ""
  for changes in ({"pre_norm": True}, {"family": "bert", "pair_types": True}):
    config = tiny.config()
    config.model.update(changes)
    say_if_not_exportable(config, tmp_path / "v.model")
    assert f"config.model.{[*changes][-1]}=True" in capsys.readouterr().err


@pytest.mark.slow
def test_rows_that_will_not_be_exported(tmp_path):
  (tmp_path / "text").mkdir()
  (tmp_path / "text" / "en.txt").write_text("\n\n".join(PROBE * 2), encoding="utf-8")
  (tmp_path / "v.model").write_bytes(sentencepiece([*PROBE], model_type="bpe"))
  arguments = ["--text", tmp_path / "text", "--tokenizer", tmp_path / "v.model", "--out", tmp_path / "rows", "--workers=1"]
  built = command("build_rows", *arguments, "--noexport", "--held_out=0.1")
  assert built.returncode == 0, built.stderr
  assert RowStore(tmp_path / "rows").vocabulary_size == open_tokenizer(tmp_path / "v.model").size
