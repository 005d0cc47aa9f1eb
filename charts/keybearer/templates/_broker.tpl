{{/* The broker's own words. */}}

{{/* The Secret with its certificate. */}}
{{- define "keybearer.broker.secret" -}}
{{- $certificate := .Values.broker.certificate -}}
{{- if eq $certificate.source "existingSecret" -}}{{ $certificate.existingSecret }}
{{- else -}}{{ include "keybearer.broker" . }}-tls
{{- end -}}
{{- end -}}

{{/* Whether sidecars are told whom to believe: "true" or nothing. */}}
{{- define "keybearer.broker.roots" -}}
{{- if and .Values.broker.enabled .Values.broker.certificate.privateRoots -}}true{{- end -}}
{{- end -}}

{{/* The names that its certificate is for. */}}
{{- define "keybearer.broker.names" -}}
{{- $name := printf "%s.%s.svc" (include "keybearer.broker" .) .Release.Namespace -}}
{{- list $name (printf "%s.cluster.local" $name) | toJson -}}
{{- end -}}

{{/* keybearer.yaml */}}
{{- define "keybearer.broker.settings" -}}
{{- $values := .Values.broker -}}
{{- $vault := dict "backend" "postgres" "key" (dict "env" "KEYBEARER_VAULT_KEY") -}}
{{- if $values.vault.nextKeyKey -}}
{{- $_ := set $vault "next_key" (dict "env" "VAULT_NEXT_KEY") -}}
{{- end -}}
{{- if or $values.vault.roots.configMap $values.vault.roots.secret -}}
{{- $_ := set $vault "roots" (dict "file" "/etc/keybearer/database/ca.crt") -}}
{{- end -}}
{{- $issuers := list -}}
{{- if $values.clusterIssuer.enabled -}}
{{- $cluster := dict
  "issuer" $values.clusterIssuer.issuer
  "kind" "kubernetes"
  "roots" (dict "file" "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
  "token_file" "/var/run/secrets/kubernetes.io/serviceaccount/token" -}}
{{- if $values.clusterIssuer.jwks -}}
{{- $_ := set $cluster "jwks" (dict "url" $values.clusterIssuer.jwks) -}}
{{- else -}}
{{- $_ := set $cluster "discovery" $values.clusterIssuer.discovery -}}
{{- end -}}
{{- $issuers = list $cluster -}}
{{- end -}}
{{- $policies := list "/etc/keybearer/policies" -}}
{{- if .Values.policies.connectors -}}
{{- $policies = append $policies "/etc/keybearer/connectors" -}}
{{- end -}}
{{- if include "keybearer.bundle" . -}}
{{- $policies = list (dict "bundle" (printf "/etc/keybearer/policies/%s" .Values.policies.bundle.key) "keys" "/etc/keybearer/settings/policies.jwks") -}}
{{- end -}}
{{- $settings := dict
  "data_dir" "/data"
  "listen" (dict "admin" (include "keybearer.listen" (list . 7090)))
  "policies" $policies
  "vault" $vault
  "broker" (dict
    "listen" (include "keybearer.listen" (list . $values.port))
    "certificate" "/etc/keybearer/tls/tls.crt"
    "key" "/etc/keybearer/tls/tls.key"
    "audience" $values.audience
    "issuers" (concat $issuers $values.issuers))
  "telemetry" (include "keybearer.telemetry" . | fromYaml)
-}}
{{- mergeOverwrite $settings $values.config | toYaml -}}
{{- end -}}

{{/* Whether policies come in a signed bundle: its object's name, or nothing. */}}
{{- define "keybearer.bundle" -}}
{{- coalesce .Values.policies.bundle.configMap .Values.policies.bundle.secret | default "" -}}
{{- end -}}

{{/* `data:` of a ConfigMap with the connectors that are wanted: `*` is all of them to Glob, too. */}}
{{- define "keybearer.connectors" -}}
{{- range $name := .Values.policies.connectors }}
{{- range $path, $bytes := $.Files.Glob (printf "connectors/%s.yaml" $name) }}
connector-{{ base $path }}: |
  {{- $bytes | toString | trimSuffix "\n" | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The same with the files of the values. */}}
{{- define "keybearer.files" -}}
{{- range $name, $text := .Values.policies.files }}
{{ $name }}: |
  {{- $text | trimSuffix "\n" | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The ConfigMap with policy files. */}}
{{- define "keybearer.policies" -}}
{{- default (printf "%s-policies" (include "keybearer.name" .)) .Values.policies.existingConfigMap -}}
{{- end -}}
