"""Command: follow a run's checkpoints, score each by fine-tuning on tasks, and end the training once scores stop rising.

  xlmr evaluate --workdir=DIR [--config.evaluate.tasks=xnli,panx] [--config.stop.patience=5]
  xlmr evaluate --workdir=DIR --once      # scores what is there, and ends
  xlmr evaluate --workdir=DIR --replay [--config.stop.patience=3]      # where a rule would have stopped
  xlmr evaluate --workdir=DIR --checkpoint=best --tasks=xnli,mlqa --seeds=5 [--settings=zero_shot,...]
  xlmr evaluate --workdir=HUGGING_FACE_FOLDER --tasks=xnli      # the same table for any XLM-R or RoBERTa

The config is the run's own (config.json), of which evaluate.* and stop.* can be given anew. Every eligible checkpoint is
taken once and in order; evaluations/STEP.json, written last, says that a step is done, so a killed evaluator goes on where
it was. Exit codes: 0 the run is over, 1 the user must act, 42 start me again (SIGTERM), 70 a crash.
"""

import ast
import contextlib
import fcntl
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict

from xlmr_jax import open_model as runs
from xlmr_jax.commands import pretrain as run_main
from xlmr_jax.errors import EXIT_DONE, EXIT_RESTART, UserError, run_command
from xlmr_jax.run import stopping

FLAGS = flags.FLAGS
# (params, step, seed) -> ({task: {language: {metric: float}}}, {task: what went wrong}); its method recipe(), a dict for
# the ledger, is optional.
Scorer = Callable[[Any, int, int], tuple[dict, dict]]


# --- the run's config ----------------------------------------------------------------------------------------------


def read_run(workdir: Path, wait: bool) -> dict:
  """The run's record; with wait, once it has begun: the evaluator may start before the run."""
  path, said = workdir / "config.json", False
  while wait and (not path.exists() or runs.is_untrained_import(runs.read_run(workdir))):
    if not said:
      print(f"waiting for {path}" if not path.exists() else f"waiting for training to begin in {workdir}", flush=True)
    said = True
    time.sleep(1.0)
  return runs.read_run(workdir)


def read_config(record: dict, overrides: list[str]) -> ConfigDict:
  """The run's config with overrides ["--config.stop.patience=3", ...]; keys it was made without have their defaults."""
  from configs import common

  config = common.get_config()
  known = run_main.flatten(config.to_dict())
  given = {key: value for key, value in run_main.flatten(record["config"]).items() if key in known}
  given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
  for override in overrides:
    name, separator, text = override.partition("=")
    key = name.removeprefix("--config.")
    if not separator or key not in known or not run_main.is_below(key, ("evaluate", "stop")):
      there = ", ".join(name for name in known if run_main.is_below(name, ("evaluate", "stop")))
      raise UserError(f"{override!r}: here --config.KEY=VALUE takes {there}; all else is as the run has it")
    given[key] = _parse(key, text, known[key])
  config.update_from_flattened_dict(given)
  return config


def _parse(key: str, text: str, default: Any) -> Any:
  """A flag's text as the type of default; a tuple is (a, b) or a,b."""
  if isinstance(default, str):
    return text
  try:
    if not isinstance(default, tuple):
      return type(default)(text)
    return tuple(ast.literal_eval(text)) if text.startswith("(") else tuple(filter(None, text.split(",")))
  except (ValueError, SyntaxError):
    raise UserError(f"--config.{key}={text}: not {type(default).__name__}") from None


def make_scorer(record: dict, config: ConfigDict, workdir: Path) -> Scorer:
  """Fine-tuning on config.evaluate.tasks. record: config.json; config: with this command's overrides."""
  from xlmr_jax.evaluation import finetune

  return finetune.Scorer(record | {"config": config.to_dict()}, workdir)


# --- the ledger ----------------------------------------------------------------------------------------------------


def read_ledger(workdir: Path) -> list[dict]:
  """The records of all steps that were evaluated, or could not be ("error"), by step."""
  found = []
  for path in sorted((workdir / "evaluations").glob("*.json"), key=lambda path: path.name):
    if path.stem.isdigit():
      try:
        found.append(json.loads(path.read_text()))
      except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}); remove it and the step is evaluated again") from None
  return sorted(found, key=lambda entry: entry["step"])


