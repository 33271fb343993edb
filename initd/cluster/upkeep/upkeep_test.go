package upkeep

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// pod makes a pod of a controller's kind; empty for none.
func pod(name, kind string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)}, Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	if kind != "" {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: "owner", Controller: &yes}}
	}
	return p
}

func machine(t *testing.T, node *corev1.Node, objects ...runtime.Object) (*Node, *fake.Clientset) {
	t.Helper()
	client := fake.NewClientset(append(objects, node)...)
	// The real API server says that pods can be evicted.
	client.Resources = []*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "pods/eviction", Kind: "Eviction", Group: "policy", Version: "v1"}}},
		{GroupVersion: "policy/v1"},
	}
	client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "eviction" {
			return false, nil, nil
		}
		e := a.(clienttesting.CreateAction).GetObject().(*policyv1.Eviction)
		if strings.HasPrefix(e.Name, "guarded") {
			return true, nil, apierrors.NewTooManyRequests("the budget does not allow it", 1)
		}
		return true, nil, client.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("pods"), e.Namespace, e.Name)
	})
	return &Node{Client: client, Name: "n", Now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }}, client
}

func plain() *corev1.Node { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}} }

// describe is the node, its pods and the events, as one text.
func describe(t *testing.T, n *Node) string {
	t.Helper()
	ctx := t.Context()
	node, err := n.Client.CoreV1().Nodes().Get(ctx, "n", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{fmt.Sprintf("unschedulable %v %v", node.Spec.Unschedulable, node.Annotations)}
	pods, err := n.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range pods.Items {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	lines = append(lines, "pods "+strings.Join(names, " "))
	events, err := n.Client.CoreV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		lines = append(lines, fmt.Sprintf("%s %s %s/%s: %s", e.Type, e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Message))
	}
	return strings.Join(lines, "\n")
}

func expect(t *testing.T, n *Node, want string) {
	t.Helper()
	if got := describe(t, n); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestDrainAndReport(t *testing.T) {
	n, _ := machine(t, plain(), pod("web", "ReplicaSet"), pod("bare", ""), pod("db", "StatefulSet"))
	if err := n.Drain(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	expect(t, n, "unschedulable true map[skerry.internal/cordoned-for-upgrade:2026-01-02T03:04:05Z]\npods bare")
	if err := n.Report(t.Context(), Outcome{State: "committed", Version: "2", From: "1"}); err != nil {
		t.Fatal(err)
	}
	expect(t, n, `unschedulable false map[skerry.internal/upgrade:committed skerry.internal/upgrade-version:2]
pods bare
Normal UpgradeCommitted Node/n: version 1 was upgraded to 2`)
}

func TestRollbackIsReported(t *testing.T) {
	node := plain()
	node.Annotations = map[string]string{UpgradeAnnotation: "committed", VersionAnnotation: "1"}
	n, _ := machine(t, node)
	// What comes from kernels and web servers may have any character.
	reason := "check \"shop\": " + strings.Repeat("x", 1000-len("version 2 was rolled back: check \"shop\": ")-1) + "é\x1b\a\u00a0" + strings.Repeat("x", 1000)
	if err := n.Report(t.Context(), Outcome{State: "rolled back", Version: "2", From: "1", Reason: reason}); err != nil {
		t.Fatal(err)
	}
	if node, err := n.Client.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{}); err != nil || node.Annotations[ReasonAnnotation] != reason {
		t.Errorf("%v: %q", err, node.Annotations[ReasonAnnotation])
	}
	got := describe(t, n)
	if !strings.Contains(got, `skerry.internal/upgrade-reason:check "shop": xxx`) || !strings.Contains(got, "Warning UpgradeRolledBack Node/n: version 2 was rolled back: check \"shop\": xxx") {
		t.Error(got)
	}
}

func TestWhatAPersonCordonedStays(t *testing.T) {
	node := plain()
	node.Spec.Unschedulable = true
	n, _ := machine(t, node, pod("web", "ReplicaSet"))
	if err := n.Drain(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := n.Uncordon(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, n, "unschedulable true map[]\npods ")
}

// The Node authorizer lets an agent read its own pods only: one that has left is forbidden, not missing.
func TestAgentMayNotReadPodsThatHaveLeft(t *testing.T) {
	n, client := machine(t, plain(), pod("web", "ReplicaSet"))
	client.PrependReactor("get", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		name := a.(clienttesting.GetAction).GetName()
		return true, nil, apierrors.NewForbidden(corev1.Resource("pods"), name, errors.New("no relationship found between node 'n' and this object"))
	})
	if err := n.Drain(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
	expect(t, n, "unschedulable true map[skerry.internal/cordoned-for-upgrade:2026-01-02T03:04:05Z]\npods ")
}

func TestBudgetsAreRespectedUntilTheTimeout(t *testing.T) {
	n, _ := machine(t, plain(), pod("guarded", "ReplicaSet"), pod("web", "ReplicaSet"))
	err := n.Drain(t.Context(), 50*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "guarded") {
		t.Errorf("drained: %v", err)
	}
	expect(t, n, "unschedulable true map[skerry.internal/cordoned-for-upgrade:2026-01-02T03:04:05Z]\npods guarded")
}

func TestNoCluster(t *testing.T) {
	if _, err := Open("n", "/nowhere/a", "/nowhere/b"); err == nil || !strings.Contains(err.Error(), "/nowhere/a, /nowhere/b") {
		t.Error(err)
	}
	n, _ := machine(t, plain())
	n.Name = "other"
	for what, err := range map[string]error{"drain": n.Drain(context.Background(), time.Minute), "uncordon": n.Uncordon(context.Background())} {
		if !apierrors.IsNotFound(err) {
			t.Errorf("%s of a node that is not there: %v", what, err)
		}
	}
}
