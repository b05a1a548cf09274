"""Damaged files of the labelled tasks: they are read, or refused in one line that names the file."""

import dataclasses
import json

import pytest
from absl import logging

from tests.fuzz import mutated, rounds
from tests.test_task_files import Letters, asked, conllu
from tests.test_tasks import LAYOUTS, squad, write
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks import KINDS, registry

SOUND = [(name, language, split, file, content) for name, language, split, file, content, _ in LAYOUTS]
SOUND += [
  ("panx", "en", "dev", "en.dev", "en:R.H.\tB-ORG\nen:a\tI-ORG\n\nen:x\tO\n"),
  ("conll", "en", "dev", "eng.testa", "-DOCSTART- -X- -X- O\n\nU.N. NNP I-NP I-ORG\nEkeus NNP I-NP I-PER\n\n"),
  ("udpos", "en", "dev", "en.dev.conllu", "# text\n1-2\tab" + "\t_" * 8 + "\n" + conllu("a b _ c", "_ _", "d")),
  ("xquad", "en", "dev", "en.json", asked()),
  ("xquad", "en", "test", "en.json", squad(("1", "q", "one", 0), ("1", "q", "two", 4))),
]


@pytest.mark.parametrize("name, language, split, file, content", SOUND)
def test_a_damaged_file_is_read_or_refused(tmp_path, name, language, split, file, content):
  logging.set_verbosity(logging.ERROR)
  task = registry.get(name)
  short = dataclasses.replace(task, recipe=dataclasses.replace(task.recipe, max_len=96, max_question=20))
  for rng in rounds(25):
    damaged = mutated(rng, content.encode())
    write(tmp_path, {file: damaged})
    try:
      examples = task.load(tmp_path, language, split)
      json.dumps(examples, ensure_ascii=False).encode()  # Nothing in them that UTF-8 cannot hold.
      KINDS[task.head].encode(short, examples, Letters())
    except UserError as error:
      message = str(error)
      assert "\n" not in message and message.encode() and (file.split("/")[-1] in message or name in message), damaged
    except Exception as error:
      raise AssertionError(f"{file} of {damaged!r}") from error
  logging.set_verbosity(logging.WARNING)
