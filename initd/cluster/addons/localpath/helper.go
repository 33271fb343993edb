package localpath

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// helperTimeout bounds a helper pod: its node may be down, or a volume may hold millions of files on a slow card. The
// controller tries again after it, and a deletion goes on where the last one stopped.
const helperTimeout = 2 * time.Minute

// mountedStorage is where a helper pod sees the storage directory of its node.
const mountedStorage = "/storage"

// helpers does operations on other nodes. For each it makes a pod on that node which mounts the storage directory and
// runs this same program as `local-path-provisioner helper`.
type helpers struct {
	client    kubernetes.Interface
	namespace string
	image     string // an image with nothing in it is enough
	binary    string // this program's path on every node
}

// run does op and waits for its end. The pod is removed whatever happens; one that an earlier, cut-off try
// left behind is waited for instead of made again, so the same directory never has two helpers.
func (h helpers) run(ctx context.Context, op operation, node, storage, pv, dir string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	pod := h.pod(op, node, storage, pv, dir)
	pods := h.client.CoreV1().Pods(h.namespace)
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("cannot %s volume %s: cannot make helper pod: %w", op, pv, err)
	}
	defer func() {
		// ctx may be done, and a helper that stays would answer the next try with an old result.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		now := int64(0)
		if e := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); e != nil && !apierrors.IsNotFound(e) {
			slog.Warn("cannot delete helper pod", "pod", pod.Name, "error", e)
		}
	}()

	done, err := h.await(ctx, pod.Name)
	if err != nil {
		return fmt.Errorf("cannot %s volume %s on node %s: %w", op, pv, node, err)
	}
	if done.Status.Phase != corev1.PodSucceeded {
		return fmt.Errorf("cannot %s volume %s on node %s: %s", op, pv, node, failure(done))
	}
	return nil
}

// await returns the pod once it has ended.
func (h helpers) await(ctx context.Context, name string) (*corev1.Pod, error) {
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	pods := h.client.CoreV1().Pods(h.namespace)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return pods.Watch(ctx, o)
		},
	}
	var last *corev1.Pod
	_, err := watchtools.UntilWithSync(ctx, cache.ToListWatcherWithWatchListSemantics(lw, h.client), &corev1.Pod{}, nil, func(e watch.Event) (bool, error) {
		pod, ok := e.Object.(*corev1.Pod)
		if !ok || pod.Name != name {
			return false, nil
		}
		if e.Type == watch.Deleted {
			return false, fmt.Errorf("helper pod %s was deleted by somebody else", name)
		}
		last = pod
		return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed, nil
	})
	if err != nil {
		state := "never seen"
		if last != nil {
			state = failure(last)
		}
		return nil, fmt.Errorf("helper pod %s did not finish (%s): %w", name, state, err)
	}
	return last, nil
}

// failure says in one line how the pod stands: the message of its container's end or wait, else of the pod.
func failure(pod *corev1.Pod) string {
	for _, c := range pod.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil && t.Message != "" {
			return strings.TrimSpace(t.Message)
		}
		if w := c.State.Waiting; w != nil {
			return strings.TrimSpace(w.Reason + " " + w.Message)
		}
	}
	if pod.Status.Message != "" {
		return pod.Status.Message
	}
	return "pod is " + string(pod.Status.Phase)
}

// pod is the helper: root, because the files of a volume belong to whoever wrote them, but with no more than the right to
// remove them, and with nothing mounted but program and storage.
func (h helpers) pod(op operation, node, storage, pv, dir string) *corev1.Pod {
	var (
		no, yes   = false, true
		root      = int64(0)
		deadline  = int64(helperTimeout / time.Second)
		isFile    = corev1.HostPathFile
		makeDir   = corev1.HostPathDirectoryOrCreate
		neverPull = corev1.PullNever
	)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:      "helper-pod-" + string(op) + "-" + pv,
			Namespace: h.namespace,
			Labels:    map[string]string{"app": "local-path-helper"},
		},
		Spec: corev1.PodSpec{
			NodeName:                     node, // past the scheduler: cordoned and tainted nodes too
			Tolerations:                  []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			PriorityClassName:            "system-node-critical",
			RestartPolicy:                corev1.RestartPolicyNever,
			ActiveDeadlineSeconds:        &deadline,
			AutomountServiceAccountToken: &no,
			EnableServiceLinks:           &no,
			SecurityContext: &corev1.PodSecurityContext{
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name:                     "helper",
				Image:                    h.image,
				ImagePullPolicy:          neverPull,
				Command:                  []string{"/skerryd", "local-path-provisioner", "helper", string(op), "--storage", mountedStorage, "--directory", dir},
				TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
				SecurityContext: &corev1.SecurityContext{
					RunAsUser:                &root,
					ReadOnlyRootFilesystem:   &yes,
					AllowPrivilegeEscalation: &no,
					Capabilities: &corev1.Capabilities{
						Drop: []corev1.Capability{"ALL"},
						Add:  []corev1.Capability{"DAC_OVERRIDE", "FOWNER"},
					},
				},
				VolumeMounts: []corev1.VolumeMount{
					{Name: "program", MountPath: "/skerryd", ReadOnly: true},
					{Name: "storage", MountPath: mountedStorage},
				},
			}},
			Volumes: []corev1.Volume{
				{Name: "program", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: h.binary, Type: &isFile}}},
				{Name: "storage", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: storage, Type: &makeDir}}},
			},
		},
	}
}
