"""Settings that hold for every test."""

import pytest
import torch
from hypothesis import settings

from diagnostics.theory.derivations import registry

# No test asserts on time, and a run must be repeatable.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")
# The tests run in parallel processes, one thread each.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _registry_as_it_was():
    """Derivations that a test or a page of the documentation adds are gone after it."""
    before = dict(registry._added)
    yield
    registry._added.clear()
    registry._added.update(before)
