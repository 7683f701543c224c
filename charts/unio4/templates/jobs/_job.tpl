{{/* The part that all jobs share: (list $ name weight). What a container adds follows in the file of the job. */}}
{{- define "unio4.jobMetadata" -}}
{{- $root := index . 0 -}}
name: {{ include "unio4.fullname" $root }}-{{ index . 1 }}
labels:
  {{- include "unio4.labels" (list $root "jobs") | nindent 2 }}
annotations:
  helm.sh/hook: post-install,post-upgrade,post-rollback
  helm.sh/hook-weight: {{ index . 2 | quote }}
  # A failed job stays for its log, until the next try.
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* When a job is given up. Exit code 2: waiting will not mend it; a drained node is nobody's failure. */}}
{{- define "unio4.jobEnd" -}}
backoffLimit: {{ .Values.jobs.backoffLimit }}
activeDeadlineSeconds: {{ int .Values.jobs.activeDeadlineSeconds }}
podFailurePolicy:
  rules:
    - action: FailJob
      onExitCodes: {operator: In, values: [2]}
      onPodConditions: []  # the schema of Kubernetes 1.27 wants it
    - action: Ignore
      onPodConditions: [{type: DisruptionTarget, status: "True"}]
{{- end -}}

{{/* A container that runs one of our scripts: (list $ "make_bucket.py"). */}}
{{- define "unio4.scriptContainer" -}}
{{- $root := index . 0 -}}
image: {{ include "unio4.ownImage" (list $root $root.Values.jobs.imageName) }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
command: [python, /scripts/{{ index . 1 }}]
securityContext:
  {{- include "unio4.containerSecurity" $root | nindent 2 }}
resources:
  {{- toYaml $root.Values.jobs.resources | nindent 2 }}
{{- end -}}

{{/* Whom KFP's API of many users knows the jobs by. */}}
{{- define "unio4.kfpEnv" -}}
- name: KFP_ENDPOINT
  value: {{ .Values.kfp.endpoint }}
{{- if .Values.kfp.multiUser }}
- name: KFP_NAMESPACE
  value: {{ include "unio4.runNamespace" . }}
- name: KFP_TOKEN_FILE
  value: /var/run/secrets/kubeflow/pipelines/token
{{- end }}
{{- end -}}

{{- define "unio4.kfpMounts" -}}
{{- if .Values.kfp.multiUser }}
- name: kfp-token
  mountPath: /var/run/secrets/kubeflow/pipelines
  readOnly: true
{{- end }}
{{- end -}}

{{- define "unio4.kfpVolumes" -}}
{{- if .Values.kfp.multiUser }}
- name: kfp-token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: pipelines.kubeflow.org
          expirationSeconds: 3600
{{- end }}
{{- end -}}
