"""Scores against seqeval, scikit-learn and SciPy, and answers against MLQA's rules by hand."""

import math
import random
import warnings

import numpy as np
import pytest

from xlmr_jax.evaluation.tasks import metrics

CONSTANT = ([], [1, 1, 1], [0, 0, 0], [0.1, 0.1, 0.1])  # of the last, the mean is not quite 0.1


def arrays(seed, classes=2):
  """(gold, guess) of 1 to 40 labels; of few labels they are often constant."""
  rng = np.random.default_rng(seed)
  size = int(rng.integers(1, 40))
  gold = rng.integers(0, classes, size)
  return gold, np.where(rng.random(size) < 0.6, gold, rng.integers(0, classes, size))


@pytest.mark.parametrize(
  "ours, name", [(metrics.accuracy, "accuracy_score"), (metrics.f1, "f1_score"), (metrics.matthews, "matthews_corrcoef")]
)
def test_labels_equal_scikit_learn(ours, name):
  reference = getattr(pytest.importorskip("sklearn.metrics"), name)
  for seed in range(200):
    gold, guess = arrays(seed)
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # about arrays without a 1
      assert math.isclose(ours(gold.tolist(), guess.tolist()), reference(gold, guess), abs_tol=1e-12), (gold, guess)


def test_matthews_of_three_classes_equals_scikit_learn():
  reference = pytest.importorskip("sklearn.metrics").matthews_corrcoef
  for seed in range(50):
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # about arrays of one label
      assert math.isclose(metrics.matthews(*arrays(seed, 3)), reference(*arrays(seed, 3)), abs_tol=1e-12)


@pytest.mark.parametrize("ours, name", [(metrics.pearson, "pearsonr"), (metrics.spearman, "spearmanr")])
def test_correlations_equal_scipy(ours, name):
  reference = getattr(pytest.importorskip("scipy.stats"), name)
  for seed in range(200):
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 6, 30) / 2  # many ties
    guess = gold + rng.normal(0, 3, 30) if seed % 2 else (gold + rng.integers(-2, 3, 30)) * 1e6
    assert math.isclose(ours(gold.tolist(), guess.tolist()), reference(gold, guess)[0], abs_tol=1e-9)


