"""Phases: what is read over their edges, how they are written and refused, and runs that are stopped around an edge."""

import contextlib
import itertools
import json
import logging
import shutil

import jax
import numpy as np
import pytest

from tests import tiny
from tests.test_mixture import CC100, check_epochs
from tests.test_train import assert_same_run
from xlmr_jax.config import default_config, variant
from xlmr_jax.config_checks import check_config
from xlmr_jax.data import phases, pipeline
from xlmr_jax.data.mixture import Mixture
from xlmr_jax.data.phases import Rows, phases_of
from xlmr_jax.data.timeline import Timeline, describe, table
from xlmr_jax.errors import EXIT_DONE, EXIT_RESTART, UserError
from xlmr_jax.run.logs import read_train
from xlmr_jax.run.metrics import RunLog
from xlmr_jax.run.workdir import Workdir
from xlmr_jax.training import loop, preparation, program, recovery, segments, sharding
from xlmr_jax.training.optimizer import cosine_schedule, wsd_schedule
from xlmr_jax.training.recovery import Recovery

NAMES = tuple(f"l{i:02d}" for i in range(100))
WORLD = Rows(NAMES, CC100 * 20, 512)  # languages that are numbered by arrival, and languages that are not
THREE = (
  "until=5,alpha=0.7,languages=aa+bb", "until=9,alpha=0.5,mask_share=0.3,batch_rows=8",
  "until=end,alpha=0.3,seq_len=16,batch_rows=32",
)  # fmt: skip


def timeline_of(texts, rows=WORLD, restarts=(), seed=3, **changes):
  values = {"train_steps": 100, "batch_rows": 64, **changes}
  config = {"phases": texts, "data": default_config().data.to_dict(), **values}
  return Timeline(phases_of(config, rows), rows, seed, restarts)


def read(timeline, begin, end):
  """(language, row, epoch) of all rows of the store that steps [begin, end) read."""
  found = []
  for step in range(begin, end):
    part = timeline.at(step)
    found.append(part.mixture.locate(part.position_at(step) + np.arange(part.rows_per_step)))
  return tuple(np.concatenate(x) for x in zip(*found))


# --- the order of the rows -----------------------------------------------------------------------------------------


def random_phases(rng):
  """Three to six phases of 100 languages with whatever there is to choose."""
  edges = np.sort(rng.choice(np.arange(1, 100), rng.integers(2, 6), replace=False))
  chosen = []
  for edge in [*edges, 100]:
    alpha, languages, cuts = rng.choice([0.0, 0.3, 0.7, 1.0]), rng.integers(1, 101), rng.choice([1, 2, 4])
    names = "+".join(rng.choice(NAMES, languages, replace=False)) if rng.random() < 0.5 else str(languages)
    batch = 4 * int(rng.integers(1, 250))
    chosen.append(f"until={edge},alpha={alpha},languages={names},seq_len={512 // cuts},batch_rows={batch}")
  return chosen


