{{- /* Names, and what several objects have in common. */ -}}

{{- define "ottla.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ottla.selector" -}}
app.kubernetes.io/name: ottla
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ottla.labels" -}}
{{ include "ottla.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- /* Where the node of an id is, in every namespace. $(POD_NAMESPACE) is filled in by the
kubelet: the manifests say the same in each. */ -}}
{{- define "ottla.address" -}}
{{ include "ottla.name" .root }}-{{ .id }}.{{ include "ottla.name" .root }}-nodes.$(POD_NAMESPACE).svc.{{ .root.Values.clusterDomain }}:7401
{{- end -}}

{{- define "ottla.voters" -}}
{{- $root := . -}}
{{- range $id := untilStep 1 (int (add .Values.voters 1)) 1 -}}
{{- if gt $id 1 }},{{ end }}{{ $id }}={{ include "ottla.address" (dict "root" $root "id" $id) }}
{{- end -}}
{{- end -}}

{{- define "ottla.bootstrap" -}}
{{- $root := . -}}
127.0.0.1:7401
{{- range $id := untilStep 1 (int (add .Values.voters 1)) 1 -}}
,{{ include "ottla.address" (dict "root" $root "id" $id) }}
{{- end -}}
{{- end -}}

{{- define "ottla.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- /* What the node and its formatting are told. A node's id is its pod's ordinal. */ -}}
{{- define "ottla.env" -}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: OTTLA_NODE_ID
  valueFrom: {fieldRef: {fieldPath: "metadata.labels['apps.kubernetes.io/pod-index']"}}
- name: OTTLA_ADVERTISE
  value: {{ include "ottla.address" (dict "root" . "id" "$(OTTLA_NODE_ID)") }}
- name: OTTLA_VOTERS
  value: {{ include "ottla.voters" . }}
- name: OTTLA_BOOTSTRAP
  value: {{ include "ottla.bootstrap" . }}
{{- with .Values.rackFromLabel }}
- name: OTTLA_RACK
  valueFrom: {fieldRef: {fieldPath: "metadata.labels['{{ . }}']"}}
{{- end }}
{{- end -}}

{{- define "ottla.container" -}}
image: {{ include "ottla.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  {{- include "ottla.env" . | nindent 2 }}
envFrom:
  - configMapRef: {name: {{ include "ottla.name" . }}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: data, mountPath: /var/lib/ottla}
{{- end -}}
