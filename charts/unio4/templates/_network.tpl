{{/* Policies look at the port of the pod behind a service: OpenShift's DNS listens on 5353. */}}
{{- define "unio4.egressDns" -}}
- ports:
    {{- range $port := list 53 5353 }}
    - {port: {{ $port }}, protocol: UDP}
    - {port: {{ $port }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{/* `to` of an egress rule; nothing, which is everywhere, for an empty list. */}}
{{- define "unio4.toNetworks" -}}
{{- if . -}}
to:
  {{- range . }}
  - ipBlock:
      cidr: {{ . }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* MLflow's database. */}}
{{- define "unio4.egressDatabase" -}}
{{- if eq .Values.database.mode "internal" -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "unio4.selector" (list . "postgresql") | nindent 10 }}
  ports:
    - port: 5432
{{- else if eq .Values.database.mode "external" -}}
- ports:
    - port: {{ .Values.database.external.port }}
  {{- include "unio4.toNetworks" .Values.database.external.egressCIDRs | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Whether a job reads the database; empty for no. */}}
{{- define "unio4.jobsReadDatabase" -}}
{{- if or .Values.maintenance.mlflowGc.enabled .Values.maintenance.databaseBackup.enabled }}yes{{ end -}}
{{- end -}}

{{/* Where no key is needed, the identity comes from the cloud's token service, which has no fixed address. */}}
{{- define "unio4.egressS3" -}}
{{- if .Values.s3.internal.enabled -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "unio4.selector" (list . "s3") | nindent 10 }}
  ports:
    - port: 8333
{{- else -}}
- ports:
    - port: {{ include "unio4.urlPort" .Values.s3.external.endpoint }}
  {{- include "unio4.toNetworks" .Values.s3.external.egressCIDRs | nindent 2 }}
{{- if not .Values.s3.external.existingSecret }}
- ports:
    - port: 80
    - port: 443
{{- end }}
{{- end -}}
{{- end -}}

{{/* Port of a URL; AWS, which has none, is asked by HTTPS. */}}
{{- define "unio4.urlPort" -}}
{{- $standard := ternary "80" "443" (hasPrefix "http://" .) -}}
{{- default $standard (get (urlParse .) "host" | regexFind ":[0-9]+$" | trimPrefix ":") -}}
{{- end -}}
