{{/* What stands below `metadata:` of a monitor, with what Prometheus selects by: (list root component name labels) */}}
{{- define "keybearer.monitor" -}}
{{- $root := index . 0 -}}
name: {{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- merge (include "keybearer.labels" (list $root (index . 1)) | fromYaml) (index . 3) | toYaml | nindent 2 }}
{{- with $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
