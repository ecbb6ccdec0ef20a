"""Block, allow and review lists: how values are matched, who changed what, and files of them."""

from fraud.lists.entries import add_to_list, change_entry, check_future, end_entry, renew_entry
from fraud.lists.matching import card_values, find_matches, fold_hits, order_values, record_hits
from fraud.lists.values import domain_of, mask_email, normalise, possible_hashes

__all__ = [
    "add_to_list",
    "card_values",
    "change_entry",
    "check_future",
    "domain_of",
    "end_entry",
    "find_matches",
    "fold_hits",
    "mask_email",
    "normalise",
    "order_values",
    "possible_hashes",
    "record_hits",
    "renew_entry",
]
