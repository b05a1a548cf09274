"""Readers, rows and answers of the labelled tasks: gold in, perfect score out; what cannot be right is refused."""

import dataclasses
import json

import numpy as np
import pytest

from xlmr_jax.data.tokenizer import open_tokenizer
from xlmr_jax.errors import UserError
from xlmr_jax.evaluation.tasks import KINDS, reading, registry, sentence, sentence_files, span, span_files, tagging
from xlmr_jax.evaluation.tasks.registry import Question, Tagged, Text
from xlmr_jax.ids import BOS, EOS, PAD, UNK

CONTEXT = (
  "The  ﬁrst  river is 12½ ㎞ long.\u3000ประเทศไทยมีแม่น้ำเจ้าพระยา 北京是中国的首都，人口很多。"
  " A 😀 smiles; Cafe\u0301 closes\u00a0at ９ o'clock. می\u200cخواهم برلین"
)
ANSWERS = (
  "ﬁrst  river",
  "12½ ㎞",
  "12½",
  "แม่น้ำเจ้าพระยา",
  "北京",
  "中国的首都",
  "😀",
  "Cafe\u0301",
  "９ o'clock",
  "closes\u00a0at",
  "long",
  "برلین",
  "می\u200cخواهم",
)
LETTERS = sorted({letter for letter in CONTEXT if not letter.isspace()})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  """Pieces of one character or two, and a few English words, so that an answer's ends are ends of pieces."""
  import sentencepiece

  text = [" ".join(letter for _ in range(3)) for letter in LETTERS] + [
    f"the {animal} sees {n} of the {thing}s" for animal in ("cat", "dog") for n in range(60) for thing in ("hut", "stone")
  ]
  path = tmp_path_factory.mktemp("vocabulary") / "small"
  sentencepiece.SentencePieceTrainer.Train(
    sentence_iterator=iter(text),
    model_prefix=str(path),
    vocab_size=140,
    hard_vocab_limit=False,
    character_coverage=1.0,
    minloglevel=2,
  )
  return open_tokenizer(path.with_suffix(".model"))


@pytest.fixture(scope="module")
def xlmr(shared):
  return open_tokenizer(shared / "data" / "tokenizer" / "xlmr.spm.model")


def task_with(name, **recipe):
  """A task that ships, with changes to its recipe."""
  known = registry.get(name)
  return dataclasses.replace(known, recipe=dataclasses.replace(known.recipe, **recipe))


def write(folder, files):
  for name, content in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return folder


def squad(*questions, context="one two three"):
  """SQuAD 1.1's JSON of (id, question, answer, offset)."""
  asked = [
    {"id": id, "question": text, "answers": [{"text": answer, "answer_start": start}]}
    for id, text, answer, start in questions
  ]
  return json.dumps({"data": [{"title": "", "paragraphs": [{"context": context, "qas": asked}]}]})


def gold_outputs(task, arrays):
  """What a perfect model would give for the arrays."""
  if task.head == "sentence":
    return np.eye(len(task.labels))[arrays["label"]] if task.labels else arrays["label"][:, None]
  if task.head == "words":
    return np.maximum(arrays["label"], 0)
  rows, outputs = np.arange(len(arrays["ids"])), np.zeros((2, *arrays["ids"].shape), np.float32)
  for logits, position in zip(outputs, (arrays["start"], arrays["end"])):
    logits[rows, position] = np.where(position > 0, 1, 0)
  return tuple(outputs)


def perfect(task, examples, tokenizer, language="en"):
  """(arrays, predictions, scores) with gold outputs."""
  kind = KINDS[task.head]
  arrays = kind.encode(task, examples, tokenizer)
  predictions = kind.decode(task, examples, arrays, gold_outputs(task, arrays))
  return arrays, predictions, kind.score(task, examples, predictions, language)


def check_rows(arrays, length):
  """Rows are <s> ... </s> and then pads, int32, none shorter than its own </s>."""
  ids = arrays["ids"]
  assert ids.dtype == np.int32 and ids.shape[1] == length
  for row in ids:
    size = int((row != PAD).sum())
    assert row[0] == BOS and row[size - 1] == EOS and (row[size:] == PAD).all() and (row[:size] != PAD).all()


# --- sentences ---------------------------------------------------------------------------------------------------


def test_rows_of_texts_and_pairs(tokenizer):
  task = task_with("xnli", max_len=48)
  examples = [Text("the cat sees", "", 0), Text("the cat", "the dog sees 1 of the huts", 2), Text("a", "b", 1)]
  arrays, predictions, scores = perfect(task, examples, tokenizer)
  check_rows(arrays, 48)
  plain = lambda text: tokenizer.encode_lines([text])[0].tolist()  # noqa: E731
  row = arrays["ids"][1].tolist()
  assert row[: row.index(PAD)] == [BOS, *plain("the cat"), EOS, EOS, *plain("the dog sees 1 of the huts"), EOS]
  assert arrays["ids"][0].tolist().count(EOS) == 1
  assert arrays["label"].tolist() == [0, 2, 1] and arrays["label"].dtype == np.int32
  assert predictions == [0, 2, 1] and scores == {"accuracy": 1.0}
  worse = sentence.decode(task, examples, arrays, np.array([[0, 1, 0], [0, 0, 1], [0, 1, 0.0]]))
  assert sentence.score(task, examples, worse, "en") == {"accuracy": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
  "first, second, kept",
  [
    (50, 3, (17, 3)),
    (3, 50, (3, 17)),
    (50, 50, (10, 10)),
    (12, 8, (12, 8)),
    (13, 9, (11, 9)),
    (9, 13, (9, 11)),
    (30, 0, (22, 0)),
  ],
)
def test_the_longer_text_is_cut(first, second, kept):
  """20 tokens of a pair fit, taken one by one off the longer; 22 of a text alone."""

  class Letters:
    separators = 2

    def encode_lines(self, lines):
      return [np.array([ord(letter) for letter in line], np.int32) for line in lines]

  arrays = sentence.encode(task_with("xnli", max_len=24), [Text("a" * first, "b" * second, 0)], Letters())
  expected = [BOS, *[ord("a")] * kept[0], EOS, *([EOS, *[ord("b")] * kept[1], EOS] if second else [])]
  assert arrays["ids"][0].tolist() == [*expected, *[PAD] * (24 - len(expected))]


def test_numbers(tokenizer):
  task = task_with("stsb")
  examples = [Text("a", "b", 5.0), Text("c", "d", 2.4), Text("e", "f", 0.0)]
  arrays, predictions, scores = perfect(task, examples, tokenizer)
  assert arrays["label"].dtype == np.float32 and predictions == pytest.approx([5.0, 2.4, 0.0])
  assert scores == {"pearson": pytest.approx(1), "spearman": pytest.approx(1)}


