"""Runs a schedule on a diffusers pipeline: overrides methods of its modules, and restores them."""
