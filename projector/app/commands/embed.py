"""Writes the SQL migrations as a C source file: embed.py OUTPUT INPUT..."""
import json
import pathlib
import sys

output, *inputs = map(pathlib.Path, sys.argv[1:])
lines = ['#include "projector/app/commands/migrations.h"', "", "const Migration migrations[] = {"]
for path in inputs:
    # A JSON string of ASCII is a C string, line by line to stay within the compilers' limits.
    text = "\n    ".join(json.dumps(line) for line in path.read_text("ascii").splitlines(keepends=True))
    lines.append(f'    {{"{path.name}",\n    {text}}},')
lines += ["};", "", f"const size_t migration_count = {len(inputs)};", ""]
output.write_text("\n".join(lines))
