"""Kernels that replace the plain operations where ops.choose_ops() says so. None of ours has run on a TPU yet."""
