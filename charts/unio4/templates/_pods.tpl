{{/* What every pod spec starts with: (list $ valuesOfTheComponent [affinity]). Pod Security "restricted". */}}
{{- define "unio4.podSpec" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- with $root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- $given := dict "fsGroupChangePolicy" "OnRootMismatch" | merge (dict) $component.podSecurityContext }}
  {{- merge (dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault")) $given | toYaml | nindent 2 }}
{{- with $root.Values.scheduling }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with $component.priorityClassName | default $root.Values.scheduling.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- $own := dict }}{{ if gt (len .) 2 }}{{ $own = index . 2 }}{{ end }}
{{- with mergeOverwrite (dict) $own $root.Values.scheduling.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "unio4.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Environment of every Python container: nothing but /tmp can be written, and who is trusted. */}}
{{- define "unio4.pythonEnv" -}}
- name: HOME
  value: /tmp
- name: PYTHONDONTWRITEBYTECODE
  value: "1"
- name: PYTHONUNBUFFERED
  value: "1"
{{- if .Values.global.caBundle.existingConfigMap }}
{{- range list "AWS_CA_BUNDLE" "REQUESTS_CA_BUNDLE" "SSL_CERT_FILE" }}
- name: {{ . }}
  value: /etc/unio4/ca/ca.crt
{{- end }}
{{- end }}
{{- end -}}

{{/* What a team adds to the containers of a component: environment, mounts, volumes. */}}
{{- define "unio4.extraEnv" -}}
{{- with .extraEnv }}{{ toYaml . }}{{ end }}
{{- end -}}

{{- define "unio4.extraMounts" -}}
{{- with .extraVolumeMounts }}{{ toYaml . }}{{ end }}
{{- end -}}

{{- define "unio4.extraVolumes" -}}
{{- with .extraVolumes }}{{ toYaml . }}{{ end }}
{{- end -}}

{{/* (list $ valuesOfTheComponent), as the volumes below. */}}
{{- define "unio4.pythonMounts" -}}
- name: tmp
  mountPath: /tmp
- name: scripts
  mountPath: /scripts
  readOnly: true
{{- if (index . 0).Values.global.caBundle.existingConfigMap }}
- name: ca
  mountPath: /etc/unio4/ca
  readOnly: true
{{- end }}
{{ include "unio4.extraMounts" (index . 1) }}
{{- end -}}

{{- define "unio4.pythonVolumes" -}}
- name: tmp
  emptyDir: {}
- name: scripts
  configMap:
    name: {{ include "unio4.fullname" (index . 0) }}-scripts
{{- with (index . 0).Values.global.caBundle }}
{{- if .existingConfigMap }}
- name: ca
  configMap:
    name: {{ .existingConfigMap }}
    items:
      - key: {{ .key }}
        path: ca.crt
{{- end }}
{{- end }}
{{ include "unio4.extraVolumes" (index . 1) }}
{{- end -}}

{{/*
A value of a secret that is set once: what the cluster has wins, so that upgrades change nothing.
(list $ secretName key value)
*/}}
{{- define "unio4.once" -}}
{{- $root := index . 0 -}}
{{- $there := lookup "v1" "Secret" $root.Release.Namespace (index . 1) -}}
{{- dig "data" (index . 2) (index . 3 | b64enc) $there -}}
{{- end -}}

{{/* A claim for a volume, kept when the release goes: (list $ component persistence accessMode). */}}
{{- define "unio4.claim" -}}
{{- $root := index . 0 -}}
{{- $persistence := index . 2 -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ include "unio4.fullname" $root }}-{{ index . 1 }}
  labels:
    {{- include "unio4.labels" (list $root (index . 1)) | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
spec:
  accessModes: [{{ index . 3 }}]
  {{- with $persistence.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ $persistence.size }}
{{- end -}}
