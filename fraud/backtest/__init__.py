"""Back-tests: what a rule set would have decided of the orders that were screened."""
