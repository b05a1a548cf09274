"""Makes hf_tiny.npz: a small XLM-R in transformers (PyTorch), its masked loss, logits and gradients, fp32.

  python tests/reference/make_hf_reference.py     needs torch and transformers; the tests need neither

The batch has two padded rows and one row of two documents, which is read as one sequence, as fairseq does.
"""

from pathlib import Path

import numpy as np

VOCABULARY, LAYERS, HIDDEN, HEADS, FFN, SEQ = 99, 2, 24, 2, 48, 20


def make_model(seed: int = 0):
  """transformers' XLMRobertaForMaskedLM with every parameter random, also those initialised to 0 and 1."""
  import torch
  from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

  torch.manual_seed(seed)
  model = XLMRobertaForMaskedLM(
    XLMRobertaConfig(
      vocab_size=VOCABULARY,
      hidden_size=HIDDEN,
      num_hidden_layers=LAYERS,
      num_attention_heads=HEADS,
      intermediate_size=FFN,
      max_position_embeddings=SEQ + 2,
      type_vocab_size=1,
      layer_norm_eps=1e-5,
      hidden_dropout_prob=0.0,
      attention_probs_dropout_prob=0.0,
      pad_token_id=1,
      bos_token_id=0,
      eos_token_id=2,
    )
  )
  with torch.no_grad():
    for p in model.parameters():
      p.add_(torch.randn_like(p) * 0.1)
    model.roberta.embeddings.token_type_embeddings.weight.zero_()
  return model.eval()


def make_batch(seed: int = 1):
  """ids int32[3, SEQ] with pads and a two-document row, and the slots to predict."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(4, VOCABULARY - 1, (3, SEQ)).astype(np.int32)
  ids[:, 0] = 0
  for row, length in enumerate((SEQ, 13, 17)):
    ids[row, length - 1] = 2
    ids[row, length:] = 1
  ids[2, 8], ids[2, 9] = 2, 0  # the third row: <s> 7 pieces </s> <s> 6 pieces </s>
  positions = np.array([[3, 7, 12, 18], [1, 5, 11, 0], [2, 4, 12, 14]], np.int32)
  weights = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]], np.float32)
  labels = np.where(weights > 0, np.take_along_axis(ids, positions, 1), 1).astype(np.int32)
  for row in range(3):
    for slot in range(3):
      ids[row, positions[row, slot]] = VOCABULARY - 1
  return {"ids": ids, "positions": positions, "labels": labels, "weights": weights}


def run(model, batch):
  """(state dict, logits, loss, gradients) as NumPy arrays."""
  import torch

  ids = torch.tensor(batch["ids"], dtype=torch.long)
  labels = np.full(ids.shape, -100)
  for row in range(ids.shape[0]):
    for slot, weight in enumerate(batch["weights"][row]):
      if weight:
        labels[row, batch["positions"][row, slot]] = batch["labels"][row, slot]
  model.zero_grad()
  out = model(input_ids=ids, attention_mask=(ids != 1).long(), labels=torch.tensor(labels))
  out.loss.backward()
  tied = {"lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight"}  # one parameter, either name
  parameters = {tied.get(name, name): p for name, p in model.named_parameters()}
  gradients = {name: p.grad.numpy() for name, p in parameters.items()}
  weights = {name: p.detach().numpy() for name, p in parameters.items()}
  return weights, out.logits.detach().numpy(), out.loss.item(), gradients


if __name__ == "__main__":
  batch = make_batch()
  weights, logits, loss, gradients = run(make_model(), batch)
  np.savez_compressed(
    Path(__file__).with_name("hf_tiny.npz"),
    logits=logits,
    loss=loss,
    **{f"w:{k}": v for k, v in weights.items()},
    **{f"g:{k}": v for k, v in gradients.items()},
  )
