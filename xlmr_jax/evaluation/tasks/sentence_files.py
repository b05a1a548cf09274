"""The files of the sentence tasks: how each looks, and their examples. sentence.py declares the tasks."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks.reading import MissingError, lines, look_up, read_tfds, say_left_out
from xlmr_jax.evaluation.tasks.registry import Task, Text, names

BROKEN_SHARE = 0.01  # of a file's rows, where a public file is known to have broken ones


class Table(NamedTuple):
  """How the files of a task look. A tuple of columns is (text, pair, label); a task of single texts has no pair."""

  files: dict[str, tuple[str, ...]]  # patterns for reading.look_up, by split
  headers: tuple[tuple[str, str, str], ...] = ()  # the names of the columns in a file with a header, "" for no pair
  plain: dict[int, tuple[int, int, int]] = {}  # noqa: RUF012  # without one: number of columns -> which ones, -1 for no pair
  tfds: dict[str, tuple[str, str]] = {}  # noqa: RUF012  # split -> (dataset, its split) in TensorFlow Datasets
  quoted: bool = False  # cells are as Python's csv writes them; otherwise a quotation mark is a character like others
  broken: bool = False  # up to BROKEN_SHARE of the rows may be broken, and are left out
  unlabelled: str = ""  # the label of examples on which the annotators did not agree; they are left out
  untranslated: str = ""  # the text of examples that could not be translated; they are left out
  scores: tuple[float, float] | None = None  # the lowest and the highest number that is a label


# --- files -------------------------------------------------------------------------------------------------------


def read(folder: str | Path, task: Task, language: str, split: str) -> list[Text]:
  """The examples of a split: of tab-separated files as TABLES describes them, or of TFDS where `folder` is "tfds"."""
  if folder == "tfds":
    return from_tfds(task, language, split)
  table = TABLES[task.name]
  flores = SIB_CODES.get(language, language)
  found = look_up(folder, task, language, split, table.files, flores=flores)
  return [example for path in found.paths for example in _read_table(path, task, table, language, found.is_of_language)]


def _read_table(path: Path, task: Task, table: Table, language: str, is_of_language: bool) -> list[Text]:
  """The examples of a file. is_of_language: all of its rows are in the language; else a column says which are."""
  columns: tuple[int, int, int] | None = None
  count, language_column = 0, None
  examples, errors = [], []
  unlabelled, untranslated = [], []  # numbers of the lines
  for number, line in lines(path):
    if not line:
      continue
    where = f"{path}:{number}"
    cells = _unquoted(line, where) if table.quoted else line.split("\t")
    if columns is None:
      count = len(cells)
      header = next((header for header in table.headers if all(name in cells for name in header if name)), None)
      if header:
        text, pair, label = (cells.index(name) if name else -1 for name in header)
        columns = text, pair, label
        language_column = cells.index("language") if "language" in cells else None  # XNLI has all languages in one file.
      else:
        columns = table.plain.get(count)
      if columns is None:
        raise UserError(f"{where}: {_layouts(task, table, line)}")
      if language_column is None and not is_of_language:  # It would count as every language, with the same score.
        raise UserError(f"{where}: the file has {task.name} in all languages, but no column `language` in a header; add it, "
                        f"or name the file of each language as {language}.dev.tsv and {language}.test.tsv")  # fmt: skip
      if header:
        continue
    if len(cells) == count and language_column is not None and cells[language_column] != language:
      continue
    try:
      if len(cells) != count:
        raise UserError(f"{where}: {len(cells)} columns, the lines above have {count}; mend or remove the line")
      if table.unlabelled and cells[columns[2]].strip() == table.unlabelled:
        unlabelled.append(number)
      elif table.untranslated and table.untranslated in (cells[columns[0]].strip(), cells[columns[1]].strip()):
        untranslated.append(number)
      else:
        examples.append(_example(task, cells, columns, where))
    except UserError as error:
      if not table.broken:
        raise
      errors.append(error)
  if len(errors) > BROKEN_SHARE * (len(errors) + len(examples)):
    raise errors[0]
  of = len(examples) + len(errors) + len(unlabelled) + len(untranslated)
  say_left_out(path, len(errors), of, f"rows, which are broken, the first: {next(iter(errors), '')}")
  say_left_out(
    path, len(unlabelled), of, f"rows, whose label is {table.unlabelled!r}, the first in line {next(iter(unlabelled), '')}"
  )
  say_left_out(
    path, len(untranslated), of, f"rows, which are not translated, the first in line {next(iter(untranslated), '')}"
  )
  if not examples:
    kind = UserError if language_column is None else MissingError
    raise kind(f"{path}: no examples in {language}{', because no row has a label' if unlabelled else ''}")
  return examples


def _unquoted(line: str, where: str) -> list[str]:
  """The cells of a line as csv writes them. UserError: its quotation marks are not in pairs."""
  try:
    return next(csv.reader([line], delimiter="\t", strict=True))
  except csv.Error as error:
    raise UserError(f"{where}: {error}; cells are quoted as Python's csv module does it; mend or remove the line") from None


def _layouts(task: Task, table: Table, line: str) -> str:
  headers = [f"a header with {', '.join(filter(None, header))}" for header in table.headers]
  plain = [f"{count} columns" for count in table.plain]
  hint = "looks like JSON" if line.lstrip().startswith(("{", "[")) else f"has {line.count(chr(9)) + 1} columns"
  return f"the first line {hint}; {task.name} wants tab-separated {' or '.join(headers + plain)}"


def _example(task: Task, cells: list[str], columns: tuple[int, int, int], where: str) -> Text:
  text, pair = (cells[column] if column >= 0 else "" for column in columns[:2])
  if not text.strip() or (columns[1] >= 0 and not pair.strip()):
    raise UserError(f"{where}: an empty sentence; mend or remove the line")
  return Text(text, pair, label_of(task, cells[columns[2]].strip(), where))


def label_of(task: Task, label: str, where: str) -> float:
  """The index of a label, or the number that it is. UserError: neither."""
  if task.labels:
    label = {"contradictory": "contradiction"}.get(label, label)  # in XNLI's translations of MNLI
    if label not in task.labels:
      raise UserError(f"{where}: unknown label {label!r}; {task.name} has {', '.join(task.labels)}")
    return float(task.labels.index(label))
  try:
    value = math.nan if "_" in label else float(label)  # Python reads 1_0 as 10.
  except ValueError:
    value = math.nan
  if not math.isfinite(value):
    raise UserError(f"{where}: the label {label!r} is not a number, as {task.name} has")
  scores = TABLES[task.name].scores if task.name in TABLES else None
  if scores and not scores[0] <= value <= scores[1]:
    raise UserError(f"{where}: the label {label!r} is outside {scores[0]:g} to {scores[1]:g}, the scores of {task.name}")
  return value


# --- TFDS --------------------------------------------------------------------------------------------------------

TEXTS = ("premise", "hypothesis", "question1", "question2", "question", "sentence1", "sentence2", "sentence")


def from_tfds(task: Task, language: str, split: str) -> list[Text]:
  """The examples of a split in TensorFlow Datasets: xnli, xtreme_xnli, paws_x_wiki, glue."""
  name, tfds_split = TABLES[task.name].tfds.get(split, ("", ""))
  if task.name == "xnli" and split == "train" and language != "en":
    name = "xtreme_xnli"  # translated

  def parse(row: dict, features: Mapping, where: str) -> Text | None:
    example = parse_tfds(task, row, getattr(features["label"], "names", None), language, where)
    return None if TABLES[task.name].untranslated in (example.text, example.pair) and example.pair else example

  source = (name.format(language=language), tfds_split) if name and language in task.languages else None
  return read_tfds(task, language, split, source, parse)


def parse_tfds(task: Task, row: dict, classes: list[str] | None, language: str, where: str) -> Text:
  """The example of a row of TFDS. classes: the names of its labels, None for a number. UserError: no text, or no label."""
  texts = []
  for key in TEXTS:
    if key in row:
      value = row[key]
      if isinstance(value, dict) and "language" in value:  # a list of languages, and a list of their translations
        value = dict(zip((bytes(code).decode() for code in value["language"]), value["translation"]))
      if isinstance(value, dict):
        value = value.get(language, b"")
      texts.append(bytes(value).decode())
  if not texts or not all(text.strip() for text in texts):
    raise UserError(f"{where}: an empty sentence in {language}")
  label = row["label"]
  if classes is not None:  # GLUE's classes are named by words where ours are 0 and 1, in the same order.
    if not 0 <= label < len(task.labels):
      raise UserError(f"{where}: no label; this split of {task.name} is published without")
    label = task.labels.index(classes[label]) if classes[label] in task.labels else int(label)
  elif not math.isfinite(label):
    raise UserError(f"{where}: the label {label} is not a number")
  return Text(texts[0], texts[1] if len(texts) > 1 else "", float(label))


# --- the layouts -------------------------------------------------------------------------------------------------

# FLORES-200's codes of XLM-R's languages; Breton, Frisian and Latin are not in it.
SIB_CODES = dict(
  entry.split(":")
  for entry in names("""
  af:afr_Latn am:amh_Ethi ar:arb_Arab as:asm_Beng az:azj_Latn be:bel_Cyrl bg:bul_Cyrl bn:ben_Beng bs:bos_Latn ca:cat_Latn
  cs:ces_Latn cy:cym_Latn da:dan_Latn de:deu_Latn el:ell_Grek en:eng_Latn eo:epo_Latn es:spa_Latn et:est_Latn eu:eus_Latn
  fa:pes_Arab fi:fin_Latn fr:fra_Latn ga:gle_Latn gd:gla_Latn gl:glg_Latn gu:guj_Gujr ha:hau_Latn he:heb_Hebr hi:hin_Deva
  hr:hrv_Latn hu:hun_Latn hy:hye_Armn id:ind_Latn is:isl_Latn it:ita_Latn ja:jpn_Jpan jv:jav_Latn ka:kat_Geor kk:kaz_Cyrl
  km:khm_Khmr kn:kan_Knda ko:kor_Hang ku:kmr_Latn ky:kir_Cyrl lo:lao_Laoo lt:lit_Latn lv:lvs_Latn mg:plt_Latn mk:mkd_Cyrl
  ml:mal_Mlym mn:khk_Cyrl mr:mar_Deva ms:zsm_Latn my:mya_Mymr ne:npi_Deva nl:nld_Latn no:nob_Latn om:gaz_Latn or:ory_Orya
  pa:pan_Guru pl:pol_Latn ps:pbt_Arab pt:por_Latn ro:ron_Latn ru:rus_Cyrl sa:san_Deva sd:snd_Arab si:sin_Sinh sk:slk_Latn
  sl:slv_Latn so:som_Latn sq:als_Latn sr:srp_Cyrl su:sun_Latn sv:swe_Latn sw:swh_Latn ta:tam_Taml te:tel_Telu th:tha_Thai
  tl:tgl_Latn tr:tur_Latn ug:uig_Arab uk:ukr_Cyrl ur:urd_Arab uz:uzn_Latn vi:vie_Latn xh:xho_Latn yi:ydd_Hebr zh:zho_Hans
