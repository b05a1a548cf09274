"""The demo world as text in CC-100's layout: one LANG.txt per language, of sizes as unequal as CC-100's.

The same seed and scale give the same bytes. Languages are drawn independently, so that no document translates another.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from xlmr_jax.demo import grammar, world
from xlmr_jax.demo.lexicon import LANGUAGES, load
from xlmr_jax.errors import UserError
from xlmr_jax.files import whole_file
from xlmr_jax.given_paths import local_path, refuse_unwritable

# kB at scale 1.0, 3.4 MB in all. The order is CC-100's (Conneau et al. 2020, appendix A), the range is 20:1.
SIZES = {
  "en": 1200, "ru": 450, "vi": 230, "th": 190, "de": 180, "bg": 160, "fr": 155, "es": 150, "el": 140,
  "zh": 135, "ar": 110, "tr": 100, "hi": 95, "ur": 65, "sw": 60,
}  # fmt: skip
QUESTIONS = 0.1  # share of the facts that are asked for before they are told
LATIN = 0.3  # share of the names that have their Latin form beside them where a document names them first; grammar.BESIDE


def documents(language: str, *, count: int | None = None, size: int | None = None, seed: int = 0) -> Iterator[list[str]]:
  """Documents, as lists of paragraphs: `count` of them, or enough to fill `size` bytes, or endlessly many."""
  rng = random.Random(f"{seed} {language}")
  made = filled = 0
  while (count is None or made < count) and (size is None or filled < size):
    document = _paragraphs(_draw_facts(rng), language, rng)
    yield document
    made, filled = made + 1, filled + len(_layout(document))


def write_text(out_dir: str | Path, scale: float = 1.0, seed: int = 0) -> dict:
  """Writes out_dir/LANG.txt for every language; a file has that name only once it is whole. Returns what the command prints.

  scale: of SIZES; a file ends with the document that reaches its size. seed: another one gives another text.
  Raises UserError: a scale of 0 or less, a folder that cannot be written. Raises OSError: a disk is full.
  """
  if not scale > 0:
    raise UserError(f"--scale={scale}: must be above 0")
  folder, total, count = refuse_unwritable(local_path(out_dir, "--text="), folder=True), 0, 0
  folder.mkdir(parents=True, exist_ok=True)
  for language in LANGUAGES:
    with whole_file(folder / f"{language}.txt") as unfinished, unfinished.open("wb") as file:
      for document in documents(language, size=max(1, round(1000 * SIZES[language] * scale)), seed=seed):
        total += file.write(_layout(document))
        count += 1
  return {"languages": len(LANGUAGES), "bytes": total, "documents": count}


def _draw_facts(rng: random.Random) -> list[world.Fact]:
  """3 to 8 facts about a person, a city or a day, in any order."""
  facts = world.subject_facts(rng)
  return rng.sample(facts, rng.randint(3, min(8, len(facts))))


def _paragraphs(facts: list[world.Fact], language: str, rng: random.Random) -> list[str]:
  """The facts as paragraphs of 1 to 3 of them; a question stands in the paragraph of its answer."""
  paragraphs, at, named = [], 0, set()
  while at < len(facts):
    until, sentences = at + rng.randint(1, 3), []
    for fact in facts[at:until]:
      if fact.kind in world.ASKED and rng.random() < QUESTIONS:
        sentences.append(grammar.question(fact, language, rng.choice(world.ASKED[fact.kind])).text)
      variant = rng.randrange(grammar.variants(fact.kind, language))
      names = {slot: value for slot, value in fact.slots.items() if world.KINDS[fact.kind][slot] in grammar.NAMES}
      latin = tuple(slot for slot, value in names.items() if value not in named and rng.random() < LATIN)
      named |= set(names.values())
      sentences.append(grammar.render(fact, language, variant, latin).text)
    paragraphs.append(load(language).space.join(sentences))
    at = until
  return paragraphs


def _layout(document: list[str]) -> bytes:
  return ("\n".join(document) + "\n\n").encode()
