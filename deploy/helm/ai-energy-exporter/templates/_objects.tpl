{{/* The object of a file of deploy/kubernetes, in the release's namespace. Takes (list $ FILE [TEXT]). */}}
{{- define "exporter.object" -}}
{{- $root := index . 0 -}}
{{- $text := $root.Files.Get (printf "manifests/%s" (index . 1)) -}}
{{- if gt (len .) 2 }}{{ $text = index . 2 }}{{ end -}}
{{- $object := fromYaml $text -}}
{{- if not (hasKey $object "kind") }}{{ fail (printf "%s: %v" (index . 1) $object) }}{{ end -}}
{{- if eq (toString (get $object.metadata "namespace")) "ai-energy-exporter" -}}
{{- $_ := set $object.metadata "namespace" $root.Release.Namespace -}}
{{- end -}}
{{- range get $object "subjects" | default list }}{{ $_ := set . "namespace" $root.Release.Namespace }}{{ end -}}
{{- toYaml $object -}}
{{- end }}

{{/*
Merge a patch into an object, in place, as Kubernetes does: mappings by key, lists of named items by name (mounts by
path), other lists as a whole; null removes. Takes (dict "into" OBJECT "patch" PATCH) and prints nothing.
*/}}
{{- define "exporter.merge" -}}
{{- $into := .into -}}
{{- range $key, $new := .patch -}}
{{- $old := get $into $key -}}
{{- if kindIs "invalid" $new -}}
{{- $_ := unset $into $key -}}
{{- else if and (kindIs "map" $new) (kindIs "map" $old) -}}
{{- include "exporter.merge" (dict "into" $old "patch" $new) -}}
{{- else if and (kindIs "slice" $new) (kindIs "slice" $old) (include "exporter.named" $new) -}}
{{- range $item := $new -}}
{{- $by := ternary "mountPath" "name" (hasKey $item "mountPath") -}}
{{- $found := false -}}
{{- range $old -}}
{{- if eq (toString (get . $by)) (toString (get $item $by)) -}}
{{- $found = true -}}
{{- include "exporter.merge" (dict "into" . "patch" $item) -}}
{{- end -}}
{{- end -}}
{{- if not $found }}{{ $old = append $old $item }}{{ end -}}
{{- end -}}
{{- $_ := set $into $key $old -}}
{{- else -}}
{{- $_ := set $into $key $new -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* "yes" if every item of a list has a name, else "". */}}
{{- define "exporter.named" -}}
{{- $named := true -}}
{{- range . -}}
{{- if not (and (kindIs "map" .) (hasKey . "name")) }}{{ $named = false }}{{ end -}}
{{- end -}}
{{- if $named }}yes{{ end -}}
{{- end }}

{{/* An object with patches merged into it, in their order. Takes (list OBJECT PATCHES). */}}
{{- define "exporter.patched" -}}
{{- $object := index . 0 -}}
{{- range index . 1 }}{{ include "exporter.merge" (dict "into" $object "patch" .) }}{{ end -}}
{{- toYaml $object -}}
{{- end }}

{{- define "exporter.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Where names of pods come from: auto, api, kubelet or off. */}}
{{- define "exporter.names" -}}
{{ get .Values.settings "kubernetes.names" | default "auto" }}
{{- end }}