MNLI_HEADER = "index\tpromptID\tsentence1_parse\tsentence1\tsentence2\tlabel1\tgold_label\n"
XNLI_HEADER = "language\tgold_label\tsentence1_binary_parse\tsentence1\tsentence2\tpromptID\n"
LAYOUTS = [  # task, language, split, file, content, what comes of it
  ("xnli", "en", "train", "train.tsv", "p\th\tneutral\r\nq\ti\tentailment\r\n", [("p", "h", 1), ("q", "i", 0)]),
  ("xnli", "de", "train", "de.train.tsv", "p\th\tneutral\n", [("p", "h", 1)]),
  ("xnli", "de", "train", "multinli.train.de.tsv", "premise\thypo\tlabel\np\th\tcontradictory\n", [("p", "h", 2)]),
  ("xnli", "sw", "dev", "sw.tsv", 'p "x\th\tneutral\n', [('p "x', "h", 1)]),
  ("xnli", "sw", "dev", "sw.dev.tsv", "p\th\tneutral\n", [("p", "h", 1)]),
  (
    "xnli",
    "sw",
    "test",
    "xnli.test.tsv",
    XNLI_HEADER + "ar\tneutral\t(\ta\tb\t1\nsw\tentailment\t(\tc\td\t1\n",
    [("c", "d", 0)],
  ),
  ("xnli", "sw", "dev", "XNLI-1.0/xnli.dev.tsv", XNLI_HEADER + "sw\tentailment\t(\tc\td\t1\n", [("c", "d", 0)]),
  ("xnli", "de", "test_translated", "de.translated.tsv", "p\th\tneutral\n", [("p", "h", 1)]),
  ("xnli", "de", "dev_translated", "de.dev.translated.tsv", "p\th\tneutral\n", [("p", "h", 1)]),
  ("xnli", "en", "test_translated", "en.test.tsv", "p\th\tneutral\n", [("p", "h", 1)]),
  ("cad_nli", "en", "train", "cad_snli_en/train.tsv", "p\th\tneutral\n", [("p", "h", 1)]),
  ("cad_nli", "th", "dev", "xnli_dev/th.tsv", "p\th\tneutral\n", [("p", "h", 1)]),
  ("pawsx", "ko", "dev", "ko/dev_2k.tsv", "id\tsentence1\tsentence2\tlabel\n1\ta\tb\t1\n", [("a", "b", 1)]),
  ("pawsx", "ko", "train", "ko/translated_train.tsv", "id\tsentence1\tsentence2\tlabel\n1\ta\tb\t0\n", [("a", "b", 0)]),
  ("pawsx", "de", "test", "x-final/de/test_2k.tsv", "id\tsentence1\tsentence2\tlabel\n1\ta\tb\t1\n", [("a", "b", 1)]),
  ("sib200", "am", "test", "amh_Ethi/test.tsv", 'index_id\tcategory\ttext\n7\thealth\t"""a"" b"\n', [('"a" b', "", 2)]),
  ("sib200", "am", "train", "am/train.tsv", "index_id\tcategory\ttext\n7\ttravel\ta\n", [("a", "", 6)]),
  (
    "mnli",
    "en",
    "dev_mismatched",
    "dev_mismatched.tsv",
    MNLI_HEADER + "0\t1\t(\ta\tb\tneutral\tentailment\n",
    [("a", "b", 0)],
  ),
  ("qnli", "en", "train", "train.tsv", "index\tquestion\tsentence\tlabel\n0\ta?\tb\tnot_entailment\n", [("a?", "b", 1)]),
  ("qqp", "en", "dev", "dev.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta\tb\t1\n", [("a", "b", 1)]),
  ("sst2", "en", "train", "train.tsv", "sentence\tlabel\ngood \t1\n", [("good ", "", 1)]),
  ("sst2", "en", "train", "train.tsv", "1\tgood\n", [("good", "", 1)]),
  ("mrpc", "en", "dev", "dev.tsv", "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\t3\ta\tb\n", [("a", "b", 1)]),
  ("mrpc", "en", "dev", "test.tsv", "0\ta\tb\n", [("a", "b", 0)]),
  ("stsb", "en", "dev", "dev.tsv", "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\ta\tb\t2.5\n", [("a", "b", 2.5)]),
  ("cola", "en", "dev", "dev.tsv", "gj04\t0\t*\tThem went.\n", [("Them went.", "", 0)]),
  ("cola", "en", "dev", "dev.tsv", "1\tThey went.\n", [("They went.", "", 1)]),
  ("rte", "en", "train", "train.tsv", "entailment\ta\tb\n", [("a", "b", 0)]),
]


@pytest.mark.parametrize("name, language, split, file, content, expected", LAYOUTS)
def test_layouts_of_sentence_tasks(tmp_path, name, language, split, file, content, expected):
  assert registry.get(name).load(write(tmp_path, {file: content}), language, split) == [
    Text(*example) for example in expected
  ]


def test_a_development_set_is_no_test_set(tmp_path):
  write(tmp_path, {"de.tsv": GOOD, "de.translated.tsv": GOOD, "de.json": squad(("1", "q", "one", 0))})
  for name, split in (("xnli", "test"), ("mlqa", "test"), ("xnli", "dev_translated")):
    with pytest.raises(UserError, match=f"no {split} of {name} in de; looked for"):
      registry.get(name).load(tmp_path, "de", split)


@pytest.mark.parametrize(
  "name, language, split, files, both",
  [
    ("xnli", "de", "dev", ("de.dev.tsv", "de.tsv"), r"de\.dev\.tsv and .*de\.tsv are both the dev of xnli in de; keep one"),
    (
      "xnli",
      "en",
      "train",
      ("train.tsv", "XNLI-MT-1.0/multinli/multinli.train.en.tsv"),
      r"train\.tsv and .*multinli\.train",
    ),
    (
      "pawsx",
      "de",
      "train",
      ("de/train.tsv", "de/translated_train.tsv"),
      r"train\.tsv and .*translated_train\.tsv are both",
    ),
    (
      "mlqa",
      "de",
      "test",
      [f"{folder}test-context-de-question-de.json" for folder in ("", "MLQA_V1/test/")],
      r"run/test-context-de-question-de\.json and .*MLQA_V1/test/test-context-de.*\.json are both the test of mlqa in de",
    ),
    (
      "udpos",
      "th",
      "test",
      [f"ud-treebanks-v2.{n}/UD_Thai-PUD/th_pud-ud-test.conllu" for n in (5, 9)],
      r"v2\.5/UD_Thai-PUD/th_pud-ud-test\.conllu and .*v2\.9/.* are both the test of udpos in th",
    ),
  ],
)
def test_files_of_which_several_could_be_meant_are_refused(tmp_path, name, language, split, files, both):
  write(tmp_path / "run", dict.fromkeys(files, "x"))
  with pytest.raises(UserError, match=both) as caught:
    registry.get(name).load(tmp_path / "run", language, split)
  assert not isinstance(caught.value, reading.MissingError)


def test_a_link_to_a_file_is_the_file(tmp_path):
  write(tmp_path, {"de.dev.tsv": GOOD})
  (tmp_path / "de.tsv").symlink_to("de.dev.tsv")
  assert registry.get("xnli").load(tmp_path, "de", "dev") == [Text("p", "h", 1)]


