package server

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/skerryos/skerry/initd/cluster/kubeconfig"
	"github.com/skerryos/skerry/initd/cluster/node"
	"github.com/skerryos/skerry/initd/cluster/pki"
)

const (
	// bootstrappers is the group of nodes that have shown the token and have no certificate yet.
	bootstrappers = "system:bootstrappers:skerry:node"
	managedBy     = "app.kubernetes.io/managed-by"
)

// writeJoinObjects brings into the cluster what lets a node join by the token: the token's Secret, the public
// cluster-info, and the rights of nodes. It is called at each start and changes only what differs.
func (s *Server) writeJoinObjects(ctx context.Context, id *identity, k kubernetes.Interface) error {
	for _, r := range joinRoles() {
		if err := applyClusterRole(ctx, k, r); err != nil {
			return err
		}
	}
	for _, b := range joinBindings {
		if err := applyBinding(ctx, k, b); err != nil {
			return err
		}
	}
	if err := removeBinding(ctx, k, autoApprove); err != nil {
		return err
	}
	if err := applyNodeSettings(ctx, k, s.nodeCluster()); err != nil {
		return err
	}
	if err := applyClusterInfo(ctx, k, id, s.controlPlane(id).Advertise, s.Settings.HTTPSListenPort); err != nil {
		return err
	}
	return applyToken(ctx, k, id)
}

// joinBindings: who gets which ClusterRole, and why.
var joinBindings = []struct{ name, role, group string }{
	{"skerry:node-bootstrapper", "system:node-bootstrapper", bootstrappers}, // ask for a certificate; the approver decides whether they get it
	{"skerry:node-autoapprove-renewal", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "system:nodes"},
	{"skerry:node-proxier", "system:node-proxier", "system:nodes"}, // kube-proxy uses the node's own certificate
	{"skerry:node-network", "skerry:node-network", "system:nodes"}, // and so does flannel
	{"skerry:node-upgrade", "skerry:node-upgrade", "system:nodes"}, // and a node that is drained for an upgrade
}

// autoApprove is a binding of earlier versions, with which the controller manager approved any name.
const autoApprove = "skerry:node-autoapprove-bootstrap"

func joinRoles() []*rbac.ClusterRole {
	return []*rbac.ClusterRole{{
		ObjectMeta: object("skerry:node-network", ""),
		Rules: []rbac.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "list", "watch"}},
			{APIGroups: []string{""}, Resources: []string{"nodes/status"}, Verbs: []string{"patch"}}, // own node only: NodeRestriction
		},
	}, {
		ObjectMeta: object("skerry:node-upgrade", ""),
		Rules: []rbac.PolicyRule{
			// Whether a pod is made anew where it is; all else a node may do with its own pods and its Node already.
			{APIGroups: []string{"apps"}, Resources: []string{"daemonsets"}, Verbs: []string{"get"}},
		},
	}}
}

func object(name, namespace string) meta.ObjectMeta {
	return meta.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{managedBy: "skerry"}}
}

func applyClusterRole(ctx context.Context, k kubernetes.Interface, want *rbac.ClusterRole) error {
	c := k.RbacV1().ClusterRoles()
	have, err := c.Get(ctx, want.Name, meta.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = c.Create(ctx, want, meta.CreateOptions{})
	case err == nil && !equality.Semantic.DeepEqual(have.Rules, want.Rules):
		have.Rules = want.Rules
		_, err = c.Update(ctx, have, meta.UpdateOptions{})
	}
	return wrap(err, "ClusterRole", want.Name)
}

func applyBinding(ctx context.Context, k kubernetes.Interface, b struct{ name, role, group string }) error {
	want := &rbac.ClusterRoleBinding{
		ObjectMeta: object(b.name, ""),
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: b.role},
		Subjects:   []rbac.Subject{{APIGroup: rbac.GroupName, Kind: rbac.GroupKind, Name: b.group}},
	}
	c := k.RbacV1().ClusterRoleBindings()
	have, err := c.Get(ctx, want.Name, meta.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = c.Create(ctx, want, meta.CreateOptions{})
	case err == nil && !equality.Semantic.DeepEqual(have.Subjects, want.Subjects):
		have.Subjects = want.Subjects
		_, err = c.Update(ctx, have, meta.UpdateOptions{})
	}
	return wrap(err, "ClusterRoleBinding", want.Name)
}

