package server

import (
	"context"
	"strings"
	"testing"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestJoinObjects(t *testing.T) {
	id := newIdentity(t, "first")
	id.settings.ClusterCIDR = "10.42.0.0/16"
	if err := id.init(); err != nil {
		t.Fatal(err)
	}
	s := &Server{Settings: id.settings, NodeIPs: id.nodeIPs}
	k := fake.NewClientset()
	ctx := context.Background()
	if err := applyBinding(ctx, k, struct{ name, role, group string }{autoApprove, "x", bootstrappers}); err != nil {
		t.Fatal(err)
	}
	write := func() {
		t.Helper()
		if err := s.writeJoinObjects(ctx, id, k); err != nil {
			t.Fatal(err)
		}
	}
	secrets := func() []string {
		t.Helper()
		list, err := k.CoreV1().Secrets(meta.NamespaceSystem).List(ctx, meta.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range list.Items {
			names = append(names, s.Name)
		}
		return names
	}
	write()
	if _, err := k.RbacV1().ClusterRoleBindings().Get(ctx, autoApprove, meta.GetOptions{}); err == nil {
		t.Error("the controller manager goes on approving any name")
	}
	tokenID, _ := id.token.Bootstrap()
	if got := secrets(); len(got) != 1 || got[0] != "bootstrap-token-"+tokenID {
		t.Errorf("bootstrap tokens %v, want that of the secret", got)
	}
	info, err := k.CoreV1().ConfigMaps(meta.NamespacePublic).Get(ctx, "cluster-info", meta.GetOptions{})
	if err != nil || !strings.Contains(info.Data["kubeconfig"], `server: "https://192.0.2.5:6443"`) {
		t.Errorf("cluster-info %v, %v", info, err)
	}
	if strings.Contains(info.Data["kubeconfig"], "client-key") {
		t.Error("cluster-info, which everybody may read, holds a key")
	}

	// What the bootstrap signer adds must stay, and a second start must write nothing.
	info.Data["jws-kubeconfig-"+tokenID] = "signature"
	if _, err := k.CoreV1().ConfigMaps(meta.NamespacePublic).Update(ctx, info, meta.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	k.ClearActions()
	write()
	for _, a := range k.Actions() {
		if a.GetVerb() == "update" || a.GetVerb() == "delete" {
			t.Errorf("a second start does %s %s", a.GetVerb(), a.GetResource().Resource)
		}
	}

	// Another address, another token: published, and the old token joins nobody.
	id.settings.AdvertiseAddress, id.settings.Token = "192.0.2.66", "second"
	if err := id.initToken(); err != nil {
		t.Fatal(err)
	}
	write()
	newID, _ := id.token.Bootstrap()
	if got := secrets(); len(got) != 1 || got[0] != "bootstrap-token-"+newID {
		t.Errorf("bootstrap tokens %v, want that of the new secret alone", got)
	}
	info, err = k.CoreV1().ConfigMaps(meta.NamespacePublic).Get(ctx, "cluster-info", meta.GetOptions{})
	if err != nil || !strings.Contains(info.Data["kubeconfig"], "192.0.2.66") || info.Data["jws-kubeconfig-"+tokenID] != "signature" {
		t.Errorf("cluster-info %v, %v", info.Data, err)
	}
}

func TestControlPlaneFlags(t *testing.T) {
	id := newIdentity(t, "")
	id.settings.APIServerArgs = []string{"--profiling=true", "audit-log-path=/var/log/audit"}
	s := &Server{Settings: id.settings, NodeIPs: id.nodeIPs, RunDir: "/run/skerry"}
	flags := strings.Join(s.controlPlane(id).APIServerFlags(), "\n")
	for _, want := range []string{"--advertise-address=192.0.2.5", "--etcd-servers=unix:///run/skerry/kine.sock", "--profiling=true", "--audit-log-path=/var/log/audit"} {
		if !strings.Contains(flags, want) {
			t.Errorf("flags lack %s:\n%s", want, flags)
		}
	}
	if strings.Contains(flags, "--profiling=false") {
		t.Error("the operator's flag does not replace ours")
	}
}
