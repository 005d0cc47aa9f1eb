"""Renders a chart as `helm install` and `helm upgrade` would, by Helm's own code.

On standard input {"chart": DIR, "cases": [{"values": YAML, "name": RELEASE, "namespace": NAMESPACE, "there": [...]}]}.
Prints a list with {"lint": [...], "error": TEXT} or {"lint": [...], "files": {PATH: TEXT}, "objects": [...]} for each case:
what Helm's linter finds, why it does not render, what it renders, and the Kubernetes objects in it. `there` are Secrets that
the cluster has already."""

import contextlib
import http.server
import json
import sys
import threading

import helm_python as helm
import yaml

INFO = 1  # "icon is recommended"
SECRETS = {"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret", "verbs": ["get", "list"]}


@contextlib.contextmanager
def cluster(secrets):
    """As much of an API server as a chart's `lookup` asks."""
    answers = {"/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [SECRETS]}}
    for secret in secrets:
        name = secret["metadata"]
        answers[f"/api/v1/namespaces/{name['namespace']}/secrets/{name['name']}"] = secret
    not_found = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers.get(self.path.split("?")[0], not_found)
            body = json.dumps(answer).encode()
            self.send_response(answer.get("code", 200))
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        }
        with helm.Config(kubeconfig_content=json.dumps(config)) as client:
            yield client
        server.shutdown()


def rendered(chart, case):
    values = helm.values_from_yaml(case["values"])
    of = {"name": case["name"], "namespace": case["namespace"]}
    try:
        if "there" in case:
            with cluster(case["there"]) as client:
                files = client.render(chart, values, is_upgrade=True, **of)
        else:
            files = chart.render(values, **of)
    except helm.HelmError as error:
        return {"lint": [], "error": str(error)}
    report = helm.lint(wanted["chart"], values, strict=True, namespace=case["namespace"])
    lint = [message for message in report["messages"] if message["severity"] > INFO] + report["errors"]
    files = {path: text for path, text in sorted(files.items()) if text.strip()}
    # As kubectl and Helm do, by YAML 1.1.
    manifests = [text for path, text in files.items() if not path.endswith(".txt")]
    objects = [thing for text in manifests for thing in yaml.safe_load_all(text) if thing]
    return {"lint": lint, "files": files, "objects": objects}


wanted = json.load(sys.stdin)
with helm.Chart.load(wanted["chart"]) as chart:
    json.dump([rendered(chart, case) for case in wanted["cases"]], sys.stdout)
