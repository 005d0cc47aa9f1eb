"""Checks Kubernetes objects (a JSON list on standard input) against the OpenAPI schemas of the versions named as
arguments. A field that a schema does not have is a fault, too. Prints what is wrong, a line each."""

import json
import sys

import kubernetes_validate

for thing in json.load(sys.stdin):
    for version in sys.argv[1:]:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(step) for step in error.path)
            print(f"{thing['kind']} {thing['metadata'].get('name')} in {version}: {place}: {error.message}")
