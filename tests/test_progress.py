"""What long work says of itself."""

import re
import time

import pytest

from xlmr_jax import progress
from xlmr_jax.progress import Progress, counted


def test_it_says_what_how_far_and_how_long(capsys, monkeypatch):
  monkeypatch.setattr(progress, "EVERY_S", 0.05)
  monkeypatch.setattr(progress, "_MEASURED_S", 0.0)
  with Progress("reading", 400, "MB") as reading:
    reading.add(100)
    time.sleep(0.2)
  output = capsys.readouterr()
  lines = output.err.splitlines()
  assert not output.out and lines
  assert all(re.fullmatch(r"reading: 100 of 400 MB in 0 s, [\d,.]+ MB/s, about \d s still", line) for line in lines)
  assert reading.line(60) == "reading: 100 of 400 MB in 60 s, 1.7 MB/s, about 3.0 min still"
  assert Progress("training").line(9000) == "training: 2.5 h so far"


def test_short_work_is_silent_and_its_clock_ends_with_it(capsys, monkeypatch):
  with Progress("nothing", 400, "MB"):
    pass
  monkeypatch.setattr(progress, "EVERY_S", 0.02)
  with Progress("xnli: reading train of en"):
    time.sleep(0.08)
  assert capsys.readouterr().err.splitlines()[0] == "xnli: reading train of en: 0 s so far"
  time.sleep(0.06)
  assert capsys.readouterr().err == ""


def test_the_compilation_says_nothing_about_the_time_left(monkeypatch):
  now = iter([0.0, 100.0])
  monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
  training = Progress("panx in en, seed 0: training", 10, "steps", compiles=True)
  monkeypatch.setattr(training, "_clock", type("Clock", (), {"start": lambda self: None, "join": lambda self: None})())
  with training:
    assert training.line(50) == "panx in en, seed 0: training: 0 of 10 steps in 50 s"
    training.add()  # at 100 s, of which nearly all was the compilation
    assert training.line(101) == "panx in en, seed 0: training: 1 of 10 steps in 101 s"
    training.add(detail="loss 0.123")
    assert "steps/s" not in training.line(100.5)  # The second one was sent at once, and not made.
    expected = "panx in en, seed 0: training: 2 of 10 steps in 104 s, 0.2 steps/s, about 32 s still, loss 0.123"
    assert training.line(104) == expected


@pytest.mark.parametrize("amount", [1, 16])
def test_counted_items_count_once_they_are_done(amount):
  work = Progress("scoring", 64, "rows")
  items = counted("ab", work, amount)
  assert next(items) == "a" and work.line(1) == "scoring: 0 of 64 rows in 1 s"
  assert next(items) == "b" and work.line(1).startswith(f"scoring: {amount} of 64 rows in 1 s, {amount}.0 rows/s")
