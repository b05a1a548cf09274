"""Makes bert_tiny.npz: a small BERT in transformers (PyTorch), its masked loss, logits and gradients, fp32.

  python tests/reference/make_bert_reference.py     needs torch and transformers; the tests need neither

The special pieces lie where multilingual BERT has them in kind: [PAD] first, the others in the middle. The batch has a full
row, a padded one, and a padded pair with the token types 0 and 1.
"""

from pathlib import Path

import numpy as np

VOCABULARY, LAYERS, HIDDEN, HEADS, FFN, SEQ = 99, 2, 24, 2, 48, 20
SPECIALS = (11, 0, 12, 10)  # [CLS], [PAD], [SEP], [UNK]
MASK = 13


def config():
  """transformers' config; its keys are those of config.json."""
  from transformers import BertConfig

  return BertConfig(
    vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=FFN,
    max_position_embeddings=SEQ, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
  )  # fmt: skip


def make_model(seed: int = 0, kind: str = "BertForMaskedLM", **changes):
  """A model of transformers with every parameter random, also those initialised to 0 and 1."""
  import torch
  import transformers

  torch.manual_seed(seed)
  settings = config()
  for key, value in changes.items():
    setattr(settings, key, value)
  model = getattr(transformers, kind)(settings)
  with torch.no_grad():
    for p in model.parameters():
      p.add_(torch.randn_like(p) * 0.1)
  return model.eval()


def make_batch(seed: int = 1):
  """ids and types int32[3, SEQ] as the file has them, and the slots to predict."""
  cls, pad, sep, _ = SPECIALS
  rng = np.random.default_rng(seed)
  ids = rng.integers(MASK + 1, VOCABULARY, (3, SEQ)).astype(np.int32)
  types = np.zeros_like(ids)
  ids[:, 0] = cls
  for row, length in enumerate((SEQ, 13, 17)):
    ids[row, length - 1] = sep
    ids[row, length:] = pad
  ids[2, 7] = sep
  types[2, 8:17] = 1
  ids[0, 5] = 2  # an entry that changes places with a special piece
  positions = np.array([[3, 7, 12, 18], [1, 5, 11, 0], [2, 4, 12, 14]], np.int32)
  weights = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]], np.float32)
  labels = np.where(weights > 0, np.take_along_axis(ids, positions, 1), pad).astype(np.int32)
  for row in range(3):
    ids[row, positions[row, :3]] = MASK
  return {"ids": ids, "types": types, "positions": positions, "labels": labels, "weights": weights}


def run(model, batch):
  """(state dict, logits, loss, gradients) as NumPy arrays."""
  import torch

  ids, types = (torch.tensor(batch[name], dtype=torch.long) for name in ("ids", "types"))
  labels = np.full(ids.shape, -100)
  for row in range(ids.shape[0]):
    for slot, weight in enumerate(batch["weights"][row]):
      if weight:
        labels[row, batch["positions"][row, slot]] = batch["labels"][row, slot]
  model.zero_grad()
  out = model(input_ids=ids, token_type_ids=types, attention_mask=(ids != 0).long(), labels=torch.tensor(labels))
  out.loss.backward()
  tied = {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
          "cls.predictions.decoder.bias": "cls.predictions.bias"}  # fmt: skip
  parameters = {tied.get(name, name): p for name, p in model.named_parameters()}
  gradients = {name: p.grad.numpy() for name, p in parameters.items() if p.grad is not None}
  weights = {name: p.detach().numpy() for name, p in parameters.items()}
  return weights, out.logits.detach().numpy(), out.loss.item(), gradients


if __name__ == "__main__":
  batch = make_batch()
  weights, logits, loss, gradients = run(make_model(), batch)
  np.savez_compressed(
    Path(__file__).with_name("bert_tiny.npz"),
    logits=logits,
    loss=loss,
    **{f"w:{k}": v for k, v in weights.items()},
    **{f"g:{k}": v for k, v in gradients.items()},
  )
