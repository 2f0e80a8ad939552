"""The files of this repository that a program may run: itself and, transitively, all it imports.

Imports are read from the syntax tree, those inside functions too; nothing is run. A package's
`__init__.py` that only re-exports is looked through: `from search import Planner` leads to the file
that defines `Planner`, not to everything that the package names. One that does more than that is a
source like any other file. A registry's "package.module:Name" counts as imported, but for the table
of commands. What is imported by a computed name is not seen and has to be a root.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

FIRST_PARTY = ("atari_bridge", "benchmarks", "policies", "prefsearch", "rewardmodel", "search")
_ALL = "*"  # the whole of a module, as `import package` gives it


def import_closure(
    roots: Sequence[str], repository: Path, *, left_out: Sequence[str] = ()
) -> list[Path]:
    """The files behind modules, in the order of their paths.

    Args:
        roots: Modules by name, such as `benchmarks.atari.cartpole`.
        repository: The folder that the packages lie in.
        left_out: Patterns of paths in it that are neither returned nor followed.

    Raises:
        ValueError: If a root or an import of a first-party package leads to no file.
    """
    skipped = {path for pattern in left_out for path in repository.glob(pattern)}
    found: set[Path] = set()
    followed: set[tuple[str, str]] = set()
    waiting = [("the roots", name, _ALL) for name in roots]
    while waiting:
        importer, module, name = waiting.pop()
        if (module, name) in followed:
            continue
        followed.add((module, name))
        for path in _files(repository, module, name, importer, followed):
            if path not in found and path not in skipped:
                found.add(path)
                place = path.relative_to(repository).as_posix()
                waiting += [(place, *one) for one in _imports(path.read_bytes(), place)]
    return sorted(found)


def _files(
    repository: Path, module: str, name: str, importer: str, followed: set[tuple[str, str]]
) -> Iterator[Path]:
    """The files that `from module import name` takes something from.

    Raises:
        ValueError: If there is none.
    """
    folder = repository.joinpath(*module.split("."))
    for parent in _packages_above(repository, module):
        if not _only_exports(parent.read_bytes()):
            yield parent
    if folder.with_suffix(".py").is_file():
        yield folder.with_suffix(".py")
        return
    package = folder / "__init__.py"
    if name == _ALL:
        if package.is_file():
            yield package
            return
    else:
        stub = package.with_suffix(".pyi")  # what a lazy package exports
        listed = stub if stub.is_file() else package
        content = listed.read_bytes() if listed.is_file() else b""
        for where, what, known_as in _exports(content, module):
            if known_as == name:
                if (where, what) not in followed:
                    followed.add((where, what))
                    yield from _files(repository, where, what, module, followed)
                return
        if (folder / f"{name}.py").is_file() or (folder / name).is_dir():
            yield from _files(repository, f"{module}.{name}", _ALL, importer, followed)
            return
        if package.is_file():
            yield package  # defined in the package itself
            return
    raise ValueError(
        f"{importer} imports {module!r}, which leads to no file of {repository.name}; required: a "
        "module or package. Mend the import, or the roots in SOURCES of provenance.py"
    )


def _packages_above(repository: Path, module: str) -> Iterator[Path]:
    """The `__init__.py` of the packages that a module lies in, and its own."""
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        path = repository.joinpath(*parts[:length], "__init__.py")
        if path.is_file():
            yield path


@lru_cache(maxsize=2048)
def _imports(content: bytes, place: str) -> tuple[tuple[str, str], ...]:
    """The first-party imports of a file: module and name, `*` for the whole module.

    Raises:
        ValueError: If an import is relative.
    """
    found: list[tuple[str, str]] = []
    for node in ast.walk(_parsed(content)):
        if isinstance(node, ast.Import):
            found += [(alias.name, _ALL) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise ValueError(
                    f"{place}:{node.lineno}: found a relative import; required: an absolute one, "
                    "as in `from search.tree import Tree`"
                )
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Constant) and not place.startswith("prefsearch/cli/"):
            # A registry's "package.module:Name"; the table of commands names all there are.
            named = re.fullmatch(r"([\w.]+):(\w+)", str(node.value))
            found += [(named[1], named[2])] if named else []
    return tuple(one for one in found if one[0].partition(".")[0] in FIRST_PARTY)


@lru_cache(maxsize=256)
def _exports(content: bytes, package: str) -> tuple[tuple[str, str, str], ...]:
    """What a package imports at its top: module, name there, name here."""
    return tuple(
        (where, alias.name, alias.asname or alias.name)
        for node in _parsed(content).body
        if isinstance(node, ast.ImportFrom) and node.module
        for where in [f"{package}.{node.module}" if node.level else node.module]
        for alias in node.names
        if where != package and where.partition(".")[0] in FIRST_PARTY
    )


@lru_cache(maxsize=256)
def _only_exports(content: bytes) -> bool:
    """Whether a package's file has nothing but imports, its docstring and the list of its names."""
    return all(
        isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and "__all__" in ast.unparse(node.targets[0]))
        for node in _parsed(content).body
    )


def _parsed(content: bytes) -> ast.Module:
    """A file's syntax tree; an empty one where it does not parse, as in the middle of an edit."""
    try:
        return ast.parse(content)
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])
