"""Proves the layout over the real tree: imports point one way, and `import ponder` is cheap.

The rules are the tables below; `docs/architecture.md` says what the parts are. A pattern names a module and all
modules in it. An import counts wherever it stands, inside a function and under TYPE_CHECKING too: what a module
needs to be understood is a dependency, whenever it is loaded.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"agent": "ponder", "tools": "ponder.tools", "sandboxes": "ponder.sandboxes", "policies": "ponder.policies"}

# The concrete parts. They know the protocols, and not each other.
PARTS = (
    "ponder.core", "ponder.models", "ponder.search", "ponder.judg*", "ponder.tools", "ponder.sandboxes",
    "ponder.policies", "ponder.store",
)  # fmt: skip
OFFLINE = ("ponder.policies.train*", "ponder.policies.replay*")
"""Work on recorded runs: no part of a search."""
ROOT_MODULES = ("ponder.agent", "ponder.parts", "ponder.plan", "ponder.works")
"""The composition root: the agent, what it was told to be, what it runs on, and what opens parts by name."""
APPLICATION = (*ROOT_MODULES, "ponder.graph", "ponder.nodes", "ponder.cli", "ponder.bench*")
MEETING_PLACES = (*ROOT_MODULES, "ponder.cli", "ponder.bench*", "ponder.doctor*", *OFFLINE)
"""Where concrete parts may meet: the composition root, the programs around it, and offline work."""


@dataclass(frozen=True)
class Rule:
    """`who` never imports `never`, save `but`; `save` are modules of `who` that the rule does not bind."""

    who: tuple[str, ...]
    never: tuple[str, ...]
    but: tuple[str, ...] = ()
    save: tuple[str, ...] = ()


RULES = {
    "records and errors stand on nothing": Rule(("ponder.records", "ponder.errors"), never=("ponder",)),
    "protocols stand on records and errors": Rule(
        ("ponder.protocols",), never=("ponder",), but=("ponder.records", "ponder.errors")
    ),
    "parts do not know the application": Rule(PARTS, never=APPLICATION, save=OFFLINE),
    "training and replay know records, and nothing else of the application": Rule(
        OFFLINE, never=APPLICATION, but=("ponder.bench.records",)
    ),
    "the tree and the ledger know no part and no application": Rule(
        ("ponder.tree", "ponder.ledger"), never=(*PARTS, *APPLICATION)
    ),
    "nodes know no concrete part, no graph, no agent": Rule(
        ("ponder.nodes",), never=(*PARTS, *ROOT_MODULES, "ponder.graph", "ponder.cli", "ponder.bench*")
    ),
    "the graph knows nodes, and no concrete part": Rule(
        ("ponder.graph",), never=(*PARTS, *ROOT_MODULES, "ponder.cli", "ponder.bench*")
    ),
    "only the graph knows LangGraph": Rule(("ponder",), never=("langgraph",), save=("ponder.graph",)),
    "only the command line knows the command line": Rule(
        ("ponder",), never=("ponder.cli",), save=("ponder.cli", "ponder.__main__")
    ),
    "only programs know the composition root": Rule(
        ("ponder",), never=ROOT_MODULES, save=(*ROOT_MODULES, "ponder.cli", "ponder.bench*", "ponder.doctor*")
    ),
    "only the command line knows training and replay": Rule(
        ("ponder",), never=OFFLINE, save=("ponder.cli", *OFFLINE)
    ),
}  # fmt: skip

# A part that needs another one by name, and why.
ALLOWED_BETWEEN_PARTS = {
    ("ponder.core", "ponder.models"): "a core loads weights",
    ("ponder.tools", "ponder.policies.hosts"): "the browser's proxy applies the host rules: data, no policy",
    ("ponder.tools", "ponder.sandboxes.talks"): "a queue at the host's end of any sandbox's conversation: no backend",
    ("ponder.tools", "ponder.sandboxes.workspace"): "a branch's files, as any sandbox takes them: no backend",
}

HEAVY = ("torch", "transformers", "playwright", "xllamacpp", "langgraph")
HEAVY_AT_TOP = {
    "langgraph": ("ponder.graph",), "xllamacpp": ("ponder.core.*_child",), "torch": ("ponder.core.hf.*",),
}  # fmt: skip
"""Who may import a heavy module at its top: what only the engine's child process runs."""

CHEAP_S = 0.3


def modules() -> dict[str, Path]:
    """Return every module of the package by its import name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            steps = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *(step for step in steps if step != "__init__")))] = path
    return found


MODULES = modules()


def is_under(module: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(module, pattern) or fnmatchcase(module, pattern + ".*") for pattern in patterns)


def imported(node: ast.AST, known: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules that one statement imports; `from a import b` is `a.b` where that is a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute, so that one search finds them"
        assert node.module is not None
        for alias in node.names:
            longer = f"{node.module}.{alias.name}"
            yield longer if longer in known else node.module


def imports_of(path: Path, known: Mapping[str, Path]) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {name for node in ast.walk(tree) for name in imported(node, known)}


def loaded_with(path: Path, known: Mapping[str, Path]) -> set[str]:
    """Return what is imported when the module is: statements outside functions and TYPE_CHECKING."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        found.update(imported(node, known))
        waiting.extend(ast.iter_child_nodes(node))
    return found


