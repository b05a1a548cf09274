"""Hugging Face's files: tensors, configuration, tokenizer, model card. The commands are convert.py and fill_mask.py."""
