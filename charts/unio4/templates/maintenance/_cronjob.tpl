{{/* Everything of a CronJob but its containers: (list $ name schedule valuesOfTheComponent). */}}
{{- define "unio4.cronJobHead" -}}
{{- $root := index . 0 -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ include "unio4.fullname" $root }}-{{ index . 1 }}
  labels:
    {{- include "unio4.labels" (list $root "jobs") | nindent 4 }}
spec:
  schedule: {{ index . 2 | quote }}
  concurrencyPolicy: Forbid
  # Without it, a hundred missed times stop the schedule for ever.
  startingDeadlineSeconds: 3600
  jobTemplate:
    spec:
      backoffLimit: 1
      activeDeadlineSeconds: 21600
      template:
        metadata:
          labels:
            {{- include "unio4.podLabels" (list $root "jobs") | nindent 12 }}
          {{- with $root.Values.podAnnotations }}
          annotations:
            {{- toYaml . | nindent 12 }}
          {{- end }}
        spec:
          restartPolicy: Never
          serviceAccountName: {{ include "unio4.fullname" $root }}-jobs
          {{- include "unio4.podSpec" (list $root (index . 3)) | trim | nindent 10 }}
{{- end -}}
