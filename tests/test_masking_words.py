"""Whole words and spans: what ICU calls a word is masked whole; share and statelessness are those of single pieces."""

import io
import json
import shutil

import numpy as np
import pytest

from tests import tiny
from tests.test_pipelines import byte_level
from xlmr_jax.commands.pretrain import open_rows
from xlmr_jax.config_checks import check_config
from xlmr_jax.corpus import build, shards, word_starts
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.data import mask_units
from xlmr_jax.data.masking import mask_rows, slots_per_row
from xlmr_jax.data.mixture import Mixture
from xlmr_jax.data.pipeline import BatchSpec, held_out_batches, train_batches
from xlmr_jax.data.rows import RowStore, language_folder
from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.ids import BOS, EOS, FIRST_PIECE, PAD, UNK, WORD_START

UNITS = ("word", "span")
SEQ_LEN = 204  # no multiple of 8, of which bytes are made
TEXT = {
  "th": "วันนี้อากาศดีมาก เราไปเดินเล่นที่สวนสาธารณะ\nแมวสองตัวนอนหลับอยู่ใต้โต๊ะ\nน้ำในแม่น้ำเย็นและใส\nครูสอนภาษาไทยให้นักเรียนทุกวัน",
  "lo": "ມື້ນີ້ອາກາດດີຫຼາຍ ພວກເຮົາໄປຕະຫຼາດ\nຂ້ອຍມັກກິນເຂົ້າໜຽວກັບປາ\nນ້ຳໃນແມ່ນ້ຳເຢັນ\nເດັກນ້ອຍໄປໂຮງຮຽນທຸກມື້",
  "km": "ថ្ងៃនេះអាកាសធាតុល្អណាស់ យើងទៅផ្សារ\nខ្ញុំចូលចិត្តញ៉ាំបាយនិងត្រី\nទឹកទន្លេត្រជាក់ហើយថ្លា\nក្មេងៗទៅសាលារៀនរាល់ថ្ងៃ",
  "my": "ဒီနေ့ရာသီဥတုသာယာတယ် ကျွန်တော်တို့ဈေးသွားမယ်\nကလေးများနေ့တိုင်းကျောင်းသွားကြသည်\nမြစ်ရေသည်အေးပြီးကြည်လင်သည်",
  "zh": "今天天气很好，我们去公园散步。\n两只猫在桌子下面睡觉。\n老师每天教学生中文。\n河里的水又冷又清。",
  "ja": "今日は天気がいいので、公園を散歩します。\n二匹の猫が机の下で寝ています。\n川の水は冷たくて澄んでいる。",
  "en": "The weather is good today, so we're walking in the park.\nTwo cats are sleeping under the table, at 11:30.",
  "xx": "ÀÉ ﬁne ½ 🙂 ok　x\u200by  two  blanks \t🙂🙂 ｆｕｌｌ ①②。 می‌خواهم",
}  # fmt: skip
DOCUMENTS = {language: [TEXT[language].replace("\n", f" {i}\n") for i in range(40)] for language in ("en", "th", "zh")}
LINES = [line for text in TEXT.values() for line in text.split("\n")]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
  """A SentencePiece model of TEXT, small enough that many pieces are parts of words and some reach over two."""
  import sentencepiece

  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(LINES * 20), model_writer=model, vocab_size=420, hard_vocab_limit=False, minloglevel=2
  )
  path = tmp_path_factory.mktemp("words") / "vocabulary.model"
  path.write_bytes(model.getvalue())
  return open_tokenizer(path)


def mask(marked, first=0, seed=3, unit="word", vocabulary_size=250_002, share=0.15, **more):
  import tensorflow as tf

  slots = slots_per_row(marked.shape[1], share)
  out = mask_rows(tf.constant(marked), tf.constant(first, tf.int64), seed=seed, vocabulary_size=vocabulary_size, slots=slots,
                  mask_share=share, unit=unit, **more)  # fmt: skip
  return {key: value.numpy() for key, value in out.items()}


def is_masked(out):
  """Whether each token is a target, bool[n, L]."""
  chosen = np.zeros(out["ids"].shape, bool)
  row, slot = np.nonzero(out["weights"])
  chosen[row, out["positions"][row, slot]] = True
  return chosen


