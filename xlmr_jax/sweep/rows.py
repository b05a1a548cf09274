"""The rows of a sweep: given by --rows, or built once below SWEEP/rows by `xlmr train_vocabulary` and `xlmr build_rows`."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.corpus.sources.parallel import ParallelText
from xlmr_jax.data.row_manifest import read_manifest
from xlmr_jax.errors import UserError, one_line
from xlmr_jax.files import AnyPath, lock, read_json, write_json
from xlmr_jax.folders import files_below, move_folder, remove_folder
from xlmr_jax.sweep.runs import Rows, Run, as_rows_are_written

DEMO_TEXT = "demo"  # the text of the built-in world
POLL_S = 2.0  # between two looks at rows that another process builds
_XLMR = [sys.executable, "-m", "xlmr_jax"]


def is_store(folder: AnyPath) -> bool:
  """Whether a folder holds finished rows, whose manifest is written last."""
  return (folder / "manifest.json").exists()


def is_built(rows: Rows, folder: AnyPath) -> bool:
  """Whether a folder holds all of these rows: those of parallel sentences are added last."""
  if not rows.parallel:
    return is_store(folder)
  try:
    return is_store(folder) and "pairs" in read_manifest(folder)
  except UserError:  # Another process may be putting the store with the pairs into its place.
    return False


def folder_of(rows: Rows, given: AnyPath | None, own: AnyPath) -> AnyPath:
  """The folder of a run's rows. given: of --rows, one store or a folder of stores; own: SWEEP/rows."""
  if given is None:
    return own / rows.name
  return given if is_store(given) else given / rows.name


def refuse_one_store(runs: Iterable[Run], given: AnyPath | None) -> None:
  """UserError, naming the rows, if --rows is one store and the runs need several.

  runs: of all starters of the sweep and not of this one, whose single run any store would do for.
  """
  needed = dict.fromkeys(run.rows.name for run in runs if run.rows)
  if given is not None and len(needed) > 1 and is_store(given):
    raise UserError(f"--rows={given}: is one store, and the runs need {len(needed)}: {', '.join(needed)}; give the folder "
                    "that holds them by these names, or take the runs of this store alone with --select")  # fmt: skip


def refuse_unread_text(runs: Iterable[Run], given: AnyPath | None, text: AnyPath | None) -> None:
  """UserError for --text if no run reads it, so that nobody takes the result for one of that text.

  runs: of all starters of the sweep, as in refuse_one_store. Rows that are built by now count as rows that read it, because
  the same command goes on with a sweep.
  """
  if text is None:
    return
  if given is not None:
    raise UserError(f"--text={text}: is not read beside --rows={given}, from which nothing is built; give one of them")
  specs = [run.rows for run in runs if run.rows]
  if any(rows.text != DEMO_TEXT or rows.parallel not in ("", DEMO_TEXT) for rows in specs):
    return
  if specs:
    raise UserError(f"--text={text}: no run reads it, because their rows are of the built-in world's text; leave it out")
  raise UserError(f"--text={text}: no run reads it, because none names rows to build of it (rows=Rows(...) of the sweep's "
                  "add); give --rows=ROWS in its place, or leave it out")  # fmt: skip


def refuse_missing(runs: Iterable[Run], given: AnyPath | None, own: AnyPath, text: AnyPath | None) -> None:
  """UserError, naming the rows, if rows are neither there nor made, or were made otherwise than the runs ask for."""
  needed = {run.rows.name: run.rows for run in runs if run.rows}
  if given is None:
    for rows in needed.values():
      refuse_made_otherwise(rows, folder_of(rows, given, own), text)
  missing = [rows for rows in needed.values() if not is_built(rows, folder_of(rows, given, own))]
  if given is not None and missing:
    places = ", ".join(str(folder_of(rows, given, own)) for rows in missing)
    pairs = ", those of parallel sentences with --parallel --add" if any(rows.parallel for rows in missing) else ""
    raise UserError(f"--rows={given}: there are no rows in {places}; build them with `xlmr build_rows`{pairs}, or leave "
                    "--rows out and give --text")  # fmt: skip
  if text is None and (without := [rows.name for rows in missing if rows.text != DEMO_TEXT]):
    raise UserError(f"no rows: give --rows=ROWS, or --text=DIR to build them from ({', '.join(without)})")
  for rows in missing:
    pairs = text / rows.parallel if text and rows.parallel not in ("", DEMO_TEXT) else None
    if pairs and not files_below(pairs):
      raise UserError(f"--text={text}: there is no {pairs}, from which rows {rows.name} take their parallel sentences; put "
                      "NAME.en-fr.en and NAME.en-fr.fr there")  # fmt: skip


