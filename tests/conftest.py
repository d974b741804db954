"""Settings that hold for every test."""

import torch
from hypothesis import settings

# No test asserts on time, and a run must be repeatable.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")
# The tests run in parallel processes, one thread each.
torch.set_num_threads(1)
