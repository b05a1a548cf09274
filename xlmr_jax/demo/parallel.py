"""The demo world as parallel text: facts told in English and in another language, a sentence per line, in Moses's layout.

None of what is told here is a context that the demo's tasks are tested on.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from xlmr_jax.demo import grammar, world
from xlmr_jax.demo.lexicon import LANGUAGES, load
from xlmr_jax.errors import UserError
from xlmr_jax.files import whole_file
from xlmr_jax.given_paths import local_path, refuse_unwritable

PIVOT = "en"
SENTENCES = 2500  # per pair of languages, at scale 1.0
MOST_FACTS = 2  # that a line tells


def sentences(language: str, count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
  """`count` pairs (English, the other language) that tell the same facts, each in a phrasing of its own."""
  rng = random.Random(f"{seed} {PIVOT}-{language}")
  left = count
  while left:
    facts = rng.sample(world.subject_facts(rng), rng.randint(1, MOST_FACTS))
    if world.split_of(facts) != "train":
      continue
    yield _tell(facts, PIVOT, rng), _tell(facts, language, rng)
    left -= 1


def pair_name(language: str) -> str:
  """The name of English with another language, as `xlmr build_rows --parallel` has it."""
  return "-".join(sorted((PIVOT, language)))


def write_parallel(out_dir: str | Path, scale: float = 1.0, seed: int = 0) -> dict:
  """Writes out_dir/demo.A-B.A and demo.A-B.B for English with each other language. Returns what the command prints.

  scale: of SENTENCES. seed: another one tells other facts. Raises UserError: a scale of 0 or less, a folder that cannot be
  written. Raises OSError: a disk is full.
  """
  if not scale > 0:
    raise UserError(f"--scale={scale}: must be above 0")
  folder, count = refuse_unwritable(local_path(out_dir, "--parallel="), folder=True), max(1, round(SENTENCES * scale))
  folder.mkdir(parents=True, exist_ok=True)
  others = [language for language in LANGUAGES if language != PIVOT]
  for language in others:
    for side, lines in zip((PIVOT, language), zip(*sentences(language, count, seed))):
      with whole_file(folder / f"demo.{pair_name(language)}.{side}") as unfinished:
        unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
  return {"pairs": len(others), "sentences": count * len(others)}


def _tell(facts: list[world.Fact], language: str, rng: random.Random) -> str:
  texts = [grammar.render(fact, language, rng.randrange(grammar.variants(fact.kind, language))).text for fact in facts]
  return load(language).space.join(texts)
