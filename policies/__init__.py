"""Policies over text: what they propose, how a search plans with them, how they learn from it."""

import lazy_loader

# Names and where they are defined: `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
