"""run.html and sweep.html: right in what they show, whole, escaped, and drawn by a browser on any screen without a word."""

import dataclasses
import functools
import html
import json
import math
import re
import shutil
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from absl import flags as absl_flags
from ml_collections import ConfigDict

from tests import bucket_server, made_runs
from tests.browser import browser
from tests.test_convert import command
from tests.test_corpus_report import Page
from xlmr_jax.commands import report
from xlmr_jax.config import default_config
from xlmr_jax.demo import run as demo
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.ledger import Entry
from xlmr_jax.files import any_path, write_json, write_sealed_json
from xlmr_jax.report import model_card, pictures, serve
from xlmr_jax.report.page import charts
from xlmr_jax.report.page.charts import Axis, Line, Mark
from xlmr_jax.report.page.words import byte_size, compact_number, percent, short_number
from xlmr_jax.report.run_page import samples
from xlmr_jax.report.run_page.numbers import changed_keys, read_curves, read_run
from xlmr_jax.report.run_report import run_page, write_run_report
from xlmr_jax.report.sweep_page import runs as sweep_runs
from xlmr_jax.report.sweep_page.numbers import Point, SeedMean, figure, group_name, points_of, read_sweep
from xlmr_jax.report.sweep_picture import sweep_picture
from xlmr_jax.report.sweep_report import write_sweep_report
from xlmr_jax.run import logs
from xlmr_jax.run.workdir import Workdir, read_record


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workdir:
  """A run of twelve languages that was evaluated and stopped."""
  return made_runs.make_run(
    tmp_path_factory.mktemp("made") / "run", languages=12, lines=120, changes={"alarms.max_epochs": 3.0}
  )


@pytest.fixture(scope="module")
def page(made) -> Page:
  return Page(write_run_report(made, samples=False))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
  root = tmp_path_factory.mktemp("swept") / "alpha"
  return made_runs.make_sweep(root, {"alpha": [0.01, 0.3, 0.7, 1.0]}, x="alpha")


# --- charts ----------------------------------------------------------------------------------------------------------


def drawn_values(chart: str) -> dict[str, list[tuple[float, float]]]:
  """{name: [(share of the width, value)]} of the lines of a chart, as the page's script reads them."""
  data = dict(re.findall(r'data-(\w+)="([^"]*)"', chart[: chart.index(">")]))
  bottom, top = float(data["bottom"]), float(data["top"])
  found = {}
  for name, path in re.findall(r'<path [^>]*data-name="([^"]*)"[^>]* d="([^"]*)"', chart):
    shares = [(int(x) / 10_000, 1 - int(y) / 100_000) for x, y in re.findall(r"(\d+) (-?\d+)", path)]
    value = (lambda s: bottom * (top / bottom) ** s) if "log" in data else (lambda s: bottom + s * (top - bottom))
    found[html.unescape(name)] = [(x, value(share)) for x, share in shares]
  return found


@pytest.mark.parametrize("log", [False, True])
def test_a_line_holds_the_values_that_it_was_given(log):
  x, y = np.array([0.0, 30.0, 120.0]), np.array([4.0, np.nan, 0.5])
  chart = charts.line_chart([Line("a & <b>", x, y, 1)], Axis("updates"), Axis("loss, nats", log=log), title="t")
  ((name, points),) = drawn_values(chart).items()
  assert name == "a & <b>" and [share for share, _ in points] == [0.0, 1.0]
  np.testing.assert_allclose([value for _, value in points], [4.0, 0.5], atol=1e-4)
  assert 'data-xs="0 30 120"' in chart and 'data-at="0 2"' in chart
  assert "updates</div>" in chart and "loss, nats" in chart and "<b>&quot;" not in chart


def test_nothing_to_draw_is_no_chart():
  nothing = Line("a", np.array([1.0]), np.array([np.nan]))
  assert (
    charts.line_chart([nothing], Axis("x"), Axis("y"), title="t")
    == charts.line_chart([], Axis("x"), Axis("y"), title="t")
    == ""
  )
  below = Line("a", np.array([1.0]), np.array([-1.0]))
  assert charts.line_chart([below], Axis("x"), Axis("y", log=True), title="t") == ""


def test_a_long_line_is_thinned_out_to_means_with_their_range():
  x, values = np.arange(1000.0), np.stack([np.arange(1000.0), np.full(1000, np.nan)], axis=1)
  values[5, 0] = np.nan
  middle, means, low, high = charts.thin_out(x, values, points=100)
  assert middle[0] == 4 and middle[-1] == 994 and means.shape == (100, 2)
  assert (low[1, 0], means[1, 0], high[1, 0]) == (10, 14.5, 19) and means[0, 0] == pytest.approx((45 - 5) / 9)
  assert np.isnan(means[:, 1]).all() and np.isnan(low[:, 1]).all()
  assert charts.thin_out(x, values, points=1000)[1] is values
  # A straight line stays where it is, to within half of what lies between two of the points it had.
  x, means, _, _ = charts.thin_out(np.arange(1003.0), np.arange(1003.0), points=100)
  assert np.abs(means - x).max() <= 0.5


def test_points_that_are_not_joined_have_marks_and_bars_alone():
  x, y, spread = np.arange(15.0), np.linspace(1, 2, 15), np.full(15, 0.1)
  joined, apart = (
    charts.line_chart([Line(name, x, y, n, spread=spread, is_joined=is_joined) for n, name in ((1, "a"), (2, "b"))],
                      Axis("language", labels=tuple("abcdefghijklmno")), Axis("y"), title="t")
    for is_joined in (True, False)
  )  # fmt: skip
  assert drawn_values(apart) == drawn_values(joined)  # The pointer tells the same values.
  lines = re.findall(r'data-name="[^"]*"[^>]* d="([^"]*)"', apart)
  assert len(lines) == 2 and not any("L" in path for path in lines)
  assert apart.count("bars-error") == 2 and apart.count(" points") >= 4 and " dot" not in apart
  legend = apart[apart.index('class="legend"') : apart.index('class="y-name"')]
  assert "M0 5h30" not in legend and legend.count("M15 5h0") == 2


@pytest.mark.parametrize(
  ("low", "high", "expected"), [(0, 10, [0, 2, 4, 6, 8, 10]), (0.13, 0.31, [0.15, 0.2, 0.25, 0.3]), (5, 5, [5])]
)
def test_ticks_are_round_numbers(low, high, expected):
  assert charts.ticks_of(low, high) == expected


@pytest.mark.parametrize(("low", "high"), [(0.545, 0.99), (2.1, 4.4), (1.01e-3, 1.9e-3)])
def test_a_narrow_logarithmic_axis_has_ticks_too(low, high):
  ticks = charts.log_ticks_of(low, high)
  assert len(ticks) > 1 and all(low <= tick <= high for tick in ticks)


def test_a_mark_outside_the_picture_is_not_drawn():
  x = np.array([0.0, 1000.0])
  marks = [Mark(500.0, "within"), Mark(2000.0, "behind"), Mark(-5.0, "before")]
  chart = charts.line_chart([Line("l", x, x, 1)], Axis("x"), Axis("y"), title="t", marks=marks)
  assert "within" in chart and "behind" not in chart and "before" not in chart


def test_ticks_of_a_logarithmic_axis_and_how_ticks_are_written():
  assert charts.log_ticks_of(0.5, 30) == [0.5, 1, 2, 5, 10, 20] and charts.log_ticks_of(1e-3, 1e3)[::2] == [
    1e-3,
    0.1,
    10,
    1e3,
  ]
  assert list(map(compact_number, (0.0004, 3000, 20_000, 1.5e6, -2e9))) == ["0.0004", "3,000", "20k", "1.5M", "-2B"]


def test_a_legend_names_the_lines_with_a_look_and_counts_the_others():
  x = np.array([0.0, 1.0])
  lines = [Line(f"l{i}", x, x + i, i if i < 3 else -1) for i in range(100)]
  chart = charts.line_chart(lines, Axis("x"), Axis("y"), title="t", marks=[Mark(1.0, "the end")])
  legend = chart[chart.index('class="legend"') : chart.index('class="y-name"')]
  assert legend.count("<span>") == 4 and "97 other languages" in legend and "the end" in chart
  assert len(drawn_values(chart)) == 100


# --- a run -----------------------------------------------------------------------------------------------------------


