"""Every key a run has, with its unit and, for XLM-R's own numbers, where they come from (the paper or its code).

The other files here start from get_config() and change what they must; `--config.KEY=VALUE` changes one for one run.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """XLM-R's recipe without a size. Locked: a misspelt key is an error."""
  c = ConfigDict()
  c.seed = 0
  c.train_steps = 1_500_000  # updates (paper, section 5.2, for the Large model)
  c.batch_rows = 8192  # rows of all hosts and micro-batches together (paper, section 5.2)
  c.micro_batches = 1  # gradient accumulation: parts that a batch is computed in; the result does not depend on it
  c.rows_per_device = 0  # rows of a micro-batch on a device, above 0: micro_batches follows from it and the devices (ours)
  c.max_bad_steps = 20  # steps in a row with a non-finite loss or gradient before the run ends (ours)
  c.compile_cache = ""  # folder of compiled programs; "": ~/.cache/xlmr_jax, for several processes in the workdir; off
  c.compiler_options = ""  # NAME=VALUE,NAME=VALUE: XLA's options for the train step, besides train.TUNING's
  c.watchdog_s = 1800.0  # seconds without a step before a hung process ends itself with exit 42; 0: off (ours)

  c.model = ConfigDict()
  c.model.layers = 12
  c.model.hidden = 768
  c.model.heads = 12
  c.model.ffn = 3072
  c.model.max_positions = 514  # rows of the position table: seq_len + 2 (fairseq's padding offset)
  c.model.vocabulary_size = 0  # entries, checked against the rows' vocabulary; 0: whatever the rows have
  c.model.dropout = 0.1  # on embeddings and sub-layer outputs (fairseq roberta)
  c.model.attention_dropout = 0.1  # on attention probabilities (fairseq roberta)
  c.model.dropout_bits = "hash"  # of dropout's masks: hash (the same on any mesh) | rbg (not) (ours)
  c.model.attention = "auto"  # auto | xla | pallas (TPU, rows of up to 1,024) | splash (TPU) | cudnn (GPU)
  c.model.fuse = "auto"  # kernels for norms, dropout and GELU between the products: auto (on TPU) | on | off
  c.model.pre_norm = False  # True: norms before the sub-layers, as XLM-R XL
  c.model.isolate_documents = False  # True: documents in a row do not see each other, positions restart (ours)
  c.model.init_std = 0.02  # of kernels and embeddings (fairseq); narrow models want more, 0.02 x sqrt(768 / hidden)
  c.model.dtype = "bfloat16"  # of activations and matrix products; parameters and sums are fp32
  c.model.remat = "none"  # activations kept for the backward pass: none recomputed | ffn | dots kept | full recompute
  c.model.unroll_layers = False  # True: no scan over layers; faster on CPUs, slower to compile

  c.data = ConfigDict()
  c.data.rows = ""  # folder made by xlmr_jax.corpus.build; "demo": the built-in corpus, made in the workdir
  c.data.languages = ()  # names; (): all languages of the rows
  c.data.alpha = 0.3  # exponent of language sampling (paper, section 3.1)
  c.data.mask_share = 0.15  # of a row's non-special tokens (fairseq multilingual_masked_lm)

  c.optimizer = ConfigDict()
  c.optimizer.peak_lr = 4e-4  # not in the paper; two published launch scripts of this task (published launch scripts)
  c.optimizer.end_lr = 0.0
  c.optimizer.power = 1.0  # of the polynomial decay; 1: linear (published launch scripts)
  c.optimizer.warmup_steps = 15_000  # published launch scripts
  c.optimizer.b1 = 0.9  # published launch scripts
  c.optimizer.b2 = 0.98  # published launch scripts
  c.optimizer.eps = 1e-6  # published launch scripts
  c.optimizer.weight_decay = 0.01  # decoupled (published launch scripts)
  c.optimizer.decay_pattern = ".*"  # paths that decay: fairseq decays every parameter
  c.optimizer.clip_norm = 1.0  # global norm of the gradient (published launch scripts); 0: off

  c.mesh = ConfigDict()
  c.mesh.data = -1  # devices that hold different rows and the same parameters; -1: all that fsdp leaves
  c.mesh.fsdp = 1  # devices that hold different rows and different parts of the parameters
  c.mesh.reduce_dtype = "float32"  # of gradients on the network, once a step: float32 | bfloat16

  c.checkpoint = ConfigDict()
  c.checkpoint.every_steps = 3000  # published launch scripts
  c.checkpoint.keep = 3  # newest ones
  c.checkpoint.keep_every = 50_000  # steps that are a multiple stay for good; 0: none

  c.held_out = ConfigDict()
  c.held_out.every_steps = 5000  # held-out loss per language; 0: at the end only
  c.held_out.max_rows_per_language = 128  # 0: all

  c.evaluate = ConfigDict()  # by xlmr_jax.evaluate, a second process; all of it ours
  c.evaluate.tasks = ()  # names, e.g. ("xnli", "panx"); (): no evaluator is expected
  c.evaluate.folder = ""  # root of the labelled data: a task's are in folder/NAME
  c.evaluate.data = ""  # "NAME=PATH,NAME=PATH": where single tasks' data are instead
  c.evaluate.every_steps = 0  # checkpoints at multiples, and the last, are evaluated; 0: every checkpoint
  c.evaluate.seeds = 1  # fine-tunings a task and checkpoint, each with its own seed
  c.evaluate.setting = "zero_shot"  # zero_shot | per_language | translate_train | translate_train_all | translate_test
  c.evaluate.languages = ()  # names; (): all languages of each task
  c.evaluate.recipe = ""  # "lr=1e-4,panx.epochs=3": changes to the recipes of all tasks, or of one
  c.evaluate.max_examples = 0  # of each evaluated split and language; 0: all
  c.evaluate.max_train_examples = 0  # of each language trained on; 0: all
  c.evaluate.keep_unevaluated = 5  # checkpoints that wait for the evaluator; beyond, the oldest is dropped unseen
  c.evaluate.wait_s = 30.0  # seconds between two looks for a new checkpoint

  c.stop = ConfigDict()  # when xlmr_jax.evaluate ends the training (the rule is ours, the idea the paper's)
  c.stop.patience = 0  # evaluations without gain; 0: never stops
  c.stop.min_gain = 0.0  # score, absolute: a gain is more than this above the last one
  c.stop.min_steps = 0  # no stop before this step
  c.stop.on_nonfinite = "skip"  # an evaluation without a finite score is: skip ignored | count no gain | stop the end
  c.stop.score = ""  # "TASK" or "TASK/LANGUAGE"; "": mean over tasks of the mean over languages of the first metric

  c.log = ConfigDict()
  c.log.every_steps = 100  # steps that a line of train.jsonl averages over
  c.log.tensorboard = True
  return c.lock()


def variant(c: ConfigDict, arg: str) -> ConfigDict:
  """`c` itself for "", runlocal(c) for "runlocal"; any other argument is an error."""
  if arg not in ("", "runlocal"):
    raise ValueError(f"the config takes no argument {arg!r}; it takes runlocal, or none")
  return runlocal(c) if arg else c


def runlocal(c: ConfigDict) -> ConfigDict:
  """The same path as `c`, under a minute on a laptop: the built-in corpus, a narrow model, 20 steps."""
  c.model.update(layers=2, hidden=64, heads=2, ffn=128, vocabulary_size=0)
  c.data.update(rows="demo", languages=())
  c.update(train_steps=20, batch_rows=16, micro_batches=min(c.micro_batches, 2), rows_per_device=0)
  c.optimizer.warmup_steps = 5
  c.mesh.update(data=-1, fsdp=1)
  c.checkpoint.update(every_steps=10, keep_every=0)
  c.held_out.update(every_steps=10, max_rows_per_language=4)
  c.evaluate.tasks = ()
  c.stop.score = ""
  c.log.every_steps = 5
  return c
