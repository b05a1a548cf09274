"""XLM-R pretraining in JAX: from web text in 100 languages to a multilingual masked language model."""

__version__ = "0.2.0"
