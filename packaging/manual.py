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


EXAMPLES = {
    "projector": [
        ("Look at everything before the first start, then work until SIGTERM:",
         "projector check -c bank.json\nprojector run -c bank.json"),
        ("Which events have failed, and why; then try them again:",
         "projector list -c bank.json --summary\nprojector retry -c bank.json --all-dead --class data"),
        ("One aggregate on one screen, and its row taken from its entity:",
         "projector explain -c bank.json account acc-1\nprojector refresh -c bank.json account acc-1"),
        ("Compare both stores, and repair what differs:",
         "projector reconcile -c bank.json || projector reconcile -c bank.json --repair"),
        ("Fill a table beside the live one, and swap the two:", "projector rebuild -c bank.json account --shadow")],
    "outbox": [
        ("Create the collections and indexes of a database:",
         "outbox init --uri-file mongodb.uri --database bank --entities accounts"),
        ("Open an account: the entity and its event, in one transaction:",
         "echo '{\"aggregate_type\": \"account\", \"aggregate_id\": \"acc-1\", \"event_type\": \"AccountOpened\",\n"
         "       \"payload\": {\"name\": \"Ada\"}, \"entity\": {\"insert\": {\"name\": \"Ada\"}}}' |\n"
         "  outbox put --uri-file mongodb.uri --database bank --entities accounts"),
        ("Write the events of a small bank, 50 a second:", "outbox demo --rate 50 --seconds 0")],
}
FILES = {
    "projector": [
        ("/etc/projector/NAME.json", "The mapping file of the service projector@NAME; see projector.json(5)."),
        ("/etc/projector/NAME.env", "Its variables, as NAME=VALUE, a line each. Like all files of this folder it belongs to "
                                    "root:projector, with mode 640."),
        ("/usr/share/projector/projector.schema.json", "The JSON Schema of a mapping file, for editors."),
        ("/usr/share/projector/sql", "The projector's own tables, and the privileges of its users."),
        ("$XDG_STATE_HOME/projector, ~/.local/state/projector", "How far an interrupted reconcile or rebuild has come."),
        ("/usr/share/doc/projector/docs", "The manual, with alert rules for Prometheus.")],
    "outbox": [("/usr/share/doc/projector/docs/writing-events.md", "The event document, and recipes in several languages.")],
}
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
    out += [".SH EXAMPLES"]
    for text, commands in EXAMPLES[program.name]:
        out += [".PP", roff(text), ".PP", ".nf", *(".RS" if not i else roff(line) for i, line in enumerate(["", *commands.split("\n")])), ".RE", ".fi"]
    out += [".SH FILES"]
    for path, text in FILES[program.name]:
        out += [".TP", f".I {roff(path)}", roff(text)]
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

# What may stand for an option's argument. Of FILE the shell knows more than we do.
CLASSES = ["config", "conflict", "crash", "data", "mapping", "size", "space", "unavailable", "unknown"]
VALUES = {"STATE": ["failed", "dead", "held", "pending", "in_progress", "all"], "CLASS": CLASSES,
          "KIND": ["string", "int", "uuid", "objectid"]}


def value_cases(program: Program) -> str:
    """Of a bash `case`: the words for the argument of an option."""
    found = [(c.name, option) for c in program.commands for option in c.options]
    lines = [f"    '{name} --{option.long}') words='{' '.join(VALUES[option.argument])}' ;;"
             for name, option in found if option.argument in VALUES]
    lines += [f"    '{name} --{option.long}') words=$(_{program.name}_tables) ;;" for name, option in found if option.argument == "TABLE"]
    lines += [f"    '{name} --{option.long}') words='' ;;" for name, option in found if option.argument == "FILE"]
    return "\n".join(lines)


def bash(program: Program) -> str:
    cases = "\n".join(f"    {c.name}) words='{' '.join('--' + o.long for o in c.options)} --help' ;;"
                      for c in program.commands)
    names = " ".join(c.name for c in program.commands)
    values = value_cases(program)
    return f"""# bash completion for {program.name}
# The tables of the mapping file that is named on the line.
_{program.name}_tables() {{
  local i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${{COMP_WORDS[i]}} in
      -c | --config) [[ -r ${{COMP_WORDS[i + 1]}} ]] && sed -n 's/.*"table": *"\\([^"]*\\)".*/\\1/p' "${{COMP_WORDS[i + 1]}}" ;;
    esac
  done
}}

_{program.name}() {{
  local words='{names} --help' current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
  COMPREPLY=()
  case $COMP_CWORD in 1) ;; *) case ${{COMP_WORDS[1]}} in
{cases}
    *) return ;;
  esac ;; esac
  # The line is split at "=": --state=de is three words.
  if [[ $current == = ]]; then current=''; elif [[ $previous == = ]]; then previous=${{COMP_WORDS[COMP_CWORD - 2]}}; fi
  case "${{COMP_WORDS[1]}} $previous" in
    *' -c') words='' ;;
{values}
    *) [[ $COMP_CWORD -eq 1 || $current == -* ]] || words='' ;;
  esac
  if [[ -n $words ]]; then
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
        values = "_files" if option.argument == "FILE" else f"({' '.join(VALUES.get(option.argument, []))})"
        argument = f":{option.argument}:{values if values != '()' else ''}" if option.argument else ""
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
