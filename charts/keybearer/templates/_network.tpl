{{/* Parts of NetworkPolicies, of `networkPolicy:`. */}}

{{- define "keybearer.network.apiServers" -}}
{{- $peers := list -}}
{{- range .apiServers -}}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" .)) -}}
{{- end -}}
{{- toYaml $peers -}}
{{- end -}}

{{- define "keybearer.network.toNames" -}}
# Some clusters answer names at an address of the node, so not by namespace.
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end -}}

{{- define "keybearer.network.toApiServers" -}}
- ports:
    {{- range .apiServerPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- if .apiServers }}
  to:
    {{- include "keybearer.network.apiServers" . | nindent 4 }}
  {{- end }}
{{- end -}}
