{{/* Patches of every DaemonSet: those of the overlays that are chosen, then the values. A YAML list. */}}
{{- define "exporter.patches" -}}
{{- if .Values.tls.enabled }}
- {{ .Files.Get "manifests/overlays/mtls/daemonset.yaml" | fromYaml | toJson }}
{{- end }}
{{- if .Values.bmc.enabled }}
- {{ .Files.Get "manifests/overlays/bmc/daemonset.yaml" | fromYaml | toJson }}
{{- end }}
{{- if .Values.nonroot.enabled }}
- {{ .Files.Get "manifests/overlays/nonroot/daemonset.yaml" | fromYaml | toJson }}
{{- end }}
{{- if .Values.openshift.enabled }}
- {{ .Files.Get "manifests/overlays/openshift/daemonset.yaml" | fromYaml | toJson }}
{{- end }}
- metadata:
    namespace: {{ .Release.Namespace }}
  spec:
    template:
      metadata:
        annotations:
          checksum/settings: {{ toJson .Values.settings | sha256sum }}
          {{- with .Values.podAnnotations }}{{ toYaml . | nindent 10 }}{{ end }}
        {{- with .Values.podLabels }}
        labels: {{ toJson . }}
        {{- end }}
      spec:
        {{- if eq (include "exporter.names" .) "off" }}
        automountServiceAccountToken: false
        {{- end }}
        {{- with .Values.image.pullSecrets }}
        imagePullSecrets: {{ toJson . }}
        {{- end }}
        {{- with .Values.nodeSelector }}
        nodeSelector: {{ toJson . }}
        {{- end }}
        {{- with .Values.tolerations }}
        tolerations: {{ toJson . }}
        {{- end }}
        {{- with .Values.priorityClassName }}
        priorityClassName: {{ quote . }}
        {{- end }}
        {{- with .Values.podSecurityContext }}
        securityContext: {{ toJson . }}
        {{- end }}
        containers:
          - name: exporter
            image: {{ include "exporter.image" . | quote }}
            {{- with .Values.image.pullPolicy }}
            imagePullPolicy: {{ . }}
            {{- end }}
            {{- with .Values.securityContext }}
            securityContext: {{ toJson . }}
            {{- end }}
            {{- with .Values.resources }}
            resources: {{ toJson . }}
            {{- end }}
            {{- $env := .Values.extraEnv }}
            {{- if eq (include "exporter.names" .) "kubelet" }}
            {{- $ip := dict "name" "NODE_IP" "valueFrom" (dict "fieldRef" (dict "fieldPath" "status.hostIP")) }}
            {{- $env = prepend $env $ip }}
            {{- end }}
            {{- if .Values.bmc.enabled }}
            {{- $ref := dict "secretKeyRef" (dict "name" .Values.bmc.secretName "key" "url") }}
            {{- $env = prepend $env (dict "name" "AI_ENERGY_BMC_REDFISH_URL" "valueFrom" $ref) }}
            {{- end }}
            {{- with $env }}
            env: {{ toJson . }}
            {{- end }}
        volumes:
          - name: pod-resources
            hostPath: { path: {{ printf "%s/pod-resources" .Values.kubelet.directory | quote }} }
          - name: state
            hostPath: { path: {{ quote .Values.state.hostPath }} }
          - name: run
            hostPath: { path: {{ quote .Values.regions.hostPath }} }
          {{- if .Values.bmc.enabled }}
          - name: bmc
            secret: { secretName: {{ quote .Values.bmc.secretName }} }
          {{- end }}
          {{- if .Values.tls.enabled }}
          - name: web
            projected:
              sources:
                - configMap: { name: ai-energy-exporter-web }
                - secret: { name: {{ quote .Values.tls.secretName }} }
          {{- end }}
{{- end }}