def make_rows(n, seq_len=128, seed=0, word=0.6, unknown=0.01):
  """Rows of two documents with marks, of words of 1 / word pieces in the mean; the last tenth of every second is <pad>."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(FIRST_PIECE, 250_000, (n, seq_len), np.int32)
  ids[rng.random(ids.shape) < unknown] = UNK
  ids += (rng.random(ids.shape) < word) * np.int32(WORD_START)
  ids[:, 0], ids[:, -1] = BOS, EOS
  ids[:, seq_len // 3], ids[:, seq_len // 3 + 1] = EOS, BOS
  ids[::2, -seq_len // 10 :] = PAD
  return ids


def words_of(marked):
  """The pieces of each word of a row that may be masked, and whether it is the first of its document."""
  words, after_special = [], True
  for at, id in enumerate(marked.tolist()):
    special = id % WORD_START <= EOS
    if not special:
      if id >= WORD_START or after_special:
        words.append(([], after_special))
      if id % WORD_START >= FIRST_PIECE:
        words[-1][0].append(at)
    after_special = special
  return words


# --- by ICU's own boundaries ---------------------------------------------------------------------------------------


def rows_of_lines(tokenizer, lines):
  """A row per line, int32[n, L], with marks."""
  pieces = word_starts.encode_marked(tokenizer, lines)
  rows = np.full((len(lines), -(-(max(map(len, pieces)) + 2) // 8) * 8), PAD, np.int32)
  for row, ids in zip(rows, pieces):
    row[: len(ids) + 2] = [BOS, *ids, EOS]
  return rows


def broken_words(tokenizer, line, chosen):
  """The words of a line, as ICU has them, that are masked in part. chosen: whether each piece is masked, bool[n]."""
  from icu4py.breakers import WordBreaker

  ids, starts, ends = tokenizer.encode_with_offsets([line])[0]
  broken, at = [], 0
  for word in WordBreaker(line, "en"):
    inside = (starts < at + len(word)) & (ends > at) & (ids != UNK)  # Even a piece that only reaches into it.
    if word.strip() and len(set(chosen[inside])) > 1:
      broken.append(word)
    at += len(word)
  assert at == len(line)
  return broken


def check_lines(tokenizer, lines, units=UNITS, passes=6):
  rows = rows_of_lines(tokenizer, lines)
  sizes = [len(ids) for ids in tokenizer.encode_lines(lines)]
  masked_words = 0
  for unit in units:
    for seed in range(passes):
      chosen = is_masked(mask(rows, seed=seed, unit=unit, vocabulary_size=tokenizer.size, share=0.3))
      assert not chosen[rows % WORD_START <= UNK].any()
      for line, size, row in zip(lines, sizes, chosen):
        assert not broken_words(tokenizer, line, row[1 : 1 + size]), (unit, line)
      masked_words += np.count_nonzero(chosen & (rows >= WORD_START))
  return masked_words


def test_words_of_scripts_without_spaces_are_masked_whole(vocabulary):
  assert check_lines(vocabulary, LINES) > 500


@pytest.mark.parametrize("kind", ["byte-level", "WordPiece"])
def test_other_kinds_of_vocabularies(kind):
  """Their pieces have no marks for spaces that could be read, or the bytes of characters."""
  tokenizers = pytest.importorskip("tokenizers")
  if kind == "byte-level":
    model = byte_level(LINES * 20)
  else:
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    made.train_from_iterator(LINES * 20, trainer)
    model = made.to_str().encode()
  assert check_lines(open_tokenizer("tokenizer.json", model), LINES, passes=2) > 100


def test_the_check_can_fail(vocabulary):
  rows = rows_of_lines(vocabulary, LINES)
  chosen = is_masked(
    mask(np.where(rows >= FIRST_PIECE, rows | WORD_START, rows), vocabulary_size=vocabulary.size, share=0.3)
  )
  sizes = [len(ids) for ids in vocabulary.encode_lines(LINES)]
  assert sum(bool(broken_words(vocabulary, line, row[1 : 1 + n])) for line, n, row in zip(LINES, sizes, chosen)) > 5


@pytest.mark.slow
@pytest.mark.parametrize("language", ["th", "lo", "km", "my", "zh_Hans", "ja"])
def test_200_real_sentences_with_xlmrs_vocabulary(shared, language):
  tokenizer = open_tokenizer(shared / "data/tokenizer/xlmr.spm.model")
  lines = (shared / f"data/parallel303/{language}.txt").read_text(encoding="utf-8").split("\n")[:200]
  assert len(lines) == 200 and check_lines(tokenizer, lines, passes=2) > 4000


def test_what_a_word_is(vocabulary):
  """A space belongs to the word behind it, a mark is a word of its own, a piece over a boundary joins two words."""
  line = "so we're ok, at 11.30."
  ids = word_starts.encode_marked(vocabulary, [line])[0]
  shown = "".join("|" * (id >= WORD_START) + vocabulary.piece(id % WORD_START) for id in ids.tolist())
  pieces = [vocabulary.piece(id) for id in vocabulary.encode_lines([line])[0]]
  assert not any(",▁" in piece or "'" in piece.strip("'") for piece in pieces)  # else this line shows nothing
  assert shown.replace("|", "") == "".join(pieces)
  assert shown == "|▁so|▁we're|▁ok|,|▁at|▁11.30|."


class Joined:
  """A tokenizer whose pieces are given by hand, with offsets."""

  size = 10

  def __init__(self, *spans):
    self._spans = np.array(spans)

  def encode_lines(self, lines, threads=1):
    return [np.full(len(self._spans), 5, np.int32)] * len(lines)

  def encode_with_offsets(self, lines, threads=1):
    return [(np.full(len(self._spans), 5, np.int32), *self._spans.T)] * len(lines)

  def piece(self, id):
    return "?"


@pytest.mark.parametrize(
  "spans, marks",
  [
    (((0, 2), (3, 7), (7, 9)), [1, 1, 0]),  # in "ab cd efg", the second piece reaches from the second word into the third
    (((0, 1), (1, 4), (4, 5), (6, 9)), [1, 0, 0, 1]),
    (((0, 2), (3, 3), (3, 5), (6, 9)), [1, 1, 0, 1]),  # a space alone belongs to the word behind it
    (((0, 2), (3, 3), (3, 3), (3, 5), (6, 9)), [1, 1, 0, 0, 1]),
    (((0, 1), (0, 1), (1, 2), (3, 4), (3, 4), (6, 9)), [1, 0, 0, 1, 0, 1]),  # two pieces of one character
    (((0, 9),), [1]),
  ],
)
def test_pieces_that_do_not_fit_the_words(spans, marks):
  ids = word_starts.encode_marked(Joined(*spans), ["ab cd efg", "ab cd efg"])
  assert [(row >= WORD_START).astype(int).tolist() for row in ids] == [marks, marks]


@pytest.mark.parametrize(
  "spans, marks",
  [
    (((0, 1), (1, 1), (2, 2), (3, 3), (3, 4), (5, 5)), [1, 1, 0, 0, 0, 1]),  # The last one stands before no word.
    (((0, 1), (1, 1), (2, 2), (3, 4)), [1, 1, 0, 0]),
  ],
)
def test_all_the_spaces_before_a_word_belong_to_it(spans, marks):
  ids = word_starts.encode_marked(Joined(*spans), ["a  b ", "a  b "])
  assert [(row >= WORD_START).astype(int).tolist() for row in ids] == [marks, marks]


def test_spaces_that_a_vocabulary_keeps(tmp_path):
  """Each is a piece. ICU has no boundary between them."""
  import sentencepiece

  text = tmp_path / "text"
  text.write_text("the  park in   the  dark\n" * 50)
  sentencepiece.SentencePieceTrainer.train(
    input=str(text), model_prefix=str(tmp_path / "kept"), vocab_size=14, remove_extra_whitespaces=False,
    normalization_rule_name="identity", minloglevel=2, hard_vocab_limit=False,
  )  # fmt: skip
  kept = open_tokenizer(tmp_path / "kept.model")
  (ids,) = word_starts.encode_marked(kept, ["the  park"])
  words = "".join(("|" if id >= WORD_START else "") + kept.piece(id & ~WORD_START) for id in ids.tolist())
  assert words == "|▁the|▁▁park"


def test_a_line_begins_a_word():
  """Also where its first character is dropped, without which ICU has no boundary at the second."""
  ids = word_starts.encode_marked(Joined((1, 2), (3, 9)), ["\u200d🙂 joined"] * 2)
  assert [(row >= WORD_START).tolist() for row in ids] == [[True, True]] * 2


def test_boundaries_do_not_depend_on_what_is_cut_at_once(monkeypatch):
  from icu4py.breakers import WordBreaker

  alone = []
  for line in [*LINES, "", " "]:
    at = np.cumsum([0, *map(len, WordBreaker(line, "en"))])
    alone.append(np.isin(np.arange(len(line) + 1), at))
  wanted = np.concatenate(alone)
  for characters in (1, 100, 1 << 20):
    monkeypatch.setattr(word_starts, "_CHARACTERS", characters)
    assert np.array_equal(word_starts.boundaries([*LINES, "", " "]), wanted)


def test_the_fast_way_to_offsets_is_the_tokenizers(vocabulary, monkeypatch):
  lines = [*LINES, "", " ", "unknown ж letters 水", "\u200d🙂 joined", *(" ".join(LINES[i : i + 3]) for i in range(20))]
  quick = word_starts.encode_marked(vocabulary, lines)
  shifts = []
  kept = word_starts._shift
  monkeypatch.setattr(word_starts, "_shift", lambda line, joined: shifts.append(kept(line, joined)) or shifts[-1])
  word_starts.encode_marked(vocabulary, lines)
  assert 3 < shifts.count(None) < len(lines) - 10  # Both ways are gone.
  monkeypatch.setattr(word_starts, "_shift", lambda line, joined: None)
  for one, other, plain in zip(quick, word_starts.encode_marked(vocabulary, lines), vocabulary.encode_lines(lines)):
    assert np.array_equal(one, other) and np.array_equal(one % WORD_START, plain)


# --- which words are chosen ----------------------------------------------------------------------------------------


def chosen_by_hand(marked, key_bits, budget):
  """The masked positions of a row, one word after another."""
  low = 2 ** (len(marked) - 1).bit_length() - 1
  starts = [at for at, id in enumerate(marked.tolist()) if id % WORD_START > EOS]
  starts = [at for at in starts if marked[at] >= WORD_START or marked[at - 1] % WORD_START <= EOS]
  drawn = sorted((int(key_bits[at]) & (2**30 - 1) & ~low, at, pieces) for at, (pieces, _) in zip(starts, words_of(marked)))
  chosen = []
  for _, _, pieces in drawn:
    if len(pieces) <= budget - len(chosen):
      chosen += pieces
  return sorted(chosen)


def random_bits(shape, seed):
  return np.random.default_rng(seed).integers(-(2**31), 2**31, shape, np.int64).astype(np.int32)


@pytest.mark.parametrize("word", [0.05, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("seq_len", [16, 100, 128])
def test_words_are_those_of_a_loop(word, seq_len):
  marked, key_bits = make_rows(60, seq_len, word=word), random_bits((60, seq_len), 1)
  budgets = np.random.default_rng(2).integers(0, 25, 60).astype(np.int32)
  found = mask_units.choose(marked, key_bits, budgets, 24)
  for row, bits, budget, positions, count in zip(marked, key_bits, budgets, found.positions, found.counts):
    assert positions[:count].tolist() == chosen_by_hand(row, bits, budget)
    assert not positions[count:].any()


def test_take_while_they_fit_is_a_loop():
  rng = np.random.default_rng(0)
  sizes, budgets = rng.integers(0, 9, (500, 12)).astype(np.int32), rng.integers(0, 20, 500).astype(np.int32)
  for row, left, taken in zip(sizes, budgets.tolist(), mask_units.take_while_they_fit(sizes, budgets)):
    for size, is_taken in zip(row.tolist(), taken.tolist()):
      fits = 0 < size <= left
      assert is_taken == fits or size == 0
      left -= size * fits


@pytest.mark.parametrize("unit", UNITS)
def test_the_share_is_that_of_single_pieces(unit):
  marked = make_rows(2000)
  plain, whole = mask(marked % WORD_START, unit="piece"), mask(marked, unit=unit)
  if unit == "word":  # The same random numbers round the same shares; for spans the rows have others.
    assert np.array_equal(plain["weights"].sum(1), whole["weights"].sum(1))
  pieces = (marked % WORD_START >= FIRST_PIECE).sum(1)
  counts = whole["weights"].sum(1)
  assert np.all(np.abs(counts - 0.15 * pieces) < 1)
  assert abs(counts.sum() - 0.15 * pieces.sum()) < 5 * np.sqrt(0.25 * len(counts))


@pytest.mark.parametrize("unit", UNITS)
def test_no_row_gets_more_than_its_share_where_words_are_long(unit):
  marked = make_rows(500, word=0.05)
  counts, pieces = mask(marked, unit=unit)["weights"].sum(1), (marked % WORD_START >= FIRST_PIECE).sum(1)
  assert np.all(counts < 0.15 * pieces + 1) and counts.mean() > 0.7 * 0.15 * pieces.mean()


@pytest.mark.parametrize("unit", UNITS)
def test_words_are_whole_and_the_rest_is_untouched(unit):
  marked = make_rows(400)
  out = mask(marked, unit=unit)
  chosen, ids = is_masked(out), marked % WORD_START
  for row, masked in zip(marked, chosen):
    assert all(len(set(masked[pieces])) < 2 for pieces, _ in words_of(row) if pieces)
  row, slot = np.nonzero(out["weights"])
  at = out["positions"][row, slot]
  assert np.array_equal(out["labels"][row, slot], ids[row, at]) and np.array_equal(out["ids"][~chosen], ids[~chosen])
  assert ids[chosen].min() >= FIRST_PIECE and out["ids"].max() < 250_002


@pytest.mark.parametrize("unit", ["word", "span"])
def test_a_special_token_in_a_word_stays_as_an_unknown_piece_does(unit):
  """One that was added is no target and counts for no share. Rows with <unk> in its places are masked alike."""
  marked = make_rows(300)
  as_unknown = np.where(np.random.default_rng(1).random(marked.shape) < 0.1, marked - marked % WORD_START + UNK, marked)
  as_unknown = np.where(marked % WORD_START > EOS, as_unknown, marked)
  special = np.where(as_unknown % WORD_START == UNK, marked - marked % WORD_START + 777, marked)
  expected, found = mask(as_unknown, unit=unit), mask(special, unit=unit, no_pieces=(777,))
  np.testing.assert_array_equal(is_masked(found), is_masked(expected))
  np.testing.assert_array_equal(found["labels"], expected["labels"])
  assert np.all(found["ids"][special % WORD_START == 777] == 777) and is_masked(found).sum() > 3000


def test_words_are_alike_likely_whatever_their_length():
  """But for the last draws of a row, for which only short ones are small enough."""
  marked = np.tile(make_rows(1, 512, word=0.6, unknown=0.0), (3000, 1))
  chosen = is_masked(mask(marked)).mean(0)
  words = [pieces for pieces, _ in words_of(marked[0]) if pieces]
  sizes = np.array([len(pieces) for pieces in words])
  rates = np.array([chosen[pieces[0]] for pieces in words])
  assert 0.14 < rates[sizes == 1].mean() < 0.17 and 0.125 < rates[sizes >= 4].mean() < 0.16


def test_spans_are_spanberts():
  p = 0.2 * 0.8 ** np.arange(10)
  assert np.abs(mask_units.length_shares(3.797) - p / p.sum()).max() < 1e-3
  for mean in (1.0, 2.0, 3.8, 5.0):
    assert abs(mask_units.length_shares(mean) @ np.arange(1, 11) - mean) < 1e-6
    drawn = mask_units.span_lengths(random_bits(200_000, 0), mean)
    assert abs(drawn.mean() - mean) < 0.05 and drawn.min() == 1 and drawn.max() <= 10
  with pytest.raises(ValueError, match="must lie in"):
    mask_units.length_shares(5.5)
  # If all is masked, all spans are seen; a row's last one and its document's are cut.
  marked = make_rows(1000, 512, word=1.0, unknown=0.0)
  everything = np.full(1000, 512, np.int32)
  found = mask_units.choose(marked, random_bits(marked.shape, 1), everything, 512, random_bits(marked.shape, 2))
  first_slots = [slots[:count] for slots, count in zip(found.kind_slots, found.counts)]
  lengths = np.concatenate([np.diff(np.append(np.unique(slots), slots.size)) for slots in first_slots])
  assert np.abs(np.bincount(lengths, minlength=11)[1:] / lengths.size - mask_units.length_shares(3.8)).max() < 0.01


def test_spans_keep_together_and_only_the_last_of_a_row_is_cut():
  marked = make_rows(300, 512, word=0.6, unknown=0.0)
  span_bits, budgets = random_bits(marked.shape, 2), np.full(300, 76, np.int32)
  found = mask_units.choose(marked, random_bits(marked.shape, 1), budgets, 80, span_bits)
  everything = mask_units.choose(marked, random_bits(marked.shape, 1), np.full(300, 512, np.int32), 512, span_bits)
  whole = cut = 0
  for row in range(300):
    spans = np.split(everything.positions[row, : everything.counts[row]],
                     np.unique(everything.kind_slots[row, : everything.counts[row]])[1:])  # fmt: skip
    assert all(marked[row, span[0] : span[-1] + 1].min() > EOS for span in spans)  # each within one document
    chosen = set(found.positions[row, : found.counts[row]].tolist())
    parts = [len(chosen & set(span.tolist())) / len(span) for span in spans]
    whole, cut = whole + parts.count(1.0), cut + sum(0 < part < 1 for part in parts)
    assert found.counts[row] == 76
  assert whole > 300 * 8 and cut < 300 * 2.5


def test_a_mean_of_one_word_needs_all_lengths():
  marked = make_rows(50, 64, word=1.0)
  out = mask_units.choose(marked, random_bits((50, 64), 0), np.full(50, 9, np.int32), 16, random_bits((50, 64), 1), 1.0)
  alone = mask_units.choose(marked, random_bits((50, 64), 0), np.full(50, 9, np.int32), 16)
  assert np.array_equal(out.positions, alone.positions)


def test_eighty_ten_ten_per_piece_of_a_word_and_per_span():
  marked = make_rows(2000, 256)
  for unit in UNITS:
    out = mask(marked, unit=unit)
    chosen, ids = is_masked(out), marked % WORD_START
    kinds = np.where(out["ids"] == 250_001, 0, np.where(out["ids"] == ids, 2, 1))
    shares = np.bincount(kinds[chosen], minlength=3) / chosen.sum()
    assert np.abs(shares - [0.8, 0.1, 0.1]).max() < 0.02, unit
    neighbours = chosen[:, 1:] & chosen[:, :-1] & (marked[:, 1:] < WORD_START)  # two pieces of one word
    alike = np.mean(kinds[:, 1:][neighbours] == kinds[:, :-1][neighbours])
    assert alike == 1.0 if unit == "span" else abs(alike - 0.66) < 0.03, unit


def test_replacements_within_a_span_are_drawn_one_by_one():
  marked = make_rows(200, 256)
  out = mask(marked, unit="span", replace_share=0.0, random_share=1.0)
  new = out["ids"][is_masked(out)]
  assert len(np.unique(new)) > 0.9 * len(new)


@pytest.mark.parametrize("unit", UNITS)
def test_a_row_gets_the_same_mask_in_any_batch(unit):
  marked = make_rows(64)
  whole = mask(marked, first=10**10, unit=unit)
  for part in (slice(0, 1), slice(5, 40), slice(63, 64)):
    found = mask(marked[part], first=10**10 + part.start, unit=unit)
    assert all(np.array_equal(found[key], whole[key][part]) for key in whole)
  order = np.random.default_rng(0).permutation(64)
  found = mask(marked[order], first=10**10, unit=unit, offsets=order)
  assert all(np.array_equal(found[key], whole[key][order]) for key in whole)
  assert not np.array_equal(mask(marked, first=10**10, unit=unit, seed=4)["positions"], whole["positions"])


@pytest.mark.parametrize("unit", UNITS)
def test_rows_with_almost_nothing_in_them(unit):
  for pieces in ([], [5], [UNK], [UNK + WORD_START, UNK], [5 + WORD_START] * 3, [5 + WORD_START, 5, 5, 5, 5, 5]):
    marked = np.full((300, 16), PAD, np.int32)
    marked[:, : len(pieces) + 2] = [BOS, *pieces, EOS]
    counts = mask(marked, unit=unit)["weights"].sum(1)
    assert counts.max() <= np.ceil(0.15 * len(pieces))
    real = sum(id % WORD_START >= FIRST_PIECE for id in pieces)
    assert (counts.sum() > 0) == (0 < real < 6)  # The word of six pieces is more than the row's share.


def test_a_row_that_begins_in_the_middle_of_a_word():
  marked = np.tile(np.array([BOS, 7, 7, 8 + WORD_START, 8, EOS, BOS, 9, 9, EOS], np.int32), (400, 1))
  chosen = is_masked(mask(marked, share=0.4))
  for pieces in ([1, 2], [3, 4], [7, 8]):
    assert set(chosen[:, pieces].sum(1)) == {0, 2}


# --- from text to batches ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text(tmp_path_factory):
  folder = tmp_path_factory.mktemp("text")
  for language, documents in DOCUMENTS.items():
    (folder / f"{language}.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
  return folder


@pytest.fixture(scope="module")
def built(text, vocabulary, tmp_path_factory):
  root = tmp_path_factory.mktemp("built") / "ROWS"
  build.build_rows(CC100(text), vocabulary.path, root, seq_len=SEQ_LEN, held_out=0.1, workers=2, word_starts=True)
  return root


def read_all(store, split="train"):
  language = np.repeat(np.arange(len(store.languages)), store.counts(split))
  row = np.concatenate([np.arange(count) for count in store.counts(split)])
  return store.read(split, language, row)


def test_a_store_with_words_is_the_other_one_and_marks(built, text, vocabulary, tmp_path):
  import tensorflow_datasets as tfds

  build.build_rows(CC100(text), vocabulary.path, tmp_path / "plain", seq_len=SEQ_LEN, held_out=0.1, workers=1)
  plain, told, marked = RowStore(tmp_path / "plain"), RowStore(built), RowStore(built, marks_words=True)
  assert (
    not plain.word_starts
    and told.word_starts == word_starts.segmenter()
    and told.manifest["languages"] == plain.manifest["languages"]
  )
  rows, marks = read_all(told), read_all(marked)
  assert np.array_equal(rows, read_all(plain)) and np.array_equal(marks % WORD_START, rows)
  assert not (marks >= WORD_START)[rows <= EOS].any() and 0.1 < (marks >= WORD_START).mean() < 0.9
  # Each document's words are those of its lines; the first piece of a document always starts one.
  lines = [document.split("\n") for documents in DOCUMENTS.values() for document in documents]
  documents = [np.concatenate(word_starts.encode_marked(vocabulary, document)).tolist() for document in lines]
  whole = _split(marks[marks != PAD].tolist())
  assert sum(document in whole for document in documents) > 90  # The others are held out, or cut.
  builder = tfds.builder_from_directory(str(language_folder(built, "th")))
  source = builder.as_data_source(split="train")
  seen = np.array([np.unpackbits(source[i]["word_starts"], count=SEQ_LEN) for i in range(len(source))])
  assert np.array_equal(seen, marked.read("train", np.full(len(seen), 1), np.arange(len(seen))) >= WORD_START)


def _split(flat):
  """The pieces between each <s> and </s>."""
  documents = []
  for id in flat:
    if id == BOS:
      documents.append([])
    elif id != EOS:
      documents[-1].append(id)
  return documents


def test_two_builds_are_byte_identical_and_languages_can_be_added(built, text, vocabulary, tmp_path):
  for languages, add in ((["th", "zh"], False), (["en"], True)):
    source = CC100(text, languages)
    build.build_rows(
      source, vocabulary.path, tmp_path / "ROWS", seq_len=SEQ_LEN, held_out=0.1, workers=1, word_starts=True, add=add
    )
  files = sorted(path.relative_to(built) for path in built.rglob("*") if path.is_file())
  assert all((built / name).read_bytes() == (tmp_path / "ROWS" / name).read_bytes() for name in files)
  with pytest.raises(UserError, match=r"word_starts ICU [0-9.]+, and these would have none; build them alike"):
    build.build_rows(source, vocabulary.path, tmp_path / "ROWS", seq_len=SEQ_LEN, held_out=0.1, add=True)


def test_what_is_refused(built, text, vocabulary, tmp_path, monkeypatch):
  build.build_rows(CC100(text), vocabulary.path, tmp_path / "plain", seq_len=SEQ_LEN, held_out=0.1, workers=1)
  with pytest.raises(UserError, match=r"plain: its rows do not tell where words start.*xlmr build_rows --word_starts"):
    open_rows(tiny.config(tmp_path / "plain", model__max_positions=206, data__mask_unit="span"), tmp_path)
  with pytest.raises(UserError, match=r"config.data.mask_unit='phrase': must be one of piece, word, span"):
    check_config(tiny.config("rows", data__mask_unit="phrase"))
  for mean in (0.5, 5.5, float("nan")):
    with pytest.raises(UserError, match=r"config.data.mask_span_mean=.*must lie in \[1, 5\]"):
      check_config(tiny.config("rows", data__mask_span_mean=mean))
  manifest = json.loads((built / "manifest.json").read_text())
  shutil.copytree(built, tmp_path / "ROWS")
  from xlmr_jax.data.row_manifest import fingerprint

  manifest["word_starts"] = 7
  manifest["fingerprint"] = fingerprint(manifest)
  (tmp_path / "ROWS" / "manifest.json").write_text(json.dumps(manifest))
  with pytest.raises(UserError, match="word_starts is not what a manifest of rows has there"):
    RowStore(tmp_path / "ROWS")
  del manifest["word_starts"]
  manifest["fingerprint"] = fingerprint(manifest)
  (tmp_path / "ROWS" / "manifest.json").write_text(json.dumps(manifest))
  with pytest.raises(UserError, match=r"its rows are not int32\[204\]"):
    RowStore(tmp_path / "ROWS")
  monkeypatch.setitem(__import__("sys").modules, "icu4py._version", None)
  with pytest.raises(UserError, match="--word_starts: ICU is needed to find words; pip install"):
    build.build_rows(CC100(text), vocabulary.path, tmp_path / "new", seq_len=SEQ_LEN, word_starts=True)
  assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("unit", UNITS)
def test_batches_are_the_same_wherever_a_run_starts_and_whoever_makes_them(built, unit):
  store = RowStore(built, marks_words=True)
  mixture = Mixture(store.counts("train"), 0.5, seed=4, block_rows=256)

  def take(steps, start=0, host_rows=None):
    spec = BatchSpec(8, host_rows, slots_per_row(SEQ_LEN), 11, unit=unit)
    with train_batches(store, mixture, spec, start) as batches:
      return [next(batches) for _ in range(steps)]

  whole = take(30)
  for one, other in zip(whole[20:], take(10, start=20)):
    assert all(one[key].tobytes() == other[key].tobytes() for key in one)
  for host_rows in (np.arange(4), np.array([7, 4, 6, 5])):
    for one, other in zip(whole[:10], take(10, host_rows=host_rows)):
      assert all(one[key][host_rows].tobytes() == other[key].tobytes() for key in one)
  language, row, _ = mixture.locate(np.arange(30 * 8))
  marked = store.read("train", language, row)
  found = {key: np.concatenate([batch[key] for batch in whole]) for key in whole[0]}
  chosen = is_masked(found)
  assert np.array_equal(found["ids"][~chosen], (marked % WORD_START)[~chosen])
  for words, masked in zip(map(words_of, marked), chosen):
    assert all(len(set(masked[pieces])) < 2 for pieces, _ in words if pieces)


def test_held_out_rows_and_a_store_opened_otherwise(built):
  spec = BatchSpec(8, None, slots_per_row(SEQ_LEN), 11, unit="word")
  with held_out_batches(RowStore(built, marks_words=True), spec) as batches:
    assert all(batch["ids"].max() < WORD_START for batch in batches)
  with pytest.raises(ValueError, match="marks_words=False"):
    with held_out_batches(RowStore(built), spec):
      pass


def test_words_do_not_change_what_a_build_writes_without_them(text, vocabulary, tmp_path, monkeypatch):
  """No piece of the new code runs, so that the files are those of earlier versions."""
  monkeypatch.setattr(shards, "encode_marked", None)
  build.build_rows(CC100(text), vocabulary.path, tmp_path / "ROWS", seq_len=SEQ_LEN, held_out=0.1, workers=1)
  assert "word_starts" not in json.loads((tmp_path / "ROWS" / "manifest.json").read_text())
