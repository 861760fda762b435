import pytest

from limbeck.serving.safety import compile_rules


@pytest.fixture(scope="session")
def medical_safety(pack):
    return pack.safety


@pytest.fixture(scope="session")
def rules(medical_safety):
    return compile_rules(medical_safety)
