package localpath

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
	"sigs.k8s.io/yaml"
)

// remote records what is asked of other nodes.
type remote struct{ calls []string }

func (r *remote) run(_ context.Context, op operation, node, storage, pv, dir string) error {
	r.calls = append(r.calls, strings.Join([]string{string(op), node, storage, pv, dir}, " "))
	return nil
}

// newProvisioner runs on node here, whose hostname label differs from its name, beside node there.
func newProvisioner(t *testing.T) (*provisioner, *remote, string) {
	t.Helper()
	storage := filepath.Join(t.TempDir(), "storage")
	node := func(name, host string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: host}}}
	}
	r := &remote{}
	return &provisioner{
		client:      fake.NewClientset(node("here", "host-1"), node("there", "there"), node("full", "full")),
		configPath:  writeConfig(t, `{"nodePathMap":[{"node":"full","paths":[]},{"node":"`+anyOtherNode+`","paths":["`+storage+`"]}]}`),
		nodeName:    "here",
		storagePath: storage,
		onNode:      r.run,
	}, r, storage
}

func request(node string) controller.ProvisionOptions {
	reclaim := corev1.PersistentVolumeReclaimDelete
	return controller.ProvisionOptions{
		PVName:           "pvc-1",
		SelectedNodeName: node,
		StorageClass: &storagev1.StorageClass{
			ObjectMeta:    metav1.ObjectMeta{Name: "local-path", Annotations: map[string]string{defaultTypeAnnotation: "local"}},
			ReclaimPolicy: &reclaim,
		},
		PVC: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: "data-web-0", Namespace: "shop"},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		},
	}
}

func TestProvisionHere(t *testing.T) {
	p, r, storage := newProvisioner(t)
	pv, state, err := p.Provision(t.Context(), request("here"))
	if err != nil || state != controller.ProvisioningFinished {
		t.Fatal(state, err)
	}
	text, err := yaml.Marshal(pv)
	if err != nil {
		t.Fatal(err)
	}
	want := `metadata:
  annotations:
    local.path.provisioner/selected-node: here
  name: pvc-1
spec:
  accessModes:
  - ReadWriteOnce
  capacity:
    storage: 1Gi
  local:
    path: ` + storage + `/pvc-1_shop_data-web-0
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions:
        - key: kubernetes.io/hostname
          operator: In
          values:
          - host-1
  persistentVolumeReclaimPolicy: Delete
  volumeMode: Filesystem
status: {}
`
	if string(text) != want {
		t.Errorf("volume is\n%s\nwant\n%s", text, want)
	}
	if info, err := os.Stat(pv.Spec.Local.Path); err != nil || !info.IsDir() {
		t.Errorf("directory was not made: %v", err)
	}
	if err := p.Delete(t.Context(), pv); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(pv.Spec.Local.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory was not removed: %v", err)
	}
	if len(r.calls) != 0 {
		t.Errorf("other nodes were asked: %v", r.calls)
	}
}

func TestProvisionThere(t *testing.T) {
	p, r, storage := newProvisioner(t)
	pv, _, err := p.Provision(t.Context(), request("there"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Delete(t.Context(), pv); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"create there " + storage + " pvc-1 pvc-1_shop_data-web-0",
		"remove there " + storage + " pvc-1 pvc-1_shop_data-web-0",
	}
	if !reflect.DeepEqual(r.calls, want) {
		t.Errorf("calls are %q, want %q", r.calls, want)
	}
	if _, err := os.Stat(storage); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was made on this node: %v", err)
	}
}

func TestProvisionRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*controller.ProvisionOptions)
		want   string
		state  controller.ProvisioningState
	}{
		"selector":     {func(o *controller.ProvisionOptions) { o.PVC.Spec.Selector = &metav1.LabelSelector{} }, "selector", controller.ProvisioningFinished},
		"many writers": {func(o *controller.ProvisionOptions) { o.PVC.Spec.AccessModes[0] = corev1.ReadWriteMany }, "access mode ReadWriteMany", controller.ProvisioningFinished},
		"no node":      {func(o *controller.ProvisionOptions) { o.SelectedNodeName = "" }, "WaitForFirstConsumer", controller.ProvisioningFinished},
		"node is gone": {func(o *controller.ProvisionOptions) { o.SelectedNodeName = "ghost" }, "node ghost is gone", controller.ProvisioningReschedule},
		"node is full": {func(o *controller.ProvisionOptions) { o.SelectedNodeName = "full" }, "takes no volumes", controller.ProvisioningReschedule},
		"pathPattern": {func(o *controller.ProvisionOptions) {
			o.StorageClass.Parameters = map[string]string{"pathPattern": "../../etc"}
		}, "parameter pathPattern", controller.ProvisioningFinished},
		"foreign path": {func(o *controller.ProvisionOptions) {
			o.StorageClass.Parameters = map[string]string{"nodePath": "/etc"}
		}, "nodePath /etc", controller.ProvisioningReschedule},
		"type": {func(o *controller.ProvisionOptions) {
			o.PVC.Annotations = map[string]string{volumeTypeAnnotation: "nfs"}
		}, `volume type "nfs"`, controller.ProvisioningFinished},
		"claim traverse": {func(o *controller.ProvisionOptions) { o.PVC.Name = "../../etc" }, "not allowed", controller.ProvisioningFinished},
	} {
		t.Run(name, func(t *testing.T) {
			p, r, storage := newProvisioner(t)
			o := request("here")
			c.change(&o)
			pv, state, err := p.Provision(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), c.want) || state != c.state || pv != nil {
				t.Errorf("got %v, %s, %v; want %q, %s", pv, state, err, c.want, c.state)
			}
			if entries, _ := os.ReadDir(storage); len(entries) != 0 || len(r.calls) != 0 {
				t.Errorf("something was made: %v %v", entries, r.calls)
			}
		})
	}
}

func TestHostPathVolumes(t *testing.T) {
	p, _, _ := newProvisioner(t)
	o := request("here")
	o.PVC.Annotations = map[string]string{volumeTypeAnnotation: "hostPath"}
	pv, _, err := p.Provision(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if h := pv.Spec.HostPath; h == nil || *h.Type != corev1.HostPathDirectory {
		t.Errorf("source is %+v", pv.Spec.PersistentVolumeSource)
	}
	if err := p.Delete(t.Context(), pv); err != nil {
		t.Error(err)
	}
}

func TestDeleteRefuses(t *testing.T) {
	for name, c := range map[string]struct{ path, want string }{
		"system directory":         {"/etc", "not one that this provisioner makes"},
		"other volume":             {"STORAGE/pvc-2_shop_data", "not one that this provisioner makes"},
		"traversal":                {"STORAGE/../pvc-1_x", "not one that this provisioner makes"},
		"directory not configured": {"/srv/pvc-1_shop_data", "none of the storage directories"},
		"no path":                  {"", "not one that this provisioner makes"},
	} {
		t.Run(name, func(t *testing.T) {
			p, r, storage := newProvisioner(t)
			pv, _, err := p.Provision(t.Context(), request("here"))
			if err != nil {
				t.Fatal(err)
			}
			pv.Spec.Local.Path = strings.Replace(c.path, "STORAGE", storage, 1)
			if err := p.Delete(t.Context(), pv); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q", err, c.want)
			}
			if entries, _ := os.ReadDir(storage); len(entries) != 1 || len(r.calls) != 0 {
				t.Errorf("something was removed: %v %v", entries, r.calls)
			}
		})
	}
}

func TestDeleteFindsNode(t *testing.T) {
	for name, c := range map[string]struct {
		annotation, host string
		want             []string
		err              string
	}{
		"annotation":             {annotation: "there", host: "x", want: []string{"there"}},
		"K3s before annotations": {host: "there", want: []string{"there"}},
		"node has left":          {annotation: "ghost", host: "ghost"},
		"node has left, old":     {host: "ghost"},
		"no affinity":            {err: "neither the annotation"},
	} {
		t.Run(name, func(t *testing.T) {
			p, r, _ := newProvisioner(t)
			pv, _, err := p.Provision(t.Context(), request("there"))
			if err != nil {
				t.Fatal(err)
			}
			r.calls = nil
			pv.Annotations = map[string]string{selectedNodeAnnotation: c.annotation}
			pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values[0] = c.host
			if c.host == "" {
				pv.Spec.NodeAffinity = nil
			}
			err = p.Delete(t.Context(), pv)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error is %v, want %q", err, c.err)
			}
			var nodes []string
			for _, call := range r.calls {
				nodes = append(nodes, strings.Fields(call)[1])
			}
			if !reflect.DeepEqual(nodes, c.want) {
				t.Errorf("asked %v, want %v", nodes, c.want)
			}
		})
	}
}
