"""The bill of materials, SPDX 2.3: sbom.py VERSION PROGRAM... The libraries are those that the loader finds, with
package, version and source as dpkg knows them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path


def said(*argv: str) -> str:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True).stdout


def libraries(program: str) -> set[str]:
    return set(re.findall(r"=> (/\S+)", said("ldd", program)))


def owner(library: str) -> str | None:
    """The package of a file; dpkg may know it by its place before /lib became a link."""
    real = os.path.realpath(library)
    for path in (real, library, real.removeprefix("/usr")):
        found = subprocess.run(["dpkg-query", "-S", path], capture_output=True, text=True)
        if found.returncode == 0:
            return found.stdout.partition(": ")[0]
    return None


def spdx_id(text: str) -> str:
    return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", text)


def package(name: str) -> dict:
    fields = said("dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\t"
                  "${Maintainer}", name).split("\t")
    binary, version, architecture, source, source_version, maintainer = fields
    return {
        "SPDXID": spdx_id(f"deb-{binary}"), "name": binary, "versionInfo": version,
        "supplier": f"Organization: {maintainer}", "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION", "copyrightText": "NOASSERTION",
        "sourceInfo": f"built from {source} {source_version}",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                          "referenceLocator": f"pkg:deb/debian/{binary}@{version.replace('+', '%2B')}?arch={architecture}"}],
    }


def main() -> None:
    version, *programs = sys.argv[1:]
    found = set().union(*map(libraries, programs))
    names = {library: owner(library) for library in found}
    if missing := sorted(library for library, name in names.items() if name is None):
        print(f"sbom: no package has {', '.join(missing)}: left out", file=sys.stderr)
    packages = sorted((package(name) for name in set(names.values()) - {None}), key=lambda p: p["name"])
    ours = {
        "SPDXID": "SPDXRef-projector", "name": "projector", "versionInfo": version, "supplier": "NOASSERTION",
        "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "primaryPackagePurpose": "APPLICATION",
        "licenseConcluded": "Apache-2.0", "licenseDeclared": "Apache-2.0", "copyrightText": "NOASSERTION",
    }
    digest = hashlib.sha256(json.dumps([version, packages]).encode()
                            + b"".join(Path(program).read_bytes() for program in programs)).hexdigest()
    created = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    json.dump({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"projector-{version}", "documentNamespace": uuid.uuid5(uuid.NAMESPACE_OID, digest).urn,
        "creationInfo": {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", created), "creators": ["Tool: projector-sbom"]},
        "packages": [ours, *packages],
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": ours["SPDXID"]},
            *({"spdxElementId": ours["SPDXID"], "relationshipType": "DEPENDS_ON", "relatedSpdxElement": p["SPDXID"]}
              for p in packages)],
    }, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
