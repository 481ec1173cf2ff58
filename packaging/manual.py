"""Man pages and shell completions, out of what the programs say with --help and of the schema of the mapping file.

    manual.py man1 PROGRAM VERSION     projector(1), outbox(1)
    manual.py man5 SCHEMA VERSION      projector.json(5)
    manual.py bash|zsh PROGRAM         completion

So the text that is shown, the page and the completion are written once: in the program."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Option:
    short: str
    long: str
    argument: str
    text: str


@dataclass
class Command:
    name: str
    summary: str
    usage: str = ""
    options: list[Option] = field(default_factory=list)
    text: list[str] = field(default_factory=list)  # what stands around the options


def said(*argv: str) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)} ended with status {done.returncode}: {done.stderr}")
    return done.stdout


OPTION = re.compile(r"  (?:-(\w), )?--([\w-]+)(?:=(\S+))?(?:\s{2,}(.*))?$")


def command_help(program: str, name: str, summary: str) -> Command:
    command = Command(name, summary)
    lines = said(program, name, "--help").splitlines()
    in_options = False
    for line in lines[2:]:
        if line in ("Help Options:", "Application Options:", "Options:"):
            in_options = True
        elif in_options and (option := OPTION.match(line)):
            if option[2] != "help":
                command.options.append(Option(*(part or "" for part in option.groups())))
        else:
            in_options = in_options and not line
            command.text.append(line)
    command.usage = re.sub(r" - .*", "", re.sub(r"\[OPTION[^]]*\]", "[options]", lines[1].strip()))
    return command


class Program:
    def __init__(self, path: str):
        self.name = Path(path).name
        self.help = said(path, "--help").splitlines()
        self.commands = [command_help(path, m[1], m[2]) for line in self.help
                         if (m := re.match(r"  (\w+)\s+(\S.*)", line))]

    @property
    def purpose(self) -> str:
        first = self.help[0].partition(" - ")[2] or next(line for line in self.help[1:] if line)
        return first.rstrip(".")

    @property
    def exit_status(self) -> str:
        return next(line for line in self.help if line.startswith("Exit status: ")).partition(": ")[2]


# --- roff ---

def roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return re.sub(r"^([.])", r"\\&\1", text)


def paragraphs(lines: list[str]) -> list[str]:
    """Text is filled; what is indented stays as it is."""
    out, literal = [], False
    for line in lines:
        is_literal = line.startswith("  ") or (literal and not line)
        if is_literal != literal:
            out.append(".nf" if is_literal else ".fi")
            literal = is_literal
        out.append(roff(line) if line else ("" if literal else ".PP"))
    return [*out, *([".fi"] if literal else [])]


def heading(name: str, section: int, version: str) -> list[str]:
    return [f'.TH {roff(name).upper()} {section} "" "projector {version}"']


EXTRA = {
    "projector": ["A mapping file says where the stores are and which event changes which row: see",
                  ".BR projector.json (5)."],
    "outbox": ["The document that makes an event is described in writing\\-events.md; any program that can run a",
               "MongoDB transaction can write it."],
}
SEE_ALSO = {"projector": ".BR outbox (1), projector.json (5)", "outbox": ".BR projector (1)"}


def man1(path: str, version: str) -> str:
    program = Program(path)
    out = heading(program.name, 1, version)
    out += [".SH NAME", f"{program.name} \\- {roff(program.purpose)}", ".SH SYNOPSIS", f".B {program.name}",
            "COMMAND [options]", ".SH DESCRIPTION", *EXTRA[program.name], ".SH COMMANDS"]
    for command in program.commands:
        out += [f".SS {roff(command.usage)}", roff(command.summary[0].upper() + command.summary[1:]) + ".", ".PP"]
        out += paragraphs("\n".join(command.text).strip("\n").splitlines())
        for option in command.options:
            names = ", ".join([*([f"-{option.short}"] if option.short else []), f"--{option.long}"])
            out += [".TP", f".B {roff(names)}" + (f" \\fI{roff(option.argument)}\\fR" if option.argument else ""),
                    roff(option.text)]
    out += [".SH EXIT STATUS", roff(program.exit_status), ".SH SEE ALSO", SEE_ALSO[program.name]]
    return "\n".join(out) + "\n"


def expected(schema: dict) -> str:
    parts = []
    for choice in schema.get("anyOf", [schema]):
        if "enum" in choice:
            parts.append(", ".join(f'"{word}"' for word in choice["enum"]))
        elif choice.get("type") == "integer":
            parts.append(f"{choice['minimum']} to {choice['maximum']}")
    if "default" in schema:
        parts.append(f"default {json.dumps(schema['default'])}")
    return f" ({'; '.join(parts)})" if parts else ""


def members(schema: dict, definitions: dict, prefix: str = "") -> list[str]:
    out = []
    for name, value in schema["properties"].items():
        value = {**definitions.get(value.get("$ref", "").rpartition("/")[2], {}), **value}
        required = " (required)" if name in schema.get("required", []) else expected(value)
        out += [".TP", f".B {roff(prefix + name)}", roff(value.get("description", "") + required)]
    return out


def man5(path: str, version: str) -> str:
    schema = json.loads(Path(path).read_text())
    definitions = schema["definitions"]
    out = heading("projector.json", 5, version)
    out += [".SH NAME", "projector.json \\- the mapping file of projector", ".SH DESCRIPTION",
            roff("A JSON object. ${NAME} in any string is replaced from the environment, also where a number is "
                 "expected. Unknown keys, wrong types and bad names are refused at the start, with their path.")]
    out += [".SH SETTINGS", *members(schema, definitions)]
    for name in ("mongodb", "mysql"):
        out += [f".SH {name.upper()}", *members(schema["properties"][name], definitions, name + ".")]
    out += [".SH PROJECTIONS", *members(definitions["projection"], definitions)]
    out += [".SH COLUMNS", "Each has", *members({**definitions["column"]}, definitions)]
    out += [".SH TYPES", ".nf"]
    out += [roff(", ".join(choice["enum"]) if "enum" in choice else readable(choice["pattern"]))
            for choice in definitions["type"]["anyOf"] if "$ref" not in choice]
    out += [".fi", ".SH OPERATIONS"]
    for rule in definitions["rule"]["oneOf"]:
        op = rule["properties"]["op"]
        out += [".TP", f".B {roff(', '.join(op['enum']))}", roff(op["description"])]
        out += [roff(f"Takes \"{name}\". {value.get('description', '')}")
                for name, value in rule["properties"].items() if name != "op"]
    out += [".SH SEE ALSO", ".BR projector (1)"]
    return "\n".join(out) + "\n"


def readable(pattern: str) -> str:
    """A pattern of the schema as a person would write it: decimal(p,s)."""
    text = pattern.strip("^$").replace("\\(", "<").replace("\\)", ">")
    text = re.sub(r"\(( unsigned)\)\?", r"[\1]", text)
    text = re.sub(r"\((<[^>]*>)\)\?", r"[\1]", text).replace("[1-9][0-9]{0,4}", "n").replace("[0-9]{1,2}", "n").replace("[0-6]", "n")
    return re.sub(r"^\(([\w|]+)\)", lambda m: m[1].replace("|", ", ") + " ", text).replace("<", "(").replace(">", ")")


# --- completion ---

def bash(program: Program) -> str:
    cases = "\n".join(f"    {c.name}) words='{' '.join('--' + o.long for o in c.options)} --help' ;;"
                      for c in program.commands)
    names = " ".join(c.name for c in program.commands)
    return f"""# bash completion for {program.name}