@pytest.mark.parametrize("seed", range(6))
def test_a_row_comes_once_in_an_epoch_over_all_phases(seed):
  """100 languages, phases at random: no row twice, none left out but what the last phase has not come to."""
  timeline = timeline_of(random_phases(np.random.default_rng(seed)))
  language, row, epoch = read(timeline, 0, 100)
  seen = np.stack([language, row, epoch])
  assert np.unique(seen, axis=1).shape[1] == seen.shape[1]
  np.testing.assert_array_equal(np.bincount(language, minlength=100), timeline.rows(100))
  last = timeline.stretches[-1]
  unread = last.mixture.unread_after(last.position_at(100))
  assert len(unread.left) and len({stretch.mixture.number for stretch in timeline.stretches}) > 1
  for l in range(100):
    left = unread.left[unread.starts[l] : unread.starts[l + 1]]
    count, following = WORLD.counts[l], unread.following[l]
    known = np.concatenate([epoch[language == l], left // count])
    epochs = np.arange(-(-following // count))
    np.testing.assert_array_equal(np.bincount(known, minlength=len(epochs)), np.minimum(count, following - epochs * count))


@pytest.mark.parametrize("seed", range(4))
def test_no_batch_is_read_again_after_recoveries_over_edges(seed):
  """Also what the bad steps read, in whatever phase, is left out: every row that was ever read is another one."""
  rng = np.random.default_rng(100 + seed)
  texts, restarts, seen, at = random_phases(rng), [], [], 0
  for _ in range(3):
    end = int(rng.integers(at + 1, 100))
    seen.append(read(timeline_of(texts, restarts=restarts), at, end))
    at = int(rng.integers(0, end))
    restarts.append((at, end))
  seen.append(read(timeline_of(texts, restarts=restarts), at, 100))
  rows = np.concatenate([np.stack(x) for x in seen], axis=1)
  assert np.unique(rows, axis=1).shape[1] == rows.shape[1]


def test_one_phase_is_the_run_of_today(tiny_store):
  """Bit for bit: the positions of one mixture, batch after batch; also where phases say nothing but when they end."""
  mixture = Mixture(WORLD.counts, 0.3, 3)
  for texts in ((), ("until=30", "until=55%", "until=end,languages=all,alpha=0.3,seq_len=512")):
    for wanted, found in zip(mixture.locate(np.arange(100 * 64)), read(timeline_of(texts), 0, 100)):
      np.testing.assert_array_equal(wanted, found)
  prepared = tiny.prepared(tiny.config(phases=("until=3", "until=end")), tiny_store)
  spec = segments.spec_of(prepared.timeline().at(0), prepared.program.mesh, prepared.config)
  counts = tiny_store.counts("train")
  with pipeline.train_batches(tiny_store, Mixture(counts, 0.3, 0), spec, 2) as wanted, pipeline.stretch_batches(
    tiny_store, prepared.timeline().stretches,
    lambda part: segments.spec_of(part, prepared.program.mesh, prepared.config), 2,
  ) as found:  # fmt: skip
    for a, b in itertools.islice(zip(wanted, found), 5):
      for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_an_edge_anywhere_changes_nothing_that_was_read_before():
  whole = timeline_of(("until=40,alpha=0.7", "until=end,alpha=0.3,languages=60"))
  for edge in (39, 40, 41, 77):
    other = timeline_of((f"until={min(edge, 40)},alpha=0.7", f"until={max(edge, 41)},alpha=0.3,languages=60",
                         "until=end,alpha=1.0"))  # fmt: skip
    for a, b in zip(read(whole, 0, min(edge, 40)), read(other, 0, min(edge, 40))):
      np.testing.assert_array_equal(a, b)


def test_a_language_goes_on_where_it_was_and_a_new_one_begins_at_its_first_epoch():
  small = WORLD._replace(counts=np.maximum(CC100 // 40, 1))
  timeline = timeline_of(("until=50,languages=60,alpha=0.5", "until=end,languages=100,alpha=0.0"), small)
  check_epochs(small.counts, *read(timeline, 0, 50))
  language, _, epoch = read(timeline, 50, 100)
  before = timeline.epochs(50)
  assert np.all(before[60:] == 0) and np.all(before[:60] > 0) and before.max() > 2
  for l in range(100):
    assert epoch[language == l].min() == int(before[l])
  planned = timeline.planned_epochs()
  np.testing.assert_allclose(planned.sum(axis=0), timeline.epochs(100))


def test_rows_that_are_cut_keep_their_tokens_and_look_like_rows():
  rows = np.array([[0, 10, 11, 12, 13, 14, 2, 0], [0, 20, 2, 0, 21, 2, 1, 1], [0, 30, 31, 2, 1, 1, 1, 1]], np.int32)
  parts = pipeline.cut_rows(rows, 2)
  assert parts.tolist() == [[0, 10, 11, 2], [0, 14, 2, 1], [0, 20, 2, 1], [0, 2, 1, 1], [0, 30, 31, 2], [1, 1, 1, 1]]
  np.testing.assert_array_equal(pipeline.cut_rows(rows, 1)[1:], rows[1:])


def test_a_row_that_is_cut_stays_in_one_batch(tiny_store):
  prepared = tiny.prepared(tiny.config(phases=THREE), tiny_store)
  timeline, mesh = prepared.timeline(), prepared.program.mesh

  def spec_of(part):
    return segments.spec_of(part, mesh, prepared.config)

  with pipeline.stretch_batches(tiny_store, timeline.stretches, spec_of, 8) as batches:
    before, cut, *rest = batches
  assert (before["ids"].shape, cut["ids"].shape, len(rest)) == ((8, 32), (32, 16), 2)
  part = timeline.at(9)
  language, row, _ = part.mixture.locate(part.position_at(9) + np.arange(16))
  ids = pipeline.cut_rows(tiny_store.read("train", language, row), 2)
  np.testing.assert_array_equal(cut["language"], np.repeat(language, 2))
  for i in range(32):
    kept = np.setdiff1d(np.arange(16), cut["positions"][i][cut["weights"][i] > 0])
    np.testing.assert_array_equal(cut["ids"][i][kept], ids[i][kept])


# --- how phases are written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "texts",
  [
    ("until=60%,alpha=0.7", "until=100%,languages=l03+l01"),
    ("until=60% alpha=0.7", "until=end languages=l01+l03"),
    ("until=60,alpha=0.7;until=100,languages=l01+l03",),
    ("until=60%", "alpha=0.7", "until=100%", "languages=l01+l03"),  # as a flag's text arrives
    ("until=60%", "alpha=0.7;until=100%", "languages=l01+l03"),
  ],
)
def test_phases_mean_the_same_however_they_are_written(texts):
  found = timeline_of(texts).phases
  assert [(x.until, x.alpha, len(x.languages)) for x in found] == [(60, 0.7, 100), (100, 0.3, 2)]
  assert found[1].languages == ("l01", "l03")
  assert timeline_of(phases.canonical(texts)).phases == found and len(phases.canonical(texts)) == 2


@pytest.mark.parametrize(
  "texts, message",
  [
    (("until=60%,alfa=0.7", "until=end"), r"'alfa=0.7' is no KEY=VALUE of a phase; the keys are until, alpha, languages"),
    (("until=60%,alpha=", "until=end"), "'alpha=' is no KEY=VALUE"),
    (("alpha=0.7", "until=end"), "'alpha=0.7' does not begin with until="),
    (("until=60%", "alpha=0.7,until=end"), "'alpha=0.7,until=end' does not begin with until="),
    (("until=60%,alpha=0.7,alpha=0.3", "until=end"), "phase 1 has two alpha="),
    (("until=60%", "until=50%", "until=end"), r"phase 2 \(until=50%\): it ends at step 50, but begins at step 60"),
    (("until=0", "until=end"), "it ends at step 0, but begins at step 0"),
    (("until=60%", "until=200"), r"phase 2 \(until=200\): it ends at step 200, after config.train_steps=100"),
    (("until=60%", "until=90%"), "the last phase ends at step 90 of config.train_steps=100; end it with until=100%"),
    (("until=soon",), "until=soon is neither a step"),
    (("until=end,alpha=1.5",), r"phase 1 \(until=end,alpha=1.5\): alpha=1.5 must lie in \[0, 1\]"),
    (("until=end,alpha=nan",), "alpha=nan must lie"),
    (("until=end,alpha=much",), "alpha=much is no number"),
    (("until=end,batch_rows=1.5",), "batch_rows=1.5 is no whole number"),
    (("until=end,mask_share=1",), r"mask_share=1 must lie in \(0, 1\)"),
    (("until=end,languages=l01+zz",), "languages=l01.zz: the run has no rows of 'zz'; it has l00, l01"),
    (("until=end,languages=l01+l01",), "names a language twice"),
    (("until=end,languages=101",), "languages=101: the run has 100 languages"),
    (("until=end,seq_len=1024",), "seq_len=1024, but the rows have 512 tokens; .*build_rows --seq_len=1024"),
    (("until=end,seq_len=100",), "seq_len=100 does not divide the 512 tokens of a row"),
    (("until=end,seq_len=4",), "seq_len=4 must be at least 8"),
    (("until=end,seq_len=128,batch_rows=66",), "batch_rows=66 is no multiple of 4, the rows of 128 tokens"),
  ],
)
def test_a_wrong_phase_is_refused_by_name(texts, message):
  with pytest.raises(UserError, match=message):
    timeline_of(texts)


def test_the_largest_languages_by_number():
  rows = Rows(("aa", "bb", "cc", "dd"), np.array([5, 50, 5, 500]), 512)
  (phase,) = timeline_of(("until=end,languages=3",), rows).phases
  assert phase.languages == ("aa", "bb", "dd")  # Of equal ones, the first by name.


def test_a_batch_that_does_not_fit_the_devices_is_refused_with_its_phase(tiny_store):
  with pytest.raises(UserError, match=r"phase 2, with its own batch: config.batch_rows=12 does not divide"):
    preparation.prepare(tiny.config(phases=("until=3", "until=end,batch_rows=12")), tiny_store)


@pytest.mark.slow
def test_the_batch_of_a_phase_that_is_over_need_not_fit_the_devices(tiny_store, tmp_path, monkeypatch):
  """The run was moved from one device to eight, which 12 rows do not divide over."""
  config, make_mesh = tiny.config(phases=("until=3,batch_rows=12", "until=end")), sharding.make_mesh
  with monkeypatch.context() as patch:
    patch.setattr(sharding, "make_mesh", lambda data=-1, fsdp=1: make_mesh(data, fsdp, jax.devices()[:1]))
    assert loop.run(preparation.prepare(config, tiny_store), Workdir(tmp_path), tiny.StopAt(5)).step == 4
  with pytest.raises(UserError, match=r"phase 1, with its own batch: config.batch_rows=12 does not divide"):
    preparation.prepare(config, tiny_store, begin=2)
  prepared = preparation.prepare(config, tiny_store, begin=4)
  assert loop.run(prepared, Workdir(tmp_path), tiny.StopAt()).step == 12
  shutil.rmtree(tmp_path / "checkpoints")
  with pytest.raises(UserError, match=r"goes back to a phase with 12 rows of 32 tokens in a batch, which does not fit"):
    loop.run(prepared, Workdir(tmp_path), tiny.StopAt())


def test_a_timeline_with_recoveries_shares_what_was_counted():
  """And is the same as one that is made anew; the one without them stays as it is."""
  texts, restarts = ("until=40,alpha=0.7", "until=end,alpha=0.3,languages=60"), [(30, 45), (35, 60)]
  plain, anew = timeline_of(texts), timeline_of(texts, restarts=restarts)
  plain.rows(70)
  after = plain.after(restarts)
  for a, b in zip(read(after, 0, 100), read(anew, 0, 100)):
    np.testing.assert_array_equal(a, b)
  np.testing.assert_array_equal(after.rows(70), anew.rows(70))
  assert plain.stretches == plain.after(()).stretches and len(plain.stretches) == 2
  assert after.stretches[0].mixture is plain.stretches[0].mixture
  np.testing.assert_array_equal(plain.rows(71), timeline_of(texts).rows(71))


def test_more_short_rows_go_on_a_device():
  config = tiny.config(rows_per_device=2)
  phase = phases.Phase(9, 0.3, ("aa",), 0.15, 16, 64)
  assert segments.config_of(phase, config, 4, 8).rows_per_device == 8
  assert segments.config_of(phase, config, 1, 8).rows_per_device == 2
  other = phases.Phase(9, 0.3, ("aa",), 0.15, 16, 96)  # 96 / (8 devices x 2 rows) = 6: four times as many do not divide it
  assert segments.config_of(other, config, 4, 8).rows_per_device == 6


def test_runlocal_keeps_what_fits_any_rows():
  c = default_config()
  c.phases = ("until=900000,alpha=0.7,languages=60,seq_len=128,batch_rows=4096", "until=90%,mask_share=0.1", "until=end")
  c.optimizer.update(schedule="wsd", decay_steps=150_000)
  small = variant(c, "runlocal")
  assert phases.parse(small.phases) == [
    {"until": "60%", "alpha": "0.7"}, {"until": "90%", "mask_share": "0.1"}, {"until": "end"}
  ]  # fmt: skip
  check_config(small)
  for text in (
    ("until=98%,alpha=0.5", "until=100%"),
    ("until=1%", "until=2%,alpha=0.1", "until=end"),
    ("until=99.9%", "until=end"),
  ):
    c.phases = text
    small = variant(c.copy_and_resolve_references(), "runlocal")
    check_config(small)
    assert len(phases.parse(small.phases)) == len(text)
  assert variant(default_config(), "phases=(until=50%,alpha=1.0;until=end)").phases == ("until=50%", "alpha=1.0;until=end")


def test_a_past_phase_may_not_change():
  old = timeline_of(("until=40,alpha=0.7", "until=end")).phases
  added = timeline_of(("until=40,alpha=0.7", "until=60", "until=end,alpha=0.1")).phases
  phases.refuse_other_past(old, added, 60)
  with pytest.raises(UserError, match=r"61 steps have been made, and phase 2 .*until: 61 then, 60 now.*branch off"):
    phases.refuse_other_past(old, added, 61)
  with pytest.raises(UserError, match=r"phase 1 of them would change \(alpha: 0.7 then, 0.5 now\)"):
    phases.refuse_other_past(old, timeline_of(("until=40,alpha=0.5", "until=end")).phases, 10)
  phases.refuse_other_past(old, timeline_of(("until=40,alpha=0.5", "until=end")).phases, 0)


def test_the_plan_is_aligned_and_names_the_extremes():
  timeline = timeline_of(("until=50,languages=60,alpha=0.5", "until=end,alpha=0.0"))
  head, *lines = describe(timeline, "FILE")
  assert head == "planned epochs (each language: FILE):" and len(lines) == 4 and len(set(map(len, lines))) == 1
  planned = timeline.planned_epochs()
  assert f"{planned[1].max():.3g} {NAMES[int(planned[1].argmax())]}" in lines[2] and "100" in lines[3]
  first, *rest = table(timeline).splitlines()
  assert first.split("\t") == ["language", "rows", "steps_0_50", "steps_50_100", "all"] and len(rest) == 100
  assert rest[7].split("\t")[2] == f"{planned[0, 7]:.4f}" and rest[99].split("\t")[2] == "0.0000"
  few = Rows(NAMES[:3], np.array([50, 60, 70]), 32)
  said = describe(timeline_of(("until=50", "until=end,alpha=1.0"), few))
  of_few = timeline_of(("until=50", "until=end,alpha=1.0"), few).planned_epochs()
  assert said[5].split() == ["epochs", "of", "phase", "1", "phase", "2", "all"] and len(said) == 9  # of each language
  assert said[7].split() == [NAMES[1], *(f"{x:.3g}" for x in (*of_few[:, 1], of_few[:, 1].sum()))]


# --- learning rates ------------------------------------------------------------------------------------------------


def test_schedules_by_hand():
  common = {"peak_lr": 2.0, "warmup_steps": 10, "train_steps": 110, "end_lr": 0.5}
  cosine, wsd = cosine_schedule(**common), wsd_schedule(**common, decay_steps=40)
  flat = wsd_schedule(**common, decay_steps=0)
  for schedule in (cosine, wsd, flat):
    assert [float(schedule(step)) for step in (0, 5, 10)] == [0.0, 1.0, 2.0]
  assert [float(cosine(step)) for step in (60, 110, 200)] == pytest.approx([1.25, 0.5, 0.5])
  assert [float(wsd(step)) for step in (69, 70, 80, 110, 200)] == pytest.approx([2.0, 2.0, 0.5 + 1.5 * 0.5, 0.5, 0.5])
  assert float(flat(109)) == float(flat(110)) == 2.0


def test_the_decay_may_be_the_last_phase(tiny_store):
  config = tiny.config("demo", phases=("until=9", "until=end"), optimizer__schedule="wsd", optimizer__decay_steps=-1)
  check_config(config)
  _, schedule = program.build_optimizer(preparation.prepare(config, tiny_store).config)
  assert [float(schedule(step)) for step in (9, 12)] == pytest.approx([1e-2, 0.0]) and 0.0 < float(schedule(10)) < 9e-3


def test_a_decay_as_long_as_the_last_phase_begins_where_the_run_branched_off(tiny_store):
  """Or behind the warm-up, if that is later: else the rate would jump."""
  past = (phases.Phase(8, 0.3, tuple(tiny_store.languages), 0.15, tiny.SEQ_LEN, 16),)

  def decay(branched_at, *own):
    config = tiny.config("demo", phases=own, optimizer__schedule="wsd", optimizer__decay_steps=-1)
    found = preparation.prepare(config, tiny_store, branched_at).config
    return found.train_steps - found.optimizer.decay_steps, found.optimizer.warmup_steps

  assert decay(past, "until=end,alpha=0.9")[0] == decay(past, "until=2", "until=end,alpha=0.9")[0] == 8
  begin, warmup = decay((), "until=end")
  assert begin == warmup > 0


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"schedule": "linear"}, "optimizer.schedule='linear': must be one of polynomial, cosine, wsd"),
    ({"decay_steps": 5}, "decay_steps=5: only schedule=wsd has them"),
    ({"schedule": "wsd", "decay_steps": 10}, "decay_steps=10: must be -1.*optimizer.warmup_steps = 9"),
    ({"schedule": "wsd", "decay_steps": -1}, "the last of config.phases, of which there are none"),
  ],
)
def test_a_decay_that_there_is_not_is_refused(changes, message):
  config = tiny.config("demo", **{f"optimizer__{key}": value for key, value in changes.items()})
  with pytest.raises(UserError, match=message):
    check_config(config)


# --- runs ----------------------------------------------------------------------------------------------------------


def config_of(**changes):
  return tiny.config(**{"phases": THREE, "held_out__every_steps": 0, "held_out__max_rows_per_language": 2} | changes)


TIMED = {}  # {step of a line of three_phases: how many steps its time is the mean of}


@pytest.fixture(scope="module")
def three_phases(tiny_store, tmp_path_factory):
  """A run of three phases that differ in everything, unbroken."""
  workdir, write_timing = tmp_path_factory.mktemp("three_phases"), RunLog._write_timing

  def watched(self, done, *more):
    TIMED[done] = self._clock_steps
    write_timing(self, done, *more)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(RunLog, "_write_timing", watched)
    assert tiny.run(config_of(), workdir, tiny_store) == EXIT_DONE
  return workdir


def test_a_time_is_of_steps_of_one_phase(three_phases, tiny_store):
  """The phases end at steps 5 and 9, and a line is written every three steps, for those since the edge if there is one."""
  assert TIMED[6] == 1 and all(1 <= steps <= 3 for steps in TIMED.values()) and list(TIMED) == [3, 6, 9, 12]
  lines = [line for line in map(json.loads, Workdir(three_phases).timing_log.read_text().splitlines()) if "step_s" in line]
  tokens = {line["step"]: round(line["tokens_per_s"] * line["step_s"]) for line in lines}
  assert tokens == {3: 16 * 32, 6: 8 * 32, 9: 8 * 32, 12: 32 * 16}


def test_planned_and_realised_epochs_are_equal(three_phases, tiny_store):
  timeline = tiny.prepared(config_of(), tiny_store).timeline()
  *_, last = read_train(Workdir(three_phases))
  assert [line.get("phase") for line in read_train(Workdir(three_phases))] == [1, 2, 2, 3]
  planned = timeline.planned_epochs().sum(axis=0)
  for i, name in enumerate(tiny_store.languages):
    of = last["languages"][name]
    assert of["rows"] == timeline.rows(12)[i] == round(planned[i] * tiny_store.counts("train")[i])
    assert of["epochs"] == round(planned[i], 4) and abs(of["share"] - of["share_wanted"]) < 0.06
  cells_of = [line.split("\t") for line in Workdir(three_phases).planned_epochs.read_text().splitlines()[1:]]
  assert [float(cells[-1]) for cells in cells_of] == pytest.approx(planned, abs=1e-4)
  assert float(cells_of[2][2]) == 0.0  # cc joins in the second phase.


# Stops one step before each edge, at it, and one step after it: from there the run goes on as it is resumed.
@pytest.mark.parametrize("stops", [[4, 1, 1, 2, 1, 1], pytest.param([5, 4], marks=pytest.mark.slow)])
def test_stopped_around_an_edge_it_is_the_same_run(three_phases, tiny_store, tmp_path, stops):
  for stop in stops:
    assert tiny.run(config_of(), tmp_path, tiny_store, stop) == EXIT_RESTART
  assert tiny.run(config_of(), tmp_path, tiny_store) == EXIT_DONE
  assert_same_run(three_phases, tmp_path, 12)


@pytest.mark.slow
def test_each_shape_is_compiled_once(tiny_store, tmp_path, monkeypatch):
  """Two phases of one shape share a program; the held-out step has one."""
  made, original, compiled = [], segments.CompiledSteps._compile_train, []

  def compile_train(self, shape):
    made.append(shape)
    return original(self, shape)

  monkeypatch.setattr(segments.CompiledSteps, "_compile_train", compile_train)

  class Handler(logging.Handler):
    def emit(self, record):
      if record.getMessage().startswith("Finished XLA compilation of "):
        compiled.append(record.getMessage().split()[4])

  logger, handler = logging.getLogger("jax._src.dispatch"), Handler()
  monkeypatch.setattr(logger, "propagate", False)
  monkeypatch.setattr(logger, "disabled", False)
  monkeypatch.setattr(logger, "level", logging.DEBUG)
  jax.config.update("jax_log_compiles", True)
  logger.addHandler(handler)
  try:
    texts = ("until=3,alpha=1.0", "until=6,seq_len=16", "until=9,languages=aa+bb", "until=end,seq_len=16,alpha=0.1")
    config = config_of(phases=texts, held_out__every_steps=4)
    assert loop.run(preparation.prepare(config, tiny_store), Workdir(tmp_path), tiny.StopAt()).step == 12
  finally:
    logger.removeHandler(handler)
    jax.config.update("jax_log_compiles", False)
  assert sorted(made) == [(16, 16, 8), (16, 32, 8)]
  assert compiled.count("jit(train_step)") == 2 and compiled.count("jit(held_out_step)") == 1


@pytest.mark.slow
def test_a_recovery_over_an_edge(tiny_store, tmp_path, monkeypatch):
  """Steps 3 to 6 are bad, two of them in the second phase. The run goes back to step 2, and resumed it is the same."""
  config, original, bad = config_of(max_bad_steps=4, checkpoint__every_steps=2), pipeline.stretch_batches, set()

  @contextlib.contextmanager
  def poisoned(store, stretches, spec_of, start_step):
    with original(store, stretches, spec_of, start_step) as batches:

      def stream():
        for step, batch in zip(itertools.count(start_step), batches):
          is_bad = 3 <= step < 7 and len(stretches) == 3  # before the recovery
          bad.update({step} if is_bad else ())
          yield batch | {"weights": batch["weights"] * np.float32(np.nan)} if is_bad else batch

      yield stream()

  monkeypatch.setattr(pipeline, "stretch_batches", poisoned)
  assert tiny.run(config, tmp_path / "whole", tiny_store) == EXIT_DONE
  (entry,) = recovery.read_ledger(Workdir(tmp_path / "whole"))
  assert (entry.at, entry.steps) == (2, (3, 7)) and bad == {3, 4, 5, 6}
  timeline = tiny.prepared(config, tiny_store).timeline((entry,))
  # What the steps from 2 on read was read by none of the steps up to 7 before.
  before = read(tiny.prepared(config, tiny_store).timeline(), 0, 7)
  after = read(timeline, 2, 12)
  rows = np.concatenate([np.stack(before), np.stack(after)], axis=1)
  assert np.unique(rows, axis=1).shape[1] == rows.shape[1]
  monkeypatch.setattr(pipeline, "stretch_batches", original)
  (tmp_path / "again").mkdir()
  recovery.write_ledger(Workdir(tmp_path / "again"), (entry,))
  assert tiny.run(config, tmp_path / "again", tiny_store, 6) == EXIT_RESTART
  assert tiny.run(config, tmp_path / "again", tiny_store) == EXIT_DONE
  assert_same_run(tmp_path / "whole", tmp_path / "again", 12)


@pytest.mark.slow
def test_one_device_is_as_good_as_eight(three_phases, tiny_store, tmp_path, monkeypatch):
  make_mesh = sharding.make_mesh
  monkeypatch.setattr(sharding, "make_mesh", lambda data=-1, fsdp=1: make_mesh(data, fsdp, jax.devices()[:1]))
  prepared = preparation.prepare(config_of(), tiny_store)
  assert loop.run(prepared, Workdir(tmp_path), tiny.StopAt()).step == 12
  for a, b in zip(read_train(Workdir(three_phases)), read_train(Workdir(tmp_path)), strict=True):
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    assert [of["rows"] for of in a["languages"].values()] == [of["rows"] for of in b["languages"].values()]


def test_ledger_entries_of_before_phases_still_count():
  """A ledger of one phase gives the positions that `skipped` counts to."""
  ledger = (Recovery(8, 4, (9, 12), "why"),)
  timeline = timeline_of((), restarts=recovery.restarts_of(ledger))
  assert [timeline.at(step).position_at(step) // 64 for step in (7, 8, 20)] == [7, 12, 24]
  assert json.dumps(timeline.rows(10).tolist())
