"""Predict whether a task-arithmetic merge will work, and measure why.

The names in ``__init__.pyi`` are the whole public interface. Each is imported when it is first asked for, as PyTorch
and SciPy take seconds that ``diagnostics --help`` and a use of one measure need not wait for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
