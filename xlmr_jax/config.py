"""Every key of a run with its unit and its source, and how keys are set. config_checks.py checks the values.

The files in configs/ start from default_config() and change what they must; config_files.py reads them. `--config.KEY=VALUE`
changes one key of a run.
"""

import re
from typing import Any

from ml_collections import ConfigDict

from xlmr_jax.config_files import load_config as load_config  # for config files, which need nothing but this module
from xlmr_jax.files import flatten

# How training and evaluation languages combine (Conneau et al. 2020, section 5.1).
SETTINGS = ("zero_shot", "per_language", "translate_train", "translate_train_all", "translate_test")


def default_config() -> ConfigDict:
  """XLM-R's recipe without a size. Locked: a misspelt key is an error."""
  c = ConfigDict()
  c.seed = 0
  c.train_steps = 1_500_000  # updates (paper, section 5.2, for the Large model)
  c.phases = ()  # e.g. ("until=60%,alpha=0.7", "until=100%,alpha=0.3"): docs/phases.md; (): one phase, as the keys below say
  c.batch_rows = 8192  # rows of all hosts and micro-batches together (paper, section 5.2)
  c.micro_batches = 1  # gradient accumulation: parts that a batch is computed in; the result does not depend on it
  c.rows_per_device = 0  # rows of a micro-batch on a device, above 0: micro_batches follows from it and the devices (ours)
  c.max_bad_steps = 20  # steps in a row that are skipped before the run goes back to an earlier checkpoint (ours)
  c.max_recoveries = 3  # times that a run goes back and past the batches of the bad steps before it ends; 0: never (ours)
  c.check_replicas_every = 1000  # steps between two comparisons of what all devices should hold alike; 0: never (ours)
  c.compile_cache = ""  # folder of compiled programs; "": ~/.cache/xlmr_jax, for several processes in the workdir; off
  c.compiler_options = ""  # NAME=VALUE,NAME=VALUE: XLA's options for the train step, besides those of hardware.py
  c.watchdog_s = 1800.0  # seconds without a step before a hung process ends itself with exit 42; 0: off (ours)

  c.watchdog = ConfigDict()  # seconds after which a process that hangs elsewhere ends itself with exit 42 (ours)
  c.watchdog.join_s = 600.0  # in the start of a run of several processes, until all of them have come
  c.watchdog.heartbeat_s = 60.0  # without a sign of life of another process, which then counts as dead
  c.watchdog.restore_s = 3600.0  # in a restore; 0: off
  c.watchdog.compile_s = 3600.0  # from the end of the restore to the first step, mostly compilation; 0: off
  c.watchdog.save_s = 1800.0  # in a save, where it holds up the steps, and at the end; 0: off

  c.model = ConfigDict()
  c.model.family = "xlmr"  # the encoder: xlmr | bert | xlm; model/build.py has the families
  c.model.layers = 12
  c.model.hidden = 768
  c.model.heads = 12
  c.model.ffn = 3072
  c.model.max_positions = 514  # rows of the position table: seq_len + 2 (fairseq's padding offset); bert and xlm: seq_len
  c.model.vocabulary_size = 0  # entries, checked against the rows' vocabulary; 0: whatever the rows have
  c.model.dropout = 0.1  # on embeddings and sub-layer outputs (fairseq roberta)
  c.model.attention_dropout = 0.1  # on attention probabilities (fairseq roberta)
  c.model.dropout_bits = "hash"  # dropout's random bits: hash (equal on every mesh) | rbg (depend on the mesh) (ours)
  c.model.ops = "auto"  # auto | plain: no kernel at all, whatever the two keys below say
  c.model.attention = "auto"  # auto | xla | pallas (TPU, rows of up to 1,024) | splash (TPU) | cudnn (GPU)
  c.model.fuse = "auto"  # kernels for norms, dropout and GELU between the products: auto (on TPU) | on | off
  c.model.pre_norm = False  # True: norms before the sub-layers, as XLM-R XL
  c.model.token_types = 2  # family bert: rows of the table of token types
  c.model.pair_types = True  # family bert: a pair's second text is of type 1, as with BERT's vocabularies; False: all are 0
  c.model.language_embeddings = True  # family xlm: each token has an embedding of its language (XLM-15; XLM-100 has none)
  c.model.languages = ()  # family xlm: the names of those embeddings, in order; (): those of the rows, filled in by the run
  c.model.head = ""  # layers before the vocabulary product: dense (with GELU, norm) | linear (none; xlm); "": the family's
  c.model.isolate_documents = False  # True: documents in a row do not see each other, positions restart (ours)
  c.model.layer_norm_epsilon = 1e-5  # of every norm (fairseq); imported models bring their own
  c.model.init_std = 0.02  # of kernels and embeddings (fairseq); narrow models want more, 0.02 x sqrt(768 / hidden)
  c.model.dtype = "bfloat16"  # of activations and matrix products; parameters and sums are fp32
  c.model.remat = "none"  # what the backward pass computes again: none | ffn (its product) | dots (all but products) | full
  c.model.unroll_layers = False  # True: no scan over layers, if remat is none; faster, but slower to compile

  c.data = ConfigDict()
  c.data.rows = ""  # folder made by `xlmr build_rows`; "demo": the built-in corpus, made in the workdir
  c.data.languages = ()  # names; (): all languages of the rows
  c.data.row_shares = ""  # "0.1" or "0.5,sw=0.1": share of the training rows, of all languages or of one; "": all (ours)
  c.data.cache = ""  # folder of this machine that rows of a bucket are brought to; "": one of this user's
  c.data.verify = "once"  # when the rows' files are compared with their manifest: once (per machine) | always | off (ours)
  c.data.alpha = 0.3  # exponent of language sampling (paper, section 3.1)
  c.data.parallel_share = 0.5  # of the rows read, parallel sentences, if there are any (XLM: as many steps as others)
  c.data.mask_share = 0.15  # of a row's non-special tokens (fairseq multilingual_masked_lm)
  c.data.mask_unit = "piece"  # masked whole: piece | word (BERT's whole-word masking) | span of words (SpanBERT)
  c.data.mask_span_mean = 3.8  # words in a span, geometric and at most 10 (SpanBERT's p = 0.2)

  # PKB: the flags of roberta_mmlm in https://github.com/GoogleCloudPlatform/PerfKitBenchmarker, a launch script of this task
  # with XLM-R Large's budget. The paper itself gives no optimizer settings.
  c.optimizer = ConfigDict()
  c.optimizer.schedule = "polynomial"  # after the warm-up: polynomial | cosine | wsd, flat to decay_steps | inverse_sqrt
  c.optimizer.decay_steps = 0  # wsd: the last steps, in which the rate falls by 1 - sqrt; 0: none; -1: the last phase (ours)
  c.optimizer.peak_lr = 4e-4  # The paper gives none; PKB has 4e-4.
  c.optimizer.end_lr = 0.0
  c.optimizer.power = 1.0  # of the polynomial decay, fairseq's; 1: linear (PKB)
  c.optimizer.warmup_steps = 15_000  # PKB
  c.optimizer.b1 = 0.9  # PKB
  c.optimizer.b2 = 0.98  # PKB
  c.optimizer.eps = 1e-6  # PKB
  c.optimizer.weight_decay = 0.01  # decoupled (PKB)
  c.optimizer.decay_pattern = ".*"  # paths that decay: fairseq decays every parameter
  c.optimizer.clip_norm = 1.0  # global norm of the gradient (PKB); 0: off

  c.spikes = ConfigDict()  # steps that are skipped because their gradient is much longer than others (ours)
  c.spikes.factor = 0.0  # a norm above this many times the running mean of the steps made is a spike; 0: off
  c.spikes.mean_steps = 100  # steps made that the mean spans; before so many, nothing is a spike

  c.mesh = ConfigDict()
  c.mesh.data = -1  # devices that hold different rows and the same parameters; -1: all that fsdp leaves
  c.mesh.fsdp = 1  # devices that hold different rows and different parts of the parameters
  c.mesh.reduce_dtype = "float32"  # of gradients on the network, once a step: float32 | bfloat16

  c.checkpoint = ConfigDict()
  c.checkpoint.every_steps = 3000  # PKB
  c.checkpoint.keep = 3  # newest ones
  c.checkpoint.max_failed_saves = 3  # that fail in a row, as on a full disk, before a run of one process ends (ours)
  c.checkpoint.keep_every = 60_000  # steps that are a multiple stay for good; 0: none

  c.held_out = ConfigDict()
  c.held_out.every_steps = 5000  # held-out loss per language; 0: at the end only
  c.held_out.max_rows_per_language = 128  # 0: all

  c.evaluate = ConfigDict()  # by `xlmr evaluate`, a second process; all of it ours
  c.evaluate.tasks = ()  # names, e.g. ("xnli", "panx"); (): no evaluator is expected
  c.evaluate.modules = ()  # Python modules to import first; each may register tasks of its own, e.g. ("my.tasks",)
  c.evaluate.folder = ""  # root of the labelled data: a task's are in folder/NAME
  c.evaluate.data = ""  # "NAME=PATH,NAME=PATH": where single tasks' data are instead
  c.evaluate.every_steps = 0  # checkpoints at multiples, and the last, are evaluated; 0: every checkpoint
  c.evaluate.seeds = 1  # fine-tunings per task and checkpoint, each with its own seed
  c.evaluate.seed_list = ()  # the numbers of these seeds, e.g. ("3", "7"); (): 0 to seeds - 1
  c.evaluate.dtype = ""  # of activations and products in fine-tuning: bfloat16 | float32; "": as config.model.dtype
  c.evaluate.setting = "zero_shot"  # zero_shot | per_language | translate_train | translate_train_all | translate_test
  c.evaluate.languages = ()  # names; (): all languages of each task
  c.evaluate.recipe = ""  # "lr=1e-4,panx.epochs=3": changes to the recipes of all tasks, or of one
  c.evaluate.max_examples = 0  # of each evaluated split and language; 0: all
  c.evaluate.max_train_examples = 0  # of each language trained on; 0: all
  c.evaluate.keep_unevaluated = 5  # checkpoints that wait for the evaluator; beyond, the oldest is dropped unseen
  c.evaluate.wait_s = 30.0  # seconds between two looks for a new checkpoint

  c.stop = ConfigDict()  # when the training ends early (the rule is ours, the idea the paper's)
  c.stop.by = "score"  # what decides: score (tasks, by `xlmr evaluate`) | held_out (mean held-out loss, by the run, as XLM)
  c.stop.patience = 0  # evaluations without gain; 0: never stops
  c.stop.min_gain = 0.0  # score, or nats, absolute: a gain is more than this above the last one
  c.stop.min_steps = 0  # no stop before this step
  c.stop.on_nonfinite = "skip"  # an evaluation without a finite score: skip it | count it as no gain | stop the run
  c.stop.score = ""  # "TASK" or "TASK/LANGUAGE"; "": mean over tasks of the mean over languages of the first metric

  c.log = ConfigDict()
  c.log.every_steps = 100  # steps that a line of train.jsonl averages over
  c.log.tensorboard = True
  c.log.goodput_s = 5.0  # seconds between two writes of goodput.json; a kill loses the account of so many at most

  c.alarms = ConfigDict()  # lines in the log and in alarms.jsonl, once per cause; nothing else follows; 0: off (all ours)
  c.alarms.max_epochs = 100.0  # times that a language has been read
  c.alarms.held_out_rise = 0.01  # share by which a held-out loss lies above its lowest, twice in a row, while the mean fell
  c.alarms.share_drift = 0.05  # of the wanted share of a language, by which the rows read so far differ beyond chance
  c.alarms.spike_nats = 1.0  # by which a line's loss of a language lies above its running mean, and beyond its noise
  return c.lock()


