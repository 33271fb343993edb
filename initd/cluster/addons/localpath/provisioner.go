package localpath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// Upstream's annotations, so that claims, classes and volumes made for it keep working.
const (
	volumeTypeAnnotation   = "volumeType"                           // on a claim: local or hostPath
	defaultTypeAnnotation  = "defaultVolumeType"                    // on a storage class
	selectedNodeAnnotation = "local.path.provisioner/selected-node" // on a volume: name of the node that has the data
)

// nodePathParameter is the storage class parameter that chooses among the directories of a node.
const nodePathParameter = "nodePath"

// operation is what is done to a volume's directory.
type operation string

const (
	create operation = "create"
	remove operation = "remove"
)

// provisioner implements controller.Provisioner. Its methods may be called concurrently and repeatedly for the same volume.
type provisioner struct {
	client     kubernetes.Interface
	configPath string
	// nodeName and storagePath are the node this process runs on and the storage directory that is mounted into it at the same
	// path: volumes there are made in this process, all others by a helper pod.
	nodeName, storagePath string
	// onNode does op on another node, or in another directory.
	onNode func(ctx context.Context, op operation, node, storage, pv, dir string) error
}

// Provision makes the directory on the node that the scheduler selected and describes the volume. The requested size is
// recorded but not enforced, as upstream: it is a directory.
func (p *provisioner) Provision(ctx context.Context, o controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	pv, err := p.provision(ctx, o)
	switch {
	case errors.Is(err, errNodeTakesNoVolumes):
		return nil, controller.ProvisioningReschedule, err
	case err != nil:
		return nil, controller.ProvisioningFinished, err
	}
	slog.Info("volume made", "volume", pv.Name, "node", o.SelectedNodeName, "claim", o.PVC.Namespace+"/"+o.PVC.Name)
	return pv, controller.ProvisioningFinished, nil
}

func (p *provisioner) provision(ctx context.Context, o controller.ProvisionOptions) (*corev1.PersistentVolume, error) {
	claim := o.PVC
	if err := checkClaim(claim); err != nil {
		return nil, err
	}
	if o.SelectedNodeName == "" {
		return nil, fmt.Errorf("cannot provision: no node is selected; storage class %s needs volumeBindingMode WaitForFirstConsumer", o.StorageClass.Name)
	}
	for _, key := range slices.Sorted(maps.Keys(o.StorageClass.Parameters)) {
		if key != nodePathParameter {
			return nil, fmt.Errorf("cannot provision: storage class %s has the parameter %s, known is %s", o.StorageClass.Name, key, nodePathParameter)
		}
	}
	node, err := p.client.CoreV1().Nodes().Get(ctx, o.SelectedNodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("cannot provision: node %s is gone: %w", o.SelectedNodeName, errNodeTakesNoVolumes)
	} else if err != nil {
		return nil, fmt.Errorf("cannot look up node %s: %w", o.SelectedNodeName, err)
	}
	config, err := loadConfig(p.configPath)
	if err != nil {
		return nil, err
	}
	storage, err := config.choose(node.Name, o.PVName, o.StorageClass.Parameters[nodePathParameter])
	if err != nil {
		return nil, fmt.Errorf("cannot provision: %w", err)
	}
	dir := dirName(o.PVName, claim.Namespace, claim.Name)
	source, err := volumeSource(o, filepath.Join(storage, dir))
	if err != nil {
		return nil, err
	}
	if err := p.do(ctx, create, node.Name, storage, o.PVName, dir); err != nil {
		return nil, err
	}
	host := node.Labels[corev1.LabelHostname]
	if host == "" {
		host = node.Name
	}
	mode := corev1.PersistentVolumeFilesystem
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        o.PVName,
			Annotations: map[string]string{selectedNodeAnnotation: node.Name},
		},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:            claim.Spec.AccessModes,
			VolumeMode:             &mode,
			Capacity:               corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			PersistentVolumeSource: source,
			MountOptions:           o.StorageClass.MountOptions,
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{host},
				}}}},
			}},
		},
	}
	if o.StorageClass.ReclaimPolicy != nil {
		pv.Spec.PersistentVolumeReclaimPolicy = *o.StorageClass.ReclaimPolicy
	}
	return pv, nil
}

func checkClaim(claim *corev1.PersistentVolumeClaim) error {
	if claim.Spec.Selector != nil {
		return errors.New("cannot provision: the claim has a selector; volumes of this class are made anew, so there is nothing to select")
	}
	for _, m := range claim.Spec.AccessModes {
		if m != corev1.ReadWriteOnce && m != corev1.ReadWriteOncePod {
			return fmt.Errorf("cannot provision: access mode %s is not possible for a directory on one node; use ReadWriteOnce or ReadWriteOncePod", m)
		}
	}
	return nil
}