// removeBinding takes a right of an earlier version away.
func removeBinding(ctx context.Context, k kubernetes.Interface, name string) error {
	c := k.RbacV1().ClusterRoleBindings()
	_, err := c.Get(ctx, name, meta.GetOptions{})
	if err == nil {
		err = c.Delete(ctx, name, meta.DeleteOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("cannot remove ClusterRoleBinding %s of an earlier version: %w", name, err)
	}
	return nil
}

// applyClusterInfo publishes where the API server is and by which authority it is known, readable by everybody. The
// bootstrap signer of the controller manager adds a signature by the token, which proves it to a node that knows
// the token alone.
func applyClusterInfo(ctx context.Context, k kubernetes.Interface, id *identity, host string, port int) error {
	caFile, _ := id.store.Path(pki.ServerCA)
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return fmt.Errorf("cannot publish the authority: %w", err)
	}
	info := kubeconfig.Config{Server: "https://" + hostPort(host, port), CAData: ca}
	want := &core.ConfigMap{
		ObjectMeta: object("cluster-info", meta.NamespacePublic),
		Data:       map[string]string{"kubeconfig": string(info.Marshal())},
	}
	c := k.CoreV1().ConfigMaps(meta.NamespacePublic)
	have, err := c.Get(ctx, want.Name, meta.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = c.Create(ctx, want, meta.CreateOptions{})
	case err == nil && have.Data["kubeconfig"] != want.Data["kubeconfig"]:
		have.Data["kubeconfig"] = want.Data["kubeconfig"]
		_, err = c.Update(ctx, have, meta.UpdateOptions{})
	}
	if err != nil {
		return wrap(err, "ConfigMap", want.Name)
	}
	return applyReader(ctx, k, meta.NamespacePublic, want.Name, []rbac.Subject{
		{APIGroup: rbac.GroupName, Kind: rbac.UserKind, Name: "system:anonymous"},
		{APIGroup: rbac.GroupName, Kind: rbac.GroupKind, Name: bootstrappers},
	})
}

// Where nodes find what all of them agree on: a ConfigMap in kube-system.
const (
	NodeSettings    = "skerry-node"
	NodeSettingsKey = "cluster.json"
)

// applyNodeSettings publishes to nodes, and to those that are about to become one, what all of them agree on.
func applyNodeSettings(ctx context.Context, k kubernetes.Interface, cluster node.Cluster) error {
	b, err := json.Marshal(cluster)
	if err != nil {
		return fmt.Errorf("cannot encode the nodes' settings: %w", err)
	}
	want := &core.ConfigMap{ObjectMeta: object(NodeSettings, meta.NamespaceSystem), Data: map[string]string{NodeSettingsKey: string(b)}}
	c := k.CoreV1().ConfigMaps(meta.NamespaceSystem)
	have, err := c.Get(ctx, want.Name, meta.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = c.Create(ctx, want, meta.CreateOptions{})
	case err == nil && have.Data[NodeSettingsKey] != want.Data[NodeSettingsKey]:
		have.Data = want.Data
		_, err = c.Update(ctx, have, meta.UpdateOptions{})
	}
	if err != nil {
		return wrap(err, "ConfigMap", want.Name)
	}
	return applyReader(ctx, k, meta.NamespaceSystem, NodeSettings, []rbac.Subject{
		{APIGroup: rbac.GroupName, Kind: rbac.GroupKind, Name: bootstrappers},
		{APIGroup: rbac.GroupName, Kind: rbac.GroupKind, Name: "system:nodes"},
	})
}

// applyReader lets subjects read one ConfigMap.
func applyReader(ctx context.Context, k kubernetes.Interface, namespace, configMap string, subjects []rbac.Subject) error {
	name := "skerry:" + configMap
	role := &rbac.Role{
		ObjectMeta: object(name, namespace),
		Rules:      []rbac.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{configMap}, Verbs: []string{"get"}}},
	}
	_, err := k.RbacV1().Roles(namespace).Create(ctx, role, meta.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return wrap(err, "Role", name)
	}
	binding := &rbac.RoleBinding{
		ObjectMeta: object(name, namespace),
		RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "Role", Name: name},
		Subjects:   subjects,
	}
	_, err = k.RbacV1().RoleBindings(namespace).Create(ctx, binding, meta.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		err = nil
	}
	return wrap(err, "RoleBinding", name)
}

// applyToken writes the bootstrap token of the present secret and removes those of earlier ones.
func applyToken(ctx context.Context, k kubernetes.Interface, id *identity) error {
	tokenID, secret := id.token.Bootstrap()
	name := "bootstrap-token-" + tokenID
	c := k.CoreV1().Secrets(meta.NamespaceSystem)
	old, err := c.List(ctx, meta.ListOptions{LabelSelector: managedBy + "=skerry", FieldSelector: "type=" + string(core.SecretTypeBootstrapToken)})
	if err != nil {
		return fmt.Errorf("cannot list bootstrap tokens: %w", err)
	}
	found := false
	for _, o := range old.Items {
		if o.Name == name {
			found = true
			continue
		}
		if err := c.Delete(ctx, o.Name, meta.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("cannot remove the bootstrap token of an earlier secret: %w", err)
		}
	}
	if found {
		return nil
	}
	_, err = c.Create(ctx, &core.Secret{
		ObjectMeta: object(name, meta.NamespaceSystem),
		Type:       core.SecretTypeBootstrapToken,
		StringData: map[string]string{
			"token-id":                       tokenID,
			"token-secret":                   secret,
			"usage-bootstrap-authentication": "true",
			"usage-bootstrap-signing":        "true",
			"auth-extra-groups":              bootstrappers,
			"description":                    "joins nodes by the server's token",
		},
	}, meta.CreateOptions{})
	return wrap(err, "Secret", name)
}

func wrap(err error, kind, name string) error {
	if err != nil {
		return fmt.Errorf("cannot apply %s %s: %w", kind, name, err)
	}
	return nil
}
