"""Scores besides our own rules: a provider outside, and the shop's own model. They are facts; rules may read them."""