def test_the_page_of_a_run_shows_what_its_logs_say(made, page):
  run = read_run(made)
  languages = page.table("training rows", "last bits per byte")
  assert len(languages) == 12 and next(iter(languages)) == "English"
  english = languages["English"]
  values = run.curves.last["en"]
  assert english["rows read"] == f"{values['rows']:,}" and english["last loss"] == f"{run.held_out.loss[-1, 0]:.3f}"
  assert english["lowest loss at step"] == "12,000"
  kinds = {line["kind"] for line in run.alarms}
  assert kinds == {"turned_up", "epochs", "spike"} and f"{len(run.alarms)} alarms" in page.shown
  changed = page.table("this run", "default")
  assert changed["train_steps"] == {"key": "train_steps", "this run": "12,000", "default": "1,500,000"}
  assert set(changed) == {"train_steps", "stop.patience", "alarms.max_epochs"}
  assert "The rule ends the run: no gain above 0 in 3 evaluations." in page.shown
  assert page.table("task", "mean score")["xnli"]["languages"] == "12"
  assert "attention: splash; norms: pallas" in page.shown and "of 3h03m went into steps that count" in page.shown
  assert "which is right" in page.shown and "<b>" in page.shown  # a piece that looks like HTML


def test_every_picture_names_its_axes_with_units(page):
  figures = page.source.count("<figure")
  assert figures >= 12
  names = re.findall(r'class="y-name">([^<]+)<', page.source)
  assert len(names) == figures and all(name.strip() for name in names)
  x_names = re.findall(r'class="x-name">([^<]+)<', page.source)
  assert len(x_names) == page.source.count('<figure class="chart') and set(x_names) == {"updates"}
  units = ("nats", "bits per byte", "%", "tokens per second", "share", "epochs", "minutes", "hours", "learning rate", "norm")
  assert [name for name in names if not any(unit in name for unit in units)] == []


def test_the_page_loads_nothing(page):
  for tag, attributes in page.elements:
    assert tag not in ("link", "iframe", "object", "embed", "base", "form", "img")
    assert not any(name.startswith("on") for name in attributes), attributes
    assert attributes.get("href", "#").startswith("#") and "src" not in attributes
  assert "url(" not in page.source and "@import" not in page.source and "http" not in page.source.split("<body>")[1]
  assert [tag for tag, _ in page.elements].count("script") == 1


def test_where_held_out_loss_would_have_stopped_is_told_with_its_cost(tmp_path):
  workdir = made_runs.make_run(tmp_path / "run", scores=4)
  lines = [json.loads(line) for line in workdir.held_out_log.read_text().splitlines()]
  for line in lines:
    line["mean_loss"] = abs(line["step"] - 1000) + 1.0  # lowest near the first evaluation
  workdir.held_out_log.write_text("".join(json.dumps(line) + "\n" for line in lines))
  shown = Page(write_run_report(workdir, samples=False)).shown
  run = read_run(workdir)
  gap = 100 * (max(score for _, score in run.scores) - dict(run.scores)[1000])
  assert "The mean held-out loss is lowest at step 1,100." in shown and f"{gap:.1f} points less" in shown


def test_the_rule_of_an_evaluator_that_was_given_flags_is_told(tmp_path):
  workdir = made_runs.make_run(tmp_path / "run", scores=0, changes={"stop.patience": 0})
  workdir.stop.unlink()
  workdir.result.unlink()
  for step, panx, xnli in ((1000, 0.9, 0.1), (2000, 0.6, 0.7), (3000, 0.5, 0.2)):
    scores = {"panx": {"en": {"f1": [panx]}}, "xnli": {"en": {"accuracy": [xnli]}}}
    Entry(step, (panx + xnli) / 2, scores, {"panx": "f1", "xnli": "accuracy"}).write(workdir)
  shown = Page(write_run_report(workdir, samples=False)).shown
  assert "The score is highest at step 2,000: 65.0 %." in shown and "the evaluator's rule" not in shown
  assert "config.stop.patience is 0); a flag of the evaluator may give it one." in shown
  for step, panx in ((1000, 0.9), (2000, 0.6), (3000, 0.5)):  # as with --config.stop.score=panx
    path = workdir.evaluation(step)
    value = json.loads(path.read_text())
    write_sealed_json(path, {key: x for key, x in value.items() if key != "sha256"} | {"score": panx})
  write_json(workdir.best_note, {"step": 1000, "score": 0.9})
  page = Page(write_run_report(workdir, samples=False))
  assert (
    "By the evaluator's rule, which is not that of the run's config.json, the score is highest at step 1,000: 90.0 %"
    in (page.shown)
  )
  assert "best downstream score by the evaluator's rule, at step 1,000" in page.shown and "best at 1,000" in page.source
  # The note of the evaluator says which step is the best, also where scores of two rules are in the ledger.
  write_json(workdir.best_note, {"step": 2000, "score": 0.6})
  run = read_run(workdir)
  assert run.best_score == (2000, 0.6) and dataclasses.replace(run, best=None).best_score == (1000, 0.9)
  assert dataclasses.replace(run, best=4000).best_score == (1000, 0.9)


def test_what_may_end_a_run_is_told_by_its_rule(tmp_path):
  workdir = made_runs.make_run(tmp_path / "run", changes={"stop.by": "held_out", "stop.patience": 2})
  workdir.stop.unlink()
  assert "The rule waits for 2 held-out passes without gain." in Page(write_run_report(workdir, samples=False)).shown


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
  workdir = made_runs.make_run(tmp_path / "run", lines=1, passes=1, scores=0, finished=False)
  for path in (workdir.goodput, workdir.timing_log, workdir.alarms_log, workdir.filled_gaps, workdir.train_log):
    path.unlink()
  page = Page(write_run_report(workdir, samples=False))
  assert "0 of 100 updates so far" in page.shown and "Held-out loss" in page.shown and "Alarms" not in page.shown
  workdir.held_out_log.unlink()
  with pytest.raises(UserError, match=r"has no line in train.jsonl or held_out.jsonl yet"):
    write_run_report(workdir)


def test_damage_is_left_out_and_said(tmp_path, capsys):
  workdir = made_runs.make_run(tmp_path / "run")
  workdir.evaluation(4000).write_text("{")
  workdir.filled_gaps.write_text("[1]")
  workdir.alarms_log.write_text('{"step": 3}\n')
  page = Page(write_run_report(workdir, samples=False))
  said = capsys.readouterr().err
  assert "4000.json cannot be read" in said and "filled_gaps.json is left out" in said and "alarms.jsonl: left out" in said
  assert "Gaps filled" not in page.shown and "best downstream score" not in page.shown


def test_names_that_look_like_html_are_escaped(tmp_path):
  workdir = made_runs.make_run(tmp_path / "run", name_of=("<i>x", 'y"z', "en"))
  page = Page(write_run_report(workdir, samples=False))
  assert "<i>x" in page.shown and "<i>x" not in page.source


def test_languages_that_come_later_and_phases_are_read():
  lines = [{"step": step, "loss": 1.0, "lr": 0.1, "phase": 1 + (step > 2), "languages": {"en": {"loss": 2.0, "epochs": 1}}}
           for step in range(1, 5)]  # fmt: skip
  lines[2]["languages"] = {"sw": {"loss": 3.0}, "en": {"loss": None}}
  curves = read_curves(lines, ("en",))
  assert curves.languages == ("en", "sw") and curves.phase.tolist() == [1, 1, 2, 2]
  np.testing.assert_array_equal(curves.language_loss, [[2, np.nan], [2, np.nan], [np.nan, 3], [2, np.nan]])


def test_pairs_of_parallel_sentences_are_in_no_mean(tmp_path):
  workdir = made_runs.make_run(tmp_path / "run")
  lines = [json.loads(line) for line in workdir.held_out_log.read_text().splitlines()]

  def write():
    workdir.held_out_log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_run(workdir).held_out

  before = write().mean_bits
  for line in lines:
    line["languages"]["en-fr"] = {"loss": 0.1, "bits_per_byte": 0.01}
    line["parallel"] = ["en-fr"]
  after = write()
  np.testing.assert_array_equal(after.mean_bits, before)
  assert after.parallel == ("en-fr",) and "en-fr" in after.languages
  assert set(sweep_runs._bits(lines[0])) == set(lines[0]["languages"]) - {"en-fr"}
  figure = pictures.held_out_picture(workdir, tmp_path / "curve.png")
  assert f"of {len(lines[0]['languages']) - 1} languages" in figure.axes[0].get_title(loc="left")
  assert "languages, and 1 pair of them" in run_page(read_run(workdir))


