"""What the evaluator says about long work."""

import re
import time

from xlmr_jax.evaluation import finetune
from xlmr_jax.evaluation.finetune import Announcer


def test_long_work_says_how_far_it_is(monkeypatch, capfd):
  monkeypatch.setattr(finetune, "SILENCE_S", 0.05)
  with Announcer("panx in en, seed 0: training step", 3) as announcer:
    time.sleep(0.12)  # the compilation, in which no step is done
    for step in range(3):
      announcer.advance(lambda step=step: f", loss 0.{step}")
      time.sleep(0.12)
  output = capfd.readouterr()
  lines = output.err.splitlines()
  assert output.out == "" and lines[0] == "panx in en, seed 0: training step 0 of 3"
  assert "panx in en, seed 0: training step 1 of 3, loss 0.0" in lines
  assert any(re.fullmatch(r"panx in en, seed 0: training step 2 of 3, loss 0\.1, \d+ s left", line) for line in lines)


def test_the_time_left_leaves_the_first_item_out(monkeypatch):
  now = iter([0.0, 100.0, 103.0])
  monkeypatch.setattr(finetune.time, "monotonic", lambda: next(now))
  with Announcer("step", 10) as announcer:
    announcer.advance()  # at 100 s, of which nearly all was the compilation
    announcer.advance()
    assert announcer.line() == "step 2 of 10, 24 s left"


def test_short_work_is_silent_and_uncounted_work_says_how_long_it_takes(monkeypatch, capfd):
  with Announcer("xnli: reading train of en"):
    pass
  assert capfd.readouterr().err == ""
  monkeypatch.setattr(finetune, "SILENCE_S", 0.02)
  with Announcer("xnli: reading train of en"):
    time.sleep(0.08)
  assert capfd.readouterr().err.splitlines()[0] == "xnli: reading train of en, 0 s so far"
  time.sleep(0.06)
  assert capfd.readouterr().err == ""  # It has ended with the work.
