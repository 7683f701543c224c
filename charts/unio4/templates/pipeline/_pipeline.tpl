{{- define "unio4.pipelineAccount" -}}
{{- default (printf "%s-pipeline" (include "unio4.fullname" .)) .Values.pipeline.serviceAccount.name -}}
{{- end -}}

{{/* Where a KFP of many users keeps pipelines and runs them. */}}
{{- define "unio4.runNamespace" -}}
{{- default .Release.Namespace .Values.kfp.namespace -}}
{{- end -}}

{{/* Name in KFP of a compiled pipeline: (list $ "unio4-sweep"). Two releases have two, or the last would win. */}}
{{- define "unio4.pipelineName" -}}
{{- $root := index . 0 -}}
{{- default (include "unio4.fullname" $root) $root.Values.kfp.pipelineName }}{{ index . 1 | trimPrefix "unio4" -}}
{{- end -}}

{{/* Variables of the pipeline's pods that are no secrets, as a map in YAML. */}}
{{- define "unio4.pipelineEnvironment" -}}
{{- $known := include "unio4.s3Settings" . | fromYaml -}}
{{- with .Values.global.caBundle -}}
{{- if .existingConfigMap -}}
{{- range list "AWS_CA_BUNDLE" "REQUESTS_CA_BUNDLE" "SSL_CERT_FILE" -}}
{{- $_ := set $known . (printf "/etc/unio4/ca/%s" $.Values.global.caBundle.key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- merge (dict) .Values.pipeline.environment $known | toYaml -}}
{{- end -}}

{{/* Defaults of the pipelines' parameters, as a map in YAML. */}}
{{- define "unio4.pipelineParameters" -}}
{{- $places := dict
      "artifact_root" (include "unio4.s3Uri" (list . "artifacts"))
      "mlflow_tracking_uri" (include "unio4.trackingUri" .) -}}
{{- merge (dict) .Values.pipeline.parameters $places | toYaml -}}
{{- end -}}

{{/*
A compiled pipeline as it is to run here: (list $ text). Compiled pipelines know images as unio4/<stage>:<version>, and
secrets and settings by the names that they have in a release called "unio4".
*/}}
{{- define "unio4.pipeline" -}}
{{- $root := index . 0 -}}
{{- $text := index . 1 -}}
{{- range regexFindAll "unio4/[a-z-]+:[A-Za-z0-9._-]+" $text -1 | uniq -}}
{{- $text = replace . (include "unio4.ownImage" (list $root (regexFind "/[a-z-]+" . | trimPrefix "/"))) $text -}}
{{- end -}}
{{- $documents := regexSplit "(?m)^---$" $text -1 -}}
{{- $spec := first $documents | fromYaml -}}
{{- $_ := set $spec.pipelineInfo "name" (include "unio4.pipelineName" (list $root $spec.pipelineInfo.name)) -}}
{{- $declared := $spec.root.inputDefinitions.parameters -}}
{{- range $name, $value := include "unio4.pipelineParameters" $root | fromYaml -}}
{{- with get $declared $name -}}
{{- if and (eq .parameterType "STRING") (not (kindIs "string" $value)) -}}
{{- fail (printf "pipeline.parameters.%s: expected text, got %v: put it in quotes" $name $value) -}}
{{- end -}}
{{- $_ := set . "defaultValue" $value -}}
{{- $_ := set . "isOptional" true -}}
{{- end -}}
{{- end -}}
{{- $kubernetes := rest $documents | first | fromYaml -}}
{{- $environment := include "unio4.pipelineEnvironment" $root | fromYaml -}}
{{- range $name, $task := $kubernetes.platforms.kubernetes.deploymentSpec.executors -}}
{{- include "unio4.pipelineTask" (list $root $task $environment) -}}
{{- if eq $name "exec-prepare-dataset" }}{{ include "unio4.pipelineClaims" (list $root $task) }}{{ end -}}
{{- end -}}
{{ toYaml $spec }}
---
{{ toYaml $kubernetes }}
{{- end -}}

{{/* Changes what one task asks of Kubernetes: (list $ task environment). Writes nothing. */}}
{{- define "unio4.pipelineTask" -}}
{{- $root := index . 0 -}}
{{- $task := index . 1 -}}
{{- $environment := index . 2 -}}
{{- range $task.secretAsEnv -}}
{{- $compiled := .secretName -}}
{{- $here := dict "unio4-s3" (include "unio4.pipelineS3Secret" $root) "unio4-mlflow" (include "unio4.pipelineMlflowSecret" $root) -}}
{{- $name := default $compiled (get $here $compiled) -}}
{{- $_ := set . "secretName" $name -}}
{{- $_ := set .secretNameParameter.runtimeValue "constant" $name -}}
{{- /* Kubernetes refuses a variable that has two sources. */ -}}
{{- $keys := list -}}
{{- range .keyToEnv }}{{ if not (hasKey $environment .envVar) }}{{ $keys = append $keys . }}{{ end }}{{ end -}}
{{- $_ := set . "keyToEnv" $keys -}}
{{- end -}}
{{- range $task.configMapAsEnv -}}
{{- if eq .configMapName "unio4-environment" -}}
{{- $name := printf "%s-environment" (include "unio4.fullname" $root) -}}
{{- $_ := set . "configMapName" $name -}}
{{- $_ := set .configMapNameParameter.runtimeValue "constant" $name -}}
{{- $keys := list -}}
{{- range keys $environment | sortAlpha }}{{ $keys = append $keys (dict "configMapKey" . "envVar" .) }}{{ end -}}
{{- $_ := set . "keyToEnv" $keys -}}
{{- end -}}
{{- end -}}
{{- with $root.Values.global.caBundle.existingConfigMap -}}
{{- $volume := dict
      "configMapName" .
      "configMapNameParameter" (dict "runtimeValue" (dict "constant" .))
      "mountPath" "/etc/unio4/ca"
      "optional" false -}}
{{- $_ := set $task "configMapAsVolume" (append (default list $task.configMapAsVolume) $volume) -}}
{{- end -}}
{{- end -}}

{{/* Mounts the claims with datasets: (list $ task). One stage reads them, so that they need not be on several nodes. */}}
{{- define "unio4.pipelineClaims" -}}
{{- $task := index . 1 -}}
{{- range (index . 0).Values.pipeline.claims -}}
{{- $mount := dict
      "constant" .name
      "pvcNameParameter" (dict "runtimeValue" (dict "constant" .name))
      "mountPath" .mountPath -}}
{{- $_ := set $task "pvcMount" (append (default list $task.pvcMount) $mount) -}}
{{- end -}}
{{- end -}}
