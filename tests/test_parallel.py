"""Parallel sentences: files to rows of pairs, what a run reads of them, and a run that is exact on resume."""

import gzip
import itertools

import numpy as np
import pytest

from tests import hugging_face as hf
from tests import tiny
from xlmr_jax.commands.pretrain import open_rows
from xlmr_jax.corpus.build import build_rows
from xlmr_jax.corpus.packing import pack
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.corpus.sources.parallel import ParallelText
from xlmr_jax.data import phases
from xlmr_jax.data.mixture import Mixture
from xlmr_jax.data.pipeline import BatchSpec, held_out_batches
from xlmr_jax.data.row_manifest import read_manifest
from xlmr_jax.data.rows import RowStore
from xlmr_jax.data.timeline import Timeline
from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation import held_out_score
from xlmr_jax.ids import BOS, EOS, PAD
from xlmr_jax.run import branch as branches
from xlmr_jax.run.workdir import RunRecord, Workdir
from xlmr_jax.training.model_languages import languages_to_read, names_of_rows, refuse_pairs, sides_of, with_languages
from xlmr_jax.training.preparation import rows_of

SEQ_LEN, PAIRS = 32, ("en-fr", "en-zh")


def sentences(count, seed, length=4):
  rng = np.random.default_rng(seed)
  return [" ".join(rng.choice(hf.WORDS, rng.integers(1, length + 1))) for _ in range(count)]


