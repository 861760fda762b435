import pytest

from tests.support.running_service import Running


@pytest.fixture(scope="session")
def running(bundle):
    """A service of two tiers, `large` and `small`, without keys or a journal."""
    with Running(bundle) as found:
        yield found
