"""The planning core: one model contract, one tree, interchangeable planners."""

import lazy_loader  # pyright: ignore[reportMissingTypeStubs]

# Names and where they are defined: `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(  # pyright: ignore
    __name__, __file__
)
