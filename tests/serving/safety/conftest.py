import pytest

from limbeck.data.packs.load import load_pack
from limbeck.serving.safety import compile_rules


@pytest.fixture(scope="session")
def medical_safety():
    return load_pack("medical").safety


@pytest.fixture(scope="session")
def rules(medical_safety):
    return compile_rules(medical_safety)
