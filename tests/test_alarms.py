"""Alarms: each kind is raised by its cause, once, and a resumed run raises what an unbroken one does."""

import json
import math
import types

import numpy as np
import pytest

from tests import tiny
from tests.test_metrics_log import lines_of, metrics_of, open_log
from xlmr_jax.config import default_config
from xlmr_jax.config_checks import check_config
from xlmr_jax.errors import UserError
from xlmr_jax.run import alarms
from xlmr_jax.run.alarms import after_held_out, after_train, new_state
from xlmr_jax.run.board import hparams_of


def limits(**changes):
  """Nothing but what a test asks for."""
  return types.SimpleNamespace(**{"max_epochs": 0.0, "held_out_rise": 0.0, "share_drift": 0.0, "spike_nats": 0.0} | changes)


def train_line(step, **languages):
  """languages: (loss, rows, epochs, wanted share)."""
  names = ("loss", "rows", "epochs", "share_wanted")
  return {"step": step, "languages": {name: dict(zip(names, values)) for name, values in languages.items()}}


def raised(lines, limits, after=after_train, state=None):
  """(step, kind, language) of all alarms over the lines, whose state passes through JSON each time."""
  state, found = state or new_state(), []
  for line in lines:
    state, new = after(json.loads(json.dumps(state)), line, limits)
    found += new
  return [alarm[:3] for alarm in found]


def held_out_lines(losses, means):
  return [{"step": 10 * i, "mean_loss": mean, "languages": {"sw": {"loss": loss}, "en": {"loss": 1.0}}}
          for i, (loss, mean) in enumerate(zip(losses, means))]  # fmt: skip


def test_a_language_past_its_epochs_is_named_once():
  lines = [
    train_line(step, sw=(2.0, 10 * step, step / 10, 0.5), en=(2.0, 10 * step, step / 90, 0.5)) for step in range(1, 60)
  ]
  assert raised(lines, limits(max_epochs=3.0)) == [(31, "epochs", "sw")]
  assert raised(lines, limits()) == []


def test_a_held_out_loss_that_turns_up_while_the_mean_falls():
  falling = [5.0, 4.0, 3.5, 3.2, 3.0, 2.9, 2.8]
  up = [5.0, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5]
  assert raised(held_out_lines(up, falling), limits(held_out_rise=0.01), after_held_out) == [(30, "turned_up", "sw")]
  assert raised(held_out_lines(up, up), limits(held_out_rise=0.01), after_held_out) == []  # The mean rises too.
  once = [5.0, 3.0, 3.1, 2.9, 3.0, 2.8, 2.9]
  assert raised(held_out_lines(once, falling), limits(held_out_rise=0.01), after_held_out) == []  # never twice in a row
  assert raised(held_out_lines(up, falling), limits(held_out_rise=0.5), after_held_out) == []
  assert raised(held_out_lines(up, falling), limits(), after_held_out) == []


def test_a_language_without_a_finite_loss_does_not_silence_the_others():
  falling, up = [5.0, 4.0, 3.5, 3.2, 3.0, 2.9, 2.8], [5.0, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5]
  lines = held_out_lines(up, falling)
  for line, mean in zip(lines, falling):
    line["languages"] |= {"xx": {"loss": math.nan}, "en": {"loss": mean}}
    line["mean_loss"] = math.nan
  assert raised(lines, limits(held_out_rise=0.01), after_held_out) == [(30, "turned_up", "sw")]


def test_a_cause_that_went_and_came_again_is_a_new_one():
  losses = [3.0, 3.1, 3.2, 3.3, 2.0, 2.1, 2.2, 2.3]
  means = [5.0, 4.0, 3.9, 3.8, 3.7, 3.6, 3.5, 3.4]
  found = raised(held_out_lines(losses, means), limits(held_out_rise=0.01), after_held_out)
  assert found == [(20, "turned_up", "sw"), (60, "turned_up", "sw")]


