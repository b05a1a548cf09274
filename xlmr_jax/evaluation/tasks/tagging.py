"""Tasks with a tag for every word: WikiANN (PAN-X), CoNLL-2002/2003 and Universal Dependencies' parts of speech.

Owns their files and the way from words to rows and back. A word's label stands on its first piece.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from xlmr_jax.data.tokenizer import Tokenizer, encode_words
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks import metrics
from xlmr_jax.evaluation.tasks.reading import find, lines, pad, read_tfds, say_left_out
from xlmr_jax.evaluation.tasks.registry import Recipe, Tagged, Task, names, register
from xlmr_jax.ids import BOS, EOS, PAD, UNK
from xlmr_jax.model.task_head import WORDS

# XTREME's recipe for PAN-X and UD (github.com/google-research/xtreme, train_panx.sh).
XTREME = Recipe(lr=2e-5, batch=32, epochs=10, max_len=128, warmup=0.0)
# XLM-R's recipe is not published. With this one, of 3000 steps, a user reported 91.0 F1 for Base in English, where the paper
# has 92.25 (github.com/huggingface/transformers/issues/3938). The length is that of PyText's tagger, which the authors used.
CONLL = Recipe(lr=5e-5, batch=24, epochs=6, max_len=256, max_steps=3000)

PANX_FILES = {
  split: (f"{{language}}.{split}", f"{{language}}/{split}", f"{{language}}/{split}.tsv")
  for split in ("train", "dev", "test")
}
CONLL_NAMES = {"en": "eng", "de": "deu", "es": "esp", "nl": "ned"}
CONLL_FILES = {split: (f"{{name}}.{end}",) for split, end in (("train", "train"), ("dev", "testa"), ("test", "testb"))}
UD_FILES = {
  split: (
    f"{{language}}/{{language}}_*-ud-{split}.conllu",
    f"{{language}}_*-ud-{split}.conllu",
    f"{{language}}.{split}.conllu",
    f"UD_*/{{language}}_*-ud-{split}.conllu",  # as a release of Universal Dependencies has them
    f"ud-treebanks-v*/UD_*/{{language}}_*-ud-{split}.conllu",
  )
  for split in ("train", "dev", "test")
}
# TFDS's table of languages in xtreme_pos has Tamil and Tagalog exchanged: its config xtreme_pos_ta reads the treebanks of
# Tagalog and xtreme_pos_tl those of Tamil (_LANGS in xtreme_pos_dataset_builder.py).
UD_TFDS_CODES = {"ta": "tl", "tl": "ta"}
UD_COLUMNS = 10
MOST_WORDS = 5000  # of a sentence; longer ones are several, whose empty lines were lost (ours: WikiANN's longest has 732)
UD_WORD, UD_OTHER = re.compile("[0-9]+"), re.compile(r"[0-9]+[-.][0-9]+")  # ids: of a word; of a range, of an empty node
LANGUAGE_PREFIX = re.compile("[a-z]{2,3}(-[a-z]+)*:")  # of a token in WikiANN, such as de: and zh-yue:

Row = tuple[str, list[str] | None]  # ("file:line", cells), with None for an empty line


# --- files -------------------------------------------------------------------------------------------------------


def panx(folder: str | Path, task: Task, language: str, split: str) -> list[Tagged]:
  """WikiANN: `token TAB tag` per line, an empty line between sentences; a token may also be written `LANGUAGE:token`."""
  if folder == "tfds":
    return from_tfds(task, language, split)
  path = find(folder, task, language, split, PANX_FILES)[0]
  rows = list(_cells(path, "\t", 2))
  return _sentences(path, task, _without_prefix(path, rows, f"{language}:"))


def _without_prefix(path: Path, rows: list[Row], prefix: str) -> list[Row]:
  """WikiANN's rows without the `LANGUAGE:` that all of their tokens have or none has.

  Raises UserError: most tokens have it and some do not, or all tokens have that of another language.
  """
  marked = [(where, cells, cells[0].startswith(prefix)) for where, cells in rows if cells]
  share = sum(has for *_, has in marked) / max(len(marked), 1)
  if share == 1.0 and marked:
    return [(where, cells and [cells[0].removeprefix(prefix), cells[1]]) for where, cells in rows]
  if share > 0.5:  # A word of running text may well begin so, but not most of them.
    where, cells, _ = next(row for row in marked if not row[2])
    raise UserError(f"{where}: {cells[0]!r} does not begin with {prefix!r}, as most words of the file do; mend or remove it")
  others = {found[0] if (found := LANGUAGE_PREFIX.match(cells[0])) else "" for _, cells, _ in marked}
  if len(others) == 1 and len(marked) > 1 and (other := others.pop()):
    raise UserError(f"{path}: all words begin with {other!r}, not {prefix!r}; the file is of another language")
  return rows


def conll(folder: str | Path, task: Task, language: str, split: str) -> list[Tagged]:
  """CoNLL-2002/2003: columns between spaces, the word first, the tag last. IOB1 becomes IOB2."""
  if folder == "tfds":
    return from_tfds(task, language, split)
  path = find(folder, task, language, split, CONLL_FILES, name=CONLL_NAMES.get(language, language))[0]
  rows = ((where, cells and [cells[0], cells[-1]]) for where, cells in _cells(path, " ", None, ends="-DOCSTART-"))
  examples = _sentences(path, task, rows)
  long = [example for example in examples if len(example.words) > 1]
  for first in (0, 1):
    if long and all(example.words == tuple(map(str, range(first, first + len(example.words)))) for example in long):
      raise UserError(f"{path}: the first column counts the words of each sentence; it must have the words, so remove it")
  return [example._replace(tags=iob2(example.tags)) for example in examples]


def udpos(folder: str | Path, task: Task, language: str, split: str) -> list[Tagged]:
  """CoNLL-U: the form and UPOS of each word, of all treebanks of the language. No ranges (1-2), no empty nodes (1.1).

  Sentences whose words are `_`, because a license does not let a treebank have its text, are left out.
  """
  if folder == "tfds":
    return from_tfds(task, language, split)
  paths = find(folder, task, language, split, UD_FILES)
  examples = []
  for path in paths:
    sentences = _sentences(path, task, _words_of_treebank(path))
    known = [example for example in sentences if _has_text(example.words)]
    say_left_out(path, len(sentences) - len(known), len(sentences), "sentences, whose words are '_', as a license asks for")
    examples += known
  if not examples:
    raise UserError(f"{', '.join(map(str, paths))}: all words are '_', because their license removed the text; add it with "
                    "the script that comes with the treebank")  # fmt: skip
  return examples


def _words_of_treebank(path: Path) -> Iterator[Row]:
  """Yields ("file:line", [form, UPOS]) of the words of a CoNLL-U file. UserError: they are not numbered 1, 2, 3."""
  last = 0
  for where, cells in _cells(path, "\t", UD_COLUMNS, "#"):
    if cells is None:
      last = 0
      yield where, None
    elif UD_WORD.fullmatch(cells[0]):
      if int(cells[0]) != last + 1:
        raise UserError(f"{where}: word {cells[0]} follows word {last}; a line or an empty line is missing, or one too many")
      last += 1
      yield where, [cells[1], cells[3]]
    elif not UD_OTHER.fullmatch(cells[0]):
      raise UserError(f"{where}: the id {cells[0]!r} is none of 1, 1-2 and 1.1; mend or remove the line")


def _has_text(words: Sequence[str]) -> bool:
  """Whether a sentence of a treebank has its text: fewer than half of its words are `_`, CoNLL-U's "not given"."""
  return 2 * sum(word == "_" for word in words) < len(words)


