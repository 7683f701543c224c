{{/* Secret with S3's keys; empty where the service account's identity is used. */}}
{{- define "unio4.s3Secret" -}}
{{- if .Values.s3.internal.enabled -}}
{{- default (printf "%s-s3" (include "unio4.fullname" .)) .Values.s3.internal.existingSecret -}}
{{- else -}}
{{- .Values.s3.external.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* Secret with the keys of the pipeline's pods, whose rights are fewer. */}}
{{- define "unio4.pipelineS3Secret" -}}
{{- $own := ternary (printf "%s-s3-pipeline" (include "unio4.fullname" .)) .Values.s3.external.existingSecret .Values.s3.internal.enabled -}}
{{- default $own .Values.pipeline.s3Secret -}}
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

{{/* No two pods of SeaweedFS on one node, not even while a Deployment of an older chart gives way to the StatefulSet. */}}
{{- define "unio4.s3Apart" -}}
podAntiAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "unio4.selector" (list . "s3") | nindent 10 }}
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

{{/* Environment of an S3 client with the administrator's keys. */}}
{{- define "unio4.s3Env" -}}
{{- include "unio4.s3ClientEnv" (list . (include "unio4.s3Secret" .)) -}}
{{- end -}}

{{/* Environment of an S3 client: (list $ secretName). */}}
{{- define "unio4.s3ClientEnv" -}}
{{- range $name, $value := include "unio4.s3Settings" (index . 0) | fromYaml }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with index . 1 }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: AWS_ACCESS_KEY_ID}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: AWS_SECRET_ACCESS_KEY}
{{- end }}
{{- end -}}

{{/*
What SeaweedFS lets its two identities do. The pipelines read the bucket and write where artifacts belong; Kubernetes
puts the keys in place of their variables.
*/}}
{{- define "unio4.s3Identities" -}}
{{- $bucket := .Values.s3.bucket -}}
{{- $places := list -}}
{{- range list "artifacts" "kfp" -}}
{{- $places = append $places (printf "%s/*" (include "unio4.s3Uri" (list $ .) | trimPrefix "s3://")) -}}
{{- end -}}
{{- $actions := list (printf "Read:%s" $bucket) (printf "List:%s" $bucket) -}}
{{- range $places }}{{ $actions = concat $actions (list (printf "Write:%s" .) (printf "Tagging:%s" .)) }}{{ end -}}
{{- $identity := dict
      "admin" (list "$(AWS_ACCESS_KEY_ID)" "$(AWS_SECRET_ACCESS_KEY)" (list "Admin" "Read" "Write" "List" "Tagging"))
      "pipeline" (list "$(PIPELINE_ACCESS_KEY_ID)" "$(PIPELINE_SECRET_ACCESS_KEY)" $actions) -}}
{{- $identities := list -}}
{{- range $name, $one := $identity -}}
{{- $keys := dict "accessKey" (index $one 0) "secretKey" (index $one 1) -}}
{{- $identities = append $identities (dict "name" $name "credentials" (list $keys) "actions" (index $one 2)) -}}
{{- end -}}
{{- dict "identities" $identities | toJson -}}
{{- end -}}