def rewritten(workdir, change):
  """The run after change(number, line) of each line of its held-out log."""
  lines = [json.loads(line) for line in workdir.held_out_log.read_text().splitlines()]
  for number, line in enumerate(lines):
    change(number, line)
    losses = [values["loss"] for values in line["languages"].values()]
    line["mean_loss"] = sum(losses) / len(losses)  # as the training writes it
  workdir.held_out_log.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return read_run(workdir)


def test_a_last_pass_without_a_number_is_not_shown_by_an_older_one(tmp_path):
  workdir = made_runs.make_run(tmp_path / "run", languages=3, passes=6)
  lost, late, mean = "sw", "en", read_run(workdir).held_out.mean_bits[0]

  def lose(number, line):
    if number >= 3:
      line["languages"][lost] = {"loss": math.nan, "bits_per_byte": math.nan}
    if number == 0:
      del line["languages"][late]

  run = rewritten(workdir, lose)
  assert np.isfinite(run.held_out.mean_bits).tolist() == [True] * 3 + [False] * 3
  page = Page(write_run_report(workdir, samples=False))
  first = run.held_out.bits[0, run.held_out.languages.index(lost)]
  assert f"Swahili (sw): {first:.4f} at the first pass, – at the last" in page.source
  assert "No number at the first pass: English (en)." in page.shown
  assert "No number at the last pass: Swahili (sw)." in page.shown
  rows = page.table("training rows", "last bits per byte")
  assert rows["Swahili"]["last loss"] == rows["Swahili"]["last bits per byte"] == "–"
  assert rows["Swahili"]["first loss"] != "–" and rows["English"]["first loss"] == "–" != rows["English"]["last loss"]
  assert int(rows["Swahili"]["lowest loss at step"].replace(",", "")) < run.held_out.steps[3]
  told = "– bits per byte held out, no mean, because the last pass has no number for Swahili (sw); "
  assert told in " ".join(page.shown.split()) and f"{mean:.3f} at the first pass" not in page.shown
  # Where no pass at all has a number, there is a page.
  rewritten(
    workdir, lambda _, line: [value.update(loss=math.nan, bits_per_byte=math.nan) for value in line["languages"].values()]
  )
  assert "First and last held-out pass" not in Page(write_run_report(workdir, samples=False)).shown


def test_a_seed_without_a_number_is_in_no_mean(tmp_path):
  workdir = made_runs.make_run(tmp_path / "run", scores=0)
  for step, value in ((1000, 0.5), (2000, None)):
    entry = Entry(step, None, {"xnli": {"en": {"f1": [0.9, 0.7]}, "sw": {"f1": [0.3, value]}}}, {"xnli": "f1"})
    entry.score = entry.score_of()
    entry.write(workdir)
  page = Page(write_run_report(workdir, samples=False))
  table = next(table for table in page.tables if "mean score" in table[0])
  assert [row[1:] for row in table[1:]] == [["1,000", "60.0 %", "2"], ["2,000", "–", "2"]]
  assert "No score, because that of a seed is no number: Swahili (sw) at step 2,000." in page.shown
  chart = next(chart for chart in page.source.split("<figure") if "<b>xnli.</b>" in chart)
  assert {name: len(points) for name, points in drawn_values("<figure" + chart).items()} == {
    "English (en)": 2, "Swahili (sw)": 1, "mean of the languages": 1,
  }  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_a_dash(value):
  assert [write(value) for write in (short_number, percent, byte_size, compact_number)] == ["–"] * 4


def test_a_probability_that_is_no_number_does_not_end_the_report(tmp_path):
  workdir = made_runs.make_run(tmp_path / "run")
  filled = json.loads(workdir.filled_gaps.read_text())
  filled["samples"][0]["guesses"][0][1] = math.nan
  write_json(workdir.filled_gaps, filled)
  assert "capital –, heart 5.00 %" in Page(write_run_report(workdir, samples=False)).shown


def test_rows_that_were_replaced_are_not_those_of_the_run(tiny_run, tmp_path):
  workdir = Workdir(shutil.copytree(tiny_run, tmp_path / "run"))
  record = read_record(workdir)
  counts = read_run(workdir).train_rows
  dataclasses.replace(record, rows_fingerprint="0" * 64).write(workdir)
  with pytest.raises(UserError, match=rf"{record.rows}: other rows .fingerprint .* was trained on .0{{12}}."):
    samples.fill_gaps(workdir)
  log = [json.loads(line) for line in workdir.train_log.read_text().splitlines()][-1]["languages"]
  log["aa"].update(rows=600, epochs=2.0)
  lines = workdir.train_log.read_text().splitlines()[:-1]
  last = json.loads(workdir.train_log.read_text().splitlines()[-1]) | {"languages": log}
  workdir.train_log.write_text("\n".join([*lines, json.dumps(last)]) + "\n")
  assert counts["aa"] == 40 and read_run(workdir).train_rows["aa"] == 300


def test_a_phase_is_marked_where_it_begins(tmp_path):
  workdir = made_runs.make_run(tmp_path / "run")
  lines = [json.loads(line) for line in workdir.train_log.read_text().splitlines()]
  for line in lines:
    line["phase"] = 1 + (line["step"] > 2000)
  workdir.train_log.write_text("".join(json.dumps(line) + "\n" for line in lines))
  workdir.planned_epochs.write_text("language\trows\tsteps_0_2000\tsteps_2000_9000\tall\nen\t9\t0.5\t0.5\t1.0\n")
  page = Page(write_run_report(workdir, samples=False))
  assert read_run(workdir).phase_edges == [(2000, 2)] and "phase 2</span>" in page.source
  planned = page.table("steps 0 2000")["en"]
  assert planned["steps 0 2000"] == "0.5" and planned["rows"] == "9"
  assert re.search(r'class="number"><span>steps 0 2000<', page.source)  # It sorts by size.
  assert "wanted by the phases" in page.shown


def test_what_differs_from_the_default_is_found_in_the_stored_config():
  config = default_config()
  config.data.alpha, config.evaluate.tasks = 0.5, ("xnli",)
  stored = json.loads(json.dumps(config.to_dict()))
  assert [key for key, _, _ in changed_keys(stored)] == ["data.alpha", "evaluate.tasks"]
  del stored["alarms"]  # of a run that began before there were any
  assert [key for key, _, _ in changed_keys(stored)] == ["data.alpha", "evaluate.tasks"]


def test_a_real_run_has_its_story(tiny_run):
  page = Page(write_run_report(Workdir(tiny_run), samples=False))
  assert "12 updates" in page.shown.replace("\n", " ") and "memory per device" in page.shown and "mesh: 8 x" in page.shown
  assert page.table("key", "this run")["model.hidden"]["this run"] == "16"
  assert page.table("training rows")["aa"]["training rows"] == "40"


def test_a_run_whose_samples_cannot_be_made_has_a_page_without(made, capsys):
  made.filled_gaps.rename(made.root / "kept")
  page = Page(write_run_report(made))
  (made.root / "kept").rename(made.filled_gaps)
  assert "no samples of gaps filled" in capsys.readouterr().err and "Gaps filled" not in page.shown


def test_the_demo_ends_by_writing_its_page_and_says_where_it_is(made, monkeypatch, capsys):
  done = {"make_rows": None, "pretrain": 0, "score_encoders": 0, "RowStore": None, "guesses": (), "tell_transfer": {}}
  for name, value in {**done, "draw": ({"en": 9.0}, {"en": 2.0}, {"en": 5.0})}.items():
    monkeypatch.setattr(demo, name, lambda *_, value=value: value)
  made.page.unlink(missing_ok=True)
  code, summary = demo.run_demo(made.root, [])
  assert code == 0 and summary["page"] == str(made.page) and made.page.exists()
  assert f"the page     {made.page}" in capsys.readouterr().out


@pytest.mark.slow
def test_the_newest_checkpoint_fills_gaps_of_every_language(tmp_path):
  ran = command("pretrain", "--config=base:runlocal", f"--workdir={tmp_path}")
  assert ran.returncode == 0, ran.stderr
  told = command("report", f"--workdir={tmp_path}", "--nopictures")
  assert told.returncode == 0, told.stderr
  workdir = Workdir(tmp_path)
  filled = json.loads(workdir.filled_gaps.read_text())
  assert filled["step"] == 20 and {sample["language"] for sample in filled["samples"]} == set(read_record(workdir).languages)
  for sample in filled["samples"]:
    assert len(sample["guesses"]) == 3 and sample["truth"] and sample["before"].strip() and sample["after"].strip()
  assert samples.is_current(workdir, filled) and not samples.is_current(workdir, filled | {"step": 10})
  assert samples.fill_gaps(workdir) == filled  # The same checkpoint and rows give the same.