def test_names_of_translations(tmp_path):
  with pytest.raises(UserError) as caught:
    registry.get("panx").load(tmp_path, "sw", "test_translated")
  names = "sw/test.translated, sw/test.translated.tsv, sw.translated.test"
  assert str(caught.value) == f"{tmp_path}: no test_translated of panx in sw; looked for {names}"


def test_broken_rows_of_public_files(tmp_path):
  rows = ["id\tsentence1\tsentence2\tlabel", *["1\ta\tb\t1"] * 199, "3\ta b\t1"]
  examples = registry.get("pawsx").load(write(tmp_path, {"de/dev_2k.tsv": "\n".join(rows)}), "de", "dev")
  assert len(examples) == 199
  with pytest.raises(UserError, match=r"dev_2k\.tsv:201: 3 columns, the lines above have 4"):
    registry.get("pawsx").load(write(tmp_path, {"de/dev_2k.tsv": "\n".join([*rows, *rows[-1:] * 2])}), "de", "dev")


GOOD = "p\th\tneutral\n"
SENTENCE_REFUSALS = [
  ("xnli", "en", "train", {}, r"no train of xnli in en; looked for train\.tsv, en\.train\.tsv, multinli\.train\.en\.tsv"),
  ("xnli", "de", "train", {"train.tsv": GOOD}, r"no train of xnli in de; looked for de\.train\.tsv"),
  ("xnli", "xx", "dev", {"xx.tsv": GOOD}, "xnli has no language 'xx'; there are ar, bg"),
  ("xnli", "en", "valid", {}, "xnli has no split 'valid' with labels; there are train, dev, test"),
  ("cad_nli", "en", "test", {"xnli_dev/en.tsv": GOOD}, "cad_nli has no split 'test'"),
  ("cad_nli", "de", "train", {"cad_snli_en/train.tsv": GOOD}, "no train of cad_nli in de"),
  ("xnli", "en", "dev", {"en.tsv": ""}, r"en\.tsv: an empty file"),
  ("xnli", "en", "dev", {"en.tsv": "\n\n"}, r"en\.tsv: no examples"),
  ("xnli", "en", "dev", {"en.tsv": GOOD + "p\th\tmaybe\n"}, r"en\.tsv:2: unknown label 'maybe'; xnli has entailment"),
  ("xnli", "en", "dev", {"en.tsv": GOOD + "p\tneutral\n"}, r"en\.tsv:2: 2 columns, the lines above have 3"),
  ("xnli", "en", "dev", {"en.tsv": GOOD + " \th\tneutral\n"}, r"en\.tsv:2: an empty sentence"),
  ("xnli", "en", "dev", {"en.tsv": GOOD + "p\t\u3000\tneutral\n"}, r"en\.tsv:2: an empty sentence"),
  ("xnli", "en", "dev", {"en.tsv": GOOD.encode() + b"caf\xe9\th\tneutral\n"}, r"en\.tsv:2: byte 4 is not UTF-8"),
  ("xnli", "en", "dev", {"en.tsv": squad(("1", "q", "one", 0))}, r"en\.tsv:1: the first line looks like JSON; xnli wants"),
  ("xnli", "en", "dev", {"en.tsv": "a\tB-PER\n"}, r"en\.tsv:1: the first line has 2 columns; xnli wants .* or 3 columns"),
  ("xnli", "en", "dev", {"xnli.dev.tsv": XNLI_HEADER + "ar\tneutral\t(\ta\tb\t1\n"}, r"xnli\.dev\.tsv: no examples in en"),
  ("rte", "en", "dev", {"dev.tsv": "p\th\tneutral\n"}, r"dev\.tsv:1: unknown label 'p'; rte has entailment, not_entailment"),
  ("stsb", "en", "dev", {"dev.tsv": "good\ta\tb\n"}, r"dev\.tsv:1: the label 'good' is not a number"),
  ("stsb", "en", "dev", {"dev.tsv": "nan\ta\tb\n"}, r"dev\.tsv:1: the label 'nan' is not a number"),
  ("mnli", "en", "test", {}, "mnli has no split 'test' with labels; there are train, dev_matched, dev_mismatched"),
]
WORD_REFUSALS = [
  ("panx", "en", "test", {"en.dev": "a\tO\n"}, r"no test of panx in en; looked for en\.test"),
  ("panx", "en", "dev", {"en.dev": "a\tO\nb\tB-MISC\n"}, r"en\.dev:2: unknown tag 'B-MISC'; panx has O, B-LOC"),
  ("panx", "en", "dev", {"en.dev": "a\tO\nb\n"}, r"en\.dev:2: 1 columns, not 2"),
  ("panx", "en", "dev", {"en.dev": "a\tO\n\tO\n"}, r"en\.dev:2: a tag without a word"),
  ("panx", "en", "dev", {"en.dev": "\n\n"}, r"en\.dev: no sentences"),
  ("panx", "en", "dev", {"en.dev": ""}, r"en\.dev: an empty file"),
  ("panx", "en", "dev", {"en.dev": "{}\n"}, r"en\.dev:1: 1 columns, not 2 .*JSON"),
  ("conll", "es", "dev", {"esp.testa": b"Espa\xf1a NC B-LOC\n"}, r"esp\.testa:1: byte 5 is not UTF-8"),
  ("conll", "en", "dev", {"eng.testa": "a NN O\nb O\n"}, r"eng\.testa:2: 2 columns, not 3"),
  ("udpos", "en", "dev", {"en.dev.conllu": "1\ta\ta\tNOUN\n"}, r"en\.dev\.conllu:1: 4 columns, not 10"),
  ("udpos", "en", "dev", {"en.dev.conllu": "1\ta\ta\tNN" + "\t_" * 6 + "\n"}, r"conllu:1: unknown tag 'NN'"),
]
SPAN_REFUSALS = [
  ("squad", "en", "train", {}, r"no train of squad in en; looked for train-v1\.1\.json"),
  ("squad", "en", "test", {}, "squad has no split 'test' with labels; there are train, dev"),
  (
    "xquad",
    "en",
    "dev",
    {"en.json": squad(("1", "q", "one", 0), ("7", "q", "four", 4))},
    r"en\.json, question '7': the answer 'four' is not in its context",
  ),
  ("xquad", "en", "dev", {"en.json": squad(("7", "q", "", 0))}, r"en\.json, question '7': no answer"),
  ("xquad", "en", "dev", {"en.json": squad(("7", " ", "one", 0))}, r"en\.json, question '7': nothing asked"),
  ("xquad", "en", "dev", {"en.json": squad(("7", "q", "one", 0), context="  ")}, r"en\.json, question '7': no context"),
  ("xquad", "en", "dev", {"en.json": '{"data": [\n{]}'}, r"en\.json:2: no JSON"),
  ("xquad", "en", "dev", {"en.json": GOOD}, r"en\.json:1: no JSON"),
  ("xquad", "en", "dev", {"en.json": '{"rows": []}'}, r"en\.json: not SQuAD 1\.1's layout"),
  ("xquad", "en", "dev", {"en.json": ""}, r"en\.json: an empty file"),
  ("xquad", "en", "dev", {"en.json": '{"data": []}'}, r"en\.json: no questions"),
  ("xquad", "en", "dev", {"en.json": b'{"data":\n\xff'}, r"en\.json:2: not UTF-8"),
  ("tydiqa", "fi", "dev", {"tydiqa-goldp-v1.1-dev.json": squad(("english-1", "q", "one", 0))}, "no questions in fi"),
]


