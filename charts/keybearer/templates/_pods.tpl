{{/* What the pods of webhook and broker have in common. */}}

{{/* What stands below `metadata:` of a pod's template. Whatever is labelled, our own pods are never injected: (list root component annotations) */}}
{{- define "keybearer.pod.metadata" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
{{- $ours := dict "app.kubernetes.io/version" $root.Chart.AppVersion "keybearer.dev/inject" "false" -}}
labels:
  {{- merge (include "keybearer.selector" (list $root $component) | fromYaml) $ours $values.podLabels $root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge (dict) (index . 2) $values.podAnnotations $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The first lines of a pod's `spec:`, as Pod Security `restricted` asks: (list root component) */}}
{{- define "keybearer.pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
serviceAccountName: {{ include "keybearer.account" . }}
{{- /* Where a token is needed, it is mounted by name. */}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpread.keys }}
topologySpreadConstraints:
  {{- range . }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $values.topologySpread.whenUnsatisfiable }}
    {{- /* Of one rollout: the pods that are about to go do not count. */}}
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "keybearer.selector" (list $root $component) | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The first lines of a container: root */}}
{{- define "keybearer.container" -}}
image: {{ include "keybearer.image" (list . .Values.image) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* A token for the API server and its certificate, as the kubelet would mount them. */}}
{{- define "keybearer.cluster.volume" -}}
- name: cluster
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end -}}

{{/* One object for each of webhook and broker. */}}
{{- define "keybearer.disruption" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "keybearer.metadata" (list $root $component (include (printf "keybearer.%s" $component) $root)) | nindent 2 }}
spec:
  maxUnavailable: {{ (index $root.Values $component).podDisruptionBudget.maxUnavailable }}
  # A replica that is not ready protects nothing.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "keybearer.selector" . | nindent 6 }}
{{- end -}}

{{- define "keybearer.serviceaccount" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "keybearer.metadata" (list $root $component (include "keybearer.account" .) $values.serviceAccount.annotations) | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}
