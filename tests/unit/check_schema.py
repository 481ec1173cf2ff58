"""The JSON Schema of the mapping file and the program accept the same files: check_schema.py SCHEMA PROJECTOR MAPPING_FILE_MD CONFIG_C FILE...

The program itself is asked: where it meets an unknown key, it names the known ones. Only the defaults cannot be
obtained that way; they are read from its source."""

import copy
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema

schema, program, files = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], sys.argv[5:]
manual, source = (Path(name).read_text() for name in sys.argv[3:5])
validator = jsonschema.Draft7Validator(schema)
failures = []

BASE = {
    "name": "x",
    "mongodb": {"uri": "mongodb://127.0.0.1:1", "database": "d"},
    "mysql": {"host": "127.0.0.1", "port": 1, "user": "u", "database": "d"},
    "projections": [{
        "aggregate_type": "a", "table": "t",
        "key": {"id": {"from": "$aggregate_id", "type": "int"}},
        "columns": {"c": {"from": "c", "type": "int"}},
        "events": {"E": {"op": "upsert"}},
    }],
}


def changed(path: tuple, value: object) -> dict:
    mapping = copy.deepcopy(BASE)
    at = mapping
    for key in path[:-1]:
        at = at.setdefault(key, {}) if isinstance(at, dict) else at[key]
    at[path[-1]] = value
    return mapping


