"""MuZero-style agents for Atari and Gymnasium environments."""

import lazy_loader

# Names and where they are defined: `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