def test_correlations_by_hand():
  assert metrics.pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
  assert metrics.pearson([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
  assert metrics.spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
  assert metrics.spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(math.sqrt(3) / 2)  # ranks 1.5 1.5 3


@pytest.mark.parametrize("metric", [metrics.matthews, metrics.pearson, metrics.spearman])
def test_correlation_with_a_constant_is_zero(metric):
  for values in CONSTANT:
    assert metric(values, values) == metric(values, [0, 1, 1][: len(values)]) == 0.0
    assert metric([0, 1, 1][: len(values)], values) == 0.0


def test_other_degenerate_inputs():
  assert metrics.accuracy([], []) == metrics.f1([], []) == metrics.f1([0, 0], [0, 0]) == 0.0
  assert metrics.pearson([1, 2], [float("nan"), 1]) == metrics.spearman([1, 2], [float("inf"), 1]) == 0.0
  assert metrics.span_f1([], []) == metrics.span_f1([["O"]], [["O"]]) == {"f1": 0.0, "precision": 0.0, "recall": 0.0}
  assert metrics.word_accuracy([], []) == metrics.word_accuracy([[]], [[]]) == 0.0
  assert metrics.squad([], "a") == metrics.mlqa([], "a", "zh") == (0.0, 0.0)
  assert metrics.squad(["the"], "a") == (1.0, 0.0)  # nothing is left of either


@pytest.mark.parametrize(
  "metric",
  [
    metrics.accuracy,
    metrics.f1,
    metrics.matthews,
    metrics.pearson,
    metrics.spearman,
    metrics.span_f1,
    metrics.word_accuracy,
  ],
)
def test_unequal_lengths_are_refused(metric):
  with pytest.raises(ValueError, match="2 gold"):
    metric([1, 2], [1])


def test_unequal_sentences_are_refused():
  for metric in (metrics.span_f1, metrics.word_accuracy):
    with pytest.raises(ValueError, match="sentence 1: 1 gold tags and 2"):
      metric([["O"], ["O"]], [["O"], ["O", "O"]])


# --- tags --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "tags, spans",
  [
    ("", set()),
    ("O O", set()),
    ("B-PER I-PER O B-LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
    ("B-PER B-PER I-PER", {("PER", 0, 1), ("PER", 1, 3)}),
    ("O I-PER I-PER", {("PER", 1, 3)}),  # I- after O
    ("I-PER O I-PER", {("PER", 0, 1), ("PER", 2, 3)}),
    ("B-PER I-LOC I-LOC O", {("PER", 0, 1), ("LOC", 1, 3)}),  # I- of another type
    ("I-LOC I-PER B-PER", {("LOC", 0, 1), ("PER", 1, 2), ("PER", 2, 3)}),
    ("B-A-B I-A-B", {("A-B", 0, 2)}),
  ],
)
def test_spans(tags, spans):
  assert metrics.spans(tags.split()) == spans


def test_span_f1_by_hand():
  gold = [["B-PER", "I-PER", "O"], ["B-LOC", "O"]]
  guess = [["B-PER", "O", "B-LOC"], ["I-LOC", "O"]]  # a wrong end, an invented one, a repaired one
  assert metrics.span_f1(gold, guess) == pytest.approx({"f1": 0.4, "precision": 1 / 3, "recall": 0.5})


def test_span_f1_equals_seqeval():
  seqeval = pytest.importorskip("seqeval.metrics")
  rng, tags = random.Random(0), ["O", *(f"{mark}-{kind}" for mark in "BI" for kind in ("PER", "LOC", "ORG"))]
  unlike = 0
  for _ in range(1000):
    lengths = [rng.randint(1, 12) for _ in range(rng.randint(1, 4))]
    gold, other = ([rng.choices(tags, k=n) for n in lengths] for _ in range(2))
    guess = [[g if rng.random() < 0.7 else o for g, o in zip(*pair)] for pair in zip(gold, other)]
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # about texts without a span
      expected = {name: getattr(seqeval, f"{name}_score")(gold, guess) for name in ("f1", "precision", "recall")}
    found = metrics.span_f1(gold, guess)
    assert found == pytest.approx(expected), (gold, guess)
    unlike += 0 < found["f1"] < 1
  assert unlike > 900


def test_word_accuracy():
  assert metrics.word_accuracy([["N", "V", "N"], ["V"]], [["N", "N", "N"], ["N"]]) == 0.5


# --- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "golds, guess, expected",
  [
    (["The Eiffel Tower!"], "eiffel  tower", (1, 1)),
    (["Paris"], "London", (0, 0)),
    (["in the year 1990"], "1990", (0, 0.5)),  # in year 1990
    (["Rome", "the city of Rome"], "city of Rome", (1, 1)),  # the best of several
    (["a b b"], "b b b", (0, 0.8)),  # b b against b b b: words count as often as they stand there
    (["“Rome”"], "Rome", (0, 0)),  # only ASCII punctuation goes
    (["der Hund"], "Hund", (0, 2 / 3)),
    (["Theater"], "ater", (0, 0)),  # the: whole words only
  ],
)
def test_squad(golds, guess, expected):
  assert metrics.squad(golds, guess) == pytest.approx(expected)


@pytest.mark.parametrize(
  "language, gold, guess, expected",
  [
    ("en", "The “Eiffel” Tower", "an eiffel tower.", (1, 1)),
    ("en", "der Hund", "Hund", (0, 2 / 3)),
    ("en", "$5+", "5", (1, 1)),  # ASCII marks that Unicode calls symbols
    ("en", "€5", "5", (0, 0)),
    ("es", "Los gatos, ¿y un perro?", "gatos y perro", (1, 1)),
    ("es", "the cat", "cat", (0, 2 / 3)),
    ("es", "elena", "el ena", (0, 0)),
    ("de", "Der Hund eines „Mannes“", "hund Mannes", (1, 1)),
    ("de", "dessen Hund", "Hund", (0, 2 / 3)),
    ("vi", "những cuốn sách của Lan", "Cuốn sách Lan", (1, 1)),
    ("vi", "cái là chiếc", "của", (1, 0)),
    ("vi", "a Lan", "Lan", (0, 2 / 3)),
    ("ar", "القاهرة", "قاهرة", (1, 1)),
    ("ar", "مدينة القاهرة، مصر", "مدينة قاهرة مصر", (1, 1)),
    ("ar", "سؤال", "سؤ", (1, 1)),  # within a word as well, as MLQA's expression has it
    ("hi", "दिल्ली।", "दिल्ली", (1, 1)),
    ("hi", "the दिल्ली", "दिल्ली", (0, 2 / 3)),
    ("zh", "北京市", "北京", (0, 0.8)),  # characters: 2 of 3 and of 2
    ("zh", "《北京》，2008年", "北京2008年", (1, 1)),
    ("zh", "京北", "北京", (0, 1)),  # a bag of them
    ("zh", "iPhone 手机", "手机 iphone", (0, 1)),  # and other words whole
    ("zh", "iphone手机", "iPhone 手机", (1, 1)),
    ("zh", "the 手", "手", (0, 2 / 3)),
  ],
)
def test_mlqa(language, gold, guess, expected):
  assert metrics.mlqa([gold], guess, language) == pytest.approx(expected)
  for golds in (["x y", gold], [gold, "x y"]):
    assert metrics.mlqa(golds, guess, language) == pytest.approx(expected)


def test_mlqa_of_other_languages_is_squad():
  for language in ("th", "ja", "el"):
    assert metrics.mlqa(["The กรุงเทพ!"], "กรุงเทพ", language) == (1.0, 1.0)
    assert metrics.mlqa(["北京"], "北", language) == metrics.mlqa(["«Rome»"], "Rome", language) == (0.0, 0.0)