def history_of(ledger: list[dict], config: ConfigDict) -> list[dict]:
  """[{"step", "score"}] under config.stop. Checkpoints that nobody could load say nothing about the model."""
  return [
    {"step": entry["step"], "score": stopping.score_of(entry, config.stop)} for entry in ledger if "error" not in entry
  ]


def replay(config: ConfigDict, workdir: Path) -> dict:
  """Where config.stop would have ended the run, from its ledger."""
  history = history_of(read_ledger(workdir), config)
  step, decision = stopping.first_stop(history, config.stop)
  for entry in history:
    score = "none" if entry["score"] is None else f"{entry['score']:.6g}"
    print(f"step {entry['step']}: score {score}{'  <- stop' if entry['step'] == step else ''}")
  return {
    "stop": step,
    "reason": decision.reason,
    "best_step": decision.best_step,
    "best_score": decision.best_score,
    "evaluations": len(history),
  }


def conclude(config: ConfigDict, workdir: Path) -> stopping.Decision:
  """From the whole ledger: best.json and best/, and STOP.json if the rule says so. Doing it twice changes nothing."""
  from xlmr_jax.run.metrics import write_json

  history = history_of(read_ledger(workdir), config)
  decision = stopping.decide(history, config.stop)
  if decision.best_step is not None:
    write_json(workdir / "best.json", {"step": decision.best_step, "score": decision.best_score})
    keep_best(workdir, decision.best_step)
  if decision.stop and not (workdir / "STOP.json").exists():
    write_json(workdir / "STOP.json", {"step": history[-1]["step"], "reason": decision.reason})
  return decision


def keep_best(workdir: Path, step: int) -> None:
  """Makes a verified copy of a checkpoint the only one in best/; says so where it has gone or is damaged."""
  from etils import epath

  from xlmr_jax.run import checkpoint

  best, temporary = workdir / "best", workdir / "best.tmp"
  shutil.rmtree(temporary, ignore_errors=True)
  if not (best / str(step)).exists():
    try:
      shutil.copytree(workdir / "checkpoints" / str(step), temporary / str(step))
      checkpoint.verify(epath.Path(temporary / str(step)))
    except (OSError, shutil.Error, checkpoint.DamagedError) as error:
      print(f"checkpoint {step}, the best, is not in {best}: {error}", file=sys.stderr, flush=True)
      return
    best.mkdir(exist_ok=True)
    (temporary / str(step)).rename(best / str(step))
    temporary.rmdir()
  for old in best.iterdir():
    if old.name != str(step):
      shutil.rmtree(old)


# --- one checkpoint ------------------------------------------------------------------------------------------------


def waiting_steps(config: ConfigDict, workdir: Path) -> list[int]:
  """Sealed eligible steps that are not in the ledger, in order."""
  from xlmr_jax.run import checkpoint

  evaluated = checkpoint.evaluated_steps(workdir)
  return [
    step
    for step in sorted(checkpoint.sound_steps(workdir / "checkpoints"))
    if step not in evaluated and stopping.is_eligible(step, config.evaluate.every_steps, config.train_steps)
  ]


def load(workdir: Path, step: int, abstract_params: Any) -> tuple[Any, str]:
  """(parameters, the manifest's digest) of a pinned step, verified. Raises LookupError: it was dropped; DamagedError."""
  from xlmr_jax.run import checkpoint

  def missing() -> bool:
    return step not in checkpoint.sound_steps(workdir / "checkpoints")

  for last in (False, True):
    if missing():
      time.sleep(1.0)  # the trainer brings back what it was removing when it saw the pin
      if missing():
        raise LookupError(f"checkpoint {step} is dropped: the trainer removed it before it was read")
    try:
      params = checkpoint.restore_params(workdir / "checkpoints", step, abstract_params)
      return params, json.loads((workdir / "checkpoints" / str(step) / checkpoint.MANIFEST).read_text())["digest"]
    except (checkpoint.DamagedError, OSError) as error:
      if last:
        raise checkpoint.DamagedError(str(error)) from error
      time.sleep(1.0)
  raise AssertionError


