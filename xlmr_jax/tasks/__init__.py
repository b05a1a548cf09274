"""Labelled tasks: what they are, how they are read, fine-tuned and scored."""
