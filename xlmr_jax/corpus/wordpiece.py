"""Trains a WordPiece vocabulary of BERT's kind on a sample of lines.

Google's own trainer was never published. Like the tokenizers library's, this one merges the most frequent pair of pieces
inside words, as BPE does, and keeps the pieces; a text is then cut by the longest piece that fits. That library's WordPiece
trainer numbers some pieces in the order of a hash map, so that two trainings differ. Its BPE trainer does not, and is run
here on words with a mark in front, which tells the pieces that begin a word from the others.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from xlmr_jax.data.tokenizer_json import BERT
from xlmr_jax.errors import UserError
from xlmr_jax.progress import Progress

LONGEST_WORD = 100  # characters; a longer word is [UNK], as in BERT
SPECIALS = (BERT.pad, BERT.unk, BERT.bos, BERT.eos, BERT.mask)
_MARK = "\u2581"  # It begins a word in the training. BERT's normalizer cuts nothing at it, and text has hardly any.
_BATCH = 1 << 16  # characters of text handed to the library at a time
_LINES = 1000  # likewise, for its normalizer


def train_wordpiece(sample: list[str], size: int, character_coverage: float, lower_case: bool) -> bytes:
  """The tokenizer.json of `size` entries, [PAD], [UNK], [CLS], [SEP] and [MASK] first.

  sample: lines `text TAB count`, as SentencePiece's TSV has them. lower_case: BERT's uncased kind, without accents too.
  Raises UserError: the size is too small for the characters, or too large for the text.
  """
  try:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
  except ImportError:
    raise UserError("--kind=wordpiece needs Hugging Face's tokenizers; pip install 'xlmr_jax[evaluate]'") from None
  made = Tokenizer(models.WordPiece(unk_token=BERT.unk, max_input_chars_per_word=LONGEST_WORD))
  made.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
  made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  with Progress("counting words", len(sample) / 1e3, "thousand paragraphs") as progress:
    words = _count_words(sample, made.normalizer, made.pre_tokenizer, progress)
  pieces = _pieces(_covered(words, character_coverage), size - len(SPECIALS))
  vocabulary = {piece: id for id, piece in enumerate([*SPECIALS, *pieces])}
  made.model = models.WordPiece(vocabulary, unk_token=BERT.unk, max_input_chars_per_word=LONGEST_WORD)
  made.decoder = decoders.WordPiece()
  ends = (BERT.bos, vocabulary[BERT.bos]), (BERT.eos, vocabulary[BERT.eos])
  made.post_processor = processors.TemplateProcessing(
    f"{BERT.bos} $A {BERT.eos}", f"{BERT.bos} $A {BERT.eos} $B:1 {BERT.eos}:1", ends
  )
  made.add_special_tokens(list(SPECIALS))
  return made.to_str().encode()


def _count_words(sample: list[str], normalizer: Any, pre_tokenizer: Any, progress: Progress) -> Counter[str]:
  """How often each word of at most LONGEST_WORD characters counts in the sample."""
  between_blanks: Counter[str] = Counter()  # The library is asked once for each, because a call takes longer than a look-up.
  lines = (line.rpartition("\t")[::2] for line in sample)
  for times, group in itertools.groupby(lines, key=lambda line: line[1]):
    texts = [text for text, _ in group]
    for first in range(0, len(texts), _LINES):
      part = texts[first : first + _LINES]
      for word, count in Counter(normalizer.normalize_str("\n".join(part)).split()).items():
        between_blanks[word] += count * int(times)
      progress.add(len(part) / 1e3)
  words: Counter[str] = Counter()
  for run, count in between_blanks.items():
    for word, _ in pre_tokenizer.pre_tokenize_str(run):
      words[word] += count
  return Counter({word: count for word, count in words.items() if len(word) <= LONGEST_WORD and _MARK not in word})


def _covered(words: Counter[str], character_coverage: float) -> Counter[str]:
  """The words whose characters are all among the most frequent ones that make up this share of the text."""
  characters: Counter[str] = Counter()
  for word, count in words.items():
    for character in word:
      characters[character] += count
  total, so_far, kept = sum(characters.values()), 0, set()
  for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
    if so_far >= character_coverage * total:
      break
    kept.add(character)
    so_far += count
  if not kept:
    raise UserError("this text has no character that a vocabulary could hold, but blanks and control characters")
  return Counter({word: count for word, count in words.items() if kept.issuperset(word)})


def _pieces(words: Counter[str], size: int) -> list[str]:
  """So many pieces: the characters that words begin and go on with, then what pairs make, the most frequent first."""
  from tokenizers import Tokenizer, models, pre_tokenizers, trainers

  inner = {character for word in words for character in word[1:]}
  alphabet = inner | {word[0] for word in words}
  pieces = [*sorted(alphabet), *(f"##{character}" for character in sorted(inner))]
  if len(pieces) > size:
    raise UserError(
      f"--size={size + len(SPECIALS)}: too small for the characters of this text; at least {len(pieces) + len(SPECIALS)}, "
      "or lower --character_coverage"
    )
  bpe = Tokenizer(models.BPE())
  bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  # Some merges only put the mark before a character, which is a piece already. So it makes more than are needed.
  wanted = size - len(pieces) + 2 * len(alphabet) + 1
  trainer = trainers.BpeTrainer(vocab_size=wanted, min_frequency=2, show_progress=False, special_tokens=[])
  with Progress(f"WordPiece trains {size:,} pieces on {len(words):,} words, and does not tell how far it is"):
    bpe.train_from_iterator(_repeated(words), trainer)
  found = sorted(bpe.get_vocab().items(), key=lambda entry: entry[1])
  known = set(pieces)
  for text, _ in found:
    piece = text[1:] if text.startswith(_MARK) else f"##{text}"
    if len(text) > 1 and piece not in known:  # The characters are in it already, in the forms that words have.
      known.add(piece)
      pieces.append(piece)
  if len(pieces) < size:
    raise UserError(f"--size={size + len(SPECIALS)}: too large for this text; at most {len(pieces) + len(SPECIALS)}")
  return pieces[:size]


def _repeated(words: Counter[str]) -> Iterator[str]:
  """Text in which each word stands as often as it counts, with the mark in front."""
  for word, count in words.items():
    marked = f"{_MARK}{word} "
    most = max(1, _BATCH // len(marked))
    for first in range(0, count, most):
      yield marked * min(most, count - first)