def refusal(mapping: dict) -> str | None:
    """The program's objection to the file; None if it prints the tables."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(mapping, file)
        file.flush()
        done = subprocess.run([program, "schema", "-c", file.name], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=20, env={**os.environ, "NUMBER": "5", "TABLE": "t", "TYPE": "int"})
    if done.returncode not in (0, 2):
        sys.exit(f"`projector schema` ended with status {done.returncode}: {done.stderr}")
    return done.stderr if done.returncode == 2 else None


def expect_same(path: tuple, value: object) -> None:
    mapping = changed(path, value)
    refused, errors = refusal(mapping), list(validator.iter_errors(mapping))
    if bool(refused) != bool(errors):
        failures.append(f"{path} = {json.dumps(value)}: the program says {refused or 'yes'}, "
                        f"the schema {errors[0].message if errors else 'yes'}")


def expect_keys(path: tuple, known_to_schema: list[str]) -> None:
    """Program and schema know the same keys of an object."""
    refused = refusal(changed((*path, "no such key"), 1)) or ""
    found = re.search(r"known here: (.*)", refused)
    known = set(found.group(1).split(", ")) if found else set()
    if known != set(known_to_schema):
        failures.append(f"{path}: the program knows {sorted(known)}, the schema {sorted(known_to_schema)}")


def properties(of: dict) -> list[str]:
    return list(of["properties"])


# --- keys ---
projection = ("projections", 0)
definitions = schema["definitions"]
expect_keys((), properties(schema))
expect_keys(("mongodb",), properties(schema["properties"]["mongodb"]))
expect_keys(("mysql",), properties(schema["properties"]["mysql"]))
expect_keys(projection, properties(definitions["projection"]))
expect_keys((*projection, "key", "id"), properties(definitions["keyColumn"]))
expect_keys((*projection, "columns", "c"), properties(definitions["column"]))

# --- settings: the limits, what lies beyond, words, and a ${VARIABLE} ---
for section in ((), ("mongodb",), ("mysql",)):
    for name, setting in (schema["properties"][section[0]] if section else schema)["properties"].items():
        for choice in setting.get("anyOf", []):
            if choice.get("type") == "integer":
                low, high = choice["minimum"], choice["maximum"]
                for value in (low, high, low - 1, high + 1, 1.5, "5", "${NUMBER}", None, True):
                    if value != "${NUMBER}" or low <= 5 <= high:
                        expect_same((*section, name), value)
            for word in choice.get("enum", []):
                expect_same((*section, name), word)
                expect_same((*section, name), word + "s")
for value in ("a.b-c_1", "", "a b", "x" * 64, "x" * 65, 5):
    expect_same(("name",), value)
for value in (0, 1, 65535, 65536, "3306"):
    expect_same(("mysql", "port"), value)
for value in ("x" * 15, "x" * 16, 5):
    expect_same(("admin_token",), value)
expect_same(("$schema",), "https://example.com/projector.schema.json")

defaults = re.findall(r'\{"(\w+)", \d+, \d+, ([\d* ]+), offsetof\((\w+)', source)
for name, default, structure in defaults:
    default = math.prod(map(int, default.split("*")))
    section = schema["properties"]["mysql"] if structure == "MysqlSettings" else schema
    if section["properties"][name]["default"] != default:
        failures.append(f"{name}: the program's default is {default}, the schema's {section['properties'][name]['default']}")
    if name != "port" and not re.search(rf"\| `(mysql\.)?{name}` \| {default} \|", manual):
        failures.append(f"{name}: docs/mapping-file.md has no row with the program's default, {default}")
if len(defaults) < 5:
    failures.append("the defaults were not found in the program's source")

# --- projections ---
TYPES = [t for c in definitions["type"]["anyOf"] for t in c.get("enum", [])] + [
    f"{t}{u}" for t in ("tinyint", "smallint", "mediumint", "int", "bigint") for u in ("", " unsigned")] + [
    "decimal(18,2)", "char(255)", "varchar(16383)", "binary(1)", "varbinary(65535)", "datetime", "datetime(6)",
    "timestamp", "timestamp(0)", "time", "time(3)", "bit(1)", "enum('a')", "enum('a b','c')"]
WRONG_TYPES = ["", "integer", "INT", "int(11)", "int signed", "text(5)", "decimal", "decimal(18)", "decimal(18, 2)",
               "char", "varchar(0)", "datetime(7)", "float(5)", "year(4)", "enum()", "enum(a)", "enum('a', 'b')", "enum('')", "enum('a ')", "enum('it''s')", "bit", "bit(2)", "time(7)",
               "uuid(16)", "double unsigned"]
for value in [*TYPES, *WRONG_TYPES, "${TYPE}", 5]:
    expect_same((*projection, "columns", "c", "type"), value)
for value in ("a", "a.b", "${TABLE}", "a.${TABLE}", "$version", "$metadata.x.y", "", ".", "a.", ".a", "a..b", "$", "$metadata", "$metadata.", "$x", 5,
              "$payload", "$payload.x", "/a.b/$id", "/", "/~0~1", "/~2", [], ["a"], ["a", "/b", "$version"], ["a", 5], [["a"]], {"from": "a"}):
    expect_same((*projection, "columns", "c", "from"), value)
for value in ({"from": "$payload", "type": "json"}, {"from": ["a", "$payload"], "type": "json"}, {"from": ["a", "$payload"], "type": "int"}, {"from": "$payload", "type": "text"},
              {"from": "a", "type": "json", "json": "plain"}, {"from": "a", "type": "text", "json": "plain"}):
    expect_same((*projection, "columns", "c"), value)
CHILD = {"table": "u", "from": "items", "key": {"n": {"from": "$index", "type": "int"}}, "columns": {"x": {"from": "$item.x", "type": "int"}}}
child = (*projection, "children")
for value in ([CHILD], [], {}, [CHILD, {**CHILD, "table": "v"}], [{**CHILD, "children": []}], [{**CHILD, "default": []}], [{**CHILD, "key": {}}], [{**CHILD, "default": 5}], [{**CHILD, "default": [1]}],
              [{**CHILD, "from": "$payload"}], [{**CHILD, "from": "$metadata.x"}], [{**CHILD, "from": ["a", "/b"]}], [{**CHILD, "from": ["a", "$version"]}],
              [{k: v for k, v in CHILD.items() if k != "columns"}], [{k: v for k, v in CHILD.items() if k != "from"}], [{**CHILD, "from": "$item.x"}]):
    expect_same(child, value)
for value in ("$item", "$item.a.b", "$item.", "$index", "$index.a", "$items", "a.b", "/a~1b", "$aggregate_id", "$occurred_at", "$metadata.x",
              ["$item.a", "b"], [], 5):
    expect_same(child, [{**CHILD, "columns": {"x": {"from": value, "type": "int"}}}])
for value in ("$item", "$index", "$item.a"):
    expect_same((*projection, "columns", "c", "from"), value)
    expect_same((*projection, "events", "E"), {"op": "update", "columns": {"c": value}})
for value in ({"op": "delete", "set": {"c": "$occurred_at"}}, {"op": "delete", "set": {}}, {"op": "delete", "set": ["c"]}, {"op": "upsert", "set": {"c": "c"}}):
    expect_same((*projection,), {**BASE["projections"][0], "columns": {"c": {"from": "c", "type": "date", "null": True}}, "events": {"E": value}})
for value in ({"value": 1}, {"value": 1, "from": "c"}, {"value": 1, "default": 1}, {"from": "c", "default": 1}, {"default": 1}, {}):
    expect_same((*projection, "columns", "c"), {"type": "int", **value})
    expect_same((*projection, "key", "id"), {"type": "int", **value})
    expect_same((*projection, "events", "E"), {"op": "add", "columns": {"c": value}})
for value in ({}, {"aggregate_type": "a.b"}, {"version": "status"}, {"version": "status.x"}, {"version": "statuses"}, {"version": "$v"}, {"version": ""},
              {"version": ".a"}, {"version": 5}, {"payload": "Content", "metadata": "Headers"}, {"type": "t"}, []):
    expect_same(("mongodb", "fields"), value)
expect_keys(("mongodb", "fields"), properties(schema["properties"]["mongodb"]["properties"]["fields"]))
for value in (["c"], ["c", "c"], [], [5], "c", None):
    expect_same((*projection, "always"), value)
for value in ("plain", "extended", "other", True):
    expect_same((*projection, "columns", "c"), {"from": "c", "type": "json", "json": value})
IS = {"path": "a", "is": "x"}
for value in (IS, {"path": "a", "in": [1, None, True, "x", 1.5]}, {"path": "a", "in": []}, {"path": "a", "in": 1}, {"path": "a", "is": [1]},
              {"path": "a", "exists": True}, {"path": "a", "exists": "yes"}, {"path": "a"}, {"is": 1}, {**IS, "exists": True},
              {"path": ["a", "/b"], "is": {"$numberDecimal": "1.5"}}, {"all": [IS]}, {"all": []}, {"any": [IS, {"not": IS}]},
              {"not": [IS]}, {"all": [IS], "any": [IS]}, {"all": [IS], "path": "a"}, {}, [], True, None, "a"):
    expect_same((*projection, "when"), value)
    for rule in ({"op": "upsert"}, {"op": "delete"}, {"op": "update", "columns": ["c"]}, {"op": "add", "columns": {"c": "d"}},
                 {"op": "sql", "statement": "DELETE FROM t"}, {"op": "ignore"}):
        expect_same((*projection, "events", "E"), {**rule, "when": value})
for value in ("t", "_t$1", "${TABLE}", "T" * 64, "T" * 65, "1t", "", "a-b", "a.b", "ä", 5):
    expect_same((*projection, "table"), value)
for value in ("projector_applied", "projector_position", "projector_fence", "projector_source", "projector_x"):
    expect_same((*projection, "table"), value)
for path in (("mongodb", "outbox"), (*projection, "entities")):
    for value in ("o", "a.b", "ä", "", "a$b", ".a", "system.x", "systems", "${NUMBER}", 5):
        expect_same(path, value)
for value in ("d", "ä", "d" * 63, "d" * 64, "", "a.b", "a b", "a/b", "a\\b", 'a"b', "a$b", "${NUMBER}", 5):
    expect_same(("mongodb", "database"), value)
for length in (0, 1, 128, 129):
    expect_same((*projection, "aggregate_type"), "a" * length)
    expect_same((*projection, "events"), {"E" * length: {"op": "ignore"}})
for value in ({"op": "upsert"}, {"op": "delete"}, {"op": "ignore"}, {"op": "merge"}, {}, "upsert",
              {"op": "upsert", "columns": ["c"]}, {"op": "update", "columns": ["c"]}, {"op": "update"},
              {"op": "update", "columns": {"c": "d"}}, {"op": "update", "columns": []}, {"op": "add", "columns": ["c"]},
              {"op": "add", "columns": {"c": "d"}}, {"op": "subtract", "columns": {"c": "d"}}, {"op": "add", "columns": {}},
              {"op": "sql"}, {"op": "sql", "statement": "DELETE FROM t"}, {"op": "sql", "statement": ""}):
    expect_same((*projection, "events", "E"), value)
for key in ("key", "events"):
    expect_same((*projection, key), {})
expect_same((*projection, "columns"), {})
expect_same(("projections",), [])
for path, value in ((("mysql", "password"), "p"), (("mongodb", "uri_file"), "/dev/null")):
    expect_same(path, value)
for path in [("name",), ("mongodb", "database"), ("mysql", "user"), (*projection, "key"), (*projection, "aggregate_type")]:
    expect_same(path, None)

# --- files of this repository ---
for page in sorted(Path(sys.argv[3]).parent.glob("*.md")):  # whole mapping files, and single projections
    for block in re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL):
        try:
            shown = json.loads(block)
        except ValueError:
            continue  # a part of a file
        if isinstance(shown, dict) and "table" in shown and "aggregate_type" in shown:
            shown = {**BASE, "projections": [{**BASE["projections"][0], **shown}]}
        elif not (isinstance(shown, dict) and "projections" in shown):
            continue
        for error in validator.iter_errors(shown):
            failures.append(f"{page.name}: {error.json_path}: {error.message}")
for name in files:
    for error in validator.iter_errors(json.loads(Path(name).read_text())):
        failures.append(f"{name}: {error.json_path}: {error.message}")
projections = [json.loads(Path(name).read_text())["projections"] for name in files]
if any(p != projections[0] for p in projections):
    failures.append(f"the projections are not the same in {', '.join(files)}")

print(*failures, sep="\n")
sys.exit(1 if failures else 0)
