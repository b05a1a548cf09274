"""Which languages a model of the family xlm tells apart, and which of them a row or a text is in.

The names of its language embeddings are config.model.languages. A run fills them in from its rows before its config is
written, so that whoever opens the run finds them, in their order.
"""

import os
from collections.abc import Sequence

from ml_collections import ConfigDict

from xlmr_jax.corpus.languages import normal_code
from xlmr_jax.data.row_manifest import read_manifest
from xlmr_jax.data.rows import RowStore
from xlmr_jax.errors import UserError
from xlmr_jax.files import any_path
from xlmr_jax.model.build import family_of

_NAME_ANOTHER = "name the nearest of them by --language"
Sides = tuple[tuple[int, int], ...]  # per language of the rows, the numbers of the first and the second text's language


def languages_to_read(root: str | os.PathLike, names: Sequence[str], shares: Sequence[float]) -> tuple[str, ...] | None:
  """The languages of a store that a run reads, pairs of parallel sentences among them; None for all.

  names: config.data.languages. Where it names no pair, the pairs of two languages that it names are read too.
  shares: config.data.parallel_share and that of each phase. If all are 0, pairs are left out, and if all are 1, all else.
  Raises UserError: nothing is left.
  """
  manifest = read_manifest(any_path(root))
  pairs = manifest.get("pairs", {})
  if not pairs:
    return tuple(names) or None
  asked = list(names or manifest["languages"])
  if not set(asked) & set(pairs):
    asked += [pair for pair, sides in pairs.items() if all(number_of(names, side) is not None for side in sides)]
  left = [name for name in asked if name not in pairs or max(shares) > 0]
  if not left:
    raise UserError(
      f"config.data.languages={','.join(asked)}: in {root} these are pairs of parallel sentences, which "
      "config.data.parallel_share=0 leaves out; set it above 0, or name other languages"
    )
  if set(left) & set(pairs) and min(shares) == 1:
    left = [name for name in left if name in pairs]
  return tuple(left)


def reads_pairs(config: ConfigDict) -> bool:
  """Whether a row of several pairs of sentences is, to a model of config, pairs and not one running text."""
  return family_of(config).languages or config.model.isolate_documents


def without_pairs(config: ConfigDict, store: RowStore) -> list[str]:
  """A line to be said where a model of XLM's kind, which is trained on pairs too, has rows without any; else none."""
  if config.model.family != "xlm" or store.pairs or not config.data.parallel_share:
    return []
  return [f"no parallel sentences in {store.root}: the run has the masked language model alone, without TLM (add them with "
          "`xlmr build_rows --parallel=DIR --add`, or set config.data.parallel_share=0)"]  # fmt: skip


def refuse_pairs(config: ConfigDict, store: RowStore) -> None:
  """UserError if a run would read pairs of parallel sentences with a model to which they are no pairs."""
  if store.pairs and not reads_pairs(config):
    raise UserError(
      f"{store.root} has rows of parallel sentences ({', '.join(list(store.pairs)[:3])}), which config.model.family="
      f"{config.model.family} would read as running text: set config.model.isolate_documents=True, so that a pair is a text "
      "of its own, or leave them out with config.data.parallel_share=0, and without a share of them in config.phases"
    )


def has_embeddings(config: ConfigDict) -> bool:
  """Whether a model of config has language embeddings."""
  return family_of(config).languages and config.model.language_embeddings


def number_of(names: Sequence[str], language: str) -> int | None:
  """The place of a language in names, also where it is spelt otherwise, as zh for zh_Hans; None if it is not there."""
  if language in names:
    return list(names).index(language)
  code = normal_code(language)
  return next((i for i, name in enumerate(names) if code and normal_code(name) == code), None)


def names_of_rows(store: RowStore) -> tuple[str, ...]:
  """The single languages that a store's rows are in, sorted. A language that only pairs spell otherwise comes once."""
  names = sorted(set(store.languages) - set(store.pairs))
  for side in sorted({side for name in store.languages for side in store.pairs.get(name, ())}):
    if number_of(names, side) is None:
      names.append(side)
  return tuple(sorted(names))


def pairs_of_rows(store: RowStore) -> dict[str, tuple[str, str]]:
  """The pairs among a store's languages with the languages of both sides, spelt as the store's own where it has them."""
  names = sorted(set(store.languages) - set(store.pairs))

  def own(side: str) -> str:
    number = number_of(names, side)
    return side if number is None else names[number]

  return {pair: (own(first), own(second)) for pair, (first, second) in store.pairs.items()}


def with_languages(config: ConfigDict, store: RowStore) -> ConfigDict:
  """config with the names of its language embeddings, which are those of the rows unless it has them already.

  Raises UserError: the rows have a language that config.model.languages does not name.
  """
  if not has_embeddings(config):
    return config
  if not config.model.languages:
    config = config.copy_and_resolve_references()
    config.model.languages = names_of_rows(store)
  sides_of(config, store, hint="name it in config.model.languages, or leave its rows out by config.data.languages")
  return config


def sides_of(config: ConfigDict, store: RowStore, instead: str = "", hint: str = _NAME_ANOTHER) -> Sides | None:
  """Per language of the store's rows, the numbers of its two texts' languages; None for a model that does not look at them.

  instead: the language of the model that all rows of one language count as; a model without language embeddings does not
  look at it. Raises UserError: the model has no embedding of a language, and the error ends with the hint; or both sides of
  a pair are one language to it.
  """
  if not family_of(config).languages:
    return None
  names = tuple(config.model.languages) if has_embeddings(config) else names_of_rows(store)
  found = []
  for name in store.languages:
    sides = store.pairs.get(name, (name, name))
    if instead and has_embeddings(config) and name not in store.pairs:
      sides = (instead, instead)
    first, second = (number_in(names, side, f"rows in {name!r}", hint) for side in sides)
    if first == second and name in store.pairs:  # A row is a pair to the encoder if its two languages differ.
      both = ", or name both in config.model.languages, from a new run's begin on" if has_embeddings(config) else ""
      raise UserError(
        f"rows in {name!r}: {sides[0]!r} and {sides[1]!r} are one language to this model ({names[first]}), so that it would "
        f"not read them as pairs; leave them out by config.data.languages{both}"
      )
    found.append((first, second))
  return tuple(found)


def number_in(names: Sequence[str], language: str, what: str, hint: str = _NAME_ANOTHER) -> int:
  """number_of, or UserError for a language that is not there. what: that is in it; hint: what to do."""
  number = number_of(names, language)
  if number is None:
    raise UserError(f"{what}: the model has no language embedding of {language!r}; it has {', '.join(names)}; {hint}")
  return number


def number_of_text(config: ConfigDict, language: str) -> int | None:
  """The number of the language that a user names for his texts; None for a model without language embeddings.

  language: "" for none. Raises UserError: the model needs a language and none is named, or it has no such language.
  """
  if not has_embeddings(config):
    return None
  names = tuple(config.model.languages)
  if not language:
    raise UserError(
      f"this model has language embeddings, so it must be told the language of a text: --language={names[0]}, or "
      f"language={names[0]!r} in Python; it has {', '.join(names)}"
    )
  return number_in(names, language, f"--language={language}", "name the nearest of them")
