"""Models of tiers by name: folders stay, names of the registry are followed, damage is found."""

import pytest

from limbeck.cli.model_source import TierModels
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.pointers import point
from limbeck.pipeline.model_registry import ModelRegistry
from limbeck.pipeline.store import Store
from limbeck.serving.config import CanaryConfig, TierConfig
from tests.support.artifacts import put_in_store

TRIAGE = TierConfig(name="small", model="triage")


@pytest.fixture
def store(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights").write_text("1 2 3")
    return Store(tmp_path / "runs")


@pytest.fixture
def make(store, tmp_path):
    return lambda name: put_in_store(tmp_path / "made", store, name=name)


@pytest.fixture
def source(store, tmp_path):
    return TierModels(root=tmp_path / "runs" / "mine", runs=store.runs)


def keys(source, tier=TRIAGE):
    found = source.find(tier)
    return found.champion.key, found.candidate and found.candidate.key


def test_a_name_is_followed(store, make, source):
    (old, old_key), (new, new_key) = make("old"), make("new")
    registry = ModelRegistry(store)
    registry.promote("triage", old)
    assert keys(source) == (old_key, None)
    first = source.find(TRIAGE)
    assert source.find(TRIAGE) is first  # nothing is read again while nothing changes
    registry.promote("triage", new, role="candidate")
    assert keys(source) == (old_key, new_key)
    registry.promote("triage", new)
    assert keys(source) == (new_key, None)
    registry.rollback("triage")
    assert keys(source) == (old_key, None)
    assert source.find(TRIAGE).champion == first.champion
    assert source.find(TRIAGE).version != first.version


def test_a_folder_stays_what_it_was(make, source, tmp_path):
    (old, old_key), (new, _) = make("old"), make("new")
    name = tmp_path / "runs" / "mine" / "bundle"
    name.parent.mkdir()
    point(name, at=old)
    tier = TierConfig(name="small", model="bundle")
    assert keys(source, tier) == (old_key, None)
    point(name, at=new)
    assert keys(source, tier) == (old_key, None)
    with pytest.raises(ArtifactError, match="need a served name"):
        source.find(tier.replace(name="other", canary=CanaryConfig(share=0.1)))


def test_damage_is_found_before_a_model_is_opened(store, make, source):
    (old, _), (new, _) = make("old"), make("new")
    registry = ModelRegistry(store)
    registry.promote("triage", old)
    registry.promote("triage", new)
    champion = source.find(TRIAGE).champion
    source.verify(champion)
    (new / "weights").write_text("3 2 1!")
    with pytest.raises(ArtifactError, match=r"damaged \(weights\)"):
        source.verify(champion)
    (new / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="damaged"):
        source.verify(champion)


def test_nothing_of_that_name_is_an_error_that_names_where_it_was_sought(source):
    with pytest.raises(ArtifactError, match="served name in"):
        source.find(TRIAGE)