def score_checkpoint(config: ConfigDict, workdir: Path, step: int, params: Any, scorer: Scorer, pinned: bool = True) -> dict:
  """{"scores", "errors", "metrics", "score"} of one checkpoint over all seeds; see stopping.score_of."""
  from xlmr_jax.evaluation.tasks import registry
  from xlmr_jax.run import checkpoint

  scores, errors, metrics = {}, {}, {}
  for seed in range(config.evaluate.seeds):
    try:
      found, failed = scorer(params, step, seed)
    except UserError as error:
      found, failed = {}, {task: str(error) for task in config.evaluate.tasks}
    errors |= failed
    for task, languages in found.items():
      for language, values in languages.items():
        known = registry.TASKS.get(task)
        metrics.setdefault(task, known.metrics[0] if known else next(iter(values)))
        for metric, value in values.items():
          of_seeds = scores.setdefault(task, {}).setdefault(language, {}).setdefault(metric, [])
          of_seeds.append(float(value) if stopping.is_finite(value) else None)  # JSON has no NaN
    if pinned:
      checkpoint.renew_pin(workdir, step)
  for task in config.evaluate.tasks:
    if task not in scores and task not in errors:
      errors[task] = "no score"
  found = {"scores": scores, "errors": errors, "metrics": metrics}
  return found | {"score": stopping.score_of(found, config.stop)}


def evaluate_step(config: ConfigDict, workdir: Path, step: int, abstract_params: Any, scorer: Scorer) -> dict | None:
  """Evaluates a step and writes its record, then best.json and STOP.json; None when the trainer recorded it meanwhile."""
  from xlmr_jax.run import checkpoint, hosts
  from xlmr_jax.run.metrics import write_json

  path, began = checkpoint.evaluation_path(workdir, step), time.monotonic()
  with checkpoint.pin(workdir, step):
    if path.exists():
      return None
    try:
      params, digest = load(workdir, step, abstract_params)
    except (LookupError, checkpoint.DamagedError) as error:
      entry = {"step": step, "error": str(error.args[0])}
      if not path.exists():
        write_json(path, entry)
      print(f"step {step}: not evaluated: {entry['error']}", flush=True)
      return entry
    entry = {"step": step, "digest": digest} | score_checkpoint(config, workdir, step, params, scorer)
    del params
    recipe = {"evaluate": config.evaluate.to_dict()} | (scorer.recipe() if hasattr(scorer, "recipe") else {})
    entry |= {"recipe": recipe, "versions": hosts.versions(), "seconds": round(time.monotonic() - began, 3)}
    write_json(path, entry)
    decision = conclude(config, workdir)  # while the pin holds: the best one is copied
  print(describe(entry, decision, config.stop.patience), flush=True)
  return entry


def describe(entry: dict, decision: stopping.Decision, patience: int) -> str:
  """One line about an evaluation."""
  show = lambda score: "none" if score is None else f"{score:.4g}"  # noqa: E731
  tasks = ", ".join(f"{task} {show(_task_score(entry, task))}" for task in sorted(entry["scores"]))
  failed = "".join(f"  {task} failed: {message}" for task, message in sorted(entry["errors"].items()))
  best = "" if decision.best_step is None else f"  best {show(decision.best_score)} at step {decision.best_step}"
  since = f"  {decision.since} of {patience} evaluations without gain" if patience else ""
  return (
    f"step {entry['step']}: score {show(entry['score'])} ({tasks or 'no task'}){best}{since}  {entry['seconds']:.0f} s"
    f"{failed}"
  )


def _task_score(entry: dict, task: str) -> float | None:
  return stopping.score_of(entry, ConfigDict({"score": task}))


