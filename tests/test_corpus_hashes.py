"""Hashes of words, paragraphs and documents say what text is there, and not where it stands or how the work is divided."""

import numpy as np
import pytest

from xlmr_jax.corpus import characters, words
from xlmr_jax.corpus.near_duplicates import band_keys
from xlmr_jax.corpus.paragraphs import SHORT, hash_paragraphs, once_per_document
from xlmr_jax.corpus.words import hashes_of, words_of
from xlmr_jax.demo.text import documents

TEXTS = ["\n".join(paragraphs) for language in ("en", "ru", "zh") for paragraphs in documents(language, count=12)]
TEXTS += ["", "two words", "😀 a pair of surrogates 😀", "the same line here\nthe same line here\n!", "two words"]


@pytest.fixture(params=[1, 300, 1 << 20])
def group(request, monkeypatch):
  """How many characters are looked at together."""
  monkeypatch.setattr(characters, "_GROUP", request.param)


def test_paragraphs_and_documents_hash_alike_in_groups_of_any_size(group):
  alone = [hash_paragraphs([text])[0] for text in TEXTS]
  hashes, starts = hash_paragraphs(TEXTS)
  assert np.array_equal(hashes, np.concatenate(alone)) and np.array_equal(np.diff(starts), [len(own) for own in alone])
  keys = band_keys(TEXTS)
  own = [band_keys([text])[0] for text, empty in zip(TEXTS, map(len, TEXTS)) if empty]
  assert np.array_equal(keys[[bool(text) for text in TEXTS]], own)
  assert np.array_equal(keys[TEXTS.index("two words")], keys[-1])


def test_no_texts_and_empty_texts_have_hashes_too():
  assert [len(found) for found in hash_paragraphs([])] == [0, 1] and band_keys([]).shape == (0, 14)
  assert hash_paragraphs([""])[0].tolist() == [1] and len(hashes_of([""])[0]) == 0


def test_a_word_has_the_same_hash_wherever_it_stands(monkeypatch):
  monkeypatch.setattr(words, "_CHUNK", 64)
  words._powers.cache_clear()
  text = " ".join(["Word", "х" * 20, "word", "an", "na"] * 50)
  found = hashes_of([text, text])[0].reshape(-1, 5)
  words._powers.cache_clear()
  assert (found == found[0]).all()
  assert found[0, 0] == found[0, 2] and len(set(found[0].tolist())) == 4
  monkeypatch.undo()
  assert np.array_equal(hashes_of([text, text])[0].reshape(-1, 5), found)


def test_hashes_of_is_a_part_of_words_of():
  every, (hashes, starts) = words_of(TEXTS), hashes_of(TEXTS)
  assert np.array_equal(every.hashes, hashes) and np.array_equal(every.starts, starts)


def test_repeats_within_a_document_are_all_but_the_first_that_is_long():
  long, other = "a line that is long enough to be no refrain", "yet another line that is long enough for that"
  hashes, starts = hash_paragraphs([f"{long}\nchorus\n{other}\n{long}\nchorus", f"{other}\n{long}", f"{other}\n{other}\n!"])
  sorted_hashes, which, repeats = once_per_document(hashes, starts)
  assert np.flatnonzero(repeats).tolist() == [3, 8]
  assert np.array_equal(hashes[which], sorted_hashes) and np.array_equal(np.sort(which), [0, 1, 2, 5, 6, 7])
  assert (hashes[[1, 4, 9]] & SHORT).all() and (sorted_hashes[1:] >= sorted_hashes[:-1]).all()
