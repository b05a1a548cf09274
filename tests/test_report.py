"""The pictures show what the logs say: the losses, the best step, and where the run was stopped."""

import json

import numpy as np
import pytest

from tests.test_convert import command
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.ledger import Entry
from xlmr_jax.files import write_json
from xlmr_jax.progress import Progress
from xlmr_jax.report import pictures
from xlmr_jax.run.workdir import Workdir

STEPS = [0, 100, 200, 300]
LOSSES = {"sw": [4.5, 3.0, 2.0, 1.5], "en": [4.7, 2.0, 1.0, 0.5]}
MEANS = [4.6, 2.5, 1.5, 1.0]
SCORES = {100: 0.31, 200: 0.52, 300: 0.47}


@pytest.fixture
def workdir(tmp_path):
  """The logs and the ledger of a run that was stopped at step 300; step 250 was dropped without a score."""
  workdir = Workdir(tmp_path / "run")
  workdir.evaluations.mkdir(parents=True)
  with workdir.held_out_log.open("w") as file:
    for i, step in enumerate(STEPS):
      languages = {name: {"loss": losses[i], "bits_per_byte": 0.0} for name, losses in LOSSES.items()}
      file.write(json.dumps({"step": step, "loss": 0.0, "mean_loss": MEANS[i], "languages": languages}) + "\n")
  for step, score in SCORES.items():
    Entry(step, score, {"panx": {"sw": {"span_f1": [score]}}}, {"panx": "span_f1"}).write(workdir)
  Entry(250, error="dropped unseen").write(workdir)
  write_json(workdir.stop, {"step": 300, "reason": "no gain"})
  return workdir


def is_png(path):
  return path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 5000


def lines_of(axes):
  """{label: (x, y)} of the curves on axes."""
  return {line.get_label(): tuple(map(list, line.get_data())) for line in axes.get_lines()}


def texts_of(axes):
  return [text.get_text() for text in axes.texts]


def test_the_held_out_picture_has_a_curve_per_language_and_their_mean(workdir, tmp_path):
  axes = pictures.held_out_picture(workdir, tmp_path / "held_out.png").axes[0]
  assert is_png(tmp_path / "held_out.png")
  assert lines_of(axes) == {name: (STEPS, losses) for name, losses in (LOSSES | {"mean": MEANS}).items()}
  assert "2 languages" in axes.get_title(loc="left") and axes.get_xlim() == (0, 300)
  axes = pictures.held_out_picture(workdir, tmp_path / "half.png", until=200).axes[0]
  assert lines_of(axes)["mean"] == (STEPS[:3], MEANS[:3])


def test_the_transfer_picture_marks_the_best_step_and_the_stop(workdir, tmp_path):
  losses, scores = pictures.transfer_picture(workdir, tmp_path / "transfer.png").axes
  assert is_png(tmp_path / "transfer.png")
  curves = list(lines_of(losses).values())
  assert curves[0] == (STEPS, MEANS) and curves[1][0] == [300, 300]  # the held-out loss, and the line of the stop
  assert texts_of(losses) == ["the rule, at 300"]
  (steps, percent), *_ = lines_of(scores).values()
  assert steps == [100, 200, 300]  # A step without a score is left out.
  np.testing.assert_allclose(percent, [31, 52, 47])
  assert texts_of(scores) == ["best: 52.0 at 200"] and list(scores.texts[0].xy) == [200, 52]


def test_the_transfer_picture_has_the_best_step_and_the_setting_of_the_evaluator(workdir, tmp_path):
  write_json(workdir.best_note, {"step": 300, "score": 0.47})  # of another rule, say, which scored 200 lower
  losses, scores = pictures.transfer_picture(workdir, tmp_path / "transfer.png").axes
  assert texts_of(scores) == ["best: 47.0 at 300"]
  assert losses.get_title(loc="left") == "Held-out loss and downstream score"  # These entries say no setting.
  for setting in ("translate_train", "zero_shot"):
    for step, score in SCORES.items():
      recipe = {"panx": {"setting": setting}, "evaluate": {"tasks": ["panx"]}}
      Entry(step, score, {"panx": {"sw": {"span_f1": [score]}}}, {"panx": "span_f1"}, recipe=recipe).write(workdir)
    title = pictures.transfer_picture(workdir, tmp_path / "transfer.png").axes[0].get_title(loc="left")
    assert title == f"Held-out loss and downstream score, {setting.replace('_', '-')}"


def test_a_run_that_goes_on_has_no_stop_in_its_picture(workdir, tmp_path):
  workdir.stop.unlink()
  losses, _ = pictures.transfer_picture(workdir, tmp_path / "transfer.png").axes
  assert len(losses.get_lines()) == 1 and not texts_of(losses)


