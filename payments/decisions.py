"""The words that screening and the sagas share: what may be decided of an order, and when."""

from __future__ import annotations

from enum import StrEnum


class Decision(StrEnum):
    """What to do with an order, from the mildest to the hardest."""

    APPROVE = "approve"
    CHALLENGE = "challenge"  # ask for 3-D Secure
    REVIEW = "review"  # authorize, hold the capture, ask a person
    BLOCK = "block"


class Stage(StrEnum):
    """Screening happens twice."""

    BEFORE_AUTHORIZATION = "before"  # lists, velocity, country, amount
    AFTER_AUTHORIZATION = "after"  # what the issuer said: AVS, CVC, risk score
