package metricsserver

import (
	"testing"

	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// Each type that is served, and each type that one of them needs, has a schema under its own name.
func TestDefinitionsAreComplete(t *testing.T) {
	referenced := map[string]bool{}
	all := definitions(func(name string) spec.Ref {
		referenced[name] = true
		return spec.MustCreateRef("#/definitions/" + common.EscapeJsonPointer(name))
	})
	seen := map[string]bool{}
	var need func(name, by string)
	need = func(name, by string) {
		if seen[name] {
			return
		}
		seen[name] = true
		d, ok := all[name]
		if !ok {
			t.Errorf("%s, needed by %s, has no schema", name, by)
		}
		for _, dependency := range d.Dependencies {
			if !referenced[dependency] {
				t.Errorf("%s needs %s, but does not refer to it", name, dependency)
			}
			need(dependency, name)
		}
	}
	for _, served := range []any{metrics.NodeMetrics{}, metrics.NodeMetricsList{}, metrics.PodMetrics{}, metrics.PodMetricsList{}} {
		need(util.GetCanonicalTypeName(served), "the API")
	}
	if len(seen) < 10 {
		t.Errorf("only %d types: %v", len(seen), seen)
	}
}
