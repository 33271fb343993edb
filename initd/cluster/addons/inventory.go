package addons

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// The inventory is a ConfigMap with a key for each add-on. It tells in one read at boot that nothing has changed, and
// which objects to remove when an add-on no longer has them. Servers of one cluster share it: each
// writes only the keys of its own add-ons.
const (
	inventoryName      = "skerry-addons"
	inventoryNamespace = "kube-system"
)

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// entry is what the inventory knows of an add-on.
type entry struct {
	// Digest is that of the text that was applied completely; empty while something of it is still missing.
	Digest  string       `json:"digest,omitempty"`
	Source  string       `json:"source"`
	Objects []objectInfo `json:"objects"`
}

type objectInfo struct {
	ref
	Digest string `json:"digest"`
}

// ref names an object in the cluster.
type ref struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
}

func refTo(u *unstructured.Unstructured) ref {
	return ref{u.GetAPIVersion(), u.GetKind(), u.GetNamespace(), u.GetName()}
}

func (r ref) gvk() schema.GroupVersionKind { return schema.FromAPIVersionAndKind(r.APIVersion, r.Kind) }

// same ignores the version: apps/v1beta1 and apps/v1 are one object.
func (r ref) same(other ref) bool {
	return r.gvk().GroupKind() == other.gvk().GroupKind() && r.Namespace == other.Namespace && r.Name == other.Name
}

func (r ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// loadInventory returns the entries by add-on name. One that cannot be read counts as absent: its add-on is applied anew.
func loadInventory(ctx context.Context, client dynamic.Interface) (map[string]entry, error) {
	out := map[string]entry{}
	cm, err := client.Resource(configMaps).Namespace(inventoryNamespace).Get(ctx, inventoryName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return out, nil
	} else if err != nil {
		return nil, fmt.Errorf("cannot read the inventory of add-ons: %w", err)
	}
	data, _, _ := unstructured.NestedStringMap(cm.Object, "data")
	for name, text := range data {
		var e entry
		if json.Unmarshal([]byte(text), &e) == nil {
			out[name] = e
		}
	}
	return out, nil
}

// saveInventory writes one entry, or removes it when e is nil, and leaves the others alone.
func saveInventory(ctx context.Context, client dynamic.Interface, name string, e *entry) error {
	var value any
	if e != nil {
		text, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("cannot write the inventory of add-ons: %w", err)
		}
		value = string(text)
	}
	maps := client.Resource(configMaps).Namespace(inventoryNamespace)
	data := map[string]any{name: value}
	patch, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		return fmt.Errorf("cannot write the inventory of add-ons: %w", err)
	}
	for range 2 { // the second time when another server has just made it
		_, err = maps.Patch(ctx, inventoryName, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
		if !apierrors.IsNotFound(err) || value == nil {
			break
		}
		_, err = maps.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1",
			"kind":       "ConfigMap",
			"metadata":   map[string]any{"name": inventoryName, "namespace": inventoryNamespace},
			"data":       data,
		}}, metav1.CreateOptions{FieldManager: fieldManager})
		if !apierrors.IsAlreadyExists(err) {
			break
		}
	}
	if value == nil && apierrors.IsNotFound(err) {
		return nil // nothing to remove it from
	}
	if err != nil {
		return fmt.Errorf("cannot write the inventory of add-ons: %w", err)
	}
	return nil
}
