import pytest

from limbeck.serving.safety import compile_rules
from tests.support.medical_pack import medical_pack


@pytest.fixture(scope="session")
def medical_safety():
    return medical_pack().safety


@pytest.fixture(scope="session")
def rules(medical_safety):
    return compile_rules(medical_safety)