def iob2(tags: tuple[str, ...]) -> tuple[str, ...]:
  """IOB1 or IOB2 as IOB2: an I- after O or after another type begins its entity, so it becomes a B-."""
  return tuple(
    f"B{tag[1:]}" if tag.startswith("I-") and before[1:] != tag[1:] else tag
    for before, tag in itertools.pairwise(("O", *tags))
  )


def _cells(path: Path, between: str, columns: int | None, skip: str = "", ends: str = "") -> Iterator[Row]:
  """Yields ("file:line", cells) of each line, with None for an empty line. UserError: a line has other columns.

  columns: how many a line has; None: as many as the first line has, at least 2. skip: what a comment begins with. ends:
  what a line begins with that counts as an empty line.
  """
  for number, line in lines(path):
    where = f"{path}:{number}"
    if not line.strip(" \t") or (ends and line.startswith(ends)):
      yield where, None
    elif not skip or not line.startswith(skip):
      cells = line.rstrip(" ").split(between) if between == " " else line.split(between)
      columns = columns or max(len(cells), 2)
      if len(cells) != columns:
        hint = "; this looks like JSON" if line.lstrip().startswith(("{", "[")) else ""
        raise UserError(f"{where}: {len(cells)} columns, not {columns} between {between!r}{hint}; mend or remove the line")
      yield where, cells


