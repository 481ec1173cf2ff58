"""The bill of materials names the drivers, with the versions that are installed: check_sbom.py FILE VERSION."""

import json
import subprocess
import sys
from pathlib import Path

document = json.loads(Path(sys.argv[1]).read_text())
versions = {package["name"]: package["versionInfo"] for package in document["packages"]}
ids = {package["SPDXID"] for package in document["packages"]}
assert document["spdxVersion"] == "SPDX-2.3" and document["documentNamespace"].startswith("urn:uuid:")
assert versions["projector"] == sys.argv[2]
for part in ("mongoc", "bson", "jansson", "glib", "mariadb|mysqlclient"):
    assert any(word in name for name in versions for word in part.split("|")), f"{part} is missing: {sorted(versions)}"
for name in set(versions) - {"projector"}:
    assert versions[name] in subprocess.run(["dpkg-query", "-W", "-f", "${Version} ", name], capture_output=True,
                                            text=True, check=True).stdout.split(), name
assert len(ids) == len(document["packages"])
assert {r["relatedSpdxElement"] for r in document["relationships"]} == ids
