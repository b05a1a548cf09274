"""What a sweep refuses, or says, so that no figure shows something else than what was asked for."""

import json
import threading
import time

import pytest

from tests import tiny
from tests.test_paths import command  # noqa: F401  It is a fixture.
from tests.test_sweep import TWO, Pretending, make_plan, write
from xlmr_jax.data.row_manifest import write_manifest
from xlmr_jax.errors import UserError
from xlmr_jax.files import lock
from xlmr_jax.run.manifest import MANIFEST
from xlmr_jax.sweep import rows as sweep_rows
from xlmr_jax.sweep.folder import describe
from xlmr_jax.sweep.runner import check, run_all
from xlmr_jax.sweep.runs import Rows, load_sweep

# --- rows and text that are not those of the runs ---------------------------------------------------------------------


def test_one_store_for_several_is_refused_at_every_index_of_an_array(command, tmp_path, tiny_rows, monkeypatch):  # noqa: F811
  """Each starter has one run, which takes any store: the runs on Wikipedia would train on the crawl."""
  line = ("sweep", "--config=sweeps/data", f"--workdir={tmp_path / 'w'}", f"--rows={tiny_rows}")
  said = "is one store, and the runs need 2: crawl, wikipedia"
  for flags in (
    (),
    ("--index=0",),
    ("--index=9", "--of=10"),
    ("--index=11",),
    ("--commands",),
    ("--index=11", "--commands"),
  ):
    code, out, err = command(*line, *flags)
    assert (code, out) == (1, "") and said in err and err.count("\n") == 1, (flags, err)
  monkeypatch.setenv("XLMR_INDEX", "9")
  assert said in command(*line, "--array")[2]
  assert command(*line, "--list")[0] == 0
  for flags in (("--select=text=crawl",), ("--select=text=wikipedia", "--index=9")):  # The user says which runs it is for.
    assert "is to be scored on xnli" in command(*line, *flags)[2]
  assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("name", ["objective", "monolingual", "stopping", "rivals", ""])
def test_text_that_no_run_reads_is_refused(command, tmp_path, name):  # noqa: F811
  config = f"sweeps/{name}:tiny" if name else write(tmp_path / "two.py", TWO)
  why = "their rows are of the built-in world's text" if name else "none names rows to build of it"
  for flag in ("--list", "--index=0"):
    code, out, err = command("sweep", f"--config={config}", f"--workdir={tmp_path / 'w'}", f"--text={tmp_path}", flag)
    assert (code, out) == (1, "") and err.startswith(f"error: --text={tmp_path}: no run reads it") and why in err, err
  assert not (tmp_path / "w").exists()


def test_text_that_some_run_reads_is_taken(tmp_path):
  """Of a run of another starter; or as parallel sentences; or of rows that are there by now."""
  demo, mine = load_sweep("sweeps/stopping:tiny").runs[0], load_sweep("sweeps/alpha:tiny").runs[0]
  sweep_rows.refuse_unread_text([demo, mine], None, tmp_path)
  sweep_rows.refuse_unread_text([demo], None, None)
  with pytest.raises(UserError, match=f"--text={tmp_path}: is not read beside --rows=.*give one of them"):
    sweep_rows.refuse_unread_text([mine], tmp_path / "rows", tmp_path)
  plan = make_plan(tmp_path, TWO.replace("3})", "3}, rows=Rows('r', 9, text='demo', parallel='pairs'))"))
  sweep_rows.refuse_unread_text(plan.sweep.runs, None, tmp_path)


