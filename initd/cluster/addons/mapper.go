package addons

import (
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// mapper finds the REST resource of a kind: first among kinds that every Kubernetes API server has, without asking; else by
// discovery. So the built-in add-ons, which are what a starting machine waits for, cost no discovery.
type mapper struct {
	known      meta.RESTMapper
	discovered meta.ResettableRESTMapper
}

func (m *mapper) find(gvk schema.GroupVersionKind) (*meta.RESTMapping, error) {
	if mapping, err := m.known.RESTMapping(gvk.GroupKind(), gvk.Version); err == nil {
		return mapping, nil
	}
	mapping, err := m.discovered.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) {
		m.discovered.Reset() // its definition may be on the way: look again at the next try
	}
	return mapping, err
}

// builtinKinds are stable and never change their resource or scope.
func builtinKinds() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	add := func(scope meta.RESTScope, group, version string, kinds ...string) {
		for _, kind := range kinds {
			m.Add(schema.GroupVersionKind{Group: group, Version: version, Kind: kind}, scope)
		}
	}
	add(meta.RESTScopeRoot, "", "v1", "Namespace", "PersistentVolume")
	add(meta.RESTScopeNamespace, "", "v1", "ConfigMap", "Secret", "Service", "ServiceAccount", "Pod", "PersistentVolumeClaim")
	add(meta.RESTScopeNamespace, "apps", "v1", "Deployment", "DaemonSet", "StatefulSet")
	add(meta.RESTScopeNamespace, "batch", "v1", "Job", "CronJob")
	add(meta.RESTScopeRoot, "rbac.authorization.k8s.io", "v1", "ClusterRole", "ClusterRoleBinding")
	add(meta.RESTScopeNamespace, "rbac.authorization.k8s.io", "v1", "Role", "RoleBinding")
	add(meta.RESTScopeRoot, "storage.k8s.io", "v1", "StorageClass")
	add(meta.RESTScopeRoot, "scheduling.k8s.io", "v1", "PriorityClass")
	add(meta.RESTScopeRoot, "apiregistration.k8s.io", "v1", "APIService")
	add(meta.RESTScopeRoot, "apiextensions.k8s.io", "v1", "CustomResourceDefinition")
	return m
}