_{program.name}() {{
  local words='{names} --help' current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
  COMPREPLY=()
  case $COMP_CWORD in 1) ;; *) case ${{COMP_WORDS[1]}} in
{cases}
    *) return ;;
  esac ;; esac
  case $previous in
    -c | --config | *-file) words='' ;;
  esac
  if [[ -n $words && ( $COMP_CWORD -eq 1 || $current == -* ) ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  fi
}}
complete -o default -F _{program.name} {program.name}
"""


def zsh(program: Program) -> str:
    def quoted(text: str) -> str:
        return "'" + text.replace("'", "'\\''") + "'"

    def spec(option: Option) -> str:
        text = re.sub(r"([\[\]:])", r"\\\1", option.text)
        is_file = option.argument == "FILE"
        argument = f":{option.argument}:{'_files' if is_file else ''}" if option.argument else ""
        return quoted(f"--{option.long}{'=' if option.argument else ''}[{text}]{argument}")

    commands = "\n".join("    " + quoted(f"{c.name}:{c.summary.replace(':', chr(92) + ':')}") for c in program.commands)
    cases = "\n".join(f"    {c.name}) _arguments {' '.join(spec(o) for o in c.options)}"
                      f"{short(c)} '*:argument:' ;;" for c in program.commands)
    return f"""#compdef {program.name}
local -a commands
commands=(
{commands}
)
if (( CURRENT == 2 )); then
  _describe command commands
else
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{cases}
  esac
fi
"""


def short(command: Command) -> str:
    return "".join(f" '-{o.short}[{o.text}]:{o.argument}:_files'" for o in command.options if o.short and o.argument == "FILE")


def main() -> None:
    kind, path, *rest = sys.argv[1:]
    text = {"man1": lambda: man1(path, *rest), "man5": lambda: man5(path, *rest),
            "bash": lambda: bash(Program(path)), "zsh": lambda: zsh(Program(path))}[kind]()
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