def say_other_count(run: Run, rows: AnyPath) -> str:
  """A line where a figure has a run at another number of languages than its rows have, all of which it reads; else "".

  The shipped studies call all languages of the rows 100, as the paper has it, or in a tiny study 94 (sweep/studies.py).
  """
  count = run.values.get("languages")
  if not isinstance(count, int) or run.changes.get("data.languages") != () or not is_store(rows):
    return ""
  manifest = read_manifest(rows)
  there = len(manifest["languages"]) - len(manifest.get("pairs", ()))
  return "" if there == count else f"it reads all {there} languages of {rows}, and the figure has it at {count}"


def refuse_without_words(run: Run, rows: AnyPath | None, given: bool, config: ConfigDict) -> None:
  """UserError if a run masks whole words or spans and its rows do not tell where words start.

  rows: their folder. given: whether they are --rows, or the config's own, and not built by the sweep.
  """
  if config.data.mask_unit == "piece" or rows is None:
    return
  where = f"{run.name}: config.data.mask_unit={config.data.mask_unit} needs rows that tell where words start"
  if given or run.rows is None:
    if is_store(rows) and not read_manifest(rows).get("word_starts"):
      raise UserError(f"{where}, and those in {rows} do not; build them with `xlmr build_rows --word_starts`")
  elif not run.rows.word_starts:
    raise UserError(f"{where}; give the sweep's Rows word_starts=True, or --rows built with `xlmr build_rows --word_starts`")


def build_commands(rows: Rows, out: AnyPath, text: AnyPath | None) -> list[list[str]]:
  """The commands that are left to build rows: the vocabulary, unless it is there, and the rows.

  out: their folder, beside which the vocabulary lies; text: of --text. Raises UserError: there is no text.
  """
  common = [f"--tokenizer={out.with_name(f'{rows.name}.model')}", f"--out={out}", f"--seq_len={rows.seq_len}",
            f"--held_out={rows.held_out}", "--noexport"]  # fmt: skip
  add_pairs = []
  if rows.parallel:
    folder = out.with_name("demo_parallel") if rows.parallel == DEMO_TEXT else text / rows.parallel if text else None
    if folder is None:
      raise UserError(f"{out}: no parallel sentences, and no --text to build them from")
    add_pairs = [[*_XLMR, "build_rows", f"--parallel={folder}", "--add", *common, *_pairs_among(rows.languages, folder)]]
  if is_store(out):
    return add_pairs
  where = out.with_name("demo_text") if rows.text == DEMO_TEXT else text
  if where is None:
    raise UserError(f"{out}: no rows, and no --text to build them from")
  if rows.text not in ("", DEMO_TEXT):
    where = where / rows.text
  vocabulary = out.with_name(f"{rows.name}.model")
  languages = [f"--languages={','.join(rows.languages)}"] if rows.languages else []
  sentences = [f"--sentences={rows.sentences}"] if rows.sentences else []
  commands = []
  if not vocabulary.exists():
    commands += [[*_XLMR, "train_vocabulary", f"--text={where}", f"--size={rows.vocabulary_size}", f"--alpha={rows.alpha}",
                  f"--kind={rows.kind}", f"--out={vocabulary}", *sentences, *languages]]  # fmt: skip
  words = ["--word_starts"] if rows.word_starts else []
  return [*commands, [*_XLMR, "build_rows", f"--text={where}", *common, *words, *languages], *add_pairs]


def _pairs_among(languages: tuple[str, ...], folder: AnyPath) -> list[str]:
  """The flag that takes the pairs with both sides among the languages, if these are named. UserError: there are none."""
  if not languages:
    return []
  pairs = [name for name, sides in ParallelText(folder).pairs.items() if set(sides) <= set(languages)]
  if not pairs:
    raise UserError(f"{folder}: no pair of files has both its languages among {', '.join(languages)}")
  return [f"--languages={','.join(pairs)}"]