def _sentences(path: Path, task: Task, rows: Iterable[Row]) -> list[Tagged]:
  """The sentences of ("file:line", (word, tag)) rows; ("file:line", None) ends one. UserError: an unknown tag, no word."""
  examples, words, tags = [], [], []
  for where, row in itertools.chain(rows, [("", None)]):
    if row is None:
      if words:
        examples.append(Tagged(tuple(words), tuple(tags)))
      words, tags = [], []
      continue
    word, tag = row
    if not word:
      raise UserError(f"{where}: a tag without a word; mend or remove the line")
    if tag not in task.labels:
      raise UserError(f"{where}: unknown tag {tag!r}; {task.name} has {', '.join(task.labels)}")
    words.append(word)
    tags.append(tag)
    if len(words) > MOST_WORDS:
      raise UserError(f"{where}: a sentence of more than {MOST_WORDS} words; an empty line must stand between two sentences")
  if not examples:
    raise UserError(f"{path}: no sentences in it")
  return examples


# --- TFDS --------------------------------------------------------------------------------------------------------


def from_tfds(task: Task, language: str, split: str) -> list[Tagged]:
  """The examples of a split in TensorFlow Datasets: wikiann, conll2003 and conll2002, xtreme_pos."""
  conll_name = {"en": "conll2003", "es": "conll2002/es", "nl": "conll2002/nl"}.get(language, "")
  name, feature = {
    "panx": (f"wikiann/{language}", "tags"),
    "conll": (conll_name, "ner"),
    "udpos": (f"xtreme_pos/xtreme_pos_{UD_TFDS_CODES.get(language, language)}", "upos"),
  }.get(task.name, ("", ""))

  def parse(row: dict, features: Mapping, where: str) -> Tagged | None:
    example = parse_tfds(task, row, feature, features[feature].feature.names, where)
    return example if task.name != "udpos" or _has_text(example.words) else None

  tfds_split = "validation" if task.name == "panx" and split == "dev" else split
  source = (name, tfds_split) if name and split in ("train", "dev", "test") else None
  return read_tfds(task, language, split, source, parse)


def parse_tfds(task: Task, row: dict, feature: str, classes: list[str], where: str) -> Tagged:
  """The example of a row of TFDS: its `tokens`, and the class numbers in `feature`, which `classes` names."""
  words = tuple(bytes(word).decode() for word in row["tokens"])
  tags = tuple(classes[i] for i in row[feature])
  for tag in tags:
    if tag not in task.labels:
      raise UserError(f"{where}: unknown tag {tag!r}; {task.name} has {', '.join(task.labels)}")
  return Tagged(words, iob2(tags) if task.name == "conll" else tags)


# --- rows and back -----------------------------------------------------------------------------------------------


