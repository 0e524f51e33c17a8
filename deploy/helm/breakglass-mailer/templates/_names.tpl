{{- define "breakglass-mailer.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "breakglass-mailer.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "breakglass-mailer.labels" -}}
{{ include "breakglass-mailer.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "breakglass-mailer.subject" -}}
kind: ServiceAccount
name: {{ include "breakglass-mailer.name" . }}
namespace: {{ .Release.Namespace }}
{{- end }}