def build(rows: Rows, out: AnyPath, text: AnyPath | None, run: Callable[[list[str]], int]) -> int:
  """Builds rows unless they are there. One process builds and the others wait. Returns the exit code of what failed, or 0.

  run: runs a command to its end and returns its exit code.
  """
  said = False
  shared = DEMO_TEXT if rows.text == DEMO_TEXT else rows.name  # All rows of the built-in world have one folder of text.
  out.parent.mkdir(parents=True, exist_ok=True)
  while not is_built(rows, out):
    try:
      held = lock(out.with_name(f".{shared}.lock"), f"{out} is being built by another process")
    except UserError as error:
      if not said:
        print(f"{error}; waiting for it", file=sys.stderr, flush=True)
      said = True
      time.sleep(POLL_S)
      continue
    with held:
      if is_built(rows, out):
        break
      refuse_made_otherwise(rows, out, text)
      for flag, asked in (("text", rows.text), ("parallel", rows.parallel)):
        if asked == DEMO_TEXT and (code := _write_demo_text(out.with_name(f"demo_{flag}"), flag, run)):
          return code
      commands = build_commands(rows, out, text)
      if text is not None or rows.text == DEMO_TEXT:  # Else the text's rows are there, and only pairs are to be added.
        write_json(_description_of(rows, out), _describe(rows, text))
      for command in commands:
        print(f"rows {rows.name}: {command[3]}", file=sys.stderr, flush=True)
        if code := run(command):
          return code
  refuse_made_otherwise(rows, out, text)  # Another starter, or an earlier one, may have built them.
  return 0


def _description_of(rows: Rows, out: AnyPath) -> AnyPath:
  """NAME.json, which says of what the rows in `out` are made. It is written before their vocabulary is."""
  return out.with_name(f"{rows.name}.json")


def _describe(rows: Rows, text: AnyPath | None) -> dict[str, Any]:
  """The content of NAME.json."""
  return json.loads(json.dumps(dataclasses.asdict(rows))) | {"from": "" if rows.text == DEMO_TEXT else str(text or "")}


def refuse_made_otherwise(rows: Rows, out: AnyPath, text: AnyPath | None) -> None:
  """UserError, naming what differs, if the rows in `out`, or their vocabulary alone, were made as other ones than `rows`.

  Rows without a NAME.json, which somebody else has put there, are taken as they are. text: of --text; None: any will do.
  """
  path, vocabulary = _description_of(rows, out), out.with_name(f"{rows.name}.model")
  left = [str(vocabulary)] * vocabulary.exists() + [str(out)] * is_store(out)
  if not left:
    return
  try:
    before = as_rows_are_written(read_json(path))
  except FileNotFoundError:
    return
  except (OSError, ValueError, TypeError) as error:
    what = "to take the rows as they are" if is_built(rows, out) else f"and {' and '.join(left)}"
    raise UserError(f"{path} cannot be read ({one_line(error)}); remove it {what}") from None
  now = _describe(rows, text)
  changed = [key for key in now if before.get(key, now[key]) != now[key] and not (key == "from" and text is None)]
  if changed == ["from"] and is_built(rows, out):  # The same text may lie elsewhere on another machine.
    print(f"rows {rows.name}: {out} was built of {before['from']} and stays as it is; {now['from']} is not read for it",
          file=sys.stderr, flush=True)  # fmt: skip
  elif changed:
    what = ", ".join(f"{key}: {before[key]!r} there, {now[key]!r} here" for key in changed)
    raise UserError(f"{' and '.join(left)} {'were' if left[1:] else 'was'} made for other rows ({what}); remove "
                    f"{', '.join([*left, str(path)])}, or use another --workdir")  # fmt: skip


def _write_demo_text(folder: AnyPath, flag: str, run: Callable[[list[str]], int]) -> int:
  """Writes the built-in world's text, unless it is there, whole or not at all. Returns the command's exit code.

  flag: of `xlmr demo`, text or parallel.
  """
  if not isinstance(folder, Path):
    raise UserError(f"{folder}: the built-in world's text is written on one machine; give a --workdir of this machine")
  if folder.exists():
    return 0
  unfinished = folder.with_name(f".{folder.name}.unfinished")
  remove_folder(unfinished)
  code = run([*_XLMR, "demo", f"--{flag}={unfinished}"])
  if not code:
    move_folder(unfinished, folder)
  return code