@pytest.mark.parametrize("name, language, split, files, message", SENTENCE_REFUSALS + WORD_REFUSALS + SPAN_REFUSALS)
def test_refusals(tmp_path, name, language, split, files, message):
  with pytest.raises(UserError, match=message) as caught:
    registry.get(name).load(write(tmp_path, files), language, split)
  assert "\n" not in str(caught.value)


def test_refuses_a_folder_that_is_not_there(tmp_path):
  with pytest.raises(UserError, match=r"nowhere: no such folder; panx looks in it for de\.train"):
    registry.get("panx").load(tmp_path / "nowhere", "de", "train")


# --- words -------------------------------------------------------------------------------------------------------


def test_labels_stand_on_first_pieces(tokenizer):
  task = task_with("panx", max_len=48)
  examples = [Tagged(("the", "😀中国", "\u200b", "cat"), ("O", "B-LOC", "O", "B-PER")), Tagged(("北",), ("B-ORG",))]
  arrays, predictions, scores = perfect(task, examples, tokenizer)
  check_rows(arrays, 48)
  row = 1
  for j, (word, tag) in enumerate(zip(examples[0].words, examples[0].tags)):
    ids = tokenizer.encode_lines([word])[0].tolist() or [UNK]
    assert arrays["ids"][0, row : row + len(ids)].tolist() == ids
    assert arrays["label"][0, row : row + len(ids)].tolist() == [task.labels.index(tag), *[-1] * (len(ids) - 1)]
    assert arrays["word"][0, row : row + len(ids)].tolist() == [j, *[-1] * (len(ids) - 1)]
    row += len(ids)
  assert row > 6 and arrays["ids"][0, row] == EOS and (arrays["label"][0, row:] == -1).all()
  assert arrays["label"].dtype == arrays["word"].dtype == arrays["example"].dtype == np.int32
  assert predictions == [list(example.tags) for example in examples]
  assert scores == {"span_f1": 1.0, "precision": 1.0, "recall": 1.0}


def test_words_of_a_script_without_spaces_stand_as_in_running_text(tokenizer):
  task = task_with("panx", max_len=48)
  words, tags = ("北", "京", "中国", "。"), ("B-LOC", "I-LOC", "B-ORG", "O")
  spaced, running = (tagging.encode(task, [Tagged(words, tags, is_spaced)], tokenizer) for is_spaced in (True, False))
  pieces = lambda arrays: [tokenizer.piece(i) for i in arrays["ids"][0] if i > UNK]  # noqa: E731
  assert pieces(spaced).count("\u2581") > 1
  assert pieces(running)[0].startswith("\u2581") and not any(p.startswith("\u2581") for p in pieces(running)[1:])
  assert tokenizer.decode(running["ids"][0]) == "".join(words)
  assert running["label"][running["label"] >= 0].tolist() == [task.labels.index(tag) for tag in tags]


def test_long_sentences_go_on_in_further_rows(tokenizer):
  task = task_with("udpos", max_len=16)
  rng = np.random.default_rng(0)
  examples = []
  for size in (1, 3, 200, 40):
    words = tuple(rng.choice(["the", "cats", "北京是中国", "x" * 40, "\x07", "แม่น้ำ"], size))
    examples.append(Tagged(words, tuple(rng.choice(task.labels, size))))
  arrays, predictions, scores = perfect(task, examples, tokenizer)
  check_rows(arrays, 16)
  assert (arrays["label"] >= 0).sum() == (arrays["word"] >= 0).sum() == sum(len(example.words) for example in examples)
  rows = np.bincount(arrays["example"])
  assert rows[0] == 1 and rows[2] > 20 and rows[3] > 4
  for i, example in enumerate(examples):  # all words, in order, each whole where it fits
    places = arrays["word"][arrays["example"] == i]
    assert places[places >= 0].tolist() == list(range(len(example.words)))
    of_rows = [row[(row != PAD) & (row != BOS) & (row != EOS)].tolist() for row in arrays["ids"][arrays["example"] == i]]
    pieces = [tokenizer.encode_lines([word])[0][:14].tolist() or [UNK] for word in example.words]
    assert [id for row in of_rows for id in row] == [id for word in pieces for id in word]
  assert predictions == [list(example.tags) for example in examples] and scores == {"word_accuracy": 1.0}
  wrong = tagging.decode(task, examples, arrays, np.zeros_like(arrays["label"]))
  assert {tag for tags in wrong for tag in tags} == {"NOUN"}
  arrays["word"][:] = -1  # without a place, the label 0
  assert tagging.decode(task, examples, arrays, np.ones_like(arrays["label"])) == wrong


def test_layouts_of_tagging(tmp_path):
  load = lambda name, language, split, **files: registry.get(name).load(  # noqa: E731
    write(tmp_path, {file.replace("__", "/"): content for file, content in files.items()}), language, split
  )
  expected = [Tagged(("R.H.", "\u00a0", "en:x"), ("B-ORG", "I-ORG", "O")), Tagged(("A",), ("B-LOC",))]
  files = {"en.dev": "\nR.H.\tB-ORG\n\u00a0\tI-ORG\nen:x\tO\n\n\nA\tB-LOC"}
  assert load("panx", "en", "dev", **files) == expected
  files = {"en.train": "en:R.H.\tB-ORG\r\nen:\u00a0\tI-ORG\r\nen:en:x\tO\r\n\r\nen:A\tB-LOC"}
  assert load("panx", "en", "train", **files) == expected
  files = {
    "eng.testb": "-DOCSTART- -X- -X- O\n\nU.N. NNP I-NP I-ORG\nEkeus NNP I-NP I-PER\nHans NNP I-NP I-PER\n"
    "Bo NNP I-NP B-PER\nto TO I-VP O\nRome NNP I-NP I-LOC\n\n"
  }
  assert load("conll", "en", "test", **files) == [
    Tagged(("U.N.", "Ekeus", "Hans", "Bo", "to", "Rome"), ("B-ORG", "B-PER", "I-PER", "B-PER", "O", "B-LOC"))
  ]
  assert load("conll", "nl", "train", **{"ned.train": "De Art O\nEU N B-ORG\nraad N I-ORG\n"}) == [
    Tagged(("De", "EU", "raad"), ("O", "B-ORG", "I-ORG"))
  ]
  rest = "\t_" * 6
  conllu = (
    "# text = dámelo a\n1-2\tdámelo\t_\t_"
    + rest
    + "\n1\tdá\tdar\tVERB"
    + rest
    + "\n2\tmelo\tlo\tPRON"
    + rest
    + "\n2.1\tx\tx\tX"
    + rest
    + "\n\n"
  )
  expected = [Tagged(("dá", "melo"), ("VERB", "PRON"))]
  assert load("udpos", "es", "dev", **{"es.dev.conllu": conllu}) == expected
  files = {"es__es_a-ud-train.conllu": conllu, "es__es_b-ud-train.conllu": conllu}
  assert load("udpos", "es", "train", **files) == expected * 2
  files = {"UD_Thai-PUD__th_pud-ud-test.conllu": conllu, "UD_Thai-TUD__th_tud-ud-test.conllu": conllu}
  assert load("udpos", "th", "test", **files) == expected * 2
  files = {"ud-treebanks-v2.5__UD_Tamil-TTB__ta_ttb-ud-dev.conllu": conllu}
  assert load("udpos", "ta", "dev", **files) == expected