class Board:
  """evaluations/tensorboard, made anew from the ledger at every start: a killed evaluator leaves no gap or double."""

  def __init__(self, workdir: Path):
    from tensorboardX import SummaryWriter

    folder = workdir / "evaluations" / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)
    self._writer = SummaryWriter(str(folder))
    for entry in read_ledger(workdir):
      self.add(entry)

  def add(self, entry: dict) -> None:
    scalars = {"score": entry.get("score")}
    for task, languages in entry.get("scores", {}).items():
      scalars[f"{task}/mean"] = _task_score(entry, task)
      for language, metrics in languages.items():
        scalars |= {
          f"{task}/{language}/{metric}": None if None in values else sum(values) / len(values)
          for metric, values in metrics.items()
        }
    for name, value in scalars.items():
      if value is not None:
        self._writer.add_scalar(name, value, entry["step"])
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


# --- the loop ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def only_one(workdir: Path) -> Iterator[None]:
  """UserError if another process evaluates this workdir; the lock goes with the process."""
  (workdir / "evaluations").mkdir(parents=True, exist_ok=True)
  with (workdir / "evaluations" / ".lock").open("w") as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise UserError(f"{workdir} is being evaluated by another process; wait for it or end it") from None
    yield


def follow(config: ConfigDict, workdir: Path, scorer: Scorer, abstract_params: Any, *, once: bool = False) -> int:
  """Evaluates every eligible checkpoint of a run, in order, until STOP.json or its last one; returns the exit code.

  abstract_params: as in checkpoint.restore_params. once: ends when nothing waits; it goes on past a STOP.json, which is
  how what a stopped run still saved gets its scores.
  """
  from xlmr_jax.run import checkpoint
  from xlmr_jax.training.loop import read_stop

  with only_one(workdir):
    conclude(config, workdir)  # what a killed evaluator had still to do; its pin holds until then
    checkpoint.clear_pins(workdir)
    board = Board(workdir) if config.log.tensorboard else None
    try:
      while once or not (workdir / "STOP.json").exists():
        trained = (
          config.train_steps in checkpoint.sound_steps(workdir / "checkpoints")
          or checkpoint.evaluation_path(workdir, config.train_steps).exists()
        )  # before the look for others
        waiting = waiting_steps(config, workdir)
        if waiting:
          entry = evaluate_step(config, workdir, waiting[0], abstract_params, scorer)
          if entry and board:
            board.add(entry)
        elif once or trained:
          print("nothing is left to evaluate", flush=True)
          return EXIT_DONE
        else:
          time.sleep(config.evaluate.wait_s)
    finally:
      if board:
        board.close()
  print(f"{workdir / 'STOP.json'} ends the run: {(read_stop(workdir) or {}).get('reason', 'unreadable')}", flush=True)
  return EXIT_DONE


# --- the final table -----------------------------------------------------------------------------------------------


def final(record: dict, config: ConfigDict, workdir: Path, name: str, settings: list[str], split: str) -> dict:
  """Scores of one checkpoint in several settings, printed beside the paper's and written to evaluations/final/."""
  from xlmr_jax.evaluation import finetune
  from xlmr_jax.evaluation import paper_table as paper
  from xlmr_jax.run.metrics import write_json

  config = config.copy_and_resolve_references()
  step, params = runs.load_params(workdir, record, config, name)
  scores, errors, metrics = {}, {}, {}
  for setting in settings:
    config.evaluate.setting = setting
    run_main.check_evaluation(config)
    scorer = finetune.Scorer(record | {"config": config.to_dict()}, workdir, split)
    found = score_checkpoint(config, workdir, step, params, scorer, pinned=False)
    metrics |= found["metrics"]
    for task, of_task in found["scores"].items():
      scores.setdefault(task, {})[setting] = of_task
    for task, message in found["errors"].items():
      errors.setdefault(task, {})[setting] = message
      print(f"{task}, {setting}: {message}", file=sys.stderr, flush=True)
  print(paper.table(scores, f"{name} ({step})"), flush=True)
  result = {
    "checkpoint": name,
    "step": step,
    "split": split,
    "seeds": config.evaluate.seeds,
    "scores": scores,
    "errors": errors,
    "recipe": scorer.recipe(),
  }
  path = workdir / "evaluations" / "final" / f"{name}.json"
  if path.exists():  # tasks scored before stay, unless they were of another checkpoint or scored otherwise
    before = json.loads(path.read_text())
    if all(before[key] == result[key] for key in ("checkpoint", "step", "split", "seeds")):
      for key in ("scores", "errors", "recipe"):
        result[key] = {task: of for task, of in before[key].items() if task not in config.evaluate.tasks} | result[key]
  path.parent.mkdir(parents=True, exist_ok=True)
  write_json(path, result)
  means = {
    task: {
      setting: stopping.score_of({"scores": {task: of}, "metrics": metrics, "errors": {}}, ConfigDict({"score": task}))
      for setting, of in of_task.items()
    }
    for task, of_task in scores.items()
  }
  return {"step": step, "means": means, "failed": sorted(errors), "file": str(path)}


