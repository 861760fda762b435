import pytest

from limbeck.data.packs.stored_facts import make_facts
from limbeck.serving.facts import make_store
from tests.support.medical_pack import medical_pack


@pytest.fixture(scope="session")
def medical():
    return medical_pack()


@pytest.fixture(scope="session")
def facts_file(medical):
    return make_facts(medical)


@pytest.fixture(scope="session")
def store(facts_file):
    return make_store(facts_file)
