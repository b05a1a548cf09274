"""Sweeps: one config changed in many ways. Its runs and their names, its folder, its rows, and what is run next."""
