"""How often and how fast the identifier of languages is right, on text whose languages are known.

    python -m benchmarks.language_id [--text=DIR --sentences=DIR] [--trained]

--text is a folder in CC-100's layout with about a hundred languages; its documents are shuffled and identified without their
labels. Shares are of bytes. Bosnian, Croatian and Serbian are also counted as one, because the three have few differences.
A sure answer may be any of these three. --sentences has one sentence per line, of other text; --trained also trains a
fastText model on --text and tests it there.
"""

import collections
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from xlmr_jax.corpus.language_id import Identification, Identifier, open_identifier
from xlmr_jax.corpus.sources.cc100 import CC100
from xlmr_jax.errors import UserError, run_command

_DATA = Path(__file__).parents[2] / "shared" / "data"
_BCS = {"bs": "bs/hr/sr", "hr": "bs/hr/sr", "sr": "bs/hr/sr"}
_CHINESE = {"zh_Hans": "zh", "zh_Hant": "zh"}
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # corpus/repair.py leaves none of them


def read(folder: str) -> list[tuple[str, list[str]]]:
  """(language, paragraphs) of each document, shuffled."""
  source = CC100(folder)
  found = []
  for shard in source.shards(32 << 20):
    for document in source.documents(shard):
      found.append((document.language, _CONTROL.sub(" ", document.text).split("\n")))
  random.Random(0).shuffle(found)
  return found


def size(text: str) -> int:
  return len(text.encode())


def recall(pairs: Sequence[tuple[str, str, int]], merged: dict[str, str]) -> tuple[float, float, dict[str, float]]:
  """(bytes right, macro recall, recall of each language) of (true language, answer, bytes), in percent."""
  whole, right = collections.Counter(), collections.Counter()
  for language, answer, count in pairs:
    language = merged.get(language, language)
    whole[language] += count
    right[language] += count * (merged.get(answer, answer) == language)
  each = {language: 100 * right[language] / whole[language] for language in whole}
  return 100 * right.total() / whole.total(), sum(each.values()) / len(each), each


def identify(identifier: Identifier, texts: Sequence[list[str]]) -> tuple[list[Identification], float]:
  """The identifications, and how many megabytes of text a second of CPU did."""
  megabytes = sum(map(size, ("\n".join(text) for text in texts))) / 1e6
  identifier.documents([(["The first call loads the model."], ""), (["kurt"], "")])
  began, found = time.process_time(), []
  for start in range(0, len(texts), 1000):
    found += identifier.documents([(text, "") for text in texts[start : start + 1000]])
  return found, megabytes / (time.process_time() - began)


def mixed(documents: Sequence[tuple[str, list[str]]], count: int) -> list[tuple[list[str], list[str]]]:
  """`count` documents of 4 paragraphs of about 400 characters in 4 languages: (their languages, the paragraphs)."""
  chance = random.Random(1)
  texts = collections.defaultdict(list)
  for language, paragraphs in documents:
    text = " ".join(paragraphs)
    texts[language] += [cut for start in range(0, len(text) - 300, 400) if len(cut := text[start : start + 400]) > 300]
  made = []
  for _ in range(count):
    languages = chance.sample(sorted(texts), 4)
    made.append((languages, [chance.choice(texts[language]) for language in languages]))
  return made