def write_pairs(folder, count=60):
  """Two pairs, one of them compressed, in two files and named the other way round; {pair: [(en, other)]}."""
  folder.mkdir()
  texts = {name: (sentences(count, n), sentences(count, n + 9)) for n, name in enumerate(PAIRS)}
  for side, lines in zip(("en", "fr"), texts["en-fr"]):
    (folder / f"News.en-fr.{side}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
  for part, cut in enumerate((slice(0, 20), slice(20, None))):
    for side, lines in zip(("en", "zh"), texts["en-zh"]):
      name = f"part{part}.zh-en.{side}.gz"
      (folder / name).write_bytes(gzip.compress("\n".join(lines[cut]).encode()))
  (folder / "README").write_text("no text")
  return {name: list(zip(*both)) for name, both in texts.items()}


def pairs_in(rows, separators=2):
  """[(tokens of the first text, of the second)] of rows of pairs; checks what stands around them."""
  found = []
  for row in rows.tolist():
    row = row[: row.index(PAD)] if PAD in row else row
    begins = [i for i, id in enumerate(row) if id == BOS]
    assert begins[0] == 0
    for begin, end in itertools.pairwise([*begins, len(row)]):
      document = row[begin + 1 : end]
      first = document.index(EOS)
      assert document[first : first + separators] == [EOS] * separators and document[-1] == EOS
      second = document[first + separators : -1]
      assert EOS not in second and second
      found.append((tuple(document[:first]), tuple(second)))
  return found


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """(folder of rows in four languages and two pairs, the pairs, their vocabulary)."""
  root = tmp_path_factory.mktemp("parallel")
  text, vocabulary, rows = root / "text", root / "v.model", root / "rows"
  text.mkdir()
  for n, name in enumerate(("en", "fr", "sw", "zh_Hans")):
    lines = sentences(240, n + 50, 9)
    (text / f"{name}.txt").write_text("\n\n".join(lines), encoding="utf-8")
  vocabulary.write_bytes(hf.vocabulary())
  pairs = write_pairs(root / "pairs")
  common = {"tokenizer": vocabulary, "seq_len": SEQ_LEN, "held_out": 0.2, "workers": 1}
  build_rows(CC100(text), out=rows, **common)
  summary = build_rows(ParallelText(root / "pairs"), out=rows, add=True, **common)
  assert summary["languages"] == 2 and summary["blank"] == summary["too_long"] == 0
  return rows, pairs, open_tokenizer(vocabulary)


# --- files to rows ---------------------------------------------------------------------------------------------------


def test_every_pair_is_in_the_rows_once_and_whole(world):
  rows, pairs, tokenizer = world
  store = RowStore(rows)
  assert store.languages == ("en", "en-fr", "en-zh", "fr", "sw", "zh_Hans")
  assert store.pairs == {"en-fr": ("en", "fr"), "en-zh": ("en", "zh")} and RowStore(rows, ["fr"]).pairs == {}
  for name in PAIRS:
    number, found = store.languages.index(name), []
    for split in ("train", "held_out"):
      count = int(store.counts(split)[number])
      read = store.read(split, np.full(count, number), np.arange(count))
      found += pairs_in(read)
      counts = store.manifest["languages"][name][split]
      assert counts["pieces"] == (read > EOS).sum() and counts["tokens"] == (read != PAD).sum()
    wanted = [tuple(tuple(tokenizer.encode_lines([side])[0].tolist()) for side in pair) for pair in pairs[name]]
    assert sorted(found) == sorted(wanted)
    assert sum(store.manifest["languages"][name][split]["documents"] for split in ("train", "held_out")) == len(wanted)
    assert sum(store.manifest["languages"][name][split]["bytes"] for split in ("train", "held_out")) == sum(
      len(side.encode()) for pair in pairs[name] for side in pair
    )
  assert len(found) > int(store.counts("train")[number] + store.counts("held_out")[number])  # Some rows hold several.


def test_the_rows_depend_on_text_alone_and_a_pair_can_be_built_anew(world, tmp_path):
  rows, _, tokenizer = world
  folder = tmp_path / "pairs"
  write_pairs(folder)
  common = {"tokenizer": tokenizer.path, "seq_len": SEQ_LEN, "held_out": 0.2}
  build_rows(ParallelText(folder), out=tmp_path / "alone", workers=3, **common)
  here, there = (read_manifest(path)["files"] for path in (tmp_path / "alone", rows))
  assert here == {name: digest for name, digest in there.items() if name.split("/")[1] in PAIRS}
  build_rows(ParallelText(folder, ["en-zh"]), out=tmp_path / "alone", workers=1, add=True, **common)
  assert read_manifest(tmp_path / "alone")["files"] == here
  assert read_manifest(tmp_path / "alone")["pairs"] == {"en-fr": ["en", "fr"], "en-zh": ["en", "zh"]}


def test_blank_and_long_pairs_are_counted_and_left_out(world, tmp_path):
  folder = tmp_path / "pairs"
  folder.mkdir()
  english = ["the cat", "", "the hut", "  ", "the stone", "the cat " * 12, "cat"]
  french = ["casa", "è bianca", "\t", "", "bianca", "casa " * 12, "è"]
  for side, lines in (("en", english), ("fr", french)):
    (folder / f"en-fr.{side}").write_text("\ufeff" * (side == "en") + "\r\n".join(lines), encoding="utf-8")
  tokenizer = world[2]
  summary = build_rows(ParallelText(folder), tokenizer.path, tmp_path / "rows", seq_len=SEQ_LEN, held_out=0.0, workers=1)
  assert (summary["blank"], summary["too_long"]) == (3, 1)
  store = RowStore(tmp_path / "rows")
  count = int(store.counts("train")[0])
  found = pairs_in(store.read("train", np.zeros(count, int), np.arange(count)))
  kept = [0, 4, 6]
  assert sorted(found) == sorted(
    tuple(tuple(tokenizer.encode_lines([lines[i]])[0].tolist()) for lines in (english, french)) for i in kept
  )


def test_pairs_are_never_cut_for_density():
  lengths = np.array([20] * 50 + [14] * 50)
  cut, whole = (pack(np.full(lengths.sum(), 9, np.int32), lengths, 32, cut=cut) for cut in (True, False))
  assert (cut == BOS).sum() > 100 and (whole == BOS).sum() == 100


@pytest.mark.parametrize(
  ("files", "message"),
  [
    ({"a.en-fr.en": "x\ny\nz\n", "a.en-fr.fr": "x\n"}, r"a\.en-fr\.en has 3 lines and .*a\.en-fr\.fr 1; line n"),
    ({"a.en-fr.en": "x\n", "a.en-fr.fr": "x\ny\nz\nw"}, r"a\.en-fr\.en has 1 lines and .*a\.en-fr\.fr 4; line n"),
    ({"a.en-fr.en": "x\n"}, r"a\.en-fr\.en: its other file, in fr, is missing"),
    ({"a.en-fr.en": "x\n", "a.en-fr.de": "x\n"}, r"a\.en-fr\.de: ends in de, which is not one of two languages en and fr"),
    ({"a.en-fr.en": "x\n", "a.en-fr.fr": "x\n", "a.en-fr.fr.gz": "x"}, r"holds the same side"),
    ({"a.en-fr.en": "x\n", "a.en-fr.fr": b"\xff\n"}, r"a\.en-fr\.fr, line 1: not UTF-8"),
    ({"a.en-fr.en": "x\n", "a.en-fr.fr": "\n"}, r"no text|no tokens"),
    ({"notes.txt": "x"}, r"no parallel text; it is named NAME\.en-fr\.en"),
  ],
)
def test_what_is_no_parallel_text_is_refused_by_name(world, tmp_path, files, message):
  folder = tmp_path / "pairs"
  folder.mkdir()
  for name, content in files.items():
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(UserError, match=message):
    build_rows(ParallelText(folder), world[2].path, tmp_path / "rows", seq_len=SEQ_LEN, held_out=0.0, workers=1)
  assert not (tmp_path / "rows").exists()
  with pytest.raises(UserError, match="no such folder"):
    ParallelText(tmp_path / "nothing")


def test_what_opus_puts_beside_the_text_is_left_out(tmp_path, capsys):
  others = ("en-fr.xml", "Books.en-fr.ids", "Books.en-fr.xml", "en-fr.tmx", "LICENSE")
  for name in (*others, "Books.en-fr.en", "Books.en-fr.fr"):
    (tmp_path / name).write_text("x\n")
  assert ParallelText(tmp_path).pairs == {"en-fr": ("en", "fr")}
  said = capsys.readouterr().err
  assert said.count("\n") == 1 and all(name in said for name in others) and "Books.en-fr.en" not in said
  for side in ("en", "ids"):  # Idesa, if it is one of the two
    (tmp_path / f"a.en-ids.{side}").write_text("x\n")
  assert set(ParallelText(tmp_path).pairs) == {"en-fr", "en-ids"}


# --- what a run reads ------------------------------------------------------------------------------------------------


def test_pairs_are_read_with_their_languages(world):
  rows = world[0]
  assert languages_to_read(rows, (), [0.5]) == ("en", "en-fr", "en-zh", "fr", "sw", "zh_Hans")
  assert languages_to_read(rows, ("en", "zh_Hans"), [0.5]) == ("en", "zh_Hans", "en-zh")
  assert languages_to_read(rows, ("en", "fr", "zh_Hans", "en-fr"), [0.5]) == ("en", "fr", "zh_Hans", "en-fr")
  assert languages_to_read(rows, ("en", "sw"), [0.5]) == ("en", "sw")
  assert languages_to_read(rows, (), [0.0]) == ("en", "fr", "sw", "zh_Hans")
  assert languages_to_read(rows, ("en", "fr"), [1.0]) == ("en-fr",)
  store = RowStore(rows)
  assert names_of_rows(store) == ("en", "fr", "sw", "zh_Hans")  # OPUS's zh is CC-100's zh_Hans.
  config = with_languages(config_of(rows), store)
  assert sides_of(config, store) == ((0, 0), (0, 1), (0, 3), (1, 1), (2, 2), (3, 3))
  for family, isolate in (("xlmr", False), ("bert", False), ("xlmr", True), ("xlm", False)):
    config = tiny.config(rows, model__family=family, model__isolate_documents=isolate)
    if family == "xlm" or isolate:
      refuse_pairs(config, store)
    else:
      with pytest.raises(UserError, match=r"rows of parallel sentences \(en-fr, en-zh\).*parallel_share=0"):
        refuse_pairs(config, store)


BOTH, TEXT = ("en", "en-fr", "en-zh", "fr", "sw", "zh_Hans"), ("en", "fr", "sw", "zh_Hans")


@pytest.mark.parametrize(
  ("share", "texts", "languages", "pairs_of_phases"),
  [
    (0.0, ("until=50%", "until=100%,parallel_share=0.5"), BOTH, [0, 0.5]),
    (1.0, ("until=50%,parallel_share=0.5", "until=100%"), BOTH, [0.5, 1]),
    (1.0, ("until=50%,parallel_share=0", "until=100%"), BOTH, [0, 1]),
    (0.5, ("until=100%,parallel_share=0",), BOTH, [0]),
    (1.0, ("until=50%", "until=100%,parallel_share=1"), PAIRS, [1, 1]),
    (1.0, (), PAIRS, [1]),
    (0.0, ("until=50%", "until=100%,parallel_share=0"), TEXT, [0, 0]),
    (0.0, (), TEXT, [0]),
  ],
)
def test_a_run_opens_what_any_of_its_phases_reads(world, tmp_path, share, texts, languages, pairs_of_phases):
  config = config_of(world[0], data__parallel_share=share, phases=texts)
  store = open_rows(config, tmp_path)
  assert store.languages == languages
  found = phases.phases_of(config.to_dict(), rows_of(store))
  timeline = Timeline(found, rows_of(store), 0)
  is_pair = np.isin(store.languages, PAIRS)
  assert [part.mixture.shares[is_pair].sum() for part in timeline.stretches] == pytest.approx(pairs_of_phases)


def test_pairs_that_nothing_reads_are_refused_by_name(world, tmp_path):
  named = {"data__languages": ("en-fr",), "data__parallel_share": 0.0}
  with pytest.raises(UserError, match=r"config\.data\.languages=en-fr: .* config\.data\.parallel_share=0 leaves out; set"):
    open_rows(config_of(world[0], **named), tmp_path)
  config = config_of(world[0], data__parallel_share=0.0, phases=("until=100%,languages=en+sw,parallel_share=0.5",))
  store = open_rows(config, tmp_path)
  message = r"phase 1 .*parallel_share=0\.5, but it reads no pairs .* its languages are en, sw, and the run has en-fr, en-zh"
  with pytest.raises(UserError, match=message):
    phases.phases_of(config.to_dict(), rows_of(store))
  config = config_of(world[0], data__parallel_share=1.0, phases=("until=4,languages=sw", "until=100%,parallel_share=0.5"))
  with pytest.raises(UserError, match="parallel_share=1, but it reads no pairs"):
    phases.phases_of(config.to_dict(), rows_of(open_rows(config, tmp_path)))


def test_pairs_are_switched_by_phases_and_not_by_the_share_of_all(world, tmp_path, monkeypatch):
  """Neither a branch nor a run that goes on may have other languages: both errors name the key and what to do."""

  def record_of(**changes):
    config = config_of(world[0], **changes)
    store = open_rows(config, tmp_path)
    return rows_of(store), RunRecord(
      config=config.to_dict(), vocabulary_size=store.vocabulary_size, seq_len=SEQ_LEN, rows=str(world[0]),
      tokenizer_sha256=store.manifest["tokenizer_sha256"], rows_fingerprint=store.fingerprint, languages=store.languages,
    )  # fmt: skip

  with_pairs, without = record_of()[1], record_of(data__parallel_share=0.0)
  both, text = Workdir(tmp_path / "both"), Workdir(tmp_path / "text")
  for workdir, record in ((both, with_pairs), (text, without[1])):
    workdir.root.mkdir()
    record.write(workdir)
  message = r"share=0 leaves out en-fr, en-zh, which that run, with 0\.5, reads, .*: set config\.data\.parallel_share=0\.5"
  with pytest.raises(UserError, match=message + r', and --config\.phases="until=100%,parallel_share=0"'):
    branches.begin(str(both), without[1], without[0])
  rows, advised = record_of(phases=("until=100%,parallel_share=0",))
  with pytest.raises(UserError, match="has no sound checkpoint"):  # What is advised comes further.
    branches.begin(str(both), advised, rows)
  with pytest.raises(UserError, match=r"=0\.5, with config\.phases, reads en-fr, en-zh, which that run, with 0, does"):
    branches.begin(str(text), advised, rows)
  branches.refuse_other_languages(both, without[1])  # It has no checkpoint yet.
  monkeypatch.setattr(branches, "sound_steps", lambda folder: [8, 4])
  how = r', and --allow_change=phases --config\.phases="until=8;until=100%,parallel_share=0"'
  with pytest.raises(UserError, match=message + how):
    branches.refuse_other_languages(both, without[1])
  rows, advised = record_of(phases=("until=8", "until=100%,parallel_share=0"))
  branches.refuse_other_languages(both, advised)
  branches.refuse_other_past(both, phases.phases_of(advised.config, rows), rows, advised.config)
  with pytest.raises(UserError, match=r"config\.data\.languages=en, but all there, .*set it as there"):
    branches.refuse_other_languages(both, record_of(data__languages=("en",))[1])


def test_two_spellings_of_one_language_are_no_pair(world, monkeypatch):
  store = RowStore(world[0])
  monkeypatch.setitem(store.pairs, "en-fr", ("fr_FR", "fr"))
  message = r"rows in 'en-fr': 'fr_FR' and 'fr' are one language to this model \(fr\)"
  with pytest.raises(UserError, match=message + r".*leave them out by config\.data\.languages, or name both in config\.m"):
    with_languages(config_of(world[0]), store)
  with pytest.raises(UserError, match=message):
    sides_of(config_of(world[0], model__language_embeddings=False), store)
  named = config_of(world[0], model__languages=("en", "fr", "fr_FR", "sw", "zh_Hans"))
  sides = sides_of(named, store)
  assert sides is not None and sides[1] == (2, 1)


def test_pairs_have_their_share_and_alpha_is_within_each_kind():
  counts, parallel = np.array([1000, 10, 400, 100]), np.array([False, False, True, True])
  for share in (0.5, 0.25):
    mixture = Mixture(counts, 0.7, 3, parallel=parallel, parallel_share=share)
    assert mixture.shares[parallel].sum() == pytest.approx(share) and mixture.shares.sum() == pytest.approx(1)
    assert mixture.shares[0] / mixture.shares[1] == pytest.approx(100**0.7)
    assert mixture.shares[2] / mixture.shares[3] == pytest.approx(4**0.7)
    drawn = np.bincount(mixture.locate(np.arange(mixture.block_rows))[0])
    assert drawn[2:].sum() == pytest.approx(share * mixture.block_rows, abs=2)
  plain, alone = Mixture(counts, 0.7, 3), Mixture(counts, 0.7, 3, parallel=parallel & False, parallel_share=0.5)
  assert (plain.shares == alone.shares).all() and (plain.quotas == alone.quotas).all()
  only = Mixture(counts, 0.7, 3, among=parallel, parallel=parallel, parallel_share=0.5)
  assert only.shares[2:].sum() == pytest.approx(1)


def phases_of(rows, *texts, **changes):
  return phases.phases_of(tiny.config("rows", phases=texts, **changes).to_dict(), rows)


def test_a_phase_may_leave_pairs_out_and_cuts_none():
  rows = phases.Rows(("en", "en-fr", "fr"), np.array([50, 20, 30]), 32, {"en-fr": ("en", "fr")})
  first, second, third = phases_of(
    rows, "until=4,parallel_share=0", "until=8,parallel_share=0.25", "until=100%,parallel_share=1"
  )
  assert (first.languages, first.parallel_share) == (("en", "fr"), 0.0)
  assert (second.languages, second.parallel_share) == (rows.languages, 0.25)
  assert (third.languages, third.parallel_share) == (("en-fr",), 1.0)
  (whole,) = phases_of(rows)
  assert whole.parallel_share == 0.5
  (plain,) = phases_of(rows._replace(parallel={}), data__parallel_share=0.9)
  assert plain.parallel_share == 0.0  # It decides nothing there.
  phases_of(rows, "until=4,seq_len=16,parallel_share=0", "until=100%")
  for message, texts in {
    "seq_len=16 cuts rows, and pairs of parallel sentences cannot be cut": ("until=100%,seq_len=16",),
    r"parallel_share=2 must lie in \[0, 1\]": ("until=100%,parallel_share=2",),
    "but all of its languages are pairs": ("until=100%,languages=en-fr,parallel_share=0",),
  }.items():
    with pytest.raises(UserError, match=message):
      phases_of(rows, *texts)
  timeline = Timeline((first, second, third), rows, 0)
  read = np.array([timeline.rows(step) for step in (4, 8, 12)])
  assert read[0][1] == 0 and read[2][1] - read[1][1] == 4 * 16 and read[2].sum() == 12 * 16
  ids = [part.mixture.locate(np.arange(part.position, part.position_at(part.end))) for part in timeline.stretches]
  of_pair = np.concatenate([row[language == 1] for language, row, _ in ids])
  assert len(set(of_pair[:20].tolist())) == 20  # Each of its rows once an epoch, over the phases.


def test_a_phase_counts_languages_and_has_the_pairs_between_them():
  names, counts = ("de", "de-en", "en", "en-fr", "fr", "sw"), np.array([50, 50, 30, 60, 40, 3])
  rows = phases.Rows(names, counts, 32, {"de-en": ("de", "en"), "en-fr": ("en", "fr")})

  def languages_of(text):
    return phases_of(rows, f"until=100%,languages={text}")[0].languages

  assert languages_of("2") == ("de", "fr") and languages_of("3") == ("de", "de-en", "en", "en-fr", "fr")
  assert languages_of("4") == languages_of("all") == names
  assert languages_of("en+fr") == ("en", "en-fr", "fr") and languages_of("de+sw") == ("de", "sw")
  assert languages_of("de+en+fr+de-en") == ("de", "de-en", "en", "fr") and languages_of("en-fr") == ("en-fr",)
  with pytest.raises(UserError, match="languages=5: the run has 4 languages"):
    languages_of("5")
  plain = rows._replace(parallel={})
  assert [len(phases_of(plain, f"until=100%,languages={n}")[0].languages) for n in range(1, 7)] == [1, 2, 3, 4, 5, 6]


def test_sides_are_spelt_as_the_rows(world):
  assert rows_of(RowStore(world[0])).parallel == {"en-fr": ("en", "fr"), "en-zh": ("en", "zh_Hans")}
  assert rows_of(RowStore(world[0], ["en-zh", "en"])).parallel == {"en-zh": ("en", "zh")}


def test_masks_fall_on_both_sides(world):
  rows = world[0]
  store = RowStore(rows, ["en-fr"])
  with held_out_batches(store, BatchSpec(8, None, 16, 0, 0.4), split="train") as batches:
    (batch, *_) = list(batches)
  whole = store.read("train", np.zeros(8, int), np.arange(8))
  of_side = {False: 0, True: 0}
  for row, positions, weights, labels in zip(whole, batch["positions"], batch["weights"], batch["labels"]):
    ends = np.cumsum(row == EOS)
    for position, weight, label in zip(positions, weights, labels):
      if weight:
        assert row[position] == label > EOS
        of_side[bool(ends[position] % 3)] += 1  # Each pair has three </s>.
  assert min(of_side.values()) > 10


# --- a run -----------------------------------------------------------------------------------------------------------


def config_of(rows, **changes):
  c = tiny.config(rows)
  c.model.update(family="xlm", max_positions=SEQ_LEN, layer_norm_epsilon=1e-12)
  c.data.alpha = 0.7
  c.alarms.share_drift = 0.0
  for name, value in changes.items():
    c.update_from_flattened_dict({name.replace("__", "."): value})
  return c


@pytest.mark.slow
def test_a_run_on_text_and_pairs_is_exact_on_resume(world, tmp_path):
  rows = world[0]
  store, config = RowStore(rows), config_of(rows)
  broken, whole = tmp_path / "broken", tmp_path / "whole"
  assert tiny.run(config, broken, store, stop=6) == 42
  assert tiny.run(config, broken, store) == tiny.run(config, whole, store) == 0
  for name in ("train.jsonl", "held_out.jsonl", "planned_epochs.tsv"):
    assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
  table = (whole / "planned_epochs.tsv").read_text()
  assert [line.split("\t")[0] for line in table.splitlines()][1:] == list(store.languages)
  from xlmr_jax.run.logs import read_held_out, read_train

  last = read_held_out(Workdir(whole))[-1]
  assert set(last["languages"]) == set(store.languages)
  single = [values["loss"] for name, values in last["languages"].items() if name not in PAIRS]
  assert last["mean_loss"] == pytest.approx(np.mean(single))  # Pairs are no part of what runs are compared by.
  read = read_train(Workdir(whole))[-1]["languages"]
  assert sum(read[name]["rows"] for name in PAIRS) == pytest.approx(12 * 16 / 2, abs=14)


@pytest.mark.slow
def test_a_run_that_turns_to_pairs_and_away_again_is_exact_on_resume(world, tmp_path):
  """It is stopped in the phase that reads both, whose pairs config.data.parallel_share alone would leave out."""
  config = config_of(
    world[0], data__parallel_share=0.0, held_out__every_steps=0, held_out__max_rows_per_language=2,
    phases=("until=4", "until=9,parallel_share=0.5", "until=100%,parallel_share=0.75"),
  )  # fmt: skip
  store = open_rows(config, tmp_path)
  broken, whole = tmp_path / "broken", tmp_path / "whole"
  assert tiny.run(config, broken, store, stop=6) == 42
  assert tiny.run(config, broken, store) == tiny.run(config, whole, store) == 0
  for name in ("train.jsonl", "held_out.jsonl", "planned_epochs.tsv"):
    assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
  from xlmr_jax.run.logs import read_train

  pairs = {line["step"]: sum(line["languages"][name]["rows"] for name in PAIRS) for line in read_train(Workdir(whole))}
  assert pairs[3] == 0 and pairs[9] == pytest.approx(5 * 8, abs=8) and pairs[12] - pairs[9] == pytest.approx(3 * 12, abs=8)


def test_rows_are_scored_without_the_pairs_that_a_model_would_read_as_running_text(world, capsys):
  rows, _, _ = world
  sha256 = read_manifest(rows)["tokenizer_sha256"]
  texts = ("en", "fr", "sw", "zh_Hans")
  assert held_out_score.open_rows(rows, config_of(rows, model__family="xlmr"), sha256).languages == texts
  assert "left out: en-fr, en-zh, pairs" in capsys.readouterr().err
  for reads in (config_of(rows), config_of(rows, model__family="xlmr", model__isolate_documents=True)):
    assert set(held_out_score.open_rows(rows, reads, sha256).languages) == {*texts, *PAIRS}
  assert capsys.readouterr().err == ""
  losses = {name: {"loss": n, "bits_per_byte": 2.0 * n} for n, name in enumerate(("en", "en-fr", "fr"), 1)}
  found = {"step": 4, "rows": "rows", "languages": losses}
  assert held_out_score.means(found) == {"step": 4, "languages": 3, "loss": 2.0, "bits_per_byte": 4.0}
  losses["en-fr"] = {"loss": 900.0, "bits_per_byte": 900.0}
  assert held_out_score.means(found | {"parallel": ["en-fr"]}) == {
    "step": 4,
    "languages": 2,
    "loss": 2.0,
    "bits_per_byte": 4.0,
  }


# --- a sweep, the figure, words --------------------------------------------------------------------------------------


def test_a_sweep_builds_the_pairs_after_the_text(world, tmp_path):
  from pathlib import Path

  from xlmr_jax.sweep import rows as rows_of_sweep
  from xlmr_jax.sweep.runs import Rows
  from xlmr_jax.sweep.studies import demo_rows

  spec, out = demo_rows(3000, parallel=True), tmp_path / "rows" / "demo_pairs"
  flags = [[word.partition("=")[0] for word in command[3:]] for command in rows_of_sweep.build_commands(spec, out, None)]
  assert [one[0] for one in flags] == ["train_vocabulary", "build_rows", "build_rows"]
  assert "--text" in flags[1] and "--parallel" in flags[2] and "--add" in flags[2] and "--text" not in flags[2]
  text = rows_of_sweep.build_commands(Rows("r", 9, text="text", parallel="pairs", kind="bpe"), out, Path("/t"))
  assert "--kind=bpe" in text[0] and "--text=/t/text" in text[1] and "--parallel=/t/pairs" in text[2]
  assert rows_of_sweep.is_built(spec, world[0]) and not rows_of_sweep.is_built(spec, out)
  unreadable = tmp_path / "unreadable"  # as a store in a bucket is while another process puts a new one into its place
  unreadable.mkdir()
  (unreadable / "manifest.json").write_text("{")
  assert not rows_of_sweep.is_built(spec, unreadable)
  own = [type("Run", (), {"rows": Rows("r", 9, text="text", parallel="pairs")})()]
  with pytest.raises(UserError, match=r"there is no .*/pairs, from which rows r take their parallel sentences"):
    rows_of_sweep.refuse_missing(own, None, tmp_path / "own", tmp_path)
  (tmp_path / "pairs").mkdir()
  (tmp_path / "pairs" / "a.en-fr.en").write_text("x")
  rows_of_sweep.refuse_missing(own, None, tmp_path / "own", tmp_path)
  assert rows_of_sweep.build_commands(spec, world[0], None)[0][3] == "build_rows"  # The text's are there.
  with pytest.raises(UserError, match="those of parallel sentences with --parallel --add"):
    rows_of_sweep.refuse_missing([type("Run", (), {"rows": spec})()], tmp_path, tmp_path, None)


def test_the_figure_reads_a_sentence_in_three_ways(world):
  from benchmarks import tlm

  store = RowStore(world[0], ["en-zh"])
  pairs = tlm.pairs_of(store.read("train", np.zeros(4, int), np.arange(4)))
  assert [tuple(map(tuple, pair)) for pair in pairs] == pairs_in(store.read("train", np.zeros(4, int), np.arange(4)))
  for side in (0, 1):
    own, other = pairs[0][side], pairs[0][1 - side]
    found = tlm.readings(tlm.Sentence("en-zh", side, own, other), [9, 9], np.array([0]), 89, (3, 5))
    assert set(found) == set(tlm.WAYS)
    for way, row in found.items():
      assert row.labels == [own[0]] and [row.ids[place] for place in row.masks] == [89] and row.ids.count(89) == 1
      assert row.languages == ((3, 5)[side],) * 2 if way == "alone" else (3, 5)
    assert len(found["translation"].ids) == len(own) + len(other) + 4 and found["another"].ids.count(9) >= 2


def test_rows_of_pairs_may_tell_words(world, tmp_path):
  pytest.importorskip("icu4py")
  folder = tmp_path / "pairs"
  write_pairs(folder)
  build_rows(ParallelText(folder, ["en-fr"]), world[2].path, tmp_path / "rows", seq_len=SEQ_LEN, held_out=0.0, workers=1,
             word_starts=True)  # fmt: skip
  plain, marked = (RowStore(tmp_path / "rows", marks_words=marks) for marks in (False, True))
  places = np.zeros(5, int), np.arange(5)
  ids, with_marks = plain.read("train", *places), marked.read("train", *places)
  assert (with_marks % 2**30 == ids).all() and ((with_marks >= 2**30) <= (ids > EOS)).all()
  assert (with_marks[:, 1] >= 2**30).all()  # The first piece of a text begins a word.
