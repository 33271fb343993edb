package localpath

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

// newHelpers answers the creation of a pod with status, as a kubelet would.
func newHelpers(status corev1.PodStatus, objects ...runtime.Object) (helpers, *fake.Clientset) {
	client := fake.NewClientset(objects...)
	client.PrependReactor("create", "pods", func(a ktesting.Action) (bool, runtime.Object, error) {
		a.(ktesting.CreateAction).GetObject().(*corev1.Pod).Status = status
		return false, nil, nil
	})
	return helpers{client: client, namespace: "kube-system", image: "skerry.internal/pause:1", binary: "/usr/bin/skerryd"}, client
}

func podsLeft(t *testing.T, client *fake.Clientset) int {
	t.Helper()
	list, err := client.CoreV1().Pods("").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

func ended(phase corev1.PodPhase, message string) corev1.PodStatus {
	return corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: message}},
	}}}
}

func TestHelperResults(t *testing.T) {
	for name, c := range map[string]struct {
		status corev1.PodStatus
		want   string
	}{
		"success": {ended(corev1.PodSucceeded, ""), ""},
		"failure": {ended(corev1.PodFailed, "cannot create volume: no space left on device\n"), "cannot create volume pvc-1 on node there: cannot create volume: no space left on device"},
		"evicted": {corev1.PodStatus{Phase: corev1.PodFailed, Message: "DiskPressure"}, "on node there: DiskPressure"},
	} {
		t.Run(name, func(t *testing.T) {
			h, client := newHelpers(c.status)
			err := h.run(t.Context(), create, "there", "/data", "pvc-1", "pvc-1_a_b")
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q", err, c.want)
			}
			if n := podsLeft(t, client); n != 0 {
				t.Errorf("%d helper pods left", n)
			}
		})
	}
}

func TestHelperAdoptsEarlierPod(t *testing.T) {
	h, client := newHelpers(corev1.PodStatus{})
	earlier := h.pod(remove, "there", "/data", "pvc-1", "pvc-1_a_b")
	earlier.Status = ended(corev1.PodSucceeded, "")
	if err := client.Tracker().Add(earlier); err != nil {
		t.Fatal(err)
	}
	if err := h.run(t.Context(), remove, "there", "/data", "pvc-1", "pvc-1_a_b"); err != nil {
		t.Error(err)
	}
	if n := podsLeft(t, client); n != 0 {
		t.Errorf("%d helper pods left", n)
	}
}

func TestHelperOnDeadNode(t *testing.T) {
	h, client := newHelpers(corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImageNeverPull", Message: "image is not present"}},
	}}})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := h.run(ctx, create, "there", "/data", "pvc-1", "pvc-1_a_b")
	if err == nil || !strings.Contains(err.Error(), "did not finish (ErrImageNeverPull image is not present)") {
		t.Errorf("error is %v", err)
	}
	if n := podsLeft(t, client); n != 0 {
		t.Errorf("%d helper pods left", n)
	}
}

// The pod's command line is what Run understands, and it reaches the mounted directory.
func TestHelperCommandLine(t *testing.T) {
	pod := helpers{binary: "/usr/bin/skerryd"}.pod(create, "there", "/data", "pvc-1", "pvc-1_a_b")
	c := pod.Spec.Containers[0]
	if c.Command[0] != c.VolumeMounts[0].MountPath || c.Command[1] != "local-path-provisioner" {
		t.Errorf("command is %q, mounts are %+v", c.Command, c.VolumeMounts)
	}
	storage := t.TempDir()
	args := c.Command[2:]
	for i := range args {
		if args[i] == c.VolumeMounts[1].MountPath {
			args[i] = storage
		}
	}
	if err := Run(t.Context(), args); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(storage, "pvc-1_a_b")); err != nil || !info.IsDir() {
		t.Errorf("volume was not made: %v", err)
	}
}

func TestRunRefuses(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "no command"},
		{"stop", `unknown command "stop"`},
		{"helper", "no operation"},
		{"helper shred --storage /a --directory b", "cannot shred a volume"},
		{"helper create --storage /a", "--storage and --directory are needed"},
		{"helper create --storage /a --directory b c", "nothing else"},
		{"start --config /not/there", "cannot start local-path-provisioner"},
		{"start extra", `unexpected argument "extra"`},
	} {
		if err := Run(t.Context(), strings.Fields(c.args)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error is %v, want %q", c.args, err, c.want)
		}
	}
}