@pytest.mark.parametrize(
  "tags, expected",
  [
    ("I-A I-A O I-A", "B-A I-A O B-A"),
    ("I-A I-B B-B I-B", "B-A B-B B-B I-B"),
    ("B-A I-A O", "B-A I-A O"),
    ("", ""),
    ("I-A B-A I-A", "B-A B-A I-A"),
  ],
)
def test_iob1_becomes_iob2(tags, expected):
  assert tagging.iob2(tuple(tags.split())) == tuple(expected.split())


# --- spans -------------------------------------------------------------------------------------------------------


def questions(answers=ANSWERS, context=CONTEXT):
  return [Question(str(i), "the cat?", context, ((answer, context.index(answer)),)) for i, answer in enumerate(answers)]


def test_answers_are_exact_characters(tokenizer):
  task = task_with("xquad", max_answer=80)
  arrays, predictions, scores = perfect(task, questions(), tokenizer)
  check_rows(arrays, 384)
  assert predictions == {str(i): answer for i, answer in enumerate(ANSWERS)}
  assert scores == {"f1": 1.0, "exact_match": 1.0}
  inside = arrays["char_start"] >= 0
  assert (inside == (arrays["char_end"] >= 0)).all() and (arrays["char_start"] <= arrays["char_end"]).all()
  before = 4 + len(tokenizer.encode_lines(["the cat?"])[0]) - 1
  assert not inside[:, :before].any() and inside[:, before].all()
  assert (inside.sum(axis=1) == len(tokenizer.encode_lines([CONTEXT])[0])).all()
  assert all((arrays[key].dtype, arrays[key].ndim) == (np.int32, 1) for key in ("start", "end", "example"))


def test_an_answer_with_spaces_around_it(tokenizer):
  _, predictions, _ = perfect(task_with("xquad"), [Question("1", "q", "the  cat  sees", ((" cat ", 4),))], tokenizer)
  assert predictions == {"1": "cat"}


def test_long_contexts_are_strided(tokenizer):
  task = task_with("xquad", max_len=40, doc_stride=8, max_question=6, max_answer=20)
  words = [f"{'the cat' if i % 2 else 'dogs of'} {i}" for i in range(60)]
  context = " , ".join(words)
  examples = [
    Question(str(i), "the cat sees " * (i % 5 + 1), context, ((word, context.index(word)),))
    for i, word in enumerate(words[30:], 30)
  ]
  arrays, predictions, scores = perfect(task, examples, tokenizer)
  check_rows(arrays, 40)
  assert predictions == {example.id: example.answers[0][0] for example in examples} and scores["exact_match"] == 1.0
  tokens = tokenizer.encode_lines([context])[0].tolist()
  for i, example in enumerate(examples):
    asks = tokenizer.encode_lines([example.question])[0].tolist()[:6]
    pieces = [row[row != PAD].tolist() for row in arrays["ids"][arrays["example"] == i]]
    room = 40 - len(asks) - 4
    assert [piece[: len(asks) + 3] for piece in pieces] == [[BOS, *asks, EOS, EOS]] * len(pieces)
    contents = [piece[len(asks) + 3 : -1] for piece in pieces]
    assert contents == [tokens[at : at + room] for at in range(0, 8 * len(pieces), 8)]
    assert contents[-1][-1] == tokens[-1] and 8 * (len(pieces) - 2) + room < len(tokens)
  held = []
  keys = ("example", "start", "end", "char_start", "char_end")
  for i, start, end, begins, finishes in zip(*map(arrays.get, keys)):
    answer, at = examples[i].answers[0]
    held.append(begins[begins >= 0].min() <= at and at + len(answer) <= finishes.max())
    assert (start, end) == (0, 0) if not held[-1] else (begins[start], finishes[end]) == (at, at + len(answer))
  assert any(held) and not all(held)


def test_a_stride_wider_than_the_room_loses_nothing(tokenizer):
  task = task_with("xquad", max_len=24, doc_stride=128, max_question=6)
  arrays = span.encode(task, questions(), tokenizer)
  covered = {token for row in np.flatnonzero(arrays["example"] == 0) for token in arrays["char_end"][row].tolist()}
  assert covered - {-1} == set(tokenizer.encode_with_offsets([CONTEXT])[0][2].tolist())
  with pytest.raises(UserError, match=r"questions of 20 tokens leave a row of 24 no room"):
    span.encode(task_with("xquad", max_len=24, max_question=20), questions(), tokenizer)


def test_decoding_keeps_to_the_rules(tokenizer):
  """Against every span one by one, on random logits."""
  task = task_with("xquad", max_len=32, doc_stride=6, max_question=6, max_answer=4)
  examples = questions()[:3]
  arrays = span.encode(task, examples, tokenizer)
  rng = np.random.default_rng(0)
  starts, ends = rng.normal(size=(2, *arrays["ids"].shape)).astype(np.float32)
  starts[:, :4] = ends[:, :4] = 50  # <s> and the question
  starts[:, -1] = ends[:, -1] = 50  # </s> or a pad
  expected, best = {}, {}
  for row, i in enumerate(arrays["example"]):
    for first in range(32):
      for last in range(first, min(first + 4, 32)):
        begin, end = arrays["char_start"][row], arrays["char_end"][row]
        total = starts[row, first] + ends[row, last]
        if begin[first] < end[first] and begin[last] < end[last] and total > best.get(i, -np.inf):
          best[i], expected[examples[i].id] = total, CONTEXT[begin[first] : end[last]]
  assert len(np.unique(arrays["example"], return_counts=True)[1]) == 3 < len(arrays["example"])
  decoded = span.decode(task, examples, arrays, (starts, ends))
  assert decoded == expected and all(decoded.values())
  nothing = span.decode(task, examples, arrays, (starts * np.nan, ends))
  assert nothing == {example.id: "" for example in examples}


def test_scores_of_answers():
  examples = [Question("1", "q", "der Rhein", (("Rhein", 4), ("der Rhein", 0))), Question("2", "q", "Bonn", (("Bonn", 0),))]
  guess = {"1": "der Rhein"}
  assert span.score(task_with("xquad"), examples, guess, "de") == {"f1": 0.5, "exact_match": 0.5}
  examples = [examples[0]._replace(answers=(("Rhein", 4),))]
  assert span.score(task_with("mlqa"), examples, guess, "de") == {"mlqa_f1": 1.0, "mlqa_exact_match": 1.0}
  assert span.score(task_with("xquad"), examples, guess, "de")["exact_match"] == 0.0