def main(argv: list[str]) -> int | None:
  overrides = argv[1:]
  overrides += [
    f"--config.evaluate.{name}={value}"
    for name, value in (("tasks", FLAGS.tasks), ("seeds", FLAGS.seeds))
    if value is not None
  ]
  unknown = [each for each in overrides if not each.startswith("--config.")]
  if unknown:
    raise UserError(f"unexpected argument {unknown[0]!r}; flags are written --name=value")
  from xlmr_jax.huggingface.folder import is_folder

  if FLAGS.once + FLAGS.replay + bool(FLAGS.checkpoint) > 1:
    raise UserError("--once, --replay and --checkpoint: give one of them")
  logging.set_verbosity(logging.WARNING)
  workdir = Path(FLAGS.workdir).absolute()
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_RESTART))  # anywhere: it is as safe as kill -9
  if is_folder(workdir):
    if FLAGS.once or FLAGS.replay:
      raise UserError(f"--once, --replay: {workdir} is a Hugging Face folder, one model; give --tasks, and a table comes")
    FLAGS.checkpoint = FLAGS.checkpoint or "latest"
  record = read_run(workdir, wait=not (FLAGS.once or FLAGS.replay or FLAGS.checkpoint))
  config = read_config(record, overrides)
  run_main.check_evaluation(config)
  if FLAGS.replay:
    print(json.dumps(replay(config, workdir)))
    return EXIT_DONE
  if not config.evaluate.tasks:
    raise UserError("config.evaluate.tasks is empty; name tasks, e.g. --config.evaluate.tasks=xnli,panx")
  if FLAGS.checkpoint:
    from xlmr_jax.run import compile_cache, hosts

    hosts.keep_freed_memory()
    compile_cache.use(config.compile_cache, workdir)
    result = final(record, config, workdir, FLAGS.checkpoint, FLAGS.settings or [config.evaluate.setting], FLAGS.split)
    print(json.dumps(result))
    return EXIT_DONE
  if not record["config"].get("evaluate", {}).get("tasks"):
    print(
      "the run was started without config.evaluate.tasks: it may remove checkpoints before they are evaluated",
      file=sys.stderr,
      flush=True,
    )
  from xlmr_jax.run import compile_cache, hosts

  hosts.keep_freed_memory()
  compile_cache.use(config.compile_cache, workdir)
  scorer = make_scorer(record, config, workdir)
  return follow(config, workdir, scorer, runs.params_shapes(config, record["vocabulary_size"]), once=FLAGS.once)


def parse_flags(argv: list[str]) -> list[str]:
  """absl's parser for the flags that are not of the config; those are left for main."""
  of_config = [each for each in argv[1:] if each.startswith("--config.")]
  return [*run_main.parse_flags([each for each in argv if each not in of_config]), *of_config]


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "Folder of the run, which may come later, or a Hugging Face folder", required=True)
  flags.DEFINE_bool("once", False, "Evaluate what is there, and end")
  flags.DEFINE_bool("replay", False, "Only say where config.stop would have ended the run")
  flags.DEFINE_string("checkpoint", None, "Score this one only: best, latest, initial or a step; prints the paper's table")
  flags.DEFINE_string("tasks", None, "Short for --config.evaluate.tasks")
  flags.DEFINE_integer("seeds", None, "Short for --config.evaluate.seeds")
  flags.DEFINE_list("settings", [], "With --checkpoint: several of config.evaluate.setting, a table each")
  flags.DEFINE_enum("split", "test", ["dev", "test"], "With --checkpoint: what to score on; following uses dev")
  app.run(run_command(main), flags_parser=parse_flags)
