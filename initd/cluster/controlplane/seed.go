package controlplane

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/uuid"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"

	"github.com/skerryos/skerry/initd/cluster/datastore"
)

// The rules of a cluster (default ClusterRoles, Roles and their bindings) are 150 objects, and all else waits for them: the API
// server writes them one by one through its own front door when it starts, and is not ready before. That is a quarter of a
// small machine's first start. So a new datastore is given them at once, as the API server would store them, and the API
// server's own step, which mends and upgrades them, runs when it is ready. docs/decisions/0015 has more.

// storagePrefix is the API server's --etcd-prefix.
const storagePrefix = "/registry"

// SeedEntries are the rules of a new cluster. The order is that in which they depend on each other.
func SeedEntries(now time.Time) ([]datastore.Entry, error) {
	p := policy()
	e := seeder{now: metav1.NewTime(now.Truncate(time.Second))}
	for i := range p.ClusterRoles {
		e.add("clusterroles/"+p.ClusterRoles[i].Name, &p.ClusterRoles[i], &p.ClusterRoles[i].ObjectMeta)
	}
	for i := range p.ClusterRoleBindings {
		e.add("clusterrolebindings/"+p.ClusterRoleBindings[i].Name, &p.ClusterRoleBindings[i], &p.ClusterRoleBindings[i].ObjectMeta)
	}
	for namespace, roles := range p.Roles {
		for i := range roles {
			roles[i].Namespace = namespace
			e.add("roles/"+namespace+"/"+roles[i].Name, &roles[i], &roles[i].ObjectMeta)
		}
	}
	for namespace, bindings := range p.RoleBindings {
		for i := range bindings {
			bindings[i].Namespace = namespace
			e.add("rolebindings/"+namespace+"/"+bindings[i].Name, &bindings[i], &bindings[i].ObjectMeta)
		}
	}
	return e.entries, e.err
}

// policy is what the API server's own step works with (RESTStorageProvider.PostStartHook of its package rbac/rest). It is a copy
// all through: that package's tables are not to be written to.
func policy() *rbacrest.PolicyData {
	p := &rbacrest.PolicyData{
		ClusterRoles:               append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...),
		ClusterRoleBindings:        append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...),
		Roles:                      map[string][]rbacv1.Role{},
		RoleBindings:               map[string][]rbacv1.RoleBinding{},
		ClusterRolesToAggregate:    bootstrappolicy.ClusterRolesToAggregate(),
		ClusterRoleBindingsToSplit: bootstrappolicy.ClusterRoleBindingsToSplit(),
	}
	for namespace, roles := range bootstrappolicy.NamespaceRoles() {
		p.Roles[namespace] = slices.Clone(roles)
	}
	for namespace, bindings := range bootstrappolicy.NamespaceRoleBindings() {
		p.RoleBindings[namespace] = slices.Clone(bindings)
	}
	return p
}

type seeder struct {
	now     metav1.Time
	entries []datastore.Entry
	err     error
}

// codec writes what the API server reads: protocol buffers in the group's storage version, which is v1.
var codec = scheme.Codecs.EncoderForVersion(protobuf.NewSerializer(scheme.Scheme, scheme.Scheme), rbacv1.SchemeGroupVersion)

func (s *seeder) add(key string, object runtime.Object, meta *metav1.ObjectMeta) {
	if s.err != nil {
		return
	}
	meta.UID, meta.CreationTimestamp = uuid.NewUUID(), s.now
	value, err := runtime.Encode(codec, object)
	if err != nil {
		s.err = fmt.Errorf("cannot encode %s of a new cluster: %w", key, err)
		return
	}
	s.entries = append(s.entries, datastore.Entry{Key: storagePrefix + "/" + key, Value: value})
}

// EnsureRules mends the rules of the cluster, and adds those of a newer version; see above.
func EnsureRules(ctx context.Context, c *rest.Config) {
	ensure := policy().EnsureRBACPolicy()
	for ctx.Err() == nil {
		// It ends with an error after half a minute, which a slow machine with much to do may need.
		err := ensure(genericapiserver.PostStartHookContext{LoopbackClientConfig: c, Context: ctx})
		if err == nil {
			return
		}
		slog.Warn("cannot check the rules of the cluster; trying again", "reason", err)
	}
}