def variant(c: ConfigDict, arg: str) -> ConfigDict:
  """`c` as the ARG of --config=FILE:ARG asks: comma-separated `runlocal` and KEY=VALUE pairs, applied from left to right.

  A comma inside brackets does not separate. Raises ValueError for a word that is neither, or a value of another type.
  """
  for item in split_arg(arg):
    key, equals, text = item.partition("=")
    if item == "runlocal":
      c = runlocal(c)
    elif equals:
      set_from_text(c, key.strip(), text.strip())
    else:
      raise ValueError(f"the config takes no argument {item!r}; it takes runlocal and KEY=VALUE, separated by commas")
  return c


def split_arg(text: str) -> list[str]:
  """The words of the ARG of --config=FILE:ARG: between its commas, but not those inside brackets."""
  items, depth = [""], 0
  for character in text:
    depth += (character in "([") - (character in ")]")
    if character == "," and depth == 0:
      items.append("")
    else:
      items[-1] += character
  return [item.strip() for item in items if item.strip()]


def parse_value(key: str, text: str, default: Any) -> Any:
  """A flag's text as the type of the key's default; split_names reads a tuple. ValueError if it is no such value."""
  if isinstance(default, str):
    return text
  try:
    if isinstance(default, bool):
      return {"true": True, "false": False}[text.lower()]
    return split_names(text) if isinstance(default, tuple) else type(default)(text)
  except (ValueError, KeyError, TypeError):
    raise ValueError(f"config.{key}={text}: not {type(default).__name__}") from None


