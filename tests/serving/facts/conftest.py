import pytest

from limbeck.data.packs.load import load_pack
from limbeck.data.packs.stored_facts import make_facts
from limbeck.serving.facts import make_store


@pytest.fixture(scope="session")
def medical():
    return load_pack("medical")


@pytest.fixture(scope="session")
def facts_file(medical):
    return make_facts(medical)


@pytest.fixture(scope="session")
def store(facts_file):
    return make_store(facts_file)
