"""The built-in world's parallel text: both sides tell the same, and none of it is a test of the demo's tasks."""

import random

from xlmr_jax.corpus.sources.parallel import ParallelText
from xlmr_jax.demo import parallel, world
from xlmr_jax.demo.lexicon import LANGUAGES


def test_parallel_facts_of_the_demo_tell_the_same_and_are_no_test(tmp_path):
  assert parallel.write_parallel(tmp_path / "pairs", scale=0.01) == {"pairs": 14, "sentences": 14 * 25}
  source = ParallelText(tmp_path / "pairs")
  assert set(source.pairs) == {parallel.pair_name(name) for name in LANGUAGES if name != "en"}
  shards = source.shards(1)
  texts = [document.text for shard in shards if shard.language == "en-fr" for document in source.documents(shard)]
  assert texts == ["\t".join(pair) for pair in parallel.sentences("fr", 25)]
  assert texts != ["\t".join(pair) for pair in parallel.sentences("fr", 25, seed=1)]
  # A year or an age is told in both; a small number may be a word in one of them.
  digits = [[set(filter(str.isdigit, side)) for side in text.split("\t")] for text in texts]
  assert sum(bool(a and b) for a, b in digits) > 1 and all(a <= b or b <= a for a, b in digits)
  facts = world.person_facts(world.draw_person(random.Random(0)))
  assert {world.split_of([fact]) for fact in facts} <= {"train", "dev", "test"}
  assert world.split_of(facts[:2]) == world.split_of(facts[1::-1])