def split_names(text: str) -> tuple[str, ...]:
  """The names of a list, however it is written: a,b or "a, b" or "a b" or "('a', 'b')" or "[a,b]"."""
  return tuple(re.findall(r"[^\s,()\[\]'\"]+", text))


def set_from_text(c: ConfigDict, key: str, text: str) -> None:
  """Sets the dotted key of c from a flag's text. ValueError: no such key, or a value of another type."""
  known = flatten(c.to_dict())
  if key not in known:
    raise ValueError(f"config.{key}={text}: there is no such key; xlmr_jax/config.py has them all")
  c.update_from_flattened_dict({key: parse_value(key, text, known[key])})


LOCAL_STEPS = 20  # of runlocal()


def runlocal(c: ConfigDict) -> ConfigDict:
  """The same path as `c`, under a minute on a laptop: the built-in corpus, a narrow model, 20 steps."""
  c.model.update(layers=2, hidden=64, heads=2, ffn=128, vocabulary_size=0, dtype="float32")  # faster on a CPU
  c.model.update(languages=(), pair_types=c.model.pair_types and c.model.family != "bert")  # The demo has no WordPiece.
  c.data.update(rows="demo", languages=())
  c.phases = _local_phases(c.phases, c.train_steps)
  c.update(train_steps=LOCAL_STEPS, batch_rows=16, micro_batches=min(c.micro_batches, 2), rows_per_device=0)
  c.optimizer.update(warmup_steps=5, decay_steps=min(c.optimizer.decay_steps, 5))
  c.mesh.update(data=-1, fsdp=1)
  c.checkpoint.update(every_steps=10, keep_every=0)
  c.held_out.update(every_steps=10, max_rows_per_language=4)
  c.evaluate.tasks = ()
  c.stop.score = ""
  c.log.every_steps = 5
  return c


