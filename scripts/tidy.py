"""Checks the shape of the code: tidy.py [ROOT [BUILD]]. Prints one line per violation; exit status 1 if there are any.

A function has at most 60 lines and 6 parameters, a failure at the end aside; a file has at most 600 lines. A folder
includes nothing from a folder above it and no *_private.h of another, and no two of them include each other; no two
files, as their objects in BUILD show, call each other. A type's name stands for one type in the program. Functions are
found by clang-format's layout: they begin and end in the first column."""
import pathlib
import re
import subprocess
import sys

FUNCTION_LINES, PARAMETERS, FILE_LINES = 60, 6, 600

# From the ground up: a folder includes its own headers and those of folders that stand before it.
LAYERS = ["outbox", "projector/domain", "projector/infra", "projector/app/shared", "projector/app/engine",
          "projector/app/reconcile", "projector/app/rebuild", "projector/app/replay", "projector/app/commands",
          "projector/app/web", "projector/app/process", "projector/app"]

FUNCTION = re.compile(r"^[A-Za-z_][^;={}#]*?\b(\w+)\((?P<parameters>[^;{}]*)\) \{$", re.M)
INCLUDE = re.compile(r'^#include "([^"]+)"', re.M)
TYPE = re.compile(r"^(?:typedef )?(?:struct|enum|union) (\w+) \{", re.M)


def layer_of(path: str) -> int | None:
    folders = [layer for layer in LAYERS if path.startswith(layer + "/")]
    return LAYERS.index(max(folders, key=len)) if folders else None


ERROR = re.compile(r",\s*(?:Failure \*ret_failure|Failure \*failure|outbox_error_t \*error)\s*$")


def parameter_count(text: str) -> int:
    text = ERROR.sub("", text)
    depth, count = 0, 1
    for char in text:
        depth += (char in "([") - (char in ")]")
        count += char == "," and depth == 0
    return 0 if text.strip() in ("", "void") else count


def functions(text: str):
    """Yields name, first line, number of lines and number of parameters (0 where a library dictates them)."""
    for found in FUNCTION.finditer(text):
        end = text.find("\n}", found.end() - 2)
        first = text.count("\n", 0, found.start()) + 1
        yield (found[1], first, text.count("\n", found.start(), end) + 2,
               0 if "MHD_" in found[0] else parameter_count(found["parameters"]))


def shape(path: str, text: str):
    if (lines := text.count("\n")) > FILE_LINES:
        yield f"{path}: {lines} lines, at most {FILE_LINES}: split it by topic"
    if not path.endswith((".c", ".h")):
        return
    for name, first, lines, parameters in functions(text):
        if lines > FUNCTION_LINES:
            yield f"{path}:{first}: {name} has {lines} lines, at most {FUNCTION_LINES}"
        if parameters > PARAMETERS:
            yield f"{path}:{first}: {name} has {parameters} parameters, at most {PARAMETERS}: make it an options struct"


def layers(path: str, includes: list[str]):
    own = layer_of(path)
    for include in includes if own is not None else []:
        other = layer_of(include)
        if other is not None and other > own:
            yield f"{path}: includes {include}, which stands above it"
        if include.endswith("_private.h") and include.rsplit("/", 1)[0] != path.rsplit("/", 1)[0]:
            yield f"{path}: includes {include}, which is private to its folder"


def repeated_types(sources: dict[str, str]):
    places: dict[str, list[str]] = {}
    for path, text in sources.items():
        for name in TYPE.findall(text):
            places.setdefault(name, []).append(path)
    for name, paths in sorted(places.items()):
        if len(paths) > 1:
            yield f"{', '.join(paths)}: each has a type {name}: one name, one meaning"


def callers(build: pathlib.Path) -> dict[str, set[str]]:
    """Which object of the program calls functions of which other object."""
    objects = [path for target in ("outbox", "projector") for path in (build / target).rglob("*.c.o")]
    home, uses = {}, {}
    for line in subprocess.run(["nm", "-A", *objects], check=True, capture_output=True, text=True).stdout.splitlines():
        path, _, rest = line.partition(":")
        kind, symbol = rest.split()[-2:]
        name = pathlib.Path(path).name.removesuffix(".o")
        if kind == "U":
            uses.setdefault(name, set()).add(symbol)
        elif kind in "TDBR":
            home[symbol] = name
    return {name: {home[symbol] for symbol in symbols if home.get(symbol, name) != name} for name, symbols in uses.items()}


def circles(graph: dict[str, set[str]]):
    """Yields the members of each cycle: nodes that can all reach each other."""
    def reach(node):
        seen, left = set(), [node]
        while left:
            for following in graph.get(left.pop(), ()):
                if following not in seen:
                    seen.add(following)
                    left.append(following)
        return seen

    reached = {node: reach(node) for node in graph}
    told = set()
    for node in sorted(graph):
        members = sorted(other for other in reached[node] if node in reached.get(other, ()))
        if node in reached[node] and node not in told:
            told.update(members)
            yield ", ".join(members)


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    texts = {str(path.relative_to(root)): path.read_text("utf-8")
             for folder in ("outbox", "projector", "tests", "scripts", "demo", "packaging") for path in sorted((root / folder).rglob("*"))
             if path.suffix in (".c", ".h", ".py") and "/build" not in str(path)}
    sources = {path: INCLUDE.findall(text) for path, text in texts.items() if path.endswith((".c", ".h"))}
    found = [line for path, text in texts.items() for line in shape(path, text)]
    found += [line for path, includes in sources.items() for line in layers(path, includes)]
    found += repeated_types({path: texts[path] for path in sources if path.startswith("projector/")})
    if len(sys.argv) > 2:
        found += [f"circle of files, each calls another: {circle}" for circle in circles(callers(pathlib.Path(sys.argv[2])))]
    folders: dict[str, set[str]] = {}
    for path, includes in sources.items():
        folder = path.rsplit("/", 1)[0]
        folders.setdefault(folder, set()).update(i.rsplit("/", 1)[0] for i in includes
                                                 if i in sources and i.rsplit("/", 1)[0] != folder)
    found += [f"circle of folders: {circle}" for circle in circles(folders)]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
