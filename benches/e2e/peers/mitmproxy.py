"""Leads mitmproxy to the benchmark's provider: its hosts have no DNS, and http:// means TLS to the provider."""

PORTS = {}
HOSTS = {port: host for host, port in PORTS.items()}


def requestheaders(flow):
    if flow.request.scheme == "http":
        host = flow.request.host
        flow.request.scheme = "https"
        # The address itself, so that mitmproxy finds the open connection again at the next request.
        flow.request.host, flow.request.port = "127.0.0.1", PORTS[host]
        flow.request.host_header = host


def server_connect(data):
    host, port = data.server.address
    if host in PORTS:
        data.server.address = ("127.0.0.1", PORTS[host])
        data.server.sni = data.server.sni or host
    else:
        data.server.sni = HOSTS[port]
