"""The demo is never silent for long, shows what its programs print, and takes them with it when it is stopped."""

import os
import signal
import sys
import threading
import time

import pytest

from xlmr_jax.demo import progress
from xlmr_jax.demo.progress import Progress


def python(program: str) -> list[str]:
  return [sys.executable, "-c", program]


def test_lines_are_shown_as_they_come_and_the_last_json_is_not(capsys):
  with Progress(lambda: "nothing") as shown:
    child = shown.start(python("print('one'); print('{\"two\": 2}')"), "child  ")
    assert shown.wait(child) == 0
  assert capsys.readouterr().out == "child  one\n"


def test_lines_can_be_chosen(capsys):
  with Progress(lambda: "nothing") as shown:
    assert shown.wait(shown.start(python("print('step 3 of 4'); print('a table')"), only=r" \d+ of \d+")) == 0
  assert capsys.readouterr().out == "step 3 of 4\n"


def test_a_silence_is_broken_by_what_is_being_waited_for(capsys, monkeypatch):
  monkeypatch.setattr(progress, "SILENCE_S", 0.5)
  with Progress(lambda: "counting to ten"):
    time.sleep(1.8)
  first, *_ = lines = capsys.readouterr().out.splitlines()
  assert len(lines) >= 1 and "counting to ten" in first and "s so far" in first


def test_no_word_where_there_is_no_silence(capsys, monkeypatch):
  monkeypatch.setattr(progress, "SILENCE_S", 5.0)
  with Progress(lambda: "counting to ten") as shown:
    shown.say("a line")
    time.sleep(1.2)
  assert capsys.readouterr().out == "a line\n"


def test_the_exit_code_of_a_program_comes_back():
  with Progress(lambda: "") as shown:
    assert shown.wait(shown.start(python("raise SystemExit(42)"))) == 42


def test_a_signal_goes_on_to_the_programs_and_is_given_back():
  before = signal.getsignal(signal.SIGTERM)
  program = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('ready'); time.sleep(60)"
  with Progress(lambda: "") as shown:
    child = shown.start(python(program))
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert shown.wait(child) == 7
  assert signal.getsignal(signal.SIGTERM) is before


def test_programs_end_with_it():
  with pytest.raises(KeyError):
    with Progress(lambda: "") as shown:
      child = shown.start(python("import time; time.sleep(60)"))
      raise KeyError
  assert child.returncode == -signal.SIGTERM