@pytest.mark.parametrize("languages", [2, 40])
def test_the_languages_picture_has_a_row_per_language_in_order(tmp_path, languages):
  rng = np.random.default_rng(0)
  after = {f"l{i}": float(x) for i, x in enumerate(rng.uniform(1, 3, languages))}
  before, bound = ({name: x + more for name, x in after.items()} for more in (1.0, 0.5))
  figure = pictures.languages_picture(
    before, after, tmp_path / "languages.png", label="nats", title="Before and after", bound=bound
  )
  assert is_png(tmp_path / "languages.png") and len(figure.axes) == (1 if languages == 2 else 2)
  names = [label.get_text() for panel in figure.axes for label in panel.get_yticklabels()]
  assert names == sorted(after, key=after.get)
  for series, expected in (("before", before), ("after", after), ("unigram entropy", bound)):
    drawn = [x for panel in figure.axes for dots in panel.collections if dots.get_label() == series
             for x, _ in dots.get_offsets()]  # fmt: skip
    np.testing.assert_allclose(drawn, [expected[name] for name in names])
  assert figure.axes[0].get_xlim()[1] > max(before.values())


def test_the_languages_picture_leaves_out_what_has_no_finite_loss_at_both_ends(tmp_path):
  before = {"$a^$": 4.0, "b": float("nan"), "d": 3.0}
  after = {"$a^$": 2.0, "b": 1.0, "c": 1.5, "d": float("inf")}
  figure = pictures.languages_picture(before, after, tmp_path / "languages.png", label="nats", title="$", bound={"d": 5.0})
  assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["$a^$"] and is_png(tmp_path / "languages.png")


def test_a_picture_that_fails_leaves_the_others_and_is_named(workdir):
  workdir.evaluation(200).write_text("{")
  lines = workdir.held_out_log.read_text().splitlines()
  first = json.loads(lines[0])
  first["languages"] = {name: {"loss": None, "bits_per_byte": None} for name in first["languages"]}
  workdir.held_out_log.write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
  result = command("report", f"--workdir={workdir}")
  assert result.returncode == 0, result.stderr
  assert "languages.png is not drawn" in result.stderr and "transfer.png is not drawn" in result.stderr
  assert "200.json cannot be read" in result.stderr and "Traceback" not in result.stderr
  assert json.loads(result.stdout.splitlines()[-1])["pictures"] == [str(workdir.root / "held_out.png")]


def test_what_cannot_be_drawn_is_refused(workdir, tmp_path):
  for step in (100, 200, 300):
    workdir.evaluation(step).unlink()
  with pytest.raises(UserError, match="evaluations holds no score; run `xlmr evaluate"):
    pictures.transfer_picture(workdir, tmp_path / "transfer.png")
  with pytest.raises(UserError, match="has no line up to step -1"):
    pictures.held_out_picture(workdir, tmp_path / "held_out.png", until=-1)
  with pytest.raises(UserError, match=r"held_out.jsonl is missing; is .* the workdir of a run"):
    pictures.held_out_picture(Workdir(tmp_path), tmp_path / "held_out.png")
  assert not list(tmp_path.glob("*.png"))


def test_the_command_draws_what_there_is(workdir, tmp_path):
  result = command("report", f"--workdir={workdir}")
  assert result.returncode == 0, result.stderr
  drawn = json.loads(result.stdout.splitlines()[-1])["pictures"]
  assert drawn == [str(workdir.root / f"{name}.png") for name in ("held_out", "languages", "transfer")]
  assert all(is_png(workdir.root / path) for path in drawn)


def test_counting_pieces_tells_how_far_it_is(tiny_store, monkeypatch):
  told = []

  class Told(Progress):
    def add(self, amount=1, detail=""):
      super().add(amount, detail)
      told.append((self._total, self._added, detail))

  monkeypatch.setattr(pictures, "Progress", Told)
  pictures.unigram_entropy(tiny_store)
  rows = int(tiny_store.counts("train").sum())
  assert [detail for *_, detail in told] == list(tiny_store.languages) and told[-1][:2] == (rows, rows)


def test_unigram_entropy_is_that_of_the_rows(tiny_store):
  ids = tiny_store.read("train", np.full(7, 2), np.arange(7))
  pieces = ids[ids > 3].tolist()
  p = np.array([pieces.count(x) for x in set(pieces)]) / len(pieces)
  assert pictures.unigram_entropy(tiny_store)["cc"] == pytest.approx(float(-(p * np.log(p)).sum()))