def test_layouts_of_questions(tmp_path):
  one = squad(("a", "q", "two", 4))
  asked = [Question("a", "q", "one two three", (("two", 4),))]
  for name, language, split, file in [
    ("squad", "en", "train", "train-v1.1.json"),
    ("squad", "en", "dev", "dev-v1.1.json"),
    ("mlqa", "en", "train", "train-v1.1.json"),
    ("mlqa", "de", "train", "de.train.json"),
    ("mlqa", "de", "dev", "de.json"),
    ("mlqa", "hi", "dev", "dev-context-hi-question-hi.json"),
    ("mlqa", "hi", "test", "test/test-context-hi-question-hi.json"),
    ("mlqa", "hi", "dev", "MLQA_V1/dev/dev-context-hi-question-hi.json"),
    ("mlqa", "zh", "test", "MLQA_V1/test/test-context-zh-question-zh.json"),
    ("mlqa", "de", "test_translated", "mlqa-translate-test/translate-test-context-de-question-de.json"),
    ("mlqa", "en", "test_translated", "MLQA_V1/test/test-context-en-question-en.json"),
    ("xquad", "de", "test_translated", "xquad.translate.test.de-en.json"),
    ("xquad", "th", "test", "xquad.th.json"),
    ("xquad", "ro", "dev", "ro.json"),
    ("tydiqa", "fi", "dev", "tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-finnish.json"),
    ("tydiqa", "fi", "train", "fi.train.json"),
    ("tydiqa_xquad", "en", "train", "tydiqa_goldp/en.train.json"),
    ("tydiqa_xquad", "el", "dev", "xquad/el.json"),
    ("xquad", "de", "test_translated", "de.translated.json"),
  ]:
    folder = write(tmp_path / f"{name} {language} {file.replace('/', ' ')}", {file: one})
    assert registry.get(name).load(folder, language, split) == asked
  both = squad(("finnish-1", "q", "two", 4), ("english-1", "q", "one", 0))
  write(tmp_path, {"tydiqa-goldp-v1.1-train.json": both})
  assert [example.id for example in registry.get("tydiqa").load(tmp_path, "fi", "train")] == ["finnish-1"]


@pytest.mark.parametrize("offset, place", [(8, 8), (7, 8), (1, 0), (99, 16), (-3, 0), (11, 8), (5, 8)])
def test_an_answer_beside_its_offset_is_found(tmp_path, offset, place):
  content = squad(("a", "q", "two", offset), ("a", "q", "two", 0), context="two one two one two")
  first, again = registry.get("xquad").load(write(tmp_path, {"en.json": content}), "en", "dev")
  assert first.answers == (("two", place),) and (first.id, again.id) == ("a", "a#2")


# --- TensorFlow Datasets -----------------------------------------------------------------------------------------

XNLI_PAIR = {"ar": "x", "de": "Er läuft."}  # TFDS stores it as a list of languages beside a list of translations.
LONGER = {"de": "Er geht.", **dict.fromkeys(set(sentence.XNLI_LANGUAGES) - {"de"}, "x")}
ANSWER = {"text": ["Köln"], "answer_start": [3]}
ASKED = {"title": "", "context": "In Köln.", "question": "wo?"}
STORED = [  # task, language, split, dataset, its split, rows, examples that come of them
  ("xnli", "de", "test", "xnli", "test", [{"premise": LONGER, "hypothesis": XNLI_PAIR, "label": 2}],
   [Text("Er geht.", "Er läuft.", 2.0)]),
  ("xnli", "en", "train", "glue/mnli", "train", [{"premise": "p", "hypothesis": "h", "label": 1, "idx": 7}],
   [Text("p", "h", 1.0)]),
  ("mnli", "en", "dev_mismatched", "glue/mnli", "validation_mismatched",
   [{"premise": "p", "hypothesis": "h", "label": 0, "idx": 0}], [Text("p", "h", 0.0)]),
  ("pawsx", "de", "train", "paws_x_wiki/de", "train",
   [{"sentence1": "eins", "sentence2": "zwei", "label": 1}, {"sentence1": "drei", "sentence2": "vier", "label": 0}],
   [Text("eins", "zwei", 1.0), Text("drei", "vier", 0.0)]),
  ("sst2", "en", "dev", "glue/sst2", "validation", [{"sentence": "good ", "label": 1, "idx": 0}], [Text("good ", "", 1.0)]),
  ("qqp", "en", "train", "glue/qqp", "train", [{"question1": "a?", "question2": "b?", "label": 1, "idx": 0}],
   [Text("a?", "b?", 1.0)]),
  ("stsb", "en", "dev", "glue/stsb", "validation", [{"sentence1": "a", "sentence2": "b", "label": 2.5, "idx": 0}],
   [Text("a", "b", 2.5)]),
  ("qnli", "en", "train", "glue/qnli", "train", [{"question": "who?", "sentence": "he", "label": 1, "idx": 0}],
   [Text("who?", "he", 1.0)]),
  ("panx", "de", "dev", "wikiann/de", "validation",
   [{"tokens": ["In", "New", "York"], "tags": [0, 5, 6], "langs": ["de"] * 3, "spans": ["LOC: New York"]}],
   [Tagged(("In", "New", "York"), ("O", "B-LOC", "I-LOC"))]),
  ("conll", "es", "test", "conll2002/es", "test", [{"tokens": ["La", "EU"], "pos": [0, 0], "ner": [0, 3]}],
   [Tagged(("La", "EU"), ("O", "B-ORG"))]),
  ("conll", "en", "train", "conll2003", "train",
   [{"tokens": ["EU", "rejects"], "pos": [0, 0], "chunks": [0, 0], "ner": [3, 0]}],
   [Tagged(("EU", "rejects"), ("B-ORG", "O"))]),
  ("udpos", "de", "train", "xtreme_pos/xtreme_pos_de", "train", [{"tokens": ["Er", "geht"], "upos": ["PRON", "VERB"]}],
   [Tagged(("Er", "geht"), ("PRON", "VERB"))]),
  ("squad", "en", "dev", "squad/v1.1", "validation", [{**ASKED, "id": "7", "answers": ANSWER}],
   [Question("7", "wo?", "In Köln.", (("Köln", 3),))]),
  ("mlqa", "de", "test", "mlqa/de", "test", [{**ASKED, "id": "7", "answers": ANSWER}],
   [Question("7", "wo?", "In Köln.", (("Köln", 3),))]),
  ("xquad", "de", "test", "xquad/de", "test", [{**ASKED, "id": "7", "answers": ANSWER}],
   [Question("7", "wo?", "In Köln.", (("Köln", 3),))]),
  ("tydiqa", "sw", "train", "tydi_qa/goldp", "train",
   [{**ASKED, "id": id, "answers": ANSWER} for id in ("swahili-1", "english-1", "swahili-1")],
   [Question("swahili-1", "wo?", "In Köln.", (("Köln", 3),)), Question("swahili-1#2", "wo?", "In Köln.", (("Köln", 3),))]),
]  # fmt: skip


