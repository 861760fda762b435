import pytest

from limbeck.data.packs.stored_facts import make_facts
from limbeck.serving.facts import make_store


@pytest.fixture(scope="session")
def facts_file(pack):
    return make_facts(pack)


@pytest.fixture(scope="session")
def store(facts_file):
    return make_store(facts_file)