def test_rows_that_were_built_otherwise_are_not_taken(tmp_path, capsys):
  """As the sweep asked for them before its file was changed. Another text, which may be the same one elsewhere, is told."""
  own, text = tmp_path / "sweep" / "rows", tmp_path / "text"
  tiny.make_store(own / "r")
  plan = make_plan(tmp_path, TWO.replace("3})", "3}, rows=Rows('r', 100))"), given_rows=None, text=text)
  built = lambda rows, text: sweep_rows.build(rows, own / "r", text, lambda line: pytest.fail("it was built again"))  # noqa: E731
  assert built(Rows("r", 100), text) == 0  # Without a NAME.json, they are somebody's own.
  (own / "r.json").write_text(json.dumps({"name": "r", "vocabulary_size": 100, "languages": [], "from": str(text)}))
  before = (own / "r.json").read_bytes()
  check(plan, plan.sweep.runs)
  for now in (text, None, tmp_path / "moved"):
    assert built(Rows("r", 100), now) == 0
  assert f"was built of {text} and stays as it is; {tmp_path / 'moved'} is not read" in capsys.readouterr().err
  for rows, where, said in (
    (Rows("r", 200), text, "vocabulary_size: 100 there, 200 here"),
    (Rows("r", 100, languages=("sw",)), None, r"languages: \[\] there, \['sw'\] here"),
    (Rows("r", 100, seq_len=64), text, "seq_len: 512 there, 64 here"),
  ):
    with pytest.raises(UserError, match=rf"rows/r was made for other rows \(.*{said}.*remove .*rows/r.*r\.json"):
      built(rows, where)
  other = make_plan(tmp_path, TWO.replace("3})", "3}, rows=Rows('r', 200))"), given_rows=None, text=text)
  with pytest.raises(UserError, match="vocabulary_size: 100 there, 200 here"):  # Before the first run.
    check(other, other.sweep.runs)
  check(make_plan(tmp_path, TWO.replace("3})", "3}, rows=Rows('r', 200))"), given_rows=own), other.sweep.runs)  # --rows
  assert (own / "r.json").read_bytes() == before
  for damaged in ("{", "[]"):
    (own / "r.json").write_text(damaged)
    with pytest.raises(UserError, match=r"r\.json cannot be read .*remove it to take the rows as they are"):
      check(plan, plan.sweep.runs)


def test_a_figures_number_of_languages_that_the_rows_do_not_have_is_said(tmp_path, capsys):
  rows = tiny.make_store(tmp_path / "store")  # three languages
  text = (
    "def sweep(add):\n"
    "  for count, names in ((100, ()), (3, ()), (2, ('aa', 'bb'))):\n"
    "    add({'data.languages': names}, values={'languages': count})\n"
  )
  plan = make_plan(tmp_path, text, given_rows=rows)
  run_all(plan, plan.sweep.runs, Pretending())
  said = [line for line in capsys.readouterr().err.splitlines() if "languages of" in line]
  assert said == [f"sweep: languages=100: it reads all 3 languages of {rows}, and the figure has it at 100"]
  run_all(plan, plan.sweep.runs, Pretending())
  assert "languages of" not in capsys.readouterr().err  # Not of what has begun.
  manifest = json.loads((rows / "manifest.json").read_text())
  fields = ("seq_len", "vocabulary_size", "tokenizer_sha256", "held_out_share", "languages", "files")
  write_manifest(rows, **{key: manifest[key] for key in fields}, pairs={"cc": ("aa", "bb")})
  assert "reads all 2 languages" in sweep_rows.say_other_count(plan.sweep.runs[0], rows)  # A pair is no language.
  assert sweep_rows.say_other_count(load_sweep("sweeps/languages").runs[-1], tmp_path / "none") == ""


# --- runs that a figure would mix up ----------------------------------------------------------------------------------


@pytest.mark.parametrize("runs, is_refused", [
  ((("seven-0", {"data.alpha": 0.3, "data.languages": ("aa",), "seed": 0}, None),
    ("all-0", {"data.alpha": 0.3, "data.languages": (), "seed": 0}, None)), True),
  ((("a", {"data.alpha": 1.0, "seed": 0}, None), ("b", {"data.alpha": 1, "data.languages": ()}, None)), True),
  ((("a", {"train_steps": 5}, {"x": 1, "seed": 1}), ("b", {"train_steps": 6}, {"x": 1, "seed": 2})), True),
  ((("a", {"train_steps": 5, "seed": 1}, {"x": 1}), ("b", {"train_steps": 5, "seed": 2}, {"x": 1})), False),
  ((("a", {"data.languages": ("aa",)}, {"set": "seven"}), ("b", {"data.languages": ()}, {"set": "all"})), False),
])  # fmt: skip
def test_runs_of_the_same_values_and_seed_are_refused(tmp_path, runs, is_refused):
  adds = "".join(f"  add({name!r}, {changes!r}, values={values!r})\n" for name, changes, values in runs)
  config = str(write(tmp_path / "a.py", f"def sweep(add):\n{adds}"))
  if not is_refused:
    assert len(load_sweep(config).runs) == 2
    return
  with pytest.raises(
    UserError, match=rf"{runs[0][0]} and {runs[1][0]} have the same values .* and the seed 0, .*tell them apart"
  ):
    load_sweep(config)