def store_dataset(folder, dataset, split, rows):
  """Writes a dataset with the features that TFDS declares for it, as `tfds build` leaves it behind."""
  import tensorflow_datasets as tfds

  declared = tfds.builder(dataset, data_dir=folder)
  tfds.dataset_builders.store_as_tfds_dataset(
    declared.name,
    declared.version,
    declared.info.features,
    {split: list(enumerate(rows))},
    config=declared.builder_config.name if declared.builder_config else None,
    data_dir=folder,
    disable_shuffling=True,
  )


@pytest.fixture
def tfds_folder(tmp_path):
  """A folder where TFDS looks for prepared datasets."""
  tfds = pytest.importorskip("tensorflow_datasets")
  from tensorflow_datasets.core.utils import file_utils

  tfds.core.add_data_dir(tmp_path)
  yield tmp_path
  file_utils.clear_registered_data_dirs()


@pytest.mark.parametrize("name, language, split, dataset, tfds_split, rows, expected", STORED)
def test_tfds_readers_on_a_stored_dataset(tfds_folder, name, language, split, dataset, tfds_split, rows, expected):
  store_dataset(tfds_folder, dataset, tfds_split, rows)
  assert registry.get(name).load("tfds", language, split) == expected


def test_what_a_stored_dataset_cannot_give_is_refused(tfds_folder):
  row = {"premise": LONGER, "hypothesis": {"de": "Er läuft."}, "label": 2}
  store_dataset(tfds_folder, "xnli", "test", [row])
  with pytest.raises(UserError, match=r"^tfds xnli, test, example 0: an empty sentence in ar$"):
    registry.get("xnli").load("tfds", "ar", "test")
  with pytest.raises(UserError, match=r"^tfds xnli, split validation: .*validation"):
    registry.get("xnli").load("tfds", "de", "dev")


def test_tfds_examples():
  xnli = registry.get("xnli")
  rows = {
    "premise": {"de": b"Er geht.", "en": b"He goes."},
    "label": 2,
    "hypothesis": {"language": [b"ar", b"de"], "translation": [b"x", "Er läuft.".encode()]},
  }
  classes = ["entailment", "neutral", "contradiction"]
  assert sentence_files.parse_tfds(xnli, rows, classes, "de", "here") == Text("Er geht.", "Er läuft.", 2)
  assert sentence_files.parse_tfds(xnli, rows, ["neutral", "entailment", "contradiction"], "de", "").label == 2
  assert (
    sentence_files.parse_tfds(xnli, {**rows, "label": 0}, ["neutral", "entailment", "contradiction"], "de", "").label == 1
  )
  with pytest.raises(UserError, match="here: an empty sentence in ar"):
    sentence_files.parse_tfds(xnli, rows, classes, "ar", "here")
  with pytest.raises(UserError, match="here: no label"):
    sentence_files.parse_tfds(xnli, {**rows, "label": -1}, classes, "de", "here")
  row = {"question": b"who?", "sentence": b"he", "label": 1, "idx": 3}
  qnli = registry.get("qnli")
  assert sentence_files.parse_tfds(qnli, row, list(qnli.labels), "en", "") == Text("who?", "he", 1)
  row = {"question1": b"a", "question2": b"b", "label": 1}
  assert sentence_files.parse_tfds(registry.get("qqp"), row, ["not_duplicate", "duplicate"], "en", "") == Text("a", "b", 1)
  row = {"tokens": [b"EU", "über".encode()], "ner": [1, 0]}
  assert tagging.parse_tfds(registry.get("conll"), row, "ner", ["O", "I-ORG"], "") == Tagged(("EU", "über"), ("B-ORG", "O"))
  with pytest.raises(UserError, match="here: unknown tag '_'"):
    tagging.parse_tfds(registry.get("udpos"), {"tokens": [b"a"], "upos": [0]}, "upos", ["_"], "here")
  row = {
    "id": b"7",
    "question": b"wo?",
    "context": "In Köln.".encode(),
    "answers": {"text": np.array(["Köln".encode()], object), "answer_start": np.array([3], np.int32)},
  }
  assert span_files.question(row, "") == (Question("7", "wo?", "In Köln.", (("Köln", 3),)), True)


def test_tfds_sources_are_there():
  tfds = pytest.importorskip("tensorflow_datasets")
  known = set(tfds.list_builders(with_community_datasets=False))  # Others would be looked for in a bucket.
  sources = [source for table in sentence_files.TABLES.values() for source in table.tfds.values()]
  for name in ("squad", "mlqa", "xquad", "tydiqa", "tydiqa_xquad"):
    for split in ("train", "dev", "test"):
      sources += [source for language in ("en", "ar") if (source := span_files.tfds_source(name, language, split))]
  for name, _ in sources:
    assert name.split("/")[0] in known
    configs = {config.name for config in tfds.builder_cls(name.split("/")[0]).BUILDER_CONFIGS}
    assert "/" not in name or name.split("/")[1].format(language="de") in configs
  for name in ("xnli", "sib200", "conll"):
    with pytest.raises(UserError, match=f"tfds has no (test_translated|train|test) of {name} in de"):
      registry.get(name).load("tfds", "de", {"xnli": "test_translated", "sib200": "train", "conll": "test"}[name])


def test_tfds_has_tamil_and_tagalog_exchanged():
  """Where it mends its table, this fails, and UD_TFDS_CODES goes."""
  builder = pytest.importorskip("tensorflow_datasets.datasets.xtreme_pos.xtreme_pos_dataset_builder")
  languages = dict(
    entry.split(":")
    for entry in registry.names("""
      af:Afrikaans ar:Arabic bg:Bulgarian de:German el:Greek en:English es:Spanish et:Estonian eu:Basque fa:Persian
      fi:Finnish fr:French he:Hebrew hi:Hindi hu:Hungarian id:Indonesian it:Italian ja:Japanese kk:Kazakh ko:Korean
      mr:Marathi nl:Dutch pt:Portuguese ru:Russian ta:Tamil te:Telugu th:Thai tl:Tagalog tr:Turkish ur:Urdu vi:Vietnamese
      yo:Yoruba zh:Chinese
    """)
  )
  assert set(languages) == set(registry.get("udpos").languages)
  for language, name in languages.items():
    assert builder._LANGS[tagging.UD_TFDS_CODES.get(language, language)] == name, language


def test_what_tfds_lacks_is_missing_and_is_known_before_a_download(monkeypatch):
  tfds = pytest.importorskip("tensorflow_datasets")

  class Reached(Exception):
    pass

  def download(self):
    raise Reached("reached")

  monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)
  monkeypatch.setattr(
    reading, "refuse_foreign_features", lambda name: None
  )  # What is prepared on this machine is no matter.
  missing = {}
  for name in SHIPPED:
    task = registry.get(name)
    for split in {"train", task.dev_split, task.test_split}:
      for language in task.languages:
        with pytest.raises(UserError) as caught:
          task.load("tfds", language, split)
        if isinstance(caught.value, reading.MissingError):
          missing.setdefault((name, split), set()).add(language)
        else:
          assert isinstance(caught.value.__cause__, Reached), caught.value
  lacking = {"conll": {"de"}, "xquad": {"ro"}, "tydiqa_xquad": {"ro"}}
  for name in ("cad_nli", "sib200"):
    lacking[name] = set(registry.get(name).languages)
  for (name, split), languages in missing.items():
    trained = name.endswith("xquad") or name == "mlqa"
    if split == "train" and trained:  # There is English to train on, and what machines translated of it.
      assert "en" not in languages
    else:
      assert languages == lacking[name], (name, split)
  assert {name for name, _ in missing} == {*lacking, "mlqa"}


