{{- define "unio4.trackingUri" -}}
{{- if .Values.mlflow.enabled -}}
http://{{ include "unio4.serviceHost" (list . "mlflow") }}:{{ .Values.mlflow.service.port }}{{ .Values.mlflow.staticPrefix }}
{{- else -}}
{{- .Values.mlflow.external.trackingUri -}}
{{- end -}}
{{- end -}}

{{/* Secret with user name and password for MLflow; empty for none. */}}
{{- define "unio4.mlflowSecret" -}}
{{- if not .Values.mlflow.enabled -}}
{{- .Values.mlflow.external.existingSecret -}}
{{- else if .Values.mlflow.auth.enabled -}}
{{- default (printf "%s-mlflow" (include "unio4.fullname" .)) .Values.mlflow.auth.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* Secret with name and password of the pipeline's pods, who are no administrators; empty for none. */}}
{{- define "unio4.pipelineMlflowSecret" -}}
{{- if .Values.pipeline.mlflowSecret -}}
{{- .Values.pipeline.mlflowSecret -}}
{{- else if not .Values.mlflow.enabled -}}
{{- .Values.mlflow.external.existingSecret -}}
{{- else if .Values.mlflow.auth.enabled -}}
{{- include "unio4.fullname" . }}-mlflow-pipeline
{{- end -}}
{{- end -}}

{{/* Environment of a client of MLflow: (list $ secretName). */}}
{{- define "unio4.mlflowClientEnv" -}}
- name: MLFLOW_TRACKING_URI
  value: {{ include "unio4.trackingUri" (index . 0) }}
{{- with index . 1 }}
- name: MLFLOW_TRACKING_USERNAME
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: MLFLOW_TRACKING_USERNAME}
- name: MLFLOW_TRACKING_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: MLFLOW_TRACKING_PASSWORD}
{{- end }}
{{- end -}}

{{/*
Every name by which a client may call the server: MLflow answers 403 to all others. With a port and without,
because clients leave out the standard ones. `$(POD_IP)` is what a scraper of metrics calls; IPv6 has brackets
in an address, which mean something else in a pattern.
*/}}
{{- define "unio4.allowedHosts" -}}
{{- $service := printf "%s-mlflow" (include "unio4.fullname" .) -}}
{{- $inNamespace := printf "%s.%s" $service .Release.Namespace -}}
{{- $names := list "localhost" "127.0.0.1" "$(POD_IP)" "[$(POD_IP)]" $service $inNamespace (printf "%s.svc" $inNamespace) (include "unio4.serviceHost" (list . "mlflow")) -}}
{{- if .Values.mlflow.ingress.enabled }}{{ $names = append $names .Values.mlflow.ingress.host }}{{ end -}}
{{- if .Values.mlflow.httpRoute.enabled }}{{ $names = concat $names .Values.mlflow.httpRoute.hostnames }}{{ end -}}
{{- $all := list -}}
{{- range $names }}{{ $all = concat $all (list . (printf "%s:*" (replace "[$" "[[]$" .))) }}{{ end -}}
{{- join "," (concat $all .Values.mlflow.allowedHosts) -}}
{{- end -}}

{{/* libpq reads these; so no URI holds a password, and none has to be escaped. */}}
{{- define "unio4.databaseEnv" -}}
{{- $database := .Values.database -}}
{{- $external := eq $database.mode "external" -}}
{{- if ne $database.mode "sqlite" }}
- name: PGHOST
  value: {{ ternary $database.external.host (include "unio4.serviceHost" (list . "postgresql")) $external }}
- name: PGPORT
  value: {{ ternary $database.external.port 5432 $external | quote }}
- name: PGDATABASE
  value: {{ $database.name }}
- name: PGSSLMODE
  value: {{ ternary $database.external.sslMode "disable" $external }}
{{- if and $external .Values.global.caBundle.existingConfigMap }}
- name: PGSSLROOTCERT
  value: /etc/unio4/ca/ca.crt
{{- end }}
- name: PGUSER
  {{- if and $external $database.external.userKey }}
  valueFrom:
    secretKeyRef:
      name: {{ $database.external.existingSecret }}
      key: {{ $database.external.userKey }}
  {{- else }}
  value: {{ $database.user }}
  {{- end }}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "unio4.databaseSecret" . }}
      key: {{ ternary $database.external.passwordKey "password" $external }}
{{- end }}
- name: MLFLOW_BACKEND_STORE_URI
  value: {{ include "unio4.databaseUri" (list . "mlflow") }}
{{- end -}}

{{- define "unio4.databaseSecret" -}}
{{- if eq .Values.database.mode "external" -}}
{{- .Values.database.external.existingSecret -}}
{{- else -}}
{{- default (printf "%s-postgresql" (include "unio4.fullname" .)) .Values.database.internal.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* (list $ "mlflow"): SQLite has a file for each of MLflow's two databases, PostgreSQL one database for both. */}}
{{- define "unio4.databaseUri" -}}
{{- if eq (index . 0).Values.database.mode "sqlite" -}}
sqlite:////data/{{ index . 1 }}.db
{{- else -}}
postgresql+psycopg2://
{{- end -}}
{{- end -}}
