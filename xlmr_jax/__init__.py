"""XLM-R pretraining in JAX: web text in 100 languages to a multilingual masked language model."""