def test_a_split_that_tfds_lacks_is_missing(tfds_folder):
  row = {"tokens": ["a"], "upos": ["NOUN"]}
  store_dataset(tfds_folder, "xtreme_pos/xtreme_pos_th", "test", [row])
  assert registry.get("udpos").load("tfds", "th", "test") == [Tagged(("a",), ("NOUN",))]
  with pytest.raises(
    reading.MissingError, match=r"^tfds xtreme_pos/xtreme_pos_th, split train: it has only test; give a folder"
  ):
    registry.get("udpos").load("tfds", "th", "train")
  store_dataset(tfds_folder, "tydi_qa/goldp", "train", [{**ASKED, "id": "swahili-1", "answers": ANSWER}])
  with pytest.raises(reading.MissingError, match="tfds tydi_qa/goldp, train: no questions in fi"):
    registry.get("tydiqa").load("tfds", "fi", "train")


def test_a_dataset_that_is_not_to_be_had():
  pytest.importorskip("tensorflow_datasets")
  with pytest.raises(UserError, match=r"^tfds no_such_dataset_xyz, split train: .*; prepare it with `tfds build") as caught:
    reading.tfds_rows("no_such_dataset_xyz", "train")
  assert "\n" not in str(caught.value)


# --- declarations ------------------------------------------------------------------------------------------------


SHIPPED = registry.names("""
  xnli cad_nli pawsx sib200 mnli qnli qqp sst2 mrpc stsb cola rte panx conll udpos squad mlqa xquad tydiqa tydiqa_xquad
""")


def test_declarations_fit_the_readers():
  known = {"span_f1", "precision", "recall", "f1", "exact_match", "mlqa_f1", "mlqa_exact_match"}
  known |= {"accuracy", "f1", "matthews", "pearson", "spearman", "word_accuracy"}
  for name in SHIPPED:
    task = registry.get(name)
    assert task.train_language in task.languages and len(set(task.languages)) == len(task.languages), name
    assert task.reader.__module__ in (KINDS[task.head].__name__, f"{KINDS[task.head].__name__}_files")
    assert set(task.metrics) <= known
    assert 0 <= task.chance <= 0.5 and task.recipe.max_len <= 512
    files = (
      sentence_files.TABLES[name].files if name in sentence_files.TABLES else span_files.FILES.get(name, tagging.UD_FILES)
    )
    # Without a labelled test set, a task is tested on a development set, so that no flag is needed to score it.
    assert {"train", task.dev_split, task.test_split} <= set(files), name
  assert registry.get("udpos").labels[0] == "NOUN" and len(registry.get("udpos").labels) == 17
  assert registry.get("panx").labels[0] == "O" and len(registry.get("panx").labels) == 7
  assert len(registry.get("conll").labels) == 9


# --- real data ---------------------------------------------------------------------------------------------------


def test_real_sentences(shared, xlmr):
  for name in ("cola", "mrpc", "rte", "sst2", "stsb"):
    for split in ("train", "dev"):
      examples = registry.get(name).load(shared / "data" / "glue" / name, "en", split)
      raw = (shared / "data" / "glue" / name / f"{split if (name, split) != ('mrpc', 'dev') else 'test'}.tsv").read_bytes()
      assert len(examples) == raw.count(b"\n")
    scores = perfect(registry.get(name), examples, xlmr)[2]
    assert scores == {metric: pytest.approx(1) for metric in registry.get(name).metrics}
  nli = registry.get("cad_nli")
  assert len(nli.load(shared / "data" / "nli", "en", "train")) == 8330
  for language in nli.languages:
    examples = nli.load(shared / "data" / "nli", language, "dev")
    assert np.bincount([int(example.label) for example in examples]).tolist() == [830] * 3
    assert examples == registry.get("xnli").load(shared / "data" / "nli" / "xnli_dev", language, "dev")
  arrays, _, scores = perfect(nli, examples, xlmr)
  check_rows(arrays, 128)
  assert scores == {"accuracy": 1.0}


@pytest.mark.parametrize("pattern", ["[hyz][ioh].dev", pytest.param("*", marks=pytest.mark.slow)])
def test_real_words(shared, xlmr, pattern):
  panx, folder = registry.get("panx"), shared / "data" / "ner" / "panx"
  paths = [path for path in sorted(folder.glob(pattern)) if path.suffix in (".train", ".dev")]
  assert len(paths) >= 3
  for path in paths:
    language, split = path.name.split(".")
    examples = panx.load(folder, language, split)
    tokens = sum(len(line) > 1 for line in path.read_bytes().split(b"\n"))
    assert sum(len(example.words) for example in examples) == tokens
    if language in ("hi", "yo", "zh"):
      arrays, predictions, scores = perfect(panx, examples, xlmr)
      assert scores["span_f1"] == 1.0 and predictions == [list(example.tags) for example in examples]
      assert (arrays["label"] >= 0).sum() == tokens


@pytest.mark.parametrize(
  "name, folder, split",
  [
    ("mlqa", "mlqa_dev", "dev"), pytest.param("xquad", "xquad", "test", marks=pytest.mark.slow),
    pytest.param("tydiqa", "tydiqa_goldp", "train", marks=pytest.mark.slow),
  ],
)  # fmt: skip
def test_real_answers(shared, xlmr, name, folder, split):
  """Gold positions give the gold answer, but where a piece goes on: 96 % of 22,175 answers are equal, all are within."""
  task = task_with(name, max_answer=384)
  within = equal = count = 0
  for language in ("en",) if split == "train" else task.languages:
    examples = task.load(shared / "data" / "qa" / folder, language, split)
    arrays, predictions, scores = perfect(task, examples, xlmr, language)
    pairs = [(example.answers[0][0].strip(" \u200b\n"), predictions[example.id]) for example in examples]
    within += sum(gold in guess for gold, guess in pairs)
    equal += sum(gold == guess for gold, guess in pairs)
    count += len(pairs)
    assert scores[task.metrics[0]] > 0.98, language
    held = np.bincount(arrays["example"], arrays["start"] > 0, minlength=len(examples))
    assert (held > 0).all()  # some piece has all of the answer
  assert within / count > 0.999 and equal / count > 0.92


def test_the_mirrored_tydi_dev_set_has_no_answers(shared):
  with pytest.raises(UserError, match=r"question 'swahili-.*: no answer; a file without answers"):
    registry.get("tydiqa").load(shared / "data" / "qa" / "tydiqa_goldp", "sw", "dev")
