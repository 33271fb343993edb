package metricsserver

import (
	"slices"

	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/metrics-server/pkg/api/generated/openapi"
)

// definitions are the schemas that metrics-server was generated with, under the names that the types have now. It was
// generated when a type was known by its Go path (k8s.io/metrics/pkg/apis/metrics/v1beta1.NodeMetrics); since Kubernetes 1.35
// the types name themselves (io.k8s.metrics.pkg.apis...), and a server that does not find its types by that name ends.
func definitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	generated := openapi.GetOpenAPIDefinitions(func(path string) spec.Ref { return ref(util.ToRESTFriendlyName(path)) })
	out := make(map[string]common.OpenAPIDefinition, len(generated))
	for path, definition := range generated {
		definition.Dependencies = slices.Clone(definition.Dependencies)
		for i, path := range definition.Dependencies {
			definition.Dependencies[i] = util.ToRESTFriendlyName(path)
		}
		out[util.ToRESTFriendlyName(path)] = definition
	}
	return out
}
