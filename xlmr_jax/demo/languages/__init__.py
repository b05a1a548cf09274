"""One file of data per language: word forms, sentence patterns, questions (read by demo/lexicon.py)."""
