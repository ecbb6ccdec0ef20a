"""The running shop of the stories."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.journeys.shop import Shop, open_shop


@pytest.fixture(scope="session")
def shop(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop("journeys", tmp_path_factory.mktemp("journeys")) as running:
        yield running
