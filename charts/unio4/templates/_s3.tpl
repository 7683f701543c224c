{{/* Secret with S3's keys; empty where the service account's identity is used. */}}
{{- define "unio4.s3Secret" -}}
{{- if .Values.s3.internal.enabled -}}
{{- default (printf "%s-s3" (include "unio4.fullname" .)) .Values.s3.internal.existingSecret -}}
{{- else -}}
{{- .Values.s3.external.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* URL of the S3 service; empty for AWS. */}}
{{- define "unio4.s3Endpoint" -}}
{{- if .Values.s3.internal.enabled -}}
http://{{ include "unio4.serviceHost" (list . "s3") }}:8333
{{- else -}}
{{- .Values.s3.external.endpoint -}}
{{- end -}}
{{- end -}}

{{/* A folder of ours in the bucket: (list $ "mlflow"). */}}
{{- define "unio4.s3Uri" -}}
{{- $s3 := (index . 0).Values.s3 -}}
{{- join "/" (compact (list (printf "s3://%s" $s3.bucket) $s3.prefix (index . 1))) -}}
{{- end -}}

{{/* What an S3 client needs that is no secret, as a map in YAML. */}}
{{- define "unio4.s3Settings" -}}
AWS_REGION: {{ .Values.s3.region }}
AWS_DEFAULT_REGION: {{ .Values.s3.region }}
{{- with include "unio4.s3Endpoint" . }}
AWS_ENDPOINT_URL_S3: {{ . }}
# Services other than AWS do not all know the checksums that boto3 sends by default.
AWS_REQUEST_CHECKSUM_CALCULATION: when_required
AWS_RESPONSE_CHECKSUM_VALIDATION: when_required
{{- end }}
{{- end -}}

{{/* Environment of an S3 client. */}}
{{- define "unio4.s3Env" -}}
{{- range $name, $value := include "unio4.s3Settings" . | fromYaml }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with include "unio4.s3Secret" . }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: AWS_ACCESS_KEY_ID
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: AWS_SECRET_ACCESS_KEY
{{- end }}
{{- end -}}
