{{- define "unio4.pipelineAccount" -}}
{{- default (printf "%s-pipeline" (include "unio4.fullname" .)) .Values.pipeline.serviceAccount.name -}}
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
{{- $names := dict
      "unio4-s3" (include "unio4.s3Secret" $root)
      "unio4-mlflow" (include "unio4.mlflowSecret" $root)
      "unio4-environment" (printf "%s-environment" (include "unio4.fullname" $root)) -}}
{{- range $compiled, $here := $names -}}
{{- if $here -}}
{{- $text = regexReplaceAll (printf "(?m)((?:secretName|configMapName|constant): )%s$" $compiled) $text (printf "${1}%s" $here) -}}
{{- end -}}
{{- end -}}
{{- $text -}}
{{- end -}}
