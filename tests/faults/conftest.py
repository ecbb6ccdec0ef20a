"""The running shop that things are done to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.journeys.shop import Shop, open_shop


@pytest.fixture(scope="session")
def shop(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop("faults", tmp_path_factory.mktemp("faults")) as running:
        yield running