@pytest.mark.slow
def test_the_command_writes_the_page_of_a_run_and_of_a_sweep(made, sweep):
  told = command("report", f"--workdir={made}", "--nopictures", "--nosamples")
  assert json.loads(told.stdout) == {"page": str(made.page), "pictures": []}, told.stderr
  told = command("report", f"--workdir={sweep}")
  assert json.loads(told.stdout) == {"page": str(sweep / "sweep.html"), "pictures": [str(sweep / "sweep.png")]}, told.stderr
  told = command("report", "--corpus=here", "--serve=1")
  assert told.returncode == 1 and "belongs to --workdir" in told.stderr


@pytest.fixture
def report_flags():
  """The flags of `xlmr report` without the process around them, as often as a test wants other ones."""
  values = absl_flags.FlagValues()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(absl_flags, "FLAGS", values)
    for define in ("DEFINE_string", "DEFINE_integer", "DEFINE_bool", "DEFINE_multi_string"):
      patch.setattr(absl_flags, define, functools.partial(getattr(absl_flags, define), flag_values=values))
    patch.setattr(report.flags, "FLAGS", values)
    patch.setattr(report.flags, "start", lambda main: None)
    report.run()

    def main(*arguments):
      values.unparse_flags()
      values(["report", *arguments])
      return report.main(["report"])

    yield main


@pytest.mark.parametrize(
  "arguments, refused",
  [
    (("--workdir=SWEEP", "--rows=r"), "--rows"),
    (("--workdir=SWEEP", "--nosamples"), "--samples"),
    (("--workdir=SWEEP", "--listen=0.0.0.0"), "--listen"),
    (("--workdir=RUN", "--markdown"), "--markdown"),
    (("--workdir=RUN", "--batch_rows=3"), "--batch_rows"),
    (("--workdir=RUN", "--rows=r", "--nopictures"), "--rows"),
    (("--workdir=RUN", "--serve=0", "--nosamples"), "--samples"),
    (("--workdir=RUN", "--serve=0", "--nopictures"), "--pictures"),
    (("--workdir=RUN", "--serve=0", "--rows=r"), "--rows"),
    (("--corpus=RUN", "--serve=0"), "--serve"),
    (("--corpus=RUN", "--nopictures"), "--pictures"),
    (("--scores=a=b.json", "--rows=r"), "--rows"),
    (("--scores=a=b.json", "--listen=::1"), "--listen"),
  ],
)
def test_a_flag_that_would_do_nothing_is_refused(made, sweep, report_flags, arguments, refused):
  before = {path: path.stat().st_mtime_ns for root in (made.root, sweep) for path in root.iterdir()}
  with pytest.raises(UserError, match=f"^{refused}: says nothing about .*belongs to|^{refused}: says nothing about a run"):
    report_flags(*(text.replace("RUN", str(made)).replace("SWEEP", str(sweep)) for text in arguments))
  assert before == {path: path.stat().st_mtime_ns for root in (made.root, sweep) for path in root.iterdir()}


def test_flags_that_count_are_taken(made, sweep, report_flags, capsys):
  report_flags(f"--workdir={made}", "--nosamples", "--nopictures")
  report_flags(f"--workdir={sweep}", "--nopictures")
  assert [json.loads(line)["pictures"] for line in capsys.readouterr().out.splitlines()] == [[], []]


def test_a_run_in_a_bucket_has_its_page_there(bucket_port, made, tmp_path):
  from xlmr_jax import bucket
  from xlmr_jax.files import upload

  root = any_path(f"gs://{bucket_server.BUCKET}/pages/run")
  for path in made.root.rglob("*"):
    if path.is_file() and path.suffix in (".json", ".jsonl"):
      name = path.relative_to(made.root).as_posix()
      # In a bucket a log is a folder of segments.
      upload(path, root / (f"{name}/00000000" if path.suffix == ".jsonl" else name))
  written = write_run_report(Workdir(root), samples=False)
  assert written == root / "run.html" and bucket.is_bucket(written)
  assert written.read_bytes() == write_run_report(made, tmp_path / "local.html", samples=False).read_bytes()


def test_a_band_that_touches_zero_on_a_logarithmic_axis():
  """As a log line in which every update was skipped, whose gradient norm is 0, leaves it."""
  y = np.array([1.0, 2.0, 3.0])
  line = Line("gradient", np.arange(3.0), y, 1, band=(np.array([0.0, 1.0, 2.0]), y + 1))
  assert "band" in charts.line_chart([line], Axis("updates"), Axis("norm", log=True), title="Gradient")


def test_evaluations_that_all_failed_are_told(tmp_path):
  workdir = made_runs.make_run(tmp_path / "run", languages=3, lines=4, passes=2, scores=0)
  workdir = Workdir(tmp_path / "run")
  Entry(1, None, {}, {}, {"xnli": "there are no files"}).write(workdir)
  page = run_page(read_run(workdir))
  assert "Evaluations that failed" in page and "there are no files" in page
  told = command("report", f"--workdir={workdir}", "--nosamples")
  assert told.returncode == 0 and (tmp_path / "run" / "run.html").exists(), told.stderr
  assert "transfer.png" not in told.stdout


def test_the_page_of_a_branch_and_of_phases_that_have_not_come_yet(tmp_path):
  made_runs.make_run(tmp_path / "run", languages=3, lines=4, passes=2, scores=0)
  workdir = Workdir(tmp_path / "run")
  record = read_record(workdir)
  before = run_page(read_run(workdir))
  assert "wanted by alpha = " in before and "random parameters" in before
  branch = {"run": "runs/trunk", "step": 7, "phases": []}
  dataclasses.replace(record, branch=branch).write(workdir)
  after = run_page(read_run(workdir))
  assert "wanted by the phases" in after and "runs/trunk, step 7" in after and "random parameters" not in after
  steps = read_run(workdir).steps_done
  workdir.planned_epochs.write_text(f"language\trows\tsteps_0_3\tsteps_3_{steps + 5}\tsteps_{steps + 5}_99\tall\n")
  assert read_run(workdir).phase_edges == [(3, 2)]


def test_a_server_outlives_a_store_that_does_not_answer():
  def fail():
    raise OSError("the store is away")

  page = serve.FreshPage(fail)
  assert b"the store is away" in page.get() and page._until > 0


# --- a sweep ---------------------------------------------------------------------------------------------------------


def test_the_figure_is_a_pure_function_of_its_points():
  points = [Point(0.7, None, "all", 0, 1.0), Point(0.3, None, "all", 0, 2.0), Point(0.3, None, "all", 1, 4.0),
            Point("none", None, "all", 0, 5.0), Point(10, None, "all", 0, 6.0)]  # fmt: skip
  assert figure(points) == {
    (None, "all"): [
      SeedMean(0.3, 3.0, pytest.approx(2**0.5), 2),
      SeedMean(0.7, 1.0, None, 1),
      SeedMean(10, 6.0, None, 1),
      SeedMean("none", 5.0, None, 1),
    ]
  }
  assert figure([]) == {}


def test_the_figure_of_a_sweep_has_means_and_spreads_over_its_seeds(sweep):
  found = read_sweep(sweep)
  page = Page(write_sweep_report(sweep))
  lines = drawn_values(page.source[page.source.index('<figure class="chart') :].partition("</figure>")[0])
  assert set(lines) >= {"all languages", "high-resource languages", "low-resource languages"}
  runs = [run for run in found.runs if run.values["alpha"] == 0.3]
  expected = [run.bits["en"] for run in runs]
  points = re.search(r'data-name="high-resource languages"[^>]*data-spread="([^"]*)"', page.source)
  assert points and float(points[1].split()[1]) == pytest.approx(np.std(expected, ddof=1), rel=0.01)
  assert lines["high-resource languages"][1][1] == pytest.approx(np.mean(expected), abs=1e-4)
  assert page.source.count('class="s1 bars-error"') >= 1
  table = page.source[page.source.index('<pre class="copy">') :].partition("</pre>")[0].splitlines()
  assert table[0].endswith("measure\tmean over\talpha\tmean\tstandard deviation\tseeds")
  row = next(
    line.split("\t") for line in table if line.startswith("held-out loss, bits per byte of text\thigh") and "\t0.3\t" in line
  )
  assert float(row[3]) == pytest.approx(np.mean(expected), abs=1e-4) and row[-1] == "3"
  differences = page.table("data.alpha", "seed")
  assert list(next(iter(differences.values()))) == ["run", "data.alpha", "seed"] and len(differences) == 12