""")
)
_SPLITS = ("train", "dev", "test")
_GLUE_FILES = {split: (f"{split}.tsv",) for split in _SPLITS}
_LABEL_FIRST = {2: (1, -1, 0), 3: (1, 2, 0)}  # label, text[, pair]
_PAIR_LAST = {3: (0, 1, 2)}  # text, pair, label
_SENTENCES = ("sentence1", "sentence2")


def _single(*headers: tuple[str, str, str]) -> dict[str, Any]:
  return {"headers": headers, "plain": {2: _LABEL_FIRST[2]}}


def _pairs(*headers: tuple[str, str, str]) -> dict[str, Any]:
  return {"headers": headers, "plain": {3: _LABEL_FIRST[3]}}


def _glue_tfds(name: str) -> dict[str, tuple[str, str]]:
  return {"train": (f"glue/{name}", "train"), "dev": (f"glue/{name}", "validation")}


TABLES = {
  "xnli": Table(
    {
      "train": (
        "en:train.tsv",
        "{language}.train.tsv",
        "multinli.train.{language}.tsv",
        "XNLI-MT-1.0/multinli/multinli.train.{language}.tsv",
      ),
      # LANGUAGE.tsv is taken for the development set only, so that a development set is never tested on by mistake.
      "dev": ("{language}.dev.tsv", "xnli.dev.tsv", "XNLI-1.0/xnli.dev.tsv", "{language}.tsv"),
      "test": ("{language}.test.tsv", "xnli.test.tsv", "XNLI-1.0/xnli.test.tsv"),
    },
    headers=(("sentence1", "sentence2", "gold_label"), ("premise", "hypo", "label"), ("premise", "hypothesis", "label")),
    plain=_PAIR_LAST,
    unlabelled="-",
    tfds={"train": ("glue/mnli", "train"), "dev": ("xnli", "validation"), "test": ("xnli", "test")},
  ),
  "cad_nli": Table(
    {"train": ("en:cad_snli_en/train.tsv",), "dev": ("xnli_dev/{language}.tsv",)}, plain=_PAIR_LAST, unlabelled="-"
  ),
  "pawsx": Table(
    {
      split: tuple(f"{folder}{{language}}/{name}.tsv" for folder in ("", "x-final/") for name in file_names)
      for split, file_names in zip(_SPLITS, (("train", "translated_train"), ("dev_2k", "dev"), ("test_2k", "test")))
    },
    headers=((*_SENTENCES, "label"),),
    broken=True,
    untranslated="NS",
    tfds={split: ("paws_x_wiki/{language}", name) for split, name in zip(_SPLITS, ("train", "validation", "test"))},
  ),
  "sib200": Table(
    {split: (f"{{language}}/{split}.tsv", f"{{flores}}/{split}.tsv") for split in _SPLITS},
    headers=(("text", "", "category"),),
    quoted=True,
  ),
  "mnli": Table(
    {"train": ("train.tsv",), "dev_matched": ("dev_matched.tsv",), "dev_mismatched": ("dev_mismatched.tsv",)},
    **_pairs((*_SENTENCES, "gold_label")),
    unlabelled="-",
    tfds={
      "train": ("glue/mnli", "train"),
      "dev_matched": ("glue/mnli", "validation_matched"),
      "dev_mismatched": ("glue/mnli", "validation_mismatched"),
    },
  ),
  "qnli": Table(_GLUE_FILES, **_pairs(("question", "sentence", "label")), tfds=_glue_tfds("qnli")),
  "qqp": Table(_GLUE_FILES, **_pairs(("question1", "question2", "is_duplicate")), broken=True, tfds=_glue_tfds("qqp")),
  "sst2": Table(_GLUE_FILES, **_single(("sentence", "", "label")), tfds=_glue_tfds("sst2")),
  "mrpc": Table(
    {**_GLUE_FILES, "dev": ("dev.tsv", "else:test.tsv")},
    **_pairs(("#1 String", "#2 String", "Quality")),
    tfds={**_glue_tfds("mrpc"), "test": ("glue/mrpc", "test")},
  ),
  "stsb": Table(_GLUE_FILES, **_pairs((*_SENTENCES, "score")), scores=(0.0, 5.0), tfds=_glue_tfds("stsb")),
  "cola": Table(_GLUE_FILES, plain={2: _LABEL_FIRST[2], 4: (3, -1, 1)}, tfds=_glue_tfds("cola")),
  "rte": Table(_GLUE_FILES, **_pairs((*_SENTENCES, "label")), tfds=_glue_tfds("rte")),
}
