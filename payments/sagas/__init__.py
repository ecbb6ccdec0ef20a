"""Durable sagas: an engine that remembers, and recipes that read as a list of steps."""