def test_runs_without_a_place_are_named_and_true_is_no_number(tmp_path):
  root = made_runs.make_sweep(tmp_path / "s", {"pre_norm": [True, False]}, x="pre_norm", seeds=1)
  found = read_sweep(root)
  assert found.without_value == []
  source = write_sweep_report(root).read_text()
  assert ">True</td>" in source and ">False</td>" in source
  del found.runs[0].values["pre_norm"]
  assert found.without_value == [found.runs[0].name]


def write_scores(root, name, **tasks):
  """The last evaluation of a run of a sweep. tasks: {task: {language: score}}."""
  workdir = Workdir(root / name)
  last = json.loads(workdir.result.read_text())["step"]
  scores = {task: {language: {"f1": [value]} for language, value in table.items()} for task, table in tasks.items()}
  entry = Entry(last, None, scores, dict.fromkeys(tasks, "f1"))
  entry.score = entry.score_of()
  entry.write(workdir)


def test_the_scores_of_runs_with_other_languages_are_means_of_the_same_kind(tmp_path):
  root = made_runs.make_sweep(
    tmp_path / "s", {"model": ["a", "b"]}, x="model", seeds=1, y="score", groups={"low": ["sw", "fr"]}
  )
  ner, nli = {"en": 0.9, "fr": 0.6, "sw": 0.3}, {"en": 0.8, "fr": 0.5}
  write_scores(root, "model=a,seed=0", ner=ner, nli=nli)
  write_scores(root, "model=b,seed=0", ner=ner | {"ur": 0.1}, nli=nli)
  found = read_sweep(root)
  points = {(point.x, point.group): point.value for point in points_of(found, "score")}
  assert points["a", "all"] == points["b", "all"] == pytest.approx(100 * (0.6 + 0.65) / 2)  # as the stop rule has it
  assert points["a", "all"] == pytest.approx(100 * found.runs[0].score)
  assert points["a", "low"] == points["b", "low"] == pytest.approx(100 * (0.45 + 0.5) / 2)
  # A language that a run has in one task only counts in the other one alone, and a task that a run lacks in no run.
  write_scores(root, "model=b,seed=0", ner=ner, nli=nli | {"sw": 0.1})
  assert len({point.value for point in points_of(read_sweep(root), "score") if point.group == "all"}) == 1
  write_scores(root, "model=b,seed=0", ner=ner)
  assert {round(point.value, 9) for point in points_of(read_sweep(root), "score") if point.group == "all"} == {60.0}
  assert "mean over the tasks of the means over their languages" in Page(write_sweep_report(root)).shown


def test_a_table_of_one_seed_has_a_dash_and_sorts_as_a_number(tmp_path):
  root = made_runs.make_sweep(tmp_path / "s", {"languages": [7, 30]}, x="languages", seeds=1, scale="log")
  page = Page(write_sweep_report(root))
  row = page.table("mean over", "mean")["held-out loss, bits per byte of text"]
  assert row["standard deviation"] == "–" and row["seeds"] == "1"
  heads = [[cell for cell in table[0]] for table in page.tables]
  assert not any(len(set(head)) < len(head) for head in heads)  # No two columns have one name.
  assert 'class="number"><span>standard deviation<' in page.source
  assert page.source.count('class="number"><span>languages<') == 2  # the swept value, of the points and of the runs


def test_a_sweep_over_steps_has_its_numbers_to_copy(tmp_path):
  root = made_runs.make_sweep(tmp_path / "s", {"hidden": [64]}, x="step", seeds=3)
  found = read_sweep(root)
  table = [line.split("\t") for line in copied(Page(write_sweep_report(root)).source)[0].splitlines()]
  assert table[0] == ["measure", "step", "mean", "standard deviation", "seeds"]
  steps = [step for step, _ in found.runs[0].history["bits_per_byte"]]
  held_out = [row for row in table if row[0].startswith("held-out loss")]
  assert [int(row[1]) for row in held_out] == steps and {row[-1] for row in held_out} == {"3"}
  values = [run.history["bits_per_byte"][-1][1] for run in found.runs]
  assert float(held_out[-1][2]) == pytest.approx(np.mean(values), abs=1e-4)
  assert float(held_out[-1][3]) == pytest.approx(np.std(values, ddof=1), abs=1e-4)
  assert any(row[0].startswith("downstream score") for row in table)
  # Runs that differ in more than their seed are no seeds of each other.
  root = made_runs.make_sweep(tmp_path / "t", {"hidden": [64, 128], "layers": [2, 3]}, x="step", seeds=2)
  table = [line.split("\t") for line in copied(Page(write_sweep_report(root)).source)[0].splitlines()]
  assert table[0][:3] == ["measure", "hidden, layers", "step"]
  assert {row[1] for row in table[1:]} == {"64, 2", "64, 3", "128, 2", "128, 3"} and {row[-1] for row in table[1:]} == {"2"}


def copied(source):
  return [html.unescape(part.partition("</pre>")[0]) for part in source.split('<pre class="copy">')[1:]]


