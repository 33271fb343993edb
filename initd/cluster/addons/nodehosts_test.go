package addons

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func node(name string, addresses ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeExternalIP, Address: "203.0.113.1"}}
	for _, a := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return n
}

func TestNodeHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(node("b", "10.0.0.2"), node("a", "10.0.0.1", "fd00::1"))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { keepNodeHosts(ctx, client, slog.New(slog.DiscardHandler)) })
		synctest.Wait()
		// The add-on is applied only now.
		maps := client.CoreV1().ConfigMaps("kube-system")
		if _, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "coredns"}, Data: map[string]string{"Corefile": "x"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		check := func(want string) {
			t.Helper()
			synctest.Wait()
			cm, err := maps.Get(ctx, "coredns", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := cm.Data["NodeHosts"]; got != want || cm.Data["Corefile"] != "x" {
				t.Errorf("NodeHosts is %q, want %q; Corefile is %q", got, want, cm.Data["Corefile"])
			}
		}
		wait(nodeHostsRetry)
		check("10.0.0.1 a\n10.0.0.2 b\nfd00::1 a\n")
		if err := client.CoreV1().Nodes().Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		check("10.0.0.2 b\n")
		cancel()
		wg.Wait()
	})
}

// wait lets the fake clock of a synctest bubble go on.
func wait(d time.Duration) { <-time.After(d) }