def encode(task: Task, examples: list[Tagged], tokenizer: Tokenizer) -> dict[str, np.ndarray]:
  """Rows of L = recipe.max_len tokens.

  Returns "ids" int32[n, L]; "label" int32[n, L], the tag's number at the first piece of each word and -1 elsewhere;
  "example" int32[n], the index into examples; "word" int32[n, L], the index of the word where there is a label, else -1.

  Each word is tokenised alone, as XTREME does, so that each begins with a space; in an example that is not spaced only the
  first does. A sentence that is longer than a row continues in the next row, between two words. A word of which
  normalisation leaves nothing becomes <unk>; a word that is longer than a row is cut.  UserError: a tag that is none of the
  task's, as a reader of one's own may give it.
  """
  length = task.recipe.max_len
  vocabulary = list(dict.fromkeys(word for example in examples for word in example.words))
  room = length - 2
  pieces = {
    word: ids[:room].tolist() or [UNK] for word, ids in zip(vocabulary, encode_words(tokenizer, vocabulary), strict=True)
  }
  number = {tag: i for i, tag in enumerate(task.labels)}
  rows: list[list[int]] = []
  labels: list[list[int]] = []
  word_index: list[list[int]] = []
  owners: list[int] = []

  def open_row(i: int) -> None:
    rows.append([BOS])
    labels.append([-1])
    word_index.append([-1])
    owners.append(i)

  for i, (words, tags, spaced) in enumerate(examples):
    open_row(i)
    if len(words) != len(tags) or not number.keys() >= set(tags):
      raise UserError(f"{task.name}, example {i}: {len(words)} words have the tags {', '.join(map(repr, tags))}; each has "
                      f"one, of {', '.join(task.labels)}")  # fmt: skip
    for j, (word, tag) in enumerate(zip(words, tags)):
      ids = pieces[word]
      if not spaced and j and len(ids) > 1 and tokenizer.piece(ids[0]) == "\u2581":
        ids = ids[1:]
      if len(rows[-1]) + len(ids) > length - 1:
        open_row(i)
      rest = [-1] * (len(ids) - 1)
      rows[-1] += ids
      labels[-1] += [number[tag], *rest]
      word_index[-1] += [j, *rest]
  return {
    "ids": pad([[*row, EOS] for row in rows], length, PAD),
    "label": pad(labels, length, -1),
    "example": np.array(owners, np.int32),
    "word": pad(word_index, length, -1),
  }


def decode(task: Task, examples: list[Tagged], arrays: dict[str, np.ndarray], outputs: np.ndarray) -> list[list[str]]:
  """Per example, one tag per word. outputs: int[n, L], the best label at each position of the arrays' rows."""
  tags = [[task.labels[0]] * len(example.words) for example in examples]
  rows, columns = np.nonzero(arrays["word"] >= 0)
  labels = np.asarray(outputs)[rows, columns].tolist()
  for example, word, label in zip(arrays["example"][rows].tolist(), arrays["word"][rows, columns].tolist(), labels):
    tags[example][word] = task.labels[label]
  return tags


def score(task: Task, examples: list[Tagged], predictions: list[list[str]], language: str) -> dict[str, float]:
  """{metric: value} of task.metrics: span_f1, precision and recall (of spans), word_accuracy."""
  gold = [example.tags for example in examples]
  spans = metrics.span_f1(gold, predictions)
  known = {"span_f1": spans["f1"], "precision": spans["precision"], "recall": spans["recall"]}
  return {name: known[name] if name in known else getattr(metrics, name)(gold, predictions) for name in task.metrics}


# --- tasks -------------------------------------------------------------------------------------------------------


def _entities(*kinds: str) -> tuple[str, ...]:
  return ("O", *(f"{mark}-{kind}" for kind in kinds for mark in "BI"))


SPANS = ("span_f1", "precision", "recall")
# The 40 languages of XTREME.
register(
  Task(
    "panx",
    WORDS,
    _entities("LOC", "ORG", "PER"),
    SPANS,
    names(
      "af ar bg bn de el en es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr ms my nl pt ru sw ta te th tl tr ur vi yo "
      "zh"
    ),
    XTREME,
    panx,
  )
)
register(Task("conll", WORDS, _entities("PER", "ORG", "LOC", "MISC"), SPANS, ("en", "de", "es", "nl"), CONLL, conll))
# The 33 languages of XTREME. Thai, Tagalog and Yoruba have a test split only, Kazakh has no dev split.
register(
  Task(
    "udpos",
    WORDS,
    names("NOUN ADJ ADP ADV AUX CCONJ DET INTJ NUM PART PRON PROPN PUNCT SCONJ SYM VERB X"),
    ("word_accuracy",),
    names("af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh"),
    XTREME,
    udpos,
  )
)