def test_categories_are_points_and_numbers_are_lines(tmp_path):
  root = made_runs.make_sweep(tmp_path / "s", {"model": ["a", "b", "c"]}, x="model", seeds=2)
  found = read_sweep(root)
  record = json.loads((root / "sweep.json").read_text())

  def drawn():
    paths = re.findall(r'data-name="[^"]*"[^>]* d="([^"]*)"', write_sweep_report(root).read_text())
    lines = [
      bars.lines[0].get_linestyle() for bars in sweep_picture(read_sweep(root), tmp_path / "s.png").axes[0].containers
    ]
    return {"L" in path for path in paths}, set(lines)

  assert drawn() == ({False}, {"None"})
  for number, run in enumerate(record["runs"]):
    run["values"] = {"model": [1, 2, 4][number // 2], "seed": run["seed"]}
  write_json(root / "sweep.json", record | {"x_scale": "log"})
  assert drawn() == ({True}, {"-"})
  write_json(root / "sweep.json", record | {"x_scale": "category"})
  assert drawn() == ({False}, {"None"})
  record["runs"][0]["values"]["model"] = 0  # It has no logarithm.
  write_json(root / "sweep.json", record | {"x_scale": "log"})
  assert drawn() == ({False}, {"None"}) and found.record["x_scale"] == "category"


def test_of_the_training_log_one_line_at_a_time_is_held(tmp_path, monkeypatch):
  root = made_runs.make_sweep(tmp_path / "s", {"alpha": [0.3]}, x="alpha", seeds=1)
  workdir = Workdir(root / "alpha=0.3,seed=0")
  with workdir.held_out_log.open("w") as file:
    file.write("")
  monkeypatch.setattr(logs, "read_train", lambda _: pytest.fail("the whole log was read"))
  assert read_sweep(root).runs[0].steps == 600
  record = read_record(workdir)
  folder = tmp_path / "card"
  folder.mkdir()
  model_card.write(folder, workdir, record, ConfigDict(record.config), "best", 400, None, "<mask>")
  line = json.loads(workdir.train_log.read_text().splitlines()[3])
  assert line["step"] == 400 and f"{line['languages']['en']['rows']:,}" in (folder / "README.md").read_text()


def test_unfinished_runs_are_listed_and_left_out(tmp_path):
  root = made_runs.make_sweep(tmp_path / "s", {"alpha": [0.1, 0.9]}, x="alpha", seeds=2)
  (root / "alpha=0.1,seed=0" / "result.json").unlink()
  (root / "alpha=0.9,seed=1").rename(tmp_path / "gone")
  page = Page(write_sweep_report(root))
  assert "2 of 4 runs finished" in page.shown
  assert "not in the figure: alpha=0.1,seed=0, alpha=0.9,seed=1." in page.shown
  states = {name: row["state"] for name, row in page.table("run", "state").items()}
  assert states["alpha=0.1,seed=0"] == "at step 600" and states["alpha=0.9,seed=1"] == "not begun"
  values = {(point.x, point.seed) for point in made_points(root)}
  assert values == {(0.1, 1), (0.9, 0)}


def made_points(root):
  return points_of(read_sweep(root), "bits_per_byte")


def test_the_picture_of_a_sweep_has_the_lines_of_its_page(sweep, tmp_path):
  found = read_sweep(sweep)
  drawn = sweep_picture(found, tmp_path / "sweep.png")
  axes = next(axes for axes in drawn.axes if "bits per byte" in axes.get_ylabel())
  lines = {bars.get_label(): bars.lines[0].get_xydata() for bars in axes.containers}
  expected = figure(points_of(found, "bits_per_byte"))
  assert len(lines) == len(expected) and axes.get_xlabel() == "alpha"
  for (_, group), places in expected.items():
    np.testing.assert_allclose(lines[group_name(group)][:, 1], [place.mean for place in places])
  assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_of_two_values_has_a_line_per_series_and_one_over_steps_a_line_per_run(tmp_path):
  root = made_runs.make_sweep(
    tmp_path / "two", {"languages": [7, 30], "hidden": [768, 960]}, x="languages", series="hidden", seeds=1
  )
  lines = drawn_values_of_all(write_sweep_report(root).read_text())
  assert lines.count("hidden 768") == lines.count("hidden 960") == 6  # three groups, two measures
  record = json.loads((root / "sweep.json").read_text())
  write_json(root / "sweep.json", record | {"x": "step", "series": None})
  lines = drawn_values_of_all(write_sweep_report(root).read_text())
  assert lines.count("languages=7,hidden=768,seed=0") == 2


def drawn_values_of_all(source):
  return [html.unescape(name) for name in re.findall(r'data-name="([^"]*)"', source)]


def test_a_language_that_not_all_runs_have_does_not_count_for_all(sweep):
  found = read_sweep(sweep)
  del found.runs[0].bits["sw"]
  assert "sw" not in found.common_languages and "en" in found.common_languages


def test_a_group_has_the_languages_that_all_runs_have(tmp_path):
  groups = {"low": ["sw", "en"]}
  found = read_sweep(made_runs.make_sweep(tmp_path / "s", {"alpha": [0.3, 0.7]}, x="alpha", seeds=1, groups=groups))
  low = found.record["groups"]["low"]
  before = {(point.x, point.seed): point.value for point in points_of(found, "bits_per_byte") if point.group == "low"}
  del found.runs[0].bits[low[0]]
  after = {(point.x, point.seed): point.value for point in points_of(found, "bits_per_byte") if point.group == "low"}
  assert before.keys() == after.keys() and all(before[place] != after[place] for place in before)
  assert after == {(run.values["alpha"], run.seed): run.bits[low[1]] for run in found.runs}
  found.runs[0].bits.clear()
  assert found.without_value == [found.runs[0].name]


def test_runs_that_differ_in_a_third_value_are_no_seeds(tmp_path):
  """Each has a line of its own, and its one seed no spread."""
  root = made_runs.make_sweep(tmp_path / "s", {"alpha": [0.3, 0.7], "hidden": [64, 128]}, x="alpha", seeds=1)
  found = read_sweep(root)
  places = figure(points_of(found, "bits_per_byte"))
  assert {series for series, _ in places} == {64, 128} and found.record["series"] == "hidden"
  assert all(place.seeds == 1 and place.spread is None for line in places.values() for place in line)
  page = Page(write_sweep_report(root))
  assert "hidden 64" in page.source and "| – | 1 |" in page.source and "± 0" not in page.source
  root = made_runs.make_sweep(
    tmp_path / "t", {"alpha": [0.3], "hidden": [64, 128], "layers": [1, 2]}, x="alpha", series="hidden", seeds=2
  )
  found = read_sweep(root)
  assert found.record["series"] == "hidden, layers"
  places = figure(points_of(found, "bits_per_byte"))
  assert {series for series, _ in places} == {"64, 1", "64, 2", "128, 1", "128, 2"}
  assert all(place.seeds == 2 for line in places.values() for place in line)
  assert "hidden, layers" not in Page(write_sweep_report(root)).table("run", "state")["alpha=0.3,hidden=64,layers=1,seed=0"]


@pytest.mark.parametrize("errors, score", [({}, 0.7), ({"other": "no files"}, None)])
def test_the_score_of_a_run_is_that_of_its_last_step(tmp_path, errors, score):
  """An earlier evaluation, and one in which a task failed, do not stand for it."""
  root = made_runs.make_sweep(tmp_path / "s", {"alpha": [0.3]}, x="alpha", seeds=1)
  workdir = Workdir(root / "alpha=0.3,seed=0")
  last = json.loads(workdir.result.read_text())["step"]
  for step, value, failed in ((last - 1, 0.4, {}), (last, 0.7, errors)):
    scores = {"mine": {"en": {"f1": [value]}, "sw": {"f1": [value]}}}
    Entry(step, value, scores, {"mine": "f1"}, failed).write(workdir)
  (run,) = read_sweep(root).runs
  assert run.score == score and run.scores == ({"en": 0.7, "sw": 0.7} if score else {})
  assert [value for _, value in run.history["score"]][-1] == pytest.approx(100 * (score or 0.4))
  if not score:
    other = made_runs.make_sweep(tmp_path / "t", {"alpha": [0.3, 0.7]}, x="alpha", seeds=1)
    Entry(last, 0.7, {"mine": {"en": {"f1": [0.7]}}}, {"mine": "f1"}, errors).write(Workdir(other / "alpha=0.3,seed=0"))
    states = {name: row["state"] for name, row in Page(write_sweep_report(other)).table("run", "state").items()}
    assert states == {"alpha=0.3,seed=0": "trained, not scored", "alpha=0.7,seed=0": "finished"}


def test_final_scores_count_by_the_setting_of_the_run(tmp_path):
  root = made_runs.make_sweep(tmp_path / "s", {"model": ["one"]}, x="model", seeds=1)
  record = json.loads((root / "sweep.json").read_text())
  record["runs"][0]["settings"] = ["zero_shot", "translate_train_all"]
  write_json(root / "sweep.json", record)
  final = Workdir(root / "model=one,seed=0").final_scores
  final.mkdir()
  scores = {"mine": {"zero_shot": {"en": {"f1": [0.4, 0.6]}}, "translate_train_all": {"en": {"f1": [0.8]}}}}
  write_json(final / "latest.json", {"step": 1, "scores": scores})
  (run,) = read_sweep(root).runs
  assert run.settings == {}  # They were made before the run ended.
  step = json.loads(Workdir(root / "model=one,seed=0").result.read_text())["step"]
  write_json(final / "latest.json", {"step": step, "scores": scores})
  (run,) = read_sweep(root).runs
  assert run.scores == {"en": 0.5} and run.settings == {"zero_shot": {"en": 0.5}, "translate_train_all": {"en": 0.8}}
  # A task that failed, or scored what is no number, takes its setting along: a mean of the others would not compare.
  two = scores | {"other": {name: {"en": {"f1": [0.1], "accuracy": [0.9]}} for name in ("zero_shot", "translate_train_all")}}
  for more, expected in (
    ({"metrics": {"mine": "f1", "other": "f1"}}, {"zero_shot": {"en": 0.3}, "translate_train_all": {"en": 0.45}}),
    ({"metrics": {"other": "f1"}, "errors": {"third": {"zero_shot": "no file"}}}, {"translate_train_all": {"en": 0.45}}),
  ):
    write_json(final / "latest.json", {"step": step, "scores": two} | more)
    (run,) = read_sweep(root).runs
    assert run.settings == {name: {"en": pytest.approx(values["en"])} for name, values in expected.items()}
    assert run.scores == run.settings.get("zero_shot", {})
  two["mine"]["zero_shot"]["de"] = {"f1": [None, 0.5]}
  write_json(final / "latest.json", {"step": step, "scores": two, "metrics": {"other": "f1"}})
  assert set(read_sweep(root).runs[0].settings) == {"translate_train_all"}
  del scores["mine"]["zero_shot"]["de"]
  write_json(final / "latest.json", {"step": step, "scores": scores})
  # With the language of the test on the axis, each setting has a line of its own.
  write_json(root / "sweep.json", record | {"x": "language", "series": "model", "y": "score"})
  points = points_of(read_sweep(root), "score")
  assert {(point.x, point.series, round(point.value)) for point in points} == {
    ("en", "one, zero_shot", 50),
    ("en", "one, translate_train_all", 80),
  }
  page = Page(write_sweep_report(root))
  assert "model one, zero_shot" in page.source and page.table("model", "mean")["downstream score, %"]["seeds"] == "1"
  # Without a series it is named after the setting alone.
  write_json(root / "sweep.json", record | {"x": "language", "series": None, "y": "score"})
  names = drawn_values_of_all(Page(write_sweep_report(root)).source)
  assert {"zero_shot, each language by itself", "translate_train_all, each language by itself"} <= set(names)


def with_settings(root, *settings, **record):
  """The sweep, whose runs all have these settings."""
  content = json.loads((root / "sweep.json").read_text()) | record
  for run in content["runs"]:
    run["settings"] = list(settings)
  write_json(root / "sweep.json", content)


def write_final(root, name, scores, **more):
  """A run's final scores. scores: {task: {setting: {language: score}}}."""
  workdir = Workdir(root / name)
  workdir.final_scores.mkdir(exist_ok=True)
  scores = {
    task: {setting: {language: {"f1": [value]} for language, value in table.items()} for setting, table in settings.items()}
    for task, settings in scores.items()
  }
  content = {"scores": scores, "metrics": dict.fromkeys(scores, "f1"), "split": "test", "seeds": 5}
  write_json(workdir.final_score("latest"), {"step": json.loads(workdir.result.read_text())["step"]} | content | more)


@pytest.mark.parametrize("task", ["mine", "other"])
def test_a_table_of_the_users_own_is_no_score_of_a_run_without_settings(tmp_path, task):
  """It is on another split than the scores of the other runs, or of another task."""
  root = made_runs.make_sweep(tmp_path / "s", {"alpha": [0.3, 0.7]}, x="alpha", seeds=1, y="score")
  for name in ("alpha=0.3,seed=0", "alpha=0.7,seed=0"):
    write_scores(root, name, mine={"en": 0.5})
  before = points_of(read_sweep(root), "score")
  write_final(root, "alpha=0.7,seed=0", {task: {"zero_shot": {"en": 0.9}}})
  found = read_sweep(root)
  assert points_of(found, "score") == before and {point.value for point in before} == {50.0}
  assert [run.score for run in found.runs] == [0.5, 0.5] and not any(run.settings for run in found.runs)


def test_of_final_scores_those_of_the_sweeps_own_tasks_count(tmp_path):
  root = made_runs.make_sweep(tmp_path / "s", {"alpha": [0.3, 0.7]}, x="alpha", seeds=1, y="score")
  with_settings(root, "zero_shot")
  for name in ("alpha=0.3,seed=0", "alpha=0.7,seed=0"):
    record = read_record(Workdir(root / name))
    record.config["evaluate"]["tasks"] = ["mine"]
    record.write(Workdir(root / name))
    write_final(root, name, {"mine": {"zero_shot": {"en": 0.5}}})
  more = {"mine": {"zero_shot": {"en": 0.5}}, "other": {"zero_shot": {"en": 0.9}, "translate_train": {"en": 0.8}}}
  write_final(root, "alpha=0.7,seed=0", more, errors={"third": {"zero_shot": "no files"}})
  assert [run.means for run in read_sweep(root).runs] == [{"zero_shot": 0.5}] * 2
  # A setting that has not been scored on all of them yet has no score.
  write_final(root, "alpha=0.7,seed=0", {"other": {"zero_shot": {"en": 0.9}}})
  assert [run.score for run in read_sweep(root).runs] == [0.5, None]


def test_a_run_with_settings_is_not_measured_by_its_ledger(tmp_path):
  root = made_runs.make_sweep(tmp_path / "s", {"alpha": [0.3]}, x="alpha", seeds=1, y="score")
  with_settings(root, "zero_shot")
  (run,) = read_sweep(root).runs
  assert run.history["score"] and run.tasks == {} and run.score is None


def test_scores_of_another_split_or_other_seeds_are_left_out_and_said(tmp_path):
  root = made_runs.make_sweep(tmp_path / "s", {"alpha": [0.1, 0.3, 0.7, 0.9]}, x="alpha", seeds=1, y="score")
  with_settings(root, "zero_shot")
  names = [run.name for run in read_sweep(root).runs]
  kinds = [{"split": "dev"}, {}, {"seeds": [0, 1, 2, 3, 4]}, {"seeds": 1}]  # The third has the seeds of the second.
  for name, kind in zip(names, kinds):
    write_final(root, name, {"mine": {"zero_shot": {"en": 0.5}}}, **kind)
  found = read_sweep(root)
  assert {point.x for point in points_of(found, "score")} == {0.3, 0.7}
  assert {point.x for point in points_of(found, "bits_per_byte")} == {0.1, 0.3, 0.7, 0.9}
  page = Page(write_sweep_report(root))
  told = f"{names[0]} (split dev, not test as of most runs), {names[3]} (seeds 1, not 5 as of most runs)"
  assert f"score them as the others: {told}." in page.shown
  states = {name: row["state"] for name, row in page.table("run", "state").items()}
  assert list(states.values()) == ["scored otherwise", "finished", "finished", "scored otherwise"]
  # A run that the ledger measures is scored on dev, and does not stand beside tests either.
  record = json.loads((root / "sweep.json").read_text())
  record["runs"][1]["settings"] = []
  write_json(root / "sweep.json", record)
  for name in (names[0], names[3]):
    write_final(root, name, {"mine": {"zero_shot": {"en": 0.5}}})
  write_scores(root, names[1], mine={"en": 0.5})
  assert {point.x for point in points_of(read_sweep(root), "score")} == {0.1, 0.7, 0.9}


def test_a_line_is_named_by_its_setting_however_many_of_them_came_out(tmp_path):
  root = made_runs.make_sweep(tmp_path / "s", {"model": ["one", "two"]}, x="language", series="model", seeds=3, y="score")
  with_settings(root, "zero_shot", "translate_train_all", x_label="language")
  record = json.loads((root / "sweep.json").read_text())
  for run in record["runs"]:
    both = {"zero_shot": {"en": 0.5}, "translate_train_all": {"en": 0.8}}
    if run["values"]["model"] == "two":
      run["settings"], both = ["translate_train"], {"translate_train": {"en": 0.7}}
    elif run["seed"] == 2:
      del both["translate_train_all"]
    write_final(root, run["name"], {"mine": both})
  write_json(root / "sweep.json", record)
  lines = {series: means[0].seeds for (series, _), means in figure(points_of(read_sweep(root), "score")).items()}
  assert lines == {"one, zero_shot": 3, "one, translate_train_all": 2, "two": 3}
  # One more setting than was asked for names the lines of its series too.
  write_final(root, "model=two,seed=0", {"mine": {"translate_train": {"en": 0.7}, "zero_shot": {"en": 0.6}}})
  lines = {series: means[0].seeds for (series, _), means in figure(points_of(read_sweep(root), "score")).items()}
  assert lines["two, translate_train"] == 3 and lines["two, zero_shot"] == 1 and "two" not in lines


def with_rows(root, *made, **record):
  """The sweep, whose runs have these "rows_made" in turn."""
  content = json.loads((root / "sweep.json").read_text()) | record
  for run, rows in zip(content["runs"], made):
    run["rows_made"] = rows
  write_json(root / "sweep.json", content)


def test_held_out_losses_of_different_texts_are_not_compared(tmp_path):
  root = made_runs.make_sweep(tmp_path / "s", {"alpha": [0.3, 0.7]}, x="alpha", seeds=1)
  one = {"name": "a", "text": "crawl", "held_out": 0.01, "vocabulary_size": 8000, "seq_len": 64, "languages": ["en", "sw"]}
  same = one | {"name": "b", "vocabulary_size": 16_000, "seq_len": 128, "languages": [], "alpha": 0.7, "kind": "bpe"}
  with_rows(root, one, same)
  for name in ("alpha=0.3,seed=0", "alpha=0.7,seed=0"):
    write_scores(root, name, mine={"en": 0.5})
  page = Page(write_sweep_report(root))
  assert "is not compared" not in page.shown and "held-out loss: lower is better" in page.shown.lower()
  assert page.source.count('<figure class="chart') == 2
  for other, why in (
    ({"text": "wikipedia"}, "their text is crawl or wikipedia"),
    ({"text": ""}, "their text is all that there is or crawl"),
    ({"held_out": 0.05}, "the share that is held out is 0.01 or 0.05"),
    (None, "their text is crawl or that of config.data.rows; the share"),
  ):
    with_rows(root, one, None if other is None else same | other)
    page = Page(write_sweep_report(root))
    assert (
      f"The held-out loss is not compared, because the runs were not measured on the same held-out text: {why}" in page.shown
    )
    assert page.source.count('<figure class="chart') == 1 and "lower is better" not in page.shown
    assert set(page.table("measure", "mean over")) == {"downstream score, %"}
    assert page.table("run", "state")["alpha=0.3,seed=0"]["bits per byte"] != "–"  # Each run's own number stays in its row.
  # Lines over steps would be compared just as well.
  with_rows(root, one, same | {"text": "wikipedia"}, x="step")
  page, drawn = Page(write_sweep_report(root)), sweep_picture(read_sweep(root), tmp_path / "s.png")
  assert page.source.count('<figure class="chart') == len(drawn.axes) == 1
  # A run that is not finished is not drawn, and keeps nothing out.
  with_rows(root, one, same | {"text": "wikipedia"}, x="alpha")
  (root / "alpha=0.7,seed=0" / "result.json").unlink()
  assert not read_sweep(root).why_not_compared("bits_per_byte")
  with_rows(root, 7, 7)
  with pytest.raises(UserError, match=r"sweep.json cannot be read"):
    read_sweep(root)


def test_held_out_losses_of_more_and_fewer_rows_are_not_compared(tmp_path):
  root = made_runs.make_sweep(tmp_path / "s", {"alpha": [0.3, 0.7]}, x="alpha", seeds=1)
  workdir = Workdir(root / "alpha=0.3,seed=0")
  record = read_record(workdir)
  record.config["held_out"]["max_rows_per_language"] = 4
  record.write(workdir)
  assert "config.held_out.max_rows_per_language is 128 or 4" in Page(write_sweep_report(root)).shown
  for run in ("alpha=0.3,seed=0", "alpha=0.7,seed=0"):
    shutil.rmtree(root / run / "evaluations")
  with pytest.raises(UserError, match=r"not measured on the same held-out text: .*, so that there is nothing to draw"):
    sweep_picture(read_sweep(root), tmp_path / "s.png")


def test_a_pass_in_which_a_loss_is_no_number_has_no_mean(tmp_path, capsys):
  root = made_runs.make_sweep(tmp_path / "s", {"alpha": [0.3]}, x="alpha", seeds=2)
  workdir = Workdir(root / "alpha=0.3,seed=0")

  def lose(number, line):
    if number > 0:
      line["languages"]["en"] = {"loss": math.nan, "bits_per_byte": math.nan}

  rewritten(workdir, lose)
  found = read_sweep(root)
  assert [len(run.history["bits_per_byte"]) for run in found.runs] == [1, 3]
  assert "its last held-out loss of en is no number" in capsys.readouterr().err
  rows = Page(write_sweep_report(root)).table("run", "state")
  assert [row["bits per byte"] == "–" for row in rows.values()] == [True, False]


@pytest.mark.parametrize("damage", ["{", "[]", '{"x": "a", "runs": [{"name": "../up", "values": {}}]}', '{"runs": []}'])
def test_a_damaged_sweep_is_refused_by_name(tmp_path, damage):
  (tmp_path / "sweep.json").write_text(damage)
  with pytest.raises(UserError, match=r"sweep.json cannot be read"):
    read_sweep(tmp_path)


# --- the page that follows a run ---------------------------------------------------------------------------------------


@pytest.fixture
def served(made):
  with serve.make_server(lambda: run_page(read_run(made)), 0) as server:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()


def status_of(address, host=None):
  request = urllib.request.Request(address, headers={"Host": host} if host else {})
  try:
    with urllib.request.urlopen(request) as answer:
      return answer.status, answer.headers, answer.read()
  except urllib.error.HTTPError as error:
    return error.code, error.headers, b""


def test_the_page_is_served_to_this_machine_alone(served, made):
  status, headers, content = status_of(served)
  assert status == 200 and int(headers["Refresh"]) > 0 and content.decode() == run_page(read_run(made))
  assert status_of(served + "config.json")[0] == status_of(served + "../config.json")[0] == 404
  assert status_of(served, host="evil.example:80")[0] == 403 and status_of(served, host="localhost")[0] == 200


def test_a_served_page_is_made_anew_but_not_all_the_time():
  made, clock = [], iter(range(0, 1000, 1))

  def make():
    made.append(next(clock))
    if len(made) > 1:
      raise UserError("no <line> yet")
    return "page"

  page = serve.FreshPage(make)
  assert page.get() == page.get() == b"page" and len(made) == 1
  page._until = 0.0
  assert b"no &lt;line&gt; yet" in page.get()


def test_a_port_that_is_taken_is_refused(served):
  port = int(served.rsplit(":", 1)[1].strip("/"))
  with pytest.raises(UserError, match=f"--serve={port}: cannot listen on 127.0.0.1:{port}"):
    serve.make_server(str, port)
  with pytest.raises(UserError, match="must be a port"):
    serve.make_server(str, 99_999)


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium():
  with browser() as window:
    yield window


SCREENS = [(1280, False), (1280, True), (390, False), (390, True), (360, False)]


def check(window, path):
  """No console error, no request, no horizontal scroll of the page, and room for every word of a picture."""
  for width, dark in SCREENS:
    window.show(path.as_uri(), width=width, dark=dark)
    assert window.run("document.documentElement.scrollWidth") <= width, (width, dark)
    assert window.problems == []
    light = window.run("getComputedStyle(document.body).backgroundColor")
    assert (light == "rgb(255, 255, 255)") != dark


def test_a_browser_draws_the_page_of_a_run_and_says_nothing(chromium, made, page):
  check(chromium, made.page)
  assert chromium.run("document.querySelectorAll('.area path[data-name]').length") > 40


def test_a_browser_draws_the_page_of_a_sweep_and_says_nothing(chromium, sweep):
  check(chromium, write_sweep_report(sweep))
  assert chromium.run("document.querySelectorAll('#figure .area path[data-name]').length") > 1


def test_a_browser_has_room_for_long_names(chromium, tmp_path):
  names = ["mlm", "mlm_languages", "mlm_tlm", "mlm_tlm_languages"]
  root = made_runs.make_sweep(tmp_path / "s", {"objective": names}, x="objective", seeds=1)
  check(chromium, write_sweep_report(root))
  ticks = "[...document.querySelectorAll('#figure figure')[0].querySelectorAll('.tick.x')]"
  assert chromium.run(f"{ticks}.map(tick => tick.textContent)") == names
  edges = chromium.run(f"{ticks}.map(tick => tick.getBoundingClientRect()).map(place => [place.left, place.right])")
  assert all(0 <= left < right <= SCREENS[-1][0] for left, right in edges)  # Each has a place on the phone,
  assert all(edges[i][1] <= edges[i + 1][0] + 16 for i in range(3))  # and hides no other one.
  long = ["x" * 99, "y" * 99]
  root = made_runs.make_sweep(tmp_path / "l", {"alpha": [0.3, 0.7], "text": long}, x="alpha", series="text", seeds=1)
  check(chromium, write_sweep_report(root))
  assert chromium.run("[...document.querySelectorAll('.legend > span')].every(name => name.scrollWidth <= innerWidth)")


def test_the_pointer_tells_values(chromium, made, page):
  chromium.show(made.page.as_uri())
  box = chromium.run("""(() => { const area = document.querySelector('#held-out .area'); area.scrollIntoView();
    const box = area.getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; })()""")
  chromium.move(box[0] + box[2] - 2, box[1] + box[3] / 2)
  told = chromium.run("document.querySelector('#held-out .tip').textContent").split("\n")
  run = read_run(made)
  assert told[0] == "updates: 12,000"
  means = dict(line.rsplit(": ", 1) for line in told[1:])
  assert float(means["mean of the languages"]) == pytest.approx(run.held_out.mean_bits[-1], rel=1e-3)
  assert float(means["English (en)"]) == pytest.approx(run.held_out.bits[-1, 0], rel=1e-3)
  chromium.move(1, 1)
  assert chromium.run("document.querySelector('#held-out .tip').hidden")


def test_a_language_can_be_followed(chromium, made, page):
  chromium.show(made.page.as_uri())
  chromium.run("pick.value = 'sw'; pick.dispatchEvent(new Event('change')); 0")
  kinds = set(chromium.run("[...document.querySelectorAll('.picked')].map(one => one.tagName.toLowerCase())"))
  assert (
    kinds >= {"path", "tr", "div"} and chromium.run("document.querySelectorAll('.picked:not([data-key=sw])').length") == 0
  )


def test_a_served_page_asks_for_nothing_else(chromium, served):
  chromium.show(served)
  assert chromium.problems == [] and chromium.run("document.querySelectorAll('figure').length") >= 12


def test_a_printed_page_is_light_and_shows_whole_tables(chromium, made, page):
  chromium.show(made.page.as_uri(), dark=True, media="print")
  assert chromium.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
  assert chromium.run("getComputedStyle(document.querySelector('.wide')).maxHeight") == "none"


@pytest.mark.slow
def test_a_hundred_languages_and_15_000_lines_stay_under_5_megabytes(chromium, tmp_path):
  workdir = made_runs.make_run(tmp_path / "run", languages=100, lines=15_000, passes=300, scores=40)
  path = write_run_report(workdir, samples=False)
  assert path.stat().st_size < 5_000_000
  check(chromium, path)
  assert chromium.run("document.querySelectorAll('.legend span').length") < 120
