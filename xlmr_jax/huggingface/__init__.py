"""Hugging Face's files, in both directions: tensors, configuration and tokenizer. The card is report/model_card.py's."""
