// Package upkeep is what a node tells its cluster about an upgrade of the machine: before the restart that it takes no more
// pods and that those it has are to move, afterwards what became of the upgrade.
package upkeep

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubectl/pkg/drain"
)

// Annotations of the Node.
const (
	// CordonedAnnotation: the node was cordoned by us, and by nobody else before.
	CordonedAnnotation = "skerry.internal/cordoned-for-upgrade"
	// UpgradeAnnotation is the state of the last upgrade, VersionAnnotation its version, ReasonAnnotation why it was rolled back.
	UpgradeAnnotation = "skerry.internal/upgrade"
	VersionAnnotation = "skerry.internal/upgrade-version"
	ReasonAnnotation  = "skerry.internal/upgrade-reason"
)

// A Node is this machine's, in its cluster.
type Node struct {
	Client kubernetes.Interface
	Name   string
	Now    func() time.Time
}

// Open connects with the first kubeconfig that exists: an administrator's on a server, the kubelet's on an agent.
func Open(name string, kubeconfigs ...string) (*Node, error) {
	for _, file := range kubeconfigs {
		if _, err := os.Stat(file); err != nil {
			continue
		}
		config, err := clientcmd.BuildConfigFromFlags("", file)
		if err != nil {
			return nil, fmt.Errorf("cannot read kubeconfig %s: %w", file, err)
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return nil, fmt.Errorf("cannot use kubeconfig %s: %w", file, err)
		}
		return &Node{Client: client, Name: name, Now: time.Now}, nil
	}
	return nil, fmt.Errorf("this machine is no node of a cluster: there is none of %s", strings.Join(kubeconfigs, ", "))
}

// patch changes the node as a strategic merge patch says: nil takes a key away.
func (n *Node) patch(ctx context.Context, patch map[string]any) error {
	text, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = n.Client.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, text, metav1.PatchOptions{FieldManager: "skerry"})
	return err
}

// annotations are the part of a patch that changes them.
func annotations(a map[string]any) map[string]any { return map[string]any{"annotations": a} }

// Drain cordons the node, unless somebody else has, and evicts its pods. Disruption budgets are respected: an eviction that one
// forbids is asked for again until the timeout. Pods that would not be made anew elsewhere, of a DaemonSet, static or without a
// controller, stay: the machine stops them, and starts them after its restart. The error says what is left.
func (n *Node) Drain(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := n.cordon(ctx); err != nil {
		return fmt.Errorf("cannot cordon node %s: %w", n.Name, err)
	}
	var said bytes.Buffer
	h := &drain.Helper{
		Ctx: ctx, Client: n.Client, Force: true, GracePeriodSeconds: -1, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true,
		Timeout: timeout, Out: &said, ErrOut: &said, EvictErrorRetryDelay: 5 * time.Second,
		AdditionalFilters: []drain.PodFilter{func(p corev1.Pod) drain.PodDeleteStatus {
			if metav1.GetControllerOf(&p) == nil {
				return drain.MakePodDeleteStatusSkip()
			}
			return drain.MakePodDeleteStatusOkay()
		}},
	}
	pods, problems := h.GetPodsForDeletion(n.Name)
	if len(problems) > 0 {
		return fmt.Errorf("cannot tell which pods node %s has: %w", n.Name, errors.Join(problems...))
	}
	slog.Info("draining", "node", n.Name, "pods", len(pods.Pods()))
	if err := h.DeleteOrEvictPods(pods.Pods()); err != nil && n.anyLeft(h, pods.Pods()) {
		return fmt.Errorf("not all pods have left node %s within %v: %w", n.Name, timeout, err)
	}
	return nil
}

// anyLeft says whether one of the pods is still on the node. To an agent's credentials a pod that has left is forbidden, which for the library, as
// it waits for each, is a failure (https://kubernetes.io/docs/reference/access-authn-authz/node/).
func (n *Node) anyLeft(h *drain.Helper, pods []corev1.Pod) bool {
	now, problems := h.GetPodsForDeletion(n.Name)
	if len(problems) > 0 {
		return true
	}
	return slices.ContainsFunc(now.Pods(), func(p corev1.Pod) bool {
		return slices.ContainsFunc(pods, func(old corev1.Pod) bool { return old.UID == p.UID })
	})
}

// cordon marks a node that we cordon. One that is cordoned already, by a person or by us, stays as it is.
func (n *Node) cordon(ctx context.Context) error {
	node, err := n.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil || node.Spec.Unschedulable {
		return err
	}
	return n.patch(ctx, map[string]any{
		"metadata": annotations(map[string]any{CordonedAnnotation: n.Now().UTC().Format(time.RFC3339)}),
		"spec":     map[string]any{"unschedulable": true},
	})
}

// Uncordon takes back what Drain has done to the node, and nothing that somebody else has.
func (n *Node) Uncordon(ctx context.Context) error {
	node, err := n.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("cannot uncordon node %s: %w", n.Name, err)
	}
	if _, ours := node.Annotations[CordonedAnnotation]; !ours {
		return nil
	}
	if err := n.patch(ctx, map[string]any{
		"metadata": annotations(map[string]any{CordonedAnnotation: nil}),
		"spec":     map[string]any{"unschedulable": nil},
	}); err != nil {
		return fmt.Errorf("cannot uncordon node %s: %w", n.Name, err)
	}
	return nil
}

// An Outcome is what became of an upgrade.
type Outcome struct {
	// State is "committed" or "rolled back". Version is the new one, From the one before.
	State, Version, From string
	// Reason is why it was rolled back.
	Reason string
}

// Report says on the node, and in an Event, what became of an upgrade, and uncordons the node.
func (n *Node) Report(ctx context.Context, o Outcome) error {
	told := map[string]any{UpgradeAnnotation: o.State, VersionAnnotation: o.Version, ReasonAnnotation: nil}
	if o.Reason != "" {
		told[ReasonAnnotation] = o.Reason
	}
	if err := n.patch(ctx, map[string]any{"metadata": annotations(told)}); err != nil {
		return fmt.Errorf("cannot annotate node %s: %w", n.Name, err)
	}
	return errors.Join(n.event(ctx, o), n.Uncordon(ctx))
}

func (n *Node) event(ctx context.Context, o Outcome) error {
	now := metav1.NewTime(n.Now())
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: n.Name + ".upgrade-", Namespace: metav1.NamespaceDefault},
		// The kubelet gives its events about the node the node's name as UID, and people look for those.
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: types.UID(n.Name)},
		Source:         corev1.EventSource{Component: "skerry", Host: n.Name},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Type: corev1.EventTypeNormal, Reason: "UpgradeCommitted",
		Message: fmt.Sprintf("version %s was upgraded to %s", o.From, o.Version),
	}
	if o.State != "committed" {
		e.Type, e.Reason = corev1.EventTypeWarning, "UpgradeRolledBack"
		e.Message = fmt.Sprintf("version %s was rolled back: %s", o.Version, o.Reason)
	}
	// The API server takes messages of up to 1 KiB.
	e.Message = strings.ToValidUTF8(e.Message[:min(len(e.Message), 1000)], "")
	if _, err := n.Client.CoreV1().Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("cannot tell of the upgrade in an Event: %w", err)
	}
	return nil
}
