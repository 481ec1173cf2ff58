"""Puts the page's parts together as one HTML file in a C source file: embed_page.py OUTPUT page.html FILE.css|FILE.js...

Style and script go where the page says, a library before ours. The policy names the page's own script by its hash, so that a
browser runs no other."""
import base64
import hashlib
import pathlib
import sys

output, html, *parts = map(pathlib.Path, sys.argv[1:])
ours = [part for part in parts if part.parent == html.parent]
ordered = [part for part in parts if part not in ours] + ours


def joined(suffix: str) -> str:
    text = "\n".join(part.read_text("utf-8") for part in ordered if part.suffix == suffix)
    if "</s" in text.lower():
        sys.exit(f"a {suffix} file would end its element: it has </s")
    return text


def source(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


style, script = joined(".css"), joined(".js")
page = html.read_text("utf-8").replace("{{style}}", style).replace("{{script}}", script).encode()
policy = (f"default-src 'none'; script-src {source(script)}; style-src {source(style)}; connect-src 'self'; "
          "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
# As numbers: compilers have a limit for strings.
numbers = ",\n".join(",".join(map(str, page[i:i + 32])) for i in range(0, len(page), 32))
output.write_text(f"""#include "projector/app/web/page/page.h"

const unsigned char page_html[] = {{
{numbers}, 0}};

const size_t page_length = {len(page)};

const char page_policy[] = "{policy}";
""")