def main(argv: list[str]) -> None:
  given = flags.FLAGS
  if not Path(given.text).exists():
    raise UserError(f"{given.text}: not there; pass --text=DIR")
  import pycld2

  identifier = open_identifier("cld2")
  documents = read(given.text)
  sizes = [size("\n".join(paragraphs)) for _, paragraphs in documents]
  found, speed = identify(identifier, [paragraphs for _, paragraphs in documents])
  began = time.process_time()
  for _, paragraphs in documents:
    pycld2.detect("\n".join(paragraphs), isPlainText=True)
  cld2_speed = sum(sizes) / 1e6 / (time.process_time() - began)
  pairs = [(language, answer.language, count) for (language, _), answer, count in zip(documents, found, sizes)]
  result: dict[str, float] = {}
  for name, merged in (
    ("all_apart", {}),
    ("zh_as_one", _CHINESE),
    ("bs_hr_sr_as_one", _BCS),
    ("bs_hr_sr_as_one_id_ms_as_one", {**_BCS, "id": "id/ms", "ms": "id/ms"}),
  ):
    result[f"bytes_right_{name}"], result[f"macro_recall_{name}"], each = recall(pairs, merged)
    worst = sorted(each.items(), key=lambda pair: pair[1])[:8]
    print(f"{name}: worst {', '.join(f'{language} {value:.1f}' for language, value in worst)}", file=sys.stderr)
  confused = collections.Counter()
  for language, answer, count in pairs:
    confused[language, answer] += count * (language != answer)
  print("confusions:", ", ".join(f"{a}->{b} {n}" for (a, b), n in confused.most_common(16)), file=sys.stderr)
  sure = [pair for pair, answer in zip(pairs, found) if answer.sure]
  result["sure_kept"] = 100 * sum(count for *_, count in sure) / sum(sizes)
  for name, merged in (("", {}), ("_bs_hr_sr_as_one", _BCS)):
    result[f"sure_right{name}"] = recall(sure, merged)[0]
  alien = [
    (size(paragraph), language != answer.language)
    for (_, paragraphs), answer in zip(documents, found)
    for paragraph, language in zip(paragraphs, answer.paragraphs)
  ]
  result["paragraphs_called_foreign"] = 100 * sum(count for count, foreign in alien if foreign) / sum(sizes)

  mixtures = mixed(documents, 3000)
  found, mixed_speed = identify(identifier, [paragraphs for _, paragraphs in mixtures])
  pairs = [
    (language, answer, size(paragraph))
    for (languages, paragraphs), identified in zip(mixtures, found)
    for language, answer, paragraph in zip(languages, identified.paragraphs, paragraphs)
  ]
  result["foreign_paragraphs"] = recall(pairs, {})[0]
  result["foreign_paragraphs_bs_hr_sr_as_one"] = recall(pairs, _BCS)[0]
  if Path(given.sentences).exists():
    lines = [
      (path.stem, sentence)
      for path in sorted(Path(given.sentences).glob("*.txt"))
      for sentence in path.open(encoding="utf-8")
    ]
    found, _ = identify(identifier, [[sentence.strip()] for _, sentence in lines])
    pairs = [(language, answer.language, size(sentence)) for (language, sentence), answer in zip(lines, found)]
    result["sentences_macro_recall"] = recall(pairs, {})[1]
    result["sentences_macro_recall_bs_hr_sr_as_one"] = recall(pairs, _BCS)[1]
    if given.trained:
      from xlmr_jax.corpus.language_id_training import test, train

      with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        train(given.text, Path(folder) / "model.bin")
        result["trained_seconds"] = time.perf_counter() - began
        trained = open_identifier(f"fasttext:{folder}/model.bin")
        summary = test(trained, given.sentences, unit="line")
        result["trained_macro_recall"] = 100 * summary["macro_recall"]
        result["trained_mb_per_cpu_s"] = identify(trained, [paragraphs for _, paragraphs in documents[:5000]])[1]
  result |= {"mb_per_cpu_s": speed, "mixed_mb_per_cpu_s": mixed_speed, "cld2_alone_mb_per_cpu_s": cld2_speed}
  for name, value in result.items():
    print(f"{name:<44} {value:8.3f}")
  print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
  flags.DEFINE_string("text", str(_DATA / "tiny100"), "folder in CC-100's layout")
  flags.DEFINE_string("sentences", str(_DATA / "parallel303"), "folder of LANG.txt with one sentence per line")
  flags.DEFINE_boolean("trained", False, "also train a model, which takes minutes")
  app.run(run_command(main))
