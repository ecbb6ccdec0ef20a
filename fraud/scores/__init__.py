"""Scores besides our own rules, of a provider outside and of the shop's own model: facts that rules may read."""