// volumeSource is a local volume when claim or class ask for it (kubelet then applies fsGroup), else a hostPath.
func volumeSource(o controller.ProvisionOptions, path string) (corev1.PersistentVolumeSource, error) {
	kind := o.PVC.Annotations[volumeTypeAnnotation]
	if kind == "" {
		kind = o.StorageClass.Annotations[defaultTypeAnnotation]
	}
	switch strings.ToLower(kind) {
	case "local":
		return corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}}, nil
	case "", "hostpath":
		// A directory that has gone missing is then an error of the pod and not a new, empty volume.
		must := corev1.HostPathDirectory
		return corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &must}}, nil
	}
	return corev1.PersistentVolumeSource{}, fmt.Errorf("cannot provision: volume type %q, allowed are local and hostPath", kind)
}

// Delete removes the data. When its node has left the cluster nothing can be done about the data any more, and the volume is
// given up, so that it does not stay for ever.
func (p *provisioner) Delete(ctx context.Context, pv *corev1.PersistentVolume) error {
	path, err := pathOf(pv)
	if err != nil {
		return fmt.Errorf("cannot delete volume %s: %w; data left untouched", pv.Name, err)
	}
	node, err := p.nodeOf(ctx, pv)
	if err != nil {
		return fmt.Errorf("cannot delete volume %s: %w", pv.Name, err)
	}
	if node == "" {
		slog.Warn("node of volume is gone, its data stays on that machine", "volume", pv.Name, "path", path)
		return nil
	}
	config, err := loadConfig(p.configPath)
	if err != nil {
		return fmt.Errorf("cannot delete volume %s: %w; data left untouched", pv.Name, err)
	}
	storage, dir := filepath.Split(path)
	storage = filepath.Clean(storage)
	allowed, err := config.paths(node)
	if err != nil || !slices.Contains(allowed, storage) {
		return fmt.Errorf("cannot delete volume %s: %s is none of the storage directories of node %s (%q); data left untouched; "+
			"put the directory back into nodePathMap of the ConfigMap local-path-config, or delete volume and data by hand", pv.Name, storage, node, allowed)
	}
	if err := p.do(ctx, remove, node, storage, pv.Name, dir); err != nil {
		return err
	}
	slog.Info("volume removed", "volume", pv.Name, "node", node, "path", path)
	return nil
}

// pathOf is the volume's directory. The name has to begin with the volume's own name: a volume object that points
// elsewhere was not made here.
func pathOf(pv *corev1.PersistentVolume) (string, error) {
	var path string
	switch {
	case pv.Spec.Local != nil:
		path = pv.Spec.Local.Path
	case pv.Spec.HostPath != nil:
		path = pv.Spec.HostPath.Path
	default:
		return "", errors.New("it is neither a local nor a hostPath volume")
	}
	if filepath.Clean(path) != path || !strings.HasPrefix(filepath.Base(path), pv.Name+"_") {
		return "", fmt.Errorf("its path %s is not one that this provisioner makes (.../%s_NAMESPACE_CLAIM)", path, pv.Name)
	}
	return path, nil
}

// nodeOf is the name of the node that has the data, or "" when the cluster has no such node.
func (p *provisioner) nodeOf(ctx context.Context, pv *corev1.PersistentVolume) (string, error) {
	if name := pv.Annotations[selectedNodeAnnotation]; name != "" {
		_, err := p.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return "", nil
		}
		return name, err
	}
	// Volumes of older provisioners have only the affinity, whose value is a label and not always the node's name.
	host, err := affinityHost(pv)
	if err != nil {
		return "", err
	}
	nodes, err := p.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: corev1.LabelHostname + "=" + host})
	if err != nil {
		return "", fmt.Errorf("cannot look up node with hostname %s: %w", host, err)
	}
	switch len(nodes.Items) {
	case 0:
		return "", nil
	case 1:
		return nodes.Items[0].Name, nil
	}
	return "", fmt.Errorf("%d nodes have the hostname label %s", len(nodes.Items), host)
}

func affinityHost(pv *corev1.PersistentVolume) (string, error) {
	if a := pv.Spec.NodeAffinity; a != nil && a.Required != nil {
		for _, term := range a.Required.NodeSelectorTerms {
			for _, e := range term.MatchExpressions {
				if e.Key == corev1.LabelHostname && e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 {
					return e.Values[0], nil
				}
			}
		}
	}
	return "", fmt.Errorf("it has neither the annotation %s nor an affinity to one %s", selectedNodeAnnotation, corev1.LabelHostname)
}

// do runs op in this process when the directory is mounted here, else on the node.
func (p *provisioner) do(ctx context.Context, op operation, node, storage, pv, dir string) error {
	if node == p.nodeName && storage == p.storagePath {
		return op.run(storage, dir)
	}
	return p.onNode(ctx, op, node, storage, pv, dir)
}

func (op operation) run(storage, dir string) error {
	switch op {
	case create:
		return createVolume(storage, dir)
	case remove:
		return removeVolume(storage, dir)
	}
	return fmt.Errorf("cannot %s a volume: known operations are %s and %s", op, create, remove)
}
