package controlplane

import (
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/kubernetes/scheme"
)

// The API server reads a stored object by a decoder that knows the kind from the bytes: so does this test.
func TestSeedEntries(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 500, time.UTC)
	entries, err := SeedEntries(now)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, e := range entries {
		if keys[e.Key] {
			t.Errorf("%s is there twice", e.Key)
		}
		keys[e.Key] = true
		object, kind, err := scheme.Codecs.UniversalDeserializer().Decode(e.Value, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", e.Key, err)
			continue
		}
		if !strings.HasPrefix(e.Key, "/registry/"+strings.ToLower(kind.Kind)+"s/") {
			t.Errorf("%s holds a %s", e.Key, kind.Kind)
		}
		if r, ok := object.(*rbacv1.ClusterRole); ok && (r.UID == "" || r.CreationTimestamp.Unix() != now.Unix() || len(r.Labels) == 0) {
			t.Errorf("%s is not as the API server would store it: %+v", e.Key, r.ObjectMeta)
		}
	}
	for _, want := range []string{
		"/registry/clusterroles/cluster-admin",
		"/registry/clusterrolebindings/system:kube-scheduler",
		"/registry/clusterroles/system:controller:node-controller",
		"/registry/roles/kube-system/extension-apiserver-authentication-reader",
		"/registry/rolebindings/kube-system/system::extension-apiserver-authentication-reader",
	} {
		if !keys[want] {
			t.Errorf("%s is missing among %d", want, len(entries))
		}
	}
}
