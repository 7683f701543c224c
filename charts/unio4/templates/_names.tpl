{{/* The chart's name, as a label. */}}
{{- define "unio4.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/*
Prefix of all names: at most 40 characters, so that every suffix, and what Kubernetes adds to it, fits into 63.
What must be cut gets a digest of the whole, so that two long names stay two.
*/}}
{{- define "unio4.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $whole = default $whole .Values.fullnameOverride -}}
{{- if gt (len $whole) 40 -}}
{{- printf "%s-%s" ($whole | trunc 33 | trimSuffix "-") (sha256sum $whole | trunc 6) -}}
{{- else -}}
{{- $whole -}}
{{- end -}}
{{- end -}}

{{/* Labels that choose the pods of one component: (list $ "mlflow"). */}}
{{- define "unio4.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "unio4.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of one component: (list $ "mlflow"). The chart's own win over those of the values. */}}
{{- define "unio4.labels" -}}
{{- $root := index . 0 -}}
{{- $own := dict
      "app.kubernetes.io/part-of" "unio4"
      "app.kubernetes.io/version" $root.Chart.AppVersion
      "app.kubernetes.io/managed-by" $root.Release.Service
      "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- merge (include "unio4.selector" . | fromYaml) $own $root.Values.commonLabels | toYaml -}}
{{- end -}}

{{/* Labels of a component's pods: (list $ "mlflow"). */}}
{{- define "unio4.podLabels" -}}
{{- $values := (index . 0).Values -}}
{{- /* In a user's namespace Istio adds a side-car, with which no job ends, and refuses pods that have none. */ -}}
{{- $mesh := ternary (dict "sidecar.istio.io/inject" "false") (dict) $values.kfp.multiUser -}}
{{- merge (include "unio4.labels" . | fromYaml) $values.podLabels $mesh | toYaml -}}
{{- end -}}

{{/* Address of a service of ours inside the cluster: (list $ "mlflow"). */}}
{{- define "unio4.serviceHost" -}}
{{- $root := index . 0 -}}
{{ include "unio4.fullname" $root }}-{{ index . 1 }}.{{ $root.Release.Namespace }}.svc.{{ $root.Values.global.clusterDomain }}
{{- end -}}

{{/* An image of others: (list $ .Values.mlflow.image). */}}
{{- define "unio4.image" -}}
{{- $image := index . 1 -}}
{{- $registry := default $image.registry (index . 0).Values.global.imageRegistry -}}
{{- $path := ternary (printf "%s/%s" $registry $image.repository) $image.repository (ne $registry "") -}}
{{- if $image.digest }}{{ $path }}@{{ $image.digest }}{{ else }}{{ $path }}:{{ $image.tag }}{{ end -}}
{{- end -}}

{{/* One of unio4's own images: (list $ "prepare-dataset"). */}}
{{- define "unio4.ownImage" -}}
{{- $root := index . 0 -}}
{{- $image := $root.Values.image -}}
{{- $one := dict
      "registry" $image.registry
      "repository" (printf "%s/%s" $image.repository (index . 1))
      "tag" (default $root.Chart.AppVersion $image.tag)
      "digest" (get $image.digests (index . 1)) -}}
{{- include "unio4.image" (list $root $one) -}}
{{- end -}}

{{/* A quantity of Kubernetes, such as 500m or 2Gi, as a plain number. */}}
{{- define "unio4.quantity" -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $size := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mulf (trimSuffix $unit $text | float64) (get $size $unit) -}}
{{- end -}}
