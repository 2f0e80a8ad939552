"""Choose the backend of a search: plain torch, or its compiled form for the CPU or CUDA.

Compiled backends are imported when they are chosen, since numba alone takes half a second. CUDA
kernels run only after they have grown the same trees as plain torch on a small fixed problem
(`search.backends.verification`).
"""

import importlib.util
from functools import cache, partial
from typing import Literal, TypeAlias

import torch

from search.backends.rules import Rules, encode_rules
from search.backends.verification import FormCheck, Search, SearchMaker, Selections, name_variant
from search.model import RootOutput
from search.tree import tree_dtype

Backend: TypeAlias = Literal["auto", "torch", "numba", "triton"]
"""What runs the search: plain torch, a compiled form for the CPU or CUDA, or the best there is."""


def choose_search(
    backend: Backend,
    root: RootOutput,
    selections: Selections,
    *,
    plain: SearchMaker,
) -> tuple[str, Search]:
    """The name of the backend to run, and its search by these rules.

    Args:
        backend: The user's choice; "auto" takes a compiled form where there is one.
        root: Its device and dtype decide.
        selections: The rules.
        plain: Makes the search in plain torch.

    Raises:
        ValueError: If a backend was chosen that cannot run these rules on this device.
    """
    rules = encode_rules(*selections)
    name = _choose_name(backend, root, rules)
    if name == "triton":
        assert rules is not None
        name = _check_triton(backend, root, rules, plain)
    if name == "torch" or rules is None:
        return "torch", plain(selections)
    return name, _compiled(name, rules)


def _compiled(name: str, rules: Rules) -> Search:
    if name == "numba":
        from search.backends.numba_search import search_on_cpu

        return partial(search_on_cpu, rules=rules)
    from search.backends.triton_search import search_on_cuda

    return partial(search_on_cuda, rules=rules)


def _compiled_triton(selections: Selections) -> Search:
    rules = encode_rules(*selections)
    assert rules is not None
    return _compiled("triton", rules)


def _choose_name(backend: Backend, root: RootOutput, rules: Rules | None) -> str:
    """The backend: "torch", "numba" or "triton".

    Raises:
        ValueError: If a backend was chosen that cannot run these rules on this device.
    """
    if backend == "torch":
        return "torch"
    devices = {root.value.device.type, *(leaf.device.type for leaf in root.embedding.values())}
    fitting = {"cpu": "numba", "cuda": "triton"}.get(devices.pop()) if len(devices) == 1 else None
    if backend == "auto":
        return fitting if fitting and rules is not None and _is_installed(fitting) else "torch"
    problem = (
        "rules without a compiled form (a custom selection or Q-transform)"
        if rules is None
        else f"a model on {root.value.device}"
        if fitting != backend
        else f"no package {backend!r}"
        if not _is_installed(backend)
        else None
    )
    if problem is not None:
        raise ValueError(
            f"backend: found {backend!r} with {problem}; required: rules of search.selection and "
            "search.qtransforms, the CPU with numba or CUDA with triton. Take backend='auto'."
        )
    return backend


@cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


_triton_check = FormCheck()


def _check_triton(backend: Backend, root: RootOutput, rules: Rules, plain: SearchMaker) -> str:
    """Returns "triton", or "torch" where the kernels do not agree with plain torch on this device.

    Raises:
        ValueError: If triton was chosen by name and does not agree.
    """
    if root.value.is_cuda and torch.cuda.is_current_stream_capturing():
        return "triton"  # nothing can be compared in a capture; the run before it was
    variant = name_variant(
        rules, root.prior_logits.shape[1], like=root.value, dtype=tree_dtype(root)
    )

    problem = _triton_check.find_problem(variant, _compiled_triton, plain)
    if problem is not None and backend == "triton":
        raise ValueError(
            f"backend: found 'triton', which does not grow the trees of plain torch on "
            f"{root.value.device} ({problem}); required a form that does. Take backend='auto' or "
            "'torch'."
        )
    return "triton" if problem is None else "torch"