def test_a_share_that_drifts_beyond_chance():
  def lines(share):
    rows = [(1000 * step, round(share * 1000 * step)) for step in range(1, 50)]
    return [train_line(whole // 1000, sw=(2.0, sw, 0.1, 0.1), en=(2.0, whole - sw, 0.1, 0.9)) for whole, sw in rows]

  assert raised(lines(0.1), limits(share_drift=0.05)) == raised(lines(0.104), limits(share_drift=0.05)) == []
  found = raised(lines(0.12), limits(share_drift=0.05))
  assert [alarm[1:] for alarm in found] == [("share", "sw")] and found[0][0] < 40
  assert raised(lines(0.12), limits()) == []


def test_a_tiny_share_that_the_log_has_rounded_is_no_drift():
  lines = [
    train_line(step, sw=(2.0, 55 * step, 0.1, 0.000005), en=(2.0, 10**7 * step, 0.1, 0.999995)) for step in range(1, 900)
  ]
  assert raised(lines, limits(share_drift=0.05)) == []


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_spike_is_named_by_language_and_once(noise):
  rng = np.random.default_rng(0)

  def loss(step):
    return 3.0 - 0.01 * step + rng.normal(0, noise) + (2.0 if step in (40, 41) else 0.0)

  lines = [train_line(step, sw=(loss(step), step, 0.0, 0.5), en=(2.0, step, 0.0, 0.5)) for step in range(1, 80)]
  assert raised(lines, limits(spike_nats=1.0)) == [(40, "spike", "sw")]
  assert raised(lines, limits()) == []


def test_a_spike_below_the_first_losses_of_a_run_is_one():
  lines = [train_line(step, sw=(2.0 + 7.0 * 0.9**step + 3.0 * (step == 60), step, 0.0, 1.0)) for step in range(1, 80)]
  assert raised(lines, limits(spike_nats=1.0)) == [(60, "spike", "sw")]


def test_a_held_out_pass_that_is_made_again_counts_once():
  lines = held_out_lines([5.0, 3.0, 3.1, 2.9], [5.0, 4.0, 3.5, 3.2])
  again = [lines[0], lines[1], lines[2], lines[2], lines[3]]
  assert raised(again, limits(held_out_rise=0.01), after_held_out) == []


def test_a_noisy_language_is_no_spike_and_a_lasting_rise_is_one_spike():
  rng = np.random.default_rng(0)
  noisy = [train_line(step, sw=(5.0 + rng.normal(0, 0.8), step, 0.0, 1.0)) for step in range(1, 300)]
  assert raised(noisy, limits(spike_nats=1.0)) == []
  lasting = [train_line(step, sw=(3.0 if step < 50 else 6.0, step, 0.0, 1.0)) for step in range(1, 300)]
  assert raised(lasting, limits(spike_nats=1.0)) == [(50, "spike", "sw")]
  unknown = [train_line(step, sw=(None if step % 2 else float("nan"), step, 0.0, 1.0)) for step in range(1, 30)]
  assert raised(unknown, limits(spike_nats=1.0)) == []


def test_a_phase_with_another_loss_is_no_spike():
  """A phase that masks more has a higher loss in all languages, from its first line on."""
  lines = [train_line(step, sw=(3.0 + 2.0 * (step >= 40) + 4.0 * (step == 70), step, 0.0, 1.0)) for step in range(1, 90)]
  assert raised(lines, limits(spike_nats=1.0)) == [(40, "spike", "sw")]  # and it hides the next one
  in_phases = [line | {"phase": 1 + (line["step"] >= 40)} for line in lines]
  assert raised(in_phases, limits(spike_nats=1.0)) == [(70, "spike", "sw")]


def test_losses_that_do_not_compare_with_those_before_raise_nothing():
  """A branch with other masks: its first pass has the step of the other run's last one, and its losses are higher."""
  asked = limits(held_out_rise=0.01, spike_nats=1.0)
  state = new_state()
  for line in [train_line(step, sw=(2.0, step, 0.0, 1.0)) for step in range(1, 30)]:
    state, _ = after_train(state, line, asked)
  for line in held_out_lines([2.0, 2.1, 2.2], [5.0, 4.0, 3.0]):
    state, _ = after_held_out(state, line, asked)
  assert state["raised"] == [["turned_up", "sw"]]
  held_out = [line | {"step": line["step"] + 20} for line in held_out_lines([5.0, 5.1, 5.2], [2.9, 2.8, 2.7])]
  train = [train_line(step, sw=(5.0, step, 0.0, 1.0)) for step in range(30, 60)]
  assert raised(held_out, asked, after_held_out, state) == [] and raised(train, asked, state=state) != []
  fresh = alarms.without_losses(state)
  assert raised(train, asked, state=fresh) == []
  assert raised(held_out, asked, after_held_out, fresh) == [(40, "turned_up", "sw")]  # A rise of its own is one.


def test_a_line_of_an_older_version_raises_nothing():
  lines = [{"step": step, "languages": {"sw": {"loss": 2.0}}} for step in range(20)]
  assert raised(lines, default_config().alarms) == []


def test_the_log_says_an_alarm_once_and_a_resumed_log_says_the_rest(tmp_path, capsys):
  """Killed between two checkpoints, also right after a held-out pass that is made again at the step of the checkpoint."""
  bits, asked = np.ones(2), default_config().alarms
  asked.max_epochs = 0.5  # aa passes it at step 5, bb at step 3
  held_out = {2: (20.0, 30.0), 4: (10.0, 31.0), 6: (5.0, 33.0)}  # bb turns up at step 6

  def go_on(folder, steps, notes=None, held_out_at=-1):
    log = open_log(folder, start=steps[0], notes=notes, train_steps=9, every_steps=1, held_out_at=held_out_at, limits=asked)
    for step in steps:
      log.flush()
      if step in held_out and step != held_out_at:
        log.held_out(step, np.array(held_out[step]), np.array([10.0, 10.0]), bits)
      if step < 9:
        log.later(step, metrics_of(step))
    log.flush()
    notes = json.loads(json.dumps(log.notes()))
    log.close()
    return notes

  whole, parts = tmp_path / "whole", tmp_path / "parts"
  whole.mkdir()
  parts.mkdir()
  go_on(whole, range(10))
  said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("alarm")]
  found = [(line["step"], line["kind"], line["language"]) for line in lines_of(whole / "alarms.jsonl")]
  assert found == [(3, "epochs", "bb"), (6, "epochs", "aa"), (6, "turned_up", "bb")] and len(said) == 3
  notes = go_on(parts, range(6))  # saved at step 6, before its held-out pass
  go_on(parts, range(6, 8), notes, held_out_at=4)  # makes it, and is killed
  go_on(parts, range(6, 10), notes, held_out_at=4)
  assert (whole / "alarms.jsonl").read_text() == (parts / "alarms.jsonl").read_text()


def test_a_checkpoint_without_alarms_begins_anew(tmp_path):
  asked = default_config().alarms
  log = open_log(tmp_path, limits=asked)
  log.later(0, metrics_of(0))
  log.flush()
  notes = log.notes()
  log.close()
  (tmp_path / "alarms.jsonl").write_text(json.dumps({"step": 0, "kind": "epochs", "language": "aa", "text": "x"}) + "\n")
  del notes["alarms"]
  open_log(tmp_path, start=1, notes=notes, limits=asked).close()
  assert (tmp_path / "alarms.jsonl").read_text() == ""


@pytest.mark.slow
def test_a_run_raises_alarms_and_goes_on_alike_after_a_stop(tiny_store, tiny_rows, tmp_path, capsys):
  config = tiny.config(tiny_rows, alarms__max_epochs=2.0, log__every_steps=1)
  assert tiny.run(config, tmp_path / "whole", tiny_store) == 0
  found = lines_of(tmp_path / "whole" / "alarms.jsonl")
  assert {line["language"] for line in found if line["kind"] == "epochs"} >= {"cc"}
  assert capsys.readouterr().err.count("alarm at step") == len(found)
  assert tiny.run(config, tmp_path / "parts", tiny_store, stop=7) != 0
  assert tiny.run(config, tmp_path / "parts", tiny_store) == 0
  assert lines_of(tmp_path / "parts" / "alarms.jsonl") == found


def test_limits_below_zero_are_refused():
  config = tiny.config("rows", alarms__spike_nats=-1.0)
  with pytest.raises(UserError, match=r"config.alarms.spike_nats=-1.0: must be at least 0"):
    check_config(config)


def test_every_kind_has_words():
  assert set(alarms.KINDS) == {"epochs", "turned_up", "share", "spike"}


# --- TensorBoard's table of hyperparameters ----------------------------------------------------------------------------


def test_hparams_are_what_runs_are_compared_by_and_what_is_not_as_its_default():
  config = default_config()
  config.model.fuse, config.evaluate.tasks = "off", ("xnli", "panx")
  found = hparams_of(config.to_dict())
  assert found["data.alpha"] == 0.3 and found["model.fuse"] == "off" and found["evaluate.tasks"] == "xnli,panx"
  assert "model.remat" not in found and all(isinstance(value, (int, float, str, bool)) for value in found.values())


def test_tensorboard_reads_the_hyperparameters_of_a_run(tmp_path):
  pytest.importorskip("tensorboard")
  from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
  from tensorboard.plugins.hparams import metadata

  log = open_log(tmp_path, tensorboard=True, hparams={"data.alpha": 0.3, "model.fuse": "off", "model.pre_norm": False})
  log.held_out(2, np.array([20.0, 12.0]), np.array([10.0, 3.0]), np.array([0.5, 0.25]))
  log.close()
  (path,) = (tmp_path / "tensorboard").iterdir()
  events = [event for event in EventFileLoader(str(path)).Load() if event.WhichOneof("what") == "summary"]
  found = {value.tag: value.metadata.plugin_data.content for event in events for value in event.summary.value}
  start = metadata.parse_session_start_info_plugin_data(found[metadata.SESSION_START_INFO_TAG])
  values = {
    name: value.WhichOneof("kind") and getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()
  }
  assert values == {"data.alpha": 0.3, "model.fuse": "off", "model.pre_norm": False}
  experiment = metadata.parse_experiment_plugin_data(found[metadata.EXPERIMENT_TAG])
  assert {info.name for info in experiment.hparam_infos} == set(values)
  assert {info.name.tag for info in experiment.metric_infos} == {"held_out/loss", "loss"} and "held_out/loss" in found