def _local_phases(phases: tuple[str, ...], train_steps: int) -> tuple[str, ...]:
  """The phases with each end as a share of the steps, and without what only fits the rows of the config."""
  text = re.sub(r"\b(languages|seq_len|batch_rows)=[^,;\s]+[,\s]*", "", " ".join(map(str, phases)))
  ends, before = [], 0
  found = re.findall(r"\buntil=(?:([\d.]+)(%?)|\w+)", text)
  for number, (value, is_share) in enumerate(found, 1):
    if value:  # Each phase gets a step of its own of the few that there are; the last one may end at "end".
      wanted = round(LOCAL_STEPS * float(value) / (100 if is_share else train_steps))
      before = max(before + 1, min(wanted, LOCAL_STEPS - len(found) + number))
      ends.append(f"until={100 * before / LOCAL_STEPS:g}%")
  left = iter(ends)
  return split_names(re.sub(r"\buntil=[\d.]+%?", lambda _: next(left), text))


def with_defaults(config: Any, defaults: dict | None = None, name: str = "config") -> dict:
  """A stored config with today's default for each key that did not exist when its run began.

  Raises ValueError naming a value of another type than its default's.
  """
  defaults = default_config().to_dict() if defaults is None else defaults
  if not isinstance(config, dict):
    raise ValueError(f"{name}={str(config)[:40]!r}: not a section with keys")
  full = dict(config)
  for key, value in config.items():  # Keys of another version stay, but each must be a name.
    if not key.isidentifier():
      raise ValueError(f"{name} has a key {key[:40]!r}, which is no name")
    if isinstance(value, dict) and key not in defaults:
      with_defaults(value, {}, f"{name}.{key}")
  for key, default in defaults.items():
    value = config.get(key, default)
    if isinstance(default, dict):
      full[key] = with_defaults(config.get(key, {}), default, f"{name}.{key}")
      continue
    types = (list, tuple) if isinstance(default, tuple) else (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, types) or (isinstance(value, bool) and not isinstance(default, bool)):
      raise ValueError(f"{name}.{key}={str(value)[:40]!r}: not {type(default).__name__}")
    full[key] = value
  return full


def parse_row_shares(text: str) -> dict[str, float]:
  """{language: share}, and {"": share} of all others, of config.data.row_shares. ValueError: a part is none."""
  shares: dict[str, float] = {}
  for part in filter(None, map(str.strip, text.split(","))):
    language, _, share = part.rpartition("=")
    try:
      value = float(share)
    except ValueError:
      value = 0.0
    if not 0.0 < value <= 1.0 or language in shares:
      raise ValueError(f"{part!r} is no SHARE or LANGUAGE=SHARE, above 0 and at most 1, each once")
    shares[language] = value
  return shares


def is_below(key: str, names: tuple[str, ...]) -> bool:
  """Whether a dotted key is one of names or lies below one."""
  return any(key == name or key.startswith(f"{name}.") for name in names)