def breaches(rule: Rule, imports: Mapping[str, set[str]]) -> list[str]:
    return [
        f"{module} imports {name}"
        for module, names in sorted(imports.items())
        if is_under(module, rule.who) and not is_under(module, rule.save)
        for name in sorted(names)
        if is_under(name, rule.never) and not is_under(name, rule.but)
    ]


def meetings(imports: Mapping[str, set[str]]) -> list[str]:
    """Return the imports that bring two concrete parts together outside the meeting places."""
    found = []
    for module, names in sorted(imports.items()):
        if is_under(module, MEETING_PLACES):
            continue
        own = {part for part in PARTS if is_under(module, (part,))}
        others = {(part, name) for name in names for part in PARTS if is_under(name, (part,)) and part not in own}
        others = {
            (part, name)
            for part, name in others
            if not any(is_under(module, (who,)) and is_under(name, (whom,)) for who, whom in ALLOWED_BETWEEN_PARTS)
        }
        if len({part for part, _ in others}) > (0 if own else 1):
            found.append(f"{module} imports {', '.join(sorted(name for _, name in others))}")
    return found


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What each module imports; the package's front door is left out: it only re-exports on demand."""
    return {name: imports_of(path, MODULES) for name, path in MODULES.items() if name != "ponder"}


@pytest.mark.parametrize("name", RULES)
def test_imports_point_one_way(name: str, imports: dict[str, set[str]]) -> None:
    assert breaches(RULES[name], imports) == [], name


def test_concrete_parts_meet_in_the_composition_root_only(imports: dict[str, set[str]]) -> None:
    assert meetings(imports) == []


def test_inside_the_package_nobody_goes_through_its_front_door(imports: dict[str, set[str]]) -> None:
    programs = ("ponder.cli", "ponder.bench*", "ponder.doctor*")
    assert [module for module, names in imports.items() if "ponder" in names and not is_under(module, programs)] == []


def test_heavy_modules_are_imported_on_first_use() -> None:
    found = [
        f"{module} imports {name} at its top"
        for module, path in MODULES.items()
        for name in loaded_with(path, MODULES)
        for heavy in HEAVY
        if is_under(name, (heavy,)) and not is_under(module, HEAVY_AT_TOP.get(heavy, ()))
    ]
    assert found == []


def test_no_module_is_named_like_a_standard_one() -> None:
    assert [name for name in MODULES if name.rpartition(".")[2] in sys.stdlib_module_names] == []


DATA_ONLY = {"ponder.policies.weights"}


def test_every_folder_with_code_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    homes = {name if path.name == "__init__.py" else name.rpartition(".")[0] for name, path in MODULES.items()}
    assert sorted(listed) == sorted(packages | homes | DATA_ONLY)


def test_import_ponder_is_cheap() -> None:
    probe = (
        "import sys, time; start = time.perf_counter(); import ponder; print(time.perf_counter() - start); "
        f"print(*({set(HEAVY)!r} & set(sys.modules)))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(5)
    ]
    assert all(len(run) == 1 for run in runs), f"import ponder loads {runs[0][1:]}"
    assert min(float(run[0]) for run in runs) < CHEAP_S


def test_these_rules_bite() -> None:
    """A rule that nothing can break proves nothing."""
    wrong = {
        "ponder.records": {"ponder.errors"},
        "ponder.protocols": {"ponder.tree"},
        "ponder.tree": {"ponder.store"},
        "ponder.nodes.think": {"ponder.core.llama.llama_cpp"},
        "ponder.graph": {"ponder.tools.python"},
        "ponder.core.llama.engine": {"ponder.graph", "langgraph.graph"},
        "ponder.tools.python": {"ponder.cli.main", "ponder.agent", "ponder.sandboxes.bubblewrap.sandbox"},
        "ponder.policies.learned": {"ponder.policies.train"},
        "ponder.policies.replay": {"ponder.bench.records.offline", "ponder.bench.runner"},
        "ponder.helper": {"ponder.core.llama.engine", "ponder.store"},
        "ponder.agent": {"ponder.core.llama.engine", "ponder.store"},
    }
    for name, rule in RULES.items():
        assert breaches(rule, wrong), name
    assert meetings(wrong) == [
        "ponder.helper imports ponder.core.llama.engine, ponder.store",
        "ponder.tools.python imports ponder.sandboxes.bubblewrap.sandbox",
    ]
