{{/* Names, labels and images. */}}

{{- define "keybearer.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "keybearer.webhook" -}}{{ include "keybearer.name" . }}-webhook{{- end -}}
{{- define "keybearer.broker" -}}{{ include "keybearer.name" . }}-broker{{- end -}}

{{/* What never changes, and so what is selected by: (list root component) */}}
{{- define "keybearer.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Ours win over those of the values: (list root component) */}}
{{- define "keybearer.labels" -}}
{{- $root := index . 0 -}}
{{- $ours := dict
  "app.kubernetes.io/part-of" $root.Chart.Name
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- merge (include "keybearer.selector" . | fromYaml) $ours $root.Values.commonLabels | toYaml -}}
{{- end -}}

{{/* What stands below `metadata:`: (list root component name [annotations]) */}}
{{- define "keybearer.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
{{ include "keybearer.beside" . }}
{{- end -}}

{{/* The same of what is in no namespace. */}}
{{- define "keybearer.metadata.cluster" -}}
name: {{ index . 2 }}
{{ include "keybearer.beside" . }}
{{- end -}}

{{- define "keybearer.beside" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "keybearer.labels" (list $root (index . 1)) | nindent 2 }}
{{- $own := dict }}{{ if gt (len .) 3 }}{{ $own = index . 3 }}{{ end }}
{{- with merge (dict) $own $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* (list root image) */}}
{{- define "keybearer.image" -}}
{{- $image := index . 1 -}}
{{- $image.repository -}}
{{- if $image.digest -}}@{{ $image.digest }}
{{- else -}}:{{ default (index . 0).Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{/* (list root component) */}}
{{- define "keybearer.account" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $account := (index $root.Values $component).serviceAccount -}}
{{- if $account.name -}}{{ $account.name }}
{{- else if $account.create -}}{{ include (printf "keybearer.%s" $component) $root }}
{{- else -}}default
{{- end -}}
{{- end -}}

{{/* An address and a port, as programs read them: (list root port) */}}
{{- define "keybearer.listen" -}}
{{- $address := (index . 0).Values.listenAddress -}}
{{- if contains ":" $address -}}[{{ $address }}]{{- else -}}{{ $address }}{{- end -}}
:{{ index . 1 }}
{{- end -}}

{{/* `telemetry:` of a configuration. */}}
{{- define "keybearer.telemetry" -}}
format: {{ .Values.telemetry.format }}
level: {{ .Values.telemetry.level | quote }}
tenant_labels: {{ .Values.telemetry.tenantLabels }}
{{- end -}}
