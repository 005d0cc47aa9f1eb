{{/* The webhook's own words. */}}

{{/* The Secret with its certificate, or with the CA by which it makes one itself. */}}
{{- define "keybearer.webhook.secret" -}}
{{- $certificate := .Values.webhook.certificate -}}
{{- if eq $certificate.source "existingSecret" -}}{{ $certificate.existingSecret }}
{{- else if eq $certificate.source "selfManaged" -}}{{ include "keybearer.webhook" . }}-ca
{{- else -}}{{ include "keybearer.webhook" . }}-tls
{{- end -}}
{{- end -}}

{{/* webhook.yaml */}}
{{- define "keybearer.webhook.settings" -}}
{{- $sidecar := .Values.sidecar -}}
{{- $resources := dict -}}
{{- range $name, $of := dict "request" "requests" "limit" "limits" -}}
{{- range $resource := list "cpu" "memory" -}}
{{- $amount := index (default (dict) (index $sidecar.resources $of)) $resource -}}
{{- $_ := set $resources (printf "%s_%s" $resource $name) (kindIs "invalid" $amount | ternary nil (toString $amount)) -}}
{{- end -}}
{{- end -}}
{{- $settings := dict
  "listen" (include "keybearer.listen" (list . 8443))
  "opt_in" (ne .Values.webhook.pods "all")
  "mode" $sidecar.mode
  "identity_required" $sidecar.identityRequired
  "image" (include "keybearer.image" (list . .Values.image))
  "redirect_image" (include "keybearer.image" (list . .Values.redirectImage))
  "uid" $sidecar.uid
  "admin_address" .Values.listenAddress
  "ports" $sidecar.ports
  "resources" $resources
  "redirect" (dict
    "exclude_ports" $sidecar.redirect.excludePorts
    "exclude_networks" $sidecar.redirect.excludeNetworks
    "reject_udp" $sidecar.redirect.rejectUdp)
-}}
{{- if not (kindIs "invalid" $sidecar.skipContainers) -}}
{{- $_ := set $settings "skip_containers" $sidecar.skipContainers -}}
{{- end -}}
{{- if .Values.broker.enabled -}}
{{- $broker := dict
  "url" (printf "https://%s.%s.svc:%v" (include "keybearer.broker" .) .Release.Namespace .Values.broker.port)
  "audience" .Values.broker.audience -}}
{{- if eq (include "keybearer.broker.roots" .) "true" -}}
{{- $_ := set $broker "roots_file" "/etc/keybearer/broker/ca.crt" -}}
{{- end -}}
{{- $_ := set $settings "broker" $broker -}}
{{- else -}}
{{- $_ := set $settings "config_map" $sidecar.local.configMap -}}
{{- $_ := set $settings "policies" $sidecar.local.policiesConfigMap -}}
{{- $_ := set $settings "secret" $sidecar.local.secret -}}
{{- end -}}
{{- if eq .Values.webhook.certificate.source "selfManaged" -}}
{{- $_ := set $settings "certificate" nil -}}
{{- $_ := set $settings "self_managed" (dict
  "configuration" (include "keybearer.webhook" .)
  "service" (include "keybearer.webhook" .)
  "secret" (include "keybearer.webhook.secret" .)) -}}
{{- end -}}
{{- $telemetry := include "keybearer.telemetry" . | fromYaml -}}
{{- dict "data_dir" "/data" "webhook" (mergeOverwrite $settings .Values.webhook.config) "telemetry" $telemetry | toYaml -}}
{{- end -}}