def test_the_seed_of_a_run_is_that_of_its_config(tmp_path):
  config = "def get_config(arg=''):\n  return tiny.config('rows', seed=7)\n\n"
  seeds = lambda plan: [run["seed"] for run in describe(plan.sweep, plan.overrides)["runs"]]  # noqa: E731
  steps = "def sweep(add):\n  for n in (5, 6):\n    add({'train_steps': n})\n"
  assert seeds(make_plan(tmp_path, config + steps)) == [7, 7]
  plan = make_plan(tmp_path, config + steps, overrides=["--config.seed=9"])
  assert seeds(plan) == [9, 9] == [plan.config(run).seed for run in plan.sweep.runs]
  assert seeds(make_plan(tmp_path, config + TWO)) == [3, 3] and seeds(make_plan(tmp_path, steps)) == [0, 0]


# --- starters ---------------------------------------------------------------------------------------------------------


def test_a_starter_without_a_run_has_nothing_to_do(command, tmp_path, tiny_rows, monkeypatch):  # noqa: F811
  """A Slurm array may have more tasks than the sweep has runs."""
  line = ("sweep", f"--config={write(tmp_path / 'two.py', TWO)}", f"--workdir={tmp_path / 'w'}", f"--rows={tiny_rows}")
  code, out, err = command(*line, "--index=20", "--of=30")
  assert code == 0 and err == "sweep: nothing to do: index 20 of 30 starters has none of the 2 runs\n"
  assert json.loads(out)["runs"] == 0 and json.loads(out)["failed"] == {}
  assert command(*line, "--index=20", "--of=30", "--list")[:2] == (0, '{"runs": 0}\n')
  assert command(*line, "--index=20", "--of=30", "--commands")[:2] == (0, "")
  monkeypatch.setenv("XLMR_INDEX", "2")
  for flags, said in (
    (("--array",), "index 2, of --index or --array: there are the indices 0 to 1 of 2 runs"),
    (("--index=30", "--of=30"), "there are the indices 0 to 29 of 30 starters (--of)"),
    (("--index=0", "--of=0"), "--of=0: must be at least 1"),
    (("--index=1", "--of=2", "--select=peak_lr=0.1"), "--index=1: is not among the 1 runs that --select takes"),
  ):
    code, _, err = command(*line, *flags)
    assert code == 1 and said in err and err.count("\n") == 1, err
  assert not (tmp_path / "w").exists()


def test_a_probe_of_a_claim_costs_nobody_the_run(tmp_path):
  plan = make_plan(tmp_path)
  first = plan.sweep.runs[0]
  plan.folder.claim(first).close()
  probe = lock(plan.folder.workdir(first).root / ".sweep.lock", "")
  thread = threading.Timer(0.15, probe.close)
  thread.start()
  plan.folder.claim(first).close()
  thread.join()
  with plan.folder.claim(first):
    began = time.monotonic()
    with pytest.raises(UserError, match="is being run by another process"):
      plan.folder.claim(first)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("settings", ["", ", settings=('zero_shot',)"])
def test_a_run_whose_last_checkpoint_is_gone_is_not_done(tmp_path, capsys, settings):
  """`xlmr evaluate` says that nothing is left to evaluate, and ends well."""
  text = f"def sweep(add):\n  add({{'seed': 1}}{settings})\n  add({{'seed': 2}}{settings})\n"
  plan = make_plan(
    tmp_path, text, overrides=["--config.evaluate.tasks=demo_entities", "--config.evaluate.setting=per_language"]
  )
  first, second = plan.sweep.runs

  class Scoring(Pretending):
    def __call__(self, line):
      if line[3] == "evaluate" and f"--workdir={plan.folder.workdir(second)}" in line:
        workdir = plan.folder.workdir(second)
        workdir.final_scores.mkdir(parents=True)
        workdir.evaluation(12).write_text("{}")
        workdir.final_score("latest").write_text(json.dumps({"step": 12, "scores": {"demo_entities": {"zero_shot": {}}}}))
      return super().__call__(line)

  for _ in range(2):
    pretending = Scoring()
    assert run_all(plan, plan.sweep.runs, pretending) == ({first.name: 1}, [])
    workdir, said = plan.folder.workdir(first), capsys.readouterr().err
    assert f"because {workdir.checkpoints / '12'} is missing; bring it back, or remove {workdir.result}" in said
    scored = [line for line in pretending.lines if line[3] == "evaluate"]
    # --settings takes the place of the key.
    assert all(("--config.evaluate.setting=per_language" in line) == (not settings) for line in scored)
  manifest = workdir.checkpoints / "12" / MANIFEST
  manifest.parent.mkdir(parents=True)
  manifest.write_text("{}")
  assert run_all(plan, plan.sweep.runs, Pretending()) == ({first.name: 1}, [])
  assert "no scores of its last step 12, although `xlmr evaluate` ended well" in capsys.readouterr().err
